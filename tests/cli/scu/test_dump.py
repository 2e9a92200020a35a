"""Records of C-FIND line by line, as gdcmscu 3.0.21 printed the same data sets, and text decoded."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomferry.cli.scu import dump


def element(tag: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def item(value: bytes, length: int | None = None) -> bytes:
    return element(0xFFFEE000, value, length)


def lines(*elements: bytes, charset: str = "ISO_IR 192") -> list[str]:
    return dump.text(b"".join(elements), charset).splitlines()


def line(start: str, rest: str) -> str:
    """The remark stands in column 66, or behind a value that is too long for that."""
    return f"{start:<57}{'':8} # {rest}"


UNDEFINED = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("tag", "value", "start", "rest"),
    [
        (0x00080052, b"PATIENT ", "(0008,0052) ?? (CS) [PATIENT ]", "8,1 Query/Retrieve Level"),
        (0x00080054, b"QRSTORE ", "(0008,0054) ?? (AE) [QRSTORE ]", "8,1-n Retrieve AE Title"),
        (0x00100020, b"", "(0010,0020) ?? (LO) (no value)", "0,1 Patient ID"),
        (0x00080016, b"1.2\0", "(0008,0016) ?? (UI) [1.2]", "4,1 SOP Class UID"),
        (0x00100020, b"AB\0\0", "(0010,0020) ?? (LO) [AB.]", "4,1 Patient ID"),
        (0x00080060, b"CT\\MR ", r"(0008,0060) ?? (CS) [CT\MR ]", "6,1 (2)  Modality"),
        (0x00080061, b"CT\\MR ", r"(0008,0061) ?? (CS) [CT\MR ]", "6,1-n Modalities in Study"),
        (0x00080008, b"A ", "(0008,0008) ?? (CS) [A ]", "2,2-n (1)  Image Type"),
        (0x00200013, b"5\\5\\5\\5\\5\\5\\5 ", r"(0020,0013) ?? (IS) [5\5\5\5\5\5\5 ]", "14,1 (1-n)  Instance Number"),
        (0x00200013, b"\\ ", "(0020,0013) ?? (IS) [\\ ]", "2,1 Instance Number"),
        (0x00280010, b"\0\2", "(0028,0010) ?? (US) 512", "2,1 Rows"),
        (0x00280010, b"\1\0\2\0", r"(0028,0010) ?? (US) 1\2", "4,1 (2)  Rows"),
        (0x00280010, b"\1\0\2", "(0028,0010) ?? (US) (VR=US is incompatible with length)", "3 (4),1 Rows"),
        (0x00186020, struct.pack("<l", -5), "(0018,6020) ?? (SL) -5", "4,1 Reference Pixel X0"),
        (0x00189087, struct.pack("<3d", 1e-5, 123456789, 100000), r"(0018,9087) ?? (FD) 1e-05\1.23457e+08\100000",
         "24,1 (3)  Diffusion b-value"),
        (0x00660016, struct.pack("<2f", 0.1, 1e20), r"(0066,0016) ?? (OF) 0.1\1e+20", "8,1 Point Coordinates Data"),
        (0x00280009, struct.pack("<4H", 0x18, 0x1063, 0x18, 0x1065), r"(0028,0009) ?? (AT) (0018,1063)\(0018,1065)",
         "8,1-n Frame Increment Pointer"),
        (0x00420011, b"1234", r"(0042,0011) ?? (OB) 31\32\33\34", "4,1 Encapsulated Document"),
        (0x60003000, b"1234", r"(6000,3000) ?? (OB or OW => UN) 31\32\33\34", "4,1 (4)  Overlay Data"),
        (0x00080000, b"\1\0\0\0", "(0008,0000) ?? (UL) 1", "4,1 Generic Group Length"),
        (0x00090010, b"ME", "(0009,0010) ?? (LO) [ME]", "2,1 Private Creator"),
        (0x00091001, b"\1\2\3\4", r"(0009,1001) ?? 01\02\03\04", "4,? (1)  Private Element With Empty Private Creator"),
        (0x00100001, b"1 ", "(0010,0001) ?? [1 ]", "2,? (1)  GDCM:UNKNOWN"),
        (0x00100010, b"a\tb\x1b[2Jc", "(0010,0010) ?? (PN) [a.b.[2Jc]", "8,1 Patient's Name"),
        (0x00081115, b"", "(0008,1115) ?? (SQ) (Sequence with defined length)", "0,1 Referenced Series Sequence"),
    ],
)  # fmt: skip
def test_a_line_is_tag_vr_value_length_vm_and_name(tag: int, value: bytes, start: str, rest: str) -> None:
    """As the original prints it, but that nothing in a value moves the cursor."""
    assert lines(element(tag, value)) == [line(start, rest)]


def test_private_elements_with_a_creator_are_unknown() -> None:
    """Bytes that are no text are shown as such, 32 of them."""
    shown = lines(element(0x00090010, b"ME"), element(0x00091001, bytes(range(60))), element(0x00091002, b"text"))
    assert shown[1] == line(f"(0009,1001) ?? {bytes(range(32)).hex(chr(92))}", "60,? (1)  GDCM:UNKNOWN")
    assert shown[2] == line("(0009,1002) ?? [text]", "4,? (1)  GDCM:UNKNOWN")


def test_sequences_are_indented() -> None:
    """Defined and undefined lengths; the remark stays in its column."""
    inner = element(0x00081150, b"1.2.3.4.5\0")
    end, close = element(0xFFFEE00D, b""), element(0xFFFEE0DD, b"")
    assert lines(element(0x00081115, item(inner))) == [
        line("(0008,1115) ?? (SQ)", "26,1 Referenced Series Sequence"),
        "  (fffe,e000) na (Item with defined length)",
        line("    (0008,1150) ?? (UI) [1.2.3.4.5]", "10,1 Referenced SOP Class UID"),
    ]
    open_ended = element(0x00081199, item(inner, UNDEFINED)[: 8 + len(inner)] + end + item(b"") + close, UNDEFINED)
    assert lines(open_ended, element(0x00100020, b"A ")) == [
        line("(0008,1199) ?? (SQ) (Sequence with undefined length)", "u/l,1 Referenced SOP Sequence"),
        "  (fffe,e000) na (Item with undefined length)",
        line("    (0008,1150) ?? (UI) [1.2.3.4.5]", "10,1 Referenced SOP Class UID"),
        "  (fffe,e00d)",
        "  (fffe,e000) na (Item with defined length)",
        "(fffe,e0dd)",
        line("(0010,0020) ?? (LO) [A ]", "2,1 Patient ID"),
    ]


@pytest.mark.parametrize(
    ("term", "raw"),
    [
        (b"ISO_IR 192", "Ärzte^Jérôme".encode()),
        (b"ISO_IR 100", "Ärzte^Jérôme".encode("latin-1")),
        (b"", "Ärzte^Jérôme".encode()),
    ],
)
def test_text_is_decoded_with_the_answers_own_character_set(term: bytes, raw: bytes) -> None:
    """Whole, however long; LENGTH counts the bytes. Where there is no (0008,0005), that of the query."""
    first = [element(0x00080005, term)] if term else []
    long = "é".encode("latin-1" if term == b"ISO_IR 100" else "utf-8") * 400
    shown = lines(*first, element(0x00081030, long), element(0x00100010, raw))
    length = f"{len(raw)} ({len(raw) + 1})" if len(raw) % 2 else f"{len(raw)}"
    assert shown[-1] == line("(0010,0010) ?? (PN) [Ärzte^Jérôme]", f"{length},1 Patient's Name")
    assert shown[-2] == f"(0008,1030) ?? (LO) [{'é' * 400}]{'':8} # {len(long)},1 Study Description"


def test_what_cannot_be_decoded_is_a_dot() -> None:
    """One for each byte; the rest of the value stays readable."""
    assert lines(element(0x00100010, b"J\xe9r\xf4me")) == [line("(0010,0010) ?? (PN) [J.r.me]", "6,1 Patient's Name")]


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_make_lines(data: bytes) -> None:
    """Whatever a peer sends, nothing is raised and nothing moves the cursor."""
    shown = dump.text(data, "ISO_IR 100")
    assert all(char == "\n" or (char.isprintable() or char.isspace()) for char in shown)
    assert "\x1b" not in shown and "\r" not in shown
