"""The end of an attempt that came to what a test says, whatever it met: what is written down is the record's own."""

from __future__ import annotations

from typing import Any

from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import leases
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.rules import ending, errors
from dicomferry.models.rules.answers.lookup import for_error
from dicomferry.models.rules.ending import Decision, Ending
from dicomferry.models.rules.situation import Account, AttemptFacts, Tried
from dicomferry.models.rules.state import AttemptEnd

_AWAY = Tried(fault=for_error(errors.RemoteUnreachable("refused")))


def finish(
    database: Database,
    lease: Lease,
    *,
    end: AttemptEnd,
    decision: Decision | None,
    finished_items: int = 0,
    planned: bool = False,
    detail: str | None = None,
    **values: Any,
) -> Ending:
    """End an attempt by this decision."""
    account = Account(
        end=end,
        # What may count against the remote is decided with the row of its breaker locked.
        cause=_AWAY if decision and decision.leave_until else None,
        finished=finished_items,
        planned=planned,
        detail=detail,
    )

    def rule(account: Account, facts: AttemptFacts) -> Ending:
        return ending.settled(account, decision, facts)

    return leases.end(database, lease, account, rule=rule, **values)
