"""One attempt at a retrieve: find out what there is, ask for what is missing, see it come, judge what did not.

An attempt is one round at most. Whatever is missing after it gives its slot back and is asked for again, finer, by a
later one; a worker that dies leaves rows from which the next one goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sqlalchemy.engine import Connection

from dicomferry.models import call_store, dimse_status, lease, ledger, remote_store, request_store, retry, telemetry
from dicomferry.models.claim import Claim
from dicomferry.models.database import AnyRow
from dicomferry.models.dimse_status import Answer, Rule
from dicomferry.models.errors import DimseError, LeaseLost, OutOfReach
from dicomferry.models.outcome import Outcome
from dicomferry.models.pairing import GONE, NOT_DELIVERED, NOT_YET
from dicomferry.models.remote import Remote, host_and_port
from dicomferry.models.retry import Decision
from dicomferry.models.rounds import SINGLY, Ask, Limits
from dicomferry.models.spec import GetSpec, MoveSpec
from dicomferry.models.state import AttemptEnd, ItemState
from dicomferry.workers import admission, expectation, fault
from dicomferry.workers.dimse.find import FindStopped
from dicomferry.workers.dimse.retrieval import Report
from dicomferry.workers.environment import STUCK, Environment, decide, internal, sentence
from dicomferry.workers.fault import Fault, Stopped, local
from dicomferry.workers.goal import Blind, Goal, Listed
from dicomferry.workers.heartbeat import Heartbeat
from dicomferry.workers.line import Line, MoveLine
from dicomferry.workers.plan import printable
from dicomferry.workers.watch import Watch

GRACE_SECONDS = 3.0
"""After a failure the storage SCP's rows have so long to tell whether anybody called."""
_CANNOT = range(0xC000, 0xD000)

log = telemetry.logger(__name__)


def run(environment: Environment, held: Claim, heart: Heartbeat, remote: Remote) -> None:
    """Try a chunk of a retrieve and end the attempt. Raises LeaseLost, OutOfReach."""
    _Attempt(environment, held, heart, remote).run()


@dataclass
class _End:
    """How an attempt ends: by default with all that there was to do, so that the request can be closed.

    `failure` is the request's own; `lost` tells what its pending instances come to, `rounds` how many counted.
    """

    decision: Decision | None = None
    end: AttemptEnd = AttemptEnd.COMPLETED
    detail: str | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    failure: Outcome | None = None
    lost: _Lost | None = None
    rounds: int | None = None


@dataclass(frozen=True)
class _Lost:
    """Why what is still missing is given up."""

    reason: str = NOT_DELIVERED
    detail: str | None = None
    gone: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()

    def outcome(self, row: AnyRow) -> Outcome:
        """Of one instance."""
        reason, detail = self.reason, self.detail
        if row.sop_instance_uid in self.gone:
            reason, detail = GONE, None
        elif row.sop_class_uid in self.refused:
            reason, detail = "context refused here", f"our storage SCP refused SOP class {row.sop_class_uid}"
        elif row.sop_instance_uid in self.named:
            detail = f"the archive names it among what it could not send; {detail or ''}".rstrip("; ")
        return Outcome(item_id=row.id, state=ItemState.FAILED, reason=reason, detail=detail, charges=row.charges)


class _Attempt:
    def __init__(self, environment: Environment, held: Claim, heart: Heartbeat, remote: Remote) -> None:
        assert isinstance(held.spec, MoveSpec | GetSpec)
        self.environment = environment
        self.database = environment.database
        self.held = held
        self.heart = heart
        self.remote = remote
        self.spec = held.spec
        self.state = request_store.state(self.database, held.chunk_id)
        self.request_id: int = self.state.row.id
        self.goal: Goal | None = None
        self.watch: Watch | None = None
        self.line: Line | None = None
        self.asking: Ask | None = None
        self.asked = 0
        self.reports: list[Report] = []
        self.callers = admission.Callers()
        self.call_mark = self.arrival_mark = 0
        self.scps: frozenset[int] = frozenset()

    @property
    def progressed(self) -> int:
        """How many instances this attempt has seen come."""
        return self.watch.came if self.watch else 0

    @property
    def comes_here(self) -> bool:
        """Whether a C-MOVE sends to our own storage SCP."""
        return self.spec.kind == "move" and self.spec.destination in (None, self.remote.calling_ae_title)

    @property
    def us(self) -> str:
        """What the archive has to know to send to us."""
        settings = self.environment.settings
        where = host_and_port(admission.public_host(settings), settings.scp.port)
        return f"AE title {self.remote.calling_ae_title}, {where}"

    # --- from claim to end

    def run(self) -> None:
        """Work, and write down what came of it."""
        try:
            end = self._work() if self.state.row.state is ItemState.PENDING else _End()
            if self.line:
                self.line.release()
        except (LeaseLost, OutOfReach):
            raise
        except (Stopped, FindStopped):
            self.heart.require_lease()
            cancelled = self.heart.signals.cancel
            end = _End(end=AttemptEnd.CANCELLED if cancelled else AttemptEnd.INTERRUPTED)
        except Fault as found:
            end = self._at_fault(found)
        except DimseError as error:
            self.heart.require_lease()
            answer = STUCK if self.heart.gave_up else dimse_status.for_error(error)
            end = self._at_fault(Fault(answer, sentence(error)))
        except Exception as error:
            log.exception("attempt failed")
            self.heart.require_lease()
            end = self._at_fault(Fault(internal(error), sentence(error)))
        finally:
            self.heart.on_abort(None)
            if self.line:
                self.line.abort()
        self._finish(end)

    def _finish(self, end: _End) -> None:
        self.heart.progress(0)
        listed = self.state.row.expectation == "images"
        whole = end.decision is None and end.end is AttemptEnd.COMPLETED

        def last(connection: Connection) -> None:
            # What came since the last look: with the job locked, nobody else sees to it.
            request_store.settle(
                connection,
                self.held.chunk_id,
                request_store.arrived(connection, self.held, refetch=self.spec.refetch) if listed else (),
            )
            if end.failure or listed or (whole and self.state.row.expectation):
                request_store.close(
                    connection,
                    self.held,
                    self.request_id,
                    failure=end.failure,
                    missing_as=end.lost.outcome if end.lost else None,
                )
            if end.decision and end.decision.reason == call_store.NO_SCP:
                call_store.put_off(connection, end.decision)

        pending = self.state.row.state is ItemState.PENDING
        lease.finish(
            self.database,
            self.held,
            end=end.end,
            decision=end.decision,
            outcomes=end.outcomes,
            finished_items=self.progressed,
            detail=printable(end.detail),
            last=last if pending else None,
            values={} if end.rounds is None else {"round": end.rounds},
        )

    def _at_fault(self, found: Fault) -> _End:
        """Who is charged, and when it is tried again."""
        answer = found.answer
        end = _End(end=AttemptEnd.ERROR, detail=found.detail or answer.reason)
        end.outcomes, failed = self._charge(answer, found)
        if failed:
            end.failure = self._failure(answer.reason, found.detail, found.status)
            end.lost = _Lost(reason=answer.reason or NOT_DELIVERED, detail=found.detail)
            return replace(end, end=AttemptEnd.COMPLETED)
        decision = decide(
            self.environment,
            self.held,
            answer,
            left=1,
            progressed=self.progressed > 0 and answer.rule not in (Rule.DOUBTFUL, Rule.HOLD),
            now=self.database.read(self.database.now),
        )
        if answer.reason in (call_store.NO_SCP, "storage SCP was restarted"):
            decision = replace(decision, for_all=False)
        end.decision = decision
        return end

    def _charge(self, answer: Answer, found: Fault) -> tuple[list[Outcome], bool]:
        """(outcomes of what is charged, whether the request fails with it)."""
        row = self.state.row
        if answer.rule is Rule.FINAL:
            return [], True
        if answer.rule not in (Rule.BROKEN, Rule.CONGESTED, Rule.AGAIN):
            return [], False
        text = printable(found.detail)
        asking = self.asking
        if asking is not None and asking.is_single and asking.items:
            before = {one.item_id: one.charges for one in request_store.missing(self.database, self.held.chunk_id)}
            (item_id,) = asking.items
            if item_id not in before:
                return [], False
            state, charges = retry.decide_item(answer, charges=before[item_id])
            return [Outcome(item_id=item_id, state=state, reason=answer.reason, detail=text, charges=charges)], False
        if self.progressed:
            return [], False
        state, charges = retry.decide_item(answer, charges=row.charges, again=row.reason == answer.reason)
        if state is ItemState.FAILED:
            return [], True
        reason = row.reason if row.reason == request_store.GREW else answer.reason
        return [Outcome(item_id=row.id, state=ItemState.PENDING, reason=reason, detail=text, charges=charges)], False

    def _failure(self, reason: str | None, detail: str | None, status: int | None = None) -> Outcome:
        return Outcome(
            item_id=self.request_id,
            state=ItemState.FAILED,
            reason=reason,
            detail=printable(detail),
            status=status,
            charges=self.state.row.charges,
        )

    # --- the work

    def _work(self) -> _End:
        database = self.database
        self.callers = admission.gather([remote_store.sender(database, self.held.remote_id)])
        if self.comes_here:
            self.scps = call_store.living_scps(database)
            if not self.scps:
                raise Fault(local(Rule.AWAY, call_store.NO_SCP))
        self.call_mark = call_store.last_call(database)
        self.arrival_mark = request_store.last_arrival(database)
        fresh = self.state.row.expectation is None
        if fresh:
            end = self._expect()
            if end:
                return end
        self._begin()
        if not fresh:
            self._let_former_end()
        while True:
            assert self.goal and self.watch
            if not self.goal.is_reached():
                self._ask_all()
                self.watch.settle()
            if not self.goal.is_reached():
                return self._round_is_over()
            if not self.asked or self.state.row.reason == request_store.GREW or not self._has_grown():
                return _End()

    def _begin(self) -> None:
        """The goal as the record has it now, and the watch over it."""
        self.state = request_store.state(self.database, self.held.chunk_id)
        parts = (self.database, self.held, self.state, self.spec.refetch, self.remote.max_uids)
        came = self.progressed
        listed = self.state.row.expectation == "images"
        self.goal = Listed(*parts) if listed else Blind(*parts, after=self.arrival_mark)
        self.watch = Watch(
            self.environment, self.held.job_id, self.remote, self.heart, self.goal, self.callers, came=came
        )
        self.watch.look(now=True)

    def _expect(self) -> _End | None:
        """Find out what there is; the end of the attempt where that is nothing."""
        keys = tuple((path, value) for path, value in self.state.row.identifier or ())
        insist = self.held.barren == 0
        listing = expectation.ask(self.remote, self.spec.root, self.spec.level, keys, self.heart, insist=insist)
        if listing.expected == 0 or not listing.targets:
            return _End(failure=self._failure("no match", None))
        self._write(listing, reason=None)
        if listing.depth == "images" and listing.absent:
            self._fail((one.uid for one in listing.absent), "no match", "the archive does not list it")
        return None

    def _write(self, listing: expectation.Listing, *, reason: str | None) -> int:
        images = listing.depth == "images"
        return request_store.expect(
            self.database,
            self.held,
            self.request_id,
            [*listing.instances, *listing.absent] if images else [],
            targets=listing.targets,
            expectation=listing.depth,
            expected=listing.expected,
            refetch=self.spec.refetch,
            reason=reason,
        )

    def _fail(self, uids: Iterable[str], reason: str | None, detail: str | None) -> None:
        wanted = set(uids)
        lost = [
            Outcome(item_id=one.item_id, state=ItemState.FAILED, reason=reason, detail=detail, charges=one.charges)
            for one in request_store.missing(self.database, self.held.chunk_id)
            if one.uid in wanted
        ]
        lease.record(self.database, self.held, lost)

    def _let_former_end(self) -> None:
        """What a former attempt asked for, and did not see answered, may still be on its way."""
        assert self.watch
        former = request_store.moves_of(self.database, self.held.chunk_id)
        if not any(row.status is None and row.answered_at is None for row in former):
            return
        if request_store.arrived_within(self.database, self.held.job_id, self.remote.timeouts.quiet):
            self.watch.settle()

    def _has_grown(self) -> bool:
        """Whether the archive has more now than it had; then that is expected as well. What it does not say is no."""
        try:
            if expectation.is_unchanged(self.remote, self.spec.root, self.state.targets, self.heart):
                return False
            listing = expectation.again(self.remote, self.spec.root, self.state.targets, self.heart)
        except DimseError as error:
            if isinstance(error, FindStopped):
                raise
            self.heart.require_lease()
            log.warning("the archive could not be asked again", error=str(error))
            return False
        if listing.depth != self.state.row.expectation or (listing.expected or 0) <= (self.state.row.expected or 0):
            return False
        self._write(listing, reason=request_store.GREW)
        text = f"{listing.expected} instances where there were {self.state.row.expected}: those are fetched as well"
        self._event(request_store.GREW, text)
        self._begin()
        return True

    def _event(self, what: str, text: str) -> None:
        def work(connection: Connection) -> None:
            now = self.database.now(connection)
            ledger.add_event(
                connection, self.held.job_id, now, "expected", f"chunk {self.held.chunk_id}: {what}, {text}"
            )

        lease.fenced(self.database, self.held, work)

    # --- asking

    def _ask_all(self) -> None:
        """Ask for what is missing, request by request. Raises Fault, DimseError, Stopped."""
        assert self.goal
        fineness = min(SINGLY, max(self.state.rounds, self.state.row.charges))
        limits = self._limits()
        over: set[Ask] = set()
        answered: set[int] = set()
        waiting = self.goal.asks(fineness, limits)
        while waiting:
            ask = waiting.pop(0)
            if self.heart.stop:
                raise Stopped
            if self.goal.has(ask) or ask in over or (ask.items and answered.issuperset(ask.items)):
                continue
            over.add(ask)
            finer = self._ask(ask, limits)
            if finer is None:
                answered.update(ask.items)
            else:
                limits = finer
                waiting = self.goal.asks(fineness, limits)

    def _limits(self) -> Limits:
        """What this archive was found not to do, by the answers to former requests of this chunk."""
        limits = Limits()
        for row in request_store.moves_of(self.database, self.held.chunk_id):
            if row.reason != "refused":
                continue
            if row.asked and row.asked > 1:
                limits = replace(limits, lists=False)
            elif row.asked:
                limits = replace(limits, images=False)
            else:
                limits = replace(limits, series=False)
        return limits

    def _ask(self, ask: Ask, limits: Limits) -> Limits | None:
        """One request, seen through; other limits where the archive refuses it as such."""
        assert self.watch and self.goal
        ours = self.remote.calling_ae_title
        move_id, message_id = request_store.begin_move(
            self.database,
            self.held,
            self.request_id,
            ask,
            rounds=self.state.rounds,
            method=self.spec.kind,
            ae_title=ours,
            destination=None if self.comes_here else self.spec.destination,
        )
        self.asked += 1
        self.asking = ask
        before = self.watch.came
        try:
            self.line = self.line or self._open()
            report = self.watch.follow(self.line.ask(ask.target, message_id, move_id), ask)
        except (Stopped, Fault, DimseError) as error:
            self.heart.require_lease()
            why: str | None = "broken off"
            if isinstance(error, Fault):
                why = error.answer.reason
            elif isinstance(error, DimseError):
                why = dimse_status.for_error(error).reason
            self._answered(move_id, {"reason": why, "comment": printable(str(error)) or None})
            raise
        if report is None:
            self._answered(move_id, {"reason": "went silent"})
            self.line.abort()
            self.asking = None
            return None
        refused = self._refused(ask, report, limits) if self.watch.came == before else None
        self._answered(
            move_id,
            {
                "status": report.status,
                "remaining": report.remaining,
                "completed": report.completed,
                "failed": report.failed,
                "warning": report.warning,
                "failed_uids": list(report.failed_uids) or None,
                "comment": printable(report.comment),
                "reason": "refused" if refused else None,
            },
        )
        if refused is None:
            self.reports.append(report)
            self.goal.hear(ask, report)
            self._judge(ask, report)
        self.asking = None
        return refused

    def _open(self) -> Line:
        return MoveLine(self.remote, self.spec.root, self.spec.destination or self.remote.calling_ae_title, self.heart)

    def _answered(self, move_id: int, values: dict[str, object]) -> None:
        request_store.end_move(self.database, self.held, move_id, values)

    def _refused(self, ask: Ask, report: Report, limits: Limits) -> Limits | None:
        """Other limits where the answer means that the archive does not take this kind of request."""
        answer = dimse_status.for_status(self.spec.kind, report.status)
        levels = {one.level for one in self.state.targets}
        finer = ask.target.level not in levels or len(ask.target.images) > 1
        if not finer or report.done or not (answer.rule is Rule.FINAL or report.status in _CANNOT):
            return None
        return limits.after(ask.target)

    def _judge(self, ask: Ask, report: Report) -> None:
        """What an answer means for the rest. Raises Fault where asking on would be in vain."""
        assert self.watch
        answer = dimse_status.for_status(self.spec.kind, report.status)
        text = self._sentence(report)
        if answer.rule is Rule.HOLD:
            if report.status == 0xA801:
                who = self.us if self.comes_here else f"AE title {self.spec.destination}"
                advice = (
                    f"the archive does not know the destination: its administrator has to enter {who}; then release"
                )
                answer = replace(answer, advice=advice)
            raise Fault(answer, text, report.status)
        good = answer.rule in (Rule.DONE, Rule.WARNING) and (report.completed or report.warning)
        if not good and self.comes_here and not self.progressed:
            self._whose_fault()
        if answer.rule is Rule.FINAL and not self.progressed:
            if not ask.items:
                raise Fault(answer, text, report.status)
            uids = {one.item_id: one.uid for one in request_store.missing(self.database, self.held.chunk_id)}
            self._fail((uids[item] for item in ask.items if item in uids), answer.reason, text)
            self.watch.look(now=True)
        if answer.rule is Rule.CONGESTED and not report.done:
            raise Fault(answer, text, report.status)

    def _whose_fault(self) -> None:
        """Raise Fault if nobody called our storage SCP, and never has for this job; its rows come a moment late."""
        assert self.watch
        if request_store.last_arrival(self.database, self.held.job_id):
            return
        until = self.environment.clock() + GRACE_SECONDS
        while True:
            found = fault.why_nothing_came(self.database, self.callers, self.call_mark, self.us)
            if found is None or self.watch.look(now=True):
                return
            if self.environment.clock() >= until or found.answer.reason == "archive was rejected here":
                raise found
            self.environment.sleep(0.25)
            self.heart.progress(0)

    @staticmethod
    def _sentence(report: Report) -> str:
        counters = ", ".join(
            f"{number} {name}"
            for name, number in (
                ("remaining", report.remaining),
                ("completed", report.completed),
                ("failed", report.failed),
                ("with warnings", report.warning),
            )
            if number is not None
        )
        return "; ".join(filter(None, (f"the archive answered 0x{report.status:04X}", counters, report.comment)))

    # --- what did not come

    def _round_is_over(self) -> _End:
        """Something is missing although each request was answered."""
        if self.comes_here:
            if not self.scps <= call_store.living_scps(self.database):
                raise Fault(local(Rule.AWAY, "storage SCP was restarted"))
            if not self.progressed:
                self._whose_fault()
        counted = self.state.rounds + 1
        if counted >= retry.MAX_ROUNDS:
            return self._given_up(counted)
        waits = self.remote.timeouts
        decision = retry.decide_round(
            local(Rule.AGAIN, NOT_YET),
            rounds=counted,
            quiet=waits.quiet,
            settle=waits.settle,
            now=self.database.read(self.database.now),
            waiting_since=None,
        )
        detail = self._sentence(self.reports[-1]) if self.reports else None
        return _End(decision=decision, detail=detail, rounds=counted)

    def _given_up(self, counted: int) -> _End:
        """The last round is over: what is missing is not delivered, or not there any more."""
        bad = [report for report in self.reports if report.status or report.failed]
        detail = self._sentence((bad or self.reports)[-1]) if self.reports else None
        if not isinstance(self.goal, Listed):
            came = self.goal.came if isinstance(self.goal, Blind) else 0
            expected = self.state.row.expected
            text = f"{came} of {'an unknown number' if expected is None else expected} came; {detail or ''}"
            reason = NOT_DELIVERED if came else "nothing delivered"
            return _End(failure=self._failure(reason, text.rstrip("; ")), rounds=counted)
        gone: frozenset[str] = frozenset()
        try:
            listing = expectation.again(self.remote, self.spec.root, self.state.targets, self.heart)
            if listing.depth == "images" or not listing.expected:
                gone = frozenset(one.uid for one in self.goal.missing) - {one.uid for one in listing.instances}
        except DimseError as error:
            if isinstance(error, FindStopped):
                raise
            self.heart.require_lease()
            log.warning("the archive could not be asked again", error=str(error))
        taken, _ = fault.seen_from(self.database, self.callers, self.call_mark)
        lost = _Lost(
            detail=detail,
            gone=gone,
            named=frozenset(uid for report in self.reports for uid in report.failed_uids),
            refused=fault.refused_classes(taken) if self.comes_here else frozenset(),
        )
        return _End(lost=lost, detail=detail, rounds=counted)
