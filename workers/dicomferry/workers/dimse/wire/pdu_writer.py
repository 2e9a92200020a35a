"""The C-STORE data path: a file's bytes straight into P-DATA-TF fragments, nothing of the data set decoded.

One buffer holds a run of PDUs: room for a head, a fragment's worth of data, the next head, and so on. The
heads are written once an association; the file is read with one scattering read into the gaps between them,
and the whole run goes out in one call, the command's PDU in front of the first. Per run of a hundred KB
that is one system call to read, one to write, and no copy in Python.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import BinaryIO, Protocol

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.models.rules.reason import Reason
from dicomferry.workers.dimse.wire.message import IS_LAST, fragments
from dicomferry.workers.dimse.wire.upper_layer import P_DATA_TF, UpperLayer

# Large enough that system calls do not count, small enough to stay in the processor's cache between read and
# send, and that the receiver has the first run of an image to work on while the next one is read.
RUN_BYTES = 128 * 1024
# Heads and gaps of one run; a single scattering read takes at most IOV_MAX (1024) of them.
MOST_FRAGMENTS = 1000
# What lies in memory takes two buffers a fragment, and a gathering write has the same bound.
MOST_HELD_FRAGMENTS = 500

_HEAD = struct.Struct(">BxLLBB")


class SourceFailed(UnusableFile):
    """The data set's source gave fewer bytes than it had when the sending began, none at all, or is not what it was."""


class DataSource(Protocol):
    """Where a data set's bytes come from."""

    def fill(self, views: list[memoryview]) -> int:
        """Fill `views` in order from where the last call ended; returns how many bytes there were. Raises
        OSError.
        """


class FileSource:
    """An open descriptor, read from `offset` on; as they go out the first bytes have to be `head`, as they were looked
    at.
    """

    def __init__(self, fd: int, offset: int, head: bytes = b"") -> None:
        self._fd = fd
        self._at = offset
        self._head = head

    def fill(self, views: list[memoryview]) -> int:
        """One preadv, and more only where it came back short. Raises SourceFailed "changing"."""
        wanted = sum(map(len, views))
        got = os.preadv(self._fd, views, self._at)
        while 0 < got < wanted:
            more = os.preadv(self._fd, _rest(views, got), self._at + got)
            if not more:
                break
            got += more
        self._at += got
        if self._head:
            head, self._head = self._head, b""
            first = bytes(views[0][: min(got, len(head))])
            if not head.startswith(first):
                raise SourceFailed(Reason.CHANGING, "the file was changed while it was being sent")
        return got


class StreamSource:
    """A data set that was re-encoded into a stream of our own."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def fill(self, views: list[memoryview]) -> int:
        """Read view by view."""
        got = 0
        for view in views:
            piece = self._stream.read(len(view))
            view[: len(piece)] = piece
            got += len(piece)
        return got


def _yes() -> bool:
    """What never changes is what it was."""
    return True


class DataPath:
    """Sends data sets over one association; holds the buffer that they pass through."""

    def __init__(
        self,
        layer: UpperLayer,
        size: int,
        counted: Callable[[int], None] | None = None,
        *,
        run_bytes: int = RUN_BYTES,
    ) -> None:
        """`size` bytes of data go into one fragment, as many fragments into one run as fit in `run_bytes`, one at
        least; `counted(n)` hears of n bytes of data set put on the wire.
        """
        self._layer = layer
        self._size = size
        self._slot = size + _HEAD.size
        self.fragments_a_run = max(1, min(MOST_FRAGMENTS, run_bytes // self._slot))
        self._counted = counted
        self._buffer = bytearray(self._slot * self.fragments_a_run)
        view = memoryview(self._buffer)
        self._view = view
        starts = range(_HEAD.size, len(view), self._slot)
        self._gaps = [view[start : start + size] for start in starts]
        self._context_id = -1
        # Offset of the head that the last message's end has changed, to be made whole again before the next
        # one.
        self._changed: int | None = None

    def send(
        self,
        context_id: int,
        command: bytes,
        source: DataSource,
        length: int,
        *,
        pad: bool,
        seconds: float,
        is_same: Callable[[], bool] = _yes,
    ) -> int:
        """Send a command and `length` bytes of data set from `source`, with a NUL behind them if `pad`.

        Returns the bytes of data set put on the wire. Fragments are whole but for the last, and the
        connection stands between two PDUs whenever `source` is read. `is_same` is asked once, when all was read and
        before the last fragment leaves: whether it is still the source that it was. Raises what `UpperLayer.send`
        raises (`seconds` without a byte moved); SourceFailed("truncated", "unreadable" or "changing"), after which only
        an abort can follow.
        """
        self._use_context(context_id)
        ahead = [fragments(context_id, command, self._size, command=True)]
        total = length + pad
        left = total
        while True:
            # An empty data set still has its one fragment, the last (PS3.8 E.2).
            run = min(left, self._size * self.fragments_a_run)
            left -= run
            self._read(source, run - (pad and not left))
            if not left and not is_same():
                raise SourceFailed(Reason.CHANGING, "the file was changed while it was being sent")
            end = self._finish_heads(run, last=not left)
            if pad and not left:
                self._buffer[end - 1] = 0
            self._put([*ahead, self._view[:end]], run, seconds)
            if not left:
                return total
            ahead = []

    def send_held(
        self, context_id: int, command: bytes, data: memoryview, *, pad: bool, seconds: float, run_bytes: int
    ) -> int:
        """Send a command and a data set that lies in memory, with a NUL behind it if `pad`, in the same fragments as
        `send` does; `run_bytes` of it at once, one fragment at least. Returns the bytes of data set put on the wire;
        raises what `UpperLayer.send` raises.
        """
        size, total = self._size, len(data) + pad
        buffers: list[bytes | memoryview] = [fragments(context_id, command, size, command=True)]
        begin = counted = 0
        if size < total:
            full = _HEAD.pack(P_DATA_TF, size + 6, size + 2, context_id, 0)
            run = size * max(1, min(run_bytes // size, MOST_HELD_FRAGMENTS))
            while begin + size < total:
                buffers += (full, data[begin : begin + size])
                begin += size
                if begin - counted == run:
                    self._put(buffers, run, seconds)
                    counted, buffers = begin, []
        rest = total - begin
        buffers += (_HEAD.pack(P_DATA_TF, rest + 6, rest + 2, context_id, IS_LAST), data[begin:])
        if pad:
            buffers.append(b"\0")
        self._put(buffers, total - counted, seconds)
        return total

    def _put(self, buffers: list[bytes | memoryview], size: int, seconds: float) -> None:
        self._layer.send(buffers, seconds=seconds)
        if self._counted is not None:
            self._counted(size)

    def _use_context(self, context_id: int) -> None:
        """Write every slot's head as that of a whole fragment that is not the last."""
        if context_id == self._context_id:
            return
        self._context_id = context_id
        for offset in range(0, len(self._buffer), self._slot):
            self._write_head(offset, self._size, last=False)

    def _write_head(self, offset: int, size: int, *, last: bool) -> None:
        flags = IS_LAST if last else 0
        _HEAD.pack_into(self._buffer, offset, P_DATA_TF, size + 6, size + 2, self._context_id, flags)

    def _read(self, source: DataSource, wanted: int) -> None:
        whole, rest = divmod(wanted, self._size)
        views = self._gaps[:whole]
        if rest:
            views.append(self._gaps[whole][:rest])
        try:
            short = bool(views) and source.fill(views) < wanted
        except OSError as error:
            raise SourceFailed(Reason.UNREADABLE, error.strerror or str(error)) from error
        if short:
            raise SourceFailed(Reason.TRUNCATED, "the file became shorter while it was being sent")

    def _finish_heads(self, run: int, *, last: bool) -> int:
        """Fit the head of the run's last slot to what lies in it; returns where the run ends in the buffer.

        Only a message's last run needs this: all others are filled to the buffer's end.
        """
        if self._changed is not None:
            self._write_head(self._changed, self._size, last=False)
            self._changed = None
        if not last:
            return len(self._buffer)
        slot = max(0, (run - 1) // self._size)
        size = run - slot * self._size
        self._changed = slot * self._slot
        self._write_head(self._changed, size, last=True)
        return self._changed + _HEAD.size + size


def _rest(views: list[memoryview], skip: int) -> list[memoryview]:
    """`views` without their first `skip` bytes."""
    rest: list[memoryview] = []
    for view in views:
        if skip < len(view):
            rest.append(view[skip:])
        skip = max(0, skip - len(view))
    return rest
