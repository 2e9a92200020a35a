"""gdcmscu's command line: GNU getopt's rules, positional words, keys, ports, titles, and what is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomferry.cli.scu import grammar
from dicomferry.cli.scu.grammar import LONG, OURS, Argument, NoHost, parse_key
from dicomferry.cli.scu.invocation import Invocation
from dicomferry.cli.scu.messages import CommandRefused


def parsed(*argv: str) -> Invocation:
    return grammar.invocation(grammar.read(argv))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--call", "X", "host"], [Argument("call", "X", True), Argument(None, "host")]),
        (["--call=X"], [Argument("call", "X", True)]),
        (["--call="], [Argument("call", "", True)]),
        (["--call=a=b"], [Argument("call", "a=b", True)]),
        (["--cal", "X"], [Argument("call", "X", True)]),
        (["--call", "--echo"], [Argument("call", "--echo", True)]),
        (["--call", "--"], [Argument("call", "--", True)]),
        (["--ech"], [Argument("echo", "", True)]),
        (["--store"], [Argument("store", "", True)]),
        (["--study"], [Argument("study", "", True)]),
        (["--r"], [Argument("recursive", "", True)]),
        (["--c", "X"], [Argument("call", "X", True)]),
        (["-p11112"], [Argument("port", "11112")]),
        (["-p", "11112"], [Argument("port", "11112")]),
        (["-rVk10,10=A"], [Argument("recursive"), Argument("verbose"), Argument("key", "10,10=A")]),
        (["-k", "-x"], [Argument("key", "-x")]),
        (["-", "a"], [Argument(None, "-"), Argument(None, "a")]),
        (["a", "--", "--echo", "-z", "--"], [Argument(None, word) for word in ("a", "--echo", "-z", "--")]),
        (["a", "-V", "b"], [Argument(None, "a"), Argument("verbose"), Argument(None, "b")]),
        (["--connect-timeout", "3"], [Argument("connect-timeout", "3", True)]),
        ([], []),
    ],
)
def test_words_are_read_as_getopt_long_reads_them(argv: list[str], expected: list[Argument]) -> None:
    """Unique beginnings, glued and separate values, clusters, `--`, and options behind positional words."""
    assert list(grammar.words(argv)) == expected


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--frobnicate"], "unrecognized option '--frobnicate'"),
        (["--frobnicate=1"], "unrecognized option '--frobnicate=1'"),
        (["--root-uid", "1.2"], "unrecognized option '--root-uid'"),
        (["-z"], "invalid option -- 'z'"),
        (["-Vz"], "invalid option -- 'z'"),
        (["--st"], "option '--st' is ambiguous; possibilities: '--store' '--studyroot' '--store-query' '--study'"),
        (["--po=5"], "option '--po=5' is ambiguous; possibilities: '--port' '--port-scp'"),
        (["--echo=1"], "option '--echo' doesn't allow an argument"),
        (["--ech=1"], "option '--echo' doesn't allow an argument"),
        (["--call"], "option '--call' requires an argument"),
        (["-k"], "option requires an argument -- 'k'"),
        (["-Vk"], "option requires an argument -- 'k'"),
        (["--connect-time", "3"], "unrecognized option '--connect-time'"),
    ],
)
def test_what_getopt_complains_of_is_refused_in_its_words(argv: list[str], complaint: str) -> None:
    """Nothing is guessed: a mistyped mode must not become an echo."""
    with pytest.raises(CommandRefused) as refusal:
        parsed("host", *argv)
    assert str(refusal.value) == f"dicomferry scu: {complaint}"


@settings(deadline=None)
@given(st.sampled_from(sorted(LONG)), st.data())
def test_our_own_options_make_no_abbreviation_ambiguous(name: str, data: st.DataObject) -> None:
    """Every beginning means what it means to gdcmscu; ours have to be written out."""
    beginning = name[: data.draw(st.integers(1, len(name)))]
    known = [option for option in LONG if option.startswith(beginning)]
    line = [f"--{beginning}", "x"] if LONG[name] else [f"--{beginning}"]
    if len(known) == 1 or beginning in known:
        assert next(grammar.words(line)).option == (beginning if beginning in known else known[0])
    else:
        with pytest.raises(CommandRefused, match="ambiguous"):
            list(grammar.words(line))
    assert not set(OURS) & set(LONG)


@settings(deadline=None)
@given(st.lists(st.text(max_size=12), max_size=8))
def test_any_command_line_is_read_or_refused(argv: list[str]) -> None:
    """Nothing else is raised, whatever the words."""
    with contextlib.suppress(CommandRefused):
        parsed(*argv)


@pytest.mark.parametrize(
    ("text", "tag", "value"),
    [
        ("10,10=A*", 0x00100010, b"A*"),
        ("10,10,A*", 0x00100010, b"A*"),
        ("10,10", 0x00100010, b""),
        ("10,10=", 0x00100010, b""),
        ("10,10,", 0x00100010, b""),
        ("0010,0020= A", 0x00100020, b" A"),
        ("10,20==,\\x", 0x00100020, b"=,\\x"),
        ("0x10,0X20=A", 0x00100020, b"A"),
        (" 10, 20 =A", 0x00100020, b"A"),
        ("20,D=1.2", 0x0020000D, b"1.2"),
        ("10,20A", 0x0010020A, b""),
        ("7fe0,10", 0x7FE00010, b""),
        ("10,10=J\u00e9r\u00f4me", 0x00100010, "J\u00e9r\u00f4me".encode()),
        ("10,10=\udce9", 0x00100010, b"\xe9"),
        ("10,10=a\nb", 0x00100010, b"a\nb"),
    ],
)
def test_a_key_is_a_tag_and_a_value_as_it_was_typed(text: str, tag: int, value: bytes) -> None:
    """One to four hexadecimal digits each; everything behind the first separator is the value."""
    assert parse_key(text) == (tag, value)


@pytest.mark.parametrize(
    "text",
    ["", "10", "10 ,20=A", "00010,20", "10,00020=A", "10,", "10,=A", ",20", "=A", "10,10;A", "10,10A*", "10.10=A",
     "PatientName=A*", "(0010,0020)=A", "00100020=A", "g,10", "-10,20", "+10,20", "10,20\\A", "0x,20=A", "\u0661,20"],
)  # fmt: skip
def test_what_is_no_key_is_named(text: str) -> None:
    """With gdcmscu's words."""
    with pytest.raises(CommandRefused) as refusal:
        parsed("host", "--key", text)
    assert str(refusal.value) == f"Could not read Tag: {text}"


def test_positional_words_are_host_port_and_files() -> None:
    """They override -H and -p; files come after those of -i."""
    assert (parsed("host").host, parsed("host").port) == ("host", 104)
    assert (parsed("host", "11112").port, parsed("-p", "5", "host").port) == (11112, 5)
    assert parsed("-H", "a", "-p", "5", "b", "6").address == "b:6"
    assert parsed("--hostname=a", "--port=5").address == "a:5"
    assert parsed("host", "--port", "5").address == "host:5"
    assert parsed("-H", "a", "b").host == "b"
    assert parsed("-i", "x", "--store", "host", "5", "y", "--input", "z", "w").files == ("x", "z", "y", "w")


@pytest.mark.parametrize("port", ["0", "abc", "11112x", "65536", "-1", "", " 104", "1e3", "file.dcm", "\u0661"])
def test_a_port_is_a_whole_number(port: str) -> None:
    """1 to 65535, wherever it stands."""
    for argv in (["host", "--", port], ["-H", "host", f"--port={port}"]):
        with pytest.raises(CommandRefused, match=r"^Problem with port number$"):
            parsed(*argv)
    with pytest.raises(CommandRefused, match=r"^Problem with port number$"):
        parsed("host", "104", "--move", f"--port-scp={port}")
    assert parsed("host", "104", "--find", f"--port-scp={port}").port_scp is None


def test_a_lone_file_beside_a_host_option_is_refused(tmp_path: Path) -> None:
    """It would be taken for the host and never be sent."""
    file = tmp_path / "a.dcm"
    file.touch()
    for word in (str(file), str(tmp_path / "missing.dcm")):
        with pytest.raises(CommandRefused, match="-i"):
            parsed("--store", "-H", "host", "-p", "104", word)


def test_without_a_host_there_is_nobody_to_ask() -> None:
    """Told apart from other refusals, because the help is shown."""
    for argv in ([], ["--store"], ["-H", ""], ["", "104"]):
        with pytest.raises(NoHost):
            parsed(*argv)


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        ("", "echo"),
        ("--find --echo", "echo"),
        ("--find --store", "store"),
        ("--move --find --worklist", "find"),
        ("--get --move", "move"),
        ("--worklist --get", "get"),
        ("--worklist", "find"),
    ],
)
def test_of_several_modes_the_first_in_order_counts(flags: str, mode: str) -> None:
    """echo, store, find, move, get, worklist; the worklist is a find of its own kind."""
    asked = parsed("host", *flags.split())
    assert (asked.mode, asked.worklist) == (mode, flags == "--worklist")


def test_of_several_levels_and_roots_one_counts() -> None:
    """image, series, patient, study; the patient root."""
    assert parsed("host", "--study", "--patient").level == "patient"
    assert parsed("host", "--patient", "--series").level == "series"
    assert parsed("host", "--series", "--image").level == "image"
    assert parsed("host").level is None and parsed("host").root is None
    assert parsed("host", "--studyroot", "--patientroot").root == "patient"


@pytest.mark.parametrize("title", ["", "  ", "ABCDEFGHIJKLMNOPQ", "a\\b", "\u00c4RZTE"])
def test_an_ae_title_that_none_can_have_is_refused(title: str) -> None:
    """PS3.5 6.2; one line that says what is wrong."""
    for option in ("--call", "--aetitle"):
        with pytest.raises(CommandRefused, match="AE title"):
            parsed("host", option, title)
    assert parsed("host", "--call", "ABCDEFGHIJKLMNOP").called == "ABCDEFGHIJKLMNOP"


def test_the_last_output_counts() -> None:
    """And it is known which of the two forms it had."""
    asked = parsed("host", "-o", "a", "--output", "b")
    assert (asked.output, asked.output_is_long) == ("b", True)
    assert not parsed("host", "--output=a", "-ob").output_is_long


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x", "1e9"])
def test_limits_are_seconds(seconds: str) -> None:
    """Above 0, finite, at most a year."""
    for name in ("connect", "acse", "dimse"):
        with pytest.raises(CommandRefused, match=f"--{name}-timeout"):
            parsed("host", f"--{name}-timeout", seconds)
    timeouts = parsed("host", "--connect-timeout=1", "--acse-timeout=2", "--dimse-timeout=3").remote.timeouts
    assert (timeouts.connect, timeouts.acse, timeouts.first_answer, timeouts.progress) == (1, 2, 3, 3)


@pytest.mark.parametrize("root", ["", "abc", "1", "1.", ".1", "1..2", "01.2", "1.02", " 1.2", "1.2" * 30])
def test_a_root_uid_that_is_none_is_refused(root: str) -> None:
    """GDCM_ROOT_UID has no other effect."""
    with pytest.raises(CommandRefused) as refusal:
        grammar.check_root_uid({"GDCM_ROOT_UID": root})
    assert str(refusal.value) == f"specified Root UID is not valid: {root}"


def test_a_root_uid_is_not_needed() -> None:
    """And one that is valid is taken."""
    for environ in ({}, {"GDCM_ROOT_UID": "1.2.3.4"}, {"GDCM_ROOT_UID": "2.25"}):
        grammar.check_root_uid(environ)
