"""What the Standard allows a UID to be (PS3.5 9.1)."""

from __future__ import annotations

import re
from functools import lru_cache

# Each UID of an instance is new: nothing in it is gone back over, and nothing of it kept.
_NUMBERS = re.compile(r"(?:0|[1-9][0-9]*+)(?:\.(?:0|[1-9][0-9]*+))*+")


MOST = 64
"""Characters."""


def is_numeric(uid: str) -> bool:
    """Whether it is numbers without leading zeros, with dots between them, in MOST characters at most."""
    return len(uid) <= MOST and _NUMBERS.fullmatch(uid) is not None


@lru_cache(maxsize=1024)
def is_lawful(uid: str) -> bool:
    """Whether it is that, and has a root and a suffix, so two numbers at least."""
    return "." in uid and is_numeric(uid)


def too_long(name: str, uid: str) -> str | None:
    """What is to be said of a UID of more than MOST characters, None of another one; `name` is the Standard's word."""
    return f"its {name} has {len(uid)} characters, {MOST} are allowed: {uid}" if len(uid) > MOST else None
