"""One association into the archive, and what all of a process share: who is admitted, how many, where instances go."""

from __future__ import annotations

import socket
import uuid

from dicomferry.daemon.places import Caller, PlaceKeeper
from dicomferry.models import telemetry
from dicomferry.models.rules.callers import is_loopback
from dicomferry.models.rules.errors import DimseError
from dicomferry.models.settings import Settings
from dicomferry.workers.attempts.pace import Paces, Slowed
from dicomferry.workers.dimse.acceptor import Acceptor, Incoming, Sink, Waits
from dicomferry.workers.dimse.wire import associate_as_acceptor
from dicomferry.workers.dimse.wire.associate_as_acceptor import VERIFICATION, AssociateRequest, Rejection
from dicomferry.workers.dimse.wire.upper_layer import UpperLayer
from dicomferry.workers.receiving.archive import Archive
from dicomferry.workers.receiving.call_log import CallLog, OpenCall
from dicomferry.workers.receiving.callers import Admission
from dicomferry.workers.receiving.draft import Draft
from dicomferry.workers.receiving.indexer import Indexer
from dicomferry.workers.receiving.ingest import Ingest
from dicomferry.workers.receiving.reception_log.reception_log import ReceptionLog

log = telemetry.logger(__name__)


class StorageScp:
    """What all connections of a process share: who is admitted, how many, and where instances go."""

    def __init__(
        self,
        settings: Settings,
        archive: Archive,
        indexer: Indexer,
        admission: Admission,
        waits: Waits,
        calls: CallLog,
        paces: Paces,
        places: PlaceKeeper,
        reception_log: ReceptionLog | None,
    ) -> None:
        self._settings = settings
        self._archive = archive
        self._indexer = indexer
        self._admission = admission
        self._waits = waits
        self._calls = calls
        self._paces = paces
        self._places = places
        self._log = reception_log


class ArchiveConnection:
    """One connection: the `Service` of its acceptor, and what is logged of it."""

    def __init__(self, scp: StorageScp, sock: socket.socket, address: str) -> None:
        self._scp = scp
        self._address = address
        self.token = uuid.uuid4().hex
        self._stores = 0
        self.caller = Caller("", address)
        self._call: OpenCall | None = None
        self._spare: Draft | None = None
        self._layer = UpperLayer(sock, address, self._moved)
        self.acceptor = Acceptor(self._layer, self, scp._waits)

    def run(self) -> None:
        """The whole life of the connection."""
        try:
            self.acceptor.serve()
            why = None
        except DimseError as error:
            why = str(error)
        except Exception:
            log.exception("an association failed", association=self.token)
            why = "our own fault"
        finally:
            self._scp._calls.ended(self.token)
            if self._stores:
                self._scp._indexer.hurry()
        if self.acceptor.request is not None:
            log.info("association ended", association=self.token, stores=self._stores, why=why)
        elif why and "was closed" not in why:
            log.info("no association came about", address=self._address, why=why)

    def idle_seconds(self) -> float:
        """How long its association has said nothing."""
        return self.acceptor.idle_seconds()

    def give_way(self) -> None:
        """End the association: its place is needed for another caller."""
        self.acceptor.end("it was idle, and its place was needed")

    def admit(self, request: AssociateRequest) -> Rejection | None:
        """Known callers, as long as there is a place."""
        caller = request.calling_ae_title
        scp = self._scp
        self.caller = Caller(caller, self._address)
        rejection, allow = None if self._only_asks_for_life(request) else self._stranger(caller), ""
        if rejection is not None:
            allow = (
                f"to allow it: `dicomferry remote add NAME {caller or 'AET'}@{self._address}:PORT`, "
                f'or `dicomferry remote set NAME --also-from {self._address}`, or scp.accept = "any"'
            )
        elif (full := scp._places.take(self)) is not None:
            rejection, allow = Rejection(2, 3, 2, full), "it may try again"
        if rejection is not None:
            log.warning(
                "association rejected",
                result=f"{rejection.result}/{rejection.source}/{rejection.reason}",
                why=rejection.text,
                advice=allow,
                calling_ae_title=caller,
                called_ae_title=request.called_ae_title,
                address=self._address,
            )
            scp._calls.rejected(
                self.token,
                calling=caller,
                called=request.called_ae_title,
                address=self._address,
                why=f"{rejection.text} ({rejection.result}/{rejection.source}/{rejection.reason}); {allow}",
            )
            return rejection
        self._layer.peer = f"{caller}@{self._address}"
        answers = associate_as_acceptor.negotiate(request.contexts)
        self._call = scp._calls.begin(
            self.token,
            calling=caller,
            called=request.called_ae_title,
            address=self._address,
            refused=tuple(dict.fromkeys(answer.abstract_syntax for answer in answers if not answer.accepted)),
        )
        log.info(
            "association accepted",
            association=self.token,
            calling_ae_title=caller,
            called_ae_title=request.called_ae_title,
            address=self._address,
        )
        return None

    def _only_asks_for_life(self, request: AssociateRequest) -> bool:
        """Whether it is a health check of this machine: verification and nothing else, by whatever AE title."""
        return is_loopback(self._address) and all(one.abstract_syntax == VERIFICATION for one in request.contexts)

    def _stranger(self, caller: str) -> Rejection | None:
        """The rejection of who is not known, by the rule that `scp.accept` names."""
        admission, accept = self._scp._admission, self._scp._settings.scp.accept
        if accept == "any" or admission.knows(caller, self._address, both=accept == "both"):
            return None
        near = admission.callers.near(caller)
        hint = f"; did it mean {near}? AE titles are case-sensitive" if near and near != caller else ""
        if accept == "both":
            text = f"the AE title {caller!r} and the address {self._address} do not belong to one remote{hint}"
        else:
            text = f"neither the AE title {caller!r} nor the address {self._address} belongs to a remote{hint}"
        return Rejection(1, 1, 3, text)

    def _moved(self, _bytes: int) -> None:
        if self._call is not None:
            self._call.moved = True

    def prefer(self, request: AssociateRequest) -> str | None:
        """The caller's remote decides, and whether something of it is under repair."""
        return self._scp._admission.prefer(request.calling_ae_title, self._address)

    def store(self, incoming: Incoming) -> Sink:
        """One instance into the archive, answered when the limits of its remote allow it."""
        self._stores += 1
        scp = self._scp
        spare, self._spare = self._spare, None
        ingest = Ingest(
            scp._archive,
            scp._indexer,
            incoming,
            association=self.token,
            address=self._address,
            spare=spare,
            reception_log=scp._log,
            refused=self._call.refuse if self._call else None,
        )
        pace = scp._paces.of(incoming.request.calling_ae_title, self._address)
        return Slowed(ingest, pace.received) if pace else ingest

    def look_ahead(self) -> None:
        """The next instance's file: to make one is a tenth of what a small instance costs."""
        if self._stores and self._spare is None:
            self._spare = self._scp._archive.spare_draft()

    def leave(self, request: AssociateRequest) -> None:
        """One place free."""
        self._scp._places.leave(self)
        if self._spare is not None:
            self._spare.close()
            self._spare = None
