"""What a query of `scu` holds: levels, added keys, character set of the locale, padding, and the order of refusals."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomferry.cli.scu import grammar, locale, query
from dicomferry.cli.scu.messages import CommandRefused, Messages


def elements(data: bytes) -> dict[str, bytes]:
    """An Implicit VR Little Endian data set, which has to be in ascending order."""
    found: dict[str, bytes] = {}
    at, last = 0, -1
    while at < len(data):
        group, element, length = struct.unpack_from("<HHL", data, at)
        assert last < (last := group << 16 | element)
        assert length % 2 == 0
        found[f"{group:x},{element:x}"] = data[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def prepared(line: str, *more: str) -> query.Query:
    invocation = grammar.invocation(grammar.read([*line.split(), *more, "host"]))
    return query.prepare(invocation, Messages(invocation), {"LANG": "C.UTF-8"})


def asked(line: str, *more: str) -> dict[str, bytes]:
    """The elements of a query but for the character set."""
    found = elements(prepared(line, *more).identifier)
    assert found.pop("8,5") == b"ISO_IR 192"
    return found


@pytest.mark.parametrize("mode", ["--find", "--move --port-scp=1", "--get"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--patientroot --patient", {"8,52": b"PATIENT "}),
        ("--patientroot", {"8,52": b"STUDY ", "10,20": b""}),
        ("--patientroot --series", {"8,52": b"SERIES", "10,20": b"", "20,d": b""}),
        ("--patientroot --image", {"8,52": b"IMAGE ", "10,20": b"", "20,d": b"", "20,e": b""}),
        ("--studyroot", {"8,52": b"STUDY "}),
        ("--studyroot --series", {"8,52": b"SERIES", "20,d": b""}),
        ("--studyroot --image", {"8,52": b"IMAGE ", "20,d": b"", "20,e": b""}),
        ("--studyroot --patientroot --patient", {"8,52": b"PATIENT "}),
        ("--patientroot --image -k 10,20=A", {"8,52": b"IMAGE ", "10,20": b"A ", "20,d": b"", "20,e": b""}),
        ("--patientroot --patient -k 8,52=STUDY", {"8,52": b"STUDY "}),
        ("--studyroot -k 8,5=X", {"8,52": b"STUDY "}),
    ],
)
def test_the_unique_keys_above_the_level_go_along(mode: str, line: str, expected: dict[str, bytes]) -> None:
    """In every mode alike; what was given replaces what is added, but for the character set."""
    assert asked(f"{mode} {line}") == expected


def test_the_worklist_has_no_level() -> None:
    """Only the keys and the character set; no root is needed, no query file is written."""
    assert asked("--worklist -k 10,10 -k 40,100 -k 8,52=XX") == {"8,52": b"XX", "10,10": b"", "40,100": b""}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("10,20=PA1", {"10,20": b"PA1 "}),
        ("10,20=PA", {"10,20": b"PA"}),
        ("20,d=1.2", {"20,d": b"1.2\0"}),
        ("8,18=1.25", {"8,18": b"1.25"}),
        ("28,10=512", {"28,10": b"512 "}),
        ("9,1001=abc", {"9,1001": b"abc "}),
        ("8,1111=X", {"8,1111": b""}),
        ("0,2=x", {}),
        ("2,10=x", {}),
        ("fffe,e000=x", {}),
        ("10,10=*J\u00e9r\u00f4me*", {"10,10": "*J\u00e9r\u00f4me*".encode()}),
    ],
)
def test_a_value_goes_out_as_it_was_typed(key: str, expected: dict[str, bytes]) -> None:
    """Even length: NUL behind a UID, a blank behind all else; sequences are asked for as a whole; -k as --key."""
    for option in ("-k", "--key"):
        assert asked("--find --studyroot", option, key) == {"8,52": b"STUDY ", **expected}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["10,10", "10,20", "20,d", "8,52", "8,5"]), st.sampled_from("ABC"))))
def test_the_first_of_two_equal_keys_wins(keys: list[tuple[str, str]]) -> None:
    """Whatever the order of the others."""
    parsed = [grammar.parse_key(f"{tag}={value}") for tag, value in keys]
    found = elements(query.encode(parsed, "ISO_IR 192"))
    first: dict[str, str] = {}
    for tag, value in keys:
        first.setdefault(tag, value)
    assert found.pop("8,5") == b"ISO_IR 192"
    first.pop("8,5", None)
    assert {tag: value.rstrip(b" \0").decode() for tag, value in found.items()} == first


def test_refusals_come_in_their_order(tmp_path: Path) -> None:
    """Root, --port-scp, study root with patient level, query file, level value, wildcards of a retrieve; in
    gdcmscu's words.
    """
    file = tmp_path / "q.dcm"
    store = f"--store-query {file} "
    for line, words in (
        ("--find -k 8,52=X", "Find failed."),
        ("--move", "Move failed."),
        ("--get", "Get failed."),
        ("--move --studyroot --patient", query.NO_PORT_SCP),
        ("--move --port-scp 1 --studyroot --patient -k 8,52=X", query.NOT_CONSTRUCTED),
        ("--find --studyroot --patient", query.NOT_CONSTRUCTED),
    ):
        with pytest.raises(CommandRefused, match=f"^{words}"):
            prepared(store + line)
        assert not file.exists()
    for line, words in (
        ("--move --port-scp 1 --studyroot -k 8,52=X -k 10,20=*", query.NOT_VALID),
        ("--find --studyroot -k 8,52=PATIENT", query.NOT_VALID),
        ("--find --studyroot -k 8,52", query.NOT_VALID),
        ("--find --studyroot -k 8,52=study", query.NOT_VALID),
        ("--move --port-scp 1 --studyroot -k 10,20=P?1", "wildcard"),
        ("--get --studyroot -k 10,10=A*", "wildcard"),
    ):
        with pytest.raises(CommandRefused, match=words):
            prepared(store + line)
        assert file.exists()
        file.unlink()
    assert prepared("--find --studyroot -k 10,20=P?1 -k 10,10=*")


def test_the_query_file_is_a_preamble_and_the_query(tmp_path: Path) -> None:
    """Without file meta information, as gdcmscu writes it; one that cannot be written is refused by name."""
    file = tmp_path / "q.dcm"
    made = prepared(f"--find --studyroot --store-query {file} -k 10,20=A")
    assert file.read_bytes() == bytes(128) + b"DICM" + made.identifier
    for path in (tmp_path, tmp_path / "missing" / "q.dcm"):
        with pytest.raises(CommandRefused, match=str(path)):
            prepared(f"--find --studyroot --store-query {path}")


@pytest.mark.parametrize(
    ("environ", "name", "term"),
    [
        ({"LANG": "C.UTF-8"}, "C.UTF-8", "ISO_IR 192"),
        ({"LC_ALL": "C", "LANG": "C.UTF-8"}, "C", "ISO_IR 100"),
        ({"LC_ALL": "", "LC_CTYPE": "POSIX", "LANG": "C.UTF-8"}, "POSIX", "ISO_IR 100"),
        ({}, "C", "ISO_IR 100"),
        ({"LC_CTYPE": "UTF-8"}, "UTF-8", "ISO_IR 192"),
        ({"LANG": "xx_YY.ISO-8859-2"}, "xx_YY.ISO-8859-2", "ISO_IR 192"),
    ],
)
def test_the_locale_gives_the_character_set(environ: dict[str, str], name: str, term: str) -> None:
    """LC_ALL before LC_CTYPE before LANG; one that this system does not have is taken for UTF-8."""
    found = locale.characters(environ)
    assert (found.name, found.term) == (name, term)
