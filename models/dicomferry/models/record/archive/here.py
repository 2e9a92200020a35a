"""What of the archive counts as an instance that a retrieve expects: the one place that decides it.

An instance is expected as it was listed: study, series and SOP Instance UID. A file counts for it that carries all
three, is current and was not removed, and has no flaw that keeps it from counting. Where its remote lists other UIDs
than its files carry (`remote set --coerces`), a file that a request for the listed study brought counts as well,
as long as all of that study lies under one study here (`places`).

Rows alone prove nothing: whoever goes by one that did not just come looks at the file first (workers/receiving/sight).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstrumentedAttribute, aliased

from dicomferry.models.record.archive import places
from dicomferry.models.record.database import AnyRow
from dicomferry.models.record.tables.archive import ArrivalRow, InstanceRow
from dicomferry.models.record.tables.jobs import ItemRow, JobRow, MoveRow, RemoteRow
from dicomferry.models.rules import flaws
from dicomferry.models.rules.batches import batches
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.remote import parse_coerces
from dicomferry.models.rules.state import ItemState

Column = sa.ColumnElement[Any] | InstrumentedAttribute[Any]
Filed = tuple[str | None, str | None]
"""The study and series that a file carries."""
ALREADY_HERE = Reason.ALREADY_HERE
FILED_ELSEWHERE = Reason.FILED_ELSEWHERE
TIMES_TRUNCATED = 2
"""Truncated bytes that came so often from their archive are so at their archive."""


@dataclass(frozen=True)
class Asker:
    """The retrieve that expects something, its remote, and the levels of which that lists other UIDs."""

    job_id: int
    remote_id: int
    coerces: frozenset[str]


@dataclass(frozen=True)
class Found:
    """A file that counts for an item. `latest` is its last arrival, `mine` the last one for this job, if any.

    `filed` are study and series that it carries where those are not the ones that were listed; `lies` are the listed
    study and its own, where its remote lists other studies.
    """

    item_id: int
    instance_id: int
    path: str
    size: int
    latest: int | None
    mine: int | None
    truncated: bool
    filed: Filed | None = None
    lies: tuple[str | None, str | None] | None = None

    def came_after(self, arrival_id: int) -> bool:
        """Whether it arrived after this arrival: then it was on disk a moment ago."""
        return self.latest is not None and self.latest > arrival_id

    def lies_with(self, settled: Mapping[str, str]) -> bool:
        """Whether it lies where the rest of its listed study does (`places`)."""
        return self.lies is None or places.fits(settled, *self.lies)

    def outcome(self) -> Outcome:
        """What the item comes to."""
        reason = None if self.mine else ALREADY_HERE
        detail = _filed(self.filed) if self.filed else None
        if self.truncated:
            state, reason = ItemState.WARNING, flaws.TRUNCATED_AT_SOURCE
        else:
            state = ItemState.SUCCEEDED
        return Outcome(item_id=self.item_id, state=state, reason=reason, detail=detail)


def _filed(filed: Filed) -> str:
    study, series = filed
    return f"it lies here under study {study or '(none)'}, series {series or '(none)'}"


def asker(connection: Connection, job_id: int) -> Asker:
    """The retrieve with this number."""
    row = connection.execute(
        sa.select(JobRow.remote_id, RemoteRow.coerces)
        .join(RemoteRow, RemoteRow.id == JobRow.remote_id)
        .where(JobRow.id == job_id)
    ).one()
    return Asker(job_id, row.remote_id, parse_coerces(row.coerces))


# --- conditions -------------------------------------------------------------------------------------------------------


def is_kept() -> sa.ColumnElement[bool]:
    """Condition on a file: it was not removed, and no flaw but a truncation keeps it from counting."""
    return sa.and_(InstanceRow.removed_at.is_(None), sa.not_(is_flawed()))


def is_flawed() -> sa.ColumnElement[bool]:
    """Condition on a file: it has a flaw with which it counts for nothing."""
    flaw = sa.func.coalesce(InstanceRow.flaw, "")
    return sa.or_(*(flaw.startswith(one, autoescape=True) for one in flaws.NEVER))


def is_truncated() -> sa.ColumnElement[bool]:
    """Condition on a file: its data set ends within an element."""
    return sa.func.coalesce(InstanceRow.flaw, "").startswith(flaws.TRUNCATED, autoescape=True)


def is_of() -> sa.ColumnElement[bool]:
    """Condition on a file and an item: filed as what the item expects, or as the item says that the file was found."""
    own = InstanceRow.sop_instance_uid, InstanceRow.study_instance_uid, InstanceRow.series_instance_uid
    return is_filed_as(*own)


def is_filed_as(uid: Column, study: Column, series: Column) -> sa.ColumnElement[bool]:
    """Condition on an item: what it expects is filed under these UIDs."""
    return sa.and_(
        uid == ItemRow.sop_instance_uid,
        _agrees(study, ItemRow.filed_study_uid, ItemRow.study_instance_uid),
        _agrees(series, ItemRow.filed_series_uid, ItemRow.series_instance_uid),
    )


def _agrees(own: Column, *expected: Column) -> sa.ColumnElement[bool]:
    """What nobody listed agrees with anything."""
    return sa.func.coalesce(*expected, own, "") == sa.func.coalesce(own, "")


def _latest(*conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    found = sa.select(sa.func.max(ArrivalRow.id)).where(ArrivalRow.instance_id == InstanceRow.id, *conditions)
    return found.correlate(InstanceRow).scalar_subquery()


def _times(remote_id: int) -> sa.ScalarSelect[int]:
    """How often retrieves from this remote brought a file."""
    return (
        sa.select(sa.func.count())
        .select_from(ArrivalRow)
        .join(JobRow, JobRow.id == ArrivalRow.job_id)
        .where(ArrivalRow.instance_id == InstanceRow.id, JobRow.remote_id == remote_id)
        .correlate(InstanceRow)
        .scalar_subquery()
    )


# --- what counts ------------------------------------------------------------------------------------------------------


def found(connection: Connection, who: Asker, items: sa.ColumnElement[bool], *, refetch: bool) -> list[Found]:
    """The file of each of these items that has one; with `refetch` only files that came for this job."""
    exact = {row.item_id: row for row in _exact(connection, who, items, refetch)}
    if not who.coerces:
        return [found_of(row, item_id=key) for key, row in exact.items()]
    query = sa.select(ItemRow.id, ItemRow.study_instance_uid, ItemRow.series_instance_uid).where(items)
    listed: dict[int, Filed] = {key: (study, series) for key, study, series in connection.execute(query)}
    settled = _settled(connection, who)
    chosen = {key: row for key, row in exact.items() if places.fits(settled, listed[key][0], row.study)}
    missing = {key: one for key, one in listed.items() if key not in chosen}
    chosen |= _coerced(connection, who, missing, settled, refetch)
    return [_found_for(who, row, listed[key]) for key, row in sorted(chosen.items())]


def _settled(connection: Connection, who: Asker) -> dict[str, str]:
    return places.settled(connection, who.job_id) if "study" in who.coerces else {}


def _found_for(who: Asker, row: AnyRow, listed: Filed) -> Found:
    study, series = listed
    filed = (row.study, row.series)
    as_listed = study in (None, row.study) and series in (None, row.series)
    lies = (study, row.study) if study and "study" in who.coerces else None
    return replace(found_of(row, item_id=row.item_id), filed=None if as_listed else filed, lies=lies)


def file_columns(who: Asker) -> tuple[Any, ...]:
    """The columns of a file of which `found_of` makes a Found."""
    return (
        InstanceRow.id.label("instance_id"), InstanceRow.path, InstanceRow.size,
        InstanceRow.study_instance_uid.label("study"), InstanceRow.series_instance_uid.label("series"),
        _latest().label("latest"), _latest(ArrivalRow.job_id == who.job_id).label("mine"),
        is_truncated().label("truncated"),
    )  # fmt: skip


def found_of(row: AnyRow, *, item_id: int) -> Found:
    """The file in a row of `file_columns`."""
    return Found(item_id, row.instance_id, row.path, row.size, row.latest, row.mine, bool(row.truncated))


def is_worthy(who: Asker) -> sa.ColumnElement[bool]:
    """Condition on a file: it counts as what its UIDs say, if it is on disk."""
    often = _times(who.remote_id) >= TIMES_TRUNCATED
    return sa.and_(is_kept(), InstanceRow.is_current, sa.or_(sa.not_(is_truncated()), often))


def is_in_study(who: Asker, study: str) -> sa.ColumnElement[bool]:
    """Condition on a file: it is of this study, or a request for that brought it and its remote lists other UIDs."""
    return _is_in(who, "study", InstanceRow.study_instance_uid, MoveRow.study_instance_uid, study)


def is_in_series(who: Asker, series: str) -> sa.ColumnElement[bool]:
    """Condition on a file: it is of this series, or a request for that brought it and its remote lists other UIDs."""
    return _is_in(who, "series", InstanceRow.series_instance_uid, MoveRow.series_instance_uid, series)


def _is_in(who: Asker, level: str, own: Column, asked: Column, uid: str) -> sa.ColumnElement[bool]:
    if level not in who.coerces:
        return own == uid
    brought = (
        sa.select(ArrivalRow.id)
        .join(MoveRow, MoveRow.id == ArrivalRow.move_id)
        .where(ArrivalRow.instance_id == InstanceRow.id, MoveRow.job_id == who.job_id, asked == uid)
        .correlate(InstanceRow)
    )
    return sa.or_(own == uid, brought.exists())


def _exact(connection: Connection, who: Asker, items: sa.ColumnElement[bool], refetch: bool) -> Iterator[AnyRow]:
    query = (
        sa.select(ItemRow.id.label("item_id"), *file_columns(who))
        .join(InstanceRow, InstanceRow.sop_instance_uid == ItemRow.sop_instance_uid)
        .where(
            items,
            _agrees(InstanceRow.study_instance_uid, ItemRow.study_instance_uid),
            _agrees(InstanceRow.series_instance_uid, ItemRow.series_instance_uid),
            is_worthy(who),
        )
        .order_by(ItemRow.id, InstanceRow.id)
    )
    seen: set[int] = set()
    for row in connection.execute(query):
        if row.item_id not in seen and (row.mine is not None or not refetch):
            seen.add(row.item_id)
            yield row


def _coerced(
    connection: Connection, who: Asker, missing: Mapping[int, Filed], settled: Mapping[str, str], refetch: bool
) -> dict[int, AnyRow]:
    """Files under other UIDs than were listed, by item; each listed study under one study alone."""
    chosen: dict[int, AnyRow] = {}
    for study in sorted({study for study, _ in missing.values() if study}):
        rows = [row for row in _brought(connection, who, study) if row.mine is not None or not refetch]
        if not rows:
            continue
        if study in settled:
            place: str | None = settled[study]
        elif any(row.study == study for row in rows):
            place = study
        else:
            place = min(rows, key=lambda row: row.first).study
        chosen.update({row.item_id: row for row in rows if row.item_id in missing and row.study == place})
    return chosen


def _brought(connection: Connection, who: Asker, study: str) -> Sequence[AnyRow]:
    """(item of this job, file) where a request for this listed study, of this job or an earlier one to the same
    remote, brought the file; with what lies here as it was listed.
    """
    earlier = aliased(ItemRow)
    asked = (
        sa.select(earlier.id)
        .join(JobRow, JobRow.id == earlier.job_id)
        .where(
            earlier.job_id == ArrivalRow.job_id,
            earlier.request_id.is_not(None),
            earlier.sop_instance_uid == InstanceRow.sop_instance_uid,
            earlier.study_instance_uid == study,
            JobRow.remote_id == who.remote_id,
        )
        .correlate(ArrivalRow, InstanceRow)
    )
    for_it = (
        sa.select(sa.func.min(ArrivalRow.id))
        .where(ArrivalRow.instance_id == InstanceRow.id, asked.exists())
        .correlate(InstanceRow)
        .scalar_subquery()
    )
    conditions = [
        ItemRow.job_id == who.job_id,
        ItemRow.request_id.is_not(None),
        ItemRow.study_instance_uid == study,
        is_worthy(who),
    ]
    if "study" not in who.coerces:
        conditions.append(InstanceRow.study_instance_uid == study)
    if "series" not in who.coerces:
        conditions.append(_agrees(InstanceRow.series_instance_uid, ItemRow.series_instance_uid))
    as_listed = sa.and_(
        InstanceRow.study_instance_uid == study,
        _agrees(InstanceRow.series_instance_uid, ItemRow.series_instance_uid),
    )
    query = (
        sa.select(ItemRow.id.label("item_id"), *file_columns(who), for_it.label("first"))
        .join(InstanceRow, InstanceRow.sop_instance_uid == ItemRow.sop_instance_uid)
        .where(*conditions, sa.or_(as_listed, for_it.is_not(None)))
        .order_by(ItemRow.id, InstanceRow.id)
    )
    return connection.execute(query).all()


# --- what came and does not count -------------------------------------------------------------------------------------


def elsewhere(connection: Connection, who: Asker, items: sa.ColumnElement[bool]) -> dict[int, tuple[Outcome, Filed]]:
    """How these items end of which the instance came for this job under a study or series that nobody listed for it,
    or under another study than the rest of its listed study.

    For items that `found` has no file for. Such an instance is kept, and is not asked for again in this job.
    """
    other = aliased(ItemRow)
    listed = (
        sa.select(other.id)
        .where(
            other.job_id == who.job_id,
            other.request_id.is_not(None),
            other.sop_instance_uid == InstanceRow.sop_instance_uid,
            _agrees(InstanceRow.study_instance_uid, other.study_instance_uid),
            _agrees(InstanceRow.series_instance_uid, other.series_instance_uid),
        )
        .correlate(InstanceRow)
    )
    came = sa.select(ArrivalRow.id).where(ArrivalRow.instance_id == InstanceRow.id, ArrivalRow.job_id == who.job_id)
    query = (
        sa.select(
            ItemRow.id, ItemRow.charges, ItemRow.study_instance_uid.label("study"),
            ItemRow.series_instance_uid.label("series"), InstanceRow.study_instance_uid.label("own_study"),
            InstanceRow.series_instance_uid.label("own_series"), is_truncated().label("truncated"),
            listed.exists().label("listed"),
        )
        .join(InstanceRow, InstanceRow.sop_instance_uid == ItemRow.sop_instance_uid)
        .where(items, is_kept(), came.correlate(InstanceRow).exists())
        .order_by(ItemRow.id, InstanceRow.id)
    )  # fmt: skip
    rows: Sequence[AnyRow]
    settled = _settled(connection, who)
    if who.coerces:
        # What has come since the last look is for the next one.
        have = {one.item_id for one in found(connection, who, items, refetch=False) if one.mine}
        every = [row for row in connection.execute(query) if row.id not in have]
        rows = [row for row in every if places.is_lost(row, who.coerces, settled)]
    else:
        rows = connection.execute(query.where(~listed.exists())).all()
    lost: dict[int, tuple[Outcome, Filed]] = {}
    for row in rows:
        filed = (row.own_study, row.own_series)
        listed_as = f"listed under study {row.study or '(none)'}, series {row.series or '(none)'}"
        outcome = Outcome(
            item_id=row.id,
            state=ItemState.FAILED,
            reason=FILED_ELSEWHERE,
            detail=f"{listed_as}; {_filed(filed)}{places.rest(settled, row.study, row.own_study)}",
            charges=row.charges,
        )
        lost[row.id] = outcome, filed
    return lost


def flaws_of(connection: Connection, who: Asker, items: sa.ColumnElement[bool]) -> dict[int, str]:
    """Item to the flaw of the last file that came for it in this job and does not count."""
    query = (
        sa.select(ItemRow.id, InstanceRow.flaw)
        .join(InstanceRow, InstanceRow.sop_instance_uid == ItemRow.sop_instance_uid)
        .join(ArrivalRow, sa.and_(ArrivalRow.instance_id == InstanceRow.id, ArrivalRow.job_id == who.job_id))
        .where(items, InstanceRow.removed_at.is_(None), sa.or_(is_flawed(), is_truncated()))
        .order_by(ArrivalRow.id)
    )
    return {row.id: row.flaw for row in connection.execute(query)}


def note_filed(connection: Connection, filed: Mapping[int, Filed | None]) -> None:
    """Write down under which study and series the files of items lie; None: as they were listed."""
    as_listed = [key for key, value in filed.items() if value is None]
    for batch in batches(as_listed):
        connection.execute(
            sa.update(ItemRow)
            .where(
                ItemRow.id.in_(batch),
                sa.or_(ItemRow.filed_study_uid.is_not(None), ItemRow.filed_series_uid.is_not(None)),
            )
            .values(filed_study_uid=None, filed_series_uid=None)
        )
    for key, value in filed.items():
        if value is not None:
            connection.execute(
                sa.update(ItemRow).where(ItemRow.id == key).values(filed_study_uid=value[0], filed_series_uid=value[1])
            )
