"""What makes one instance durable before it is answered for: a record in the reception log, or flushes of its own."""

from __future__ import annotations

import contextlib

from dicomferry.workers.receiving.archive import Archive
from dicomferry.workers.receiving.draft import Draft
from dicomferry.workers.receiving.reception_log.reception_log import Commit, NoLog, ReceptionLog


class Promise:
    """That a draft survives a power cut at its place. `content` is all of it, where it may go by the `log`.

    With a log the record is on disk before the name is there, and file and folder are flushed later, with many others:
    what a power cut leaves half written has its record. Without, the file is flushed before it has its name, and the
    folder then.
    """

    def __init__(self, archive: Archive, draft: Draft, log: ReceptionLog | None, content: bytes | None) -> None:
        self._archive = archive
        self._draft = draft
        self._log = log if content is not None else None
        self._content = content or b""
        self._commit: Commit | None = None
        self._place = ""
        self._linked: tuple[str, str] | None = None
        self._is_flushed = False

    def before_link(self, folder: str, name: str) -> None:
        """The draft is about to get this name. Raises OSError."""
        place = f"{folder}/{name}"
        if self._log is not None and self._place != place:
            self._withdraw()
            try:
                self._commit = self._log.commit(place, self._content)
                self._place = place
            except NoLog:
                self._log = None
        if self._log is None and not self._is_flushed:
            self._archive.flush_draft(self._draft)
            self._is_flushed = True

    def linked(self, folder: str, name: str) -> None:
        """The draft has its name: what is answered for is durable when this returns. Raises OSError."""
        self._linked = folder, name
        if self._commit is None:
            self._archive.flush_folder(folder)
        elif self._log is not None and self._log.is_disturbed(self._commit):
            # The record may have been erased with those of a file that was removed here.
            self._archive.flush_draft(self._draft)
            self._archive.flush_folder(folder)

    def stands_for_another(self, folder: str, name: str) -> None:
        """The draft is a duplicate of this file, which is durable when this returns. Raises OSError.

        Whoever received that one, here or in another process, may have it in a log and not have flushed it.
        """
        self._withdraw()
        self._archive.flush_file(folder, name)

    def is_lost(self) -> None:
        """The name that was given turned out to be somewhere else, and is taken away by who gave it."""
        self._linked = None

    def keep(self) -> None:
        """The file is where it is answered for."""
        if self._log is not None and self._commit is not None:
            self._log.settle(self._commit)
            self._commit = None

    def drop(self) -> None:
        """It is not answered for: nothing of it is left that a power cut could make a torn file of."""
        if self._commit is not None:
            with contextlib.suppress(OSError):
                if self._linked is not None:
                    self._archive.retract(self._draft, *self._linked)
            with contextlib.suppress(OSError):
                self._withdraw()

    def _withdraw(self) -> None:
        if self._commit is not None and self._log is not None:
            commit, self._commit, self._place = self._commit, None, ""
            self._log.withdraw(commit)
