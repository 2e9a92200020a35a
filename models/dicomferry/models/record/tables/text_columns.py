"""Columns for text that may come from a peer: what goes into them is made fit for any database (`peer_text`)."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from dicomferry.models.rules import peer_text


class PeerText(TypeDecorator[str]):
    """A title, a UID or the like of `length` characters at most, in comparisons too."""

    impl = sa.String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self._length = length

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """The text up to its first NUL, no longer than the column."""
        return None if value is None else peer_text.short(value, self._length)

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[str | None], str | None]:
        """A function that makes text fit for the column, in one call: every instance has a dozen such columns."""
        most, short = self._length, peer_text.short

        def process(value: str | None) -> str | None:
            if value is None or (len(value) <= most and value.isascii() and value.isprintable()):
                return value
            return short(value, most)

        return process


class PeerWords(TypeDecorator[str]):
    """Sentences of any length."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Without what no database takes."""
        return None if value is None else peer_text.words(value)

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[str | None], str | None]:
        """A function that makes text fit for the column, in one call."""
        words = peer_text.words

        def process(value: str | None) -> str | None:
            return value if value is None or value.isprintable() else words(value)

        return process


UID = PeerText(peer_text.MOST_UID)
TITLE = PeerText(16)
"""An AE title."""
