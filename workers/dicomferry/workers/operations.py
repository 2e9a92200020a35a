"""The operations that a chunk may ask for, each as one generator: items in, one answer per item out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dicomferry.models import dimse_status
from dicomferry.models.database import AnyRow
from dicomferry.models.dimse_status import Answer, Rule
from dicomferry.models.remote import Remote
from dicomferry.models.spec import StoreSpec
from dicomferry.workers.heartbeat import Heartbeat


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a peer, or our own side before asking it, said of one item."""

    item_id: int
    answer: Answer
    status: int | None = None
    detail: str | None = None
    sent_bytes: int = 0
    sent_as: str | None = None


Operation = Callable[[Remote, Sequence[AnyRow], Iterator[AnyRow], Heartbeat], Iterator[Answered]]
"""(remote, all items that may come, the items one by one, heartbeat). The next item is pulled only after the answer to
the last was taken, so the item pulled last is the one in flight when an exception escapes."""


def echo(remote: Remote, _rows: Sequence[AnyRow], feed: Iterator[AnyRow], heart: Heartbeat) -> Iterator[Answered]:
    """One C-ECHO an item."""
    from dicomferry.workers.dimse.echo import echo as send_echo

    for row in feed:
        result = send_echo(remote, progress=heart.progress)
        detail = f"TCP {result.tcp_ms:.1f} ms, association {result.association_ms:.1f} ms, echo {result.echo_ms:.1f} ms"
        yield Answered(
            item_id=row.id, answer=dimse_status.for_status("echo", result.status), status=result.status, detail=detail
        )


def store(remote: Remote, rows: Sequence[AnyRow], feed: Iterator[AnyRow], heart: Heartbeat) -> Iterator[Answered]:
    """C-STORE of local files."""
    from dicomferry.workers.dimse.store import LocalInstance, send

    instances = (
        LocalInstance(
            row.id,
            row.path,
            row.size,
            row.mtime_ns,
            row.sop_class_uid,
            row.sop_instance_uid,
            row.transfer_syntax_uid,
        )
        for row in feed
    )
    asked = heart.held.spec
    pairs = list(dict.fromkeys((row.sop_class_uid, row.transfer_syntax_uid) for row in rows))
    answers = send(
        remote,
        instances,
        pairs,
        transcode=isinstance(asked, StoreSpec) and asked.transcode,
        progress=heart.progress,
        on_open=lambda association: heart.on_abort(association.abort),
    )
    for answer in answers:
        if answer.status is not None:
            row = dimse_status.for_status("store", answer.status)
        else:
            reason = answer.reason or "failure"
            row = Answer(rule=Rule.FINAL, reason=reason, advice=dimse_status.for_local(reason), clause="")
        yield Answered(
            item_id=answer.instance.item_id,
            answer=row,
            status=answer.status,
            detail=answer.detail,
            sent_bytes=answer.sent_bytes,
            sent_as=answer.sent_as,
        )


OPERATIONS: Mapping[str, Operation] = {"echo": echo, "store": store}
