"""Where one attempt at a retrieve asks its archive: C-MOVE or C-GET, opened when it is needed; what is open is ended
with the attempt.
"""

from __future__ import annotations

from collections.abc import Mapping

from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.retrieves.request import Request
from dicomferry.models.rules.answers.lookup import local
from dicomferry.models.rules.errors import ConfigurationError
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.spec import GetSpec, MoveSpec
from dicomferry.workers.attempts.environment import Environment
from dicomferry.workers.attempts.fault import Fault
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.receiving.call_log import Refusals
from dicomferry.workers.retrieval import proposal
from dicomferry.workers.retrieval.association_in_use import Line, MoveLine
from dicomferry.workers.retrieval.get_association import Store


class Lines:
    """The line of an attempt; for C-GET also the archive that it writes to. Not for several threads."""

    def __init__(
        self, environment: Environment, lease: Lease, heart: Heartbeat, remote: Remote, spec: MoveSpec | GetSpec
    ) -> None:
        self._environment = environment
        self._lease = lease
        self._heart = heart
        self._remote = remote
        self._spec = spec
        self._line: Line | None = None
        self._store: Store | None = None

    def line(self, request: Request) -> Line:
        """The line over which is asked for what is missing of a request. Raises Fault where C-GET has nowhere to write
        to.
        """
        if self._line is None:
            self._line = self._get_line(request) if isinstance(self._spec, GetSpec) else self._move_line(self._spec)
        return self._line

    def _move_line(self, spec: MoveSpec) -> Line:
        return MoveLine(self._remote, spec.root, spec.destination or self._remote.calling_ae_title, self._heart)

    def _get_line(self, request: Request) -> Line:
        try:
            self._store = self._store or Store(self._environment.settings, self._environment.database)
        except ConfigurationError as error:
            raise Fault(local(Reason.ARCHIVE_OUT_OF_SIGHT), str(error)) from error
        return proposal.line(self._environment.database, self._lease, self._heart, self._remote, request, self._store)

    @property
    def refused(self) -> Mapping[int, Refusals]:
        """What this process refused of what came by C-GET, by request."""
        return self._line.refused if self._line else {}

    def is_behind(self) -> bool:
        """Whether something that came by C-GET still waits for its row; that is written at once."""
        return self._store is not None and self._store.is_behind()

    def abort(self) -> None:
        """Break the association, if one is open; whoever asks next opens another."""
        if self._line:
            self._line.abort()

    def hang_up(self) -> None:
        """Release the association: whoever asks next opens one of its own, and an attempt has room for one."""
        if self._line:
            self._line.release()

    def close(self) -> None:
        """Break the association, and write the rows of what came by C-GET."""
        self._heart.on_abort(None)
        self.abort()
        if self._store:
            self._store.close()
