"""Retrieves from real archives: they end only when every instance is here, whatever dies on the way."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1, RLELossless

from support import samples, studies
from support.compare import assert_same_object
from support.installation import Installation, Up, until
from support.peers import DcmQrScp, Orthanc, require
from support.record import Record
from support.relay import Relay
from support.samples import Sample

from .conftest import Install

pytestmark = pytest.mark.timeout(900)

TITLE = "DICOMFERRY"
SLOW = 150_000.0
"""Bytes a second towards our storage SCP: about a hundred of the small images."""
QUICK = {"timeouts__quiet": 1, "timeouts__settle": 2}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """950 instances in six studies."""
    return studies.six(tmp_path_factory.mktemp("held"))


@pytest.fixture(scope="module")
def source(held: list[Sample]) -> Iterator[Orthanc]:
    """Orthanc with all of it."""
    with Orthanc() as orthanc:
        for sample in held:
            orthanc.upload(sample.path.read_bytes())
        assert orthanc.count() == len(held)
        yield orthanc


@pytest.fixture
def site(install: Install, source: Orthanc) -> tuple[Installation, Record]:
    """An installation that Orthanc knows, and that knows Orthanc."""
    installation, record = install(**QUICK)
    source.set_modality(TITLE, scp_port(installation))
    installation.run("remote", "add", "orthanc", address(source), "--no-probe")
    return installation, record


def scp_port(installation: Installation) -> int:
    return int(installation.environment["DICOMFERRY_SCP__PORT"])


def address(peer: Orthanc | DcmQrScp) -> str:
    return f"{peer.aet}@127.0.0.1:{peer.port}"


def table(path: Path, heading: Iterable[str], rows: Iterable[Iterable[str]]) -> Path:
    """A file for --from-csv."""
    text = io.StringIO()
    csv.writer(text, delimiter=";").writerows([list(heading), *map(list, rows)])
    path.write_text(text.getvalue(), encoding="utf-8-sig")
    return path


def check(installation: Installation, job_id: int, held: list[Sample], job: dict[str, Any] | None = None) -> None:
    """The job is done and proven; the archive has these, each once, the same."""
    job = job or installation.wait_job(job_id, 240)
    told = installation.run("jobs", "show", job_id).stdout
    assert (job["state"], job["verified"], job["expectation"]) == ("succeeded", "uids", "images"), told
    assert (job["expected"], job["received"], job["missing"], job["conflicts"]) == (len(held), len(held), 0, 0), told
    listed = installation.json("archive", "list", "--job", job_id)
    current = {row["sop_instance_uid"]: installation.home / "archive" / row["path"] for row in listed}
    assert set(current) == samples.uids(held)
    for sample in held:
        assert_same_object(sample.path, current[sample.sop_instance_uid])
    verified = installation.json("archive", "verify")
    assert (verified["missing_files"], verified["unindexed"], verified["damaged"]) == (0, 0, 0)
    assert f"{len(held)} of {len(held)} proven from ORTHANC" in told.replace(",", "") or "QRSCP" in told


def by_study(path: Path, held: list[Sample]) -> list[object]:
    listed = "\\".join(studies.of_study(held))
    return ["--level", "study", "-k", f"StudyInstanceUID={listed}"]


def by_series(path: Path, held: list[Sample]) -> list[object]:
    rows = studies.of_series(held)
    return ["--level", "series", "--from-csv", table(path, ("StudyInstanceUID", "SeriesInstanceUID"), rows)]


def by_image(path: Path, held: list[Sample]) -> list[object]:
    rows = [
        (*one, "\\".join(sample.sop_instance_uid for sample in made)) for one, made in studies.of_series(held).items()
    ]
    heading = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return ["--level", "image", "--from-csv", table(path, heading, rows)]


def by_accession(path: Path, held: list[Sample]) -> list[object]:
    rows = [(accession, "kept") for accession in studies.ACCESSIONS]
    return ["--from-csv", table(path, ("AccessionNumber", "Order"), rows)]


Ask = Callable[[Path, list[Sample]], list[object]]


@pytest.mark.parametrize("command", ["move", "get"])
def test_a_study_comes_from_orthanc(command: str, site: tuple[Installation, Record], held: list[Sample]) -> None:
    """Of two modalities and two encodings: succeeded, proven per instance, each object as the archive has it."""
    installation, _ = site
    study, wanted = list(studies.of_study(held).items())[-1]
    with installation.up():
        check(installation, installation.submit(command, "orthanc", "-k", f"StudyInstanceUID={study}"), wanted)


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "ask"),
    [
        ("move", by_study),
        ("move", by_series),
        ("move", by_image),
        ("move", by_accession),
        ("get", by_study),
        ("get", by_accession),
    ],
)
def test_everything_comes_from_orthanc(
    command: str, ask: Ask, site: tuple[Installation, Record], held: list[Sample], tmp_path: Path
) -> None:
    """By every level and method: succeeded, proven per instance, each object as the archive has it."""
    installation, _ = site
    with installation.up():
        job_id = installation.submit(command, "orthanc", *ask(tmp_path / "requests.csv", held))
        check(installation, job_id, held)
        again = installation.submit(command, "orthanc", *ask(tmp_path / "requests.csv", held))
        job = installation.wait_job(again)
        assert (job["state"], job["received"], job["bytes"]) == ("succeeded", len(held), 0), "nothing is fetched twice"
    if ask is by_accession:
        rows = list(
            csv.DictReader(io.StringIO(installation.run("jobs", "report", job_id, "--by", "request", "--csv").stdout))
        )
        assert [(row["row"], row["AccessionNumber"], row["Order"]) for row in rows] == [
            (str(number), accession, "kept") for number, accession in enumerate(studies.ACCESSIONS, start=2)
        ]


@pytest.mark.long
def test_what_was_retrieved_is_sent_on(site: tuple[Installation, Record], held: list[Sample], tmp_path: Path) -> None:
    """From one archive to another in two jobs: what a retrieve brought is stored elsewhere, nothing else."""
    installation, _ = site
    study, wanted = next(iter(studies.of_study(held).items()))
    with Orthanc("OTHER") as other, installation.up():
        first = installation.submit("move", "orthanc", "-k", f"StudyInstanceUID={study}")
        installation.wait_job(first)
        second = installation.submit("store", address(other), "--from-job", first)
        assert installation.wait_job(second)["state"] == "succeeded"
        assert other.instances() == samples.uids(wanted)


@pytest.mark.long
@pytest.mark.parametrize(
    ("compressed", "letter", "scale"),
    [(None, "e", 1), (JPEGLosslessSV1, "s", 1), (RLELossless, "r", 5)],
    ids=["plain", "JPEG lossless", "RLE"],
)
def test_everything_comes_from_dcmqrscp(
    compressed: str | None, letter: str, scale: int, install: Install, tmp_path: Path
) -> None:
    """The same from an archive of another make: plain encodings, alone and beside one compressed syntax. Both are
    offered in one context; what is in the other one cannot be sent, and is asked for again the other way.
    """
    installation, _ = install(**QUICK)
    held = [
        sample
        for sample in studies.six(tmp_path / "held", scale, name="dcmqrscp", compressed=compressed is not None)
        if sample.transfer_syntax_uid in (compressed, ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    ]
    assert compressed is None or compressed in {sample.transfer_syntax_uid for sample in held}
    options = (f"+x{letter}", f"-x{letter}") if compressed else ()
    with DcmQrScp("QRSCP", *options, destinations={TITLE: scp_port(installation)}) as peer:
        for folder in filling(tmp_path, held):
            subprocess.run(
                [require("storescu"), f"-x{letter}", "-aec", peer.aet, "+sd", "127.0.0.1", str(peer.port), str(folder)],
                check=True, capture_output=True, env={**os.environ, "TCP_NODELAY": "1"}, timeout=120,
            )  # fmt: skip
        installation.run("remote", "add", "qrscp", address(peer), "--no-probe")
        with installation.up():
            for command, ask in (("move", by_study), ("get", by_series)):
                refetch = ["--refetch"] if command == "get" else []
                job_id = installation.submit(command, "qrscp", *ask(tmp_path / "a.csv", held), *refetch)
                check(installation, job_id, held)
                if compressed:
                    moves = installation.json("jobs", "report", job_id)["moves"]
                    assert {move["round"] for move in moves} == {0, 1}


def filling(folder: Path, held: list[Sample]) -> Iterator[Path]:
    """Folders with links to the files, one for each association of a sender."""
    into = folder / "filling"
    into.mkdir()
    for sample in held:
        (into / sample.path.name).symlink_to(sample.path)
    yield into


# --- whatever dies on the way ---------------------------------------------------------------------------------------


def kill_worker(installation: Installation, up: Up, record: Record, job_id: int, source: Orthanc) -> None:
    """The process that waits for the answer."""

    def busy() -> int | None:
        pool = up.roles().pool
        return next((row.pid for row in record.running(job_id, "move", "get") if row.pid in pool), None)

    os.kill(until(busy, "a pool process retrieves"), signal.SIGKILL)


def kill_scp(installation: Installation, up: Up, record: Record, job_id: int, source: Orthanc) -> None:
    """The storage SCP, with associations open."""
    (pid,) = [
        child.pid for child in psutil.Process(up.pid).children() if "dicomferry.daemon.storage_scp" in child.cmdline()
    ]
    os.kill(pid, signal.SIGKILL)


def kill_broker(installation: Installation, up: Up, record: Record, job_id: int, source: Orthanc) -> None:
    """The doorbell."""
    broker = up.roles().broker
    assert broker is not None
    os.kill(broker, signal.SIGKILL)


def kill_source(installation: Installation, up: Up, record: Record, job_id: int, source: Orthanc) -> None:
    """Orthanc itself; it comes back."""
    source.kill()
    source.start()


@pytest.mark.long
@pytest.mark.parametrize("command", ["move", "get"])
@pytest.mark.parametrize("kill", [kill_worker, kill_scp, kill_broker, kill_source])
def test_whatever_is_killed_it_all_comes(
    command: str, kill: Callable[..., None], install: Install, held: list[Sample], tmp_path: Path
) -> None:
    """Killed in the middle, by pid, once; the job goes on by itself and ends as if nothing had happened."""
    installation, record = install(**QUICK)
    # What a C-GET brings comes back on our own association.
    with (
        Orthanc() as orthanc,
        Relay(scp_port(installation), SLOW) as inward,
        Relay(orthanc.port, SLOW, back=True) as outward,
    ):
        for sample in held:
            orthanc.upload(sample.path.read_bytes())
        orthanc.set_modality(TITLE, inward.port)
        installation.run("remote", "add", "orthanc", f"ORTHANC@127.0.0.1:{outward.port}", "--no-probe")
        with installation.up() as up:
            job_id = installation.submit(command, "orthanc", *by_study(tmp_path / "a.csv", held))
            until(lambda: installation.show(job_id)["received"] >= 40, "some of it has come")
            kill(installation, up, record, job_id, orthanc)
            if kill is not kill_source:
                until(lambda: installation.show(job_id)["received"] >= 80, "it goes on")
            inward.rate = outward.rate = None
            check(installation, job_id, held)
