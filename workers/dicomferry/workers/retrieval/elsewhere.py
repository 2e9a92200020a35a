"""A retrieve that goes to somebody else: nothing arrives here, so the destination is asked, or the archive believed."""

from __future__ import annotations

from dataclasses import dataclass, field

from dicomferry.models import telemetry
from dicomferry.models.record.jobs import leases
from dicomferry.models.record.retrieves import expected
from dicomferry.models.record.retrieves.expected import Key
from dicomferry.models.rules import rounds
from dicomferry.models.rules.errors import DimseError
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.rounds import Ask
from dicomferry.models.rules.state import ItemState
from dicomferry.models.rules.target import Target
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.dimse.find import FindStopped
from dicomferry.workers.dimse.reports import Report
from dicomferry.workers.finding import listing as expectation
from dicomferry.workers.retrieval.completeness import ItemByItem, Unlisted

UNVERIFIED = expected.UNVERIFIED

log = telemetry.logger(__name__)


@dataclass
class Elsewhere(ItemByItem):
    """They are to come to `destination`; None where that is no remote which could be asked."""

    heart: Heartbeat
    destination: Remote | None
    sent: dict[int, rounds.Missing] = field(default_factory=dict)
    """What the archive says it has sent, and the destination has not shown yet."""

    def mark(self) -> int:
        """Ask the destination for what was sent, and bring to their end the items that it has."""
        if not self.missing:
            self.missing = expected.missing(self.database, self.lease.chunk_id)
        if not self.sent:
            return 0
        found = self._found()
        good = [one for one in self.sent.values() if found is None or one.key in found]
        reason = UNVERIFIED if found is None else None
        leases.record(
            self.database,
            self.lease,
            [Outcome(item_id=one.item_id, state=ItemState.SUCCEEDED, reason=reason) for one in good],
        )
        for one in good:
            del self.sent[one.item_id]
        self.missing = expected.missing(self.database, self.lease.chunk_id)
        return len(good)

    def _found(self) -> frozenset[Key] | None:
        """What the destination lists of what was sent; None where it cannot be asked."""
        if self.destination is None:
            return None
        series: dict[rounds.Series, list[str]] = {}
        for one in self.sent.values():
            series.setdefault((one.study, one.series), []).append(one.uid)
        targets = [Target(study=study, series=own, images=tuple(uids)) for (study, own), uids in series.items()]
        try:
            listing = expectation.again(self.destination, "study", targets, self.heart)
        except DimseError as error:
            if isinstance(error, FindStopped):
                raise
            self.heart.require_lease()
            log.warning("the destination could not be asked", error=str(error))
            return None
        return frozenset(one.kept_key for one in listing.instances) if listing.depth == "images" else None

    def hear(self, ask: Ask, report: Report) -> None:
        """What was asked for, but for what it names as failed, counts as sent where the answer is a success.

        An answer of which the numbers are fewer than what was asked for names nobody, and of a list of images also one
        of which they are more: nothing tells which ones went.
        """
        named = set(report.failed_uids)
        sent = (report.completed or 0) + (report.warning or 0)
        if report.status not in (0x0000, 0xB000) or not sent:
            return
        if report.failed and len(named) < report.failed:
            return
        asked = set(ask.items)
        good = {one.item_id: one for one in self.missing if one.item_id in asked and one.uid not in named}
        if sent < len(good) or (ask.target.images and sent > len(ask.target.images)):
            return
        self.sent |= good


@dataclass
class Believed(Unlisted):
    """Nobody lists anything: the archive's own numbers are all there is."""

    @property
    def came(self) -> int:
        """How many instances the archive says it has sent."""
        return sum((report.completed or 0) + (report.warning or 0) for report in self.reports.values())

    def mark(self) -> int:
        """Nothing is seen here."""
        return 0

    def is_there(self, one: Target) -> bool:
        """Each request was answered with success, and as many were sent as it says it has; at least one."""
        sent = sum((report.completed or 0) + (report.warning or 0) for report in self.answers(one))
        return sent >= max(1, one.count or 0)
