"""One instance on its way in: from the first bytes of its data set to a file that is whole, and a status.

Where the file goes is for who inherits from this: `ingest` puts it into the archive.
"""

from __future__ import annotations

import errno
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.models.rules.peer_text import MOST_UID
from dicomferry.models.rules.reason import Reason
from dicomferry.workers.dimse.acceptor import Incoming, StatusReply
from dicomferry.workers.dimse.wire.associate_items import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomferry.workers.files import file_meta
from dicomferry.workers.files.data_set import NeedMore, Uids, head_of
from dicomferry.workers.files.soundness import end_told
from dicomferry.workers.receiving.draft import Draft

SUCCESS = 0x0000
INVALID_UID = 0x0117
NO_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900

FIRST_LOOK = 64 * 1024
"""Bytes of a data set in which its UIDs are looked for at once; what is longer in coming is waited for."""
LAST_LOOK = 1024 * 1024

_UNREAD = UnusableFile(Reason.NO_UID, "none within reach")
_UID = re.compile(r"(?!\.*$)[0-9A-Za-z.\-]{1,128}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Intake(ABC):
    """A `Sink` for one C-STORE; for one thread. `source_ae_title` is what the file names as its source (0002,0016)."""

    def __init__(self, incoming: Incoming, source_ae_title: str) -> None:
        self._incoming = incoming
        self._source_ae_title = source_ae_title
        self._draft: Draft | None = None
        self._data_offset = 0
        self._held = bytearray()
        self._next_look = 0
        self._refusal: StatusReply | None = None
        self._uids: Uids | UnusableFile = _UNREAD
        """Those of the data set, or what keeps them from being read."""
        self._end_told = 0
        """Where its first bytes say that it ends; 0 where they do not tell."""
        if not _UID.fullmatch(incoming.sop_instance_uid):
            self._refuse(INVALID_UID, f"SOP Instance UID {_what_is_wrong(incoming.sop_instance_uid)}")
        elif not _UID.fullmatch(incoming.sop_class_uid):
            self._refuse(INVALID_UID, f"SOP Class UID {_what_is_wrong(incoming.sop_class_uid)}")
        elif len(incoming.context.transfer_syntax) > MOST_UID:
            self._refuse(INVALID_UID, f"Transfer Syntax UID {_what_is_wrong(incoming.context.transfer_syntax)}")

    @abstractmethod
    def _new_draft(self) -> Draft:
        """A new, empty file. Raises OSError."""

    @abstractmethod
    def _publish(self, draft: Draft) -> StatusReply:
        """Everything is written: give the file its name, unless it is refused all the same. Raises OSError."""

    @abstractmethod
    def _refused(self, answer: StatusReply) -> None:
        """The instance is not kept, and this is what its sender is told."""

    @abstractmethod
    def _trouble(self, error: OSError) -> str:
        """A comment for the sender on what keeps us from writing."""

    def take(self, spans: list[memoryview]) -> None:
        """More of the data set."""
        if self._refusal is not None:
            return
        try:
            if self._draft is not None:
                self._write(self._draft, spans)
            elif not self._held and self._identify(_first(spans), whole=False):
                self._begin(spans)
            elif self._draft is None and self._refusal is None:
                self._hold(spans)
        except OSError as error:
            self._refuse_for(error)

    def finish(self) -> StatusReply:
        """The data set is complete: publish, and answer."""
        if self._refusal is None:
            try:
                if self._draft is None:
                    self._identify(bytes(self._held), whole=True)
                    if self._refusal is None:
                        self._begin([memoryview(bytes(self._held))])
                if self._draft is not None and self._refusal is None:
                    answer = self._publish(self._draft)
                    if self._refusal is None:
                        return answer
            except OSError as error:
                self._refuse_for(error)
        self.discard()
        assert self._refusal is not None
        self._refused(self._refusal)
        return self._refusal

    def discard(self) -> None:
        """Leave nothing behind of what is not published."""
        self._held.clear()
        if self._draft is not None:
            self._draft.close()
            self._draft = None

    def _refuse(self, status: int, comment: str) -> None:
        self._refusal = StatusReply(status, comment)
        self.discard()

    def _refuse_for(self, error: OSError) -> None:
        if error.errno in _FULL:
            self._refuse(NO_RESOURCES, "disk is full")
        else:
            self._refuse(NO_RESOURCES, self._trouble(error))

    def _hold(self, spans: list[memoryview]) -> None:
        """Keep bytes until the UIDs are among them, or until that is not to be expected any more."""
        for span in spans:
            self._held += span
        size = len(self._held)
        # Looked at each time that there are twice as many: the smallest fragments cost no more than that.
        if size < self._next_look:
            return
        self._next_look = min(2 * size, max(LAST_LOOK, size + 1))
        held = bytes(self._held)
        if self._identify(held, whole=size >= LAST_LOOK) and self._refusal is None:
            self._held.clear()
            self._begin([memoryview(held)])

    def _identify(self, first: bytes, *, whole: bool) -> bool:
        """Read the UIDs from the data set's first bytes; False when more of them are needed.

        What cannot be read is stored under the command's UID and flagged; it is not ours to judge.
        """
        try:
            found, plain_upto = head_of(first, 0, self._incoming.context.transfer_syntax, whole)
        except NeedMore:
            return whole
        except UnusableFile as error:
            if not whole and error.reason == Reason.TRUNCATED:
                return False
            if error.reason == Reason.BAD_UID:
                self._refuse(DOES_NOT_MATCH, "SOP UIDs of the data set are no UIDs")
            self._uids = error
            return True
        if not whole and (found[2] is None or found[3] is None):
            return False
        self._take_uids(found)
        self._end_told = end_told(first[:FIRST_LOOK], plain_upto, self._incoming.context.transfer_syntax)
        return True

    def _take_uids(self, found: Uids) -> None:
        """Take the UIDs that the data set has."""
        self._uids = found
        if found[1] != self._incoming.sop_instance_uid:
            self._refuse(DOES_NOT_MATCH, "SOP Instance UID of command and data set differ")
        elif found[0] != self._incoming.sop_class_uid:
            self._refuse(DOES_NOT_MATCH, "SOP Class UID of command and data set differ")

    def _begin(self, spans: list[memoryview]) -> None:
        incoming = self._incoming
        if self._refusal is not None:
            return
        head = file_meta.encode(
            incoming.sop_instance_uid,
            (
                (file_meta.SOP_CLASS, incoming.sop_class_uid),
                (file_meta.TRANSFER_SYNTAX, incoming.context.transfer_syntax),
                (file_meta.IMPLEMENTATION_CLASS, IMPLEMENTATION_CLASS_UID),
                (file_meta.IMPLEMENTATION_VERSION, IMPLEMENTATION_VERSION_NAME),
                (file_meta.SOURCE_AE_TITLE, self._source_ae_title),
            ),
        )
        self._data_offset = len(head)
        self._draft = self._new_draft()
        self._write(self._draft, [head, *spans])

    def _write(self, draft: Draft, views: Sequence[bytes | memoryview]) -> None:
        draft.write(views)


def _what_is_wrong(uid: str) -> str:
    """What is wrong with a UID that is none, or too long to be kept, in words."""
    if not uid:
        return "is missing"
    return f"has more than {MOST_UID} characters" if len(uid) > MOST_UID else "has a character that no UID has"


def _first(spans: list[memoryview]) -> bytes:
    """The first bytes of the data set, up to FIRST_LOOK."""
    if len(spans[0]) >= FIRST_LOOK:
        return bytes(spans[0][:FIRST_LOOK])
    return b"".join(spans)[:FIRST_LOOK]
