"""What was asked for by C-MOVE and C-GET, as it is read again by whoever goes on."""

from __future__ import annotations

from dicomferry.models.record.retrieves import moves
from dicomferry.models.record.retrieves.moves import FinalAnswer
from dicomferry.models.rules.query import Level
from dicomferry.models.rules.rounds import Ask, Capabilities
from dicomferry.models.rules.target import Target
from support.record_site import Site

from ..archive.test_pairing import Desk

LIST = Target(study="1", series="1.1", images=("1.1.1", "1.1.2"))


def test_what_an_archive_does_not_take_limits_later_attempts_as_this_one(site: Site) -> None:
    """A request that was refused as such is told from one that failed, and what is left to try is the same, whether the
    refusal was heard a moment ago or by an attempt before.
    """
    desk = Desk(site)
    desk.submit("1")
    lease = desk.claim()
    request_id = desk.expect(lease, "1.1.1", "1.1.2")
    heard: Capabilities | None = Capabilities()
    asked = [LIST, Target(study="1", series="1.1", images=("1.1.1",)), Target(study="1", series="1.1")]
    for one in asked:
        begun = {"rounds": 0, "method": "move", "ae_title": "FERRY", "destination": None}
        move_id, _ = moves.begin_move(site.database, lease, request_id, Ask(one), **begun)  # type: ignore[arg-type]
        moves.note_answer(site.database, lease, move_id, FinalAnswer(status=0xA900, not_taken=True))
        assert heard is not None
        heard = heard.after(one)
    move_id, _ = moves.begin_move(site.database, lease, request_id, Ask(LIST), **begun)  # type: ignore[arg-type]
    moves.note_no_answer(site.database, lease, move_id, "no progress")
    found = moves.moves_of(site.database, lease.chunk_id)
    assert [(one.level, one.asked, one.not_taken, one.status) for one in found] == [
        (Level.IMAGE, 2, True, 0xA900),
        (Level.IMAGE, 1, True, 0xA900),
        (Level.SERIES, None, True, 0xA900),
        (Level.IMAGE, 2, False, None),
    ]
    assert moves.limits_of(site.database, lease) == heard == Capabilities(False, False, False)
