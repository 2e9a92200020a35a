"""Both directions over TLS, with DCMTK at the other end (PS3.15 B.12 and B.13: AES TLS profiles)."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from dicomferry.models.rules.remote import Remote
from dicomferry.workers.dimse import store
from dicomferry.workers.dimse.local_instance import LocalInstance
from support import samples, tls
from support.bay import open_bay
from support.compare import assert_same_object
from support.peers import StoreScp, require
from support.samples import Sample


def images(folder: Path) -> list[Sample]:
    """Smaller than a TLS record, and much larger than one."""
    return [
        samples.instance(folder / "small.dcm", "MR", number=1, size=16),
        samples.instance(folder / "large.dcm", "CT", number=2, size=2048),
    ]


def test_storescu_sends_to_us(tmp_path: Path) -> None:
    """Every byte of what a TLS sender says arrives."""
    sent = images(tmp_path)
    _, server = tls.contexts()
    with open_bay(tls=server) as bay:
        command = [require("storescu"), "+tla", "-ic", "-R", "127.0.0.1", str(bay.port)]
        subprocess.run([*command, *(str(sample.path) for sample in sent)], check=True, timeout=60)
        bay.join()
    assert bay.error is None
    for sample, sink in zip(sent, bay.sinks, strict=True):
        assert sink.incoming.sop_instance_uid == sample.sop_instance_uid
        assert_same_object(sample.path, bytes(sink.data))


def test_we_send_to_storescp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole objects through the C-STORE data path, released in good order."""
    sent = images(tmp_path / "files")
    key, certificate = tls.write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    plain = socket.create_connection

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        return context.wrap_socket(plain(address, timeout=timeout))

    # Where the system gives a connection, it gives one in TLS: nothing above it is to notice.
    monkeypatch.setattr(socket, "create_connection", connect)
    with StoreScp("STORESCP", "+tls", str(key), str(certificate), "-ic") as scp:
        remote = Remote(name="tls", ae_title="STORESCP", host="127.0.0.1", port=scp.port, calling_ae_title="US")
        items = [local(sample) for sample in sent]
        pairs = [(item.sop_class_uid, item.transfer_syntax_uid) for item in items]
        answers = list(store.send(remote, iter(items), pairs))
        assert [answer.status for answer in answers] == [0, 0]
        received = scp.received()
        for sample in sent:
            assert_same_object(sample.path, received[sample.sop_instance_uid])
        assert "Association Release" in scp.log.read_text()


def local(sample: Sample) -> LocalInstance:
    """What a plan would know of the file."""
    status = sample.path.stat()
    return LocalInstance(
        item_id=1,
        path=os.fsencode(sample.path),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        sop_class_uid=sample.sop_class_uid,
        sop_instance_uid=sample.sop_instance_uid,
        transfer_syntax_uid=sample.transfer_syntax_uid,
    )
