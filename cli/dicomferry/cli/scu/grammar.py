"""gdcmscu's command line: GNU getopt's rules, what the words mean, and what is wrong with them. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal, NamedTuple

from dicomferry.cli.scu.invocation import (
    ACSE_SECONDS,
    CONNECT_SECONDS,
    DIMSE_SECONDS,
    Invocation,
    Level,
    Mode,
    RootWord,
)
from dicomferry.cli.scu.messages import CommandRefused
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.remote import LONGEST, check_ae_title
from dicomferry.models.rules.uid import is_lawful

DEFAULT_PORT = 104
PORT_PROBLEM = "Problem with port number"

# In the order of gdcmscu's table, which is the order of "possibilities". True: takes an argument.
LONG: Mapping[str, bool] = {
    "verbose": False,
    "warning": False,
    "debug": False,
    "error": False,
    "help": False,
    "version": False,
    "hostname": True,
    "aetitle": True,
    "call": True,
    "port": True,
    "input": True,
    "echo": False,
    "store": False,
    "find": False,
    "move": False,
    "key": True,
    "recursive": False,
    "patientroot": False,
    "studyroot": False,
    "psonly": False,
    "worklist": False,
    "port-scp": True,
    "output": True,
    "store-query": True,
    "queryhelp": False,
    "get": False,
    "log-file": True,
    "patient": False,
    "study": False,
    "series": False,
    "image": False,
}
# Our own: they have to be written out, so that no abbreviation of gdcmscu's becomes ambiguous.
OURS: Mapping[str, bool] = {
    "transcode": False,
    "record": False,
    "connect-timeout": True,
    "acse-timeout": True,
    "dimse-timeout": True,
}
SHORT: Mapping[str, str] = {
    "H": "hostname",
    "p": "port",
    "i": "input",
    "r": "recursive",
    "k": "key",
    "o": "output",
    "L": "log-file",
    "V": "verbose",
    "W": "warning",
    "D": "debug",
    "E": "error",
    "h": "help",
    "v": "version",
}

_MODES: tuple[Mode, ...] = ("echo", "store", "find", "move", "get")
_LEVELS: tuple[Level, ...] = ("image", "series", "patient", "study")
_KEY = re.compile(
    r"\s*(?:0[xX])?(?P<group>[0-9a-fA-F]{1,4}),"
    r"\s*(?:0[xX])?(?P<element>[0-9a-fA-F]{1,4})\s*(?:[=,](?P<value>.*))?",
    re.DOTALL | re.ASCII,
)

Information = Literal["version", "help", "queryhelp"]


class Argument(NamedTuple):
    """One thing that the command line says: an option (its long name), or with `option` None a positional word."""

    option: str | None
    value: str = ""
    is_long: bool = False


def words(argv: Sequence[str]) -> Iterator[Argument]:
    """The command line word by word, as GNU getopt_long reads it; raises Refused where it complains."""
    rest = iter(argv)
    for text in rest:
        if text == "--":
            yield from (Argument(None, word) for word in rest)
        elif text.startswith("--"):
            yield _long(text[2:], rest)
        elif text.startswith("-") and text != "-":
            yield from _cluster(text[1:], rest)
        else:
            yield Argument(None, text)


def _long(text: str, rest: Iterator[str]) -> Argument:
    typed, equals, value = text.partition("=")
    name = _whole_name(typed, text)
    if not _takes_argument(name):
        if equals:
            raise _complaint(f"option '--{name}' doesn't allow an argument")
        return Argument(name, is_long=True)
    if not equals:
        try:
            value = next(rest)
        except StopIteration:
            raise _complaint(f"option '--{name}' requires an argument") from None
    return Argument(name, value, is_long=True)


def _takes_argument(name: str) -> bool:
    return LONG.get(name, False) or OURS.get(name, False)


def _whole_name(typed: str, text: str) -> str:
    if typed in LONG or typed in OURS:
        return typed
    found = [name for name in LONG if name.startswith(typed)]
    if not found:
        raise _complaint(f"unrecognized option '--{text}'")
    if len(found) > 1:
        possible = " ".join(f"'--{name}'" for name in found)
        raise _complaint(f"option '--{text}' is ambiguous; possibilities: {possible}")
    return found[0]


def _cluster(letters: str, rest: Iterator[str]) -> Iterator[Argument]:
    """Short options behind one dash; the first that takes an argument takes what is left, or the next word."""
    while letters:
        letter, letters = letters[0], letters[1:]
        name = SHORT.get(letter)
        if name is None:
            raise _complaint(f"invalid option -- '{letter}'")
        if not LONG[name]:
            yield Argument(name)
            continue
        if not letters:
            try:
                letters = next(rest)
            except StopIteration:
                raise _complaint(f"option requires an argument -- '{letter}'") from None
        yield Argument(name, letters)
        return


def _complaint(text: str) -> CommandRefused:
    """In getopt's words, which begin with the program's name."""
    return CommandRefused(f"dicomferry scu: {text}")


@dataclass
class ParsedLine:
    """A command line that getopt has nothing against: its flags, the last value of each option, and what repeats."""

    flags: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
    keys: list[tuple[int, bytes]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    positional: list[str] = field(default_factory=list)
    output_is_long: bool = False

    @property
    def information(self) -> Information | None:
        """What is asked for instead of an operation."""
        kinds: tuple[Information, ...] = ("version", "help", "queryhelp")
        return next((kind for kind in kinds if kind in self.flags), None)

    @property
    def root(self) -> RootWord | None:
        """The information model; patient root wins."""
        return "patient" if "patientroot" in self.flags else "study" if "studyroot" in self.flags else None


def read(argv: Sequence[str]) -> ParsedLine:
    """The command line sorted; raises Refused for the first word that cannot be, a key included."""
    line = ParsedLine()
    for option, value, is_long in words(argv):
        if option is None:
            line.positional.append(value)
        elif option == "key":
            line.keys.append(parse_key(value))
        elif option == "input":
            line.inputs.append(value)
        elif _takes_argument(option):
            line.values[option] = value
            if option == "output":
                line.output_is_long = is_long
        else:
            line.flags.add(option)
    return line


def parse_key(text: str) -> tuple[int, bytes]:
    """(tag, value as it was typed) of `GROUP,ELEMENT[=VALUE]`; raises Refused."""
    found = _KEY.fullmatch(text)
    if not found:
        raise CommandRefused(f"Could not read Tag: {text}")
    return int(found["group"], 16) << 16 | int(found["element"], 16), os.fsencode(found["value"] or "")


def check_root_uid(environ: Mapping[str, str]) -> None:
    """Raises Refused for a GDCM_ROOT_UID that is no UID's root; it has no effect otherwise."""
    root = environ.get("GDCM_ROOT_UID")
    if root is not None and not is_lawful(root):
        raise CommandRefused(f"specified Root UID is not valid: {root}")


class NoHost(CommandRefused):
    """No host was given; the help goes to standard output."""


def invocation(line: ParsedLine) -> Invocation:
    """What is to be done; raises Refused where that makes no sense, NoHost where nobody is to be asked."""
    host, port, files = _positionals(line)
    flags, values = line.flags, line.values
    mode: Mode | None = next((mode for mode in _MODES if mode in flags), None)
    worklist = mode is None and "worklist" in flags
    mode = mode or ("find" if worklist else "echo")
    title = values.get("aetitle", "GDCMSCU")
    return Invocation(
        mode=mode,
        host=host,
        port=parse_port(port),
        calling=_title(title),
        called=_title(values.get("call", "ANY-SCP")),
        level=next((level for level in _LEVELS if level in flags), None),
        root=line.root,
        worklist=worklist,
        keys=tuple(line.keys),
        files=(*line.inputs, *files),
        recursive="recursive" in flags,
        output=values.get("output", "."),
        output_is_long=line.output_is_long,
        port_scp=parse_port(values["port-scp"]) if mode == "move" and "port-scp" in values else None,
        store_query=values.get("store-query"),
        log_file=values.get("log-file"),
        verbose="verbose" in flags,
        warning="warning" in flags,
        debug="debug" in flags,
        error="error" in flags,
        transcode="transcode" in flags,
        record="record" in flags,
        connect_seconds=_seconds(values, "connect-timeout", CONNECT_SECONDS),
        acse_seconds=_seconds(values, "acse-timeout", ACSE_SECONDS),
        dimse_seconds=_seconds(values, "dimse-timeout", DIMSE_SECONDS),
    )


def _positionals(line: ParsedLine) -> tuple[str, str, list[str]]:
    """Host, port, files: the positional words override -H and -p."""
    host = line.values.get("hostname", "")
    port = line.values.get("port", str(DEFAULT_PORT))
    match line.positional:
        case [word] if host and (os.path.lexists(word) or os.sep in word):
            raise CommandRefused(f"{word} would be the host, because a single word overrides -H: name files with -i")
        case [word]:
            host = word
        case [word, number, *files]:
            return _host(word), number, files
    return _host(host), port, []


def _host(text: str) -> str:
    if not text.strip():
        raise NoHost("no host was given")
    return text


def parse_port(text: str) -> int:
    """A TCP port, 1 to 65535, and nothing around it; raises Refused."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= 65535:
        raise CommandRefused(PORT_PROBLEM)
    return int(text)


def _title(text: str) -> str:
    try:
        return check_ae_title(text)
    except UsageError as error:
        raise CommandRefused(str(error)) from None


def _seconds(values: Mapping[str, str], option: str, default: float) -> float:
    try:
        seconds = float(values.get(option, default))
    except ValueError:
        seconds = 0.0
    if not (isfinite(seconds) and 0 < seconds <= LONGEST):
        raise CommandRefused(f"--{option} {values[option]}: seconds are a number above 0, and at most a year")
    return seconds
