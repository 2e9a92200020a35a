"""What a flaw of an archived file means: whether the file counts as the instance that was expected.

Pure. A flaw is a text that begins with a stable word; the rest of it is for people.
"""

from __future__ import annotations

from dicomferry.models.rules.reason import Reason

DAMAGED = "damaged:"
"""The file's size on disk is not the one that was recorded when it was received."""
TRUNCATED = "truncated:"
"""The data set ends within an element. It counts once the same bytes came twice: they are so at their source."""
ENCODING = ("unreadable:", "pixels:")
"""The data set is not in the encoding of its transfer syntax: asked for again, it may come well in a plain one."""
NEVER = (
    *ENCODING,
    "no study",
    "uid differs:",
    DAMAGED,
    # What former versions wrote of a data set whose UIDs they could not read.
    "no uid",
    "no meta",
    "syntax mismatch:",
)
"""Beginnings of flaws with which a file counts for nothing."""
TRUNCATED_AT_SOURCE = Reason.TRUNCATED_AT_SOURCE
CAME_FLAWED = Reason.CAME_FLAWED


def counts(flaw: str | None) -> bool:
    """Whether a file with this flaw counts as the instance that was expected; one that is truncated does not by itself.

    Other flaws than those named here are notes, such as `odd uid`.
    """
    return flaw is None or not flaw.startswith((*NEVER, TRUNCATED))


def is_truncated(flaw: str | None) -> bool:
    """Whether the file's data set ends within an element."""
    return flaw is not None and flaw.startswith(TRUNCATED)
