"""The reception log as bytes: a segment's head, its records, and what can be read of a segment after a power cut.

A segment begins with a head of one block; records follow it, each from the beginning of a block on. A block is what a
disk writes whole or not at all, and a record's head and place fit into one. Numbers are little-endian.

    segment   magic "DFLS", version, identity of the log, lap, checksum of all that
    record    magic "DFLR", version, kind, length of the place, lap, identity, number, number of the first record of its
              batch, length of the bytes, checksum of the bytes, checksum of the head and the place; place; bytes

A record counts if its checksums are right and it is of its segment's identity and lap. The lap goes up by one, on
disk, when a segment is freed: what was in it counts no more from then on, whatever of it is still there.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

BLOCK = 512
"""Bytes that a disk writes whole or not at all."""
FIRST = BLOCK
"""Where a segment's first record begins."""
MOST_PLACE = 400
"""Bytes that a place may have."""

_VERSION = 1
_KEPT, _ERASED = 0, 1
_SEGMENT_MAGIC, _RECORD_MAGIC = b"DFLS", b"DFLR"
_SEGMENT = struct.Struct("<4sB3x16sQ")
_RECORD = struct.Struct("<4sBBHQ16sQQII")
_SUM = struct.Struct("<L")
_HEAD = _RECORD.size + _SUM.size

Buffer = bytes | bytearray | memoryview


class Lap(NamedTuple):
    """Whose segment it is, and which of the times that it has been filled this one is."""

    identity: bytes
    number: int


class Position(NamedTuple):
    """A record's number, which its log never gives again, and that of the first one which was written with it."""

    number: int
    batch: int


@dataclass(frozen=True, slots=True)
class Record:
    """A record in a segment: it takes `size` bytes from `offset` on. An erased one has no `place`, and no bytes.

    Its bytes are `length` from `begin` on.
    """

    offset: int
    size: int
    position: Position
    place: str | None
    begin: int
    length: int


@dataclass
class Contents:
    """What can be read of a segment: its lap, None where that is unreadable; the records of it, and where they end.

    `damage` are the beginnings of what cannot be read although something was written after it, so that it was on disk.
    """

    lap: Lap | None
    records: list[Record] = field(default_factory=list)
    end: int = FIRST
    damage: list[int] = field(default_factory=list)


def segment_head(lap: Lap) -> bytes:
    """The first block of a segment."""
    head = _SEGMENT.pack(_SEGMENT_MAGIC, _VERSION, lap.identity, lap.number)
    return (head + _SUM.pack(zlib.crc32(head))).ljust(BLOCK, b"\0")


def size_of(place: bytes, length: int) -> int:
    """How many bytes of a segment a record takes: whole blocks."""
    return -(-(_HEAD + len(place) + length) // BLOCK) * BLOCK


def record_head(lap: Lap, position: Position, place: bytes, length: int, checksum: int) -> bytes:
    """What stands before `length` bytes, whose CRC-32 is `checksum`; behind them the record is filled up with zeros."""
    head = _RECORD.pack(
        _RECORD_MAGIC,
        _VERSION,
        _KEPT,
        len(place),
        lap.number,
        lap.identity,
        position.number,
        position.batch,
        length,
        checksum,
    )
    return head + place + _SUM.pack(zlib.crc32(place, zlib.crc32(head)))


def erased_head(lap: Lap, record: Record) -> bytes:
    """The block that makes a record an erased one, of the same size: without its place, and of no bytes of meaning."""
    head = _RECORD.pack(
        _RECORD_MAGIC,
        _VERSION,
        _ERASED,
        0,
        lap.number,
        lap.identity,
        record.position.number,
        record.position.batch,
        record.size - _HEAD,
        0,
    )
    return (head + _SUM.pack(zlib.crc32(head))).ljust(BLOCK, b"\0")


def read_lap(buffer: Buffer) -> Lap | None:
    """The lap that a segment's first block tells; None where it is none of ours, or unreadable."""
    if len(buffer) < _SEGMENT.size + _SUM.size:
        return None
    magic, version, identity, number = _SEGMENT.unpack_from(buffer)
    (checksum,) = _SUM.unpack_from(buffer, _SEGMENT.size)
    if (magic, version) != (_SEGMENT_MAGIC, _VERSION) or zlib.crc32(bytes(buffer[: _SEGMENT.size])) != checksum:
        return None
    return Lap(identity, number)


def read(buffer: bytes | memoryview) -> Contents:
    """What a segment holds.

    A record that cannot be read ends the log, unless one of a later batch follows it: a batch is written once the one
    before is on disk, so then something is lost that was there. What follows is read in both cases.
    """
    data = memoryview(buffer)
    found = Contents(read_lap(data[:BLOCK]))
    lap = found.lap
    if lap is None:
        if not any(data[:BLOCK]):
            return found
        found.damage.append(0)
        lap = found.lap = _latest_lap(data)
        if lap is None:
            return found
    at = FIRST
    expected: int | None = None
    gaps: list[tuple[int, int]] = []
    while (record := _record_at(data, at, lap, expected) or _next_record(data, at, lap, expected)) is not None:
        if record.offset != at:
            gaps.append((at, _latest_batch_before(record, expected)))
        found.records.append(record)
        at = found.end = record.offset + record.size
        expected = record.position.number + 1
    if found.records:
        last = found.records[-1].position.batch
        found.damage += [offset for offset, batch in gaps if batch < last]
    return found


def _latest_batch_before(record: Record, expected: int | None) -> int:
    """The latest batch that an unreadable record before this one can be of.

    Where nothing tells its number, it may have begun the batch of this one, unless this one did.
    """
    number, batch = record.position
    return expected if expected is not None else min(batch, number - 1)


def _latest_lap(data: memoryview) -> Lap | None:
    """The latest lap of which there is a record, for a segment whose first block cannot be read."""
    laps = [lap for lap in (_lap_at(data, at) for at in range(FIRST, len(data), BLOCK)) if lap is not None]
    return max(laps, key=lambda lap: lap.number, default=None)


def _lap_at(data: memoryview, at: int) -> Lap | None:
    """The lap of a record that begins there, if one does."""
    if len(data) - at < _HEAD or data[at : at + 4] != _RECORD_MAGIC:
        return None
    _, _, _, _, number, identity, _, _, _, _ = _RECORD.unpack_from(data, at)
    lap = Lap(identity, number)
    return lap if head_at(data[at : at + BLOCK], at, lap) is not None else None


def _next_record(data: memoryview, after: int, lap: Lap, expected: int | None) -> Record | None:
    """The first readable record behind `after`, of this lap."""
    raw = data.obj if isinstance(data.obj, bytes) else bytes(data)
    at = raw.find(_RECORD_MAGIC, after + 1)
    while at >= 0:
        found = _record_at(data, at, lap, None) if at % BLOCK == 0 else None
        if found is not None and (expected is None or found.position.number >= expected):
            return found
        at = raw.find(_RECORD_MAGIC, at + 1)
    return None


def head_at(block: Buffer, offset: int, lap: Lap) -> tuple[Record, int] | None:
    """(record, checksum of its bytes) of a record whose first block, from `offset` of its segment on, is given."""
    if len(block) < _HEAD:
        return None
    fields = _RECORD.unpack_from(block)
    magic, version, kind, place_length, lap_number, identity, number, batch, length, checksum = fields
    if (magic, version, lap_number, identity) != (_RECORD_MAGIC, _VERSION, lap.number, lap.identity):
        return None
    end = _RECORD.size + place_length
    if kind not in (_KEPT, _ERASED) or place_length > MOST_PLACE or end + _SUM.size > len(block):
        return None
    head = bytes(block[:end])
    if _SUM.unpack_from(block, end)[0] != zlib.crc32(head):
        return None
    place = None if kind == _ERASED else head[_RECORD.size :].decode("ascii", "replace")
    size = size_of(head[_RECORD.size :], length)
    record = Record(offset, size, Position(number, batch), place, offset + end + _SUM.size, length)
    return record, checksum


def bytes_of(data: bytes, record: Record, lap: Lap) -> bytes | None:
    """The bytes of a record that is read again; None where it was erased. Raises ValueError where it is not whole."""
    found = head_at(data[:BLOCK], record.offset, lap)
    if found is not None and found[0].place is None:
        return None
    content = data[record.begin - record.offset :][: record.length]
    if found is None or found[0] != record or zlib.crc32(content) != found[1]:
        raise ValueError("a record of the reception log is not what was written")
    return content


def _record_at(data: memoryview, at: int, lap: Lap, expected: int | None) -> Record | None:
    """The record that begins there, whole; None where there is none, or not the one of the expected number."""
    found = head_at(data[at : at + BLOCK], at, lap)
    if found is None:
        return None
    record, checksum = found
    if expected is not None and record.position.number != expected:
        return None
    if record.offset + record.size > len(data):
        return None
    if record.place is not None and zlib.crc32(data[record.begin : record.begin + record.length]) != checksum:
        return None
    return record


def is_torn_copy(found: bytes, whole: bytes) -> bool:
    """Whether a file can be what a power cut left of one with these bytes.

    That is blocks of it, and zeros or nothing elsewhere; a whole copy is one as well.
    """
    if len(found) > len(whole):
        return False
    for at in range(0, len(found), BLOCK):
        block = found[at : at + BLOCK]
        if block != whole[at : at + len(block)] and any(block):
            return False
    return True
