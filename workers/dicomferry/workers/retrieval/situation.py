"""What one attempt at a retrieve has to do with, and what does not change in the course of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dicomferry.models.record.archive import calls
from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.remotes import book
from dicomferry.models.record.retrieves import expected
from dicomferry.models.rules.callers import Callers
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.proof import Way
from dicomferry.models.rules.remote import Remote, host_and_port
from dicomferry.models.rules.retry import RetryPolicy
from dicomferry.models.rules.spec import GetSpec, MoveSpec
from dicomferry.workers.attempts.environment import Environment
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.receiving import callers as admission
from dicomferry.workers.receiving.sight import Sight
from dicomferry.workers.retrieval import blame
from dicomferry.workers.retrieval.lines import Lines


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Who retrieves what from whom, and how things stood when the attempt began.

    `callers` tells who calls our storage SCP for the archive. `last_call` is the last association that was asked of the
    storage SCP before the attempt, `last_arrival` the last instance that anybody sent here before it: what came later
    was on disk a moment ago. `scps` are the storage SCPs that lived then; none where nothing is to be sent to one.

    `destination` is the remote of the address book to which a move goes that does not come here, None where there is no
    such remote, and `way` how it is known what came. `sight` looks at files of the archive, `lines` is where it is
    asked.
    """

    environment: Environment
    lease: Lease
    heart: Heartbeat
    remote: Remote
    spec: MoveSpec | GetSpec
    callers: Callers
    last_call: int
    last_arrival: int
    scps: frozenset[int]
    destination: Remote | None
    way: Way
    sight: Sight
    lines: Lines

    @property
    def database(self) -> Database:
        """The record."""
        return self.environment.database

    @property
    def policy(self) -> RetryPolicy:
        """When it is tried again."""
        return self.environment.settings.retry.value()

    @property
    def comes_here(self) -> bool:
        """Whether a C-MOVE sends to our own storage SCP."""
        return comes_here(self.spec, self.remote)

    @property
    def goes_elsewhere(self) -> bool:
        """Whether a C-MOVE sends to somebody else."""
        return self.way is not Way.HERE

    @property
    def ignores_numbers(self) -> bool:
        """Whether the address book says that this archive's numbers are wrong."""
        return self.remote.numbers == "ignored"

    @property
    def us(self) -> str:
        """What the archive has to know to send to us."""
        settings = self.environment.settings
        towards = next(iter(self.environment.names.addresses(self.remote.host)), "")
        where = host_and_port(admission.public_host(settings, towards), admission.public_port(settings))
        return f"AE title {self.remote.calling_ae_title}, {where}"

    def now(self) -> datetime:
        """The record's clock. Raises OutOfReach."""
        return self.database.read(self.database.now)


def comes_here(spec: MoveSpec | GetSpec, remote: Remote) -> bool:
    """Whether a retrieve is a C-MOVE that sends to our own storage SCP."""
    return spec.kind == Kind.MOVE and spec.destination in (None, remote.calling_ae_title)


def look_round(environment: Environment, lease: Lease, heart: Heartbeat, remote: Remote) -> Situation:
    """The situation as an attempt finds it. Raises OutOfReach."""
    spec, database = lease.spec, environment.database
    assert isinstance(spec, MoveSpec | GetSpec)
    here = comes_here(spec, remote)
    destination = None if here or spec.kind == Kind.GET else _destination(environment, spec.destination or "")
    return Situation(
        environment=environment,
        lease=lease,
        heart=heart,
        remote=remote,
        spec=spec,
        callers=blame.callers_of(environment, lease, remote),
        scps=calls.living_scps(database) if here else frozenset(),
        last_call=calls.last_call(database),
        last_arrival=expected.last_arrival(database),
        destination=destination,
        way=Way.HERE if here or spec.kind == Kind.GET else Way.BELIEVED if destination is None else Way.SHOWN,
        sight=Sight(
            environment.settings.archive,
            database,
            clock=environment.clock,
            sleep=environment.sleep,
            progress=heart.progress,
        ),
        lines=Lines(environment, lease, heart, remote, spec),
    )


def _destination(environment: Environment, ae_title: str) -> Remote | None:
    """The remote of the address book with this AE title, which can be asked what it has."""
    settings = environment.settings
    key = book.id_of_ae_title(environment.database, ae_title)
    if key is None:
        return None
    return book.load(environment.database, key, ae_title=settings.ae_title, timeouts=settings.timeouts.value())
