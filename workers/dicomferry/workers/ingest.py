"""One received instance: from the first bytes of its data set to a file in the archive, a row, and a status."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from dicomferry.models import telemetry
from dicomferry.models.errors import UnusableFile
from dicomferry.models.instance_store import Arrival, Received
from dicomferry.workers import file_meta
from dicomferry.workers.archive import Archive, Draft, file_name, place
from dicomferry.workers.data_set import NeedMore, instance_uids
from dicomferry.workers.dimse.acceptor import Answer, Incoming
from dicomferry.workers.dimse.associate import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomferry.workers.indexer import Indexer
from dicomferry.workers.same_instance import Relation, compare

log = telemetry.logger(__name__)

SUCCESS = 0x0000
INVALID_UID = 0x0117
NO_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900

FIRST_LOOK = 64 * 1024
"""Bytes of a data set in which its UIDs are looked for at once; what is longer in coming is waited for."""
LAST_LOOK = 1024 * 1024
ROOM_EVERY = 64 * 1024 * 1024
"""After so many bytes of one instance the disk's reserve is looked at again."""
MOST_OF_ONE_UID = 1000
MOST_PARSED = 8
"""Of one UID so many files are compared element by element, the others byte by byte: a sender that puts ever new
contents under one UID must not make each dearer than the last."""

_UID = re.compile(r"(?!\.*$)[0-9A-Za-z.\-]{1,128}")
_LAWFUL = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_NO_FILE = (errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM)
"""Something of that name is there, but no file that could be compared: a link, a pipe, somebody else's."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Ingest:
    """A `Sink` for one C-STORE; for one thread. `job_id` and `move_id` say what it comes for, where that is known."""

    def __init__(
        self,
        archive: Archive,
        indexer: Indexer,
        incoming: Incoming,
        *,
        association: str,
        address: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        job_id: int | None = None,
        move_id: int | None = None,
    ) -> None:
        self._archive = archive
        self._indexer = indexer
        self._incoming = incoming
        self._association = association
        self._address = address
        self._clock = clock
        self._asked_by = job_id, move_id
        self._draft: Draft | None = None
        self._held: list[bytes] = []
        self._refusal: Answer | None = None
        self._study: str | None = None
        self._series: str | None = None
        self._flaw: str | None = None
        self._next_room = ROOM_EVERY
        if not _UID.fullmatch(incoming.sop_instance_uid):
            self._refuse(INVALID_UID, "SOP Instance UID has a character that no UID has")
        elif not _UID.fullmatch(incoming.sop_class_uid):
            self._refuse(INVALID_UID, "SOP Class UID has a character that no UID has")
        elif not indexer.has_room():
            self._refuse(NO_RESOURCES, "index is behind, try again later")
        elif not archive.has_room():
            self._refuse(NO_RESOURCES, "disk is full to its reserve")

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

    def finish(self) -> Answer:
        """The data set is complete: publish, and answer."""
        if self._refusal is None:
            try:
                if self._draft is None:
                    held = b"".join(self._held)
                    self._identify(held, whole=True)
                    if self._refusal is None:
                        self._begin([memoryview(held)])
                if self._refusal is None:
                    return self._publish()
            except OSError as error:
                self._refuse_for(error)
        self.discard()
        assert self._refusal is not None
        log.warning(
            "instance refused",
            status=f"0x{self._refusal.status:04X}",
            why=self._refusal.comment,
            **self._who(),
        )
        return self._refusal

    def discard(self) -> None:
        """Leave nothing behind of what is not published."""
        self._held.clear()
        if self._draft is not None:
            self._draft.close()
            self._draft = None

    def _refuse(self, status: int, comment: str) -> None:
        self._refusal = Answer(status, comment)
        self.discard()

    def _refuse_for(self, error: OSError) -> None:
        if error.errno in _FULL:
            self._refuse(NO_RESOURCES, "disk is full")
        else:
            log.error("the archive cannot be written", error=str(error), **self._who())
            self._refuse(NO_RESOURCES, f"archive: {error.strerror or error}")

    def _who(self) -> dict[str, object]:
        return {
            "sop_instance_uid": self._incoming.sop_instance_uid[:128],
            "association": self._association,
            "calling_ae_title": self._incoming.request.calling_ae_title,
            "address": self._address,
        }

    def _hold(self, spans: list[memoryview]) -> None:
        """Keep bytes until the UIDs are among them, or until that is not to be expected any more."""
        self._held.append(b"".join(spans))
        held = b"".join(self._held)
        if self._identify(held, whole=len(held) >= LAST_LOOK) and self._refusal is None:
            self._held.clear()
            self._begin([memoryview(held)])

    def _identify(self, first: bytes, *, whole: bool) -> bool:
        """Read the UIDs from the data set's first bytes; False when more of them are needed.

        What cannot be read is stored under the command's UID and flagged; it is not ours to judge.
        """
        incoming = self._incoming
        try:
            found = instance_uids(first, 0, incoming.context.transfer_syntax, whole)
        except NeedMore:
            if whole:
                self._flaw = "no uid: none within reach"
            return whole
        except UnusableFile as error:
            if not whole and error.reason == "truncated":
                return False
            if error.reason == "bad uid":
                self._refuse(DOES_NOT_MATCH, "SOP UIDs of the data set are no UIDs")
                return True
            self._flaw = f"{error.reason}: {error}"[:200]
            return True
        sop_class, sop_instance, self._study, self._series = found
        if not whole and (self._study is None or self._series is None):
            return False
        if sop_instance != incoming.sop_instance_uid:
            self._refuse(DOES_NOT_MATCH, "SOP Instance UID of command and data set differ")
        elif sop_class != incoming.sop_class_uid:
            self._refuse(DOES_NOT_MATCH, "SOP Class UID of command and data set differ")
        elif not all(len(uid) <= 64 and _LAWFUL.fullmatch(uid) for uid in found if uid):
            self._flaw = "odd uid"
        return True

    def _begin(self, spans: list[memoryview]) -> None:
        incoming = self._incoming
        if self._refusal is not None:
            return
        head = file_meta.encode(
            {
                file_meta.SOP_CLASS: incoming.sop_class_uid,
                file_meta.SOP_INSTANCE: incoming.sop_instance_uid,
                file_meta.TRANSFER_SYNTAX: incoming.context.transfer_syntax,
                file_meta.IMPLEMENTATION_CLASS: IMPLEMENTATION_CLASS_UID,
                file_meta.IMPLEMENTATION_VERSION: IMPLEMENTATION_VERSION_NAME,
                file_meta.SOURCE_AE_TITLE: incoming.request.calling_ae_title,
            }
        )
        self._draft = self._archive.draft()
        self._write(self._draft, [head, *spans])

    def _write(self, draft: Draft, views: Sequence[bytes | memoryview]) -> None:
        draft.write(views)
        if draft.size > self._next_room:
            self._next_room = draft.size + ROOM_EVERY
            if not self._archive.has_room():
                self._refuse(NO_RESOURCES, "disk is full to its reserve")

    def _publish(self) -> Answer:
        """Flush, link, flush the folder: only then is it ours to answer for."""
        draft = self._draft
        assert draft is not None
        folder, stem = place(self._study, self._series, self._incoming.sop_instance_uid)
        self._indexer.enter(folder)
        try:
            name, outcome = self._link(draft, folder, stem)
            # Also for a duplicate: whoever linked the first one may not have come to this.
            self._archive.settle(folder)
        except BaseException:
            self._indexer.leave(folder)
            raise
        self._indexer.add(folder, self._received(f"{folder}/{name}", draft.size, outcome))
        self.discard()
        if outcome == "conflict":
            log.warning("another content under a UID that is archived already: both are kept", **self._who())
        return Answer(SUCCESS)

    def _link(self, draft: Draft, folder: str, stem: str) -> tuple[str, str]:
        """(file name, outcome): stored, duplicate, alternate or conflict."""
        outcome = "stored"
        flushed = False
        for number in range(1, MOST_OF_ONE_UID):
            name = file_name(stem, number)
            while True:
                relation = self._compare(draft, folder, name, elements=number <= MOST_PARSED)
                if relation is not None:
                    break
                if not flushed:
                    self._archive.flush_draft(draft)
                    flushed = True
                if self._archive.publish(draft, folder, name):
                    return name, outcome
                # Somebody was quicker: another sender of the same instance.
            if relation is Relation.SAME:
                return name, "duplicate"
            if outcome != "conflict":
                outcome = relation.value
        raise OSError(errno.EMLINK, "too many files of one SOP Instance UID")

    def _compare(self, draft: Draft, folder: str, name: str, *, elements: bool) -> Relation | None:
        """What the draft is to the file of that name; None where there is none."""
        try:
            theirs = self._archive.open_file(folder, name)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _NO_FILE:
                return Relation.CONFLICT
            raise
        try:
            return compare(draft.fd, theirs, elements=elements)
        finally:
            os.close(theirs)

    def _received(self, path: str, size: int, outcome: str) -> Received:
        incoming, now = self._incoming, self._clock()
        return Received(
            path=path,
            size=size,
            sop_instance_uid=incoming.sop_instance_uid,
            sop_class_uid=incoming.sop_class_uid,
            transfer_syntax_uid=incoming.context.transfer_syntax,
            study_instance_uid=self._study,
            series_instance_uid=self._series,
            relation=outcome if outcome in ("alternate", "conflict") else "first",
            flaw=self._flaw,
            stored_at=now,
            arrival=Arrival(
                association=self._association,
                number=incoming.number,
                outcome=outcome,
                calling_ae_title=incoming.request.calling_ae_title,
                called_ae_title=incoming.request.called_ae_title,
                address=self._address,
                message_id=incoming.message_id,
                originator_ae_title=incoming.originator_ae_title,
                originator_message_id=incoming.originator_message_id,
                at=now,
                job_id=self._asked_by[0],
                move_id=self._asked_by[1],
            ),
        )


def _first(spans: list[memoryview]) -> bytes:
    """The first bytes of the data set, up to FIRST_LOOK."""
    if len(spans[0]) >= FIRST_LOOK:
        return bytes(spans[0][:FIRST_LOOK])
    return b"".join(spans)[:FIRST_LOOK]
