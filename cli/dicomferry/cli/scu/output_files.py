"""What is received, as files: `<folder>/<SOP Instance UID>.dcm`, each of them whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
import uuid

from dicomferry.cli.scu.messages import CommandRefused
from dicomferry.cli.scu.progress import Progress
from dicomferry.workers.dimse.acceptor import Incoming, StatusReply
from dicomferry.workers.receiving.archive import SUFFIX, component
from dicomferry.workers.receiving.draft import Draft
from dicomferry.workers.receiving.reception import SUCCESS, Intake

MOST_AS_NAME = 64
"""Characters of a UID that is the name of its file (PS3.5 9.1); of a longer one the name is a hash."""


class OutputFolder:
    """The folder for what is received, and what has come so far; any thread may use it.

    `source_ae_title` is written into each file as its source.
    """

    def __init__(self, folder: str, source_ae_title: str, progress: Progress) -> None:
        self.folder = folder
        self._source_ae_title = source_ae_title
        self._progress = progress
        self._lock = threading.Lock()
        self._fd = -1
        self.files: dict[str, str] = {}
        """SOP Instance UID to file."""
        self.stored = 0
        """C-STORE requests that were answered with success."""
        self.refused = 0
        self._temporary: set[str] = set()
        """Names of files that have no other yet; what has one of them at the end is taken away."""

    def prepare(self) -> None:
        """Make the folder and try whether it can be written; raises Refused."""
        try:
            os.makedirs(self.folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            self._fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileExistsError:
            raise CommandRefused(f"output folder {self.folder}: not a folder") from None
        except OSError as error:
            raise CommandRefused(f"output folder {self.folder}: {(error.strerror or str(error)).lower()}") from None

    def close(self) -> None:
        """Let go of the folder, and leave nothing behind that is not whole."""
        for name in self._temporary:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.folder, name))
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def receive(self, incoming: Incoming) -> ReceivedFile:
        """The place for an instance that is about to come."""
        return ReceivedFile(self, incoming, self._source_ae_title)

    def draft(self) -> Draft:
        """A new, empty file in the folder: nameless where the file system has that, so that none outlives its process.

        Raises OSError.
        """
        with contextlib.suppress(AttributeError, OSError):
            return Draft(os.open(self.folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666), None)
        path = os.path.join(self.folder, self._temporary_name())
        return Draft(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), path)

    def publish(self, draft: Draft, uid: str) -> None:
        """Give a whole file its name, in place of one that has it; it survives a power cut then. Raises OSError."""
        os.fdatasync(draft.fd)
        name = self._name(uid)
        temporary = os.path.basename(draft.path) if draft.path else self._temporary_name()
        if not draft.path:
            os.link(draft.source, temporary, dst_dir_fd=self._fd, follow_symlinks=True)
        os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        self._temporary.discard(temporary)
        with contextlib.suppress(OSError):  # some file systems do not flush folders
            os.fsync(self._fd)
        path = os.path.join(self.folder, name)
        with self._lock:
            self.stored += 1
            self.files[uid] = path
        self._progress.received(path, draft.size)

    def refuse(self, uid: str, answer: StatusReply) -> None:
        """Say that an instance is not kept."""
        with self._lock:
            self.refused += 1
        shown = "".join(char if char.isprintable() else "?" for char in uid)[:MOST_AS_NAME]
        self._progress.failure(
            f"instance {shown}: refused with status {answer.status:04X}: {answer.comment}", instances=1
        )

    def _temporary_name(self) -> str:
        # Known before the file is there: an interruption may come right after it is.
        name = f".{uuid.uuid4().hex}.part"
        self._temporary.add(name)
        return name

    def _name(self, uid: str) -> str:
        if len(uid) <= MOST_AS_NAME:
            return uid + SUFFIX
        name = component(uid, "instance") + SUFFIX
        self._progress.warn(f"SOP Instance UID {uid} has {len(uid)} characters: its file is {name}")
        return name


class ReceivedFile(Intake):
    """One C-STORE that becomes a file of its own."""

    def __init__(self, output: OutputFolder, incoming: Incoming, source_ae_title: str) -> None:
        self._output = output
        super().__init__(incoming, source_ae_title)

    def _new_draft(self) -> Draft:
        return self._output.draft()

    def _publish(self, draft: Draft) -> StatusReply:
        self._output.publish(draft, self._incoming.sop_instance_uid)
        self.discard()
        return StatusReply(SUCCESS)

    def _refused(self, answer: StatusReply) -> None:
        self._output.refuse(self._incoming.sop_instance_uid, answer)

    def _trouble(self, error: OSError) -> str:
        if error.errno == errno.ENAMETOOLONG:
            return "its UID is too long for a file name"
        return f"cannot be written: {error.strerror or error}"
