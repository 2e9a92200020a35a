"""The query of a find, a move or a get: which keys go along, and the bytes of its identifier (Implicit VR LE)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dicomferry.cli.scu import locale
from dicomferry.cli.scu.invocation import Invocation, Level, RootWord
from dicomferry.cli.scu.messages import CommandRefused, Messages
from dicomferry.models.rules.query import CHARACTER_SET, LEVEL, UNIQUE, find_model, get_model, move_model
from dicomferry.workers.dimse.identifier import vr_of

NO_PORT_SCP = "Need to set explicitly port number for SCP association --port-scp"
NOT_CONSTRUCTED = "Query construction failed."
NOT_VALID = "You have not constructed a valid find query. Please try again."

_LEVELS: Mapping[RootWord, tuple[Level, ...]] = {
    "patient": ("patient", "study", "series", "image"),
    "study": ("study", "series", "image"),
}
_UNIQUE: Mapping[Level, int] = {level.value: tag for level, tag in UNIQUE.items()}
_HEAD = struct.Struct("<HHL")


@dataclass(frozen=True)
class Query:
    """`identifier`: the data set in Implicit VR Little Endian. `charset`: the defined term of the locale, in which the
    keys were typed. The models are the SOP classes of the information model; the worklist has C-FIND alone.
    """

    identifier: bytes
    charset: str
    find_model: str
    move_model: str = ""
    get_model: str = ""


def prepare(invocation: Invocation, say: Messages, environ: Mapping[str, str] | None = None) -> Query:
    """Check what was asked, write the --store-query file, and return the query. `environ` names the locale; ours if
    none is given.

    Raises Refused with gdcmscu's words, in gdcmscu's order: root, --port-scp, study root with --patient, query file,
    value of (0008,0052), wildcards of a move or get. Nothing was connected to then.
    """
    charset = locale.characters(locale.given() if environ is None else environ).term
    if invocation.worklist:
        return Query(encode(invocation.keys, charset), charset, find_model("", worklist=True))
    root = invocation.root
    if root is None:
        say.error("name the information model: --patientroot or --studyroot")
        raise CommandRefused(f"{invocation.mode.capitalize()} failed. Give --patientroot or --studyroot.")
    if invocation.mode == "move" and invocation.port_scp is None:
        raise CommandRefused(NO_PORT_SCP)
    level = invocation.level or "study"
    if level not in _LEVELS[root]:
        say.error("Study Root has no patient level: --patientroot, or another level")
        raise CommandRefused(NOT_CONSTRUCTED)
    identifier = encode([*invocation.keys, *added(root, level)], charset)
    if invocation.store_query is not None:
        _write(invocation.store_query, identifier)
    named = next((value for tag, value in invocation.keys if tag == LEVEL), None)
    if named is not None and _padded(LEVEL, named) not in {_level_value(level) for level in _LEVELS[root]}:
        raise CommandRefused(NOT_VALID)
    if invocation.mode != "find":
        _refuse_wildcards(invocation)
    return Query(identifier, charset, find_model(root), move_model(root), get_model(root))


def added(root: RootWord, level: Level) -> list[tuple[int, bytes]]:
    """What goes along unless it was given: the level, and the unique keys of the levels above it, to be returned."""
    levels = _LEVELS[root]
    above = levels[: levels.index(level)]
    return [(LEVEL, _level_value(level)), *((_UNIQUE[higher], b"") for higher in above)]


def encode(keys: Iterable[tuple[int, bytes]], charset: str) -> bytes:
    """The data set of these keys, the first of two equal tags, with the character set.

    Groups that no identifier can have (PS3.7 E, PS3.10 7.1, PS3.5 7.5 and what lies below 0008) are left out; a
    sequence is asked for as a whole.
    """
    values: dict[int, bytes] = {CHARACTER_SET: charset.encode()}
    for tag, value in keys:
        group = tag >> 16
        if (group >= 0x0008 or group == 0x0004) and group != 0xFFFE:
            values.setdefault(tag, value)
    return b"".join(_element(tag, values[tag]) for tag in sorted(values))


def _element(tag: int, value: bytes) -> bytes:
    raw = _padded(tag, value)
    return _HEAD.pack(tag >> 16, tag & 0xFFFF, len(raw)) + raw


def _padded(tag: int, value: bytes) -> bytes:
    """The value as it goes on the wire: even (PS3.5 6.2), and nothing for a sequence."""
    vr = vr_of(tag)
    if vr == "SQ":
        return b""
    return value + (b"\0" if vr == "UI" else b" ") if len(value) % 2 else value


def _level_value(level: Level) -> bytes:
    return _padded(LEVEL, level.upper().encode())


def _refuse_wildcards(invocation: Invocation) -> None:
    for tag, value in invocation.keys:
        if b"*" in value or b"?" in value:
            shown = value.decode("utf-8", "backslashreplace")
            raise CommandRefused(
                f"wildcard in key {tag >> 16:04x},{tag & 0xFFFF:04x}={shown}: a {invocation.mode} could fetch the "
                "whole archive; find what is wanted first"
            )


def _write(path: str, identifier: bytes) -> None:
    """The --store-query file: preamble and data set, without file meta information, as gdcmscu writes it."""
    try:
        Path(path).write_bytes(bytes(128) + b"DICM" + identifier)
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise CommandRefused(f"query file {path} cannot be written: {why}") from None
