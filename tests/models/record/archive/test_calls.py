"""Calls of the storage SCP on record, what it refused on them, and who waits for it."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from dicomferry.models.record import presence
from dicomferry.models.record.archive import calls
from dicomferry.models.record.archive.calls import Call, Refusal
from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.tables.jobs import CallRow, ChunkRow
from dicomferry.models.rules import spec
from dicomferry.models.rules.ending import DISK_FULL, Decision, Next
from support.record_site import Site

FULL = {"what": "archive", "path": "/archive", "free": 10, "size": 100, "reserve": 20}
ROOM = FULL | {"free": 30}


def call(site: Site, association: str = "a", **more: object) -> Call:
    values = {
        "association": association, "calling_ae_title": "PACS", "called_ae_title": "FERRY", "address": "10.0.0.1",
        "at": site.clock(), "accepted": True,
    }  # fmt: skip
    return Call(**{**values, **more})  # type: ignore[arg-type]


def refusal(number: int = 1, *, message_id: int | None = None) -> Refusal:
    return Refusal(
        status=0xA700, why="disk is full", number=number, uids=("1.2",), originator_ae_title="FERRY",
        originator_message_id=message_id,
    )  # fmt: skip


def test_what_was_refused_is_recorded_with_its_call(site: Site) -> None:
    """Written anew as it grows, and read as it was written."""
    calls.record(site.database, [call(site)])
    calls.record(site.database, [call(site, refusals=(refusal(),))])
    calls.record(site.database, [call(site, refusals=(refusal(7), refusal(2, message_id=5)))])
    (row,) = calls.calls_after(site.database, 0)
    assert row.refusals == (refusal(7), refusal(2, message_id=5))


@pytest.mark.parametrize(("kind", "waits"), [("move", True), ("get", True), ("echo", False)])
def test_whatever_would_come_here_waits_for_a_disk(site: Site, kind: str, waits: bool) -> None:
    """Those that wait along, and when there is room again all of them are due at once."""
    keys = ((None, (("0020000D", "1.2"),)),)
    asked: dict[str, spec.Spec] = {
        "move": spec.MoveSpec(identifiers=keys), "get": spec.GetSpec(identifiers=keys), "echo": spec.EchoSpec(),
    }  # fmt: skip
    job_id = verbs.submit(site.database, asked[kind], site.remote_id)
    site.database.write(lambda connection: connection.execute(sa.update(ChunkRow).values(kind=kind)))
    at = site.clock() + timedelta(minutes=10)
    decision = Decision(next=Next.RETRY, at=at, reason=DISK_FULL, advice="make room")
    site.database.write(lambda connection: calls.put_off(connection, decision, site.clock()))

    def due() -> bool:
        rows = site.database.read(
            lambda connection: connection.execute(sa.select(ChunkRow.not_before).where(ChunkRow.job_id == job_id)).all()
        )
        return all(row.not_before <= site.clock() for row in rows)

    assert due() is not waits
    calls.room_again(site.database)
    assert due()


def test_the_disk_is_what_living_storage_scps_see(site: Site) -> None:
    """By their last sign of life; of one that is gone nothing is believed."""
    assert calls.short_disk(site.database) is None
    scp = presence.register(site.database, "scp", slots=1)
    presence.beat(site.database, scp, [FULL])
    assert calls.short_disk(site.database) == FULL
    presence.beat(site.database, scp)
    assert calls.short_disk(site.database) == FULL
    presence.beat(site.database, scp, [ROOM, FULL | {"what": "home"}])
    assert calls.short_disk(site.database) is None
    presence.beat(site.database, scp, [FULL])
    presence.leave(site.database, scp)
    assert calls.short_disk(site.database) is None


def test_a_role_tells_what_it_runs_with(site: Site) -> None:
    """Its settings as it wrote them down, and its disks at the last sign of life."""
    scp = presence.register(site.database, "scp", slots=1, facts={"port": 11112})
    presence.beat(site.database, scp, [ROOM])
    row = presence.alive(site.database)[-1]
    assert (row.facts, row.disks) == ({"port": 11112}, [ROOM])
    assert presence.alive(site.database)[0].facts is None


def test_old_calls_go(site: Site) -> None:
    """Those that are older than that are forgotten when a storage SCP begins."""
    calls.record(site.database, [call(site)])
    site.clock.move(calls.KEPT_DAYS * 86_400 + 1)
    calls.begin(site.database)
    assert site.database.read(lambda c: c.execute(sa.select(CallRow.id)).all()) == []
