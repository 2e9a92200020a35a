"""The scripted Query/Retrieve peer is itself held against DCMTK's clients, before anything is held against it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from support import samples
from support.compare import assert_same_object
from support.peers import StoreScp, require
from support.qr_catalogue import Catalogue
from support.qr_peer import QrPeer
from support.samples import Sample


@pytest.fixture
def held(tmp_path: Path) -> list[Sample]:
    """Two studies, one with two series."""
    kept = tmp_path / "held"
    return [
        samples.instance(kept / f"{study}{series}{number}.dcm", study=study, series=series, number=number, size=16)
        for study, series, count in (("a", 1, 3), ("a", 2, 2), ("b", 1, 4))
        for number in range(1, count + 1)
    ]


@pytest.fixture
def peer(held: list[Sample], storescp: StoreScp) -> Iterator[QrPeer]:
    with QrPeer(Catalogue(held), destinations={"STORESCP": storescp.port}) as running:
        yield running


def run(program: str, peer: QrPeer, *arguments: object) -> str:
    argv = [require(program), "-v", "-aec", peer.aet, *map(str, arguments), "127.0.0.1", str(peer.port)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def find(peer: QrPeer, folder: Path, *keys: str) -> list[Path]:
    folder.mkdir()
    run("findscu", peer, "-S", "-X", "-od", folder, *(part for key in keys for part in ("-k", key)))
    return sorted(folder.iterdir())


def test_findscu_finds_at_each_level(peer: QrPeer, held: list[Sample], tmp_path: Path) -> None:
    """Each level of the hierarchy is answered, with what is counted below it."""
    study = held[0].study_instance_uid
    studies = find(
        peer, tmp_path / "1", "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}", "NumberOfStudyRelatedInstances"
    )
    assert [dcmread(path, force=True).NumberOfStudyRelatedInstances for path in studies] == [5]
    series = find(
        peer, tmp_path / "2", "QueryRetrieveLevel=SERIES", f"StudyInstanceUID={study}", "SeriesInstanceUID", "Modality"
    )
    assert {dcmread(path, force=True).SeriesInstanceUID for path in series} == {
        sample.series_instance_uid for sample in held if sample.study_instance_uid == study
    }
    images = find(
        peer, tmp_path / "3", "QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={study}",
        f"SeriesInstanceUID={held[0].series_instance_uid}", "SOPInstanceUID",
    )  # fmt: skip
    assert {dcmread(path, force=True).SOPInstanceUID for path in images} == samples.uids(held[:3])


def test_movescu_gets_a_study_from_it(peer: QrPeer, held: list[Sample], storescp: StoreScp) -> None:
    """A C-MOVE stores exactly the study at the destination, whole, and says so."""
    said = run(
        "movescu", peer, "-S", "-aem", "STORESCP", "-k", "QueryRetrieveLevel=STUDY",
        "-k", f"StudyInstanceUID={held[0].study_instance_uid}",
    )  # fmt: skip
    assert "Received Final Move Response (Success)" in said
    assert set(storescp.received()) == samples.uids(held[:5])
    for sample in held[:5]:
        assert_same_object(sample.path, storescp.received()[sample.sop_instance_uid])
    (asked,) = peer.retrieves
    assert (asked.level, asked.uids) == ("STUDY", (held[0].study_instance_uid,))


def test_an_unknown_destination_is_refused(peer: QrPeer, held: list[Sample]) -> None:
    """0xA801, as PS3.4 table C.4-2 has it."""
    done = subprocess.run(
        [require("movescu"), "-v", "-S", "-aec", peer.aet, "-aem", "NOBODY", "-k", "QueryRetrieveLevel=STUDY",
         "-k", f"StudyInstanceUID={held[0].study_instance_uid}", "127.0.0.1", str(peer.port)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "MoveDestinationUnknown" in done.stderr + done.stdout


def test_getscu_gets_a_series_from_it(peer: QrPeer, held: list[Sample], tmp_path: Path) -> None:
    """A C-GET stores on the association itself, in the roles that were asked for."""
    folder = tmp_path / "got"
    folder.mkdir()
    study, series = held[0].study_instance_uid, held[0].series_instance_uid
    run(
        "getscu", peer, "-S", "+B", "-od", folder, "-k", "QueryRetrieveLevel=SERIES",
        "-k", f"StudyInstanceUID={study}", "-k", f"SeriesInstanceUID={series}",
    )  # fmt: skip
    got = {str(dcmread(path).SOPInstanceUID): path for path in folder.iterdir()}
    assert set(got) == samples.uids(held[:3])
    for sample in held[:3]:
        assert_same_object(sample.path, got[sample.sop_instance_uid])
