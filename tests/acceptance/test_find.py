"""Queries through the console script and the queue, of real archives, and what `jobs matches` makes of the answers."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from support import samples
from support.installation import Installation
from support.peers import DcmQrScp, Orthanc
from support.process import Server
from support.samples import Sample

from .conftest import Install, on

NAMES = {"PAT1": "Müller^Jérôme", "PAT2": "Ångström^Åsa", "PAT3": "Ferry^Test"}


def patients(folder: Path) -> list[Sample]:
    """Three patients, names with accents in ISO_IR 100; each has a study of two series, of one and two images."""
    made = []
    for patient, name in NAMES.items():
        for series, number in ((1, 1), (1, 2), (2, 1)):
            ds = samples.dataset(size=8, PatientID=patient, PatientName=name, SeriesNumber=series)
            ds.StudyInstanceUID = samples.uid("study", patient)
            ds.SeriesInstanceUID = samples.uid("series", patient, series)
            ds.SOPInstanceUID = samples.uid("sop", patient, series, number)
            made.append(samples.write(folder / f"{patient}-{series}-{number}.dcm", ds))
    return made


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return patients(tmp_path_factory.mktemp("patients"))


def found(installation: Installation, *arguments: object) -> list[dict[str, object]]:
    """The matches of a query, as `--json` gives them."""
    job = installation.json("submit", "find", *arguments, "--wait")
    assert job["state"] == "succeeded", job
    matches: list[dict[str, object]] = installation.json("jobs", "matches", job["id"])
    assert len(matches) == job["matches"]
    return matches


@on()
def test_orthanc_at_every_level(install: Install, orthanc: Orthanc, held: list[Sample], database_url: str) -> None:
    """Patients, studies, series, images; accents in what is asked and in what comes; every form of the list."""
    installation, _ = install(database_url)
    for sample in held:
        orthanc.upload(sample.path.read_bytes())
    address = f"{orthanc.aet}@127.0.0.1:{orthanc.port}"
    with installation.up():
        installation.run("remote", "add", "pacs", address, "--charset", "ISO_IR 100", "--no-probe")
        (one,) = found(installation, "pacs", "--level", "patient", "-k", "PatientName=*Jérôme*")
        assert (one["PatientID"], one["PatientName"]) == ("PAT1", "Müller^Jérôme")
        studies = found(installation, address, "-k", "PatientName", "-k", "StudyDate=20240101-20241231")
        assert {match["PatientName"] for match in studies} == set(NAMES.values())
        series = found(installation, "pacs", "--level", "series", "-k", "PatientID=PAT2", "-k", "SeriesNumber")
        assert sorted(str(match["SeriesNumber"]) for match in series) == ["1", "2"]
        images = found(installation, "pacs", "--level", "image", "--root", "patient", "-k", "PatientID=PAT2")
        assert {match["SOPInstanceUID"] for match in images} == samples.uids(held[3:6])

        listed = installation.run("jobs", "matches", "last").stdout.splitlines()
        assert listed[0].split() == ["SOPInstanceUID", "PatientID"] and len(listed) == 4
        rows = list(csv.DictReader(io.StringIO(installation.run("jobs", "matches", "last", "--csv").stdout)))
        assert {row["SOPInstanceUID"] for row in rows} == samples.uids(held[3:6])
        lines = installation.run("jobs", "matches", "last", "--jsonl", "--limit", 2).stdout.splitlines()
        assert [json.loads(line) for line in lines] == images[:2]
        model = json.loads(installation.run("jobs", "matches", "last", "--dicom-json").stdout)
        assert {str(Dataset.from_json(match).SOPInstanceUID) for match in model} == samples.uids(held[3:6])

        installation.run("submit", "find", "pacs", "-k", "PatientID=NOBODY", "--wait")
        shown = installation.show(installation.json("jobs", "list")[0]["id"])
        assert (shown["state"], shown["matches"]) == ("succeeded", 0)


def test_dcmqrscp_takes_only_what_is_lawful(install: Install, dcmqrscp: DcmQrScp, held: list[Sample]) -> None:
    """A strict archive: keys of one level a query, unique keys above; walked in both roots."""
    installation, _ = install()
    address = f"{dcmqrscp.aet}@127.0.0.1:{dcmqrscp.port}"
    with installation.up():
        installation.run("submit", "store", address, *(sample.path for sample in held), "--wait")
        installation.run("remote", "add", "pacs", address, "--charset", "ISO_IR 100", "--no-probe")
        for root in ("study", "patient"):
            asked = ("--root", root, "-k", "PatientID=PAT1")
            images = found(installation, "pacs", "--level", "image", *asked, "-k", "SOPClassUID", "-k", "PatientName")
            assert {match["SOPInstanceUID"] for match in images} == samples.uids(held[:3])
            assert {match["PatientName"] for match in images} == {NAMES["PAT1"]}
        (one,) = found(installation, "pacs", "-k", "PatientName=*Jérôme*")
        assert one["StudyInstanceUID"] == held[0].study_instance_uid


def test_what_makes_no_query_is_refused(install: Install) -> None:
    """Before anything is written, in one line that says what to write instead."""
    installation, record = install()
    for arguments, words in (
        (("-k", "PatientNam=X"), "did you mean PatientName"),
        (("-k", "10=3"), "is no key"),
        (("-k", "PatientID=1", "-k", "0010,0020=2"), "twice"),
        (("-k", "StudyDate=@tomorow"), "@today"),
        (("--level", "patient", "--root", "study"), "--root patient"),
        (("--worklist", "--level", "study"), "--worklist"),
        (("--worklist",), "lists what its keys name"),
        (("-k", "StudyInstanceUID=1.2 3"), "'1.2 3' is no UID"),
        (("--level", "patient", "--split"), "--level study --root study"),
        (("--root", "patient", "--split"), "--level study --root study"),
        (("--level", "series", "-k", "StudyInstanceUID=1.2", "--split"), "leave it out"),
        (("--worklist", "--split"), "ScheduledProcedureStepStartDate"),
        (("--split", "-k", "StudyTime=10-12"), "StudyTime"),
    ):
        done = installation.run("submit", "find", "PACS@127.0.0.1:104", *arguments, code=2)
        assert words in done.stderr and done.stderr.count("\n") == 1
    done = installation.run("submit", "find", "nobody", code=2)
    assert "nobody" in done.stderr
    assert not (installation.home / "dicomferry.db").exists()
    assert record is not None


def test_only_a_find_has_matches(install: Install) -> None:
    """Another kind of job says so."""
    installation, _ = install()
    job_id = installation.submit("echo", "PACS@127.0.0.1:104")
    assert "only a find has matches" in installation.run("jobs", "matches", job_id, code=2).stderr
    assert "no job 99" in installation.run("jobs", "matches", 99, code=2).stderr


class Worklist(Server):
    """DCMTK's wlmscpfs with one file."""

    binary = "wlmscpfs"

    def prepare(self) -> None:
        folder = self.folder / "WORKLIST"
        folder.mkdir(exist_ok=True)
        (folder / "lockfile").touch()
        step = Dataset()
        step.Modality = "CT"
        step.ScheduledStationAETitle = "SCANNER"
        step.ScheduledProcedureStepStartDate = "20261122"
        step.ScheduledProcedureStepStartTime = "101112"
        step.ScheduledPerformingPhysicianName = "Doe^John"
        step.ScheduledProcedureStepDescription = "Thorax"
        step.ScheduledProcedureStepID = "S1"
        entry = samples.dataset(size=8)
        item = Dataset()
        item.SpecificCharacterSet = "ISO_IR 100"
        for keyword in ("SOPClassUID", "SOPInstanceUID", "PatientID", "PatientBirthDate", "PatientSex"):
            setattr(item, keyword, entry[keyword].value)
        item.PatientName = NAMES["PAT1"]
        item.AccessionNumber, item.StudyInstanceUID = "ACC1", "1.2.3"
        item.RequestedProcedureID, item.RequestedProcedureDescription = "R1", "Thorax"
        item.ScheduledProcedureStepSequence = Sequence([step])
        samples.write(folder / "one.wl", item)

    def command(self) -> list[str]:
        return [self.program, "-v", "-dfr", "-dfp", str(self.folder), str(self.port)]


@pytest.fixture
def worklist() -> Iterator[Worklist]:
    with Worklist() as server:
        yield server


@pytest.mark.long
def test_a_worklist(install: Install, worklist: Worklist) -> None:
    """Keys inside of the sequence, in both spellings; columns for them. It forgets (0008,0005) in its answers."""
    installation, _ = install()
    address = f"WORKLIST@127.0.0.1:{worklist.port}"
    step = "ScheduledProcedureStepSequence"
    with installation.up():
        installation.run("remote", "add", "ris", address, "--charset", "ISO_IR 100", "--no-probe")
        asked = ("ris", "--worklist", "-k", "PatientName", "-k", "(0040,0100)[0].(0040,0001)")
        (one,) = found(installation, *asked, "-k", f"{step}.Modality=CT")
        assert one["PatientName"] == NAMES["PAT1"]
        assert one[step] == [{"Modality": "CT", "ScheduledStationAETitle": "SCANNER"}]
        table = installation.run("jobs", "matches", "last").stdout.splitlines()
        assert table[0].split() == ["PatientName", "ScheduledStationAETitle", "Modality"]
        assert table[1].split() == [NAMES["PAT1"], "SCANNER", "CT"]
        assert found(installation, address, "--worklist", "-k", f"{step}[0].Modality=MR") == []
