"""`submit store --transcode`: archives that take nothing compressed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate

from dicomferry.workers.files.part10 import EXPLICIT_LE, IMPLICIT_LE
from support import samples
from support.compare import assert_same_object
from support.peers import StoreScp
from support.samples import Sample

from .conftest import Install

MADE: dict[str, Callable[[Path], Sample]] = {
    "rle": samples.rle,
    "jpeg": samples.jpeg_baseline,
    "jpeg2000": samples.jpeg2000,
    "jpeg-ls": lambda path: samples._shipped(path, "MR_small_jpeg_ls_lossless.dcm", "jpeg-ls"),
    "jpeg-lossless": lambda path: samples._shipped(path, "SC_rgb_jpeg_gdcm.dcm", "jpeg lossless"),
    "plain": samples.mr_instance,
}


def film(path: Path) -> Sample:
    """MPEG-4, which nobody decompresses."""
    ds = samples.dataset(SOPInstanceUID=samples.uid("film"), PixelData=encapsulate([bytes(1000)]))
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return samples.write(path, ds, "1.2.840.10008.1.2.4.102")


@pytest.mark.parametrize(
    ("option", "syntax"), [("+xe", EXPLICIT_LE), pytest.param("+xi", IMPLICIT_LE, marks=pytest.mark.long)]
)
def test_an_archive_that_takes_nothing_compressed(install: Install, tmp_path: Path, option: str, syntax: str) -> None:
    """Without the flag the compressed ones fail and name it; with it they arrive uncompressed, each says as what, and
    what nobody can decompress fails alone.
    """
    folder = tmp_path / "files"
    made = {name: make(folder / f"{name}.dcm") for name, make in MADE.items()}
    unreadable = film(folder / "film.dcm")
    installation, _ = install()
    with StoreScp("STORESCP", option, accept_all=False) as scp, installation.up():
        address = f"STORESCP@127.0.0.1:{scp.port}"
        plain = installation.show(installation.submit("store", address, folder, "--wait", code=1))
        assert (plain["state"], plain["items"]["succeeded"], plain["items"]["failed"]) == ("incomplete", 1, 6)
        refused = [item for item in installation.items(plain["id"]) if item["state"] == "failed"]
        assert {item["reason"] for item in refused} == {"context refused"}
        advised = {item["sop_instance_uid"] for item in refused if "`--transcode` sends a decomp" in item["detail"]}
        assert advised == {one["sop_instance_uid"] for one in refused} - {unreadable.sop_instance_uid}

        job = installation.show(installation.submit("store", address, folder, "--transcode", "--wait", code=1))
        assert (job["state"], job["items"]["succeeded"], job["items"]["failed"]) == ("incomplete", 6, 1)
        items = {item["sop_instance_uid"]: item for item in installation.items(job["id"])}
        received = scp.received()
        film_item = items.pop(unreadable.sop_instance_uid)
        assert (film_item["reason"], film_item["sent_as"]) == ("not transcodable", None)
        assert set(received) == set(items)
        for name, sample in made.items():
            own = name == "plain" and syntax == EXPLICIT_LE
            assert items[sample.sop_instance_uid]["sent_as"] == (None if own else syntax)
            there = dcmread(received[sample.sop_instance_uid])
            assert there.file_meta.TransferSyntaxUID == syntax
            if name == "plain":
                assert_same_object(sample.path, received[sample.sop_instance_uid])
            else:
                here = dcmread(sample.path)
                assert (there.pixel_array == here.pixel_array).all()
                assert there.PatientName == here.PatientName
