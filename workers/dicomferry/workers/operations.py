"""The operations that a chunk may ask for, each as one generator: items in, one answer per item out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from operator import attrgetter

from dicomferry.models.record.jobs.items import Item
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Answer, Rule
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.spec import StoreSpec
from dicomferry.workers.attempts.work import Answered, Operation, Work


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
    from dicomferry.workers.sending.verification import verified

    return verified(work, _send)


_INSTANCE = attrgetter("id", "path", "size", "mtime_ns", "sop_class_uid", "sop_instance_uid", "transfer_syntax_uid")
"""The fields of an item that make a LocalInstance."""
_CONTEXT = attrgetter("sop_class_uid", "transfer_syntax_uid")
"""The fields of an item that say what has to be proposed so that it can be sent."""


def _send(work: Work, rows: Iterator[Item]) -> Iterator[Answered]:
    from dicomferry.workers.dimse.local_instance import LocalInstance
    from dicomferry.workers.dimse.store import send
    from dicomferry.workers.dimse.wire.contexts import Convert

    def coming() -> LocalInstance | None:
        row = work.coming()
        return None if row is None else LocalInstance(*_INSTANCE(row))

    instances = (LocalInstance(*_INSTANCE(row)) for row in rows)
    pairs = list(dict.fromkeys(map(_CONTEXT, work.rows)))
    answers = send(
        work.remote,
        instances,
        pairs,
        convert=Convert.ALL if isinstance(work.spec, StoreSpec) and work.spec.transcode else Convert.UNCOMPRESSED,
        progress=work.remote.pace.sent if work.remote.pace else work.heart.progress,
        on_open=lambda association: work.heart.on_abort(association.abort, impatient=True),
        coming=coming,
        strict_meta=isinstance(work.spec, StoreSpec) and work.spec.strict_meta,
        run_bytes=work.tuning.run_bytes,
    )
    meant: dict[int, Answer] = {}
    for answer in answers:
        if answer.status == 0 and answer.reason is not None:
            row = lookup.local(answer.reason)
        elif answer.status in meant:
            row = meant[answer.status]
        elif answer.status is not None:
            row = meant[answer.status] = work.status("store", answer.status)
        else:
            # Whatever it is about a file, what was planned to be sent was not.
            row = lookup.local(answer.reason or Reason.CONTEXT_REFUSED)
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
    from dicomferry.workers.finding.inquiry import find as ask

    return ask(work)


OPERATIONS: Mapping[Kind, Operation] = {Kind.ECHO: echo, Kind.STORE: store, Kind.FIND: find}
