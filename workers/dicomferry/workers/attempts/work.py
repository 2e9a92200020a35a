"""What an attempt hands to an operation, and what an operation says of each item."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dicomferry.models.record.jobs.items import Item
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Answer
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.spec import Spec
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.attempts.recorder import Recorder
from dicomferry.workers.attempts.tuning import DEFAULT, Tuning


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
    rows: Sequence[Item]
    feed: Iterator[Item]
    coming: Callable[[], Item | None]
    heart: Heartbeat
    record: Recorder
    tuning: Tuning = DEFAULT

    def local(self, row: Item, reason: Reason, detail: str | None = None) -> Answered:
        """An answer that no peer gave, by its reason."""
        return Answered(item_id=row.id, answer=lookup.local(reason), detail=detail)

    def status(self, service: str, status: int) -> Answer:
        """What a status of this remote means."""
        return lookup.for_status(service, status, self.remote.quirks)


Operation = Callable[[Work], Iterator[Answered]]
"""Items in, one answer per item out."""
