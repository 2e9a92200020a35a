"""The files of a store, read so far ahead of their turn that their contexts are known and none is waited for."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from dicomferry.cli.scu.inputs import InputFile, files
from dicomferry.cli.scu.invocation import Invocation
from dicomferry.cli.scu.progress import Progress
from dicomferry.cli.scu.recording import Recording
from dicomferry.models.rules.state import ItemState
from dicomferry.workers.dimse.heads import Heads
from dicomferry.workers.dimse.wire.contexts import Pair
from dicomferry.workers.sending.entry import header_from


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far ahead is read, and what is kept of it."""

    first: int = 1000
    """Files that are read before an association is opened: what they need is proposed to the peer at once, and the rest
    of a million does not hold up the first."""
    ahead: int = 64
    """Files that are read before the turn of each that follows. These are kept in memory; many more of them would take
    as long to come back from there as from the system's."""
    step: int = 2
    """Files that are read while the peer is at work on one, at most: it is not to wait for us."""
    kept_file: int = 192 * 1024
    """Bytes of a file that is kept, at most."""


DEFAULT = Reach()


class Lookahead:
    """The files that can be sent, in their order. Of each other one it is said why not when it is met.

    With a record every file is read before the first is sent, so that none is missing in it however the run ends.
    """

    def __init__(self, invocation: Invocation, progress: Progress, journal: Recording, reach: Reach) -> None:
        self._reach = reach
        self._progress = progress
        self._journal = journal
        self._found: Iterator[InputFile] | None = files(
            invocation.files,
            recursive=invocation.recursive,
            keeps=self._keeps,
            # A record has study and series of each file besides.
            header_of=header_from if journal.keeps else Heads().header,
        )
        self._read: deque[InputFile] = deque()
        self._met = 0
        self._pairs: dict[Pair, None] = {}

    @property
    def pairs(self) -> Collection[Pair]:
        """What is to be proposed for the files that are read and not yet taken, and for those taken since `fill`; grows
        until `fill` is called again.
        """
        return self._pairs.keys()

    @property
    def next(self) -> InputFile | None:
        """The one whose turn it is, as far as it was read."""
        return self._read[0] if self._read else None

    def fill(self) -> bool:
        """Read on until as many wait as should; whether there are any."""
        self._pairs = dict.fromkeys(map(_pair, self._read))
        while self._found is not None and (self._journal.keeps or len(self._read) < self._reach.first):
            self._read_one()
        return bool(self._read)

    def read_on(self) -> None:
        """Read what little there is time for."""
        for _ in range(self._reach.step):
            if self._found is None or len(self._read) >= self._reach.ahead:
                return
            self._read_one()

    def take(self) -> InputFile:
        """The one whose turn it is; there has to be one."""
        return self._read.popleft()

    def rest(self) -> Iterator[InputFile]:
        """All that were not taken, to the last one."""
        while self._read or self.fill():
            yield self.take()

    def waiting(self) -> Iterator[InputFile]:
        """Those that were read and not taken."""
        return iter(self._read)

    def _keeps(self, size: int) -> bool:
        return size <= self._reach.kept_file and len(self._read) < self._reach.ahead and not self._journal.keeps

    def _read_one(self) -> None:
        assert self._found is not None
        file = next(self._found, None)
        self._progress.tick()
        if file is None:
            self._found = None
            self._progress.total = self._met
        elif file.header is not None:
            self._met += 1
            self._read.append(file)
            self._pairs[_pair(file)] = None
        elif file.why:
            self._met += 1
            self._progress.failure(f"{file.shown}: not sent: {file.why}", instances=1)
            self._journal.file(file, ItemState.FAILED, reason=file.reason, detail=file.detail)
        else:
            self._progress.note(f"{file.shown}: left out: it lies in itself")


def _pair(file: InputFile) -> Pair:
    header = file.header
    assert header is not None
    return header.sop_class_uid, header.transfer_syntax_uid
