"""The association over which a retrieve asks: opened when it is needed, and again after it broke."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.target import Target
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.dimse import move
from dicomferry.workers.dimse.reports import Retrieval
from dicomferry.workers.dimse.requestor import Association
from dicomferry.workers.receiving.call_log import Refusals


class Line(Protocol):
    """Where C-MOVE or C-GET is asked. Not for several threads."""

    @property
    def refused(self) -> Mapping[int, Refusals]:
        """What this process refused of what came on it, by request; C-MOVE brings nothing here."""

    def ask(self, one: Target, message_id: int, move_id: int) -> Retrieval:
        """Ask for it. Raises what opening an association and sending raise."""

    def abort(self) -> None:
        """Break the association, if one is open; the next `ask` opens another."""

    def release(self) -> None:
        """End it in good order."""


class MoveLine:
    """C-MOVE: one association for as many as there are."""

    def __init__(self, remote: Remote, root: str, destination: str, heart: Heartbeat) -> None:
        self._remote = remote
        self._root = root
        self._destination = destination
        self._heart = heart
        self._association: Association | None = None
        self.refused: Mapping[int, Refusals] = {}

    def ask(self, one: Target, message_id: int, move_id: int) -> Retrieval:
        """Ask for it."""
        if self._association is None:
            self._association = move.open_for(self._remote, self._root, progress=self._heart.progress)
            self._heart.on_abort(self._association.abort)
        return move.ask(self._association, self._root, one, destination=self._destination, message_id=message_id)

    def abort(self) -> None:
        """Break the association, if one is open."""
        self._end(lambda association: association.close())

    def release(self) -> None:
        """End it in good order."""
        self._end(lambda association: association.release())

    def _end(self, how: Callable[[Association], None]) -> None:
        association, self._association = self._association, None
        if association is not None:
            self._heart.on_abort(None)
            how(association)
