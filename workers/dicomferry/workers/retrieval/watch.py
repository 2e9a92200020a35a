"""Seeing a request through: what moves is told from what stands still by answers, arrivals and bytes."""

from __future__ import annotations

import contextlib

from dicomferry.models.record.retrieves import expected
from dicomferry.models.rules.errors import DimseError
from dicomferry.models.rules.rounds import Ask
from dicomferry.workers.attempts.environment import STUCK
from dicomferry.workers.attempts.fault import Fault, Stopped
from dicomferry.workers.dimse.reports import Report, Retrieval
from dicomferry.workers.retrieval import blame
from dicomferry.workers.retrieval.progress import Progress
from dicomferry.workers.retrieval.situation import Situation

POLL_SECONDS = 0.25
LOOK_SECONDS = 0.5
"""How often the record is asked what has come; less often where that takes long."""
LOOK_SHARE = 10
"""So many times as long as it took is between two looks, while the last rows are not the only ones to come."""
FIRST_PAUSE = 0.02
ROWS_SECONDS = 1.0
"""What has come has its rows so long after the answer, as a rule."""


def follow(situation: Situation, progress: Progress, retrieval: Retrieval, ask: Ask) -> Report | None:
    """The final answer to a request; None where there is none although all that was asked for has come.

    Raises Stopped after the request was cancelled, Fault when nothing moved for too long (then it was cancelled as
    well), and what `poll` raises.
    """
    clock, heart, waits = situation.environment.clock, situation.heart, situation.remote.timeouts
    progress.told = None
    done = stores = 0
    is_looked = False
    last, phase, limit = clock(), "first_answer", waits.first_answer
    while True:
        report = retrieval.poll(POLL_SECONDS)
        heart.progress(0)
        heart.require_lease()
        if report is not None and report.done:
            progress.told = report
        if report is not None and report.is_final:
            return report
        # The first look shows what came before, so it tells nothing of this request; a quick one needs none.
        next_look = progress.next_look
        moved = look(situation, progress, now=not is_looked and clock() - last >= POLL_SECONDS) and is_looked
        is_looked = is_looked or progress.next_look != next_look
        moved = moved or retrieval.stores > stores
        stores = retrieval.stores
        if report is not None and report.done > done:
            done, moved = report.done, True
        if moved:
            last, phase, limit = clock(), "progress", waits.progress
        if heart.stop:
            _break_off(situation, retrieval)
            raise Stopped
        if clock() - last >= limit:
            _break_off(situation, retrieval)
            look(situation, progress, now=True)
            if progress.goal.has(ask):
                return None
            raise Fault(STUCK, f"no sub-operation, no arrival and no data within {limit:g} s ({phase})")


def _break_off(situation: Situation, retrieval: Retrieval) -> None:
    """C-CANCEL, then on to the last answer, if it comes. What arrives meanwhile is welcome."""
    clock = situation.environment.clock
    until = clock() + situation.environment.tuning.cancel_seconds
    with contextlib.suppress(DimseError):
        retrieval.cancel()
        while clock() < until:
            report = retrieval.poll(POLL_SECONDS)
            situation.heart.progress(0)
            if report is not None and report.is_final:
                return


def until_told(situation: Situation, progress: Progress, ask: Ask, number: int) -> None:
    """Wait until so many of what a request was to bring are here, for a moment at most: rows follow the answer."""
    clock = situation.environment.clock
    until = clock() + ROWS_SECONDS
    while True:
        look(situation, progress, now=True)
        if progress.goal.missing_of(ask) <= len(ask.items) - number or clock() >= until:
            return
        situation.environment.sleep(FIRST_PAUSE)
        situation.heart.progress(0)
        situation.heart.require_lease()


def until_quiet(situation: Situation, progress: Progress) -> None:
    """Wait until all is here, or nothing came for `timeouts.quiet`. Raises Stopped."""
    clock, heart, quiet = situation.environment.clock, situation.heart, situation.remote.timeouts.quiet
    last = clock()
    # Rows follow the last answer by a moment: looked for often at first, then as while it was under way.
    pause = FIRST_PAUSE
    look(situation, progress, now=True, pause=pause)
    while not progress.goal.is_reached():
        situation.environment.sleep(min(pause, POLL_SECONDS, quiet))
        pause = min(2 * pause, LOOK_SECONDS)
        heart.progress(0)
        heart.require_lease()
        if heart.stop:
            raise Stopped
        over = clock() - last >= quiet
        # Asked before the look, so that what has got its rows since the last one is seen by this one.
        behind = situation.lines.is_behind()
        if look(situation, progress, now=over, pause=pause):
            last = clock()
        elif over and not behind:
            return


def look(situation: Situation, progress: Progress, *, now: bool = False, pause: float = LOOK_SECONDS) -> bool:
    """Write down what has come, if it is time to (or `now`); whether anything moved since the last time.

    `pause` is how long the next look waits at least.
    """
    clock, database = situation.environment.clock, situation.database
    began = clock()
    if not now and began < progress.next_look:
        return False
    new = progress.goal.mark()
    signs = (expected.last_arrival(database, situation.lease.job_id), blame.moved_at(database, situation.callers))
    moved = bool(new) or (bool(progress.signs) and signs != progress.signs)
    progress.came += new
    progress.signs = signs
    ended = clock()
    share = LOOK_SHARE if pause >= LOOK_SECONDS else 1
    progress.next_look = ended + max(pause, share * (ended - began))
    return moved
