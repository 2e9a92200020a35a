"""One chunk of the queue, from claim to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from dicomferry.models import telemetry
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs import claims
from dicomferry.models.record.jobs.claims import PLAN, Lease
from dicomferry.models.record.remotes import book
from dicomferry.models.rules.errors import LeaseLost, OutOfReach
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.situation import Account, Tried
from dicomferry.models.rules.spec import RETRIEVES
from dicomferry.models.rules.state import AttemptEnd
from dicomferry.workers import item_attempt
from dicomferry.workers.attempts import probe
from dicomferry.workers.attempts.environment import INTERNAL, Environment, sentence
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.attempts.pace import AttemptPace
from dicomferry.workers.attempts.tuning import Planning
from dicomferry.workers.retrieval import attempt as retrieve
from dicomferry.workers.retrieval import plan as retrieve_plan
from dicomferry.workers.sending import plan

TURN_SECONDS = 5.0
"""Seconds for which a slot goes on with the next due chunk by itself, which saves the way over the broker."""
Try = Callable[[Environment, Lease, Heartbeat, Remote], None]
ATTEMPTS: Mapping[str, Try] = dict.fromkeys(RETRIEVES, retrieve.run)
"""What tries a chunk of a kind that is not items in, one answer per item out."""
PLANS: Mapping[str, Callable[[Database, Lease, Heartbeat, Callable[[], object], Planning], bool]] = {
    "store": plan.run,
    **dict.fromkeys(RETRIEVES, retrieve_plan.run),
}

log = telemetry.logger(__name__)


def run_due(environment: Environment, lane: str) -> None:
    """Run due chunks of a lane one after the other; after TURN_SECONDS whoever hears the bell goes on with the rest.

    Raises what `run_one` raises.
    """
    until = environment.clock() + TURN_SECONDS
    while environment.clock() < until:
        if not run_one(environment, lane):
            return
    _ring_for_more(environment, lane)


def _ring_for_more(environment: Environment, lane: str) -> None:
    if claims.any_due(environment.database, lane, plan_below=environment.tuning.planning.goes_on_below):
        environment.ring(lane)


def run_one(environment: Environment, lane: str) -> bool:
    """Claim the best due chunk of a lane and run it to the end of the attempt; False when there was none.

    Whatever goes wrong is on the record or in the log afterwards; nothing is raised but OutOfReach from the claim.
    """
    settings = environment.settings
    lease = claims.take(
        environment.database,
        lane,
        environment.worker,
        lease_seconds=settings.lease_seconds,
        jitter=environment.jitter(),
        plan_below=environment.tuning.planning.goes_on_below,
    )
    if lease is None:
        return False
    with telemetry_context(lease):
        _run(environment, lease)
    return True


def telemetry_context(lease: Lease) -> AbstractContextManager[None]:
    """Log lines of this attempt carry its ids."""
    import structlog

    return structlog.contextvars.bound_contextvars(job=lease.job_id, chunk=lease.chunk_id, fence=lease.fence)


def _run(environment: Environment, lease: Lease) -> None:
    settings = environment.settings
    remote = book.load(
        environment.database, lease.remote_id, ae_title=settings.ae_title, timeouts=settings.timeouts.value()
    )
    waits = remote.timeouts
    watchdog = max(waits.store_answer, waits.first_answer, waits.progress, waits.connect + waits.acse)
    impatient = environment.database.impatient()
    heart = environment.heartbeat(
        impatient,
        lease,
        environment.worker,
        lease_seconds=settings.lease_seconds,
        watchdog=watchdog + settings.lease_seconds + 30,
        beats=environment.tuning.beats,
    )
    try:
        with heart:
            if lease.more:  # only now: a mute broker may take a while, and the lease has to be kept
                environment.ring(lease.lane)
            _work(environment, lease, heart, remote)
    except LeaseLost as error:
        # The sweep has ended this attempt, or will; whoever has the chunk now goes on with it.
        log.warning("attempt given up", error=str(error))
    except OutOfReach as error:
        log.error("the record is out of reach; the lease will run out", error=str(error))
    finally:
        impatient.close()


def _work(environment: Environment, lease: Lease, heart: Heartbeat, remote: Remote) -> None:
    """Do what the chunk asks for and end the attempt, whatever happens. Raises LeaseLost, OutOfReach."""
    try:
        if lease.kind == PLAN:
            _plan(environment, lease, heart)
            return
        remote = replace(remote, pace=AttemptPace(environment.database, lease, heart))
        # An echo is a look by itself.
        if not lease.probe or lease.kind == Kind.ECHO or probe.look_again(environment, lease, heart, remote):
            ATTEMPTS.get(lease.kind, item_attempt.run)(environment, lease, heart, remote)
    except (LeaseLost, OutOfReach):
        raise
    except Exception as error:
        log.exception("attempt failed")
        environment.end(lease, Account(end=AttemptEnd.ERROR, cause=Tried(fault=INTERNAL), detail=sentence(error)))


def _plan(environment: Environment, lease: Lease, heart: Heartbeat) -> None:
    ring = partial(environment.ring, lease.spec.lane)
    planned = PLANS[lease.spec.kind](environment.database, lease, heart, ring, environment.tuning.planning)
    is_through = planned or not heart.stop
    environment.end(lease, Account(end=AttemptEnd.COMPLETED if is_through else AttemptEnd.INTERRUPTED, planned=planned))
