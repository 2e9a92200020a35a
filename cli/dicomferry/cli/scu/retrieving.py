"""What C-MOVE and C-GET have in common here: wait for the last answer, and judge it by what has come."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from dicomferry.cli.scu.invocation import Invocation
from dicomferry.cli.scu.messages import Messages
from dicomferry.cli.scu.progress import Progress
from dicomferry.cli.scu.query import Query
from dicomferry.cli.scu.recording import Recording
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.errors import DimseError, DimseTimeout
from dicomferry.models.rules.proof import Verified
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.state import ItemState
from dicomferry.workers.dimse.reports import Report, Retrieval

POLL_SECONDS = 0.5
DONE = 0x0000
SOME_FAILED = 0xB000
UNKNOWN_DESTINATION = 0xA801


@dataclass(frozen=True)
class RetrieveEnd:
    """How a retrieve ended at the peer: its last answer, and how many instances it should have sent.

    `sent` is what that answer says, or where it holds no counters, what those before it said.
    """

    final: Report
    sent: int
    failed: int

    @property
    def is_good(self) -> bool:
        """Success, and no sub-operation failed."""
        return self.final.status == DONE and not self.failed


def describe(invocation: Invocation, query: Query, say: Messages) -> None:
    """Print, with -D, what is asked for. Only then are the data dictionary's names loaded."""
    if invocation.debug:
        from dicomferry.cli.scu import dump

        text = dump.text(query.identifier, query.charset)
        say.detail(f"C-{invocation.mode.upper()} by {invocation.calling} with\n{text}")


def follow_or_cancel(
    asked: Retrieval, moved: Callable[[], int], peer: str, invocation: Invocation, progress: Progress
) -> RetrieveEnd:
    """Follow a retrieve as `follow` does, raising the same; an interruption tells the peer not to go on."""
    try:
        return follow(asked, moved, invocation.dimse_seconds, progress, peer)
    except DimseError:
        raise
    except BaseException:
        with contextlib.suppress(DimseError):
            asked.cancel()
        raise


def follow(asked: Retrieval, moved: Callable[[], int], seconds: float, progress: Progress, peer: str) -> RetrieveEnd:
    """Wait for the last answer as long as something moves: answers, or what `moved` counts.

    Raises DimseTimeout after so many seconds of silence, AssociationAborted, ProtocolViolation.
    """
    total, last, since, phase = 0, moved(), time.monotonic(), "first_answer"
    while True:
        report = asked.poll(POLL_SECONDS)
        progress.tick()
        now = time.monotonic()
        if report is not None:
            total = max(total, report.done + (report.remaining or 0))
            progress.total = total or None
            since, phase = now, "progress"
            if report.is_final:
                return _ended(report, total)
        elif moved() != last:
            last, since = moved(), now
        elif now - since >= seconds:
            error = DimseTimeout(phase, seconds)
            error.args = (f"{peer}: {error}",)
            raise error


def _ended(final: Report, total: int) -> RetrieveEnd:
    failed = max(final.failed or 0, len(final.failed_uids))
    counted = any(number is not None for number in (final.completed, final.warning))
    sent = (final.completed or 0) + (final.warning or 0) if counted else total - failed
    return RetrieveEnd(final, sent if counted or final.status == DONE else 0, failed)


def why_not(asked: Invocation, ended: RetrieveEnd, came: int, called: bool) -> str | None:
    """What is wrong with a retrieve's end, in one line; None where nothing is.

    `came` instances are on disk; `called` tells whether anybody has called for that.
    """
    final, service = ended.final, asked.mode
    if ended.is_good and came >= ended.sent:
        return None
    parts = [f"status {final.status:04X}"]
    reason = lookup.for_status(service, final.status).reason
    if reason and not reason.startswith("status"):
        parts[0] += f" ({reason})"
    if final.comment:
        parts.append(final.comment)
    if ended.failed:
        parts.append(f"{ended.failed} of {ended.failed + ended.sent} instances failed there")
    if came < ended.sent:
        parts.append(f"it says that it sent {ended.sent}, and {came} came")
    if service == "move" and (final.status == UNKNOWN_DESTINATION or not called):
        parts.append(f"it has to know AE title {asked.calling} with this host and port {asked.port_scp}")
    return f"{asked.called}@{asked.address}: C-{service.upper()} ended with {'; '.join(parts)}"


def judge(
    asked: Invocation,
    ended: RetrieveEnd,
    came: int,
    called: bool,
    progress: Progress,
    journal: Recording,
) -> None:
    """Say what is wrong, if anything is, and write down what there is. See `why_not`."""
    wrong = why_not(asked, ended, came, called)
    if wrong:
        progress.failed = max(progress.failed, ended.failed)
        progress.failure(wrong)
    reason = lookup.for_status(asked.mode, ended.final.status).reason
    journal.request(
        asked,
        ItemState.FAILED if wrong else ItemState.SUCCEEDED,
        status=ended.final.status,
        reason=reason or (Reason.INCOMPLETE if wrong else None),
        detail=wrong,
        # A retry of the queue finds out for itself what there is.
        expectation=None if wrong else "counts",
        verified=None if wrong else Verified.COUNTS,
        expected=None if wrong else ended.sent,
    )
