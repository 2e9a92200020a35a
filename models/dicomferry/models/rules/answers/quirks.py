"""What a remote has otherwise than the table: another rule for a DIMSE status or for a rejection.

Written `store 0xA700=final` or `reject 1/1/7=away`; kept so in the address book.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from dicomferry.models.rules.answers import connections, statuses
from dicomferry.models.rules.answers.answer import Answer, Rule
from dicomferry.models.rules.errors import UsageError

Quirks = Mapping[str, Rule]
"""What happened, such as `store 0xA700`, and the rule for it at this remote."""

OF_STATUSES = (Rule.WARNING, Rule.FINAL, Rule.AGAIN, Rule.CONGESTED, Rule.HOLD)
"""Nothing makes a success of a status that says otherwise: what counts as done has to be proven."""
OF_REJECTIONS = (Rule.AWAY, Rule.SUSPECT, Rule.HOLD)
"""The rules that a rejection may have: no item is charged for an association that does not open, so none is final."""

_STATUS = re.compile(r"([a-z]+)\s+(?:0x)?([0-9a-f]{4})", re.IGNORECASE)
_REJECTION = re.compile(r"reject(?:ed)?\s+(\d{1,3})/(\d{1,3})/(\d{1,3})", re.IGNORECASE)


def parse(texts: Iterable[str]) -> dict[str, Rule | None]:
    """What `--quirk` gives: rules by what they are for, None where the table's own is to hold again.

    Raises UsageError.
    """
    found: dict[str, Rule | None] = {}
    for text in texts:
        what, sign, word = (part.strip() for part in text.partition("="))
        key, allowed = _key(text, what)
        if not sign or (word and word not in allowed):
            raise UsageError(f"--quirk {text!r}: write {key}=RULE, RULE one of {', '.join(allowed)}, or nothing")
        found[key] = Rule(word) if word else None
    return found


def _key(text: str, what: str) -> tuple[str, tuple[Rule, ...]]:
    rejection = _REJECTION.fullmatch(what)
    if rejection:
        return connections.rejection_key(*(int(number) for number in rejection.groups())), OF_REJECTIONS
    status = _STATUS.fullmatch(what)
    if not status or status[1].lower() not in statuses.SERVICES:
        services = ", ".join(statuses.SERVICES)
        raise UsageError(
            f"--quirk {text!r}: write SERVICE STATUS=RULE, such as 'store 0xA700=final' ({services}), "
            "or 'reject 1/1/7=away'"
        )
    code = int(status[2], 16)
    if code == 0 or code in statuses.PENDING:
        raise UsageError(f"--quirk {text!r}: 0x{code:04X} says that it went well, or goes on; that has no other rule")
    return status_key(status[1].lower(), code), OF_STATUSES


def status_key(service: str, status: int) -> str:
    """`store 0xA700`."""
    return f"{service} 0x{status:04X}"


def merged(old: Iterable[str], changes: Mapping[str, Rule | None]) -> list[str]:
    """The texts to keep after a change."""
    rules = {**parse(old), **changes}
    return [f"{key}={rule.value}" for key, rule in sorted(rules.items()) if rule]


def from_texts(texts: Iterable[str]) -> Quirks:
    """The quirks that the address book keeps."""
    return {key: rule for key, rule in parse(texts).items() if rule}


def applied(quirks: Quirks, key: str, answer: Answer) -> Answer:
    """The answer as this remote has it."""
    rule = quirks.get(key)
    return replace(answer, rule=rule) if rule else answer
