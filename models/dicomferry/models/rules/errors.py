"""Every error this product raises on purpose, each with the exit code that the command line gives it."""

from __future__ import annotations

from dicomferry.models.rules.reason import Reason


class DicomferryError(Exception):
    """Something went wrong that the person at the command line should read in one sentence."""

    exit_code = 1


class UsageError(DicomferryError):
    """What was asked for makes no sense as it stands."""

    exit_code = 2


class NotFound(UsageError):
    """No such job, remote or path."""


class ConfigurationError(DicomferryError):
    """A setting is wrong; the message names its key."""

    exit_code = 3


class OutOfReach(DicomferryError):
    """The database (for roles: or the broker) cannot be reached."""

    exit_code = 4


class Locked(OutOfReach):
    """Another transaction has locked what this one needs, and keeps it for long."""


class OutputFailed(DicomferryError):
    """Standard output takes nothing: it is closed, or its disk is full."""


class IllegalTransition(DicomferryError):
    """A state machine was asked for a step that is not in its table."""


class LeaseLost(DicomferryError):
    """Somebody else owns this chunk now; whoever sees this writes nothing more about it."""


class DimseError(DicomferryError):
    """An answer, or the lack of one, from a remote AE."""


class RemoteUnreachable(DimseError):
    """No TCP connection, or it was closed before any answer to A-ASSOCIATE-RQ.

    `closed` tells the second case from the first: the host is there and hangs up. `why` is timeout, refused, no route,
    name (which was not found) or other.
    """

    def __init__(self, message: str, *, closed: bool = False, why: str = "other") -> None:
        super().__init__(message)
        self.closed = closed
        self.why = why


class AssociationRejected(DimseError):
    """A-ASSOCIATE-RJ with its three numbers (PS3.8 table 9-21)."""

    def __init__(self, result: int, source: int, reason: int) -> None:
        super().__init__(f"association rejected (result {result}, source {source}, reason {reason})")
        self.result = result
        self.source = source
        self.reason = reason


class AssociationAborted(DimseError):
    """A-ABORT from the peer with its two numbers (PS3.8 table 9-26), after the association was established."""

    def __init__(self, message: str, source: int = 0, reason: int = 0) -> None:
        super().__init__(message)
        self.source = source
        self.reason = reason


class ConnectionLost(AssociationAborted):
    """The connection of an established association ended without a word."""


class ReleasedEarly(AssociationAborted):
    """The peer released the association where an answer was due."""


class ContextNotAccepted(DimseError):
    """The peer accepted no presentation context for this SOP class and transfer syntax.

    `result` is the Standard's result number (PS3.8 table 9-18: 3 abstract syntax, 4 transfer syntaxes not
    supported), None where the peer did not mention the context.
    """

    def __init__(self, sop_class_uid: str, transfer_syntax_uid: str, result: int | None = None) -> None:
        super().__init__(f"no presentation context for {sop_class_uid} in {transfer_syntax_uid}")
        self.sop_class_uid = sop_class_uid
        self.transfer_syntax_uid = transfer_syntax_uid
        self.result = result


class DimseTimeout(DimseError):
    """The peer kept the connection and stayed silent. `phase`: acse, store_answer, first_answer, progress, release."""

    def __init__(self, phase: str, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s ({phase})")
        self.phase = phase
        self.seconds = seconds


class DimseFailure(DimseError):
    """A final DIMSE status that is no success, where no per-item outcome can carry it."""

    def __init__(self, status: int, comment: str = "") -> None:
        super().__init__(f"status 0x{status:04X}" + (f" ({comment})" if comment else ""))
        self.status = status
        self.comment = comment


class ProtocolViolation(DimseError):
    """The peer answered something that the Standard does not allow here, such as a wrong message id.

    `pdu_type` is the first byte of what should have been a PDU, where that is none of the Standard's.
    """

    def __init__(self, message: str, *, pdu_type: int | None = None) -> None:
        super().__init__(message)
        self.pdu_type = pdu_type


class NoDicomAnswer(ProtocolViolation):
    """What answers to A-ASSOCIATE-RQ is no DICOM service, or breaks the Standard. `tls`: it wants TLS."""

    def __init__(self, message: str, *, tls: bool = False) -> None:
        super().__init__(message)
        self.tls = tls


class UnusableFile(DicomferryError):
    """A local file cannot be sent as it is. `reason` is the item's stable reason word."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
