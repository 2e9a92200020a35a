"""How an attempt at a retrieve ends, and whose fault it is that nothing came: what the archive said, held against what
our storage SCP saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from dicomferry.models.record.archive import calls
from dicomferry.models.record.archive.calls import KeptCall
from dicomferry.models.record.archive.pairing import GONE, NOT_DELIVERED
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.rules.answers.lookup import local
from dicomferry.models.rules.callers import Callers
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.proof import Finding
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.rounds import Missing
from dicomferry.models.rules.situation import Cause
from dicomferry.models.rules.state import AttemptEnd, ItemState
from dicomferry.workers.attempts.environment import Environment
from dicomferry.workers.attempts.fault import Fault
from dicomferry.workers.receiving import callers as admission

MOST_NAMED = 3
"""So many AE titles are named in a sentence."""


@dataclass(frozen=True)
class Lost:
    """Why what is still missing is given up.

    `gone` and `unseen` are items: the archive lists them no more; it said that it sent them, and the destination does
    not show them. `named` are SOP Instance UIDs, which is all that an answer tells of what failed.
    """

    reason: str = NOT_DELIVERED
    detail: str | None = None
    gone: frozenset[int] = frozenset()
    named: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    unseen: frozenset[int] = frozenset()

    def outcome(self, one: Missing) -> Outcome:
        """Of one instance."""
        reason, detail = self.reason, self.detail
        if one.item_id in self.gone:
            reason, detail = GONE, None
        elif one.item_id in self.unseen:
            reason = Reason.NOT_AT_THE_DESTINATION
        elif one.sop_class in self.refused:
            reason, detail = Reason.CONTEXT_REFUSED_HERE, f"our storage SCP refused SOP class {one.sop_class}"
        elif one.uid in self.named:
            detail = f"the archive names it among what it could not send; {detail or ''}".rstrip("; ")
        return Outcome(item_id=one.item_id, state=ItemState.FAILED, reason=reason, detail=detail, charges=one.charges)


@dataclass
class End:
    """How an attempt ends: by default with all that there was to do, so that the request can be closed.

    `cause` is what it came to where that is not all.
    `failure` is the request's own; `lost` tells what its pending instances come to, `rounds` how many counted.
    `finding` is what it is to be called. `is_apart` tells that requests that share the chunk go on each by itself,
    `is_ahead` that it is listed what is to come, and nothing else was to be done.
    """

    cause: Cause | None = None
    end: AttemptEnd = AttemptEnd.COMPLETED
    detail: str | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    failure: Outcome | None = None
    lost: Lost | None = None
    rounds: int | None = None
    finding: Finding | None = None
    is_apart: bool = False
    is_ahead: bool = False


def callers_of(environment: Environment, lease: Lease, remote: Remote) -> Callers:
    """Who calls for this remote; its host is looked up for as long as a connection would be waited for.

    Raises OutOfReach.
    """
    within = partial(environment.names.within, seconds=remote.timeouts.connect)
    return admission.of_remote(environment.database, lease.remote_id, within)


def seen_from(database: Database, callers: Callers, after: int) -> tuple[list[KeptCall], list[KeptCall]]:
    """(associations of this remote that our storage SCP took, rejected ones that may be its) since call `after`.

    Those that were open already count: some archives keep one for the next time. Whoever is rejected is not known, so
    it may have been this remote under a name that we do not know, but not under that of another one.
    """
    rows = calls.calls_after(database, after)
    taken = [row for row in rows if row.accepted and callers.knows(row.calling_ae_title, row.address)]
    rejected = [
        row for row in rows if not row.accepted and row.id > after and row.calling_ae_title not in callers.others
    ]
    return taken, rejected


def _namesakes(database: Database, callers: Callers, after: int) -> list[str]:
    """AE titles of other remotes under which somebody called from this remote's address since call `after`."""
    return sorted(
        {
            row.calling_ae_title
            for row in calls.calls_after(database, after)
            if row.accepted and row.calling_ae_title in callers.others and callers.is_from(row.address)
        }
    )


def why_nothing_came(database: Database, callers: Callers, after: int, us: str) -> Fault | None:
    """The fault, if our storage SCP saw no association from there since call `after`; `us` is AE title and address."""
    taken, rejected = seen_from(database, callers, after)
    if taken:
        return None
    if rejected:
        row = rejected[-1]
        detail = f"our storage SCP rejected {row.calling_ae_title!r} from {row.address}: {row.why}"
        return Fault(local(Reason.ARCHIVE_WAS_REJECTED_HERE), detail)
    advice = (
        f"no association came from there: its administrator has to enter {us} as a destination, and the firewall has "
        "to be open from there to here; then release"
    )
    namesakes = _namesakes(database, callers, after)
    if namesakes:
        named = " and ".join(namesakes[:MOST_NAMED])
        advice += f". {named} called from its address, which is another remote: if it is this one, --also-from {named}"
    return Fault(local(Reason.ARCHIVE_CANNOT_REACH_US, advice), f"it was to send to {us}, and nobody called")


def refused_classes(taken: Sequence[KeptCall]) -> frozenset[str]:
    """The SOP classes that our storage SCP refused in these associations."""
    return frozenset(uid for call in taken for uid in call.refused)


def moved_at(database: Database, callers: Callers) -> object:
    """Something that changes whenever an association from this remote carried data."""
    rows = calls.calls_after(database, 1 << 62)
    return max(
        (row.moved_at for row in rows if row.moved_at and callers.knows(row.calling_ae_title, row.address)),
        default=None,
    )
