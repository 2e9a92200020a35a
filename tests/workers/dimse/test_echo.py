"""C-ECHO, and C-STORE, with pynetdicom's own AE at the other end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, evt

from dicomferry.models.rules.errors import ContextNotAccepted, DimseTimeout
from dicomferry.models.rules.remote import Remote
from dicomferry.workers.dimse import store
from dicomferry.workers.dimse.echo import VERIFICATION, echo
from dicomferry.workers.dimse.local_instance import LocalInstance
from support import samples
from support import scripted_peer as peer
from support.peers import StoreScp
from support.process import free_port
from support.scripted_peer import ScriptedPeer, expect, opening, send


class Scp:
    """pynetdicom's AE, and what it was sent."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, bytes]] = []
        ae = AE("PYNETDICOM")
        ae.add_supported_context(VERIFICATION)
        ae.add_supported_context(MRImageStorage, [ExplicitVRLittleEndian])
        self.port = free_port()
        self.server: Any = ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )

    def _store(self, event: evt.Event) -> int:
        request: Any = event.request
        self.stored.append((str(request.AffectedSOPInstanceUID), request.DataSet.getvalue()))
        return 0xB006

    @property
    def remote(self) -> Remote:
        return Remote(name="scp", ae_title="PYNETDICOM", host="127.0.0.1", port=self.port, calling_ae_title="TESTER")


@pytest.fixture
def scp() -> Iterator[Scp]:
    scp = Scp()
    yield scp
    scp.server.shutdown()
    scp.server.server_close()


def test_an_echo_tells_status_times_and_who_answered(scp: Scp) -> None:
    """Success, three times that are not negative, the peer's maximum PDU and implementation name."""
    result = echo(scp.remote)
    assert result.status == 0
    assert min(result.tcp_ms, result.association_ms, result.echo_ms) >= 0
    assert result.peer_max_pdu == 16382
    assert result.peer_implementation_name.startswith("PYNETDICOM")


def test_dcmtk_answers_an_echo(storescp: StoreScp) -> None:
    """A second implementation."""
    remote = Remote(name="x", ae_title="STORESCP", host=storescp.host, port=storescp.port, calling_ae_title="TESTER")
    result = echo(remote)
    assert result.status == 0
    assert result.peer_implementation_name.startswith("OFFIS_DCMTK")


def test_a_failed_echo_is_a_status_and_no_exception() -> None:
    """What the peer answers is a value; both uncompressed syntaxes are proposed."""
    script = [
        *opening(),
        peer.expect_message(data_set=False),
        send(peer.p_data(peer.pdv(peer.echo_rsp_command(1, 0x0122), 3))),
        expect(peer.RELEASE_RQ),
        send(peer.release_pdu(peer.RELEASE_RP)),
    ]
    with ScriptedPeer(script) as scripted:
        assert echo(scripted.remote()).status == 0x0122
    (context,) = scripted.only.request.presentation_context_definition_list
    assert list(context.transfer_syntax) == ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"]


def test_a_peer_that_knows_no_echo_is_named() -> None:
    """ContextNotAccepted with the peer's result."""
    script = [*opening(lambda *_: (3, "1.2.840.10008.1.2")), expect(peer.ABORT)]
    with ScriptedPeer(script) as scripted, pytest.raises(ContextNotAccepted) as caught:
        echo(scripted.remote())
    assert caught.value.result == 3


def test_a_mute_echo_ends_in_progress() -> None:
    """An echo has nothing to be slow about: `timeouts.progress`, not the wait for a broad query."""
    script = [*opening(), peer.expect_message(data_set=False), expect(peer.ABORT)]
    with ScriptedPeer(script) as scripted, pytest.raises(DimseTimeout) as caught:
        echo(scripted.remote(progress=0.05))
    assert caught.value.phase == "progress"


def test_pynetdicom_receives_what_the_files_hold(scp: Scp, tmp_path: Path) -> None:
    """Another receiver: data sets byte by byte, and its warning status read."""
    files = [samples.mr_instance(tmp_path / f"{n}.dcm", number=n) for n in range(1, 6)]
    items = [
        LocalInstance(
            n,
            os.fsencode(one.path),
            one.path.stat().st_size,
            one.path.stat().st_mtime_ns,
            one.sop_class_uid,
            one.sop_instance_uid,
            one.transfer_syntax_uid,
        )
        for n, one in enumerate(files)
    ]
    pairs = [(one.sop_class_uid, one.transfer_syntax_uid) for one in files]
    answers = list(store.send(scp.remote, iter(items), pairs))
    assert [answer.status for answer in answers] == [0xB006] * 5
    assert [uid for uid, _ in scp.stored] == [one.sop_instance_uid for one in files]
    for (_, data), one in zip(scp.stored, files, strict=True):
        assert one.path.read_bytes().endswith(data)
        assert len(data) > 32768
