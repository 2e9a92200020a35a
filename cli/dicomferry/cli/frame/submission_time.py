"""When and where a submit command is meant: now and here; of a schedule at a due time, where it was written down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import click

_KEY = "dicomferry.occasion"


@dataclass(frozen=True)
class Occasion:
    """The moment by the clock that counts (without a zone: this machine's), the folder where relative paths begin, and
    whether the same words are meant again and again."""

    moment: datetime
    folder: str = ""
    recurring: bool = False

    def path(self, path: str) -> str:
        """A path from the root on, byte for byte."""
        return os.fsdecode(os.path.abspath(os.fsencode(os.path.join(self.folder, path))))


def occasion() -> Occasion:
    """When and where the running command is meant."""
    found: Occasion | None = click.get_current_context().meta.get(_KEY)
    return found or Occasion(datetime.now())


@contextmanager
def meant(for_: Occasion) -> Iterator[None]:
    """Whatever is parsed and looked up inside is meant for this occasion."""
    meta = click.get_current_context().meta
    meta[_KEY] = for_
    try:
        yield
    finally:
        del meta[_KEY]
