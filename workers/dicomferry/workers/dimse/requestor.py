"""Associations as requestor: the one seam between this product and DICOM's network protocol.

Above this module there are values and our own errors only; what the socket and the resolver raise is translated here
and in `upper_layer` and `associate_as_requestor`, which nobody else uses.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from dicomferry.models.rules.errors import (
    AssociationRejected,
    ContextNotAccepted,
    DimseError,
    DimseTimeout,
    NoDicomAnswer,
    ProtocolViolation,
    RemoteUnreachable,
)
from dicomferry.models.rules.remote import Remote
from dicomferry.workers.dimse.wire import upper_layer
from dicomferry.workers.dimse.wire.associate_as_requestor import Negotiated, encode_request, read_answer
from dicomferry.workers.dimse.wire.associate_items import OUR_MAX_PDU
from dicomferry.workers.dimse.wire.contexts import MOST_PROPOSALS, Context, Proposal
from dicomferry.workers.dimse.wire.inbox import Inbox, violation
from dicomferry.workers.dimse.wire.message import (
    C_CANCEL_RQ,
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    MESSAGE_ID_BEING_RESPONDED_TO,
    NO_DATA_SET,
    REQUESTS,
    STATUS,
    CommandSet,
    Message,
    fragment_size,
    fragments,
    number_value,
)
from dicomferry.workers.dimse.wire.upper_layer import PeerClosed, UpperLayer, named

log = logging.getLogger(__name__)

MOST_FRAGMENT = 1024 * 1024
RELEASE_SECONDS = 5.0
PARTING_SECONDS = 0.5
TLS_RECORDS = (0x15, 0x16)
"""Alert and handshake (RFC 8446, 5.1): how a port that wants TLS begins to answer."""
NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH)
LISTEN_SECONDS = 1.0
"""How often a wait for an answer looks whether it should stop."""

Progress = Callable[[int], None]
Stop = Callable[[], bool]
"""Whether what is under way is to be broken off; asked from the thread that owns the association."""


class Association:
    """An established association; for one thread, but for `abort`.

    A context manager: released on normal exit, aborted when an exception passes. `tcp_seconds` and
    `negotiation_seconds` tell how long it took to open.
    """

    def __init__(
        self,
        remote: Remote,
        layer: UpperLayer,
        negotiated: Negotiated,
        *,
        tcp_seconds: float,
        negotiation_seconds: float,
    ) -> None:
        self.remote = remote
        self.layer = layer
        self.contexts = negotiated.contexts
        self.scp_roles = negotiated.scp_roles
        self.peer_max_pdu = negotiated.peer_max_pdu
        self.peer_implementation_class_uid = negotiated.peer_implementation_class_uid
        self.peer_implementation_version_name = negotiated.peer_implementation_version_name
        self.tcp_seconds = tcp_seconds
        self.negotiation_seconds = negotiation_seconds
        self._message_id = 0
        self.inbox = Inbox(layer, patience=remote.timeouts.announced)

    @property
    def peer(self) -> str:
        """The name of the other side in messages: AET@host:port."""
        return self.layer.peer

    def context_for(self, abstract_syntax: str) -> Context:
        """The first accepted context of an abstract syntax; raises ContextNotAccepted with the peer's
        result.
        """
        mine = [context for context in self.contexts if context.abstract_syntax == abstract_syntax]
        for context in mine:
            if context.accepted:
                return context
        syntaxes = ", ".join(mine[0].proposed) if mine else "any syntax"
        error = ContextNotAccepted(abstract_syntax, syntaxes, mine[0].result if mine else None)
        raise named(self.peer, error)

    def next_message_id(self) -> int:
        """1 to 65535, then 1 again: 0 is avoided because some peers take it for absent."""
        self._message_id = self._message_id % 65535 + 1
        return self._message_id

    def send(self, context_id: int, command: CommandSet, data: bytes | None = None) -> None:
        """Send one message whose data set lies in memory; a request when the remote's pace allows it. Raises
        DimseTimeout("progress", s), AssociationAborted.
        """
        if self.remote.pace and command.number(COMMAND_FIELD) in REQUESTS:
            self.remote.pace.request()
        size = self.fragment_size
        parts = [fragments(context_id, command.encode(), size, command=True)]
        if data is not None:
            parts.append(fragments(context_id, data, size, command=False))
        self.layer.send(parts, seconds=self.remote.timeouts.progress)

    @property
    def fragment_size(self) -> int:
        """Bytes of a message in one fragment; raises ProtocolViolation where the peer allows none."""
        try:
            return fragment_size(self.peer_max_pdu, MOST_FRAGMENT)
        except ProtocolViolation as error:
            raise self.violation(str(error)) from error

    def receive(self, phase: str, seconds: float) -> Message:
        """The next whole message; raises what `Inbox.receive` raises."""
        return self.inbox.receive(phase, seconds)

    def comes(self, body: bytes, phase: str, seconds: float) -> bool:
        """Whether the next PDU is a P-DATA-TF of exactly this body. Any other one is left for `receive`, whose errors
        this raises as well, but for those of what it left.
        """
        return self.inbox.comes(body, phase, seconds)

    def receive_response(self, message_id: int, field: int, phase: str, seconds: float) -> tuple[Message, int]:
        """The next message and its status, checked to be the response `field` to `message_id` (PS3.7 9.3).

        Raises what `receive` raises; ProtocolViolation, after an A-ABORT of ours, for another command,
        another message id, or a response without a status.
        """
        message = self.receive(phase, seconds)
        command = message.command
        found = command.number(COMMAND_FIELD)
        if found != field:
            raise self.violation(f"command 0x{found or 0:04X} where 0x{field:04X} was to come")
        answered = command.number(MESSAGE_ID_BEING_RESPONDED_TO)
        if answered != message_id:
            raise self.violation(f"an answer to message {answered}, message {message_id} was asked")
        status = command.number(STATUS)
        if status is None:
            raise self.violation("an answer without a status")
        return message, status

    def await_response(
        self, message_id: int, field: int, phase: str, seconds: float, stop: Stop
    ) -> tuple[Message, int] | None:
        """The response, as `receive_response` gives it; None when `stop()` is true, which is seen within a second."""
        left = seconds
        while not stop():
            heard = self.layer.heard_bytes
            share = min(left, LISTEN_SECONDS)
            try:
                return self.receive_response(message_id, field, phase, share)
            except DimseTimeout as error:
                # Half an answer may have come: what is silent is the time since the last byte.
                left = seconds if self.layer.heard_bytes != heard else left - share
                if left <= 0:
                    raise named(self.peer, DimseTimeout(phase, seconds)) from error
        return None

    def cancel(self, context_id: int, message_id: int) -> None:
        """Ask the peer to end what `message_id` asked for (C-CANCEL, PS3.7 9.3.2.3); its last answer is still due."""
        command = CommandSet(
            {
                COMMAND_FIELD: number_value(C_CANCEL_RQ),
                MESSAGE_ID_BEING_RESPONDED_TO: number_value(message_id),
                COMMAND_DATA_SET_TYPE: number_value(NO_DATA_SET),
            }
        )
        self.send(context_id, command)

    def violation(self, text: str) -> ProtocolViolation:
        """Abort, and the error to raise: the peer did what the Standard does not allow here."""
        return violation(self.layer, text)

    def release(self) -> None:
        """Release (PS3.8 7.2) and close. Never raises and never waits longer than a few seconds of silence:
        every answer that matters is in by now, so a peer that cannot say goodbye loses us nothing."""
        try:
            if self.inbox.is_released:
                # The peer was first, and waits for its reply alone.
                self.layer.send([upper_layer.RELEASE_RP], seconds=RELEASE_SECONDS)
                return
            self.layer.send([upper_layer.RELEASE_RQ], seconds=RELEASE_SECONDS)
            self._await_release_reply()
        except DimseError as error:
            log.debug("release failed: %s", error)
            self.layer.abort()
        except BaseException:
            self.layer.abort()
            raise
        finally:
            self.layer.close()

    def _await_release_reply(self) -> None:
        seconds = min(RELEASE_SECONDS, self.remote.timeouts.acse)
        # A bound on PDUs as well: a peer that keeps on sending data is not releasing.
        for _ in range(1000):
            pdu = self.layer.receive("release", seconds)
            if pdu.kind == upper_layer.A_RELEASE_RP:
                self.layer.part(PARTING_SECONDS)
                return
            if pdu.kind == upper_layer.A_RELEASE_RQ:
                # Release collision: the requestor answers first, then waits for its reply (PS3.8 9.2, Sta9,
                # Sta11).
                self.layer.send([upper_layer.RELEASE_RP], seconds=seconds)
            elif pdu.kind != upper_layer.P_DATA_TF:
                # AA-8: only data may still be on its way.
                self.layer.abort(upper_layer.BY_SERVICE_PROVIDER, upper_layer.UNEXPECTED_PDU)
                return
        self.layer.abort()

    def abort(self) -> None:
        """Abort; from any thread. A call blocked in the owner's thread raises AssociationAborted."""
        self.layer.abort()

    def close(self) -> None:
        """Abort if still open, and give the socket back; for the owner's thread."""
        self.layer.abort()
        self.layer.close()

    def __enter__(self) -> Association:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.release()
        else:
            self.close()


def open_association(
    remote: Remote, proposals: Sequence[Proposal], *, progress: Progress | None = None, max_pdu: int = OUR_MAX_PDU
) -> Association:
    """Connect, negotiate, and return the association, even if no context was accepted.

    `progress(n)` is called whenever bytes moved, with the bytes of data set among them. `max_pdu` is the longest PDU
    that we offer to take. Raises
    RemoteUnreachable (`closed` when TCP was up and ended before any answer), AssociationRejected,
    AssociationAborted, DimseTimeout("acse", seconds), NoDicomAnswer; ValueError for none or more than 128
    proposals.
    """
    if not 1 <= len(proposals) <= MOST_PROPOSALS:
        raise ValueError(f"{len(proposals)} presentation contexts; 1 to {MOST_PROPOSALS} fit one association")
    peer = f"{remote.ae_title}@{remote.address}"
    request = encode_request(remote, proposals, max_pdu)
    began = time.perf_counter()
    sock = _connect(remote, peer)
    try:
        layer = UpperLayer(sock, peer, progress)
    except OSError as error:
        # Some systems refuse options on a connection that the peer has closed already.
        sock.close()
        raise RemoteUnreachable(f"{peer}: {error.strerror or error}", closed=True) from error
    connected = time.perf_counter()
    try:
        layer.send([request], seconds=remote.timeouts.acse)
        negotiated = read_answer(layer, layer.receive("acse", remote.timeouts.acse), proposals)
        return Association(
            remote,
            layer,
            negotiated,
            tcp_seconds=connected - began,
            negotiation_seconds=time.perf_counter() - connected,
        )
    except PeerClosed as error:
        layer.close()
        if error.heard:
            raise
        raise RemoteUnreachable(f"{error} before any answer to A-ASSOCIATE-RQ", closed=True) from error
    except ProtocolViolation as error:
        layer.close()
        raise NoDicomAnswer(str(error), tls=error.pdu_type in TLS_RECORDS) from error
    except AssociationRejected:
        layer.close()
        raise
    except BaseException:
        layer.abort()
        layer.close()
        raise


def open_with(
    remote: Remote,
    proposals: Sequence[Proposal],
    abstract_syntax: str,
    *,
    progress: Progress | None = None,
    max_pdu: int = OUR_MAX_PDU,
) -> Association:
    """An association in which this abstract syntax was accepted. Raises what `open_association` raises,
    ContextNotAccepted.
    """
    association = open_association(remote, proposals, progress=progress, max_pdu=max_pdu)
    try:
        association.context_for(abstract_syntax)
    except BaseException:
        association.close()
        raise
    return association


def _connect(remote: Remote, peer: str) -> socket.socket:
    """A TCP connection, each address of the host tried for `timeouts.connect`, which also bounds the wait for a name
    server; raises RemoteUnreachable.
    """
    try:
        return _connect_to_any(_addresses(remote, peer), remote.port, remote.timeouts.connect)
    except TimeoutError as error:
        text = f"no connection within {remote.timeouts.connect:g} s"
        raise RemoteUnreachable(f"{peer}: {text}", why="timeout") from error
    except socket.gaierror as error:
        raise RemoteUnreachable(f"{peer}: host name not found ({error.strerror})", why="name") from error
    except ConnectionRefusedError as error:
        raise RemoteUnreachable(f"{peer}: connection refused", why="refused") from error
    except UnicodeError as error:
        raise RemoteUnreachable(f"{peer}: host name not found ({error})", why="name") from error
    except OSError as error:
        why = "no route" if error.errno in NO_ROUTE else "other"
        raise RemoteUnreachable(f"{peer}: {error.strerror or error}", why=why) from error


def _addresses(remote: Remote, peer: str) -> list[str]:
    """The addresses to try. A name is looked up by a thread of its own: the system's resolver cannot be interrupted,
    and a mute name server is no reason to wait for longer than a remote. Raises RemoteUnreachable, OSError,
    UnicodeError.
    """
    if _is_address(remote.host):
        return [remote.host]
    found: list[str] = []
    errors: list[Exception] = []

    def look_up() -> None:
        try:
            entries = socket.getaddrinfo(remote.host, remote.port, type=socket.SOCK_STREAM)
            found.extend(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except (OSError, UnicodeError) as error:
            errors.append(error)

    thread = threading.Thread(target=look_up, name="look-up", daemon=True)
    thread.start()
    thread.join(remote.timeouts.connect)
    if errors:
        raise errors[0]
    if not found:
        text = f"the name service said nothing of {remote.host} within {remote.timeouts.connect:g} s"
        raise RemoteUnreachable(f"{peer}: {text}", why="name")
    return found


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host.partition("%")[0])
            return True
    return False


def _connect_to_any(addresses: Sequence[str], port: int, seconds: float) -> socket.socket:
    """The first of them that takes a connection; raises the last one's OSError."""
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port), timeout=seconds)
    return socket.create_connection((addresses[-1], port), timeout=seconds)
