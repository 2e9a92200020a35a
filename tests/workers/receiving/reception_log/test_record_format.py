"""The reception log as bytes: what was committed can be read after any cut, and nothing else can."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomferry.workers.receiving.reception_log import record_format
from dicomferry.workers.receiving.reception_log.record_format import BLOCK, FIRST, Lap, Position

LAP = Lap(b"i" * 16, 3)
SIZE = 64 * BLOCK


def block(fill: int, size: int) -> bytes:
    """Bytes in which no block is empty."""
    return bytes([1 + fill % 255]) * size


class Writer:
    """A segment in memory; `writes` are those of each batch: (offset, bytes)."""

    def __init__(self, lap: Lap = LAP, number: int = 1) -> None:
        self.lap = lap
        self.data = bytearray(record_format.segment_head(lap).ljust(SIZE, b"\0"))
        self.at = FIRST
        self.number = number
        self.writes: list[tuple[int, bytes]] = []
        self.batches: list[list[str]] = []

    def batch(self, *sizes: int) -> list[str]:
        """Write records of so many bytes at once; their places."""
        first, parts, places = self.number, b"", []
        for size in sizes:
            place, content = f"1/2/{self.number}.dcm", block(self.number, size)
            head = record_format.record_head(
                self.lap, Position(self.number, first), place.encode(), size, zlib.crc32(content)
            )
            parts += (head + content).ljust(record_format.size_of(place.encode(), size), b"\0")
            places.append(place)
            self.number += 1
        self.data[self.at : self.at + len(parts)] = parts
        self.writes.append((self.at, parts))
        self.batches.append(places)
        self.at += len(parts)
        return places


def places(data: bytes | bytearray) -> list[str | None]:
    """Of the records that can be read."""
    return [record.place for record in record_format.read(bytes(data)).records]


def test_what_was_written_is_read() -> None:
    """Each record by its place, with its bytes, in order; they end where the next one would begin."""
    writer = Writer()
    wanted = writer.batch(10, 600) + writer.batch(0) + writer.batch(5000)
    found = record_format.read(bytes(writer.data))
    assert ([record.place for record in found.records], found.end, found.damage) == (wanted, writer.at, [])
    last = found.records[-1]
    assert bytes(writer.data[last.begin : last.begin + last.length]) == block(4, 5000)


def test_a_segment_of_zeros_is_empty() -> None:
    """It was being made when the power went."""
    found = record_format.read(bytes(SIZE))
    assert (found.lap, found.records, found.damage) == (None, [], [])


def test_records_of_a_former_lap_count_no_more() -> None:
    """A segment that is filled again replays nothing of what was in it before, wherever the new records end."""
    writer = Writer()
    writer.batch(700), writer.batch(700), writer.batch(700)
    again = Writer(Lap(LAP.identity, 4), number=4)
    again.data[BLOCK:] = writer.data[BLOCK:]
    assert places(again.data) == []
    wanted = again.batch(100)
    found = record_format.read(bytes(again.data))
    assert ([record.place for record in found.records], found.damage) == (wanted, [])


def test_records_of_another_log_count_not() -> None:
    """Each start gives its log an identity of its own."""
    writer = Writer()
    writer.batch(700)
    other = record_format.segment_head(Lap(b"o" * 16, 3))
    assert places(other + bytes(writer.data[BLOCK:])) == []


def test_what_is_unreadable_before_a_later_batch_is_damage_and_what_follows_is_read() -> None:
    """A batch is written once the one before is on disk: so something is lost that was there."""
    writer = Writer()
    first, second, third = writer.batch(700), writer.batch(700), writer.batch(10)
    writer.data[writer.writes[1][0] + 600] ^= 1
    found = record_format.read(bytes(writer.data))
    assert [record.place for record in found.records] == first + third and second
    assert found.damage == [writer.writes[1][0]]


def test_the_first_record_can_be_the_damaged_one() -> None:
    """What follows it tells that it was on disk, though nothing tells its number."""
    writer = Writer()
    writer.batch(700)
    second = writer.batch(700)
    writer.data[FIRST] ^= 1
    found = record_format.read(bytes(writer.data))
    assert ([record.place for record in found.records], found.damage) == (second, [FIRST])


def test_a_torn_batch_is_the_end_and_no_damage() -> None:
    """Of what was written at once the power cut leaves any part; nothing of it was answered for."""
    writer = Writer()
    first = writer.batch(700)
    torn = writer.batch(700, 700, 700)
    at = writer.writes[1][0]
    writer.data[at : at + BLOCK] = bytes(BLOCK)
    found = record_format.read(bytes(writer.data))
    assert ([record.place for record in found.records], found.damage) == (first + torn[1:], [])


def test_a_torn_batch_before_a_later_one_is_damage() -> None:
    """Although what follows at once is of the same batch: the later one tells that it was whole."""
    writer = Writer()
    writer.batch(700, 700), writer.batch(10)
    writer.data[FIRST + 600] ^= 1
    found = record_format.read(bytes(writer.data))
    assert (len(found.records), found.damage) == (2, [FIRST])


def test_a_segment_whose_head_is_unreadable_is_damaged_and_its_latest_lap_is_read() -> None:
    """The head is one block, which a power cut does not tear: so the disk has lost it."""
    writer = Writer()
    writer.batch(700), writer.batch(700)
    later = Writer(Lap(LAP.identity, 4), number=3)
    later.data[BLOCK:] = writer.data[BLOCK:]
    wanted = later.batch(100)
    later.data[3] ^= 1
    found = record_format.read(bytes(later.data))
    assert ([record.place for record in found.records], found.damage[0]) == (wanted, 0)


def test_an_erased_record_has_no_place_and_hides_nothing_behind_it() -> None:
    """It is no damage, whether its bytes are still there or not."""
    writer = Writer()
    writer.batch(700), writer.batch(700)
    record = record_format.read(bytes(writer.data)).records[0]
    writer.data[FIRST : FIRST + BLOCK] = record_format.erased_head(LAP, record)
    found = record_format.read(bytes(writer.data))
    assert [one.place for one in found.records] == [None, "1/2/2.dcm"] and found.damage == []
    assert b"1/2/1.dcm" not in writer.data
    writer.data[FIRST + BLOCK : FIRST + record.size] = bytes(record.size - BLOCK)
    assert record_format.read(bytes(writer.data)) == found


def test_a_record_that_was_erased_meanwhile_has_no_bytes_and_one_that_changed_is_refused() -> None:
    """What is made anew from the log is what was received, or nothing."""
    writer = Writer()
    writer.batch(700)
    record = record_format.read(bytes(writer.data)).records[0]
    raw = bytes(writer.data[FIRST : FIRST + record.size])
    assert record_format.bytes_of(raw, record, LAP) == block(1, 700)
    assert record_format.bytes_of(record_format.erased_head(LAP, record), record, LAP) is None
    with pytest.raises(ValueError, match="not what was written"):
        record_format.bytes_of(raw[:600] + b"?" + raw[601:], record, LAP)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 1500), min_size=1, max_size=4), min_size=1, max_size=6),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_whatever_a_cut_leaves_of_the_last_batch_all_that_was_flushed_is_read(
    sizes: list[list[int]], before: int, chance: random.Random
) -> None:
    """Each block of the batch that was being written is there or not, over those of a former lap."""
    former = Writer(Lap(LAP.identity, 2), number=1)
    for _ in range(before):
        former.batch(chance.randrange(1200))
    writer = Writer(number=former.number)
    writer.data[BLOCK:] = former.data[BLOCK:]
    for batch in sizes:
        kept = bytes(writer.data)
        writer.batch(*batch)
    at, written = writer.writes[-1]
    for offset in range(0, len(written), BLOCK):
        if chance.random() < 0.5:
            writer.data[at + offset : at + offset + BLOCK] = kept[at + offset : at + offset + BLOCK]
    found = record_format.read(bytes(writer.data))
    names = [record.place for record in found.records]
    flushed = [place for batch in writer.batches[:-1] for place in batch]
    assert names[: len(flushed)] == flushed
    assert set(names[len(flushed) :]) <= set(writer.batches[-1])
    assert found.damage == []
    for record in found.records:
        assert record.place is not None
        number = int(record.place.split("/")[-1].removesuffix(".dcm"))
        assert bytes(writer.data[record.begin : record.begin + record.length]) == block(number, record.length)


@pytest.mark.parametrize(
    ("found", "is_torn"),
    [
        (b"", True),
        (b"ab" * 600, True),
        (b"ab" * 100, True),
        (bytes(1200), True),
        (bytes(512) + (b"ab" * 600)[512:], True),
        (b"ab" * 700, False),
        (b"ax" * 600, False),
        ((b"ab" * 600)[:1024] + b"x", False),
    ],
)
def test_a_torn_copy_has_blocks_of_the_whole_one_and_zeros(found: bytes, is_torn: bool) -> None:
    """Anything else is another file, which nothing is put in the place of."""
    assert record_format.is_torn_copy(found, b"ab" * 600) is is_torn
