"""The operations that a chunk may ask for, each as one generator: items in, one answer per item out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import NamedTuple

from dicomferry.models import dimse_status
from dicomferry.models.database import AnyRow
from dicomferry.models.dimse_status import Answer, Rule
from dicomferry.models.remote import Remote
from dicomferry.models.spec import Spec, StoreSpec
from dicomferry.workers.heartbeat import Heartbeat
from dicomferry.workers.recorder import Recorder


class Answered(NamedTuple):
    """What a peer, or our own side before asking it, said of one item."""

    item_id: int
    answer: Answer
    status: int | None = None
    detail: str | None = None
    sent_bytes: int = 0
    sent_as: str | None = None
    tried: bool = True
    """False where what was tried before was only looked at again."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What an attempt hands to its operation.

    `rows` are all items that may come, `feed` gives them one by one and ends when a stop is asked for. The next item is
    pulled only after the answer to the last was taken, so the item pulled last is the one in flight when an exception
    escapes. An operation that ends without having answered it was stopped in the middle of it. `coming` tells which
    one the next may be, so that something may be prepared for it. `record` is for rows of the operation's own.
    """

    remote: Remote
    spec: Spec
    rows: Sequence[AnyRow]
    feed: Iterator[AnyRow]
    coming: Callable[[], AnyRow | None]
    heart: Heartbeat
    record: Recorder

    def local(self, row: AnyRow, reason: str, detail: str | None = None) -> Answered:
        """An answer that no peer gave, by its reason."""
        return Answered(item_id=row.id, answer=dimse_status.local(reason), detail=detail)

    def status(self, service: str, status: int) -> Answer:
        """What a status of this remote means."""
        return dimse_status.for_status(service, status, self.remote.quirks)


Operation = Callable[[Work], Iterator[Answered]]


def echo(work: Work) -> Iterator[Answered]:
    """One C-ECHO an item."""
    from dicomferry.workers.dimse.echo import echo as send_echo

    for row in work.feed:
        result = send_echo(work.remote, progress=work.heart.progress)
        detail = f"TCP {result.tcp_ms:.1f} ms, association {result.association_ms:.1f} ms, echo {result.echo_ms:.1f} ms"
        yield Answered(item_id=row.id, answer=work.status("echo", result.status), status=result.status, detail=detail)


def store(work: Work) -> Iterator[Answered]:
    """C-STORE of local files, looked for afterwards where that was asked for."""
    if not (isinstance(work.spec, StoreSpec) and work.spec.verify):
        return _send(work, work.feed)
    from dicomferry.workers.verification import verified

    return verified(work, _send)


_INSTANCE = attrgetter("id", "path", "size", "mtime_ns", "sop_class_uid", "sop_instance_uid", "transfer_syntax_uid")
"""Of an item's row, the fields of a LocalInstance."""


def _send(work: Work, rows: Iterator[AnyRow]) -> Iterator[Answered]:
    from dicomferry.workers.dimse.contexts import Convert
    from dicomferry.workers.dimse.local_instance import LocalInstance
    from dicomferry.workers.dimse.store import send

    def coming() -> LocalInstance | None:
        row = work.coming()
        return None if row is None else LocalInstance(*_INSTANCE(row))

    instances = (LocalInstance(*_INSTANCE(row)) for row in rows)
    pairs = list(dict.fromkeys((row.sop_class_uid, row.transfer_syntax_uid) for row in work.rows))
    answers = send(
        work.remote,
        instances,
        pairs,
        convert=Convert.ALL if isinstance(work.spec, StoreSpec) and work.spec.transcode else Convert.UNCOMPRESSED,
        progress=work.remote.pace.sent if work.remote.pace else work.heart.progress,
        on_open=lambda association: work.heart.on_abort(association.abort, impatient=True),
        coming=coming,
        strict_meta=isinstance(work.spec, StoreSpec) and work.spec.strict_meta,
    )
    meant: dict[int, Answer] = {}
    for answer in answers:
        if answer.status == 0 and answer.reason is not None:
            row = dimse_status.local(answer.reason)
        elif answer.status in meant:
            row = meant[answer.status]
        elif answer.status is not None:
            row = meant[answer.status] = work.status("store", answer.status)
        else:
            # Whatever it is about a file, what was planned to be sent was not.
            row = dimse_status.local(answer.reason or "context refused")
            row = row if row.rule is Rule.AGAIN else replace(row, rule=Rule.FINAL)
        yield Answered(
            item_id=answer.instance.item_id,
            answer=row,
            status=answer.status,
            detail=answer.detail,
            sent_bytes=answer.sent_bytes,
            sent_as=answer.sent_as,
        )


def find(work: Work) -> Iterator[Answered]:
    """One C-FIND an item, its matches recorded as they come."""
    from dicomferry.workers.inquiry import find as ask

    return ask(work)


OPERATIONS: Mapping[str, Operation] = {"echo": echo, "store": store, "find": find}
