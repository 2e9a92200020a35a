"""What an archive has on slow media: asked for once, which recalls it, then looked for until it is back.

InstanceAvailability (PS3.3 C.4.23.1.1): NEARLINE takes time, OFFLINE takes a person, UNAVAILABLE cannot be retrieved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from dicomferry.models.record.archive.pairing import NEARLINE, UNAVAILABLE
from dicomferry.models.record.retrieves import expected
from dicomferry.models.record.retrieves.expected import Key
from dicomferry.models.rules import retry
from dicomferry.models.rules.answers.lookup import Rule, local
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.rounds import Missing
from dicomferry.models.rules.situation import Recall
from dicomferry.models.rules.state import ItemState
from dicomferry.workers.attempts.fault import Fault
from dicomferry.workers.finding import listing as expectation
from dicomferry.workers.finding.listing import Listing
from dicomferry.workers.retrieval.blame import End
from dicomferry.workers.retrieval.completeness import ItemByItem
from dicomferry.workers.retrieval.requests import Asking

SLOW = frozenset({"NEARLINE", "OFFLINE"})
LOST = "UNAVAILABLE"
_PASSING = frozenset({Rule.BROKEN, Rule.CONGESTED, Rule.AGAIN, Rule.DOUBTFUL})
"""Answers that an archive may give because what was asked for is not at hand."""
_SHELF = "the archive has it on a shelf (OFFLINE): somebody there has to load the media; it is looked for by itself"
_HELD = "it was not brought back for so long: ask the archive's administrator to bring it online, then release"


@dataclass
class Media:
    """Where the archive says that the missing instances of an attempt lie; asked when something did not come.

    `first` is what it listed in this attempt, None where that was done before.
    """

    asking: Asking
    first: Listing | None
    listing: Listing | None = None
    """The last answer to the question."""
    asked: int = -1
    """How many requests there had been when it was put."""
    words: dict[Key, str] = field(default_factory=dict)
    """What it says of each instance."""

    def look(self) -> None:
        """Ask again, unless nothing was asked for since. Raises FindStopped, LeaseLost."""
        asking = self.asking
        if self.asked == asking.asked:
            return
        self.asked = asking.asked
        self.listing = expectation.now(asking.remote, asking.spec.root, asking.state.targets, asking.heart)
        self.words = {}
        if self.listing is not None:
            self.words = {one.kept_key: one.availability for one in self.listing.instances if one.availability}

    def is_waited_for(self) -> bool:
        """Whether a former attempt has asked for what is on slow media, and there is time left to wait for it."""
        asking = self.asking
        if asking.lease.waiting_since is None or self._is_tired():
            return False
        return bool(expected.recalled(asking.database, asking.lease.chunk_id))

    def put_off(self) -> bool:
        """Ask no more for what lies there; whether that is something new."""
        asking = self.asking
        before = len(asking.put_off), asking.all_put_off
        self.look()
        asking.put_off |= {one.item_id for one in self._missing() if self.words.get(one.key) in {*SLOW, LOST}}
        asking.all_put_off = self._is_blind and self._whole_is_slow()
        return (len(asking.put_off), asking.all_put_off) != before

    def put_off_for(self, found: Fault) -> bool:
        """Put off what lies on slow media, if that may be this fault's reason; whether anything new was put off."""
        rejected = found.answer.reason == Reason.ARCHIVE_WAS_REJECTED_HERE  # so it had something to send
        if rejected or found.answer.rule not in _PASSING or self._all_online:
            return False
        return self.put_off()

    def wait(self) -> End | None:
        """The end of an attempt that has asked for all that it can; None where nothing is on slow media.

        What cannot be retrieved at all has failed after it.
        """
        if self._all_online:
            return None
        asking = self.asking
        self.look()
        lost = [one.item_id for one in self._missing() if self.words.get(one.key) == LOST]
        if lost:
            asking.fail(lost, UNAVAILABLE, "the archive says UNAVAILABLE")
            if asking.goal.is_reached():
                return End()
        missing = [one for one in self._missing() if self.words.get(one.key) in SLOW]
        if not missing and not (self._is_blind and self._whole_is_slow()):
            return None
        return self._waits(missing)

    def _waits(self, missing: list[Missing]) -> End:
        asking = self.asking
        shelved = "OFFLINE" in (self.words[one.key] for one in missing) or (
            self._is_blind and self.listing is not None and "OFFLINE" in self.listing.availabilities
        )
        cause = Recall(
            answer=local(NEARLINE, _SHELF if shelved else None),
            given_up=local(NEARLINE, _HELD),
            settle=asking.remote.timeouts.settle,
            anew=asking.watch.came > 0,
        )
        return End(cause=cause, detail=self._told(missing), outcomes=list(self._noted(missing)))

    def _noted(self, missing: list[Missing]) -> Iterable[Outcome]:
        """Each instance that waits says so; the request where none is listed."""
        asking = self.asking
        known = expected.recalled(asking.database, asking.lease.chunk_id)
        waiting = {one.item_id: (one.charges, f"the archive says {self.words[one.key]}") for one in missing}
        if self._is_blind:
            row = asking.state
            waiting[row.item_id] = (row.charges, "the archive does not say of which instance")
        for item_id, (charges, detail) in waiting.items():
            if item_id not in known:
                yield Outcome(
                    item_id=item_id, state=ItemState.PENDING, reason=NEARLINE, detail=detail, charges=charges,
                    tried=False,
                )  # fmt: skip

    def _told(self, missing: list[Missing]) -> str:
        if not missing:
            words = sorted(SLOW & self.listing.availabilities) if self.listing else []
            return f"not all has come, and the archive says {' and '.join(words)}"
        counts = Counter(self.words[one.key] for one in missing)
        told = ", ".join(f"{number} {word}" for word, number in sorted(counts.items()))
        return f"of what is missing the archive has on slow media: {told}"

    # --- what is known

    @property
    def _all_online(self) -> bool:
        """The archive has just listed everything as at hand."""
        return self.first is not None and not self.first.availabilities & {*SLOW, LOST}

    @property
    def _is_blind(self) -> bool:
        return not isinstance(self.asking.goal, ItemByItem)

    def _whole_is_slow(self) -> bool:
        return self.listing is not None and bool(self.listing.availabilities & SLOW)

    def _is_tired(self) -> bool:
        asking = self.asking
        now = asking.database.read(asking.database.now)
        return retry.is_tired(asking.lease.waiting_since, now=now, policy=asking.environment.settings.retry.value())

    def _missing(self) -> list[Missing]:
        asking = self.asking
        return expected.missing(asking.database, asking.lease.chunk_id)
