"""What a store says is so: folders and peers at random, and the same oracle for all of them.

More of it by hand: STORE_TRUTH_EXAMPLES=10000 python -m pytest tests/workers/test_store_truth.py
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dicomferry.models.rules.spec import StoreSpec
from dicomferry.models.rules.state import ItemState
from support import scripted_peer as peer
from support.bench import Bench, Reply, Store
from support.inline import Inline
from support.part10_bytes import EXPLICIT_LE, JPEG, MR, element, elements, meta, uid
from support.scripted_peer import Step, send

EXAMPLES = int(os.environ.get("STORE_TRUTH_EXAMPLES", "200"))

GOOD = ("good", "stale meta", "lying length", "out of order", "no preamble")
BROKEN = {
    "cut": "truncated",
    "cut in its header": "truncated",
    "odd": "odd length",
    "trailing": "trailing bytes",
    "no VR": "syntax mismatch",
    "native JPEG": "syntax mismatch",
}
# Between plan and send: gone, cut, another version of the same instance, another instance, no DICOM.
LATER = ("vanishes", "is cut", "is edited", "is another", "is text")
ANOTHER = "1.2.826.0.2.1"
# While its bytes are read for sending; what comes of the last two is the file as it was.
MEANWHILE = ("rewritten", "rewritten, times kept", "grows", "shrinks", "replaced", "removed")
# What a peer does in place of an answer; each is over after some times.
PEER = ("aborts", "aborts early", "hangs up", "answers wrongly", "is short of resources", "answers late")


def content(instance: str, kind: str, pixels: int) -> tuple[bytes, bytes | None]:
    """A file, and its data set if that can be sent."""
    parts = elements(instance=instance)
    parts[-1] = element(0x7FE00010, "OW", bytes([pixels]) * 1500)
    if kind == "out of order":
        parts = [parts[4], *parts[:4], *parts[5:]]
    if kind == "no VR":
        odd = bytearray(element(0x00291003, "LO", b"abcd"))
        odd[4:6] = b"??"
        parts.insert(-1, bytes(odd))
    body = b"".join(parts)
    named = "1.2.9999" if kind == "stale meta" else instance
    lie = len(b"".join(parts[:3])) if kind == "lying length" else 0
    start = meta(JPEG if kind == "native JPEG" else EXPLICIT_LE, instance=named, length=lie)
    whole = (b"" if kind == "no preamble" else b"\0" * 128 + b"DICM") + start + body
    if kind in GOOD:
        return whole, body
    if kind == "cut":
        return whole[:-10], None
    if kind == "cut in its header":
        return whole[: len(whole) - len(body) + len(parts[0]) + 4], None
    if kind == "odd":
        return whole + element(0x7FE11011, "OB", b"abc"), None
    return (whole + b"\n\r\n" if kind == "trailing" else whole), None


@dataclass
class File:
    """A file as it is made, and what is done to it when."""

    number: int
    """Of the instance that it holds."""
    kind: str
    pixels: int
    later: str | None = None
    meanwhile: tuple[str, int] | None = None
    """What is done, and before which read."""
    path: Path = Path()
    versions: list[bytes | None] = field(default_factory=list)
    """Each data set that the file held, from the first one on; None where it could not be sent."""

    @property
    def instance(self) -> str:
        return f"1.2.826.0.1.{self.number}" + ("." + "7" * 60 if self.number == 9 else "")

    @property
    def is_untouched(self) -> bool:
        return self.later is None and self.meanwhile is None

    def write(self, kind: str, pixels: int, *, in_place: bool = False, instance: str | None = None) -> None:
        """Another version of it."""
        whole, body = content(instance or self.instance, kind, pixels)
        if in_place:
            with self.path.open("r+b") as file:
                file.write(whole)
        else:
            self.path.write_bytes(whole)
        self.versions.append(body)

    def happens(self, what: str) -> None:
        """Do to it what was drawn."""
        status = self.path.stat()
        if what in ("vanishes", "removed"):
            self.path.unlink()
        elif what in ("is cut", "shrinks"):
            os.truncate(self.path, status.st_size - 20)
            self.versions.append(None)
        elif what == "is edited":
            self.write(self.kind, self.pixels ^ 0x40)
        elif what == "is another":
            self.write("good", self.pixels, instance=ANOTHER)
        elif what == "is text":
            self.path.write_text("no DICOM")
            self.versions.append(None)
        elif what.startswith("rewritten"):
            self.write(self.kind, self.pixels ^ 0x80, in_place=True)
            if what.endswith("kept"):
                os.utime(self.path, ns=(status.st_atime_ns, status.st_mtime_ns))
        elif what == "grows":
            more = element(0xFFFCFFFC, "OB", b"\0" * 8)
            with self.path.open("ab") as file:
                file.write(more)
            before = self.versions[-1]
            self.versions.append(None if before is None else before + more)
        elif what == "replaced":
            whole, body = content(self.instance, self.kind, self.pixels ^ 0x20)
            aside = self.path.with_name("." + self.path.name)
            aside.write_bytes(whole)
            aside.rename(self.path)
            self.versions.append(body)


@dataclass
class Script:
    """What the peer does to each instance: in turn, then it takes it; or it refuses it whenever it comes."""

    turns: dict[str, list[str]]
    refused: set[str]
    is_silent: bool = False
    taken: dict[str, list[int]] = field(default_factory=dict)
    """Numbers of the stores that were answered with success, by instance."""

    def _turn(self, store: Store) -> str | None:
        turns = self.turns.get(store.uid, [])
        return turns[store.nth - 1] if store.nth <= len(turns) else None

    def early(self, store: Store) -> Sequence[Step] | None:
        """Before the data set was read."""
        return [send(peer.abort_pdu()), peer.close] if self._turn(store) == "aborts early" else None

    def answer(self, store: Store) -> Reply:
        """When it was."""
        if store.uid in self.refused:
            return 0xA900
        reply = peer.store_rsp(store.message_id)
        match self._turn(store):
            case "aborts":
                return [send(peer.abort_pdu()), peer.close]
            case "hangs up":
                return [peer.close]
            case "answers wrongly":
                return [send(peer.store_rsp(store.message_id + 7)), peer.until_end]
            case "is short of resources":
                return 0xA700
            case "is silent":
                return [peer.until_end]
            case "answers late":
                steps: list[Step] = [peer.send_slowly(reply[:20], 0.002), send(reply[20:])]
            case _:
                steps = [send(reply)]
        self.taken.setdefault(store.uid, []).append(store.number)
        return steps


@st.composite
def folders(draw: st.DrawFn) -> list[File]:
    """Some files of a few instances, so that many have twins."""
    made = []
    for _ in range(draw(st.integers(1, 7))):
        file = File(
            number=draw(st.sampled_from([1, 1, 1, 2, 2, 3, 9])),
            kind=draw(st.one_of(st.sampled_from(GOOD), st.sampled_from(GOOD), st.sampled_from(list(BROKEN)))),
            pixels=draw(st.sampled_from([1, 1, 2])),
        )
        if file.kind in GOOD:
            what = draw(st.sampled_from(["nothing", "nothing", "later", "meanwhile"]))
            if what == "later":
                file.later = draw(st.sampled_from(LATER))
            elif what == "meanwhile":
                file.meanwhile = draw(st.sampled_from(MEANWHILE)), draw(st.integers(1, 4))
        made.append(file)
    return made


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """At most two mishaps an instance: a third charge would be its end. Where a silence is to be noticed soon, one: a
    peer that only took too long would be another.
    """
    uids = [File(number, "good", 1).instance for number in (1, 2, 3, 9)]
    silent = draw(st.integers(1, 8)) == 1
    mishaps = st.lists(st.sampled_from(("is silent",) if silent else PEER), max_size=1 if silent else 2)
    refused = draw(st.lists(st.sampled_from(uids), max_size=1)) if draw(st.integers(1, 3)) == 1 else []
    return Script({one: draw(mishaps) for one in uids}, set(refused), is_silent=silent)


Sender = tuple[Inline, Callable[[], None]]
"""An installation, and what makes its record new."""


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, Sender]]:
    """One that waits long for an answer, and one (True) that notices soon that none comes."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        made = {}
        for hasty, waits in ((False, {}), (True, {"store_answer": 0.25})):
            site = stack.enter_context(Inline(tmp_path_factory.mktemp("site"), patch, timeouts=waits))
            made[hasty] = site, stack.enter_context(site.moment())
        yield made


@contextmanager
def beside(files: Sequence[File], patch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is done to a file happens before one of the reads for its sending, of its runs or of all of it, once."""
    waiting = {os.fsencode(file.path): file for file in files if file.meanwhile}
    reads: dict[bytes, int] = {}
    read_run, read_whole = os.preadv, os.pread

    def comes(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}".encode())
        reads[path] = reads.get(path, 0) + 1
        file = waiting.get(path)
        if file is not None and file.meanwhile and reads[path] == file.meanwhile[1]:
            del waiting[path]
            file.happens(file.meanwhile[0])

    def run(fd: int, views: list[memoryview], at: int) -> int:
        comes(fd)
        return read_run(fd, views, at)

    def whole(fd: int, size: int, at: int) -> bytes:
        comes(fd)
        return read_whole(fd, size, at)

    patch.setattr(os, "preadv", run)
    patch.setattr(os, "pread", whole)
    yield


@given(
    files=folders(),
    script=scripts(),
    chunk=st.sampled_from([1, 2, 500]),
    batch=st.sampled_from([1, 2, 1000]),
    odd_uids=st.booleans(),
)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
def test_a_store_tells_the_truth(
    sites: dict[bool, Sender], files: list[File], script: Script, chunk: int, batch: int, odd_uids: bool
) -> None:
    """Whatever lies in a folder, changes before or while it is sent, and whatever the peer does: an item succeeded only
    if the peer has a data set of exactly one version of that file under the item's UID and class, every good instance
    is delivered whatever stands beside it, a broken file is called what it is, and each file has one outcome.
    """
    site, bring_back = sites[script.is_silent]
    bring_back()
    script.taken = {}
    site.tune(run_bytes=600)
    site.cut_at(chunk)
    site.batches_of(batch)
    with tempfile.TemporaryDirectory(dir=site.files) as folder, pytest.MonkeyPatch.context() as patch:
        for number, file in enumerate(files):
            file.path = Path(folder, f"{number}.dcm")
            file.versions = []
            file.write(file.kind, file.pixels)
        with Bench(answer=script.answer, early=script.early, max_pdu=256) as bench, beside(files, patch):
            job_id = site.submit(bench.address, StoreSpec(paths=(folder,), send_odd_uids=odd_uids))
            while not site.job(job_id).planned:
                assert site.run_next()
            for file in files:
                if file.later:
                    file.happens(file.later)
            site.drain(job_id)
        _judge(site, job_id, files, script, bench, odd_uids)


def _judge(site: Inline, job_id: int, files: Sequence[File], script: Script, bench: Bench, odd_uids: bool) -> None:
    rows = site.items(job_id)
    by_path = {os.fsdecode(row.path): row for row in rows}
    assert sorted(by_path) == sorted(os.fspath(file.path) for file in files), "one outcome a file"
    assert len(rows) == len(files)
    assert ItemState.PENDING not in {row.state for row in rows}
    delivered = set()
    for file in files:
        row = by_path[os.fspath(file.path)]
        if row.state in (ItemState.SUCCEEDED, ItemState.WARNING):
            _check_delivered(file, row.sop_instance_uid, row.sop_class_uid, script, bench)
            delivered.add(row.sop_instance_uid)
        if file.kind == "stale meta" and row.state is ItemState.SUCCEEDED and len(file.versions) == 1:
            assert row.reason == "meta differs"
        if file.kind in BROKEN and (odd_uids or file.number != 9):
            expected = "truncated" if file.kind == "cut in its header" else BROKEN[file.kind]
            assert (row.state, row.reason) == (ItemState.FAILED, expected), (file.kind, row.reason, row.detail)
    succeeded = [row.sop_instance_uid for row in rows if row.state is ItemState.SUCCEEDED]
    assert len(succeeded) == len(set(succeeded)), "an instance was delivered by two files"
    for file in files:
        lawful = odd_uids or file.number != 9
        if file.kind in GOOD and file.is_untouched and lawful and file.instance not in script.refused:
            assert file.instance in delivered, (file, by_path[os.fspath(file.path)])


def _check_delivered(file: File, instance: str, sop_class: str, script: Script, bench: Bench) -> None:
    """What the peer confirmed last of an instance is one version of this file; a twin that is looked at again may hold
    another instance by then.
    """
    assert instance in (file.instance, ANOTHER)
    number = script.taken[instance][-1]
    named, data = bench.data[number]
    assert bench.stores[number - 1] == instance
    assert named == sop_class == MR
    assert data in [version for version in file.versions if version is not None]
    assert element(0x00080018, "UI", uid(instance)) in data
