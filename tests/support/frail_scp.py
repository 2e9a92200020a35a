"""A storage SCP that dies at a given step, and takes with it what a power cut would: run as a module by crash tests.

FRAIL_STEP names a call (writev, fdatasync, link, fsync, mkdir, record) and when: "link after 17". What has not been
flushed when it dies is undone first: bytes of unflushed files, names and folders in unflushed folders. Calls are
counted from the moment when the archive is prepared: the mark of a new archive has tests of its own.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from dicomferry.daemon import storage_scp
from dicomferry.models.record.archive import index
from dicomferry.models.record.database import Database
from dicomferry.workers.receiving import archive_mark
from dicomferry.workers.receiving.archive import Archive

STEP, WHEN, NUMBER = os.environ.get("FRAIL_STEP", "none after 0").split()

_lock = threading.RLock()
_prepared = False
_count = 0
_names: dict[str, str] = {}
"""Path of a name or folder that no flush of its folder has followed yet -> that folder."""
_bytes: dict[str, str] = {}
"""Path of a published file whose bytes were not flushed -> the same."""
_dirty: set[int] = set()


def _path(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def _cut() -> None:
    """The power goes: what was not flushed is gone, and so are we."""
    for path in sorted(_names, key=len, reverse=True):
        try:
            if os.path.isdir(path):
                os.rmdir(path)
            else:
                os.unlink(path)
        except OSError:
            pass
    for path in _bytes:
        if os.path.exists(path):
            os.truncate(path, 0)
    os.kill(os.getpid(), signal.SIGKILL)


def _step(name: str, when: str) -> None:
    global _count
    if name == STEP and when == WHEN:
        with _lock:
            _count += 1
            if _count == int(NUMBER):
                _cut()


def _wrap(name: str, real: Any, note: Any) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        if not _prepared or (name == "mkdir" and options.get("dir_fd") is None):
            return real(*arguments, **options)  # not of a study
        _step(name, "before")
        with _lock if name != "writev" else threading.Lock():
            result = real(*arguments, **options)
            note(*arguments, **options)
        _step(name, "after")
        return result

    return call


def _linked(source: str, target: str, *, dst_dir_fd: int, **_: Any) -> None:
    folder = _path(dst_dir_fd)
    _names[f"{folder}/{target}"] = folder
    if int(source.rpartition("/")[2]) in _dirty:
        _bytes[f"{folder}/{target}"] = source


def _made(name: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    if dir_fd is not None:
        _names[f"{_path(dir_fd)}/{name}"] = _path(dir_fd)


def _flushed_folder(fd: int) -> None:
    folder = _path(fd)
    for path in [path for path, of in _names.items() if of == folder]:
        del _names[path]


def main() -> None:
    prepare = archive_mark.prepare

    def prepared(archive: Archive, database: Database) -> None:
        global _prepared
        prepare(archive, database)
        _prepared = True

    archive_mark.prepare = prepared
    os.writev = _wrap("writev", os.writev, lambda fd, *_: _dirty.add(fd))
    os.fdatasync = _wrap("fdatasync", os.fdatasync, _dirty.discard)
    os.link = _wrap("link", os.link, _linked)
    os.mkdir = _wrap("mkdir", os.mkdir, _made)
    os.fsync = _wrap("fsync", os.fsync, _flushed_folder)
    # The indexer holds the function as a default argument, so its inner half is wrapped.
    index._record = _wrap("record", index._record, lambda *_: None)
    storage_scp.main()


if __name__ == "__main__":
    main()
