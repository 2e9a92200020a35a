"""One chunk from claim to end: the same for the queue's workers and for synchronous use."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dicomferry.models import claim, dimse_status, lease, plan_store, remote_store, retry, telemetry
from dicomferry.models.answers.quirks import Quirks
from dicomferry.models.claim import PLAN, Claim
from dicomferry.models.database import AnyRow, Database
from dicomferry.models.dimse_status import Answer, Rule
from dicomferry.models.errors import DicomferryError, DimseError, LeaseLost, OutOfReach
from dicomferry.models.outcome import Outcome
from dicomferry.models.remote import Remote
from dicomferry.models.spec import RETRIEVES
from dicomferry.models.state import AttemptEnd, ItemState
from dicomferry.workers import plan, probe
from dicomferry.workers.environment import INTERNAL, decide, sentence
from dicomferry.workers.environment import STUCK as STUCK
from dicomferry.workers.environment import Environment as Environment
from dicomferry.workers.heartbeat import Heartbeat
from dicomferry.workers.operations import OPERATIONS, Answered, Work
from dicomferry.workers.pace import AttemptPace
from dicomferry.workers.recorder import Recorder
from dicomferry.workers.retrieval import retrieve, retrieve_plan

RECORD_ITEMS = 100
RECORD_SECONDS = 0.5
TURN_SECONDS = 5.0
"""So long a slot goes on with the next due chunk by itself, which saves the way over the broker."""
LARGE_BYTES = 16 << 20
"""Before a file of this size is sent, what is known already is recorded."""
CONGESTION_PAUSES = (0.5, 2.0, 5.0)
"""Seconds to wait, within an association, after the first, second ... refusal for lack of resources in a row."""

Try = Callable[[Environment, Claim, Heartbeat, Remote], None]
ATTEMPTS: Mapping[str, Try] = dict.fromkeys(RETRIEVES, retrieve.run)
"""What tries a chunk of a kind that is not items in, one answer per item out."""
PLANS: Mapping[str, Callable[[Database, Claim, Heartbeat, Callable[[], object]], bool]] = {
    "store": plan.run,
    **dict.fromkeys(RETRIEVES, retrieve_plan.run),
}

log = telemetry.logger(__name__)


def run_due(environment: Environment, lane: str) -> None:
    """Run due chunks of a lane one after the other; after TURN_SECONDS whoever hears the bell goes on with the rest.

    Raises what `run_next` raises.
    """
    until = environment.clock() + TURN_SECONDS
    while environment.clock() < until:
        if not _run_one(environment, lane):
            return
    _ring_for_more(environment, lane)


def run_next(environment: Environment, lane: str) -> bool:
    """Claim the best due chunk of a lane and run it to the end of the attempt; False when there was none.

    Whatever goes wrong is on the record or in the log afterwards; nothing is raised but OutOfReach from the claim.
    """
    ran = _run_one(environment, lane)
    if ran:
        _ring_for_more(environment, lane)
    return ran


def _ring_for_more(environment: Environment, lane: str) -> None:
    if claim.any_due(environment.database, lane):
        environment.ring(lane)


def _run_one(environment: Environment, lane: str) -> bool:
    settings = environment.settings
    held = claim.claim(
        environment.database,
        lane,
        environment.worker,
        lease_seconds=settings.lease_seconds,
        jitter=environment.jitter(),
    )
    if held is None:
        return False
    with telemetry_context(held):
        _run(environment, held)
    return True


def telemetry_context(held: Claim):  # type: ignore[no-untyped-def]
    """Log lines of this attempt carry its ids."""
    import structlog

    return structlog.contextvars.bound_contextvars(job=held.job_id, chunk=held.chunk_id, fence=held.fence)


def _run(environment: Environment, held: Claim) -> None:
    settings = environment.settings
    remote = remote_store.load(
        environment.database, held.remote_id, ae_title=settings.ae_title, timeouts=settings.timeouts.value()
    )
    waits = remote.timeouts
    watchdog = max(waits.store_answer, waits.first_answer, waits.progress, waits.connect + waits.acse)
    impatient = environment.database.impatient()
    heart = Heartbeat(
        impatient,
        held,
        environment.worker,
        lease_seconds=settings.lease_seconds,
        watchdog=watchdog + settings.lease_seconds + 30,
    )
    try:
        with heart:
            if held.more:  # only now: a mute broker may take a while, and the lease has to be kept
                environment.ring(held.lane)
            if held.kind == PLAN:
                _plan(environment, held, heart)
                return
            remote = replace(remote, pace=AttemptPace(environment.database, held, heart))
            # An echo is a look by itself.
            if not held.probe or held.kind == "echo" or probe.finds_it_well(environment, held, heart, remote):
                ATTEMPTS.get(held.kind, _attempt)(environment, held, heart, remote)
    except LeaseLost as error:
        # The sweep has ended this attempt, or will; whoever has the chunk now goes on with it.
        log.warning("attempt given up", error=str(error))
    except OutOfReach as error:
        log.error("the record is out of reach; the lease will run out", error=str(error))
    finally:
        impatient.close()


def _plan(environment: Environment, held: Claim, heart: Heartbeat) -> None:
    database = environment.database
    try:
        planned = PLANS[held.spec.kind](database, held, heart, lambda: environment.ring(held.spec.lane))
    except DicomferryError:
        raise
    except Exception as error:
        log.exception("plan failed")
        now = database.read(database.now)
        decision = decide(environment, held, INTERNAL, left=1, progressed=False, now=now)
        lease.finish(database, held, end=AttemptEnd.ERROR, decision=decision, detail=sentence(error))
        return
    end = AttemptEnd.COMPLETED if planned or not heart.stop else AttemptEnd.INTERRUPTED
    lease.finish(database, held, end=end, decision=None, planned=planned)


def _attempt(environment: Environment, held: Claim, heart: Heartbeat, remote: Remote) -> None:
    pace = remote.pace if held.kind == "store" and isinstance(remote.pace, AttemptPace) else None
    _Attempt(environment, held, heart, pace).run(remote)


@dataclass
class _Attempt:
    """One try of a chunk that speaks to a remote."""

    environment: Environment
    held: Claim
    heart: Heartbeat
    pace: AttemptPace | None = None
    """Of a store: when the next instance may go."""
    waiting: deque[AnyRow] = field(default_factory=deque)
    charges: dict[int, int] = field(default_factory=dict)
    reasons: dict[int, str | None] = field(default_factory=dict)
    in_flight: AnyRow | None = None
    buffered: list[Outcome] = field(default_factory=list)
    flushed_at: float = 0.0
    finished: int = 0
    answered: int = 0
    refusals: int = 0
    """In a row, for lack of resources, of items that are not known to be at fault themselves."""
    quirks: Quirks = field(default_factory=dict)
    refused_after: dict[int, int] = field(default_factory=dict)
    """For each item refused for lack of resources, how many others had been answered for good by then."""

    def run(self, remote: Remote) -> None:
        """Send what is pending, record what comes of it, end the attempt."""
        database = self.environment.database
        rows = plan_store.pending_items(database, self.held.chunk_id)
        if self.held.kind == "store":
            try:
                rows, decided = plan.examine(database, self.held, rows)
            except DicomferryError:
                raise
            except Exception as error:
                log.exception("items could not be examined")
                self.waiting.extend(rows)
                self._end(INTERNAL, sentence(error), AttemptEnd.ERROR)
                return
            self.buffered += decided
            self.finished += len(decided)
        self.waiting.extend(rows)
        self.quirks = remote.quirks
        self.charges = {row.id: row.charges for row in rows}
        self.reasons = {row.id: row.reason for row in rows}
        self.refused_after = {row.id: 0 for row in rows if self._lacked_resources(row)}
        self.flushed_at = time.monotonic()
        fault, detail, end = self._converse(remote, rows)
        self._end(fault, detail, end)

    def _converse(self, remote: Remote, rows: Sequence[AnyRow]) -> tuple[Answer | None, str | None, AttemptEnd]:
        """Run the operation until it is through or at fault: (fault, sentence, how the attempt ends)."""
        if not rows:
            return None, None, AttemptEnd.COMPLETED
        work = Work(
            remote=remote,
            spec=self.held.spec,
            rows=rows,
            feed=self._feed(),
            coming=self._coming,
            heart=self.heart,
            record=Recorder(self.environment.database, self.held, self.heart),
        )
        answers = OPERATIONS[self.held.kind](work)
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
            fault = STUCK if self.heart.gave_up else dimse_status.for_error(error, remote.quirks)
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
            raise RuntimeError(f"{self.held.kind} ended without an answer to item {row.id}")
        self.in_flight = None
        self.waiting.appendleft(row)

    def _feed(self) -> Iterator[AnyRow]:
        """The items one by one, until there are no more or a stop is asked for."""
        while self.waiting and not self.heart.stop:
            if self.pace:
                self.pace.instance()
                if self.heart.stop:
                    return
            row = self.waiting.popleft()
            if self.held.careful:
                self._flush(in_flight=row.id)
            elif row.size and row.size >= LARGE_BYTES:
                self._flush()
            self.in_flight = row
            yield row

    def _coming(self) -> AnyRow | None:
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
                self.heart.pause(CONGESTION_PAUSES[max(self.refusals - 1, 0)])
        last = self.held.careful and not self.waiting
        if last or len(self.buffered) >= RECORD_ITEMS or time.monotonic() - self.flushed_at >= RECORD_SECONDS:
            self._flush()
        return None

    def _book(self, row: AnyRow, answered: Answered) -> ItemState:
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
                detail=plan.printable(answered.detail),
                charges=charges,
                sent_bytes=answered.sent_bytes,
                sent_as=answered.sent_as,
                tried=answered.tried,
            )
        )
        return state

    def _lacked_resources(self, row: AnyRow) -> bool:
        """Whether that is what the remote said of the item the last time."""
        own = self.quirks
        return (
            row.status is not None and dimse_status.for_status(self.held.kind, row.status, own).rule is Rule.CONGESTED
        )

    def _to_blame(self, row: AnyRow) -> bool:
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
        if row is None:
            return fault
        if (
            fault.rule not in (Rule.BROKEN, Rule.FINAL, Rule.AGAIN)
            or self._book(row, Answered(item_id=row.id, answer=fault, detail=detail)) is ItemState.PENDING
        ):
            self.waiting.append(row)
        return fault

    def _flush(self, in_flight: int | None = None) -> None:
        """Record what is buffered. Blocks while the database is away; raises LeaseLost when that took too long."""
        self.heart.progress(0)
        if self.buffered or in_flight is not None:
            lease.record(self.environment.database, self.held, self.buffered, in_flight=in_flight)
            self.buffered = []
        self.flushed_at = time.monotonic()
        self.heart.progress(0)

    def _end(self, fault: Answer | None, detail: str | None, end: AttemptEnd) -> None:
        self.heart.progress(0)
        database = self.environment.database
        interrupted = end in (AttemptEnd.INTERRUPTED, AttemptEnd.CANCELLED)
        decision = None
        if not interrupted:
            decision = decide(
                self.environment,
                self.held,
                fault,
                left=len(self.waiting),
                progressed=self.answered > 0,
                now=database.read(database.now),
            )
        lease.finish(
            database,
            self.held,
            end=end,
            decision=decision,
            outcomes=self.buffered,
            finished_items=self.finished,
            detail=detail,
        )
