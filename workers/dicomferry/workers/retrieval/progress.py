"""How far one attempt at a retrieve has come: all that changes in the course of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dicomferry.models.record.retrieves import moves, request
from dicomferry.models.record.retrieves.expected import Key
from dicomferry.models.record.retrieves.request import Request
from dicomferry.models.rules.rounds import Ask, Capabilities
from dicomferry.workers.dimse.reports import Report
from dicomferry.workers.finding.listing import Listing
from dicomferry.workers.retrieval.completeness import Blind, Goal, Listed, Mixed, Unlisted
from dicomferry.workers.retrieval.elsewhere import Believed, Elsewhere
from dicomferry.workers.retrieval.situation import Situation


@dataclass(frozen=True)
class Whereabouts:
    """Where the archive said that the instances lie, after so many requests for these targets (`asked_after`).

    `listing` is None where it did not answer; `words` is the Instance Availability (0008,0056) of each that has one.
    """

    asked_after: tuple[object, ...] = ()
    listing: Listing | None = None
    words: Mapping[Key, str] = field(default_factory=dict)


@dataclass
class Progress:
    """The request and its goal as they are now, and what was asked, answered and seen to come.

    `limits` is what the archive was found not to do, by its answers to this and former attempts. `listing` is what it
    listed in this attempt, before anything was asked for; `is_listed_anew` tells whether it did, for the first time or
    again, `is_renewed` whether the list was made again since an answer was silent of what an earlier one told of.
    `put_off` are items (`all_put_off`: whatever they are) that are not asked for in this attempt.

    `asked` counts the requests, `under_way` is the one that has no answer yet, or broke off; `moves` are all of them:
    our AE title and message id, and the id of the row. `reports` are the answers that were no refusal of the kind of
    request, `told` the last one to the request under way, or to the last one, that tells of sub-operations.

    `came` counts what has become known to be here since the attempt began. `signs` is what changes when something
    moves, as of the last look, and `next_look` the earliest moment of the next one. `looked_at` are files that were
    looked at.
    """

    request: Request
    goal: Goal
    limits: Capabilities
    looked_at: set[int]
    listing: Listing | None = None
    is_listed_anew: bool = False
    is_renewed: bool = False
    put_off: set[int] = field(default_factory=set)
    all_put_off: bool = False
    whereabouts: Whereabouts = Whereabouts()
    asked: int = 0
    under_way: Ask | None = None
    moves: dict[tuple[str, int], int] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    told: Report | None = None
    came: int = 0
    signs: tuple[object, ...] = ()
    next_look: float = 0.0


def begin(situation: Situation, found: Request) -> Progress:
    """Nothing is done yet of what the record has. Raises OutOfReach."""
    looked_at: set[int] = set()
    limits = moves.limits_of(situation.database, situation.lease, of_job=bool(found.shares))
    return Progress(found, _goal(situation, found, looked_at), limits, looked_at)


def read_again(situation: Situation, progress: Progress) -> None:
    """The request and its goal as the record has them now. Raises OutOfReach."""
    progress.request = request.of_chunk(situation.database, situation.lease.chunk_id)
    progress.goal = _goal(situation, progress.request, progress.looked_at)


def _goal(situation: Situation, found: Request, looked_at: set[int]) -> Goal:
    """What a request is after."""
    database, lease, most = situation.database, situation.lease, situation.remote.max_uids
    items: Listed | Elsewhere
    rest: Unlisted
    if situation.goes_elsewhere:
        rest = Believed(database, lease, found, most)
        items = Elsewhere(database, lease, found, most, situation.heart, situation.destination)
    else:
        here = (situation.spec.refetch, situation.last_arrival, situation.sight, looked_at)
        rest = Blind(database, lease, found, most, *here)
        items = Listed(database, lease, found, most, *here)
    if not rest.targets:
        return items
    unlisted = len(rest.targets) == len(found.targets) and not any(one.listed for one in found.targets)
    return rest if unlisted else Mixed(database, lease, found, most, items, rest)
