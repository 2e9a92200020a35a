"""One request of a retrieve, seen through, and what its answer means for the next one."""

from __future__ import annotations

from dataclasses import replace

from dicomferry.models.record.retrieves import expected
from dicomferry.models.record.retrieves import moves as recorded_moves
from dicomferry.models.record.retrieves.moves import FinalAnswer
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Rule
from dicomferry.models.rules.errors import DimseError
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.rounds import Ask, Capabilities
from dicomferry.models.rules.text import printable
from dicomferry.workers.attempts.environment import STUCK
from dicomferry.workers.attempts.fault import Fault, Stopped
from dicomferry.workers.dimse.reports import Report
from dicomferry.workers.retrieval import blame, list_it, refusals, watch
from dicomferry.workers.retrieval.progress import Progress
from dicomferry.workers.retrieval.situation import Situation

GRACE_SECONDS = 3.0
"""After a failure the storage SCP's rows have so long to tell whether anybody called."""
TELLING = 3
"""So many answers without anything that comes tell of the archive, and no longer of the images that were asked for."""
_CANNOT = range(0xC000, 0xD000)


def make(situation: Situation, progress: Progress, ask: Ask) -> bool:
    """Ask for it and see it through; False where the archive takes no request of its kind: then `progress.limits` says
    so. Raises Fault, DimseError, Stopped.
    """
    _get_ready(situation)
    move_id, message_id = _begin(situation, progress, ask)
    before = progress.came
    try:
        line = situation.lines.line(progress.request)
        report = watch.follow(situation, progress, line.ask(ask.target, message_id, move_id), ask)
    except (Stopped, Fault, DimseError) as error:
        situation.heart.require_lease()
        _note_no_answer(situation, move_id, error)
        raise
    if report is None:
        recorded_moves.note_no_answer(situation.database, situation.lease, move_id, STUCK.reason)
        situation.lines.abort()
        progress.under_way = None
        return True
    finer = _finer(situation, progress, ask, report) if progress.came == before else None
    _note_answer(situation, progress, move_id, report, not_taken=finer is not None)
    if finer is None:
        progress.reports.append(report)
        progress.goal.hear(ask, report)
        is_short = _is_short(situation, ask, report)
        _judge(situation, progress, ask, report, is_short=is_short)
        if is_short:
            _take_apart(situation, progress, f"to one of {len(ask.target.images)} it answered: {sentence_of(report)}")
            watch.until_told(situation, progress, ask, report.done)
    else:
        if progress.limits.lists and not finer.lists:
            _take_apart(situation, progress, f"it refused one: {sentence_of(report)}")
        progress.limits = finer
    progress.under_way = None
    return finer is None


def _get_ready(situation: Situation) -> None:
    """Wait for the archive's turn, and look for room. Raises Stopped; Fault where what comes could not be kept."""
    if situation.remote.pace:
        situation.remote.pace.retrieve()
        if situation.heart.stop:
            raise Stopped
    gets = situation.spec.kind == Kind.GET
    if gets or situation.comes_here:
        full = refusals.no_room(situation.database, situation.environment.settings, here=gets)
        if full is not None:
            raise full


def _begin(situation: Situation, progress: Progress, ask: Ask) -> tuple[int, int]:
    """Write down that it is asked; the row's id and its message id."""
    ours = situation.remote.calling_ae_title
    move_id, message_id = recorded_moves.begin_move(
        situation.database,
        situation.lease,
        progress.request.asker_of(ask.target),
        ask,
        rounds=progress.request.rounds,
        method=situation.spec.kind,
        ae_title=ours,
        destination=situation.spec.destination if situation.goes_elsewhere else None,
    )
    progress.asked += 1
    progress.moves[ours, message_id] = move_id
    progress.under_way = ask
    return move_id, message_id


def _note_no_answer(situation: Situation, move_id: int, error: Exception) -> None:
    why: str | None = "broken off"
    if isinstance(error, Fault):
        why = error.answer.reason
    elif isinstance(error, DimseError):
        why = lookup.for_error(error, situation.remote.quirks).reason
    comment = printable(str(error)) or None
    recorded_moves.note_no_answer(situation.database, situation.lease, move_id, why, comment)


def _note_answer(situation: Situation, progress: Progress, move_id: int, report: Report, *, not_taken: bool) -> None:
    # Final answers may lack counters: then the last that were told stand for what was begun.
    told = report if report.is_counted else progress.told or report
    answer = FinalAnswer(
        status=report.status,
        remaining=told.remaining,
        completed=told.completed,
        failed=told.failed,
        warning=told.warning,
        failed_uids=tuple(report.failed_uids),
        comment=printable(report.comment),
        not_taken=not_taken,
    )
    recorded_moves.note_answer(situation.database, situation.lease, move_id, answer)


def _finer(situation: Situation, progress: Progress, ask: Ask, report: Report) -> Capabilities | None:
    """Other limits where the answer means that the archive does not take this kind of request."""
    answer = lookup.for_status(situation.spec.kind, report.status, situation.remote.quirks)
    levels = {one.level for one in progress.request.targets}
    finer = ask.target.level not in levels or len(ask.target.images) > 1
    if not finer or report.done or not (answer.rule is Rule.FINAL or report.status in _CANNOT):
        return None
    return progress.limits.after(ask.target)


def _is_short(situation: Situation, ask: Ask, report: Report) -> bool:
    """Whether a list of UIDs was answered with sub-operations for some of them alone. Some archives take the first of a
    list, and some give all of it up for one that they cannot send: the others are asked for by themselves. What goes
    elsewhere is not seen to come, so there nothing tells which they are.
    """
    if situation.goes_elsewhere:
        return False
    answer = lookup.for_status(situation.spec.kind, report.status, situation.remote.quirks)
    is_told = report.is_counted or answer.rule not in (Rule.DONE, Rule.WARNING)
    return len(ask.target.images) > 1 and is_told and report.done < len(ask.target.images)


def _take_apart(situation: Situation, progress: Progress, why: str) -> None:
    """From here on ask for images one by one, and say so."""
    progress.limits = replace(progress.limits, lists=False)
    list_it.note(situation, f"the archive takes no lists of UIDs as it should, images are asked for one by one; {why}")


def _judge(situation: Situation, progress: Progress, ask: Ask, report: Report, *, is_short: bool) -> None:
    """What an answer means for the rest. Raises Fault where asking on would be in vain; what a list that is `is_short`
    did not bring is asked for by itself first.
    """
    answer = lookup.for_status(situation.spec.kind, report.status, situation.remote.quirks)
    text = sentence_of(report)
    if answer.rule is Rule.HOLD:
        if report.status == 0xA801:
            who = situation.us if situation.comes_here else f"AE title {situation.spec.destination}"
            advice = f"the archive does not know the destination: its administrator has to enter {who}; then release"
            answer = replace(answer, advice=advice)
        raise Fault(answer, text, report.status)
    good = answer.rule in (Rule.DONE, Rule.WARNING) and (report.completed or report.warning)
    # One image that cannot be sent tells nothing of the others that were asked for along with it.
    is_telling = not is_short and (not progress.request.shares or len(progress.reports) >= TELLING)
    if not good and situation.comes_here and not progress.came and is_telling:
        raise_blame(situation, progress)
    if answer.rule is Rule.FINAL and (not progress.came or (ask.is_single and not report.done)):
        if not ask.items:
            raise Fault(answer, text, report.status)
        progress.goal.give_up(ask.items, answer.reason, text)
        watch.look(situation, progress, now=True)
    if answer.rule is Rule.CONGESTED and not report.done:
        raise Fault(answer, text, report.status)


def raise_blame(situation: Situation, progress: Progress) -> None:
    """Raise Fault if nobody called our storage SCP, and never has for this job; its rows come a moment late."""
    if expected.last_arrival(situation.database, situation.lease.job_id):
        return
    clock = situation.environment.clock
    until = clock() + GRACE_SECONDS
    while True:
        found = blame.why_nothing_came(situation.database, situation.callers, situation.last_call, situation.us)
        if found is None or watch.look(situation, progress, now=True):
            return
        if clock() >= until or found.answer.reason == Reason.ARCHIVE_WAS_REJECTED_HERE:
            raise found
        situation.environment.sleep(0.25)
        situation.heart.progress(0)


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
