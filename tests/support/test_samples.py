"""The synthetic files are what they say: pydicom reads the good ones, and each odd one is odd in one way."""

import os
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import MediaStorageDirectoryStorage, RLELossless

from support import samples

PLAIN = [samples.big_endian, samples.implicit, samples.deflated, samples.private_sop_class]
COMPRESSED = [samples.rle, samples.jpeg_baseline, samples.jpeg2000]


@pytest.mark.parametrize("make", [*PLAIN, *COMPRESSED], ids=lambda make: str(make.__name__))
def test_an_odd_file_reads_as_its_sample_says(make: object, tmp_path: Path) -> None:
    """Data set, meta group and sample name the same instance and transfer syntax."""
    assert callable(make)
    sample = make(tmp_path / "x.dcm")
    ds = dcmread(sample.path)
    assert (ds.SOPInstanceUID, ds.SOPClassUID) == (sample.sop_instance_uid, sample.sop_class_uid)
    assert ds.file_meta.MediaStorageSOPInstanceUID == sample.sop_instance_uid
    assert ds.file_meta.TransferSyntaxUID == sample.transfer_syntax_uid
    assert ds.PixelData


def test_two_compressed_files_are_two_instances(tmp_path: Path) -> None:
    """pydicom's own files share a UID; ours do not."""
    made = {make(tmp_path / make.__name__).sop_instance_uid for make in COMPRESSED}
    assert len(made) == len(COMPRESSED)
    assert dcmread(tmp_path / "rle").file_meta.TransferSyntaxUID == RLELossless


def test_an_mr_image_has_its_own_uids_and_about_32_kb(tmp_path: Path) -> None:
    """The template's slots are all filled, in the meta group too; the pixels differ between instances."""
    one = samples.mr_instance(tmp_path / "a.dcm", study="s", series="t", number=1, patient_id="P-1")
    two = samples.mr_instance(tmp_path / "b.dcm", study="s", series="t", number=2, patient_id="P-1")
    first, second = dcmread(one.path), dcmread(two.path)
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID == one.sop_instance_uid
    assert first.StudyInstanceUID == second.StudyInstanceUID == one.study_instance_uid
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert (first.PatientID, first.InstanceNumber, second.InstanceNumber) == ("P-1", 1, 2)
    assert first.PixelData != second.PixelData
    assert 32_000 < one.path.stat().st_size < 35_000
    assert first.file_meta.FileMetaInformationGroupLength == _group_length(one.path)


def _group_length(path: Path) -> int:
    content = path.read_bytes()
    end = content.index(b"\x08\x00\x05\x00CS")
    return end - 132 - 12


def test_a_tree_is_distinct_series_by_series(tmp_path: Path) -> None:
    """Ten series to a study, every instance once, in the walk's order."""
    made = samples.make_tree(tmp_path, 30, per_folder=2)
    assert len(samples.uids(made)) == 30
    assert len({sample.series_instance_uid for sample in made}) == 15
    assert len({sample.study_instance_uid for sample in made}) == 2
    assert [sample.path for sample in made] == sorted(sample.path for sample in made)


def test_a_ct_series_has_half_a_megabyte_each(tmp_path: Path) -> None:
    """As large as asked for."""
    made = samples.ct_series(tmp_path, 2)
    assert {sample.series_instance_uid for sample in made} == {made[0].series_instance_uid}
    assert made[0].path.stat().st_size > 524_288
    small = samples.ct_series(tmp_path / "small", 1, 64)
    assert dcmread(small[0].path).Rows == 64


def test_an_odd_deflated_stream_is_odd(tmp_path: Path) -> None:
    """Its data set ends with the file; pydicom reads it all the same."""
    lengths = {}
    for odd in (False, True):
        sample = samples.deflated(tmp_path / f"{odd}.dcm", odd=odd)
        assert dcmread(sample.path).SOPInstanceUID == sample.sop_instance_uid
        lengths[odd] = sample.path.stat().st_size % 2
    assert lengths[False] != lengths[True]


def test_the_broken_ones_are_broken(tmp_path: Path) -> None:
    """Each in the one way that its name says."""
    bare = samples.without_meta(tmp_path / "bare")
    with pytest.raises(InvalidDicomError):
        dcmread(bare.path)
    assert dcmread(bare.path, force=True).SOPInstanceUID == bare.sop_instance_uid

    wrong = samples.meta_mismatch(tmp_path / "meta")
    ds = dcmread(wrong.path)
    assert ds.SOPInstanceUID == wrong.sop_instance_uid != ds.file_meta.MediaStorageSOPInstanceUID

    lying = samples.syntax_mismatch(tmp_path / "syntax")
    with pytest.warns(UserWarning, match="found implicit VR"):
        dcmread(lying.path)

    short = samples.truncated(tmp_path / "short")
    _, _, pixels = short.path.read_bytes().partition(b"\xe0\x7f\x10\x00OW\0\0")
    assert int.from_bytes(pixels[:4], "little") == len(pixels) - 4 + 10_000

    with pytest.raises(InvalidDicomError):
        dcmread(samples.text_file(tmp_path / "text"))
    media = dcmread(samples.dicomdir(tmp_path / "DICOMDIR"))
    assert media.file_meta.MediaStorageSOPClassUID == MediaStorageDirectoryStorage


def test_a_second_file_of_one_instance(tmp_path: Path) -> None:
    """Same UID; the same bytes, or another image."""
    first = samples.mr_instance(tmp_path / "1.dcm")
    again, other = (
        samples.same_again(first, tmp_path / "2.dcm"),
        samples.altered(first, tmp_path / "3.dcm"),
    )
    assert again.path.read_bytes() == first.path.read_bytes() != other.path.read_bytes()
    assert dcmread(other.path).SOPInstanceUID == first.sop_instance_uid


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    """The file system takes it (Linux does); its bytes are Latin-1."""
    path = samples.non_utf8_name(tmp_path)
    samples.mr_instance(path)
    assert os.fsencode(path).endswith(b"caf\xe9.dcm")
