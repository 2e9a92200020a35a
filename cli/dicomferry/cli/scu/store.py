"""`scu --store`: files and folders by C-STORE, each file once, in order, and each that was not stored by name."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from dicomferry.cli.scu.inputs import InputFile, files
from dicomferry.cli.scu.interruption import raising
from dicomferry.cli.scu.invocation import MAX_PDU, Invocation
from dicomferry.cli.scu.messages import CommandRefused, Messages
from dicomferry.cli.scu.progress import Progress
from dicomferry.cli.scu.recording import Recording, keeping
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.errors import ContextNotAccepted, DimseError
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.state import ItemState
from dicomferry.models.rules.uid import too_long
from dicomferry.workers.dimse.echo import echo
from dicomferry.workers.dimse.local_instance import LocalInstance
from dicomferry.workers.dimse.requestor import Association
from dicomferry.workers.dimse.store import StoreAnswer, send
from dicomferry.workers.dimse.wire.contexts import Convert
from dicomferry.workers.dimse.wire.message import PRIORITY_LOW

MOST_BROKEN = 3
"""Associations in a row that broke before any file was answered; after them a C-ECHO tells whose fault it is."""


@raising()
def run(invocation: Invocation, say: Messages) -> int:
    """Send what the command line names; 1 where any of it was not stored.

    Raises Refused where there is nothing to send, DimseError where no association came about.
    """
    with keeping(invocation, say) as journal:
        progress = Progress(say, doing="sending", quiet=invocation.verbose or invocation.debug)
        try:
            waiting = _look(invocation, progress, journal)
            if waiting:
                _StoreRun(invocation, progress, journal, waiting).run()
            elif not say.failed:
                what = ", ".join(invocation.files)
                raise CommandRefused(
                    f"nothing to send: no file in {what}" if what else "nothing to send: no file was named"
                )
        finally:
            progress.close("sent")
    return int(say.failed)


def _look(invocation: Invocation, progress: Progress, journal: Recording) -> deque[InputFile]:
    """The files that can be sent; of each other one it is said why not."""
    found: deque[InputFile] = deque()
    for file in files(invocation.files, recursive=invocation.recursive):
        progress.tick()
        if file.header is not None:
            found.append(file)
        elif file.why:
            progress.failure(f"{file.shown}: not sent: {file.why}", instances=1)
            note(journal, file, ItemState.FAILED, reason=file.reason, detail=file.detail)
        else:
            progress.note(f"{file.shown}: left out: it lies in itself")
    progress.total = len(found) + progress.failed
    return found


class _StoreRun:
    """All files over as few associations as it takes: one, unless their contexts do not fit it or it breaks."""

    def __init__(
        self, invocation: Invocation, progress: Progress, journal: Recording, waiting: deque[InputFile]
    ) -> None:
        self._invocation = invocation
        self._progress = progress
        self._journal = journal
        self._waiting = waiting
        self._in_flight: InputFile | None = None
        self._association: Association | None = None
        self._answered = 0

    def run(self) -> None:
        """Send them. A file that breaks the association is not sent again; those behind it are. Raises DimseError where
        no association came about.
        """
        try:
            self._run()
        except DimseError as error:
            # That is one thing to say, not one for each file.
            self._progress.failed += len(self._waiting)
            for file in self._waiting:
                note(self._journal, file, ItemState.FAILED, reason=reason_of(error), detail=str(error))
            raise
        except BaseException:
            for file in filter(None, (self._in_flight, *self._waiting)):
                note(self._journal, file, ItemState.CANCELLED, reason=Reason.CANCELLED)
            raise

    def _run(self) -> None:
        broken = 0
        while self._waiting:
            answered = self._answered
            try:
                self._send()
                return
            except DimseError as error:
                if self._association is None:
                    raise
                broken = 1 if self._answered > answered else broken + 1
                if self._in_flight is not None:
                    file, self._in_flight = self._in_flight, None
                    told = too_long("SOP Instance UID", file.header.sop_instance_uid) if file.header else None
                    self._lost(file, "; ".join(filter(None, (str(error), told))), reason=reason_of(error))
                    if broken < MOST_BROKEN or self._echo():
                        broken %= MOST_BROKEN
                        continue
                self._give_up(error)
                return

    def _echo(self) -> bool:
        """Whether the peer answers a C-ECHO: then the files are at fault, and those behind them have their turn."""
        try:
            echo(self._invocation.remote, progress=lambda _bytes: self._progress.tick())
        except ContextNotAccepted:
            return True
        except DimseError:
            return False
        return True

    def _send(self) -> None:
        """One association after the other, as their contexts demand. Raises DimseError."""
        pairs = [(file.header.sop_class_uid, file.header.transfer_syntax_uid) for file in self._waiting if file.header]
        answers = send(
            self._invocation.remote,
            self._feed(),
            pairs,
            convert=Convert.ALL if self._invocation.transcode else Convert.NOTHING,
            priority=PRIORITY_LOW,
            max_pdu=MAX_PDU,
            progress=lambda _bytes: self._progress.tick(),
            on_open=self._opened,
        )
        try:
            for answer in answers:
                self._take(answer)
        except DimseError:
            raise
        except BaseException:
            # Interrupted between two files as it may be: no time for a release.
            if self._association is not None:
                self._association.abort()
            raise

    def _opened(self, association: Association) -> None:
        self._association = association

    def _feed(self) -> Iterator[LocalInstance]:
        number = 0
        while self._waiting:
            self._in_flight = self._waiting.popleft()
            number += 1
            yield self._in_flight.instance(number)

    def _take(self, answer: StoreAnswer) -> None:
        file, self._in_flight = self._in_flight, None
        assert file is not None
        if answer.status is None:
            why = f"not sent: {answer.reason}: {answer.detail}" if answer.detail else f"not sent: {answer.reason}"
            self._lost(file, why, reason=answer.reason)
            return
        self._answered += 1
        reason = lookup.for_status("store", answer.status).reason or answer.reason
        told = {"status": answer.status, "reason": reason, "sent_bytes": answer.sent_bytes, "sent_as": answer.sent_as}
        if is_stored(answer.status):
            self._progress.sent(file.shown, answer.status, answer.sent_bytes)
            state = ItemState.WARNING if answer.status else ItemState.SUCCEEDED
            note(self._journal, file, state, detail=answer.detail, **told)
            return
        meant = f" ({reason})" if reason and not reason.startswith("status") else ""
        comment = f": {answer.detail}" if answer.detail else ""
        self._lost(file, f"status {answer.status:04X}{meant}{comment}", **told)

    def _lost(self, file: InputFile, why: str, **values: Any) -> None:
        self._progress.failure(f"{file.shown}: {why}", instances=1)
        note(self._journal, file, ItemState.FAILED, **{"detail": why, **values})

    def _give_up(self, error: DimseError) -> None:
        while self._waiting:
            self._lost(self._waiting.popleft(), f"not sent: {error}", reason=reason_of(error))


def note(journal: Recording, file: InputFile, state: ItemState, **values: Any) -> None:
    """Write down what came of a file."""
    if not journal.keeps:
        return
    known: dict[str, Any] = {"path": file.path, "size": file.size, "mtime_ns": file.mtime_ns}
    if file.header is not None:
        known |= {
            name: getattr(file.header, name)
            for name in (
                "sop_class_uid",
                "sop_instance_uid",
                "transfer_syntax_uid",
                "study_instance_uid",
                "series_instance_uid",
            )
        }
    journal.instance(state, **known, **values)


def reason_of(error: DimseError) -> str | None:
    """The stable word for what kept an association from opening, or ended it."""
    return lookup.for_error(error).reason


def is_stored(status: int) -> bool:
    """Whether a C-STORE status says that the instance is kept: success or a warning of PS3.4 B.2.3.

    Not the table's rule: scripts that know gdcmscu expect a failure for what else PS3.7 annex C calls a warning.
    """
    return status in (0x0000, 0x0001) or status & 0xF000 == 0xB000
