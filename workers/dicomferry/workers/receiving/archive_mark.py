"""The mark that tells an archive from every other one, from an empty folder and from a disk that is not there.

It is a file with a random word in the archive's own folder; the record knows the word. Whoever writes into the archive,
or goes by what is not in it, asks for the mark first.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path

from dicomferry.models.record.archive import identity
from dicomferry.models.record.archive.identity import DAMAGED, FINE, GONE, KnownFile
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import ConfigurationError
from dicomferry.workers.receiving.archive import MARK, OWN, Archive, read_mark

ENOUGH = 0.5
"""An archive without a mark is taken for the record's own if so many of the files that it names are there."""


_ADVICE = (
    "Is the disk mounted, and is scp.archive right? After files were restored, moved or lost: "
    "`dicomferry archive adopt`"
)


@dataclass(frozen=True)
class Sample:
    """How many of some files that the record names are in the folder."""

    looked_for: int
    there: int

    @property
    def is_enough(self) -> bool:
        """Whether the folder may be taken for the archive that the record is about."""
        return self.there >= ENOUGH * self.looked_for


class View:
    """The archive's folder, held open so that all that is looked at lies on one and the same disk. Raises OSError."""

    def __init__(self, root: Path) -> None:
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    def mark(self) -> str | None:
        """What stands in its mark; None where there is none. Raises OSError."""
        try:
            return read_mark(f"{OWN}/{MARK}", dir_fd=self._fd)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def look(self, one: KnownFile) -> str:
        """Whether a file is there, regular and of its recorded size. Raises OSError where that cannot be said."""
        try:
            found = os.stat(one.path, dir_fd=self._fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return GONE
        return FINE if stat.S_ISREG(found.st_mode) and found.st_size == one.size else DAMAGED

    def sample(self, files: list[KnownFile]) -> Sample:
        """How many of these are there. Raises OSError."""
        return Sample(len(files), sum(self.look(one) != GONE for one in files))


def prepare(archive: Archive, database: Database) -> None:
    """Make the archive ready to be written into, once it is known to be the right one.

    Raises ConfigurationError where it is another one or an empty one, OutOfReach.
    """
    if identity.mark(database) is None:
        archive.prepare()
    require(archive.root, database)
    archive.prepare()
    try:
        archive.remember()
    except OSError as error:
        raise ConfigurationError(f"scp.archive {archive.root}: {error.strerror or error}. {_ADVICE}") from None


def require(root: Path, database: Database) -> None:
    """The folder is the archive that the record knows; marked and known from now on where neither had a mark yet.

    Raises ConfigurationError where it is another one or an empty one, OutOfReach.
    """
    try:
        view = View(root)
        try:
            found, known = view.mark(), identity.mark(database)
            if known is None:
                sample = view.sample(identity.sample(database))
                if not sample.is_enough:
                    raise ConfigurationError(_not_adopted(root, sample))
        finally:
            view.close()
        if known is None:
            found = found or write(root)
            known = identity.know(database, found)
    except OSError as error:
        raise ConfigurationError(f"scp.archive {root}: {error.strerror or error}. {_ADVICE}") from None
    if found != known:
        raise ConfigurationError(_another(root, found))


def check(root: Path, database: Database) -> None:
    """The folder is the archive that the record knows, or may be taken for it. Nothing is written.

    For who looks at files or removes them: what cannot be seen is not gone. Raises ConfigurationError, OutOfReach.
    """
    known = identity.mark(database)
    files = identity.sample(database) if known is None else []
    if known is None and not files:
        return
    try:
        view = View(root)
        try:
            found, sample = view.mark(), view.sample(files)
        finally:
            view.close()
    except OSError as error:
        raise ConfigurationError(f"scp.archive {root}: {error.strerror or error}. {_ADVICE}") from None
    if known is None and not sample.is_enough:
        raise ConfigurationError(_not_adopted(root, sample))
    if known is not None and found != known:
        raise ConfigurationError(_another(root, found))


def adopt(root: Path, database: Database) -> str:
    """Make the folder the archive that the record knows, whatever it knew before; its mark.

    Raises ConfigurationError, OutOfReach.
    """
    try:
        view = View(root)
        try:
            found = view.mark()
        finally:
            view.close()
        return identity.know(database, found or write(root), instead=True)
    except OSError as error:
        raise ConfigurationError(f"scp.archive {root}: {error.strerror or error}") from None


def sampled(root: Path, database: Database) -> Sample:
    """How many of some files that the record names are in the folder. Raises OSError, OutOfReach."""
    view = View(root)
    try:
        return view.sample(identity.sample(database))
    finally:
        view.close()


def write(root: Path) -> str:
    """Give the folder a mark, on disk when this returns, unless somebody was quicker; the mark. Raises OSError."""
    folder = root / OWN
    folder.mkdir(mode=0o700, exist_ok=True)
    draft = folder / f"{MARK}.{uuid.uuid4().hex}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, f"{uuid.uuid4().hex}\n".encode("ascii"))
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, folder / MARK)
    finally:
        draft.unlink()
    for one in (folder, root):
        place = os.open(one, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(place)
        finally:
            os.close(place)
    view = View(root)
    try:
        found = view.mark()
    finally:
        view.close()
    if found is None:
        raise OSError(f"no mark could be written into {folder}")
    return found


def _another(root: Path, found: str | None) -> str:
    what = "has no mark of an archive" if found is None else "has the mark of another archive"
    return f"scp.archive {root} is not the archive that this record knows: it {what}. " + _ADVICE


def _not_adopted(root: Path, sample: Sample) -> str:
    return (
        f"scp.archive {root} does not look like the archive that this record knows: of {sample.looked_for} files that "
        f"it names {sample.there} are there. " + _ADVICE
    )
