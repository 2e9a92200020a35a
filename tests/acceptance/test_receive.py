"""Real senders to the real storage SCP: every object arrives as it was sent, whatever the transfer syntax."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread

from dicomferry.workers.receiving import archive_check
from support import samples
from support.compare import assert_same_object
from support.installation import until
from support.objects import OBJECTS, enormous, mixed, tiny
from support.peers import DcmQrScp, Orthanc, require
from support.samples import Sample
from support.scp import StorageScp, storage_scp

AET = "FERRY"


@pytest.fixture
def scp() -> Iterator[StorageScp]:
    with storage_scp() as server:
        yield server


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


def test_from_orthanc_as_a_mover(scp: StorageScp, tmp_path: Path) -> None:
    """C-MOVE to us by an archive with every syntax in it: all arrive in the one that they lie there in."""
    sent = mixed(tmp_path)
    with Orthanc(modalities={AET: scp.port}) as orthanc:
        for sample in sent:
            orthanc.upload(sample.path.read_bytes())
        for study in {sample.study_instance_uid for sample in sent}:
            run(
                require("movescu"), "-S", "-aet", "ASKER", "-aec", orthanc.aet, "-aem", AET, "-k", "0008,0052=STUDY",
                "-k", f"0020,000D={study}", "127.0.0.1", orthanc.port,
            )  # fmt: skip
    check(scp, sent)
    assert set(scp.rows("SELECT originator_ae_title FROM arrival")) == {("ASKER",)}


def test_from_gdcmscu(scp: StorageScp, tmp_path: Path) -> None:
    """GDCM's sender, a folder and a file. Version 3.0.21 aborts at the end of every good association, its process and
    all: what arrived is what counts.
    """
    gdcmscu = require("gdcmscu")
    sent = samples.make_tree(tmp_path / "tree", 12, 4)
    alone = samples.rle(tmp_path / "rle.dcm")
    for what in (("-r", "-i", tmp_path / "tree"), (alone.path,)):
        command = [gdcmscu, "--store", "--aetitle", "GDCM", "--call", AET, "127.0.0.1", str(scp.port), *what]
        subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    check(scp, [*sent, alone])


def test_an_echo_from_dcmtk(scp: StorageScp) -> None:
    """C-ECHO."""
    run(require("echoscu"), "-aec", AET, "127.0.0.1", scp.port)


def test_a_tiny_object_and_a_large_one(scp: StorageScp, tmp_path: Path) -> None:
    """From three hundred bytes to fifty megabytes."""
    small = tiny(tmp_path / "small.dcm")
    assert small.path.stat().st_size < 600
    large = samples.write(tmp_path / "large.dcm", samples.dataset(size=5000, SOPInstanceUID=samples.uid("large")))
    run(require("storescu"), "-xf", *profile(tmp_path, small), "-aec", AET, "127.0.0.1", scp.port, small.path)
    run(require("storescu"), "-aec", AET, "127.0.0.1", scp.port, large.path)
    check(scp, [small, large])


def profile(folder: Path, sample: Sample) -> tuple[Path, str]:
    """What makes storescu propose a class that it does not propose by itself."""
    lines = [
        "[[TransferSyntaxes]]", "[S]", f"TransferSyntax1 = {sample.transfer_syntax_uid}",
        "[[PresentationContexts]]", "[C]", f"PresentationContext1 = {sample.sop_class_uid}\\S",
        "[[Profiles]]", "[P]", "PresentationContexts = C",
    ]  # fmt: skip
    path = folder / "storescu.cfg"
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    return path, "P"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_object_of_a_gigabyte(scp: StorageScp, tmp_path: Path) -> None:
    """It passes through one buffer, and lies there byte for byte as long as it was."""
    sample = enormous(tmp_path / "gigabyte.dcm")
    before = psutil.Process(scp.pid).memory_info().rss
    run(require("storescu"), "-R", "-aec", AET, "127.0.0.1", scp.port, sample.path)
    assert psutil.Process(scp.pid).memory_info().rss - before < 20e6
    until(lambda: scp.indexed() == 1, "it is indexed")
    (file,) = scp.files
    assert file.stem == sample.sop_instance_uid and file.stat().st_size > 1 << 30
    assert archive_check.verify(scp.archive, scp.database).damaged == 0


def test_four_senders_at_once(scp: StorageScp, tmp_path: Path) -> None:
    """Four associations of one study, the same instances among them: each is kept once."""
    sent = samples.make_tree(tmp_path, 100, 25)
    command = [require("storescu"), "-aec", AET, "+sd", "+r", "127.0.0.1", str(scp.port), str(tmp_path)]
    senders = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(4)]
    assert [sender.wait(120) for sender in senders] == [0] * 4
    until(lambda: scp.rows("SELECT count(*) FROM arrival") == [(400,)], "all arrivals are on record")
    assert dict(scp.rows("SELECT outcome, count(*) FROM arrival GROUP BY 1")) == {"stored": 100, "duplicate": 300}
    check(scp, sent)
