"""Asking an archive for what is missing, request by request, and what its answers mean for the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from dicomferry.models.record.archive.calls import Refusal
from dicomferry.models.record.jobs import leases
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.retrieves import expected
from dicomferry.models.record.retrieves import moves as move_store
from dicomferry.models.record.retrieves.moves import FinalAnswer
from dicomferry.models.record.retrieves.request import Request
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Rule
from dicomferry.models.rules.callers import Callers
from dicomferry.models.rules.errors import DimseError
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.remote import Remote, host_and_port
from dicomferry.models.rules.rounds import SINGLY, Ask, Limits
from dicomferry.models.rules.spec import GetSpec, MoveSpec
from dicomferry.models.rules.state import ItemState
from dicomferry.models.rules.target import Target
from dicomferry.models.rules.text import printable
from dicomferry.workers.attempts.environment import STUCK, Environment
from dicomferry.workers.attempts.fault import Fault, Stopped
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.dimse.reports import Report
from dicomferry.workers.receiving import callers as admission
from dicomferry.workers.retrieval import blame, refusals
from dicomferry.workers.retrieval.association_in_use import Line, MoveLine
from dicomferry.workers.retrieval.completeness import Goal, ItemByItem
from dicomferry.workers.retrieval.watch import Watch

ROWS_SECONDS = 1.0
"""What our storage SCP refused is on record so long after it."""
GRACE_SECONDS = 3.0
"""After a failure the storage SCP's rows have so long to tell whether anybody called."""
_CANNOT = range(0xC000, 0xD000)


@dataclass
class Asking:
    """The requests of one attempt. `asking` is the one under way, `asked` how many there were.

    `call_mark` is the last call that the storage SCP had before the attempt, `get_line` opens where C-GET is asked.
    `put_off` are items (`all_put_off`: whatever they are) that are not asked for in this attempt.
    """

    environment: Environment
    lease: Lease
    heart: Heartbeat
    remote: Remote
    spec: MoveSpec | GetSpec
    state: Request
    goal: Goal
    watch: Watch
    callers: Callers
    call_mark: int
    comes_here: bool
    get_line: Callable[[], Line]
    line: Line | None = None
    asking: Ask | None = None
    asked: int = 0
    reports: list[Report] = field(default_factory=list)
    put_off: set[int] = field(default_factory=set)
    all_put_off: bool = False
    moves: dict[tuple[str, int], int] = field(default_factory=dict)
    """Its requests: our AE title and message id, and the request's id."""

    def __post_init__(self) -> None:
        self.database = self.environment.database

    @property
    def us(self) -> str:
        """What the archive has to know to send to us."""
        settings = self.environment.settings
        towards = next(iter(self.environment.names.addresses(self.remote.host)), "")
        where = host_and_port(admission.public_host(settings, towards), settings.scp.port)
        return f"AE title {self.remote.calling_ae_title}, {where}"

    def ask_all(self) -> None:
        """Ask for what is missing, request by request. Raises Fault, DimseError, Stopped."""
        fineness = min(SINGLY, max(self.state.rounds, self.state.charges))
        limits = self._limits()
        over: set[Ask] = set()
        answered: set[int] = set()
        waiting = [] if self.all_put_off else self.goal.asks(fineness, limits, self.put_off)
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
                waiting = self.goal.asks(fineness, limits, self.put_off)

    def ask_whole(self, target: Target) -> None:
        """Ask for all of something, whatever of it is here. Raises Fault, DimseError, Stopped."""
        if self.heart.stop:
            raise Stopped
        self._ask(Ask(target), self._limits())

    def hang_up(self) -> None:
        """Release the association: whoever asks next opens one of its own, and an attempt has room for one."""
        if self.line:
            self.line.release()

    def _limits(self) -> Limits:
        """What this archive was found not to do, by the answers to former requests of this chunk."""
        limits = Limits()
        for row in move_store.moves_of(self.database, self.lease.chunk_id):
            if row.not_taken:
                limits = limits.without(row.level, row.asked or 0) or limits
        return limits

    def _ask(self, ask: Ask, limits: Limits) -> Limits | None:
        """One request, seen through; other limits where the archive refuses it as such."""
        if self.remote.pace:
            self.remote.pace.retrieve()
            if self.heart.stop:
                raise Stopped
        self._look_for_room()
        ours = self.remote.calling_ae_title
        move_id, message_id = move_store.begin_move(
            self.database,
            self.lease,
            self.state.item_id,
            ask,
            rounds=self.state.rounds,
            method=self.spec.kind,
            ae_title=ours,
            destination=None if self.comes_here else self.spec.destination,
        )
        self.asked += 1
        self.moves[ours, message_id] = move_id
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
                why = lookup.for_error(error, self.remote.quirks).reason
            move_store.note_no_answer(self.database, self.lease, move_id, why, printable(str(error)) or None)
            raise
        if report is None:
            move_store.note_no_answer(self.database, self.lease, move_id, STUCK.reason)
            self.line.abort()
            self.asking = None
            return None
        refused = self._refused(ask, report, limits) if self.watch.came == before else None
        # Final answers may lack counters: then the last that were told stand for what was begun.
        told = report if report.is_counted else self.watch.told or report
        answer = FinalAnswer(
            status=report.status,
            remaining=told.remaining,
            completed=told.completed,
            failed=told.failed,
            warning=told.warning,
            failed_uids=tuple(report.failed_uids),
            comment=printable(report.comment),
            not_taken=refused is not None,
        )
        move_store.note_answer(self.database, self.lease, move_id, answer)
        if refused is None:
            self.reports.append(report)
            self.goal.hear(ask, report)
            self._judge(ask, report)
        self.asking = None
        return refused

    def _open(self) -> Line:
        if self.spec.kind == Kind.GET:
            return self.get_line()
        return MoveLine(self.remote, self.spec.root, self.spec.destination or self.remote.calling_ae_title, self.heart)

    def is_in_vain(self) -> bool:
        """Whether it goes elsewhere, and the archive has answered all requests of the chunk with a failure and begun
        nothing: then nothing is under way that could be waited for.
        """
        if self.comes_here or self.spec.kind == Kind.GET:
            return False
        rows = move_store.moves_of(self.database, self.lease.chunk_id)
        return bool(rows) and all(
            row.status is not None
            and not row.has_begun
            and lookup.for_status("move", row.status, self.remote.quirks).rule in (Rule.AGAIN, Rule.FINAL)
            for row in rows
        )

    def _refused(self, ask: Ask, report: Report, limits: Limits) -> Limits | None:
        """Other limits where the answer means that the archive does not take this kind of request."""
        answer = lookup.for_status(self.spec.kind, report.status, self.remote.quirks)
        levels = {one.level for one in self.state.targets}
        finer = ask.target.level not in levels or len(ask.target.images) > 1
        if not finer or report.done or not (answer.rule is Rule.FINAL or report.status in _CANNOT):
            return None
        return limits.after(ask.target)

    def _judge(self, ask: Ask, report: Report) -> None:
        """What an answer means for the rest. Raises Fault where asking on would be in vain."""
        answer = lookup.for_status(self.spec.kind, report.status, self.remote.quirks)
        text = sentence_of(report)
        if answer.rule is Rule.HOLD:
            if report.status == 0xA801:
                who = self.us if self.comes_here else f"AE title {self.spec.destination}"
                advice = (
                    f"the archive does not know the destination: its administrator has to enter {who}; then release"
                )
                answer = replace(answer, advice=advice)
            raise Fault(answer, text, report.status)
        good = answer.rule in (Rule.DONE, Rule.WARNING) and (report.completed or report.warning)
        if not good and self.comes_here and not self.watch.came:
            self.raise_blame()
        if answer.rule is Rule.FINAL and not self.watch.came:
            if not ask.items:
                raise Fault(answer, text, report.status)
            self.fail(ask.items, answer.reason, text)
            self.watch.look(now=True)
        if answer.rule is Rule.CONGESTED and not report.done:
            raise Fault(answer, text, report.status)

    def raise_blame(self) -> None:
        """Raise Fault if nobody called our storage SCP, and never has for this job; its rows come a moment late."""
        if expected.last_arrival(self.database, self.lease.job_id):
            return
        until = self.environment.clock() + GRACE_SECONDS
        while True:
            found = blame.why_nothing_came(self.database, self.callers, self.call_mark, self.us)
            if found is None or self.watch.look(now=True):
                return
            if self.environment.clock() >= until or found.answer.reason == Reason.ARCHIVE_WAS_REJECTED_HERE:
                raise found
            self.environment.sleep(0.25)
            self.heart.progress(0)

    def _look_for_room(self) -> None:
        """Raise Fault where what is asked for could not be kept."""
        gets = self.spec.kind == Kind.GET
        if gets or self.comes_here:
            full = refusals.no_room(self.database, self.environment.settings, here=gets)
            if full is not None:
                raise full

    def refused(self) -> list[Refusal]:
        """What our side refused of what was asked for, written down with each request. Raises LeaseLost."""
        found: dict[int, list[Refusal]] = {}
        if self.comes_here and self.moves:
            last = max(self.moves.values())
            found = refusals.of_moves(self.database, self.callers, self.call_mark, self.moves, last)
        elif self.line is not None:
            found = {move_id: list(kept.all()) for move_id, kept in self.line.refused.items()}
        move_store.note_refusals(self.database, self.lease, found)
        return [one for some in found.values() for one in some]

    def refused_here(self) -> Fault | None:
        """The fault, if our side had no room for what came; the storage SCP's rows come a moment late."""
        until = self.environment.clock() + ROWS_SECONDS
        while True:
            found = refusals.fault_of(self.refused())
            doubtful = self.comes_here and any(report.failed or report.status for report in self.reports)
            if found is not None or not doubtful or self.environment.clock() >= until:
                return found
            self.environment.sleep(0.25)
            self.heart.progress(0)

    def fail(self, items: Iterable[int], reason: str | None, detail: str | None) -> None:
        """Give up these items, those of them that are still missing."""
        wanted = set(items)
        lost = [
            Outcome(item_id=one.item_id, state=ItemState.FAILED, reason=reason, detail=detail, charges=one.charges)
            for one in expected.missing(self.database, self.lease.chunk_id)
            if one.item_id in wanted
        ]
        leases.record(self.database, self.lease, lost)
        if isinstance(self.goal, ItemByItem):
            self.goal.missing = [one for one in self.goal.missing if one.item_id not in wanted]


def sentence_of(report: Report) -> str:
    """What an answer said, for people."""
    numbers = {
        "remaining": report.remaining,
        "completed": report.completed,
        "failed": report.failed,
        "with warnings": report.warning,
    }
    counters = ", ".join(f"{number} {name}" for name, number in numbers.items() if number is not None)
    return "; ".join(filter(None, (f"the archive answered 0x{report.status:04X}", counters, report.comment)))
