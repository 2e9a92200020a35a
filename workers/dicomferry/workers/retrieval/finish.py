"""Writing down what came of one attempt at a retrieve: of each request of its chunk what it is called, and its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.engine import Connection

from dicomferry.models.record.jobs import plans
from dicomferry.models.record.retrieves import closing, expected, proofs, request
from dicomferry.models.record.retrieves.request import Request
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.proof import Finding
from dicomferry.models.rules.situation import Account
from dicomferry.models.rules.state import AttemptEnd
from dicomferry.models.rules.text import printable
from dicomferry.workers.receiving.sight import OutOfSight
from dicomferry.workers.retrieval import charge, last_look
from dicomferry.workers.retrieval.blame import End
from dicomferry.workers.retrieval.judge import conclude, of_each
from dicomferry.workers.retrieval.progress import Progress
from dicomferry.workers.retrieval.situation import Situation


@dataclass
class _Verdicts:
    """What becomes of the requests of a chunk, by their items: `closing` are those that may end now."""

    findings: dict[int, Finding] = field(default_factory=dict)
    failures: dict[int, Outcome] = field(default_factory=dict)
    closing: Sequence[int] = ()


def write(situation: Situation, progress: Progress, end: End) -> None:
    """Write down what came of an attempt. Raises LeaseLost, OutOfReach."""
    database, lease = situation.database, situation.lease
    situation.heart.progress(0)
    is_listed, is_pending = progress.request.is_listed, progress.request.is_pending
    whole = end.cause is None and end.end is AttemptEnd.COMPLETED and not (end.is_apart or end.is_ahead)
    if whole and is_listed and end.finding is None and is_pending:
        progress.request = request.of_chunk(database, lease.chunk_id)
        end = conclude(situation, progress, end)
    verdicts = _verdicts(situation, progress, end, whole=whole)

    def last(connection: Connection) -> None:
        if end.is_apart:
            plans.take_apart(connection, lease, database.now(connection), progress.request.item_ids[1:])
            return
        if is_listed and not situation.goes_elsewhere:
            # What came since the last look: with the job locked, nobody else sees to it.
            refetch, after = situation.spec.refetch, situation.last_arrival
            found = expected.arrived(connection, lease, refetch=refetch, after=after)
            expected.finish_items(connection, lease.chunk_id, found)
        proofs.conclude(connection, verdicts.findings)
        if verdicts.closing:
            missing_as = end.lost.outcome if end.lost else None
            closing.close(connection, lease, verdicts.closing, failures=verdicts.failures, missing_as=missing_as)

    account = Account(end=end.end, cause=end.cause, finished=progress.came, detail=printable(end.detail))
    situation.environment.end(
        lease,
        account,
        outcomes=end.outcomes,
        last=last if is_pending else None,
        values={} if end.rounds is None else {"round": end.rounds},
    )


def _verdicts(situation: Situation, progress: Progress, end: End, *, whole: bool) -> _Verdicts:
    found = progress.request
    is_over = bool(end.failure) or (found.is_listed and whole)
    if not found.shares:
        return _Verdicts(
            findings={found.item_id: end.finding} if end.finding else {},
            failures={found.item_id: end.failure} if end.failure else {},
            closing=found.item_ids if is_over else (),
        )
    if not found.is_listed or end.is_apart or end.is_ahead:
        return _Verdicts()
    if whole and end.finding and not end.finding.wanting and not end.failure:
        return _Verdicts(findings=dict.fromkeys(found.item_ids, end.finding), closing=found.item_ids)
    return _of_shares(situation, progress, end, is_over=is_over)


def _of_shares(situation: Situation, progress: Progress, end: End, *, is_over: bool) -> _Verdicts:
    """Requests that share a chunk end each by itself: what ails one is none of the others'. Until the chunk's end
    comes, those end all instances of which have theirs, and of which nothing is wanting.
    """
    found = progress.request
    settled = _settled(situation, progress)
    findings = of_each(situation, progress, settled)
    wanting = {
        one.item_id: charge.failure(one, finding.wanting, finding.detail)
        for one in settled
        if (finding := findings[one.item_id]).wanting
    }
    if not is_over:
        proven = {key: finding for key, finding in findings.items() if key not in wanting}
        return _Verdicts(findings=proven, closing=tuple(proven))
    # What the chunk failed of is for those of which something is missing.
    left = [one for one in found.shares if one.item_id not in findings]
    failures = {one.item_id: end.failure._replace(item_id=one.item_id) for one in left} if end.failure else {}
    findings |= of_each(situation, progress, left)
    return _Verdicts(findings=findings, failures=wanting | failures, closing=found.item_ids)


def _settled(situation: Situation, progress: Progress) -> list[Request]:
    """The requests all instances of which have their end; those that are here were looked at once more."""
    try:
        last_look.look(situation, progress)
    except OutOfSight:
        return []
    pending = expected.pending_requests(situation.database, situation.lease.chunk_id)
    return [one for one in progress.request.shares if one.item_id not in pending]
