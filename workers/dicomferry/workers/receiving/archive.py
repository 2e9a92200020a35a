"""The archive on disk: where an instance's file lies, and how it gets there so that a power cut cannot take it away.

    ROOT/STUDY/SERIES/INSTANCE.dcm            instances; a second file of one UID is INSTANCE~2.dcm
    ROOT/.ferry/incoming/                     what is being received, where the file system has no nameless files
    ROOT/.ferry/journal                       folders that may hold files the index does not know yet
    ROOT/.ferry/log-N/                        small instances that are not flushed as files yet, see `reception_log`

All names below the root come from UIDs; folders are opened without following links, so nothing is ever written
outside.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from dicomferry.models.durable import flush_folder, make_folder
from dicomferry.models.rules.errors import ConfigurationError
from dicomferry.workers.receiving.draft import Draft

OWN = ".ferry"
MARK = "mark"
"""In `.ferry`: the file that tells the archive from every other one, see `archive_mark`."""
SUFFIX = ".dcm"

_LONGEST_MARK = 64
_PLAIN = re.compile(r"[0-9A-Za-z][0-9A-Za-z.\-]{0,63}")
_FILE = re.compile(r"(?P<stem>[0-9A-Za-z._\-]+?)(~(?P<number>[0-9]+))?\.dcm")
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """An open folder of the archive; its descriptor is closed with the last reference."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)

    def retract(self, draft: Draft, name: str) -> None:
        """Take a name away that stands for the draft; one that stands for another file stays."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(name, dir_fd=self.fd, follow_symlinks=False), os.fstat(draft.fd)):
                os.unlink(name, dir_fd=self.fd)


class Archive:
    """An archive below `root`, for any thread. `flush` off gives up law 3; `most_folders` are held open."""

    def __init__(self, root: Path, *, reserve_bytes: int = 0, flush: bool = True, most_folders: int = 64) -> None:
        self.root = root
        self.reserve_bytes = reserve_bytes
        self.flush = flush
        self._most_folders = most_folders
        self._root = str(root)
        self._incoming = root / OWN / "incoming"
        self._lock = threading.Lock()
        self._folders: OrderedDict[str, Folder] = OrderedDict()
        self._nameless = hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd")
        self._mark_path = str(root / OWN / MARK)
        self._mark: str | None = None
        self._mark_seen: os.stat_result | None = None

    def remember(self) -> None:
        """What lies at `root` now, and is marked, is this archive: see `is_in_sight`. Raises OSError."""
        self._mark = read_mark(self._mark_path)
        self._mark_seen = os.stat(self._mark_path)

    def is_in_sight(self) -> bool:
        """Whether the archive that was remembered, if any was, lies at `root`: no other one, and no empty folder, as
        where its disk is not mounted any more. Raises OSError.
        """
        if self._mark_seen is None:
            return True
        try:
            found = os.stat(self._mark_path)
            if os.path.samestat(found, self._mark_seen):
                return True
            if read_mark(self._mark_path) != self._mark:
                return False
        except (FileNotFoundError, NotADirectoryError):
            return False
        # The same disk, mounted anew.
        self._mark_seen = found
        return True

    def prepare(self) -> None:
        """Make what is missing; the folders are their owner's alone. Raises ConfigurationError."""
        try:
            for folder in (self.root, self.root / OWN, self._incoming):
                make_folder(folder)
            # Also where they were there: whoever made them may have died before that was on disk.
            for folder in (self._incoming, self._incoming.parent, self.root, self.root.parent):
                if self.flush:
                    flush_folder(folder)
        except OSError as error:
            raise ConfigurationError(f"scp.archive {self.root}: {error.strerror or error}") from None

    def claim(self) -> int:
        """Be the one that receives into this archive; the descriptor that holds the lock. Raises ConfigurationError."""
        fd = os.open(self.root / OWN / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise ConfigurationError(f"another storage SCP receives into {self.root}: stop it first") from None
        return fd

    def remove_drafts(self) -> int:
        """Remove what dead processes left half received; how many. What a living one receives, a C-GET, stays."""
        removed = 0
        for path in self.drafts():
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    try:
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                    except OSError:
                        pass  # no locks there: nobody is told apart
                    path.unlink()
                    removed += 1
                finally:
                    os.close(fd)
        return removed

    def drafts(self) -> list[Path]:
        """Temporary files: what is being received right now, or was left by a process that died."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(self._incoming.iterdir())
        return []

    def has_room(self) -> bool:
        """Whether the disk has more than its reserve left."""
        found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize > self.reserve_bytes

    def draft(self) -> Draft:
        """A new, empty file on the archive's file system. Raises OSError."""
        if self._nameless:
            try:
                flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
                return Draft(os.open(self._incoming, flags, 0o600), None)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                    raise
                self._nameless = False
        return self._named_draft()

    def _named_draft(self) -> Draft:
        while True:
            path = str(self._incoming / uuid.uuid4().hex)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # Locked as long as it is open, which tells it from what a dead process left, where there are locks.
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.exists(path):
                return Draft(fd, path)
            # Taken for a dead one's before it was locked.
            os.close(fd)

    def spare_draft(self) -> Draft | None:
        """A draft for later; None where it would have a name, which a death would leave behind, or none can be made."""
        if not self._nameless:
            return None
        try:
            return self.draft()
        except OSError:
            return None

    def publish(self, draft: Draft, folder: str, name: str) -> bool:
        """Give a draft its place; False when the name is taken. Raises OSError.

        The draft's bytes are on disk before the name is there, but the name is only after `flush_folder`.
        """
        for attempt in range(3):
            place = self._open(folder)
            try:
                os.link(draft.source, name, dst_dir_fd=place.fd, follow_symlinks=True)
                return True
            except FileExistsError:
                return False
            except FileNotFoundError:
                # The folder was removed after we opened it.
                self.let_go(folder)
                if attempt == 2:
                    raise
        return False

    def replace(self, content: bytes, folder: str, name: str) -> None:
        """Put a new file with this content in the place of one that is there, durably. Raises OSError."""
        draft = self._named_draft()
        try:
            draft.write([content])
            self.flush_draft(draft)
            place = self._open(folder)
            os.rename(draft.source, name, dst_dir_fd=place.fd)
            self._flush(place.fd)
        finally:
            draft.close()

    def flush_file(self, folder: str, name: str) -> None:
        """A file that is there, and its name, are on disk when this returns. Raises OSError."""
        fd = self.open_file(folder, name)
        try:
            if self.flush:
                os.fdatasync(fd)
        finally:
            os.close(fd)
        self.flush_folder(folder)

    def flush_draft(self, draft: Draft) -> None:
        """The draft's bytes are on disk when this returns. Raises OSError."""
        if self.flush:
            os.fdatasync(draft.fd)

    def flush_folder(self, folder: str) -> None:
        """Every name in the folder is on disk when this returns. Raises OSError."""
        # Held on to until it is flushed: another thread may put a folder object of its own in this one's place.
        place = self._open(folder)
        self._flush(place.fd)

    def is_at(self, folder: str, name: str, draft: Draft | None) -> bool:
        """Whether a file, that of `draft` if one is given, lies where its path says. Raises OSError.

        Folders are held open, and somebody may have renamed one since, or mounted something over it, or over the whole
        archive.
        """
        try:
            found = os.lstat(f"{self._root}/{folder}/{name}")
        except (FileNotFoundError, NotADirectoryError):
            return False
        same = stat.S_ISREG(found.st_mode) and (draft is None or os.path.samestat(found, os.fstat(draft.fd)))
        return same and self.is_in_sight()

    def retract(self, draft: Draft, folder: str, name: str) -> None:
        """Take a name away that stands for the draft. Raises OSError where the folder cannot be opened."""
        self._open(folder).retract(draft, name)

    def let_go(self, folder: str) -> Folder | None:
        """Open the folder anew at its next use; the one that was held."""
        with self._lock:
            return self._folders.pop(folder, None)

    def has_file(self, folder: str, name: str) -> bool:
        """Whether something of that name is there, whatever it is. Raises OSError."""
        return os.access(name, os.F_OK, dir_fd=self._open(folder).fd, follow_symlinks=False)

    def size_of(self, path: str) -> int | None:
        """The size of an instance file; None where there is no regular file. Raises OSError."""
        folder, _, name = path.rpartition("/")
        try:
            found = os.stat(name, dir_fd=self._open(folder).fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def open_file(self, folder: str, name: str) -> int:
        """A descriptor for reading a file of the archive; never follows a link, never blocks. Raises OSError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        place = self._open(folder)
        return os.open(name, flags, dir_fd=place.fd)

    def _flush(self, fd: int) -> None:
        if self.flush:
            os.fsync(fd)

    def _open(self, folder: str) -> Folder:
        """The folder `STUDY/SERIES`, made if need be. That it exists is on disk when this returns."""
        with self._lock:
            found = self._folders.get(folder)
            if found is not None:
                self._folders.move_to_end(folder)
                return found
        if not self.is_in_sight():
            raise OSError(errno.ESTALE, "another archive, or none, lies at its place", str(self.root))
        above = Folder(os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for part in folder.split("/"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=above.fd)
            below = Folder(os.open(part, _FOLDER_FLAGS, dir_fd=above.fd))
            # Also where it was there: whoever made it may have died before it flushed.
            self._flush(above.fd)
            above = below
        with self._lock:
            above = self._folders.setdefault(folder, above)
            if len(self._folders) > self._most_folders:
                self._folders.popitem(last=False)
        return above

    def remove(self, path: str) -> int:
        """Remove a file, and the folders that are empty then; its size, 0 where there is none. Raises OSError."""
        parts = path.split("/")
        if not path.endswith(SUFFIX) or any(part in ("", ".", "..", OWN) for part in parts):
            raise OSError(errno.EINVAL, "no path of the archive", path)
        try:
            size = (self.root / path).stat(follow_symlinks=False).st_size
            (self.root / path).unlink()
        except FileNotFoundError:
            size = 0
        for depth in range(len(parts) - 1, 0, -1):
            with contextlib.suppress(OSError):
                self.root.joinpath(*parts[:depth]).rmdir()
        return size

    def folders(self) -> list[str]:
        """All folders that hold instance files, by their paths below the root."""
        return sorted({os.path.dirname(path) or "." for path in self.files()})

    def files(self, folder: str | None = None) -> Iterator[str]:
        """Paths below the root of all instance files, or of those in one folder; links are not followed.

        A folder that cannot be read raises OSError where one was asked for; else it is left out.
        """

        def trouble(error: OSError) -> None:
            if folder and not isinstance(error, FileNotFoundError):
                raise error

        start = self.root / folder if folder else self.root
        for path, folders, names in os.walk(start, onerror=trouble):
            if path == str(self.root):
                folders[:] = [name for name in folders if name != OWN]
            folders.sort()
            for name in sorted(names, key=_in_order):
                full = os.path.join(path, name)
                if name.endswith(SUFFIX) and not os.path.islink(full):
                    yield os.path.relpath(full, self.root)


def _in_order(name: str) -> tuple[str, int]:
    """The files of one instance in the order in which they came: of several contents the newest is current."""
    found = _FILE.fullmatch(name)
    return (found["stem"], int(found["number"] or 1)) if found else (name, 1)


def read_mark(path: str | Path, *, dir_fd: int | None = None) -> str | None:
    """The word in the file that marks an archive; None where there is none. Raises OSError, FileNotFoundError too."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        return os.read(fd, _LONGEST_MARK).decode("ascii", "replace").strip() or None
    finally:
        os.close(fd)


@lru_cache(maxsize=1024)
def component(uid: str | None, level: str) -> str:
    """A UID as the name of a file or folder: itself where it is a harmless one, else a hash that no UID looks like."""
    if not uid:
        return f"_no_{level}"
    if _PLAIN.fullmatch(uid):
        return uid
    return "_" + hashlib.sha256(uid.encode()).hexdigest()[:40]


def place(study: str | None, series: str | None, instance: str) -> tuple[str, str]:
    """(folder, stem of the file's name) of an instance: STUDY/SERIES and INSTANCE."""
    return f"{component(study, 'study')}/{component(series, 'series')}", component(instance, "instance")


def file_name(stem: str, number: int) -> str:
    """The name of the `number`-th file of an instance."""
    return f"{stem}{SUFFIX}" if number == 1 else f"{stem}~{number}{SUFFIX}"


def file_number(name: str) -> int:
    """Which file of its instance a name stands for."""
    found = _FILE.fullmatch(name)
    return int(found["number"] or 1) if found else 1
