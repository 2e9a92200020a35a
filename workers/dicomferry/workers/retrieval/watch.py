"""Seeing a request through: what moves is told from what stands still by answers, arrivals and bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from dicomferry.models.record.retrieves import expected
from dicomferry.models.rules.callers import Callers
from dicomferry.models.rules.errors import DimseError
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.rounds import Ask
from dicomferry.workers.attempts.environment import STUCK, Environment
from dicomferry.workers.attempts.fault import Fault, Stopped
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.dimse.reports import Report, Retrieval
from dicomferry.workers.retrieval import blame
from dicomferry.workers.retrieval.completeness import Goal

POLL_SECONDS = 0.25
LOOK_SECONDS = 0.5
"""How often the record is asked what has come; less often where that takes long."""
LOOK_SHARE = 10
"""So many times as long as it took is between two looks, while the last rows are not the only ones to come."""
FIRST_PAUSE = 0.02


@dataclass
class Watch:
    """Watches over the requests of one attempt. `came` counts what has become known to be here meanwhile.

    `told` is the last answer to the request under way, or to the last one, that tells of sub-operations. `is_behind`
    tells whether something that came still waits for its rows.
    """

    environment: Environment
    job_id: int
    remote: Remote
    heart: Heartbeat
    goal: Goal
    callers: Callers
    is_behind: Callable[[], bool]
    came: int = 0
    told: Report | None = None
    _signs: tuple[object, ...] = field(default=())
    _next_look: float = 0.0

    def follow(self, retrieval: Retrieval, ask: Ask) -> Report | None:
        """The final answer; None where there is none although all that was asked for has come.

        Raises Stopped after the request was cancelled, Fault when nothing moved for too long (then it was cancelled as
        well), and what `poll` raises.
        """
        clock, waits = self.environment.clock, self.remote.timeouts
        self.look(now=True)
        self.told = None
        done = stores = 0
        last, phase, limit = clock(), "first_answer", waits.first_answer
        while True:
            report = retrieval.poll(POLL_SECONDS)
            self.heart.progress(0)
            self.heart.require_lease()
            if report is not None and report.done:
                self.told = report
            if report is not None and report.is_final:
                return report
            moved = self.look() or retrieval.stores > stores
            stores = retrieval.stores
            if report is not None and report.done > done:
                done, moved = report.done, True
            if moved:
                last, phase, limit = clock(), "progress", waits.progress
            if self.heart.stop:
                self._break_off(retrieval)
                raise Stopped
            if clock() - last >= limit:
                self._break_off(retrieval)
                self.look(now=True)
                if self.goal.has(ask):
                    return None
                raise Fault(STUCK, f"no sub-operation, no arrival and no data within {limit:g} s ({phase})")

    def _break_off(self, retrieval: Retrieval) -> None:
        """C-CANCEL, then on to the last answer, if it comes. What arrives meanwhile is welcome."""
        clock = self.environment.clock
        until = clock() + self.environment.tuning.cancel_seconds
        with contextlib.suppress(DimseError):
            retrieval.cancel()
            while clock() < until:
                report = retrieval.poll(POLL_SECONDS)
                self.heart.progress(0)
                if report is not None and report.is_final:
                    return

    def settle(self) -> None:
        """Until all is here, or nothing came for `timeouts.quiet`. Raises Stopped."""
        clock, quiet = self.environment.clock, self.remote.timeouts.quiet
        last = clock()
        # Rows follow the last answer by a moment: looked for often at first, then as while it was under way.
        pause = FIRST_PAUSE
        self.look(now=True, pause=pause)
        while not self.goal.is_reached():
            self.environment.sleep(min(pause, POLL_SECONDS, quiet))
            pause = min(2 * pause, LOOK_SECONDS)
            self.heart.progress(0)
            self.heart.require_lease()
            if self.heart.stop:
                raise Stopped
            over = clock() - last >= quiet
            # Asked before the look, so that what has got its rows since the last one is seen by this one.
            behind = self.is_behind()
            if self.look(now=over, pause=pause):
                last = clock()
            elif over and not behind:
                return

    def look(self, *, now: bool = False, pause: float = LOOK_SECONDS) -> bool:
        """Write down what has come, if it is time to (or `now`); whether anything moved since the last time.

        `pause` is how long the next look waits at least.
        """
        clock = self.environment.clock
        began = clock()
        if not now and began < self._next_look:
            return False
        new = self.goal.mark()
        database = self.environment.database
        signs = (expected.last_arrival(database, self.job_id), blame.moved_at(database, self.callers))
        moved = bool(new) or (bool(self._signs) and signs != self._signs)
        self.came += new
        self._signs = signs
        ended = clock()
        share = LOOK_SHARE if pause >= LOOK_SECONDS else 1
        self._next_look = ended + max(pause, share * (ended - began))
        return moved
