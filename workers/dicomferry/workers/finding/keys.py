"""Keys as they stand on the command line, with pydicom's data dictionary and the encodings of their values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import date

from dicomferry.models.rules import query
from dicomferry.models.rules.errors import UsageError
from dicomferry.models.rules.query import Key


class StandardDictionary:
    """PS3.6 as pydicom has it."""

    def tag(self, keyword: str) -> int:
        """The tag of a keyword; raises UsageError with the nearest one for a keyword that is not there."""
        from pydicom.datadict import keyword_dict, tag_for_keyword

        tag = tag_for_keyword(keyword)
        if tag is not None:
            return tag
        lower = {word.lower(): word for word in keyword_dict if word}
        near = difflib.get_close_matches(keyword.lower(), lower, n=1, cutoff=0.6)
        hint = f"did you mean {lower[near[0]]}?" if near else "write it as gggg,eeee if it is a private one"
        raise UsageError(f"no attribute {keyword!r}; {hint}")

    def vr(self, tag: int) -> str:
        """The value representation of a tag, the first one where there is a choice, UN for one that is not there."""
        from dicomferry.workers.dimse.identifier import vr_of

        return vr_of(tag)

    def keyword(self, tag: int) -> str:
        """The keyword of a tag, or its eight digits."""
        from pydicom.datadict import keyword_for_tag

        return keyword_for_tag(tag) or f"{tag:08X}"


DICTIONARY = StandardDictionary()


def parse(texts: Iterable[str], *, today: date, charset: str | None = None) -> tuple[Key, ...]:
    """The keys; raises UsageError for what is no key or has a value that cannot be sent to a remote of `charset`."""
    from dicomferry.workers.dimse import identifier

    keys = tuple(query.parse_key(text, DICTIONARY, today=today) for text in texts)
    identifier.encode(keys, identifier.EXPLICIT_LE, charset=charset)
    return keys


_LISTED = re.compile(r"\(?[0-9A-Fa-f]{4},\s*[0-9A-Fa-f]{4}\)?[^,]*|[^,]+")


def paths(texts: Iterable[str]) -> tuple[str, ...]:
    """The paths of keys without values, several in a text with commas between; raises UsageError."""
    words = [word.strip() for text in texts for word in _LISTED.findall(text)]
    return tuple(dict.fromkeys(query.parse_path(word, DICTIONARY) for word in words if word))


def spelled(path: str) -> str:
    """A path in keywords: `ScheduledProcedureStepSequence[0].Modality`."""
    steps = query.steps_of(path)
    parts = [f"{DICTIONARY.keyword(tag)}[{number}]" for tag, number in steps[:-1]]
    return ".".join([*parts, DICTIONARY.keyword(steps[-1][0])])
