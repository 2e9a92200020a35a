"""Asking an archive for what is missing, request by request: the second phase of an attempt at a retrieve."""

from __future__ import annotations

from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.errors import DimseError
from dicomferry.models.rules.rounds import SINGLY, Ask
from dicomferry.workers.attempts.environment import sentence
from dicomferry.workers.attempts.fault import Fault, Stopped
from dicomferry.workers.dimse.find import FindStopped
from dicomferry.workers.retrieval import requests, slow_media
from dicomferry.workers.retrieval.blame import End
from dicomferry.workers.retrieval.progress import Progress
from dicomferry.workers.retrieval.situation import Situation


def ask(situation: Situation, progress: Progress) -> End | None:
    """Ask for what is missing; where that fails because of slow media, for what does not lie there. It never ends an
    attempt by itself. Raises Fault, DimseError, Stopped.
    """
    if not progress.goal.is_reached() and slow_media.is_waited_for(situation):
        slow_media.put_off(situation, progress)
    while not progress.goal.is_reached():
        try:
            _ask_all(situation, progress)
            break
        except FindStopped:
            raise
        except (Fault, DimseError) as error:
            found = fault_of(situation, error)
            situation.lines.abort()
            if situation.heart.gave_up or not slow_media.put_off_for(situation, progress, found):
                raise
    return None


def fault_of(situation: Situation, error: Fault | DimseError) -> Fault:
    """An error as a fault, by what the archive is known to mean."""
    if isinstance(error, Fault):
        return error
    return Fault(lookup.for_error(error, situation.remote.quirks), sentence(error))


def _ask_all(situation: Situation, progress: Progress) -> None:
    """One request after the other. Where the archive takes none of their kind, what is left is asked for otherwise."""
    request = progress.request
    fineness = min(SINGLY, max(request.rounds, request.charges))
    over: set[Ask] = set()
    answered: set[int] = set()
    waiting = [] if progress.all_put_off else progress.goal.asks(fineness, progress.limits, progress.put_off)
    while waiting:
        one = waiting.pop(0)
        if situation.heart.stop:
            raise Stopped
        if progress.goal.has(one) or one in over or (one.items and answered.issuperset(one.items)):
            continue
        over.add(one)
        if requests.make(situation, progress, one):
            answered.update(one.items)
        else:
            waiting = progress.goal.asks(fineness, progress.limits, progress.put_off)
