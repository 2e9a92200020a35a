"""What came of one item: the value that an operation yields and the record keeps."""

from __future__ import annotations

from typing import NamedTuple

from dicomferry.models.rules.state import ItemState


class Outcome(NamedTuple):
    """What one try of one item came to; in state `pending` it will be tried again.

    `reason` is a stable word, None for a plain success. `status` is the DIMSE status as an integer, None where
    no peer gave one. `detail` is a sentence for people (the peer's error comment, the path of a twin ...).
    `charges` is the item's number of charges after this try.
    `sent_bytes` counts bytes of data set put on the wire; `sent_as` names the transfer syntax where it is not the
    file's own. `tried` is False where what was tried before was only looked at again.
    """

    item_id: int
    state: ItemState
    reason: str | None = None
    status: int | None = None
    detail: str | None = None
    charges: int = 0
    sent_bytes: int = 0
    sent_as: str | None = None
    tried: bool = True
