"""The C-STORE data path inwards: from the socket into one buffer, and from there as views to whoever writes them.

Nothing of a data set is copied or put together in Python. One read fills the buffer with whatever the socket has,
heads are stepped over where they lie, and the spans of data between them are handed on in one call.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from dicomferry.models.rules.errors import AssociationAborted, DimseTimeout, ProtocolViolation
from dicomferry.workers.dimse.wire.message import IS_COMMAND, IS_LAST
from dicomferry.workers.dimse.wire.upper_layer import (
    A_ABORT,
    A_ASSOCIATE_RQ,
    BY_SERVICE_PROVIDER,
    INVALID_PARAMETER,
    MAX_PDU_LENGTH,
    P_DATA_TF,
    UNEXPECTED_PDU,
    UNRECOGNISED_PDU,
    Pdu,
    UpperLayer,
)

# An association that never sends a data set gets by with little.
SMALL = 16 * 1024
LARGE = 512 * 1024
MOST_COMMAND = 64 * 1024
# No PDU but P-DATA-TF that may come on an established association has more than a few bytes.
_MOST_OTHER = SMALL - 6

_PDU = struct.Struct(">BxL")
_PDV = struct.Struct(">LBB")
_PDU_OF_ONE = struct.Struct(">BxLLBB")
"""The heads of a P-DATA-TF and of its first fragment, which is its only one in nearly all of them."""

Take = Callable[[list[memoryview]], None]


class Inlet:
    """Reads an established association. Raises what `UpperLayer` raises, ProtocolViolation after our A-ABORT."""

    def __init__(self, layer: UpperLayer) -> None:
        self._layer = layer
        self._view = memoryview(bytearray(SMALL))
        self._start = self._end = 0
        self._pdu_left = 0
        self._pdv_left = 0
        self._context_id = 0
        self._ahead: int | Pdu | None = None
        """What `begins_data` has seen and left for whoever reads on."""
        self._late: int | None = None
        """The context of a data set that was not waited for any longer."""

    def begins_data(self, context_id: int, seconds: float, progress: float) -> bool:
        """Whether the data set that a command announced begins within so many seconds.

        Where it does not, `command` goes on with whatever comes, and passes the data set over if that is it. Raises
        nothing for the end of the association: whoever reads on hears of it.
        """
        try:
            while (found := self._next_fragment()) is None:
                rest = self._end > self._start
                self._refill("progress", progress if rest else seconds)
        except (DimseTimeout, AssociationAborted):
            self._late = context_id
            return False
        self._ahead = found
        return not (isinstance(found, Pdu) or found & IS_COMMAND or self._context_id != context_id)

    def command(self, idle: float, progress: float) -> tuple[int, bytes] | Pdu:
        """The next command set and its context, or the PDU of another type that came instead of one.

        Waits `idle` seconds for it to begin, and `progress` seconds between its bytes.
        """
        parts: list[bytes] = []
        context_id = size = 0
        seconds = idle
        while True:
            if not parts and (at_once := self._whole_command()) is not None:
                return at_once
            ahead, self._ahead = self._ahead, None
            found: int | Pdu | None = self._next_fragment() if ahead is None else ahead
            if found is None:
                self._refill("progress", seconds)
                seconds = progress
                continue
            if isinstance(found, Pdu):
                if parts:
                    raise self.violation(f"a PDU of type {found.kind} inside a command")
                return found
            if not found & IS_COMMAND:
                if parts or self._late != self._context_id:
                    raise self.violation("a data set where a command was to come")
                self._late, self._ahead = None, found
                self.data_set(self._context_id, _pass_over, progress)
                continue
            if parts and self._context_id != context_id:
                raise self.violation(f"context {self._context_id} interleaved with context {context_id}")
            context_id = self._context_id
            size += self._pdv_left
            if size > MOST_COMMAND:
                raise self.violation(f"a command of more than {MOST_COMMAND} bytes", INVALID_PARAMETER)
            while self._pdv_left:
                if self._start == self._end:
                    self._refill("progress", progress)
                parts.append(bytes(self._span()))
            if found & IS_LAST:
                self._late = None
                return context_id, b"".join(parts)
            seconds = progress

    def _whole_command(self) -> tuple[int, bytes] | None:
        """A command and its context, if all of it is here, in one fragment that is alone in its PDU, as most are."""
        if self._ahead is not None or self._late is not None or self._pdu_left:
            return None
        have = self._end - self._start
        if have < 12:
            return None
        kind, length, inner, context, control = _PDU_OF_ONE.unpack_from(self._view, self._start)
        if (kind, inner, control) != (P_DATA_TF, length - 4, IS_COMMAND | IS_LAST) or not 6 <= length <= min(
            have - 6, MOST_COMMAND
        ):
            return None
        begin = self._start + 12
        self._context_id, self._start = context, self._start + 6 + length
        return context, bytes(self._view[begin : self._start])

    def data_set(self, context_id: int, take: Take, progress: float) -> None:
        """Hand the data set that follows a command to `take`, buffer by buffer; back when its last byte is in.

        The views are good until `take` returns.
        """
        if len(self._view) < LARGE:
            self._grow()
        spans: list[memoryview] = []
        last = False
        if self._ahead is not None:
            last = self._check_data(self._ahead, context_id)
            self._ahead = None
        while True:
            if not self._pdv_left:
                if last:
                    if spans:
                        take(spans)
                    return
                if not self._pdu_left and self._end - self._start >= 12:
                    kind, length, inner, context, control = _PDU_OF_ONE.unpack_from(self._view, self._start)
                    if (
                        kind == P_DATA_TF
                        and 6 <= length <= MAX_PDU_LENGTH
                        and (inner, context) == (length - 4, context_id)
                        and control in (0, IS_LAST)
                    ):
                        self._start += 12
                        self._context_id, self._pdv_left, last = context_id, inner - 2, control == IS_LAST
                        continue
                found = self._next_fragment()
                if found is not None:
                    last = self._check_data(found, context_id)
                    continue
            elif self._start < self._end:
                spans.append(self._span())
                continue
            if spans:
                take(spans)
                spans = []
            self._refill("progress", progress)

    def _check_data(self, found: int | Pdu, context_id: int) -> bool:
        """Whether this fragment of a data set is its last one; raises ProtocolViolation for anything else."""
        if isinstance(found, Pdu):
            raise self.violation(f"a PDU of type {found.kind} inside a data set")
        if found & IS_COMMAND:
            raise self.violation("a command where a data set was to come")
        if self._context_id != context_id:
            raise self.violation(f"context {self._context_id} interleaved with context {context_id}")
        return bool(found & IS_LAST)

    def violation(self, text: str, reason: int = UNEXPECTED_PDU) -> ProtocolViolation:
        """Abort, and the error to raise (PS3.8 9.2, AA-8)."""
        self._layer.abort(BY_SERVICE_PROVIDER, reason)
        return ProtocolViolation(f"{self._layer.peer}: {text}")

    def _next_fragment(self) -> int | Pdu | None:
        """Step over the heads in front of the next fragment: its control byte, or a PDU of another type.

        None when more bytes are needed. Afterwards `_context_id` and `_pdv_left` are those of the fragment.
        """
        while not self._pdu_left:
            have = self._end - self._start
            if have < 6:
                return None
            kind, length = _PDU.unpack_from(self._view, self._start)
            if not A_ASSOCIATE_RQ <= kind <= A_ABORT:
                raise self.violation(f"a PDU of unknown type 0x{kind:02X}", UNRECOGNISED_PDU)
            if length > MAX_PDU_LENGTH:
                text = f"a PDU of {length} bytes, {MAX_PDU_LENGTH} is the most"
                raise self.violation(text, INVALID_PARAMETER)
            if kind != P_DATA_TF:
                return self._other(kind, length)
            self._start += 6
            self._pdu_left = length
        if self._end - self._start < 6 and self._pdu_left >= 6:
            return None
        if self._pdu_left < 6:
            raise self.violation("P-DATA-TF ends inside a fragment's head", INVALID_PARAMETER)
        length, self._context_id, control = _PDV.unpack_from(self._view, self._start)
        if length < 2 or length + 4 > self._pdu_left:
            raise self.violation(f"a fragment of length {length} does not fit its P-DATA-TF", INVALID_PARAMETER)
        self._start += 6
        self._pdu_left -= length + 4
        self._pdv_left = length - 2
        return int(control)

    def _other(self, kind: int, length: int) -> Pdu | None:
        if length > _MOST_OTHER:
            # Nothing of that length may come here, so there is no need to see its end.
            raise self.violation(f"a PDU of type {kind} and {length} bytes on an established association")
        if self._end - self._start < 6 + length:
            return None
        body = bytes(self._view[self._start + 6 : self._start + 6 + length])
        self._start += 6 + length
        if kind == A_ABORT:
            raise self._layer.aborted_by_peer(body)
        return Pdu(kind, body)

    def _span(self) -> memoryview:
        """The part of the fragment that has been received already."""
        end = min(self._end, self._start + self._pdv_left)
        span = self._view[self._start : end]
        self._pdv_left -= end - self._start
        self._start = end
        return span

    def _refill(self, phase: str, seconds: float) -> None:
        """More bytes behind those that are left, which are a few of a head at most."""
        rest = self._end - self._start
        if self._start:
            self._view[:rest] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, rest
        self._end += self._layer.receive_into(self._view[self._end :], phase, seconds)

    def _grow(self) -> None:
        view = memoryview(bytearray(LARGE))
        rest = self._end - self._start
        view[:rest] = self._view[self._start : self._end]
        self._view, self._start, self._end = view, 0, rest


def _pass_over(spans: list[memoryview]) -> None:
    """A data set that nobody waits for."""
