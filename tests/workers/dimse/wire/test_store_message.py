"""The two messages of every instance, against the codec that reads and writes any command."""

from __future__ import annotations

import pytest

from dicomferry.workers.dimse.wire import message, store_message
from dicomferry.workers.dimse.wire.message import Assembler, CommandSet, number_value, text_value

MR = "1.2.840.10008.5.1.4.1.1.4"
UIDS = pytest.mark.parametrize("uid", ["1.2.3", "1.2.3.4", "2.25." + "9" * 59, "1.02.3"])


@UIDS
def test_the_request_is_what_the_codec_writes(uid: str) -> None:
    """C-STORE-RQ has the elements of PS3.7 table 9.3-1 in ascending order, UIDs padded to even length."""
    written = CommandSet(
        {
            message.AFFECTED_SOP_CLASS_UID: text_value(MR),
            message.COMMAND_FIELD: number_value(message.C_STORE_RQ),
            message.MESSAGE_ID: number_value(65535),
            message.PRIORITY: number_value(message.PRIORITY_LOW),
            message.COMMAND_DATA_SET_TYPE: number_value(message.DATA_SET_FOLLOWS),
            message.AFFECTED_SOP_INSTANCE_UID: text_value(uid),
        }
    )
    assert store_message.request(MR, uid, 65535, message.PRIORITY_LOW) == written.encode()


@UIDS
def test_the_plain_answer_is_the_response_to_that_request(uid: str) -> None:
    """It is what the request's response with status 0000 comes to in one PDV, and it is read as that."""
    request = CommandSet.decode(store_message.request(MR, uid, 258, message.PRIORITY_MEDIUM))
    response = request.response(message.C_STORE_RQ, 258, 0)
    body = store_message.success(5, MR, uid, 258)
    assert body == message.fragments(5, response.encode(), 16378, command=True)[6:]
    (read,) = Assembler().feed(body)
    assert (read.context_id, read.data, read.command.number(message.STATUS)) == (5, None, 0)
    assert read.command.text(message.AFFECTED_SOP_INSTANCE_UID) == uid
