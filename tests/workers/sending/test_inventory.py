"""Which files there are, in which order, and what becomes of each."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.state import ItemState
from dicomferry.workers.files import file_state
from dicomferry.workers.files.part10 import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, Header
from dicomferry.workers.sending import inventory as module
from dicomferry.workers.sending.entry import InventoryEntry
from dicomferry.workers.sending.inventory import Cut, inventory, same_content

MR = "1.2.840.10008.5.1.4.1.1.4"
JPEG = "1.2.840.10008.1.2.4.50"


def instance(uid: str = "1.2.3", syntax: str = EXPLICIT_LE, extra: bytes = b"", values: int = 4) -> bytes:
    """A small file with a 16-bit number and words, so that byte order shows."""
    order, implicit = (">" if syntax == EXPLICIT_BE else "<"), syntax == IMPLICIT_LE

    def element(tag: int, vr: str, value: bytes) -> bytes:
        head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
        if implicit:
            return head + struct.pack("<I", len(value)) + value
        if vr in ("OW", "OB"):
            return head + vr.encode() + struct.pack(order + "HI", 0, len(value)) + value
        return head + vr.encode() + struct.pack(order + "H", len(value)) + value

    def text(value: str) -> bytes:
        return value.encode() + b"\0" * (len(value) % 2)

    body = element(0x00080016, "UI", text(MR)) + element(0x00080018, "UI", text(uid))
    body += element(0x00280010, "US", struct.pack(order + "H", 258))
    body += extra
    body += element(0x7FE00010, "OW", struct.pack(f"{order}{values}H", *range(values)))
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(text(syntax))) + text(syntax)
    return b"\0" * 128 + b"DICM" + meta + body


def fill(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(instance(f"1.2.{number + 1}"))


def walk(*roots: Path, recursive: bool = True, after: bytes | None = None) -> list[InventoryEntry]:
    return list(inventory([os.fsencode(root) for root in roots], recursive=recursive, after=after))


def names(found: list[InventoryEntry], root: Path) -> list[str]:
    return [os.fsdecode(each.path).removeprefix(f"{root}/") for each in found]


def only(found: list[InventoryEntry]) -> InventoryEntry:
    assert len(found) == 1
    return found[0]


def test_order_is_by_components(tmp_path: Path) -> None:
    """The order is bytewise by path components: `a/z` comes before `a.b`, though `/` sorts after `.`."""
    fill(tmp_path, "a.b", "a/z", "a/B", "b/c/d", "b/b", "Z")
    assert names(walk(tmp_path), tmp_path) == ["Z", "a/B", "a/z", "a.b", "b/b", "b/c/d"]
    assert all(each.state is ItemState.PENDING for each in walk(tmp_path))


def test_not_recursive(tmp_path: Path) -> None:
    """Without `recursive` a folder gives its own files only."""
    fill(tmp_path, "a", "b/c", "d")
    assert names(walk(tmp_path, recursive=False), tmp_path) == ["a", "d"]


def test_what_is_kept_of_a_file(tmp_path: Path) -> None:
    """Size and mtime are those of the file read, the header is that of part10."""
    fill(tmp_path, "a")
    found = only(walk(tmp_path))
    status = (tmp_path / "a").stat()
    assert (found.size, found.mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert found.header is not None and found.header.sop_instance_uid == "1.2.1"


def test_a_file_may_be_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that is asked for its size, with the state that it was in; not one that was changed just now, whose next
    change might not show, and not one that cannot be sent.
    """
    fill(tmp_path, "a", "b")
    (tmp_path / "b").write_bytes(instance("1.2.2", values=5000))
    (tmp_path / "c").write_text("no image")
    asked: list[int] = []

    def keeps(size: int) -> bool:
        asked.append(size)
        return size < 5000

    def look() -> list[InventoryEntry]:
        return list(inventory([os.fsencode(tmp_path)], recursive=True, keeps=keeps))

    status = (tmp_path / "a").stat()
    monkeypatch.setattr("time.time", lambda: status.st_ctime + 60)
    found = look()
    assert asked == [(tmp_path / name).stat().st_size for name in "abc"]
    assert [each.content is not None for each in found] == [True, False, False]
    content = found[0].content
    assert content is not None
    assert (content.data, content.header) == ((tmp_path / "a").read_bytes(), found[0].header)
    assert content.state == file_state.state_of(status)
    monkeypatch.setattr("time.time", lambda: status.st_ctime + 0.001)
    assert [each.content for each in look()] == [None] * 3


def test_headers_may_be_read_in_another_way(tmp_path: Path) -> None:
    """From the same first bytes; what it cannot read is an entry as any other."""
    fill(tmp_path, "a", "b")

    def header_of(path: bytes, first: bytes) -> Header:
        if path.endswith(b"b"):
            raise ValueError("not mine")
        return Header(MR, str(len(first)), EXPLICIT_LE, None, None, 0)

    one, other = inventory([os.fsencode(tmp_path)], recursive=True, header_of=header_of)
    assert one.header is not None and one.header.sop_instance_uid == str(one.size)
    assert (other.state, other.detail) == (ItemState.FAILED, "ValueError: not mine")


def test_roots(tmp_path: Path) -> None:
    """Roots are sorted; doubles and those that a recursive root covers add nothing."""
    fill(tmp_path, "a/1", "a/b/2", "c/3", "d")
    roots = [tmp_path / "d", tmp_path / "c", tmp_path / "a" / "b", tmp_path / "a", tmp_path / "a" / "b" / "2"]
    assert names(walk(*roots, *roots), tmp_path) == ["a/1", "a/b/2", "c/3", "d"]


def test_roots_nested_without_recursive(tmp_path: Path) -> None:
    """Without `recursive` a nested root's files take their place in the one order; none comes twice."""
    fill(tmp_path, "a/1", "a/b/2", "a/b/x/y/3", "a/b/x/no", "a/c", "a/c1/no")
    roots = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a/b/x/y", tmp_path / "a" / "c"]
    expected = ["a/1", "a/b/2", "a/b/x/y/3", "a/c"]
    found = walk(*roots, recursive=False)
    assert names(found, tmp_path) == expected
    for place, each in enumerate(found):
        rest = walk(*roots, recursive=False, after=each.path)
        assert names(rest, tmp_path) == expected[place + 1 :]


def test_links(tmp_path: Path) -> None:
    """Links to files and, recursively, to folders are followed; loops end and are named; dangling ones fail."""
    fill(tmp_path, "real/1", "tree/a")
    (tmp_path / "tree" / "file").symlink_to("../real/1")
    (tmp_path / "tree" / "folder").symlink_to("../real")
    (tmp_path / "tree" / "gone").symlink_to("nowhere")
    (tmp_path / "tree" / "itself").symlink_to("itself")
    (tmp_path / "tree" / "loop").symlink_to("../tree")
    told = [(os.path.basename(os.fsdecode(each.path)), each.state, each.reason) for each in walk(tmp_path / "tree")]
    assert told == [
        ("a", ItemState.PENDING, None),
        ("file", ItemState.PENDING, None),
        ("1", ItemState.PENDING, None),
        ("gone", ItemState.FAILED, "dangling link"),
        ("itself", ItemState.FAILED, "dangling link"),
        ("loop", ItemState.SKIPPED, "link loop"),
    ]
    flat = walk(tmp_path / "tree", recursive=False)
    assert names(flat, tmp_path / "tree") == ["a", "file", "gone", "itself"]


def test_no_plain_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifos, sockets and devices are named and never opened, also as roots and behind links."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    (tmp_path / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)
        listener.bind("socket")
        monkeypatch.setattr(os, "open", lambda path, *_: pytest.fail(f"opened {path!r}"))
        found = walk(tmp_path)
        assert names(found, tmp_path) == ["fifo", "link", "null", "socket"]
        assert {(each.state, each.reason) for each in found} == {(ItemState.SKIPPED, "not a file")}
        assert only(walk(tmp_path / "fifo")).reason == "not a file"


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system refuses to open fails with its own words, file or folder, and the rest goes on."""
    fill(tmp_path, "a", "b/c", "d")
    scandir = os.scandir

    def no_folder(path: bytes) -> object:
        if path.endswith(b"/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    opens = os.open

    def no_file(path: bytes, flags: int) -> int:
        if path.endswith(b"/a"):
            raise PermissionError(13, "Permission denied")
        return opens(path, flags)

    monkeypatch.setattr(os, "scandir", no_folder)
    monkeypatch.setattr(os, "open", no_file)
    found = walk(tmp_path)
    assert [each.state for each in found] == [ItemState.FAILED, ItemState.FAILED, ItemState.PENDING]
    assert [each.reason for each in found] == ["unreadable", "unreadable folder", None]
    assert found[0].detail == "Permission denied"
    for place, each in enumerate(found):
        assert names(walk(tmp_path, after=each.path), tmp_path) == ["a", "b", "d"][place + 1 :]


def test_vanished(tmp_path: Path) -> None:
    """A file or folder that goes between listing and opening fails as vanished; so does a root that is not there."""
    fill(tmp_path, "a", "b", "c/d")
    found = inventory([os.fsencode(tmp_path)], recursive=True, ahead=0)
    assert next(found).reason is None
    (tmp_path / "b").unlink()
    (tmp_path / "c" / "d").unlink()
    (tmp_path / "c").rmdir()
    assert [(each.state, each.reason) for each in found] == [(ItemState.FAILED, "vanished")] * 2
    assert only(walk(tmp_path / "never")).reason == "vanished"


def test_files_are_open_before_their_turn_and_closed_after_it(tmp_path: Path) -> None:
    """A file that goes while it is open is read all the same; a walk that is given up leaves no file open."""
    fill(tmp_path, *(f"{number:02}" for number in range(20)))
    before = os.listdir("/proc/self/fd")
    found = inventory([os.fsencode(tmp_path)], recursive=True)
    next(found)
    for path in tmp_path.iterdir():
        path.unlink()
    reasons = [each.reason for each in found]
    assert reasons == [None] * module.AHEAD + ["vanished"] * (19 - module.AHEAD)
    fill(tmp_path, *(f"{number:02}" for number in range(20)))
    given_up = inventory([os.fsencode(tmp_path)], recursive=True)
    next(given_up)
    assert len(os.listdir("/proc/self/fd")) == len(before) + module.AHEAD
    given_up.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_reasons(tmp_path: Path) -> None:
    """Not DICOM and DICOMDIR are skipped; any other file that cannot be sent has failed."""
    (tmp_path / "1").write_bytes(b"some text, no image")
    (tmp_path / "2").write_bytes(b"")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + struct.pack("<HH2sH", 4, 0x1130, b"CS", 0) * 2)
    (tmp_path / "short").write_bytes(instance()[:150])
    told = [(each.state, each.reason) for each in walk(tmp_path)]
    skipped, failed = ItemState.SKIPPED, ItemState.FAILED
    assert told == [(skipped, "not DICOM"), (skipped, "not DICOM"), (skipped, "DICOMDIR"), (failed, "truncated")]


def test_names_of_any_bytes(tmp_path: Path) -> None:
    """Names are bytes: no encoding, newlines and 255 bytes change nothing."""
    root = os.fsencode(tmp_path)
    wild = sorted([b"\xff\xfe", b"a\nb", b"n" * 255, b" ", b"\xc3\xa4"])
    for name in wild:
        Path(os.fsdecode(root + b"/" + name)).write_bytes(instance())
    found = list(inventory([root], recursive=True))
    assert [each.path for each in found] == [root + b"/" + name for name in wild]
    assert all(each.header for each in found)


DEPTH = 2100


@pytest.fixture
def deep_tree(tmp_path: Path) -> Iterator[Path]:
    """A tree of DEPTH folders with a file at its end, taken away step by step: by path, cleaning up meets the same
    limit as reading, and what is left breaks every later run.
    """
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(DEPTH):
            os.mkdir("d")
            os.chdir("d")
        Path("file").write_bytes(instance())
        os.chdir(before)
        yield tmp_path
        os.chdir(tmp_path)
        for _ in range(DEPTH):
            os.chdir("d")
        os.unlink("file")
        for _ in range(DEPTH):
            os.chdir("..")
            os.rmdir("d")
    finally:
        os.chdir(before)


def test_deep_tree(deep_tree: Path) -> None:
    """Depth meets neither the interpreter's limit nor a crash where a path is longer than the system takes."""
    found = only(walk(deep_tree))
    assert (found.state, found.reason) == (ItemState.FAILED, "unreadable folder")


def test_resume_lists_nothing_before_the_cursor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resuming neither lists folders nor reads files that lie before the cursor."""
    fill(tmp_path, "a/1", "b/1", "b/2", "c/1")
    listed: list[bytes] = []
    opened: list[bytes] = []
    scandir = os.scandir

    def seen_folder(path: bytes) -> object:
        listed.append(os.path.basename(path))
        return scandir(path)

    opens = os.open

    def seen_file(path: bytes, flags: int) -> int:
        opened.append(path[-3:])
        return opens(path, flags)

    monkeypatch.setattr(os, "scandir", seen_folder)
    monkeypatch.setattr(os, "open", seen_file)
    assert len(walk(tmp_path, after=os.fsencode(tmp_path / "b" / "1"))) == 2
    assert listed == [os.fsencode(tmp_path.name), b"b", b"c"]
    assert opened == [b"b/2", b"c/1"]


PARTS = st.sampled_from(["a", "b", "a.b", "A", "c", "a-", "~"])
PATHS = st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12)


@given(PATHS, st.booleans(), st.lists(PARTS, max_size=3), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_resume_anywhere(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str], recursive: bool, tops: list[str], data: st.DataObject
) -> None:
    """Resumed at any cursor, the walk delivers exactly the rest; what is delivered is total and in order."""
    root = tmp_path_factory.mktemp("tree")
    for path in paths:
        try:
            fill(root, path)
        except OSError:
            continue  # a folder and a file of one name
    roots = [root / top for top in tops if (root / top).exists()] + [root]
    whole = [each.path for each in walk(*roots, recursive=recursive)]
    assert whole == sorted(whole, key=lambda path: path.split(b"/"))
    assert len(set(whole)) == len(whole)
    if recursive:
        assert {Path(os.fsdecode(path)) for path in whole} == {each for each in root.rglob("*") if each.is_file()}
    else:
        assert {Path(os.fsdecode(path)) for path in whole} == {
            each for each in root.rglob("*") if each.is_file() and (each.parent in roots or each in roots)
        }
    for place, last in enumerate(whole):
        assert [each.path for each in walk(*roots, recursive=recursive, after=last)] == whole[place + 1 :]
    # The file at the cursor may be gone by then.
    if whole:
        place = data.draw(st.integers(0, len(whole) - 1))
        os.unlink(whole[place])
        rest = walk(*roots, recursive=recursive, after=whole[place])
        assert [each.path for each in rest] == whole[place + 1 :]


def pending(number: int, size: int = 1000, sop_class: str = MR, syntax: str = JPEG) -> InventoryEntry:
    header = Header(sop_class, f"1.2.{number}", syntax, None, None, 400)
    return InventoryEntry(b"/%d" % number, size, 0, ItemState.PENDING, None, None, header)


def sizes(stream: list[InventoryEntry]) -> list[int]:
    """How a planner would cut the stream: instances per chunk."""
    cut, counts = Cut(max_instances=500), []
    for found in stream:
        if not cut.fits(found):
            counts.append(cut.instances)
            cut = Cut(max_instances=500)
        cut.add(found)
    return [*counts, cut.instances]


def test_cut_by_count_and_bytes() -> None:
    """A chunk has at most 500 instances and 256 MiB; a file over that has a chunk to itself."""
    assert sizes([pending(n) for n in range(1201)]) == [500, 500, 201]
    assert sizes([pending(n, 100 << 20) for n in range(5)]) == [2, 2, 1]
    assert sizes([pending(1), pending(2, 300 << 20), pending(3)]) == [1, 1, 1]


def test_cut_by_contexts() -> None:
    """A chunk needs at most 128 contexts; a pair with an uncompressed syntax counts for two, repeats for none."""
    assert sizes([pending(n, sop_class=f"1.{n}") for n in range(200)]) == [128, 72]
    assert sizes([pending(n, sop_class=f"1.{n}", syntax=IMPLICIT_LE) for n in range(100)]) == [64, 36]
    assert sizes([pending(n, sop_class=f"1.{n % 64}", syntax=EXPLICIT_LE) for n in range(300)]) == [300]


def test_cut_refuses_what_does_not_fit() -> None:
    """add() is not a way round fits(), and takes only files with a header."""
    cut = Cut(max_instances=1)
    cut.add(pending(1))
    with pytest.raises(ValueError):
        cut.add(pending(2))
    with pytest.raises(ValueError):
        Cut(max_instances=500).add(InventoryEntry(b"/x", 0, 0, ItemState.FAILED, Reason.UNREADABLE, None, None))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], bytes]:
    def writer(name: str, content: bytes) -> bytes:
        (tmp_path / name).write_bytes(content)
        return os.fsencode(tmp_path / name)

    return writer


def test_same_content(write: Callable[[str, bytes], bytes]) -> None:
    """Equal data sets are the same whatever their encoding, group lengths and padding; other values are not."""
    plain = write("plain", instance())
    group_length = struct.pack("<HH2sHI", 0x7FE0, 0, b"UL", 4, 99)
    padding = struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 4) + b"\0" * 4
    for name, content in {
        "copy": instance(),
        "implicit": instance(syntax=IMPLICIT_LE),
        "big": instance(syntax=EXPLICIT_BE),
        "lengths": instance(extra=group_length),
        "padded": instance() + padding,
    }.items():
        assert same_content(plain, write(name, content)), name
    assert not same_content(plain, write("longer", instance(values=6)))
    extra = struct.pack("<HH2sH", 0x0030, 0x4000, b"LO", 2) + b"x "
    assert not same_content(plain, write("more", instance(extra=extra)))


def test_compressed_is_compared_in_its_own_syntax(write: Callable[[str, bytes], bytes]) -> None:
    """Files in different syntaxes of which one is compressed are never the same; in one syntax they may be."""
    first = write("first", instance(syntax=JPEG))
    assert same_content(first, write("second", instance(syntax=JPEG)))
    assert not same_content(first, write("third", instance()))


def test_unparsable_is_not_the_same(write: Callable[[str, bytes], bytes]) -> None:
    """A file that cannot be parsed is not the same as another one, so that nothing is dropped by mistake."""
    assert not same_content(write("a", instance()), write("b", instance()[:-3]))
