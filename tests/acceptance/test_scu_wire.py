"""`dicomferry scu --store`, `--move` and `--get` against real peers, without a queue and without a home."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from support import gdcmscu, samples
from support.compare import assert_same_object
from support.installation import until
from support.peers import DcmQrScp, Orthanc, StoreScp, require
from support.process import free_port
from support.relay import Relay
from support.samples import Sample
from support.scu import Command


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path / "scu")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Twelve images of one study in a tree of folders."""
    folder = tmp_path_factory.mktemp("tree")
    return [
        samples.mr_instance(folder / f"series{series}" / f"{number}.dcm", study="wire", series=series, number=number)
        for series in (1, 2, 3)
        for number in (1, 2, 3, 4)
    ]


@pytest.fixture
def scp_port() -> int:
    return free_port()


@pytest.fixture
def archive(scp_port: int, tree: list[Sample], tmp_path: Path) -> Iterator[DcmQrScp]:
    """dcmqrscp with the tree; it knows GDCMSCU at our port."""
    with DcmQrScp(destinations={"GDCMSCU": scp_port}) as server:
        ran = Command(tmp_path / "fill").run(
            "--store", "localhost", server.port, "--call", server.aet, "-r", *roots(tree)
        )
        assert (ran.code, ran.out, ran.err) == (0, [], [])
        yield server


def roots(made: list[Sample]) -> list[Path]:
    return [made[0].path.parent.parent]


def check(folder: Path, made: list[Sample]) -> None:
    """These files and no others, the same objects."""
    assert {path.name for path in folder.iterdir()} == {f"{one.sop_instance_uid}.dcm" for one in made}
    for one in made:
        assert_same_object(one.path, folder / f"{one.sop_instance_uid}.dcm")


def test_scripts_that_store_files(command: Command, tree: list[Sample]) -> None:
    """`--store -H HOST -p PORT --call AE -i FILE`, that with `-r -i DIR --verbose`, and `HOST PORT --call AE -r DIR`:
    exit 0 means sent, within the 30 s that they allow.
    """
    with StoreScp("ARCHIVE") as scp:
        one = tree[0].path
        ran = command.run("--store", "-H", "127.0.0.1", "-p", scp.port, "--call", "ARCHIVE", "-i", one, seconds=30)
        assert (ran.code, ran.out, ran.err) == (0, [], [])
        words = ("-r", "-i", *roots(tree), "--verbose")
        ran = command.run("--store", "-H", "127.0.0.1", "-p", scp.port, "--call", "ARCHIVE", *words, seconds=30)
        assert ran.code == 0 and all(any(str(made.path) in line for line in ran.err) for made in tree)
        ran = command.run("--store", "127.0.0.1", scp.port, "--call", "ARCHIVE", "-r", *roots(tree), seconds=30)
        assert (ran.code, ran.out, ran.err) == (0, [], [])
        assert scp.stores() == 1 + 2 * len(tree) and scp.associations() == 3
        received = scp.received()
        assert set(received) == samples.uids(tree)
        for made in tree:
            assert_same_object(made.path, received[made.sop_instance_uid])


def test_a_script_that_moves_a_study(command: Command, archive: DcmQrScp, tree: list[Sample], scp_port: int) -> None:
    """`--move --study --studyroot --key 20,0d,UID --port-scp N --output DIR -D -L DIR/UID.log`, then every *.dcm."""
    uid, folder = tree[0].study_instance_uid, command.folder / "out"
    folder.mkdir()
    words = ("--key", f"20,0d,{uid}", "--port-scp", scp_port, "--output", folder, "-D", "-L", folder / f"{uid}.log")
    ran = command.run("--move", "--study", "--studyroot", "localhost", archive.port, "--call", archive.aet, *words)
    assert (ran.code, ran.out, ran.err) == (0, [], [])
    assert (folder / f"{uid}.log").exists()
    (folder / f"{uid}.log").unlink()
    check(folder, tree)
    assert dcmread(next(folder.iterdir())).file_meta.SourceApplicationEntityTitle == archive.aet


def test_get_from_dcmqrscp(command: Command, archive: DcmQrScp, tree: list[Sample]) -> None:
    """C-GET with the same keys, into the current folder by default."""
    keys = ("-k", f"20,d={tree[0].study_instance_uid}", "-k", f"20,e={tree[0].series_instance_uid}")
    words = ("--studyroot", "--series", *keys)
    ran = command.run("--get", "localhost", archive.port, "--call", archive.aet, *words)
    assert (ran.code, ran.out, ran.err) == (0, [], [])
    check(command.folder, [one for one in tree if one.series_instance_uid == tree[0].series_instance_uid])


def test_orthanc(command: Command, scp_port: int, tmp_path: Path) -> None:
    """Uncompressed and compressed objects go there as they are, and all come back by C-MOVE and by C-GET."""
    made = [
        samples.mr_instance(tmp_path / "in" / "mr.dcm"),
        samples.rle(tmp_path / "in" / "rle.dcm"),
        samples.jpeg_baseline(tmp_path / "in" / "jpeg.dcm"),
        samples.implicit(tmp_path / "in" / "implicit.dcm"),
    ]
    with Orthanc(modalities={"GDCMSCU": scp_port}) as orthanc:
        ran = command.run("--store", "localhost", orthanc.port, "--call", orthanc.aet, tmp_path / "in")
        assert (ran.code, ran.err) == (0, [])
        assert orthanc.instances() == samples.uids(made)
        for study in {one.study_instance_uid for one in made}:
            words = ("--studyroot", "--study", "-k", f"20,d={study}", "--call", orthanc.aet)
            moved = command.run("--move", "localhost", orthanc.port, *words, "--port-scp", scp_port, "-o", "moved")
            got = command.run("--get", "localhost", orthanc.port, *words, "-o", "got")
            assert (moved.code, moved.err, got.code, got.err) == (0, [], 0, [])
    # Both ways Orthanc may choose an uncompressed syntax among those that it may send, and it decompresses then.
    for folder in (command.folder / "moved", command.folder / "got"):
        assert {path.name for path in folder.iterdir()} == {f"{one.sop_instance_uid}.dcm" for one in made}
        for one in (made[0], made[3]):
            assert_same_object(one.path, folder / f"{one.sop_instance_uid}.dcm")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_store(number: int, command: Command, tmp_path: Path) -> None:
    """In mid-batch: exit 130, one line, and what the peer has taken is whole."""
    made = samples.ct_series(tmp_path / "in", 40)
    with StoreScp() as scp:
        with Relay(scp.port, rate=2_000_000) as relay:
            process = command.start("--store", "127.0.0.1", relay.port, tmp_path / "in")
            until(lambda: len(scp.files()) >= 3, "some files")
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (130, "") and len(err.splitlines()) == 1, err
        whole = [path for path in scp.files() if path.stat().st_size >= made[0].path.stat().st_size // 2]
        assert 0 < len(whole) < len(made)


@pytest.mark.parametrize("mode", ["move", "get"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_retrieve(number: int, mode: str, command: Command, scp_port: int, tmp_path: Path) -> None:
    """In mid-batch: exit 130, whole files only, and no other file in the folder."""
    made = samples.ct_series(tmp_path / "in", 30)
    by_uid = {one.sop_instance_uid: one for one in made}
    out = command.folder / "out"
    own = free_port()
    with (
        Relay(own if mode == "get" else scp_port, rate=3_000_000, back=mode == "get") as relay,
        DcmQrScp(destinations={"GDCMSCU": relay.port}, port=own) as server,
    ):
        assert command.run("--store", "localhost", own, "--call", server.aet, tmp_path / "in").code == 0
        more = ("--port-scp", scp_port) if mode == "move" else ()
        words = ("--studyroot", "-k", f"20,d={made[0].study_instance_uid}", "--call", server.aet, "-o", out)
        process = command.start(f"--{mode}", "127.0.0.1", relay.port if mode == "get" else own, *words, *more)
        until(lambda: out.is_dir() and len(list(out.iterdir())) >= 2, "two files")
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and len(err.splitlines()) == 1, err
    came = list(out.iterdir())
    assert 2 <= len(came) < len(made)
    for path in came:
        assert_same_object(by_uid[path.name.removesuffix(".dcm")].path, path)


def test_a_progress_line_on_a_terminal_alone(command: Command, tmp_path: Path) -> None:
    """A long run shows how far it is where standard error is a terminal, and takes that away at the end."""
    samples.ct_series(tmp_path / "in", 12)
    ours, theirs = os.openpty()
    with StoreScp() as scp, Relay(scp.port, rate=3_000_000) as relay:
        process = command.start("--store", "127.0.0.1", relay.port, tmp_path / "in", stderr=theirs)
        os.close(theirs)
        shown = _read(ours)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert re.search(rb"sending \d+ of 12, [\d.]+ MB", shown) and shown.endswith(b"\r\x1b[K")


def _read(fd: int) -> bytes:
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(fd, 65536)
        except OSError:  # what a terminal says once nobody writes to it any more
            part = b""
        if not part:
            os.close(fd)
            return b"".join(parts)
        parts.append(part)


@pytest.mark.parametrize("kind", [DcmQrScp, Orthanc])
def test_archives_hold_the_same_beside_the_real_one(
    kind: type[DcmQrScp] | type[Orthanc], command: Command, tree: list[Sample]
) -> None:
    """What gdcmscu stores and what we store is the same objects in an archive, one for one."""
    held: list[dict[str, bytes]] = []
    for ours in (False, True):
        with kind("ARCHIVE") as server:
            words = ("--store", "--call", server.aet, "-r", "-i", roots(tree)[0])
            if ours:
                assert command.run(*words, "127.0.0.1", server.port).code == 0
            else:
                gdcmscu.run(server.port, *map(str, words))
            held.append(_held(server))
    theirs, own = held
    assert set(theirs) == set(own) == samples.uids(tree)
    for one in tree:
        assert_same_object(one.path, own[one.sop_instance_uid])
        assert_same_object(one.path, theirs[one.sop_instance_uid])


def _held(server: DcmQrScp | Orthanc) -> dict[str, bytes]:
    """What an archive holds: SOP Instance UID to file."""
    if isinstance(server, Orthanc):
        return {uid: server.dicom(uid) for uid in server.instances()}
    files = [path for path in server.storage.iterdir() if path.name != "index.dat"]
    return {str(dcmread(path).SOPInstanceUID): path.read_bytes() for path in files}


def test_beside_the_real_one(command: Command, tree: list[Sample], scp_port: int) -> None:
    """gdcmscu stores the same data sets, and writes the same query file, whatever it makes of the end."""
    program = require("gdcmscu")
    with StoreScp() as theirs, StoreScp() as ours:
        words = ["-r", str(roots(tree)[0])]
        arguments = [program, "--store", "127.0.0.1", str(theirs.port), *words]
        subprocess.run(arguments, capture_output=True, timeout=60, env=command.environment)
        assert command.run("--store", "127.0.0.1", ours.port, *words).code == 0
        stored, received = theirs.received(), ours.received()
        assert set(stored) == set(received) == samples.uids(tree)
        for uid, path in stored.items():
            assert_same_object(path, received[uid])
    queries = []
    for number, is_ours in enumerate((False, True)):
        query = command.folder / f"query{number}.dcm"
        words = ["--move", "127.0.0.1", "1", "--patientroot", "--image", "--key", "10,20=PAT1", "--key", "8,18=1.2.34"]
        words += ["--port-scp", str(scp_port), "--store-query", str(query)]
        if not is_ours:
            subprocess.run([program, *words], capture_output=True, timeout=90, env=command.environment)
        else:
            command.run(*words)
        queries.append(query.read_bytes())
    assert queries[0] == queries[1]
