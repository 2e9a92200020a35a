"""The half-open breaker: one attempt looks by C-ECHO whether the remote can be used again, for all that waits."""

from __future__ import annotations

from dicomferry.models import telemetry
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.remotes import breaker
from dicomferry.models.rules import spec
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Answer, Rule
from dicomferry.models.rules.errors import DimseError
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.situation import Account, Tried
from dicomferry.models.rules.state import AttemptEnd
from dicomferry.workers.attempts.environment import Environment, sentence
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.dimse.echo import echo

log = telemetry.logger(__name__)

_ILL = (Rule.AWAY, Rule.SUSPECT, Rule.BROKEN)


def answers(remote: Remote, heart: Heartbeat) -> bool:
    """Whether the remote answers a C-ECHO, whatever it answers. Raises LeaseLost."""
    return _fault(remote, heart) is None


def _fault(remote: Remote, heart: Heartbeat) -> tuple[Answer, DimseError] | None:
    """What keeps the remote from answering a C-ECHO."""
    try:
        echo(remote, progress=heart.progress)
    except DimseError as error:
        heart.require_lease()
        fault = lookup.for_error(error, remote.quirks)
        if fault.rule in _ILL:
            return fault, error
    return None


def look_again(environment: Environment, lease: Lease, heart: Heartbeat, remote: Remote) -> bool:
    """Ask the remote, on behalf of all that wait for it: if it answers, its breaker is closed and others are rung for;
    if not, the attempt ends with that. Whether it answered. Raises LeaseLost, OutOfReach.
    """
    database = environment.database
    found = _fault(remote, heart)
    if found is not None:
        fault, error = found
        environment.end(lease, Account(end=AttemptEnd.ERROR, cause=Tried(fault=fault), detail=sentence(error)))
        return False
    heart.require_lease()
    database.write(
        lambda connection: breaker.close(
            connection, lease.remote_id, lease.chunk_id, lease.fence, database.now(connection)
        ),
    )
    log.info("the remote answers again", remote=remote.name)
    for lane in spec.LANES:
        environment.ring(lane)
    return True
