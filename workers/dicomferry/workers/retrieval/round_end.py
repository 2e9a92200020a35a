"""What is still missing when each request was answered: waited for, asked for again, or given up."""

from __future__ import annotations

from dicomferry.models.record import presence
from dicomferry.models.record.archive import calls
from dicomferry.models.record.archive.pairing import NOT_DELIVERED, NOT_YET
from dicomferry.models.record.retrieves import expected as request_store
from dicomferry.models.rules import retry
from dicomferry.models.rules.answers.lookup import local
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.situation import Round
from dicomferry.models.rules.state import ItemState
from dicomferry.models.rules.text import printable
from dicomferry.workers.attempts.fault import Fault
from dicomferry.workers.finding import listing
from dicomferry.workers.retrieval import blame, refusals
from dicomferry.workers.retrieval.blame import End, Lost
from dicomferry.workers.retrieval.completeness import Mixed, Unlisted
from dicomferry.workers.retrieval.elsewhere import Elsewhere
from dicomferry.workers.retrieval.requests import Asking, sentence_of
from dicomferry.workers.retrieval.slow_media import Media


def round_is_over(asking: Asking, media: Media, scps: frozenset[int]) -> End:
    """How the attempt ends; `scps` are the storage SCPs that lived when it began. Raises Fault."""
    if asking.comes_here and asking.asked and not _still_live(asking, scps):
        raise Fault(local(Reason.STORAGE_SCP_WAS_RESTARTED))
    ours = asking.refused_here()
    if ours is not None:
        raise ours
    waits = media.wait()
    if waits is not None:
        return waits
    if asking.comes_here and not asking.watch.came:
        asking.raise_blame()
    counted = asking.state.rounds + 1
    in_vain = asking.is_in_vain()
    if counted >= (retry.MAX_ROUNDS_IN_VAIN if in_vain else retry.MAX_ROUNDS):
        return _given_up(asking, media, counted)
    cause = Round(answer=local(NOT_YET), pause=_pause(asking, counted, in_vain=in_vain))
    detail = sentence_of(asking.reports[-1]) if asking.reports else None
    return End(cause=cause, detail=detail, rounds=counted)


def _pause(asking: Asking, counted: int, *, in_vain: bool) -> float:
    """The archive gets time: `quiet` seconds after the first round, `settle` after another; less where it has nothing
    under way.
    """
    times, policy = asking.remote.timeouts, asking.environment.settings.retry.value()
    if counted > 1:
        return times.settle
    return retry.delay(1, jitter=asking.environment.jitter(), policy=policy) if in_vain else times.quiet


def _still_live(asking: Asking, scps: frozenset[int]) -> bool:
    """One that has just died counts as living for a while; by the end of the quiet it has missed a beat."""
    return scps <= calls.living_scps(asking.database, within=2.5 * presence.BEAT_SECONDS)


def _given_up(asking: Asking, media: Media, counted: int) -> End:
    """The last round is over: what is missing is not delivered, or not there any more."""
    bad = [report for report in asking.reports if report.status or report.failed]
    detail = sentence_of((bad or asking.reports)[-1]) if asking.reports else None
    detail = "; ".join(filter(None, (detail, refusals.sentence(asking.refused())))) or None
    if asking.spec.kind == Kind.MOVE and not asking.comes_here and not any(report.done for report in asking.reports):
        # Archives answer Cxxx to an unknown destination as well.
        detail = f"{detail or 'no answer'}; does it know AE title {asking.spec.destination} as a destination?"
    goal = asking.goal
    failure = None
    if isinstance(goal, Mixed):
        failure = None if goal.rest.is_reached() else _of_unlisted(asking, goal.rest.came, detail)
        goal = goal.listed
    if isinstance(goal, Unlisted):
        return End(failure=_of_unlisted(asking, goal.came, detail), rounds=counted)
    missing = request_store.missing(asking.database, asking.lease.chunk_id)
    media.look()
    taken, _ = blame.seen_from(asking.database, asking.callers, asking.call_mark)
    unseen: frozenset[int] = frozenset()
    if isinstance(goal, Elsewhere):
        unseen = frozenset(goal.sent)
    lost = Lost(
        detail=detail,
        gone=listing.gone(media.listing, missing),
        named=frozenset(uid for report in asking.reports for uid in report.failed_uids),
        refused=blame.refused_classes(taken) if asking.comes_here else frozenset(),
        unseen=unseen,
    )
    return End(lost=lost, failure=failure, detail=detail, rounds=counted)


def _of_unlisted(asking: Asking, came: int, detail: str | None) -> Outcome:
    """The failure of a request whose instances nobody lists."""
    row = asking.state
    expected = "an unknown number" if row.expected is None else row.expected
    return Outcome(
        item_id=row.item_id,
        state=ItemState.FAILED,
        reason=NOT_DELIVERED if came else Reason.NOTHING_DELIVERED,
        detail=printable(f"{came} of {expected} came; {detail or ''}".rstrip("; ")),
        charges=row.charges,
    )
