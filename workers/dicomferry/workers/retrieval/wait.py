"""Waiting until nothing comes any more, and what is still missing then: the third phase of an attempt at a retrieve.

What is missing is waited for, asked for again by a later attempt, or given up.
"""

from __future__ import annotations

from dicomferry.models.record import presence
from dicomferry.models.record.archive import calls
from dicomferry.models.record.archive.pairing import NOT_DELIVERED, NOT_YET
from dicomferry.models.record.retrieves import expected, moves
from dicomferry.models.rules import retry
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Rule, local
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.situation import Round
from dicomferry.workers.attempts.fault import Fault
from dicomferry.workers.finding import listing
from dicomferry.workers.retrieval import blame, charge, last_look, refusals, requests, slow_media, watch
from dicomferry.workers.retrieval.blame import End, Lost
from dicomferry.workers.retrieval.completeness import Mixed, Unlisted
from dicomferry.workers.retrieval.elsewhere import Elsewhere
from dicomferry.workers.retrieval.progress import Progress
from dicomferry.workers.retrieval.requests import sentence_of
from dicomferry.workers.retrieval.situation import Situation


def wait(situation: Situation, progress: Progress) -> End | None:
    """See what was asked for come; how the attempt ends where not all of it has. Raises Fault, Stopped."""
    if progress.asked and not _is_in_vain(situation):
        watch.until_quiet(situation, progress)
    progress.goal.judge_elsewhere()
    situation.lines.hang_up()
    if progress.goal.is_reached():
        return None
    end = _round_is_over(situation, progress)
    if end.cause is None:
        last_look.look(situation, progress)
    return end


def _is_in_vain(situation: Situation) -> bool:
    """Whether it goes elsewhere, and the archive has answered all requests of the chunk with a failure and begun
    nothing: then nothing is under way that could be waited for.
    """
    if not situation.goes_elsewhere:
        return False
    former = moves.moves_of(situation.database, situation.lease.chunk_id)
    return bool(former) and all(
        move.status is not None
        and not move.has_begun
        and lookup.for_status("move", move.status, situation.remote.quirks).rule in (Rule.AGAIN, Rule.FINAL)
        for move in former
    )


def _round_is_over(situation: Situation, progress: Progress) -> End:
    """How the attempt ends that has asked for all it could. Raises Fault."""
    if situation.comes_here and progress.asked and not _still_live(situation):
        raise Fault(local(Reason.STORAGE_SCP_WAS_RESTARTED))
    ours = refusals.refused_here(situation, progress)
    if ours is not None:
        raise ours
    waits = slow_media.wait(situation, progress)
    if waits is not None:
        return waits
    if situation.comes_here and not progress.came:
        requests.raise_blame(situation, progress)
    counted = progress.request.rounds + 1
    in_vain = _is_in_vain(situation)
    if counted >= (retry.MAX_ROUNDS_IN_VAIN if in_vain else retry.MAX_ROUNDS):
        return _given_up(situation, progress, counted)
    cause = Round(answer=local(NOT_YET), pause=_pause(situation, counted, in_vain=in_vain))
    detail = sentence_of(progress.reports[-1]) if progress.reports else None
    return End(cause=cause, detail=detail, rounds=counted)


def _pause(situation: Situation, counted: int, *, in_vain: bool) -> float:
    """The archive gets time: `quiet` seconds after the first round, `settle` after another; less where it has nothing
    under way.
    """
    times = situation.remote.timeouts
    if counted > 1:
        return times.settle
    return retry.delay(1, jitter=situation.environment.jitter(), policy=situation.policy) if in_vain else times.quiet


def _still_live(situation: Situation) -> bool:
    """Whether the storage SCPs live that did when the attempt began.

    One that has just died counts as living for a while; by the end of the quiet it has missed a beat.
    """
    return situation.scps <= calls.living_scps(situation.database, within=2.5 * presence.BEAT_SECONDS)


def _given_up(situation: Situation, progress: Progress, counted: int) -> End:
    """The last round is over: what is missing is not delivered, or not there any more."""
    detail = _last_words(situation, progress)
    goal = progress.goal
    failure = None
    if isinstance(goal, Mixed):
        failure = None if goal.rest.is_reached() else _of_unlisted(progress, goal.rest.came, detail)
        goal = goal.listed
    if isinstance(goal, Unlisted):
        return End(failure=_of_unlisted(progress, goal.came, detail), rounds=counted)
    missing = expected.missing(situation.database, situation.lease.chunk_id)
    found = slow_media.look(situation, progress)
    taken, _ = blame.seen_from(situation.database, situation.callers, situation.last_call)
    lost = Lost(
        detail=detail,
        gone=listing.gone(found.listing, missing),
        named=frozenset(uid for report in progress.reports for uid in report.failed_uids),
        refused=blame.refused_classes(taken) if situation.comes_here else frozenset(),
        unseen=frozenset(goal.sent) if isinstance(goal, Elsewhere) else frozenset(),
    )
    return End(lost=lost, failure=failure, detail=detail, rounds=counted)


def _last_words(situation: Situation, progress: Progress) -> str | None:
    """What the archive said at last, and what our side did of what it sent."""
    reports = progress.reports
    bad = [report for report in reports if report.status or report.failed]
    detail = sentence_of((bad or reports)[-1]) if reports else None
    detail = "; ".join(filter(None, (detail, refusals.sentence(refusals.note(situation, progress))))) or None
    if situation.goes_elsewhere and not any(report.done for report in reports):
        # Archives answer Cxxx to an unknown destination as well.
        detail = f"{detail or 'no answer'}; does it know AE title {situation.spec.destination} as a destination?"
    return detail


def _of_unlisted(progress: Progress, came: int, detail: str | None) -> Outcome:
    """The failure of a request whose instances nobody lists."""
    number = progress.request.expected
    told = f"{came} of {'an unknown number' if number is None else number} came; {detail or ''}".rstrip("; ")
    return charge.failure(progress.request, NOT_DELIVERED if came else Reason.NOTHING_DELIVERED, told)
