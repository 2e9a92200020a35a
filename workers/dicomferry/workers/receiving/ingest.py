"""One received instance: from the first bytes of its data set to a file in the archive, a row, and a status."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dicomferry.models import telemetry
from dicomferry.models.record.archive.index import Arrival, Received
from dicomferry.models.rules.errors import UnusableFile
from dicomferry.workers.dimse.acceptor import Incoming, StatusReply
from dicomferry.workers.files.same_instance import Relation, compare
from dicomferry.workers.files.soundness import is_named, read_uids, unreadable
from dicomferry.workers.receiving import file_hold
from dicomferry.workers.receiving.archive import Archive, Folder, file_name, place
from dicomferry.workers.receiving.draft import Draft
from dicomferry.workers.receiving.indexer import Indexer
from dicomferry.workers.receiving.promise import Promise
from dicomferry.workers.receiving.reception import NO_RESOURCES, SUCCESS, Intake
from dicomferry.workers.receiving.reception_log.reception_log import ReceptionLog

log = telemetry.logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The bounds of one ingest."""

    room_every: int = 64 * 1024 * 1024
    """Bytes of one instance after which the disk's reserve is looked at again."""
    most_of_one_uid: int = 1000
    most_tries: int = 3
    """Times that a folder is opened anew which was renamed while it was held open."""
    most_parsed: int = 8
    """Files of one UID that are compared element by element, the others byte by byte: a sender that puts ever new
    contents under one UID must not make each dearer than the last."""


DEFAULT = Tuning()

_NOT_OPENED = (errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM)
"""Something of that name is there, but nothing that could be compared: a link, a socket, somebody else's."""


class Ingest(Intake):
    """A `Sink` for one C-STORE; for one thread. `job_id` and `move_id` say what it comes for, where that is known.

    `spare` is an empty draft that is there already; it is the ingest's from then on. `refused` hears of the answer if
    that is no success.
    """

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
        spare: Draft | None = None,
        reception_log: ReceptionLog | None = None,
        refused: Callable[[Incoming, StatusReply], object] | None = None,
        tuning: Tuning = DEFAULT,
    ) -> None:
        self._tuning = tuning
        self._spare = spare
        self._log = reception_log
        self._tell_refused = refused
        super().__init__(incoming, incoming.request.calling_ae_title)
        self._archive = archive
        self._indexer = indexer
        self._association = association
        self._address = address
        self._clock = clock
        self._asked_by = job_id, move_id
        self._next_room = tuning.room_every
        if self._refusal is not None:
            return
        if not indexer.has_room():
            self._refuse(NO_RESOURCES, "index is behind, try again later")
            return
        try:
            if not archive.has_room():
                self._refuse(NO_RESOURCES, "disk is full to its reserve")
        except OSError as error:
            self._refuse_for(error)

    def _who(self) -> dict[str, object]:
        return {
            "sop_instance_uid": self._incoming.sop_instance_uid[:128],
            "association": self._association,
            "calling_ae_title": self._incoming.request.calling_ae_title,
            "address": self._address,
        }

    def _write(self, draft: Draft, views: Sequence[bytes | memoryview]) -> None:
        super()._write(draft, views)
        if draft.size > self._next_room:
            self._next_room = draft.size + self._tuning.room_every
            if not self._archive.has_room():
                self._refuse(NO_RESOURCES, "disk is full to its reserve")

    def _new_draft(self) -> Draft:
        spare, self._spare = self._spare, None
        draft = spare or self._archive.draft()
        if self._log is not None:
            draft.hold(self._log.tuning.instance_bytes)
        return draft

    def discard(self) -> None:
        """Leave nothing behind of what is not published."""
        super().discard()
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _refused(self, answer: StatusReply) -> None:
        log.warning("instance refused", status=f"0x{answer.status:04X}", why=answer.comment, **self._who())
        if self._tell_refused is not None:
            self._tell_refused(self._incoming, answer)

    def _trouble(self, error: OSError) -> str:
        log.error("the archive cannot be written", error=str(error), **self._who())
        return f"archive: {error.strerror or error}"

    def _complete(self, draft: Draft) -> None:
        """Where the first bytes do not tell the study and series, the whole header is read: it is filed by these."""
        if None in self._place_uids:
            try:
                self._take_uids(read_uids(draft.fd, self._data_offset, self._incoming.context.transfer_syntax))
            except UnusableFile as error:
                self._uids = error

    @property
    def _place_uids(self) -> tuple[str | None, str | None]:
        """Study and series; none of a data set that cannot be read."""
        return (None, None) if isinstance(self._uids, UnusableFile) else self._uids[2:]

    def _publish(self, draft: Draft) -> StatusReply:
        """Make it durable under its name: only then is it ours to answer for."""
        content = draft.spill()
        self._complete(draft)
        if self._refusal is not None:
            return self._refusal
        folder, stem = place(*self._place_uids, self._incoming.sop_instance_uid)
        self._indexer.enter(folder)
        try:
            name, outcome = self._place(draft, folder, stem, content)
        except BaseException:
            self._indexer.leave(folder)
            raise
        # Else the file is looked at behind the answer, before its row.
        is_sound = self._end_told == draft.size - self._data_offset and is_named(self._uids)
        self._indexer.add(folder, self._received(f"{folder}/{name}", draft.size, outcome), is_sound=is_sound)
        self.discard()
        if outcome == "conflict":
            log.warning("another content under a UID that is archived already: both are kept", **self._who())
        return StatusReply(SUCCESS)

    def _place(self, draft: Draft, folder: str, stem: str, content: bytes | None) -> tuple[str, str]:
        """(file name, outcome) of the file that stands for the draft, durably, at the place that its path names."""
        strays: list[tuple[Folder, str]] = []
        promise = Promise(self._archive, draft, self._log, content)
        try:
            for _ in range(self._tuning.most_tries):
                name, outcome = self._link(draft, folder, stem, promise)
                if outcome == "duplicate":
                    # Whoever linked the first one may not have come to this.
                    promise.stands_for_another(folder, name)
                else:
                    promise.linked(folder, name)
                if self._archive.is_at(folder, name, None if outcome == "duplicate" else draft):
                    promise.keep()
                    return name, outcome
                promise.is_lost()
                held = self._archive.let_go(folder)
                if held is not None:
                    strays.append((held, name))
            raise OSError(errno.ESTALE, "the folder is renamed or removed again and again", folder)
        except BaseException:
            promise.drop()
            raise
        finally:
            # Only now: a file without any name cannot be given another one.
            for held, name in strays:
                held.retract(draft, name)

    def _link(self, draft: Draft, folder: str, stem: str, promise: Promise) -> tuple[str, str]:
        """(file name, outcome): stored, duplicate, alternate or conflict."""
        outcome = "stored"
        for number in range(1, self._tuning.most_of_one_uid):
            name = file_name(stem, number)
            relation: Relation | None = None
            while relation is None:
                if not self._archive.has_file(folder, name):
                    promise.before_link(folder, name)
                    if self._archive.publish(draft, folder, name):
                        return name, outcome
                # It was there before, or somebody was quicker: another sender of the same instance.
                relation = self._compare(draft, folder, name, elements=number <= self._tuning.most_parsed)
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
            if error.errno in _NOT_OPENED:
                return Relation.CONFLICT
            raise
        try:
            if not stat.S_ISREG(os.fstat(theirs).st_mode):
                return Relation.CONFLICT
            relation = compare(draft.fd, theirs, elements=elements)
            if relation is Relation.SAME and not self._keep(theirs):
                # It is being removed at this moment: this one goes under a name of its own.
                return Relation.ALTERNATE
            return relation
        finally:
            os.close(theirs)

    @staticmethod
    def _keep(theirs: int) -> bool:
        """Answer for a file that is there already; False where nobody can."""
        try:
            return file_hold.need(theirs)
        except PermissionError:
            return False

    def _received(self, path: str, size: int, outcome: str) -> Received:
        incoming, now = self._incoming, self._clock()
        study, series = self._place_uids
        return Received(
            path=path,
            size=size,
            sop_instance_uid=incoming.sop_instance_uid,
            sop_class_uid=incoming.sop_class_uid,
            transfer_syntax_uid=incoming.context.transfer_syntax,
            study_instance_uid=study,
            series_instance_uid=series,
            relation=outcome if outcome in ("alternate", "conflict") else "first",
            # The rest is looked at behind the answer, before the row.
            flaw=unreadable(self._uids) if isinstance(self._uids, UnusableFile) else None,
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
