"""`scu --store`: files and folders by C-STORE, each file once, in order, and each that was not stored by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dicomferry.cli.scu.inputs import InputFile
from dicomferry.cli.scu.interruption import raising
from dicomferry.cli.scu.invocation import MAX_PDU, Invocation
from dicomferry.cli.scu.lookahead import DEFAULT, Lookahead, Reach
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
def run(invocation: Invocation, say: Messages, reach: Reach = DEFAULT) -> int:
    """Send what the command line names; 1 where any of it was not stored. `reach` says how far ahead is read.

    Raises Refused where there is nothing to send, DimseError where no association came about.
    """
    with keeping(invocation, say) as journal:
        progress = Progress(say, doing="sending", quiet=invocation.verbose or invocation.debug)
        try:
            ahead = Lookahead(invocation, progress, journal, reach)
            if ahead.fill():
                _StoreRun(invocation, progress, journal, ahead).run()
            elif not say.failed:
                what = ", ".join(invocation.files)
                raise CommandRefused(
                    f"nothing to send: no file in {what}" if what else "nothing to send: no file was named"
                )
        finally:
            progress.close("sent")
    return int(say.failed)


class _StoreRun:
    """All files over as few associations as it takes: one, unless their contexts do not fit it or it breaks."""

    def __init__(self, invocation: Invocation, progress: Progress, journal: Recording, ahead: Lookahead) -> None:
        self._invocation = invocation
        self._progress = progress
        self._journal = journal
        self._ahead = ahead
        self._number = 0
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
            for file in self._ahead.waiting():
                self._progress.failed += 1
                self._journal.file(file, ItemState.FAILED, reason=reason_of(error), detail=str(error))
            raise
        except BaseException:
            for file in filter(None, (self._in_flight, *self._ahead.waiting())):
                self._journal.file(file, ItemState.CANCELLED, reason=Reason.CANCELLED)
            raise

    def _run(self) -> None:
        broken = 0
        while self._ahead.fill():
            answered = self._answered
            try:
                self._send()
                broken = 0
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
        answers = send(
            self._invocation.remote,
            self._feed(),
            self._ahead.pairs,
            convert=Convert.ALL if self._invocation.transcode else Convert.NOTHING,
            priority=PRIORITY_LOW,
            max_pdu=MAX_PDU,
            progress=lambda _bytes: self._progress.tick(),
            on_open=self._opened,
            coming=self._coming,
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
        """Those that are read. Where they do not suffice, the peer is not to wait for the next ones."""
        self._number = 0
        while self._ahead.next is not None:
            self._in_flight = self._ahead.take()
            self._number += 1
            yield self._in_flight.instance(self._number)

    def _coming(self) -> LocalInstance | None:
        """The next one, read while the peer is at work on the one before it."""
        self._ahead.read_on()
        file = self._ahead.next
        return None if file is None else file.instance(self._number + 1)

    def _take(self, answer: StoreAnswer) -> None:
        file, self._in_flight = self._in_flight, None
        assert file is not None
        if answer.status is None:
            why = f"not sent: {answer.reason}: {answer.detail}" if answer.detail else f"not sent: {answer.reason}"
            self._lost(file, why, reason=answer.reason)
            # The peer had nothing to do, so that the next ones were not asked for.
            self._ahead.read_on()
            return
        self._answered += 1
        if is_stored(answer.status):
            self._progress.sent(file.shown, answer.status, answer.sent_bytes)
            if self._journal.keeps:
                state = ItemState.WARNING if answer.status else ItemState.SUCCEEDED
                self._journal.file(file, state, detail=answer.detail, **_told(answer))
            return
        told = _told(answer)
        reason = told["reason"]
        meant = f" ({reason})" if reason and not reason.startswith("status") else ""
        comment = f": {answer.detail}" if answer.detail else ""
        self._lost(file, f"status {answer.status:04X}{meant}{comment}", **told)

    def _lost(self, file: InputFile, why: str, **values: Any) -> None:
        self._progress.failure(f"{file.shown}: {why}", instances=1)
        self._journal.file(file, ItemState.FAILED, **{"detail": why, **values})

    def _give_up(self, error: DimseError) -> None:
        for file in self._ahead.rest():
            self._lost(file, f"not sent: {error}", reason=reason_of(error))


def _told(answer: StoreAnswer) -> dict[str, Any]:
    """What a record says of an answer."""
    assert answer.status is not None
    reason = lookup.for_status("store", answer.status).reason or answer.reason
    return {"status": answer.status, "reason": reason, "sent_bytes": answer.sent_bytes, "sent_as": answer.sent_as}


def reason_of(error: DimseError) -> str | None:
    """The stable word for what kept an association from opening, or ended it."""
    return lookup.for_error(error).reason


def is_stored(status: int) -> bool:
    """Whether a C-STORE status says that the instance is kept: success or a warning of PS3.4 B.2.3.

    Not the table's rule: scripts that know gdcmscu expect a failure for what else PS3.7 annex C calls a warning.
    """
    return status in (0x0000, 0x0001) or status & 0xF000 == 0xB000
