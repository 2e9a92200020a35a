"""What a retrieve is after, and how far it is: instance by instance where the archive lists them, else by number."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dicomferry.models import blind_store, request_store, rounds
from dicomferry.models.archive_store import File
from dicomferry.models.claim import Claim
from dicomferry.models.database import Database
from dicomferry.models.here import Found
from dicomferry.models.request_store import State
from dicomferry.models.rounds import Ask, Limits
from dicomferry.workers.dimse.retrieval import Report
from dicomferry.workers.sight import Sight


class Goal(Protocol):
    """How far a request is. Its methods read and write the record; they raise LeaseLost and OutOfReach."""

    def mark(self) -> int:
        """Write down what has come; how much of it is new."""

    def is_reached(self) -> bool:
        """Whether everything is here, as of the last `mark`."""

    def asks(self, fineness: int, limits: Limits, put_off: Container[str]) -> list[Ask]:
        """The requests that bring what is missing, but for the instances that are put off."""

    def has(self, ask: Ask) -> bool:
        """Whether all that a request was to bring is here, as of the last `mark`."""

    def hear(self, ask: Ask, report: Report) -> None:
        """The archive's final answer to a request."""


@dataclass
class ItemByItem:
    """What goals have in common whose instances are items, because the archive has listed them."""

    database: Database
    held: Claim
    state: State
    max_uids: int
    missing: list[rounds.Missing] = field(default_factory=list, kw_only=True)

    def is_reached(self) -> bool:
        """No item waits."""
        return not self.missing

    def asks(self, fineness: int, limits: Limits, put_off: Container[str]) -> list[Ask]:
        """As few as will do."""
        return rounds.asks(
            self.state.targets,
            [one for one in self.missing if one.uid not in put_off],
            request_store.totals(self.database, self.held.chunk_id),
            fineness=fineness,
            max_uids=self.max_uids,
            limits=limits,
        )

    def has(self, ask: Ask) -> bool:
        """None of its items waits."""
        return {one.item_id for one in self.missing}.isdisjoint(ask.items)


def _seen(sight: Sight, found: Sequence[Found]) -> list[Found]:
    """Those whose file is there. Raises OutOfSight."""
    if not found:
        return []
    fine = sight.keep([File(one.instance_id, one.path, one.size, one.latest) for one in found])
    return [one for one in found if one.instance_id in fine]


@dataclass
class Listed(ItemByItem):
    """They are to come here."""

    refetch: bool
    after: int
    """The last arrival of anybody before this attempt: what came later was on disk a moment ago."""
    sight: Sight

    def mark(self) -> int:
        """Bring to their end the items whose instance is here, seen where it did not just come; how many came."""
        held = self.held
        found = self.database.read(lambda c: request_store.arrived(c, held, refetch=self.refetch))
        fresh = [one for one in found if one.came_after(self.after)]
        old = _seen(self.sight, [one for one in found if not one.came_after(self.after)])
        request_store.mark_arrived(self.database, held, [*fresh, *old])
        if fresh or old or not self.missing:
            self.missing = request_store.missing(self.database, held.chunk_id)
        return len(fresh)

    def judge_elsewhere(self) -> None:
        """Fail the items whose instance came for this job under another study or series: it is not asked for again."""
        if self.missing and request_store.fail_elsewhere(self.database, self.held):
            self.missing = request_store.missing(self.database, self.held.chunk_id)

    def hear(self, ask: Ask, report: Report) -> None:
        """What it says of numbers proves nothing that the items do not."""


@dataclass
class Blind:
    """The archive tells a number (`counts`), or nothing at all: what has come is counted."""

    database: Database
    held: Claim
    state: State
    refetch: bool
    max_uids: int
    after: int
    """The last arrival of anybody before this attempt: what comes later and belongs to nobody may be ours."""
    sight: Sight
    came: int = 0
    reports: dict[Ask, Report] = field(default_factory=dict)

    def mark(self) -> int:
        """Make items of what has come."""
        before = self.came
        counted = self.state.row.expectation == "counts"
        for one in self.state.targets:
            after = None if counted else self.after
            found = blind_store.archived(self.database, self.held, one, refetch=self.refetch, after=after)
            new = blind_store.unnamed(self.database, self.held, self.state.row.id, found)
            old = _seen(self.sight, [kept.file for kept in new if not kept.file.came_after(self.after)])
            seen = {file.instance_id for file in old}
            sure = [kept for kept in new if kept.file.came_after(self.after) or kept.file.instance_id in seen]
            blind_store.add_archived(self.database, self.held, self.state.row.id, sure)
        self.came = request_store.came(self.database, self.held.chunk_id)
        return self.came - before

    def is_reached(self) -> bool:
        """The number that was told is here; where none was, each answer was a success and its number is here."""
        if self.state.row.expectation == "counts":
            return self.came >= (self.state.row.expected or 0)
        told = self.reports.values()
        good = all(report.status == 0 and not report.failed for report in told)
        return bool(told) and good and 0 < self.came >= sum(report.completed or 0 for report in told)

    def asks(self, fineness: int, limits: Limits, put_off: Container[str]) -> list[Ask]:
        """Each target as it is: none of its instances is known."""
        return rounds.blind(self.state.targets, fineness=fineness, max_uids=self.max_uids, limits=limits)

    def has(self, ask: Ask) -> bool:
        """Nobody can tell before the answer."""
        return False

    def hear(self, ask: Ask, report: Report) -> None:
        """Its number is what is to be here."""
        self.reports[ask] = report
