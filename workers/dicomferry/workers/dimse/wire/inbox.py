"""What comes in on an association that we asked for: PDUs put together to messages, and oddities that are lived with.

Two things that some peers do change nothing and are noted alone: elements of other groups in a command set (PS3.7
6.3.1), and a final answer that announces a data set (PS3.7 9.1) and sends none.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque

from dicomferry.models.rules.errors import (
    AssociationAborted,
    DimseError,
    DimseTimeout,
    ProtocolViolation,
    ReleasedEarly,
)
from dicomferry.workers.dimse.wire import upper_layer
from dicomferry.workers.dimse.wire.message import STATUS, Assembler, CommandSet, Message
from dicomferry.workers.dimse.wire.upper_layer import Pdu, UpperLayer

log = logging.getLogger(__name__)

RELEASE_SECONDS = 5.0
ANNOUNCED_AGAIN_SECONDS = 0.1
"""How long a data set that is announced is waited for on an association on which one did not come."""
_PENDING = (b"\x00\xff", b"\x01\xff")
"""As they are on the wire: answers that are not the last one (PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4)."""
MOST_NAMED = 5
"""Tags that a note names, at most."""


def violation(layer: UpperLayer, text: str) -> ProtocolViolation:
    """Abort, and the error to raise: the peer did what the Standard does not allow here."""
    layer.abort(upper_layer.BY_SERVICE_PROVIDER, upper_layer.UNEXPECTED_PDU)
    return ProtocolViolation(f"{layer.peer}: {text}")


class Inbox:
    """The messages of one association, for the thread that owns it.

    `patience`: how many seconds the data set is waited for that a final answer announces; some peers send none.
    """

    def __init__(self, layer: UpperLayer, *, patience: float) -> None:
        self._layer = layer
        self._assembler = Assembler()
        self._messages: deque[Message] = deque()
        self._kept: Pdu | None = None
        self._patience = patience
        self._announced_at: float | None = None
        self._noted: set[str] = set()

    @property
    def is_released(self) -> bool:
        """Whether the peer has asked for the release, and was not answered yet."""
        return self._kept is not None and self._kept.kind == upper_layer.A_RELEASE_RQ

    def receive(self, phase: str, seconds: float) -> Message:
        """The next whole message.

        A final answer that announces a data set which does not come is whole without it. Raises
        DimseTimeout(phase, seconds) when nothing moved for `seconds`, AssociationAborted (also when
        the peer releases instead of answering), ProtocolViolation after an A-ABORT of ours.
        """
        while not self._messages:
            pdu, self._kept = self._kept or self._next_pdu(phase, seconds), None
            if pdu is None:
                self._messages.append(self._assembler.without_data())
            elif pdu.kind == upper_layer.P_DATA_TF:
                try:
                    self._messages.extend(self._assembler.feed(pdu.body))
                except ProtocolViolation as error:
                    raise violation(self._layer, str(error)) from error
            elif self._awaits_only_data():
                # What else it has to say is for who asks next.
                self._kept = pdu
                self._messages.append(self._assembler.without_data())
            elif pdu.kind == upper_layer.A_RELEASE_RQ:
                with contextlib.suppress(DimseError):
                    self._layer.send([upper_layer.RELEASE_RP], seconds=RELEASE_SECONDS)
                self._layer.close()
                raise ReleasedEarly(f"{self._layer.peer}: released the association instead of answering")
            else:
                raise violation(self._layer, f"a PDU of type {pdu.kind} where an answer was to come")
        self._announced_at = None
        message = self._messages.popleft()
        self.note_strays(message.command)
        return message

    def note_strays(self, command: CommandSet) -> None:
        """Write down which elements of other groups stand in a command set (PS3.7 6.3.1)."""
        if command.strays:
            tags = ", ".join(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in sorted(command.strays)[:MOST_NAMED])
            self.note(f"its command sets hold {tags}, which do not belong there: passed over")

    def note(self, text: str) -> None:
        """Write down something odd that the peer does and that changes nothing; each once an association."""
        if text not in self._noted:
            self._noted.add(text)
            log.info("%s: %s", self._layer.peer, text)

    def _awaits_only_data(self) -> bool:
        """Whether a final answer has come, and nothing of the data set that it announces."""
        command = self._assembler.awaits_data
        if command is None or not command.is_response:
            return False
        status = command.values.get(STATUS, b"")
        return len(status) == 2 and status not in _PENDING

    def _next_pdu(self, phase: str, seconds: float) -> Pdu | None:
        """The next PDU; None when the data set that a final answer announces does not come.

        It is waited for a little while. What the connection comes to then is for who asks next: the answer is here.
        """
        if not self._awaits_only_data():
            return self._layer.receive(phase, seconds)
        now = time.monotonic()
        if self._announced_at is None:
            self._announced_at = now
        left = max(self._announced_at + self._patience - now, 0.0)
        try:
            if left <= seconds:
                with contextlib.suppress(DimseTimeout):
                    return self._layer.receive(phase, left)
                if self._layer.is_between_pdus:
                    self._patience = ANNOUNCED_AGAIN_SECONDS
                    self.note("its final answers announce a data set and send none: the status is the answer")
                    return None
            return self._layer.receive(phase, seconds)
        except AssociationAborted:
            self.note("its final answers announce a data set, and the association ends: the status is the answer")
            return None

    def comes(self, body: bytes, phase: str, seconds: float) -> bool:
        """Whether the next PDU is a P-DATA-TF of exactly this body. Any other one is left for `receive`, whose errors
        this raises as well, but for those of what it left.
        """
        if self._messages or self._assembler.is_busy:
            return False
        pdu = self._kept or self._layer.receive(phase, seconds)
        same = pdu.kind == upper_layer.P_DATA_TF and pdu.body == body
        self._kept = None if same else pdu
        return same
