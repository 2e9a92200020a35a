"""Our sender to the real receivers: every object arrives as it lies in its file, whatever the transfer syntax."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from dicomferry.models.rules.remote import Remote
from dicomferry.workers.dimse.local_instance import LocalInstance
from dicomferry.workers.dimse.store import StoreAnswer, send
from support import samples
from support.compare import assert_same_object, body
from support.objects import enormous, mixed, tiny
from support.peers import Orthanc, PynetdicomScp, StoreScp
from support.process import Server
from support.samples import Sample


def sent(server: Server, files: Sequence[Sample]) -> list[StoreAnswer]:
    """The answers to all of them."""
    remote = Remote(name="peer", ae_title="PEER", host="127.0.0.1", port=server.port, calling_ae_title="US")
    items = [local(sample) for sample in files]
    pairs = [(item.sop_class_uid, item.transfer_syntax_uid) for item in items]
    return list(send(remote, iter(items), pairs))


def local(sample: Sample) -> LocalInstance:
    """What a plan would know of the file."""
    status = sample.path.stat()
    return LocalInstance(
        item_id=0,
        path=os.fsencode(sample.path),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        sop_class_uid=sample.sop_class_uid,
        sop_instance_uid=sample.sop_instance_uid,
        transfer_syntax_uid=sample.transfer_syntax_uid,
    )


def test_every_syntax_to_storescp(tmp_path: Path) -> None:
    """What it writes is what came over the wire: the files' data sets, byte for byte (a NUL after an odd deflated one),
    from three hundred bytes to fifty megabytes.
    """
    odd = samples.deflated(tmp_path / "odd.dcm", "odd", odd=True)
    files = [*mixed(tmp_path / "mixed"), odd, tiny(tmp_path / "tiny.dcm"), enormous(tmp_path / "large.dcm", 50)]
    with StoreScp() as scp:
        answers = sent(scp, files)
        assert [(answer.status, answer.sent_as) for answer in answers] == [(0, None)] * len(files)
        received = {path.name.partition(".")[2]: path for path in scp.files()}
        assert set(received) == samples.uids(files)
        for sample in files:
            pad = b"\0" if sample is odd else b""
            assert body(received[sample.sop_instance_uid]) == body(sample.path) + pad, sample.path


def test_every_syntax_to_orthanc(tmp_path: Path) -> None:
    """All are there, each in its own syntax; Orthanc writes headers anew, so elements and pixels are compared."""
    files = mixed(tmp_path)
    with Orthanc() as orthanc:
        answers = sent(orthanc, files)
        assert [(answer.status, answer.sent_as) for answer in answers] == [(0, None)] * len(files)
        assert orthanc.instances() == samples.uids(files)
        for sample in files:
            assert_same_object(sample.path, orthanc.dicom(sample.sop_instance_uid))


def test_every_syntax_to_pynetdicom(tmp_path: Path) -> None:
    """Its storescp takes the standard classes; the private one is refused, and disturbs nothing."""
    *files, private = mixed(tmp_path)
    with PynetdicomScp() as scp:
        *answers, refused = sent(scp, [*files, private])
        assert [(answer.status, answer.sent_as) for answer in answers] == [(0, None)] * len(files)
        assert (refused.status, refused.reason) == (None, "context refused")
        received = scp.received()
        assert set(received) == samples.uids(files)
        for sample in files:
            assert_same_object(sample.path, received[sample.sop_instance_uid])


@pytest.mark.parametrize("pdu", ["4096", "131072"])
def test_any_size_of_pdu(tmp_path: Path, pdu: str) -> None:
    """The smallest and the largest that storescp can be told to take."""
    files = samples.make_tree(tmp_path, 20, 10)
    with StoreScp("STORESCP", "-pdu", pdu) as scp:
        assert [answer.status for answer in sent(scp, files)] == [0] * 20
        for sample, path in zip(files, map(scp.received().__getitem__, map(uid_of, files)), strict=True):
            assert body(path) == body(sample.path)


def uid_of(sample: Sample) -> str:
    return sample.sop_instance_uid


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_object_of_a_gigabyte(tmp_path: Path) -> None:
    """Its bytes pass through one buffer: memory does not follow the object."""
    files = [enormous(tmp_path / "gigabyte.dcm")]
    with StoreScp("STORESCP", "--ignore") as scp:
        sent(scp, samples.make_tree(tmp_path / "warm", 1, 1))
        before = psutil.Process().memory_info().rss
        (answer,) = sent(scp, files)
        assert (answer.status, answer.sent_bytes) == (0, len_of_data(files[0].path))
        assert psutil.Process().memory_info().rss - before < 20e6


def len_of_data(path: Path) -> int:
    with path.open("rb") as file:
        head = file.read(144)
    return path.stat().st_size - 144 - int.from_bytes(head[140:144], "little")
