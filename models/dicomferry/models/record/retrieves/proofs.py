"""The facts of a request as the record has them, for the rule in `proof` to judge; and what that found, written down.

Every write is fenced: it raises LeaseLost once somebody else has the chunk.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dicomferry.models.record.archive import here
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import leases
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.retrieves import moves as recorded_moves
from dicomferry.models.record.retrieves.expected import GREW
from dicomferry.models.record.retrieves.moves import Move
from dicomferry.models.record.retrieves.request import Request
from dicomferry.models.record.tables.archive import ArrivalRow, InstanceRow
from dicomferry.models.record.tables.jobs import ItemRow
from dicomferry.models.rules.batches import batches
from dicomferry.models.rules.proof import Depth, Facts, Finding, Part, PartSeen, Way
from dicomferry.models.rules.state import GOOD_ITEM_STATES
from dicomferry.models.rules.target import Target

WAITS, LISTED_AGAIN, ASKED_WHOLE = 1, 2, 3
"""How far a request got whose list is not whole (`item.relisted`)."""
_Query = sa.Select[*tuple[Any, ...]]


@dataclass(frozen=True)
class _Whole:
    """A C-MOVE or C-GET for all of a study or series, the last one of that which was answered.

    `until` is when the next request was made, None where there was none.
    """

    move: Move
    until: datetime | None

    @property
    def key(self) -> tuple[str | None, str | None]:
        """Study and series."""
        return self.move.study, self.move.series

    @property
    def refused(self) -> int:
        """How many the archive says it could not send."""
        return max(self.move.failed or 0, len(self.move.failed_uids))

    @property
    def told(self) -> int:
        """How many sub-operations it tells of."""
        return (self.move.completed or 0) + (self.move.warning or 0) + self.refused


def note_list(
    database: Database, lease: Lease, request_id: int, *, listed_at: datetime, noted: Mapping[str, Any] | None
) -> None:
    """Write down when a list was made, and what was odd about what its identifier matched."""
    _update(database, lease, request_id, listed_at=listed_at, noted=noted)


def note_stage(database: Database, lease: Lease, requests: Sequence[int], stage: int) -> None:
    """Write down of requests how far a list that is not whole was looked into."""

    def work(connection: Connection) -> None:
        for part in batches(requests):
            connection.execute(sa.update(ItemRow).where(ItemRow.id.in_(part)).values(relisted=stage))

    leases.fenced(database, lease, work)


def note_growth(database: Database, lease: Lease, request_id: int) -> None:
    """Write down that the archive had more than it listed at first."""
    _update(database, lease, request_id, reason=GREW)


def _update(database: Database, lease: Lease, request_id: int, **values: object) -> None:
    def work(connection: Connection) -> None:
        connection.execute(sa.update(ItemRow).where(ItemRow.id == request_id).values(**values))

    leases.fenced(database, lease, work)


def conclude(connection: Connection, found: Mapping[int, Finding]) -> None:
    """Write down what was found of requests, by their items. Runs with the chunk's row locked."""
    alike: dict[tuple[str, str], list[int]] = {}
    for key, finding in found.items():
        alike.setdefault((finding.word, finding.basis), []).append(key)
    for (word, basis), keys in alike.items():
        for part in batches(keys):
            connection.execute(sa.update(ItemRow).where(ItemRow.id.in_(part)).values(verified=word, basis=basis))


def is_stale(database: Database, request: Request, job_id: int, settle: float) -> bool:
    """Whether more than `settle` seconds lie between the list and what came last for the job."""
    listed_at = request.listed_at
    if listed_at is None:
        return True
    query = sa.select(ArrivalRow.at).where(ArrivalRow.job_id == job_id).order_by(ArrivalRow.id.desc()).limit(1)
    last = database.read(lambda connection: connection.execute(query).scalar())
    return last is not None and (last - listed_at).total_seconds() > settle


def came_along(database: Database, job_id: int) -> bool:
    """Whether something came for a job that no item of it names."""
    query = sa.select(ArrivalRow.id).where(ArrivalRow.surplus_of == job_id).limit(1)
    return database.read(lambda connection: connection.execute(query).first()) is not None


def facts(database: Database, lease: Lease, request: Request, *, ignored: bool, way: Way) -> Facts:
    """What is known of the request of a chunk, or of all that share it together."""

    def work(connection: Connection) -> Facts:
        return _Reader(connection, lease, request, ignored, way).facts()

    return database.read(work)


def facts_of_each(
    database: Database, lease: Lease, requests: Iterable[Request], *, ignored: bool, way: Way
) -> dict[int, Facts]:
    """The same of requests that share a chunk, of each by itself, by its item."""

    def work(connection: Connection) -> dict[int, Facts]:
        return {one.item_id: _Reader(connection, lease, one, ignored, way).facts() for one in requests}

    return database.read(work)


def strangers(database: Database, lease: Lease, request: Request) -> list[str]:
    """The SOP Instance UIDs that the archive names as failed, and that are no items."""

    def work(connection: Connection) -> set[str]:
        reader = _Reader(connection, lease, request, ignored=False, way=Way.HERE)
        return reader.strangers(recorded_moves.read(connection, lease.chunk_id))

    return sorted(database.read(work))


@dataclass
class _Reader:
    connection: Connection
    lease: Lease
    request: Request
    ignored: bool
    way: Way

    def facts(self) -> Facts:
        self.counts = self._counts()
        moves = recorded_moves.read(self.connection, self.lease.chunk_id)
        wholes = {one.key: one for one in _wholes(moves)}
        noted = self.request.noted
        targets = [self._seen(one.part, wholes) for one in map(self._known, self.request.targets)]
        listed = [one for one in self.request.targets if one.depth == Depth.IMAGES]
        inner = [self._seen(part, {}) for one in listed for part in one.inner]
        inner += [self._seen(part, wholes) for part in self._told(wholes)]
        return Facts(
            targets=targets,
            inner=inner,
            strangers=len(self.strangers(moves)),
            is_outlived=self._is_outlived(moves),
            capped=bool(noted.get("capped")),
            nameless=int(noted.get("nameless", 0)),
            ignored=self.ignored,
            by_uid=all(one.images for one in self.request.targets),
            way=self.way,
        )

    def _known(self, one: Target) -> Target:
        """A target that was written before its list was kept with it, with what its items tell."""
        if one.depth is not None:
            return one
        listed, _ = self._of(one.study, one.series)
        return replace(one, listed=listed, depth=self.request.expectation or Depth.UNKNOWN)

    def _seen(self, part: Part, wholes: Mapping[tuple[str | None, str | None], _Whole]) -> PartSeen:
        total, missing = self._of(part.study, part.series)
        seen = PartSeen(part, missing=missing)
        if part.depth != Depth.IMAGES:
            return seen
        if part.said is not None and part.said > part.listed and self.way is Way.HERE:
            # What lies here without being listed was made an item before, see `workers/retrieval/judge`.
            seen = replace(seen, others=max(0, total - part.listed))
        whole = wholes.get((part.study, part.series))
        if whole is not None and whole.told > part.listed:
            twice, surplus = (0, total - part.listed) if self.way is not Way.HERE else self._came(part, whole)
            seen = replace(seen, told=whole.told - twice, refused=whole.refused, surplus=max(0, surplus))
        return seen

    def _told(self, wholes: Mapping[tuple[str | None, str | None], _Whole]) -> Iterator[Part]:
        """Studies and series, smaller than the targets, of which an answer tells of more than there are items."""
        own = {(one.study, one.series) for one in self.request.targets}
        for key, whole in wholes.items():
            part = None if key in own else self._part(key)
            if part is not None and whole.told > part.listed:
                yield part

    def _part(self, key: tuple[str | None, str | None]) -> Part | None:
        """A target, or a study or series in one, of which the images were listed."""
        known = [self._known(one) for one in self.request.targets if one.depth in (None, Depth.IMAGES)]
        around = next((one for one in known if one.holds(*key)), None)
        if around is None:
            return None
        if (around.study, around.series) == key:
            return around.part
        # Which of the items around it nobody listed is not known: it may be those of this part.
        unlisted = max(0, self._of(around.study, around.series)[0] - (around.listed or 0))
        return Part(*key, None, max(0, self._of(*key)[0] - unlisted))

    def _is_outlived(self, moves: Sequence[Move]) -> bool:
        """Whether a request for all of something, younger than the list, was answered without what an earlier answer
        told of or named as failed, and that is not here.
        """
        wholes = list(_wholes(moves))
        last = {one.key: one for one in wholes}
        since = self.request.listed_at
        young = [one for one in last.values() if since is None or one.move.asked_at >= since]
        former = [one for one in wholes if one is not last[one.key] and last[one.key] in young]
        if young and self._unknown(uid for move in moves for uid in move.failed_uids) - self.strangers(moves):
            return True
        parts = [(self._part(one.key), one) for one in former]
        return any(part and self._seen(part, {one.key: one}).short(self.ignored) for part, one in parts)

    def _counts(self) -> dict[tuple[str | None, str | None], tuple[int, int]]:
        """(study, series) to how many items there are, and how many of them are not here."""
        good = sa.func.sum(sa.case((ItemRow.state.in_(list(GOOD_ITEM_STATES)), 1), else_=0))
        columns = (ItemRow.study_instance_uid, ItemRow.series_instance_uid)
        query = (
            sa.select(*columns, sa.func.count().label("total"), good.label("good"))
            .where(ItemRow.chunk_id == self.lease.chunk_id, ItemRow.request_id.in_(self.request.item_ids))
            .group_by(*columns)
        )
        return {
            (row.study_instance_uid, row.series_instance_uid): (row.total, row.total - int(row.good))
            for row in self.connection.execute(query)
        }

    def _of(self, study: str | None, series: str | None) -> tuple[int, int]:
        """(items, those that are not here) of a patient, study or series."""
        found = [
            numbers
            for (own, its), numbers in self.counts.items()
            if study in (None, own) and (series is None or series == its)
        ]
        return sum(total for total, _ in found), sum(missing for _, missing in found)

    def _came(self, part: Part, whole: _Whole) -> tuple[int, int]:
        """(how many sub-operations of a request brought what another of them had brought, how many instances came with
        it beyond those that are listed, those of other studies among them).

        What lay here before it, without being listed, was not brought by it: it may be another one than it tells of.
        And what came with a flaw is not here.
        """
        mine = sa.and_(ArrivalRow.job_id == self.lease.job_id, *_within(part))
        along = sa.or_(ArrivalRow.move_id == whole.move.id, ArrivalRow.surplus_of == self.lease.job_id)
        arrived = (
            sa.select(InstanceRow.study_instance_uid, InstanceRow.series_instance_uid, InstanceRow.sop_instance_uid)
            .join(ArrivalRow, ArrivalRow.instance_id == InstanceRow.id)
            .where(sa.or_(mine, along), ArrivalRow.at >= whole.move.asked_at)
        )
        if whole.until is not None:
            arrived = arrived.where(ArrivalRow.at < whole.until)
        named = sa.select(ItemRow.id).where(
            ItemRow.job_id == self.lease.job_id,
            ItemRow.request_id.is_not(None),
            ItemRow.sop_instance_uid == InstanceRow.sop_instance_uid,
        )
        twice = self._number(arrived) - self._number(arrived.distinct())
        sound = arrived.where(here.is_worthy(here.asker(self.connection, self.lease.job_id))).distinct()
        nameless, known = (self._number(sound.where(one)) for one in (~named.exists(), named.exists()))
        return twice, nameless + max(0, known - part.listed)

    def _number(self, query: _Query) -> int:
        return int(self.connection.execute(sa.select(sa.func.count()).select_from(query.subquery())).scalar_one())

    def strangers(self, moves: Iterable[Move]) -> set[str]:
        """Instances that the archive names as failed, and that are no items: neither listed nor, as far as anybody has
        looked, here. What a later request for all around them did not name any more is not counted.
        """
        named: dict[tuple[str | None, str | None], set[str]] = {}
        for move in moves:
            key = move.study, move.series
            if move.is_for_all:
                for other in [one for one in named if key[0] in (None, one[0]) and key[1] in (None, one[1])]:
                    del named[other]
            named.setdefault(key, set()).update(move.failed_uids)
        return self._unknown(itertools.chain(*named.values()))

    def _unknown(self, named: Iterable[str]) -> set[str]:
        uids = sorted(set(named))
        known: set[str] = set()
        for part in batches(uids):
            expected = sa.select(ItemRow.sop_instance_uid).where(
                ItemRow.job_id == self.lease.job_id, ItemRow.sop_instance_uid.in_(part), ItemRow.request_id.is_not(None)
            )
            known |= {uid for uid in self.connection.execute(expected).scalars() if uid}
        return set(uids) - known


def _wholes(moves: Sequence[Move]) -> Iterator[_Whole]:
    """The answered requests for all of something, oldest first."""
    for place, move in enumerate(moves):
        if move.is_for_all:
            yield _Whole(move, moves[place + 1].asked_at if place + 1 < len(moves) else None)


def _within(part: Part) -> Iterator[sa.ColumnElement[bool]]:
    if part.study:
        yield InstanceRow.study_instance_uid == part.study
    if part.series:
        yield InstanceRow.series_instance_uid == part.series
