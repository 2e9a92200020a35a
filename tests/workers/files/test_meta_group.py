"""Where the data set begins: one rule for plan, sender, `scu` and archive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicomferry.workers.dimse.local_instance import LocalInstance, open_instance
from dicomferry.workers.files import file_meta, part10
from support.part10_bytes import DEFLATED_LE, EXPLICIT_LE, IMPLICIT_LE, element, elements, meta
from support.part10_bytes import part10 as file_of

BODY = b"".join(elements())
BORDERS = [sum(map(len, elements()[:count])) for count in range(1, 6)]


def planned(path: Path) -> LocalInstance:
    """The file as a plan has it."""
    header = part10.read_header(os.fsencode(path))
    status = path.stat()
    return LocalInstance(
        1,
        os.fsencode(path),
        status.st_size,
        status.st_mtime_ns,
        header.sop_class_uid,
        header.sop_instance_uid,
        header.transfer_syntax_uid,
    )


@pytest.mark.parametrize("lie", [*BORDERS, -26, -8, 1, 10_000, 0x7FFFFFFF])
def test_a_group_length_that_lies(tmp_path: Path, lie: int) -> None:
    """Whatever (0002,0000) says, whole elements of the data set included: what is sent begins where the plan says, at
    the first element that is not of group 0002 (PS3.10 7.1), and the archive's reader finds the same place.
    """
    content = b"\0" * 128 + b"DICM" + meta(length=lie) + BODY
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    begins = len(content) - len(BODY)
    opened = open_instance(planned(path))
    opened.close()
    assert (opened.header.data_offset, opened.length) == (begins, len(BODY))
    decoded = file_meta.decode(content)
    assert decoded is not None
    assert decoded.data_offset == begins


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, DEFLATED_LE])
def test_no_group_length(tmp_path: Path, syntax: str) -> None:
    """A group without (0002,0000) is walked as well, before any data set."""
    content = file_of(syntax)
    content = content[:132] + content[144:]
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    opened = open_instance(planned(path))
    opened.close()
    assert opened.header.data_offset == 132 + len(meta(syntax)) - 12
    decoded = file_meta.decode(content)
    assert decoded is not None
    assert decoded.data_offset == opened.header.data_offset


def test_a_deflated_data_set_behind_a_lying_length(tmp_path: Path) -> None:
    """Deflated bytes look like anything; a length that ends inside of the group is a lie all the same."""
    content = bytearray(file_of(DEFLATED_LE))
    content[140:144] = (14).to_bytes(4, "little")
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    opened = open_instance(planned(path))
    opened.close()
    assert opened.header.data_offset == 132 + len(meta(DEFLATED_LE))


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_data_set_shorter_than_an_elements_head(size: int) -> None:
    """Where fewer than eight bytes are left behind it, the group's own length tells that it is over."""
    content = b"\0" * 128 + b"DICM" + meta() + b"\1" * size
    decoded = file_meta.decode(content)
    assert decoded is not None
    assert decoded.data_offset == len(content) - size


def test_a_second_meta_group_is_the_data_sets(tmp_path: Path) -> None:
    """Behind the end that the group declares, elements of group 0002 that cannot go on with it are no part of it."""
    content = b"\0" * 128 + b"DICM" + meta() + element(0x00020002, "UI", b"1.2.") + BODY
    decoded = file_meta.decode(content)
    assert decoded is not None
    assert decoded.data_offset == 132 + len(meta())
