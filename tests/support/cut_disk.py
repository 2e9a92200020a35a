"""What a disk may hold after a power cut, from what was written and what was flushed before it.

Two models. `PESSIMISTIC` knows only what POSIX promises: of what no flush covers anything may be there or not, files in
blocks of 512 bytes, names one by one; the flush of a file says nothing of its name, that of a folder makes the names in
it last, and only those. `EXT4` is ext4 with data=ordered and delayed allocation: names and sizes come in the order in
which they were made, a flush brings all names that are older than what it covers, and a file that grew has a beginning
of its new bytes, in pages.

A flush that failed covers nothing, and what it was to cover is not covered by a later one either: the kernel takes such
pages for clean. They may have reached the disk or not.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from support.recorded_disk import Step

PESSIMISTIC, EXT4 = "pessimistic", "ext4"
MODELS = (PESSIMISTIC, EXT4)

_BLOCK, _PAGE = 512, 4096

WAITING, DURABLE, STUCK = range(3)


@dataclass
class _Change:
    """A change of a file's bytes: `data` at `offset`, or the size `offset` where there is no data; a larger size only
    where it `grows` the file.
    """

    at: int
    offset: int
    data: bytes | None = None
    grows: bool = False
    state: int = WAITING
    larger: bool = False
    """Whether the file was larger afterwards, which ext4 has to write down."""


@dataclass(eq=False)
class _File:
    base: bytearray = field(default_factory=bytearray)
    size: int = 0
    changes: list[_Change] = field(default_factory=list)

    def change(self, change: _Change) -> None:
        """It is done, and not flushed."""
        if change.data is not None:
            size = max(self.size, change.offset + len(change.data))
        else:
            size = max(self.size, change.offset) if change.grows else change.offset
        change.larger, self.size = size > self.size, size
        self.changes.append(change)

    def settle(self) -> None:
        """Forget the changes that all lasted, from the first one on."""
        while self.changes and self.changes[0].state == DURABLE:
            _apply(self.base, self.changes.pop(0))


@dataclass
class _Name:
    """A name that was made, or taken away where it stands for nothing; `before` has to be on disk if it is."""

    at: int
    name: str
    node: _File | _Folder | None
    takes: str | None = None
    """A name of the same folder that goes in the same step: a rename."""
    before: _Name | None = None
    state: int = WAITING


@dataclass(eq=False)
class _Folder:
    base: dict[str, _File | _Folder] = field(default_factory=dict)
    names: list[_Name] = field(default_factory=list)

    def settle(self) -> None:
        """As of a file."""
        while self.names and self.names[0].state == DURABLE:
            _enter(self.base, self.names.pop(0))


class CutDisk:
    """The disk below `root`: what is there now is on it; `step` for each that is recorded from here on."""

    def __init__(self, root: Path) -> None:
        self._nodes: dict[int, _File | _Folder] = {}
        self._root = self._read(root)
        self._begun: dict[int, int] = {}
        self._now = 0
        self._forced = 0

    def _read(self, folder: Path) -> _Folder:
        found = _Folder()
        self._nodes[folder.stat().st_ino] = found
        for path in folder.iterdir():
            inode = path.lstat().st_ino
            if path.is_dir():
                found.base[path.name] = self._read(path)
            elif path.is_file():
                node = self._nodes.get(inode)
                if not isinstance(node, _File):
                    data = path.read_bytes()
                    node = self._nodes[inode] = _File(bytearray(data), len(data))
                found.base[path.name] = node
        return found

    def step(self, step: Step) -> None:
        """This happened next."""
        self._now += 1
        if step.kind == "b":
            self._begun[step.offset] = self._now
        elif step.kind in "ef":
            begun, state = self._begun.pop(step.offset), DURABLE if step.kind == "e" else STUCK
            if step.inode:
                self._flushed(self._nodes.get(step.inode), begun, state)
            else:
                for node in self._everything():
                    self._flushed(node, begun, state)
        elif step.kind in "WTAZ":
            self._changed(step)
        elif step.kind in "CLMUR":
            self._named(step)

    def _changed(self, step: Step) -> None:
        file = self._nodes.get(step.inode)
        if isinstance(file, _File):
            data: bytes | None = step.data if step.kind == "W" else None
            if step.kind == "Z":
                length = min(int.from_bytes(step.data, "little"), max(0, file.size - step.offset))
                data = bytes(length)
            file.change(_Change(self._now, step.offset, data, grows=step.kind == "A"))

    def _named(self, step: Step) -> None:
        folder = self._nodes.get(step.folder)
        if step.kind in "CM":
            # The number may have been another file's before, which is gone.
            self._nodes.pop(step.inode, None)
            if isinstance(folder, _Folder) or (step.kind == "C" and not step.folder):
                self._nodes[step.inode] = _File() if step.kind == "C" else _Folder()
        node = self._nodes.get(step.inode)
        if not isinstance(folder, _Folder):
            return
        if step.kind == "U":
            folder.names.append(_Name(self._now, step.name, None))
        elif step.kind != "R":
            if node is not None:
                folder.names.append(_Name(self._now, step.name, node))
        elif step.folder == step.other_folder:
            folder.names.append(_Name(self._now, step.other_name, node, takes=step.name))
        else:
            other = self._nodes.get(step.other_folder)
            made = _Name(self._now, step.other_name, node)
            if isinstance(other, _Folder):
                other.names.append(made)
            folder.names.append(_Name(self._now, step.name, None, before=made))

    def _everything(self) -> list[_File | _Folder]:
        """What is or was anywhere: also what has lost its last name, which a cut may bring back."""
        found: dict[int, _File | _Folder] = {}
        ahead: list[_File | _Folder] = [self._root, *self._nodes.values()]
        while ahead:
            node = ahead.pop()
            if id(node) not in found:
                found[id(node)] = node
                if isinstance(node, _Folder):
                    ahead += node.base.values()
                    ahead += [name.node for name in node.names if name.node is not None]
        return list(found.values())

    def _flushed(self, node: _File | _Folder | None, begun: int, state: int) -> None:
        if isinstance(node, _File):
            for change in node.changes:
                if change.at < begun and change.state == WAITING:
                    change.state = state
                    if state == DURABLE and (change.larger or change.data is None):
                        self._forced = max(self._forced, change.at)
            node.settle()
        elif isinstance(node, _Folder) and state == DURABLE:
            for name in node.names:
                if name.at < begun:
                    name.state = DURABLE
                    if name.before is not None:
                        name.before.state = DURABLE
                    self._forced = max(self._forced, name.at)
            node.settle()

    def cut(self, model: str, rng: random.Random, target: Path) -> None:
        """Make what the disk may hold if the power goes now, as the new folder `target`."""
        odds = rng.choice((0.0, 0.0, 0.5, 1.0, rng.random()))
        luck = _Luck(rng, odds)
        if model == EXT4:
            until = self._forced if odds == 0.0 else rng.randint(self._forced, self._now)
            _write(self._root, target, lambda name: name.at <= until, lambda file: _grown(file, until, luck), {})
        else:
            _write(self._root, target, luck, lambda file: _torn(file, luck), {})


class _Luck:
    """What of several things is there: one decision for each, the same whenever it is asked."""

    def __init__(self, rng: random.Random, odds: float) -> None:
        self.rng = rng
        self._odds = odds
        self._decided: dict[int, bool] = {}

    def throw(self) -> bool:
        return self.rng.random() < self._odds

    def __call__(self, name: _Name) -> bool:
        if name.state == DURABLE:
            return True
        if name.before is not None and not self(name.before):
            return False
        return self._decided.setdefault(id(name), self.throw())


def _enter(entries: dict[str, _File | _Folder], name: _Name) -> None:
    if name.takes is not None:
        entries.pop(name.takes, None)
    if name.node is None:
        entries.pop(name.name, None)
    else:
        entries[name.name] = name.node


def _apply(data: bytearray, change: _Change) -> None:
    if change.data is None:
        if change.offset <= len(data) and not change.grows:
            del data[change.offset :]
        elif change.offset > len(data):
            data.extend(bytes(change.offset - len(data)))
    elif change.data:
        if change.offset > len(data):
            data.extend(bytes(change.offset - len(data)))
        data[change.offset : change.offset + len(change.data)] = change.data


def _pieces(change: _Change, unit: int) -> Iterable[_Change]:
    """The change in parts that a disk writes whole."""
    assert change.data is not None
    start, end = change.offset, change.offset + len(change.data)
    while start < end:
        stop = min(end, (start // unit + 1) * unit)
        yield _Change(change.at, start, change.data[start - change.offset : stop - change.offset])
        start = stop


def _torn(file: _File, luck: _Luck) -> bytes:
    data = bytearray(file.base)
    for change in file.changes:
        if change.state == DURABLE:
            _apply(data, change)
        elif change.data is None:
            if luck.throw():
                _apply(data, change)
        else:
            for piece in _pieces(change, _BLOCK):
                if luck.throw():
                    _apply(data, piece)
    return bytes(data)


def _grown(file: _File, until: int, luck: _Luck) -> bytes:
    """Sizes that a call set are names' like, in their order; new bytes are there from the start on, up to some page."""
    data = bytearray(file.base)
    end: int | None = None
    for change in file.changes:
        if change.state == DURABLE:
            _apply(data, change)
        elif change.data is None:
            if change.at <= until:
                _apply(data, change)
        else:
            for piece in _pieces(change, _PAGE):
                assert piece.data is not None
                if piece.offset + len(piece.data) <= len(data):
                    for block in _pieces(piece, _BLOCK):
                        if luck.throw():
                            _apply(data, block)
                elif end is None or piece.offset < end:
                    if luck.throw():
                        _apply(data, piece)
                    else:
                        end = piece.offset
    return bytes(data)


def _write(
    folder: _Folder,
    target: Path,
    kept: Callable[[_Name], bool],
    content: Callable[[_File], bytes],
    written: dict[int, Path],
) -> None:
    os.mkdir(target, 0o700)
    entries = dict(folder.base)
    for name in folder.names:
        if name.state == DURABLE or kept(name):
            _enter(entries, name)
    for word, node in entries.items():
        path = target / word
        if isinstance(node, _Folder):
            _write(node, path, kept, content, written)
        elif id(node) in written:
            os.link(written[id(node)], path)
        else:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(content(node))
            written[id(node)] = path
