"""What C-MOVE and C-GET have in common: the request's identifier, and what an answer says (PS3.4 C.4.2, C.4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.target import Target
from dicomferry.workers.dimse import identifier
from dicomferry.workers.dimse.wire import message
from dicomferry.workers.dimse.wire.message import CommandSet

FAILED_SOP_INSTANCE_UID_LIST = 0x00080058
MOST_COMMENT = 200


@dataclass(frozen=True, kw_only=True)
class Report:
    """One answer. Counters are None where the peer leaves them out, as it may (PS3.7 9.1.4.1)."""

    status: int
    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None
    failed_uids: tuple[str, ...] = ()
    comment: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether no other answer follows."""
        return not lookup.is_pending(self.status)

    @property
    def is_counted(self) -> bool:
        """Whether it tells how many sub-operations are over."""
        return not (self.completed is self.failed is self.warning is None)

    @property
    def done(self) -> int:
        """Sub-operations that are over, however they ended."""
        return sum(number or 0 for number in (self.completed, self.failed, self.warning))


class Retrieval(Protocol):
    """One C-MOVE or C-GET that was asked for. For one thread."""

    @property
    def stores(self) -> int:
        """How many instances have come on its own association; none where they come on others."""

    def poll(self, seconds: float) -> Report | None:
        """The next answer, None when there is none within `seconds` (or a little more).

        Raises AssociationAborted, ProtocolViolation, DimseTimeout("progress") when a message that has begun does not
        go on.
        """

    def cancel(self) -> None:
        """Ask the peer to end it (PS3.7 9.3.3.3, 9.3.4.3); its final answer is still due."""


def encode(remote: Remote, root: str, target: Target, transfer_syntax: str) -> bytes:
    """The identifier of a retrieve: (0008,0052) and unique keys, nothing else (PS3.4 C.4.2.1.4.1)."""
    return identifier.encode(target.keys(root), transfer_syntax, charset=remote.charset, level=target.level.value)


def read_report(command: CommandSet, status: int, data: bytes | None, transfer_syntax: str) -> Report:
    """What an answer says; its data set, if any, lists what failed (PS3.4 C.4.2.1.4.2). Some archives write that list
    into the command set instead.
    """
    failed: tuple[str, ...] = ()
    misplaced = command.strays.get(FAILED_SOP_INSTANCE_UID_LIST)
    if misplaced:
        values = misplaced.decode("ascii", "replace").split("\\")
        failed = tuple(uid for value in values if (uid := value.strip(" \0")))
    if data:
        element = identifier.decode(data, transfer_syntax).attributes.get(f"{FAILED_SOP_INSTANCE_UID_LIST:08X}", {})
        failed = tuple(str(uid) for uid in element.get("Value", ()) if uid) or failed
    comment = command.text(message.ERROR_COMMENT)
    if comment:
        comment = "".join(char if char.isprintable() else "?" for char in comment)[:MOST_COMMENT]
    return Report(
        status=status,
        remaining=command.number(message.REMAINING_SUBOPERATIONS),
        completed=command.number(message.COMPLETED_SUBOPERATIONS),
        failed=command.number(message.FAILED_SUBOPERATIONS),
        warning=command.number(message.WARNING_SUBOPERATIONS),
        failed_uids=failed,
        comment=comment,
    )
