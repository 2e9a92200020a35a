"""Real senders to the real storage SCP: every object arrives as it was sent, whatever the transfer syntax."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate

from dicomferry.workers import archive_check
from support import samples
from support.compare import assert_same_object
from support.installation import until
from support.peers import DcmQrScp, Orthanc, require
from support.samples import Sample
from support.scp import StorageScp, storage_scp

AET = "FERRY"


@pytest.fixture
def scp() -> Iterator[StorageScp]:
    with storage_scp() as server:
        yield server


def opaque(path: Path, syntax: str) -> Sample:
    """Encapsulated pixels that no decoder here has to understand."""
    ds = samples.dataset(SOPInstanceUID=samples.uid("opaque", syntax))
    ds.PixelData = encapsulate([os.urandom(5000)])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return samples.write(path, ds, syntax)


def shipped(name: str) -> Callable[[Path], Sample]:
    return lambda path: samples._shipped(path, name, name)


def video(syntax: str) -> Callable[[Path], Sample]:
    return lambda path: opaque(path, syntax)


# Name -> (how it is made, how storescu is to be told to propose its syntax).
OBJECTS: dict[str, tuple[Callable[[Path], Sample], str]] = {
    "explicit": (samples.mr_instance, "--propose-little"),
    "uncompressed": (lambda path: samples.instance(path, "CT", size=32), "--propose-uncompr"),
    "implicit": (samples.implicit, "--propose-implicit"),
    "big endian": (samples.big_endian, "--propose-big"),
    "deflated": (samples.deflated, "--propose-deflated"),
    "rle": (samples.rle, "--propose-rle"),
    "jpeg baseline": (samples.jpeg_baseline, "--propose-jpeg8"),
    "jpeg extended": (shipped("JPGExtended.dcm"), "--propose-jpeg12"),
    "jpeg lossless": (video("1.2.840.10008.1.2.4.70"), "--propose-lossless"),
    "jpeg-ls": (shipped("MR_small_jpeg_ls_lossless.dcm"), "--propose-jls-lossless"),
    "jpeg-ls lossy": (shipped("JPEGLSNearLossless_16.dcm"), "--propose-jls-lossy"),
    "jpeg 2000": (samples.jpeg2000, "--propose-j2k-lossless"),
    "jpeg 2000 lossy": (video("1.2.840.10008.1.2.4.91"), "--propose-j2k-lossy"),
    "mpeg 2": (video("1.2.840.10008.1.2.4.100"), "--propose-mpeg2"),
    "mpeg 2 high": (video("1.2.840.10008.1.2.4.101"), "--propose-mpeg2-high"),
    "mpeg 4": (video("1.2.840.10008.1.2.4.102"), "--propose-mpeg4"),
    "mpeg 4 bd": (video("1.2.840.10008.1.2.4.103"), "--propose-mpeg4-bd"),
    "mpeg 4 2d": (video("1.2.840.10008.1.2.4.104"), "--propose-mpeg4-2-2d"),
    "mpeg 4 3d": (video("1.2.840.10008.1.2.4.105"), "--propose-mpeg4-2-3d"),
    "mpeg 4 stereo": (video("1.2.840.10008.1.2.4.106"), "--propose-mpeg4-2-st"),
    "hevc": (video("1.2.840.10008.1.2.4.107"), "--propose-hevc"),
    "hevc 10": (video("1.2.840.10008.1.2.4.108"), "--propose-hevc10"),
}


def run(*command: object) -> str:
    """A sender to its end, which must be a good one."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    return told


def check(scp: StorageScp, sent: list[Sample]) -> None:
    """What was sent is there, the same, each once; and the index says so."""
    until(lambda: scp.indexed() >= len(sent), "all are indexed")
    received = {path.stem: path for path in scp.files}
    assert set(received) == samples.uids(sent)
    for sample in sent:
        assert_same_object(sample.path, received[sample.sop_instance_uid])
    found = archive_check.verify(scp.archive, scp.database)
    assert (found.missing_files, found.unindexed, found.damaged) == (0, 0, 0)


def test_each_transfer_syntax_from_storescu(scp: StorageScp, tmp_path: Path) -> None:
    """Every syntax that DCMTK proposes, one association each, kept in the one it came in."""
    storescu = require("storescu")
    sent = []
    for name, (make, option) in OBJECTS.items():
        sample = make(tmp_path / f"{name}.dcm")
        run(storescu, "-aec", AET, option, "127.0.0.1", scp.port, sample.path)
        sent.append(sample)
    check(scp, sent)
    for sample in sent:
        (path,) = (path for path in scp.files if path.stem == sample.sop_instance_uid)
        assert dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == sample.transfer_syntax_uid


@pytest.mark.parametrize("options", [(), ("-pdu", "4096"), ("--max-send-pdu", "4096"), ("-R",), ("+C",)])
def test_folders_from_storescu(scp: StorageScp, tmp_path: Path, options: tuple[str, ...]) -> None:
    """A tree, recursively, with PDUs of any size and contexts of any cut."""
    sent = samples.make_tree(tmp_path, 60, 20)
    run(require("storescu"), "-aec", AET, *options, "+sd", "+r", "127.0.0.1", scp.port, tmp_path)
    check(scp, sent)


def mixed(folder: Path) -> list[Sample]:
    """One of each, and a private class. Orthanc does not take pydicom's JPEG-LS sample: it lacks a patient's id."""
    made = [make(folder / f"{name}.dcm") for name, (make, _) in OBJECTS.items() if name != "jpeg-ls lossy"]
    return [*made, samples.private_sop_class(folder / "private.dcm")]


def test_mixed_syntaxes_from_dcmsend(scp: StorageScp, tmp_path: Path) -> None:
    """One call, all syntaxes that it knows."""
    require("storescu")
    sent = [samples.mr_instance(tmp_path / "a"), samples.implicit(tmp_path / "b"), samples.rle(tmp_path / "c"),
            samples.jpeg2000(tmp_path / "d"), samples.jpeg_baseline(tmp_path / "e")]  # fmt: skip
    run("dcmsend", "-aec", AET, "--decompress-never", "127.0.0.1", scp.port, "+sd", "+r", tmp_path)
    check(scp, sent)


def test_mixed_syntaxes_from_orthanc(scp: StorageScp, tmp_path: Path) -> None:
    """Orthanc as sender, one association for all."""
    sent = [*mixed(tmp_path / "mixed"), *samples.make_tree(tmp_path / "tree", 40, 10)]
    with Orthanc(modalities={AET: scp.port}) as orthanc:
        for sample in sent:
            orthanc.upload(sample.path.read_bytes())
        identifiers = orthanc.get("/instances")
        assert len(identifiers) == len(sent)
        answer = orthanc.post(f"/modalities/{AET}/store", {"Resources": identifiers, "Synchronous": True})
        assert answer["FailedInstancesCount"] == 0
    check(scp, sent)


def test_from_pynetdicom(scp: StorageScp, tmp_path: Path) -> None:
    """pynetdicom's own sender, with the contexts that the files need."""
    sent = [
        samples.mr_instance(tmp_path / "a.dcm"),
        samples.implicit(tmp_path / "b.dcm"),
        samples.rle(tmp_path / "c.dcm"),
    ]
    told = run(
        sys.executable, "-m", "pynetdicom", "storescu", "127.0.0.1", scp.port, tmp_path, "-r", "-cx", "-aec", AET
    )
    assert "Status: 0x0000" in told or "E:" not in told
    check(scp, sent)


def test_from_a_mover(scp: StorageScp, tmp_path: Path) -> None:
    """dcmqrscp moves to us; the arrival carries who asked for it."""
    sent = samples.make_tree(tmp_path, 10, 10)
    with DcmQrScp(destinations={AET: scp.port}) as mover:
        run(require("storescu"), "-aec", mover.aet, "+sd", "+r", "127.0.0.1", mover.port, tmp_path)
        run(
            require("movescu"), "-S", "-aet", "ASKER", "-aec", mover.aet, "-aem", AET, "-k", "0008,0052=STUDY",
            "-k", f"0020,000D={sent[0].study_instance_uid}", "127.0.0.1", mover.port,
        )  # fmt: skip
    check(scp, sent)
    assert set(scp.rows("SELECT originator_ae_title FROM arrival")) == {("ASKER",)}


def test_an_echo_from_dcmtk(scp: StorageScp) -> None:
    """C-ECHO."""
    run(require("echoscu"), "-aec", AET, "127.0.0.1", scp.port)


def test_a_tiny_object_and_a_large_one(scp: StorageScp, tmp_path: Path) -> None:
    """From some hundred bytes to fifty megabytes."""
    small = samples.write(tmp_path / "small.dcm", samples.dataset(size=1, SOPInstanceUID=samples.uid("small")))
    large = samples.write(tmp_path / "large.dcm", samples.dataset(size=5000, SOPInstanceUID=samples.uid("large")))
    run(require("storescu"), "-aec", AET, "127.0.0.1", scp.port, small.path, large.path)
    check(scp, [small, large])


def test_four_senders_at_once(scp: StorageScp, tmp_path: Path) -> None:
    """Four associations of one study, the same instances among them: each is kept once."""
    sent = samples.make_tree(tmp_path, 100, 25)
    command = [require("storescu"), "-aec", AET, "+sd", "+r", "127.0.0.1", str(scp.port), str(tmp_path)]
    senders = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(4)]
    assert [sender.wait(120) for sender in senders] == [0] * 4
    until(lambda: scp.rows("SELECT count(*) FROM arrival") == [(400,)], "all arrivals are on record")
    assert dict(scp.rows("SELECT outcome, count(*) FROM arrival GROUP BY 1")) == {"stored": 100, "duplicate": 300}
    check(scp, sent)
