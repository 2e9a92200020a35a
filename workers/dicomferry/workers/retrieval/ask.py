"""Asking an archive for what is missing, request by request: the second phase of an attempt at a retrieve."""

from __future__ import annotations

from dicomferry.models.record.retrieves.request import Request
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.errors import DimseError
from dicomferry.models.rules.rounds import LISTS, SINGLY, WHOLE, Ask
from dicomferry.workers.attempts.environment import sentence
from dicomferry.workers.attempts.fault import Fault, Stopped
from dicomferry.workers.dimse.find import FindStopped
from dicomferry.workers.retrieval import requests, slow_media, watch
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
    over: set[Ask] = set()
    answered: set[int] = set()
    fineness = _fineness(progress.request)
    waiting = [] if progress.all_put_off else progress.goal.asks(fineness, progress.limits, progress.put_off)
    while waiting:
        one = waiting.pop(0)
        if situation.heart.stop:
            raise Stopped
        watch.look(situation, progress)
        if progress.goal.has(one) or one in over or (one.items and answered.issuperset(one.items)):
            continue
        over.add(one)
        before = progress.limits
        if requests.make(situation, progress, one) and progress.limits == before:
            answered.update(one.items)
        else:
            waiting = progress.goal.asks(fineness, progress.limits, progress.put_off)


def _fineness(request: Request) -> int:
    """How fine the requests are: finer each time that nothing came of them. A list of images is the coarsest of them
    where images are all that is asked for.
    """
    coarsest = LISTS if request.names_images else WHOLE
    return min(SINGLY, coarsest + max(request.rounds, request.charges))
