"""One attempt at a chunk that is items in, one answer per item out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dicomferry.models import telemetry
from dicomferry.models.record.jobs import leases, twins
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.jobs.items import Item, pending_items
from dicomferry.models.rules import retry
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Answer, Rule
from dicomferry.models.rules.answers.quirks import Quirks
from dicomferry.models.rules.errors import DicomferryError, DimseError, LeaseLost, OutOfReach
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.situation import Account, Tried
from dicomferry.models.rules.state import AttemptEnd, ItemState
from dicomferry.models.rules.text import printable
from dicomferry.workers.attempts import probe
from dicomferry.workers.attempts.environment import INTERNAL, STUCK, Environment, sentence
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.attempts.pace import AttemptPace
from dicomferry.workers.attempts.recorder import Recorder
from dicomferry.workers.attempts.work import Answered, Work
from dicomferry.workers.operations import OPERATIONS
from dicomferry.workers.sending import plan
from dicomferry.workers.sending.turns import Turns

Ended = tuple[Answer | None, str | None, AttemptEnd]
"""The fault that ended a conversation, if one did, in a sentence, and how the attempt ends if it is the last."""

log = telemetry.logger(__name__)


def run(environment: Environment, lease: Lease, heart: Heartbeat, remote: Remote) -> None:
    """Try what is pending of a chunk, and end the attempt. Raises LeaseLost, OutOfReach."""
    pace = remote.pace if lease.kind == Kind.STORE and isinstance(remote.pace, AttemptPace) else None
    _ItemAttempt(environment, lease, heart, pace).run(remote)


@dataclass
class _ItemAttempt:
    """One try of a chunk that speaks to a remote."""

    environment: Environment
    lease: Lease
    heart: Heartbeat
    pace: AttemptPace | None = None
    """What says when the next instance of a store may go."""
    waiting: deque[Item] = field(default_factory=deque)
    charges: dict[int, int] = field(default_factory=dict)
    reasons: dict[int, str | None] = field(default_factory=dict)
    in_flight: Item | None = None
    buffered: list[Outcome] = field(default_factory=list)
    flushed_at: float = 0.0
    finished: int = 0
    answered: int = 0
    refusals: int = 0
    """Refusals in a row for lack of resources, of items that are not known to be at fault themselves."""
    quirks: Quirks = field(default_factory=dict)
    refused_after: dict[int, int] = field(default_factory=dict)
    """For each item refused for lack of resources, how many others had been answered for good by then."""
    turns: Turns = field(init=False)
    charged: bool = False
    """Whether an item was in flight when the last association broke."""
    well: bool = False
    """Whether the remote answers all the same: something else when the last association broke, or a C-ECHO since."""

    def __post_init__(self) -> None:
        self.turns = Turns(self.lease.kind, most_in_a_row=self.environment.tuning.most_broken_in_a_row)

    def run(self, remote: Remote) -> None:
        """Send what is pending, record what comes of it, end the attempt."""
        self.quirks = remote.quirks
        self.flushed_at = time.monotonic()
        try:
            rows = self._pending()
        except DicomferryError:
            raise
        except Exception as error:
            log.exception("items could not be examined")
            self._end(INTERNAL, sentence(error), AttemptEnd.ERROR, left=1)
            return
        self._end(*self._take_turns(remote, rows))

    def _pending(self) -> Sequence[Item]:
        """The items that wait; what is decided without the remote is booked."""
        self._flush()
        rows = pending_items(self.environment.database, self.lease.chunk_id)
        if self.lease.kind == Kind.STORE:
            rows, decided = plan.examine(self.environment.database, self.lease, rows)
            self.buffered += decided
            self.finished += len(decided)
        self.turns.returned = False
        self.charges |= {row.id: row.charges for row in rows}
        self.reasons |= {row.id: row.reason for row in rows}
        self.refused_after = {row.id: 0 for row in rows if self._lacked_resources(row)} | self.refused_after
        return rows

    def _take_turns(self, remote: Remote, rows: Sequence[Item]) -> Ended:
        """One conversation after the other, until every item had its turn or the remote is at fault itself."""
        met: Ended = (None, None, AttemptEnd.COMPLETED)
        while group := self.turns.group(rows):
            self.waiting.extend(group)
            answered = self.answered
            ended = self._converse(remote, group)
            fault, _, end = ended
            if fault is not None:
                met = ended
                if not self._goes_on(remote, fault, answered=self.answered > answered):
                    break
            elif end is not AttemptEnd.COMPLETED:
                return ended
            if not (self.waiting or self.turns.untried or self.turns.returned):
                break
            self.waiting.clear()
            rows = self._pending()
        return met

    def _goes_on(self, remote: Remote, fault: Answer, *, answered: bool) -> bool:
        """Whether the item that was in flight when the association broke is at fault itself: others got through on that
        association, or a C-ECHO does now. Then whoever is behind it has a turn at once.
        """
        if self.lease.kind != Kind.STORE or not self.charged or self.heart.gave_up or self.heart.stop:
            return False
        if self.turns.is_hopeless(answered):
            self.well = False
            return False
        self._flush()
        self.well = answered or probe.answers(remote, self.heart)
        return self.well

    def _converse(self, remote: Remote, rows: Sequence[Item]) -> Ended:
        """Run the operation until it is through or at fault: (fault, sentence, how the attempt ends)."""
        work = Work(
            remote=remote,
            spec=self.lease.spec,
            rows=rows,
            feed=self._feed(),
            coming=self._coming,
            heart=self.heart,
            record=Recorder(self.environment.database, self.lease, self.heart),
            tuning=self.environment.tuning,
        )
        answers = {**OPERATIONS, **self.environment.operations}[self.lease.kind](work)
        try:
            for answered in answers:
                fault = self._take(answered)
                if fault is not None:
                    return fault, answered.detail, AttemptEnd.ERROR
            self._put_back()
        except (LeaseLost, OutOfReach):
            raise
        except DimseError as error:
            self.heart.require_lease()
            if self.heart.cut_short:
                self._put_back()
                return None, sentence(error), self._stopped()
            fault = STUCK if self.heart.gave_up else lookup.for_error(error, remote.quirks)
            return self._broken(fault, sentence(error)), sentence(error), AttemptEnd.ERROR
        except Exception as error:
            log.exception("attempt failed")
            self.heart.require_lease()
            return self._broken(INTERNAL, sentence(error)), sentence(error), AttemptEnd.ERROR
        finally:
            self.heart.on_abort(None)
            close = getattr(answers, "close", None)
            if close:
                close()
        if self.waiting:
            return None, None, self._stopped()
        return None, None, AttemptEnd.COMPLETED

    def _stopped(self) -> AttemptEnd:
        return AttemptEnd.CANCELLED if self.heart.signals.cancel else AttemptEnd.INTERRUPTED

    def _put_back(self) -> None:
        """An operation that was asked to stop in the middle of an item ends without an answer to it."""
        self.heart.require_lease()
        row = self.in_flight
        if row is None:
            return
        if not self.heart.stop:
            raise RuntimeError(f"{self.lease.kind} ended without an answer to item {row.id}")
        self.in_flight = None
        self.waiting.appendleft(row)

    def _feed(self) -> Iterator[Item]:
        """The items one by one, until there are no more or a stop is asked for."""
        while self.waiting and not self.heart.stop:
            if self.pace:
                self.pace.instance()
                if self.heart.stop:
                    return
            row = self.waiting.popleft()
            if self.lease.careful:
                self._flush(in_flight=row.id)
            elif row.size and row.size >= self.environment.tuning.records.large_bytes:
                self._flush()
            self.in_flight = row
            yield row

    def _coming(self) -> Item | None:
        return self.waiting[0] if self.waiting and not self.heart.stop else None

    def _take(self, answered: Answered) -> Answer | None:
        """Book one answer; the fault that ends the attempt, if this is one."""
        self.heart.require_lease()
        row, self.in_flight = self.in_flight, None
        assert row is not None and row.id == answered.item_id
        rule = answered.answer.rule
        charges = self.charges[row.id]
        state = self._book(row, answered)
        if rule is Rule.CONGESTED:
            self.refused_after[row.id] = self.answered
            self.refusals += self.charges[row.id] == charges
        else:
            self.refusals = 0
        if state is ItemState.PENDING:
            self.waiting.append(row)
            if rule in (Rule.HOLD, Rule.AWAY, Rule.SUSPECT) or self.refusals >= retry.MAX_CONGESTED_IN_A_ROW:
                return answered.answer
            if rule is Rule.CONGESTED:
                self._flush()
                if self.pace:
                    self.pace.short_of_resources(self.answered)
                self.heart.pause(self.environment.tuning.congestion_pauses[max(self.refusals - 1, 0)])
        last, records = self.lease.careful and not self.waiting, self.environment.tuning.records
        if last or len(self.buffered) >= records.items or time.monotonic() - self.flushed_at >= records.seconds:
            self._flush()
        return None

    def _book(self, row: Item, answered: Answered) -> ItemState:
        answer = answered.answer
        state, charges = retry.decide_item(
            answer,
            charges=self.charges[row.id],
            to_blame=answer.rule is not Rule.CONGESTED or self._to_blame(row),
            again=self.reasons[row.id] == answer.reason,
        )
        self.charges[row.id], self.reasons[row.id] = charges, answer.reason
        if state is not ItemState.PENDING:
            self.finished += 1
            # What was wrong on our side says nothing of the remote.
            self.answered += answered.status is not None
        self.buffered.append(
            Outcome(
                item_id=row.id,
                state=state,
                reason=answer.reason,
                status=answered.status,
                detail=printable(answered.detail),
                charges=charges,
                sent_bytes=answered.sent_bytes,
                sent_as=answered.sent_as,
                tried=answered.tried,
            )
        )
        self.turns.returned |= twins.gives_up(self.buffered[-1])
        return state

    def _lacked_resources(self, row: Item) -> bool:
        """Whether that is what the remote said of the item the last time."""
        service, own = self.lease.spec.service, self.quirks
        return row.status is not None and lookup.for_status(service, row.status, own).rule is Rule.CONGESTED

    def _to_blame(self, row: Item) -> bool:
        """Whether a lack of resources is the item's own: some archives refuse one object so for ever.

        It is where the remote took others since it refused this one, or took others and this one alone is left.
        """
        refused_after = self.refused_after.get(row.id)
        if self.charges[row.id] or (refused_after is not None and self.answered > refused_after):
            return True
        return not self.waiting and self.answered > 0

    def _broken(self, fault: Answer, detail: str) -> Answer:
        """The conversation ended in an exception: the item in flight is charged where the rule says so."""
        row, self.in_flight = self.in_flight, None
        self.charged = row is not None and fault.rule is Rule.BROKEN
        if row is None:
            return fault
        if (
            fault.rule not in (Rule.BROKEN, Rule.FINAL, Rule.AGAIN)
            or self._book(row, Answered(item_id=row.id, answer=fault, detail=detail)) is ItemState.PENDING
        ):
            if self.charged:
                self.turns.broke(row)
            else:
                self.waiting.append(row)
        return fault

    def _flush(self, in_flight: int | None = None) -> None:
        """Record what is buffered. Blocks while the database is away; raises LeaseLost when that took too long."""
        self.heart.progress(0)
        if self.buffered or in_flight is not None:
            leases.record(self.environment.database, self.lease, self.buffered, in_flight=in_flight)
            self.buffered = []
        self.flushed_at = time.monotonic()
        self.heart.progress(0)

    def _end(self, fault: Answer | None, detail: str | None, end: AttemptEnd, *, left: int = 0) -> None:
        self.heart.progress(0)
        cause = None
        if end not in (AttemptEnd.INTERRUPTED, AttemptEnd.CANCELLED):
            left += len(self.waiting) + self.turns.left
            cause = Tried(fault=fault, left=left, progressed=self.answered > 0, well=self.well)
        account = Account(end=end, cause=cause, finished=self.finished, detail=detail)
        self.environment.end(self.lease, account, outcomes=self.buffered)
