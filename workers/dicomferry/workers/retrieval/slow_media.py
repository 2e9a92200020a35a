"""What an archive has on slow media: asked for once, which recalls it, then looked for until it is back.

InstanceAvailability (PS3.3 C.4.23.1.1): NEARLINE takes time, OFFLINE takes a person, UNAVAILABLE cannot be retrieved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dicomferry.models.record.archive.pairing import NEARLINE, UNAVAILABLE
from dicomferry.models.record.retrieves import expected
from dicomferry.models.rules import retry
from dicomferry.models.rules.answers.lookup import Rule, local
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.rounds import Missing
from dicomferry.models.rules.situation import Recall
from dicomferry.models.rules.state import ItemState
from dicomferry.workers.attempts.fault import Fault
from dicomferry.workers.finding import listing as expectation
from dicomferry.workers.retrieval.blame import End
from dicomferry.workers.retrieval.completeness import Unlisted
from dicomferry.workers.retrieval.progress import Progress, Whereabouts
from dicomferry.workers.retrieval.situation import Situation

SLOW = frozenset({"NEARLINE", "OFFLINE"})
LOST = "UNAVAILABLE"
_PASSING = frozenset({Rule.BROKEN, Rule.CONGESTED, Rule.AGAIN, Rule.DOUBTFUL})
"""Answers that an archive may give because what was asked for is not at hand."""
_SHELF = "the archive has it on a shelf (OFFLINE): somebody there has to load the media; it is looked for by itself"
_HELD = "it was not brought back for so long: ask the archive's administrator to bring it online, then release"


def look(situation: Situation, progress: Progress) -> Whereabouts:
    """Where the archive says that the instances lie; asked again unless nothing was asked for, and nothing new was
    listed, since it was. Raises FindStopped, LeaseLost.
    """
    asked_after = (progress.asked, progress.request.targets)
    if progress.whereabouts.asked_after != asked_after:
        targets = progress.request.targets
        listing = expectation.now(situation.remote, situation.spec.root, targets, situation.heart)
        instances = listing.instances if listing else ()
        words = {one.kept_key: one.availability for one in instances if one.availability}
        progress.whereabouts = Whereabouts(asked_after, listing, words)
    return progress.whereabouts


def is_waited_for(situation: Situation) -> bool:
    """Whether a former attempt has asked for what is on slow media, and there is time left to wait for it."""
    if situation.lease.waiting_since is None or _is_tired(situation):
        return False
    return bool(expected.recalled(situation.database, situation.lease.chunk_id))


def put_off(situation: Situation, progress: Progress) -> bool:
    """Ask no more for what lies there; whether that is something new."""
    before = len(progress.put_off), progress.all_put_off
    found = look(situation, progress)
    progress.put_off |= {one.item_id for one in _missing(situation) if found.words.get(one.key) in {*SLOW, LOST}}
    progress.all_put_off = _is_blind(progress) and _is_slow(found)
    return (len(progress.put_off), progress.all_put_off) != before


def put_off_for(situation: Situation, progress: Progress, found: Fault) -> bool:
    """Put off what lies on slow media, if that may be this fault's reason; whether anything new was put off."""
    rejected = found.answer.reason == Reason.ARCHIVE_WAS_REJECTED_HERE  # so it had something to send
    if rejected or found.answer.rule not in _PASSING or _is_all_online(progress):
        return False
    return put_off(situation, progress)


def wait(situation: Situation, progress: Progress) -> End | None:
    """The end of an attempt that has asked for all that it can; None where nothing is on slow media.

    What cannot be retrieved at all has failed after it.
    """
    if _is_all_online(progress):
        return None
    found = look(situation, progress)
    lost = [one.item_id for one in _missing(situation) if found.words.get(one.key) == LOST]
    if lost:
        progress.goal.give_up(lost, UNAVAILABLE, "the archive says UNAVAILABLE")
        if progress.goal.is_reached():
            return End()
    missing = [one for one in _missing(situation) if found.words.get(one.key) in SLOW]
    if not missing and not (_is_blind(progress) and _is_slow(found)):
        return None
    return _waits(situation, progress, missing)


def _waits(situation: Situation, progress: Progress, missing: list[Missing]) -> End:
    found = progress.whereabouts
    shelved = "OFFLINE" in (found.words[one.key] for one in missing) or (
        _is_blind(progress) and found.listing is not None and "OFFLINE" in found.listing.availabilities
    )
    cause = Recall(
        answer=local(NEARLINE, _SHELF if shelved else None),
        given_up=local(NEARLINE, _HELD),
        settle=situation.remote.timeouts.settle,
        anew=progress.came > 0,
    )
    outcomes = list(_noted(situation, progress, missing))
    return End(cause=cause, detail=_told(found, missing), outcomes=outcomes)


def _noted(situation: Situation, progress: Progress, missing: list[Missing]) -> Iterable[Outcome]:
    """Each instance that waits says so; the request where none is listed."""
    known = expected.recalled(situation.database, situation.lease.chunk_id)
    words = progress.whereabouts.words
    waiting = {one.item_id: (one.charges, f"the archive says {words[one.key]}") for one in missing}
    if _is_blind(progress):
        request = progress.request
        waiting[request.item_id] = (request.charges, "the archive does not say of which instance")
    for item_id, (charges, detail) in waiting.items():
        if item_id not in known:
            yield Outcome(
                item_id=item_id, state=ItemState.PENDING, reason=NEARLINE, detail=detail, charges=charges, tried=False
            )


def _told(found: Whereabouts, missing: list[Missing]) -> str:
    if not missing:
        words = sorted(SLOW & found.listing.availabilities) if found.listing else []
        return f"not all has come, and the archive says {' and '.join(words)}"
    counts = Counter(found.words[one.key] for one in missing)
    told = ", ".join(f"{number} {word}" for word, number in sorted(counts.items()))
    return f"of what is missing the archive has on slow media: {told}"


# --- what is known ----------------------------------------------------------------------------------------------------


def _is_all_online(progress: Progress) -> bool:
    """Whether the archive has just listed everything as at hand."""
    return progress.listing is not None and not progress.listing.availabilities & {*SLOW, LOST}


def _is_blind(progress: Progress) -> bool:
    """Whether nobody lists the instances."""
    return isinstance(progress.goal, Unlisted)


def _is_slow(found: Whereabouts) -> bool:
    """Whether something of the whole lies on slow media."""
    return found.listing is not None and bool(found.listing.availabilities & SLOW)


def _is_tired(situation: Situation) -> bool:
    return retry.is_tired(situation.lease.waiting_since, now=situation.now(), policy=situation.policy)


def _missing(situation: Situation) -> list[Missing]:
    return expected.missing(situation.database, situation.lease.chunk_id)
