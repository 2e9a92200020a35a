"""What a retrieve expects, as rows have it: nothing that an archive lists keeps the rest from being asked for."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from dicomferry.models.record.retrieves import expected
from dicomferry.models.record.tables.jobs import ItemRow
from dicomferry.models.rules.state import ItemState
from support.record_site import Site

from ..archive.test_pairing import Desk

LONG = "1.2." + "3" * 130


@pytest.mark.parametrize("odd", [LONG, "1.2\0003", "1.2\x1b[31m"])
def test_a_uid_that_cannot_be_kept_is_an_item_of_its_own(site: Site, odd: str) -> None:
    """Of over 128 characters, or with one that no UID has: `bad uid`; the others of the list are asked for, and however
    often the list is written, each is there once.
    """
    desk = Desk(site)
    desk.submit("1")
    lease = desk.claim()
    for _ in range(2):
        desk.expect(lease, "1.1", odd, "1.2")
    query = sa.select(ItemRow.__table__)
    rows = site.rows(query.where(ItemRow.request_id.is_not(None)).order_by(ItemRow.id))
    assert [(row.state, row.reason) for row in rows] == [
        (ItemState.PENDING, None), (ItemState.FAILED, expected.BAD_UID), (ItemState.PENDING, None)
    ]  # fmt: skip
    assert len(rows[1].sop_instance_uid) <= 128 and "0x0117" in rows[1].detail
    assert [one.uid for one in expected.missing(site.database, lease.chunk_id)] == ["1.1", "1.2"]
