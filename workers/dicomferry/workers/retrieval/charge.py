"""Who is charged for what ended an attempt at a retrieve before its work was done; how it goes on, `ending` says."""

from __future__ import annotations

from dataclasses import replace

from dicomferry.models.record.archive.pairing import NOT_DELIVERED
from dicomferry.models.record.retrieves import expected
from dicomferry.models.record.retrieves import moves as recorded_moves
from dicomferry.models.record.retrieves.request import Request
from dicomferry.models.rules import ending, retry
from dicomferry.models.rules.answers.lookup import Answer, Rule
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.situation import Tried
from dicomferry.models.rules.spec import Retrieve
from dicomferry.models.rules.state import AttemptEnd, ItemState
from dicomferry.models.rules.text import printable
from dicomferry.workers.attempts.environment import STUCK
from dicomferry.workers.attempts.fault import Fault
from dicomferry.workers.retrieval import refusals
from dicomferry.workers.retrieval.blame import End, Lost
from dicomferry.workers.retrieval.progress import Progress
from dicomferry.workers.retrieval.situation import Situation


def end_of(situation: Situation, progress: Progress, found: Fault) -> End:
    """How the attempt ends. What our own side refused explains a fault before anything else does. Raises OutOfReach."""
    ours = refusals.refused_here(situation, progress) if found.answer.reason not in ending.OURS else None
    return _Charge(situation, progress, ours or found).end()


def nothing_found(request: Request, spec: Retrieve, left_out: str | None) -> End:
    """Nothing matches. Answers that contradict are no sign that nothing is there, whatever is allowed."""
    if spec.allow_empty and not left_out:
        return End(failure=Outcome(item_id=request.item_id, state=ItemState.SUCCEEDED, reason=Reason.NOTHING_THERE))
    return End(failure=failure(request, Reason.NO_MATCH, left_out))


def failure(request: Request, reason: str | None, detail: str | None, status: int | None = None) -> Outcome:
    """The failure of the request itself."""
    return Outcome(
        item_id=request.item_id,
        state=ItemState.FAILED,
        reason=reason,
        detail=printable(detail),
        status=status,
        charges=request.charges,
    )


class _Charge:
    """One fault at one attempt: what it does to the request and to the instance that was asked for."""

    def __init__(self, situation: Situation, progress: Progress, found: Fault) -> None:
        self._database = situation.database
        self._lease = situation.lease
        self._request = progress.request
        self._progress = progress
        self._progressed = progress.came > 0
        self._found = found
        self._answer: Answer = found.answer

    def end(self) -> End:
        found, answer = self._found, self._answer
        end = End(end=AttemptEnd.ERROR, detail=found.detail or answer.reason)
        if self._is_mute():
            # Asked again in smaller requests, then held: which instance it is asked for makes no difference.
            end.cause = Tried(fault=answer, mute=True)
            end.outcomes = self._charged_request(min(self._request.charges + 1, retry.MAX_CHARGES - 1))
            return end
        end.outcomes, failed = self._charged()
        if failed and self._request.shares and not self._request.is_listed:
            return End(is_apart=True, detail=end.detail)
        if failed:
            end.failure = failure(self._request, answer.reason, found.detail, found.status)
            end.lost = Lost(reason=answer.reason or NOT_DELIVERED, detail=found.detail)
            return replace(end, end=AttemptEnd.COMPLETED)
        end.cause = Tried(fault=answer, progressed=self._progressed)
        return end

    # --- an archive that says nothing, whatever it is asked for

    def _is_mute(self) -> bool:
        """Whether nothing moved at this attempt, and nothing ever has for the chunk, neither answers nor arrivals."""
        if self._answer.reason != STUCK.reason or self._progressed or not self._progress.asked:
            return False
        moves = recorded_moves.moves_of(self._database, self._lease.chunk_id)
        return all(row.status is None and not row.completed for row in moves) and not expected.last_arrival(
            self._database, self._lease.job_id
        )

    # --- whoever was in flight

    def _charged(self) -> tuple[list[Outcome], bool]:
        """(outcomes of what is charged, whether the request fails with it)."""
        request, answer = self._request, self._answer
        if answer.rule is Rule.FINAL:
            return [], True
        if answer.rule not in (Rule.BROKEN, Rule.CONGESTED, Rule.AGAIN):
            return [], False
        ask = self._progress.under_way
        if ask is not None and ask.is_single and ask.items:
            before = {one.item_id: one.charges for one in expected.missing(self._database, self._lease.chunk_id)}
            (item_id,) = ask.items
            if item_id not in before:
                return [], False
            state, charges = retry.decide_item(answer, charges=before[item_id])
            text = printable(self._found.detail)
            return [Outcome(item_id=item_id, state=state, reason=answer.reason, detail=text, charges=charges)], False
        if self._progressed:
            return [], False
        state, charges = retry.decide_item(answer, charges=request.charges, again=request.reason == answer.reason)
        if state is ItemState.FAILED:
            return [], True
        return self._charged_request(charges), False

    def _charged_request(self, charges: int) -> list[Outcome]:
        """The request goes on, and all that share its chunk, with so many charges: with each it is asked for finer."""
        request = self._request
        reason = request.reason if request.reason == expected.GREW else self._answer.reason
        text = printable(self._found.detail)
        return [
            Outcome(item_id=item_id, state=ItemState.PENDING, reason=reason, detail=text, charges=charges)
            for item_id in request.item_ids
        ]
