"""Wildcard matching (PS3.4 C.2.2.2.4): `*` is any run of characters, `?` any one, and nothing else is special. Pure.

In time that grows with the lengths alone: values come from peers, and a regular expression may take for ever.
"""

from __future__ import annotations


def is_wild(text: str) -> bool:
    """Whether it asks for more than one value."""
    return "*" in text or "?" in text


def fits(pattern: str, text: str) -> bool:
    """Whether the whole text is one that the pattern means."""
    at = here = 0
    star, resume = -1, 0
    while here < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, here
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[here]):
            at += 1
            here += 1
        elif star >= 0:
            # The last star takes one character more; those before it need none.
            resume += 1
            at, here = star + 1, resume
        else:
            return False
    return not pattern[at:].strip("*")
