"""What a retrieve is after, and how far it is: instance by instance where the archive lists them, else by number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, field, replace

from dicomferry.models.record.archive.here import Found
from dicomferry.models.record.archive.identity import KnownFile
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import leases
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.retrieves import blind, expected
from dicomferry.models.record.retrieves.request import Request
from dicomferry.models.rules import rounds
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.proof import Depth
from dicomferry.models.rules.rounds import Ask, Capabilities
from dicomferry.models.rules.state import ItemState
from dicomferry.models.rules.target import Target
from dicomferry.workers.dimse.reports import Report
from dicomferry.workers.receiving.sight import Sight


@dataclass
class Goal(ABC):
    """How far a request is. Its methods read and write the record; they raise LeaseLost and OutOfReach.

    `max_uids` is how many SOP Instance UIDs its archive takes in one request.
    """

    database: Database
    lease: Lease
    request: Request
    max_uids: int

    @abstractmethod
    def mark(self) -> int:
        """Write down what has come; how much of it is new."""

    @abstractmethod
    def is_reached(self) -> bool:
        """Whether everything is here, as of the last `mark`."""

    @abstractmethod
    def asks(self, fineness: int, limits: Capabilities, put_off: Set[int]) -> list[Ask]:
        """The requests that bring what is missing, but for the items that are put off."""

    @abstractmethod
    def has(self, ask: Ask) -> bool:
        """Whether all that a request was to bring is here, as of the last `mark`."""

    def missing_of(self, ask: Ask) -> int:
        """How many of the items that a request was to bring are not here, as of the last `mark`."""
        return 0

    @abstractmethod
    def hear(self, ask: Ask, report: Report) -> None:
        """The archive's final answer to a request."""

    def judge_elsewhere(self) -> None:
        """Fail the items whose instance came under another study or series; where that can be seen."""
        return

    def give_up(self, items: Collection[int], reason: str | None, detail: str | None) -> None:
        """Fail these items, those of them that are still missing."""
        lost = [
            Outcome(item_id=one.item_id, state=ItemState.FAILED, reason=reason, detail=detail, charges=one.charges)
            for one in expected.missing(self.database, self.lease.chunk_id)
            if one.item_id in items
        ]
        leases.record(self.database, self.lease, lost)


@dataclass
class ItemByItem(Goal):
    """What goals have in common whose instances are items, because the archive has listed them."""

    missing: list[rounds.Missing] = field(default_factory=list, kw_only=True)

    def give_up(self, items: Collection[int], reason: str | None, detail: str | None) -> None:
        """Fail these items, which are missing no longer."""
        super().give_up(items, reason, detail)
        self.missing = [one for one in self.missing if one.item_id not in items]

    def is_reached(self) -> bool:
        """No item waits."""
        return not self.missing

    def asks(self, fineness: int, limits: Capabilities, put_off: Set[int]) -> list[Ask]:
        """As few as will do."""
        return rounds.asks(
            self.request.targets,
            [one for one in self.missing if one.item_id not in put_off],
            expected.totals(self.database, self.lease.chunk_id),
            fineness=fineness,
            max_uids=self.max_uids,
            limits=limits,
        )

    def missing_of(self, ask: Ask) -> int:
        """Those of its items that wait."""
        return len({one.item_id for one in self.missing}.intersection(ask.items))

    def has(self, ask: Ask) -> bool:
        """None of its items waits."""
        return {one.item_id for one in self.missing}.isdisjoint(ask.items)


def seen(sight: Sight, found: Sequence[Found], looked_at: set[int]) -> list[Found]:
    """Those whose file is there, which are noted in `looked_at`. Raises OutOfSight."""
    if not found:
        return []
    fine = sight.keep([KnownFile(one.instance_id, one.path, one.size, one.latest) for one in found])
    looked_at |= fine
    return [one for one in found if one.instance_id in fine]


@dataclass
class Listed(ItemByItem):
    """They are to come here."""

    refetch: bool
    after: int
    """The last arrival of anybody before this attempt: what came later was on disk a moment ago."""
    sight: Sight
    looked_at: set[int]

    def mark(self) -> int:
        """Bring to their end the items whose instance is here, seen where it did not just come; how many came."""
        lease = self.lease
        found = self.database.read(lambda c: expected.arrived(c, lease, refetch=self.refetch))
        fresh = [one for one in found if one.came_after(self.after)]
        old = seen(self.sight, [one for one in found if not one.came_after(self.after)], self.looked_at)
        expected.mark_arrived(self.database, lease, [*fresh, *old])
        if fresh or old or not self.missing:
            self.missing = expected.missing(self.database, lease.chunk_id)
        return len(fresh)

    def judge_elsewhere(self) -> None:
        """Fail the items whose instance came for this job under another study or series: it is not asked for again."""
        if self.missing and expected.fail_elsewhere(self.database, self.lease):
            self.missing = expected.missing(self.database, self.lease.chunk_id)

    def hear(self, ask: Ask, report: Report) -> None:
        """What it says of numbers proves nothing that the items do not."""


@dataclass
class Unlisted(Goal):
    """What goals have in common whose instances nobody lists: each target is asked for as it is."""

    reports: dict[Ask, Report] = field(default_factory=dict, kw_only=True)

    @property
    @abstractmethod
    def came(self) -> int:
        """How many instances are known to have come, or are said to have been sent."""

    @property
    def targets(self) -> list[Target]:
        """Those that were not listed down to their images."""
        whole = self.request.expectation
        return [one for one in self.request.targets if (one.depth or whole) != Depth.IMAGES]

    @abstractmethod
    def is_there(self, one: Target) -> bool:
        """Whether all of a target is where it should be, as far as anybody can tell."""

    def is_reached(self) -> bool:
        """Whether all of each target is."""
        return all(map(self.is_there, self.targets))

    def asks(self, fineness: int, limits: Capabilities, put_off: Set[int]) -> list[Ask]:
        """Each target as it is: none of its instances is known."""
        wanted = [one for one in self.targets if not self.is_there(one)]
        return rounds.blind(wanted, fineness=fineness, max_uids=self.max_uids, limits=limits)

    def has(self, ask: Ask) -> bool:
        """Nobody can tell before the answer."""
        return False

    def hear(self, ask: Ask, report: Report) -> None:
        """Its number is what is to be there."""
        self.reports[ask] = report

    def is_depth(self, one: Target, depth: Depth) -> bool:
        """How far a target was listed."""
        return (one.depth or self.request.expectation) == depth

    def answers(self, one: Target) -> list[Report]:
        """The answers to the requests for a target."""
        found = [report for ask, report in self.reports.items() if _same(ask.target, one)]
        good = all(report.status == 0 and not report.failed for report in found)
        return found if good else []


def _same(asked: Target, one: Target) -> bool:
    """Whether a request was for a target, or for a part of its list of images."""
    return replace(asked, images=()) == replace(one.bare, images=()) and set(asked.images) <= set(one.images)


@dataclass
class Blind(Unlisted):
    """The archive tells a number (`counts`), or nothing at all: what has come is counted."""

    refetch: bool
    after: int
    """The last arrival of anybody before this attempt: what comes later and belongs to nobody may be ours."""
    sight: Sight
    looked_at: set[int]
    here: dict[Target, int] = field(default_factory=dict)

    def mark(self) -> int:
        """Make items of what has come."""
        before = self.came
        for one in self.targets:
            self.keep(one, after=None if self.is_depth(one, Depth.COUNTS) else self.after)
            alone = len(self.request.targets) == 1
            self.here[one.bare] = expected.came(self.database, self.lease.chunk_id, None if alone else one)
        return self.came - before

    def keep(self, one: Target, *, after: int | None) -> None:
        """Make items of what lies here of a target, seen where it did not just come; `after` as in `blind_store`."""
        found = blind.archived(self.database, self.lease, one, refetch=self.refetch, after=after)
        new = blind.unnamed(self.database, self.lease, self.request.item_id, found)
        old = seen(self.sight, [kept.file for kept in new if not kept.file.came_after(self.after)], self.looked_at)
        there = {file.instance_id for file in old}
        sure = [kept for kept in new if kept.file.came_after(self.after) or kept.file.instance_id in there]
        blind.add_archived(self.database, self.lease, self.request.item_id, sure)

    @property
    def came(self) -> int:
        """How many instances of these targets are here."""
        return sum(self.here.values())

    def is_there(self, one: Target) -> bool:
        """The number that was told is here; where none was, each answer was a success and its number is here."""
        here = self.here.get(one.bare, 0)
        if self.is_depth(one, Depth.COUNTS):
            return here >= (one.count or 0)
        told = self.answers(one)
        return bool(told) and 0 < here >= sum(report.completed or 0 for report in told)


@dataclass
class Mixed(Goal):
    """Some of it was listed, and of the rest a number at most is known: `listed` and `rest` each to their end."""

    listed: ItemByItem
    rest: Unlisted

    def mark(self) -> int:
        """Of both."""
        return self.rest.mark() + self.listed.mark()

    def judge_elsewhere(self) -> None:
        """Of those that were listed."""
        self.listed.judge_elsewhere()

    def give_up(self, items: Collection[int], reason: str | None, detail: str | None) -> None:
        """Of those that were listed."""
        self.listed.give_up(items, reason, detail)

    def is_reached(self) -> bool:
        """No item waits, and the rest is there."""
        return self.listed.is_reached() and self.rest.is_reached()

    def asks(self, fineness: int, limits: Capabilities, put_off: Set[int]) -> list[Ask]:
        """At first whatever is not listed as it is, with what of it is; then what is missing of all that was listed."""
        whole = self.rest.asks(fineness, limits, put_off)
        covered: set[int] = set()
        if fineness == rounds.WHOLE:
            for place, ask in enumerate(whole):
                mine = [one for one in self.listed.missing if ask.target.holds(one.study, one.series)]
                whole[place] = replace(ask, items=tuple(one.item_id for one in mine))
                covered.update(whole[place].items)
        return whole + self.listed.asks(fineness, limits, put_off | covered)

    def has(self, ask: Ask) -> bool:
        """None of its items waits, and nothing else was to come with it."""
        return not self._is_of_rest(ask) and self.listed.has(ask)

    def _is_of_rest(self, ask: Ask) -> bool:
        return any(_same(ask.target, one) for one in self.rest.targets)

    def hear(self, ask: Ask, report: Report) -> None:
        """Whoever it concerns."""
        if self._is_of_rest(ask):
            self.rest.hear(replace(ask, items=()), report)
        if ask.items:
            self.listed.hear(ask, report)
