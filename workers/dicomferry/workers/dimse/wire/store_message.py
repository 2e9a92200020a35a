"""C-STORE-RQ and the plain answer to it, success with both UIDs, as bytes (PS3.7 9.3.1).

These two go to and fro for every instance. What else a peer may answer is read by the codec of `message`.
"""

from __future__ import annotations

import struct

from dicomferry.workers.dimse.wire import message

# The group's length and the head of (0000,0002); what stands between the two UIDs, four US and the head of (0000,1000).
_BEGIN = struct.Struct("<HHLLHHL")
_BETWEEN = struct.Struct("<HHLHHHLHHHLHHHLHHHL")
_PDV = struct.Struct(">LBB")


def request(sop_class_uid: str, sop_instance_uid: str, message_id: int, priority: int) -> bytes:
    """C-STORE-RQ (PS3.7 table 9.3-1)."""
    return _command(
        message.text_value(sop_class_uid),
        message.text_value(sop_instance_uid),
        (message.COMMAND_FIELD, message.C_STORE_RQ),
        (message.MESSAGE_ID, message_id),
        (message.PRIORITY, priority),
        (message.COMMAND_DATA_SET_TYPE, message.DATA_SET_FOLLOWS),
    )


def success(context_id: int, sop_class_uid: str, sop_instance_uid: str, message_id: int) -> bytes:
    """The body of the P-DATA-TF that answers it with status 0000 (PS3.7 table 9.3-2)."""
    command = response(message.text_value(sop_class_uid), message.text_value(sop_instance_uid), message_id)
    return _PDV.pack(len(command) + 2, context_id, message.IS_COMMAND | message.IS_LAST) + command


def response(sop_class: bytes, sop_instance: bytes, message_id: int) -> bytes:
    """The command set that answers it with status 0000; the UIDs are values as the request has them on the wire."""
    return _command(
        sop_class,
        sop_instance,
        (message.COMMAND_FIELD, message.C_STORE_RSP),
        (message.MESSAGE_ID_BEING_RESPONDED_TO, message_id),
        (message.COMMAND_DATA_SET_TYPE, message.NO_DATA_SET),
        (message.STATUS, 0),
    )


def _command(
    kind: bytes,
    instance: bytes,
    a: tuple[int, int],
    b: tuple[int, int],
    c: tuple[int, int],
    d: tuple[int, int],
) -> bytes:
    between = _BETWEEN.pack(
        *(0, a[0], 2, a[1], 0, b[0], 2, b[1], 0, c[0], 2, c[1], 0, d[0], 2, d[1]),
        *(0, message.AFFECTED_SOP_INSTANCE_UID, len(instance)),
    )
    length = 8 + len(kind) + len(between) + len(instance)
    begin = _BEGIN.pack(0, message.GROUP_LENGTH, 4, length, 0, message.AFFECTED_SOP_CLASS_UID, len(kind))
    return begin + kind + between + instance
