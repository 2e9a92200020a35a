"""C-STORE as SCU (PS3.7 9.1.1): files in, one answer per file out, over as many associations as it takes.

What is wrong with one file is that file's answer and never disturbs the association; what is wrong with the
connection or the peer is an exception.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from typing import BinaryIO, NamedTuple

from dicomferry.models.rules.errors import ContextNotAccepted, UnusableFile
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.uid import too_long
from dicomferry.workers.dimse.heads import Heads
from dicomferry.workers.dimse.local_instance import LocalInstance, OpenInstance, open_instance
from dicomferry.workers.dimse.requestor import Association, Progress, open_association
from dicomferry.workers.dimse.wire import contexts, message, store_message
from dicomferry.workers.dimse.wire.associate_items import OUR_MAX_PDU
from dicomferry.workers.dimse.wire.contexts import Context, Convert, Pair, Proposal
from dicomferry.workers.dimse.wire.message import Message
from dicomferry.workers.dimse.wire.pdu_writer import (
    RUN_BYTES,
    DataPath,
    DataSource,
    FileSource,
    SourceFailed,
    StreamSource,
)
from dicomferry.workers.files.data_set import is_instance

# PS3.8 table 9-18.
_RESULTS = {
    1: "rejected by the application",
    2: "rejected by the service provider",
    3: "abstract syntax not supported",
    4: "transfer syntaxes not supported",
    None: "the peer did not answer this context",
}

_NO_ABSTRACT_SYNTAX = 3

MOST_TRIES = 2
"""Times that a file is sent, at most, if it is changed while it is sent."""
RUNS_HELD = 8
"""How many runs long a file may be that is read whole before its turn, while the peer is at work on the one before, and
then goes out in one call."""
META_DIFFERS = Reason.META_DIFFERS
"""The remark on a file that was sent though its meta group names another class or instance than its data set."""

_NO_COPY = contextlib.nullcontext()

OnOpen = Callable[[Association], None]
Coming = Callable[[], LocalInstance | None]


class StoreAnswer(NamedTuple):
    """What came of one file.

    `status` is the peer's, None where the file was not sent; then `reason` is the stable word that says why. Of a file
    that was sent it is META_DIFFERS or None. `detail` is a sentence for people. `sent_bytes` counts bytes of data set
    on the wire; `sent_as` is the transfer syntax UID that the data set was re-encoded to, None for the file's own.
    """

    instance: LocalInstance
    status: int | None
    reason: Reason | None = None
    detail: str | None = None
    sent_bytes: int = 0
    sent_as: str | None = None


def send(
    remote: Remote,
    items: Iterator[LocalInstance],
    pairs: Collection[Pair],
    *,
    convert: Convert = Convert.UNCOMPRESSED,
    priority: int = message.PRIORITY_MEDIUM,
    max_pdu: int = OUR_MAX_PDU,
    progress: Progress | None = None,
    on_open: OnOpen | None = None,
    coming: Coming | None = None,
    strict_meta: bool = False,
    run_bytes: int = RUN_BYTES,
) -> Iterator[StoreAnswer]:
    """Send `items` one after the other; the next one is pulled only after the answer to the last was taken.

    `pairs` are the (SOP class UID, transfer syntax UID) that will be met; the first association is opened for
    as many of them as it holds before an item is pulled, another one whenever an item needs contexts that the
    open one never proposed; there may be more pairs by then. `convert` says which files are sent in another syntax
    where the peer does not take their own, `max_pdu` how long a PDU the peer may send. `on_open` hears of each
    association. `progress(n)` is called whenever bytes moved, with the bytes of data set among them. `coming` names
    the item that will be pulled next, as far as is known: its file is opened while the peer is at work on the last
    one. `strict_meta` forbids files whose meta group names another class or instance than their data set. `run_bytes`
    of a file are read and sent at once. A file that is changed while it is sent is sent again,
    over another association. Raises what `open_association` raises, AssociationAborted, DimseTimeout("progress" while
    sending, "store_answer" after the last fragment), ProtocolViolation: the item pulled last was in flight then.
    Closing the iterator releases the association.
    """
    sender = _Sender(remote, pairs, convert, priority, max_pdu, progress, on_open, coming, strict_meta, run_bytes)
    try:
        sender.open_first()
        for item in items:
            yield sender.send(item)
    except GeneratorExit:
        # Between two messages, so there is nothing to abort.
        sender.release()
        raise
    except BaseException:
        sender.abort()
        raise
    finally:
        sender.drop_next()
    sender.release()


class _Sender:
    """The association that is open, if any, and the data path over it."""

    def __init__(
        self,
        remote: Remote,
        pairs: Collection[Pair],
        convert: Convert,
        priority: int,
        max_pdu: int,
        progress: Progress | None,
        on_open: OnOpen | None,
        coming: Coming | None,
        strict_meta: bool,
        run_bytes: int,
    ) -> None:
        self._remote = remote
        self._convert = convert
        self._priority = priority
        self._max_pdu = max_pdu
        self._pairs = pairs
        self._seconds = remote.timeouts.progress
        self._progress = progress
        self._on_open = on_open
        self._coming = coming
        self._strict_meta = strict_meta
        self._run_bytes = run_bytes
        self._heads = Heads()
        self._next: OpenInstance | None = None
        self._association: Association | None = None
        self._proposed: tuple[Proposal, ...] = ()
        self._chosen: dict[Pair, Context] = {}
        self._path: DataPath | None = None

    def open_first(self) -> None:
        groups = self._groups()
        if groups:
            self._open(groups[0])

    def _groups(self) -> list[tuple[Proposal, ...]]:
        return contexts.group(self._pairs, convert=self._convert)

    def _open(self, proposals: tuple[Proposal, ...]) -> Association:
        association = open_association(self._remote, proposals, max_pdu=self._max_pdu, progress=self._progress)
        self._association = association
        self._proposed = proposals
        self._chosen.clear()
        self._path = None
        if self._on_open is not None:
            self._on_open(association)
        return association

    def release(self) -> None:
        if self._association is not None:
            self._association.release()
            self._association = None

    def abort(self) -> None:
        if self._association is not None:
            self._association.close()
            self._association = None

    def _association_for(self, pair: Pair) -> Association:
        """The open association if it proposed what this pair needs, else another one that does."""
        if self._association is not None and self._serves(self._proposed, pair):
            return self._association
        self.release()
        for group in (self._proposed, *self._groups()):
            if self._serves(group, pair):
                return self._open(group)
        # Not in the plan: the file was written anew since, in another syntax.
        return self._open(contexts.extended(self._proposed, pair, convert=self._convert))

    def _serves(self, proposals: tuple[Proposal, ...], pair: Pair) -> bool:
        return contexts.serves(proposals, pair, convert=self._convert)

    def send(self, item: LocalInstance) -> StoreAnswer:
        """Send one file; a fault of the file is an answer, any other an exception."""
        try:
            opened = self._open_instance(item)
            for left in reversed(range(MOST_TRIES)):
                try:
                    return self._send_open(opened)
                except SourceFailed:
                    if not left:
                        raise
                finally:
                    opened.close()
                opened = open_instance(item, self._heads, strict_meta=self._strict_meta, most_held=self._run_bytes)
            raise AssertionError("the last try answers or raises")
        except UnusableFile as error:
            return _unsent(item, error.reason, str(error))
        except ContextNotAccepted as error:
            return _unsent(item, Reason.CONTEXT_REFUSED, _refusal(error, self._convert))

    def _open_instance(self, item: LocalInstance) -> OpenInstance:
        """Opened before, where it was the next one and is still as it was. Raises UnusableFile."""
        ahead, self._next = self._next, None
        if ahead is not None:
            if ahead.item == item and ahead.is_as_seen():
                return ahead
            ahead.close()
        return open_instance(item, self._heads, strict_meta=self._strict_meta, most_held=self._run_bytes)

    def _open_next(self) -> None:
        """Open the next file; what is wrong with it is told when it is its turn."""
        item = self._coming() if self._coming else None
        if item is not None:
            with contextlib.suppress(UnusableFile):
                self._next = open_instance(
                    item,
                    self._heads,
                    strict_meta=self._strict_meta,
                    most_held=RUNS_HELD * self._run_bytes,
                    trusting=True,
                )

    def drop_next(self) -> None:
        """The next file will not be sent after all."""
        if self._next is not None:
            self._next.close()
            self._next = None

    def _send_open(self, opened: OpenInstance) -> StoreAnswer:
        item, header = opened.item, opened.header
        pair = (header.sop_class_uid, header.transfer_syntax_uid)
        association, context = self._association, self._chosen.get(pair)
        if association is None or context is None:
            if not contexts.is_proposable(pair):
                told = too_long("SOP Class UID", pair[0]) or too_long("Transfer Syntax UID", pair[1])
                raise UnusableFile(Reason.BAD_UID, told or f"{pair[0]!r} in {pair[1]!r} cannot be proposed to any peer")
            association = self._association_for(pair)
            context = self._chosen[pair] = contexts.choose(association.contexts, pair, convert=self._convert)
        sent_as = None if context.transfer_syntax == header.transfer_syntax_uid else context.transfer_syntax
        message_id = association.next_message_id()
        command = store_message.request(pair[0], header.sop_instance_uid, message_id, self._priority)
        path = self._data_path(association)
        if sent_as is None and opened.held is not None:
            data = memoryview(opened.held)[header.data_offset : header.data_offset + opened.length]
            sent = path.send_held(
                *(context.context_id, command, data),
                pad=opened.pad,
                seconds=self._seconds,
                run_bytes=self._at_once,
            )
        else:
            sent = self._send_file(path, context.context_id, command, opened, sent_as)
        self._open_next()
        patience = self._remote.timeouts.store_answer
        plain = store_message.success(context.context_id, pair[0], header.sop_instance_uid, message_id)
        remark = META_DIFFERS if header.meta_differs else None
        if association.comes(plain, "store_answer", patience):
            return StoreAnswer(item, 0, remark, header.meta_differs, sent, sent_as)
        answer, status = association.receive_response(message_id, message.C_STORE_RSP, "store_answer", patience)
        _check_instance(association, answer, header.sop_instance_uid)
        told = "; ".join(filter(None, (_comment(answer), header.meta_differs))) or None
        return StoreAnswer(item, status, remark, told, sent, sent_as)

    @property
    def _at_once(self) -> int:
        """Bytes of a file that lies in memory which go out in one call."""
        pace = self._remote.pace
        return self._run_bytes if pace and pace.limits_bytes else RUNS_HELD * self._run_bytes

    def _send_file(
        self, path: DataPath, context_id: int, command: bytes, opened: OpenInstance, sent_as: str | None
    ) -> int:
        """Send a file as it is read, re-encoded where `sent_as` says so; returns the bytes of data set sent."""
        header, length, pad = opened.header, opened.length, opened.pad
        copy: BinaryIO | None = None
        if sent_as is not None:
            (copy, length), pad = _reencoded(opened, sent_as), False
        with copy or _NO_COPY:
            source: DataSource = StreamSource(copy) if copy else FileSource(opened.fd, header.data_offset, opened.head)
            try:
                return path.send(
                    context_id, command, source, length, pad=pad, seconds=self._seconds, is_same=opened.is_unchanged
                )
            except SourceFailed:
                # The fragments that are out cannot be taken back, and a made-up rest must never reach an
                # archive.
                self.abort()
                raise

    def _data_path(self, association: Association) -> DataPath:
        if self._path is None:
            size = association.fragment_size
            self._path = DataPath(association.layer, size, self._progress, run_bytes=self._run_bytes)
        return self._path


def _unsent(item: LocalInstance, reason: Reason, detail: str) -> StoreAnswer:
    return StoreAnswer(item, None, reason, detail)


def _reencoded(opened: OpenInstance, syntax: str) -> tuple[BinaryIO, int]:
    """An open file's data set in another, uncompressed syntax, decompressed where need be, and its length in bytes."""
    # Only here: it brings all of pydicom along.
    from dicomferry.workers.files import transcode

    header = opened.header
    try:
        with opened.descriptor() as fd:
            stream = transcode.decompress(fd, header, syntax)
    except OSError as error:
        raise UnusableFile(Reason.UNREADABLE, error.strerror or str(error)) from error
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    told = is_instance(stream.read(16384), 0, syntax, header.sop_class_uid, header.sop_instance_uid)
    stream.seek(0)
    if told is False:
        stream.close()
        raise SourceFailed(Reason.CHANGING, "the file was changed while it was being sent: it holds another instance")
    return stream, length


def _check_instance(association: Association, answer: Message, sop_instance_uid: str) -> None:
    """Raise ProtocolViolation for an answer about another instance; the UID may be absent (PS3.7 table
    9.3-2).
    """
    answered = answer.command.text(message.AFFECTED_SOP_INSTANCE_UID)
    if answered is not None and answered != sop_instance_uid:
        raise association.violation(f"an answer for instance {answered}, {sop_instance_uid} was sent")


def _comment(answer: Message) -> str | None:
    """The peer's Error Comment; what could steer a terminal is masked, because people will read it on one."""
    text = answer.command.text(message.ERROR_COMMENT)
    return text and "".join(char if char.isprintable() else "?" for char in text)


def _refusal(error: ContextNotAccepted, convert: Convert) -> str:
    """Which context was refused and why, for people."""
    from pydicom.uid import UID

    # Level 0: names for UIDs that break the rules are not worth a warning.
    what = UID(error.sop_class_uid, 0).name
    syntax = UID(error.transfer_syntax_uid, 0).name
    why = _RESULTS.get(error.result, "refused")
    text = f"{what} in {syntax}: {why}" + (f" (result {error.result})" if error.result is not None else "")
    uncompressed = error.transfer_syntax_uid in contexts.UNCOMPRESSED
    hopeless = error.result == _NO_ABSTRACT_SYNTAX and uncompressed
    if hopeless or contexts.convertible(error.transfer_syntax_uid, convert):
        return text
    if uncompressed:
        return f"{text}; `--transcode` sends a re-encoded copy"
    from dicomferry.workers.files import transcode

    match transcode.obstacle(error.transfer_syntax_uid):
        case None:
            return f"{text}; `--transcode` sends a decompressed copy"
        case UnusableFile(reason=Reason.NO_DECODER):
            return f"{text}; `--transcode` could send a decompressed copy, but what decompresses it is not installed"
        case _:
            return f"{text}; nothing here decompresses that syntax"
