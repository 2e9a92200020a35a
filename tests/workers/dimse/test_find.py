"""C-FIND against peers that answer as they should, and as they should not."""

from __future__ import annotations

import threading

import pytest

from dicomferry.models.rules.errors import (
    AssociationAborted,
    ContextNotAccepted,
    DimseFailure,
    DimseTimeout,
    ProtocolViolation,
)
from dicomferry.models.rules.query import find_model
from dicomferry.workers.dimse import find as c_find
from dicomferry.workers.dimse import identifier
from dicomferry.workers.dimse.find import FindStopped, Match, find
from dicomferry.workers.dimse.requestor import Association, open_association
from support import scripted_peer as peer
from support.find_scp import Asked, FindScp, Reply, final, pending
from support.find_scp import identifier as encoded

MODEL = find_model("study")
ONE = encoded(StudyInstanceUID="1.2.3")


def opened(scp: FindScp, **timeouts: float) -> Association:
    return open_association(scp.remote(**timeouts), [c_find.proposal(MODEL)])


def query(association: Association) -> bytes:
    syntax = association.context_for(MODEL).transfer_syntax
    return identifier.encode((("0020000D", ""),), syntax, level="study")


def ask(scp: FindScp, **timeouts: float) -> list[Match]:
    with opened(scp, **timeouts) as association:
        return list(find(association, MODEL, query(association)))


def replying(*answers: object) -> FindScp:
    return FindScp(lambda _: answers)  # type: ignore[arg-type, return-value]


def test_matches_come_as_they_were_sent() -> None:
    """The bytes of each identifier, its transfer syntax, and whether all keys were matched (FF01)."""
    other = encoded(StudyInstanceUID="1.2.4")
    with replying(pending(ONE), pending(other, 0xFF01), final()) as scp:
        found = ask(scp)
    assert found == [Match(ONE, "1.2.840.10008.1.2", False), Match(other, "1.2.840.10008.1.2", True)]
    (asked,) = scp.queries
    assert (asked.QueryRetrieveLevel, asked.StudyInstanceUID) == ("STUDY", "")
    assert scp.endings == ["released"]


def test_nothing_found() -> None:
    """Success at once is an empty list."""
    with replying(final()) as scp:
        assert ask(scp) == []


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC000, 0x0122, 0x0124, 0xFE00, 0x1234])
def test_a_final_status_that_is_no_success(status: int) -> None:
    """Raised with the status and the peer's comment, after the matches before it; the association can be used on."""
    with (
        replying(pending(ONE), final(status, ErrorComment="too much")) as scp,
        opened(scp) as association,
    ):
        matches = find(association, MODEL, query(association))
        assert next(matches).data == ONE
        with pytest.raises(DimseFailure) as caught:
            next(matches)
        assert (caught.value.status, caught.value.comment) == (status, "too much")
        with pytest.raises(DimseFailure):
            list(find(association, MODEL, query(association)))
    assert scp.endings == ["released"]


def test_a_wrong_message_id_ends_the_association() -> None:
    """An answer to another message is none to ours."""

    def wrong(conversation: peer.Conversation) -> None:
        conversation.socket.sendall(pending(ONE))  # the mark is left in

    with replying(wrong, final()) as scp, pytest.raises(ProtocolViolation):
        ask(scp)


def test_a_match_without_an_identifier() -> None:
    """A pending answer without a data set is a violation, not an empty match."""
    with replying(final(0xFF00)) as scp, pytest.raises(ProtocolViolation, match="without an identifier"):
        ask(scp)


def test_an_answer_in_another_context() -> None:
    """Nothing is read that came where it should not."""
    with replying(pending(ONE, context_id=3), final()) as scp, pytest.raises(ProtocolViolation, match="context 3"):
        ask(scp)


def test_silence_before_the_first_answer() -> None:
    """`timeouts.first_answer`: broad queries take their time, but not for ever."""
    with replying(peer.until_end) as scp, pytest.raises(DimseTimeout) as caught:
        ask(scp, first_answer=0.1)
    assert (caught.value.phase, caught.value.seconds) == ("first_answer", 0.1)


def test_silence_between_answers() -> None:
    """`timeouts.progress` from the first answer on, although the first one may take longer."""
    with replying(pending(ONE), peer.until_end) as scp, pytest.raises(DimseTimeout) as caught:
        ask(scp, progress=0.1)
    assert (caught.value.phase, caught.value.seconds) == ("progress", 0.1)


def test_half_an_answer_is_progress() -> None:
    """A slow line is no silent peer: the wait begins anew with each byte, though it is looked at in turns."""
    answer = pending(ONE)

    def slowly(conversation: peer.Conversation) -> None:
        number = answer.replace(b"\xcd\x7b", b"\x01\x00", 1)
        peer.send_slowly(number, 0.004)(conversation)

    with replying(slowly, final()) as scp:
        assert len(ask(scp, first_answer=0.2, progress=0.2)) == 1


def test_an_abort_in_the_middle() -> None:
    """The peer's A-ABORT, not a list that ends early."""
    with replying(pending(ONE), peer.send(peer.abort_pdu())) as scp, pytest.raises(AssociationAborted):
        ask(scp)


def test_a_model_that_is_not_offered() -> None:
    """ContextNotAccepted with the peer's result, before anything is asked."""
    with FindScp(lambda _: [], choose=lambda *_: (3, "1.2.840.10008.1.2")) as scp:
        association = open_association(scp.remote(), [c_find.proposal(MODEL)])
        with association, pytest.raises(ContextNotAccepted) as caught:
            list(find(association, MODEL, b""))
    assert caught.value.result == 3
    assert scp.queries == []


def _for_ever(_: Asked) -> Reply:
    while True:
        yield pending(ONE)


def test_who_has_enough_cancels() -> None:
    """Closing the iterator sends C-CANCEL and reads to the last answer; then the association can be used again."""
    with FindScp(_for_ever) as scp, opened(scp) as association:
        for _ in range(2):
            matches = find(association, MODEL, query(association))
            assert next(matches).data == ONE
            matches.close()
    assert (scp.cancels, scp.endings) == (2, ["released"])


def test_a_stop_cancels() -> None:
    """What is asked from another thread is seen between two matches."""
    stop = threading.Event()
    with FindScp(_for_ever) as scp, opened(scp) as association:
        matches = find(association, MODEL, query(association), stop=stop.is_set)
        next(matches)
        stop.set()
        with pytest.raises(FindStopped):
            for _ in matches:
                pass
    assert (scp.cancels, scp.endings) == (1, ["released"])


def test_a_stop_is_heard_in_silence() -> None:
    """A query that is not answered for minutes can be broken off all the same."""
    stop, asked = threading.Event(), threading.Event()

    def mute(conversation: peer.Conversation) -> None:
        asked.set()
        stop.set()
        peer.until_end(conversation)

    with replying(mute) as scp, opened(scp) as association:
        with pytest.raises(FindStopped):
            list(find(association, MODEL, query(association), stop=stop.is_set, cancel_seconds=0.1))
        assert asked.is_set()
    assert scp.endings != ["released"]


def test_a_peer_that_is_deaf_to_cancel_is_left() -> None:
    """It may go on for ever; we do not."""
    with FindScp(_for_ever, deaf=True) as scp:
        association = opened(scp)
        matches = find(association, MODEL, query(association), cancel_seconds=0.2)
        next(matches)
        matches.close()
        with pytest.raises(AssociationAborted):
            list(find(association, MODEL, query(association)))
        association.close()
    assert scp.endings != ["released"]
