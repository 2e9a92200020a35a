"""What somebody may ask the table of answers, and the rows that answer it.

A DIMSE status (`0xA801`, `A801`, `A7xx`), a rejection (`1/1/7`, `rejected 1/1/7`), an abort (`abort 2/1`), a time-out
(`timeout acse`), or a reason word (`no match`). A plain decimal is no status: that is how job ids are written.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from dicomferry.models.rules.answers import connections, quirks, statuses
from dicomferry.models.rules.answers.answer import Answer
from dicomferry.models.rules.answers.quirks import Quirks
from dicomferry.models.rules.answers.reasons import REASONS
from dicomferry.models.rules.errors import NotFound

_HEXADECIMAL = re.compile(r"0x([0-9a-f]{1,4})|(0[0-9a-f]{3}|(?=[0-9a-f]*[a-f])[0-9a-f]{4})", re.IGNORECASE)
_CLASS = re.compile(r"(?:0x)?(?=.{4}$)([0-9a-f]{1,3})x+", re.IGNORECASE)
_REJECTION = re.compile(r"(?:reject(?:ed|ion)?\s+)?(\d{1,3})/(\d{1,3})/(\d{1,3})")
_ABORT = re.compile(r"abort(?:ed)?\s+(\d{1,3})(?:/(\d{1,3}))?")


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One row, and what of the question it answers. `services` are those that give the same answer.

    `listed` is false where the Standard does not list it, `own` where the rule is a quirk of the remote.
    """

    what: str
    answer: Answer
    services: tuple[str, ...] = ()
    listed: bool = True
    own: bool = False


def status_of(text: str) -> int | None:
    """The DIMSE status that a text names, the first of a class such as `A7xx`; None where it names none."""
    found = _HEXADECIMAL.fullmatch(text)
    if found:
        return int(found[1] or found[2], 16)
    found = _CLASS.fullmatch(text)
    return int(found[1].ljust(4, "0"), 16) if found else None


def explain(text: str, *, service: str | None = None, own: Quirks | None = None) -> list[Explained]:
    """The rows that answer a question, those of statuses for each service or for one. Raises NotFound."""
    asked = " ".join(text.split())
    status = status_of(asked)
    if status is not None:
        return list(_of_status(status, (service,) if service else tuple(statuses.SERVICES), own or {}))
    found = list(_of_connection(asked.lower(), own or {})) + list(_of_reason(asked, service, own or {}))
    if not found:
        raise NotFound(f"nothing is known of {asked!r}; {_hint(asked)}")
    return found


def _of_status(status: int, services: tuple[str, ...], own: Quirks) -> Iterator[Explained]:
    """What a status means, services that agree in one."""
    found = []
    for service in services:
        row = statuses.find(service, status)
        name = f"0x{status:04X}" + (f" ({row.name})" if row and row.last > row.first else "")
        listed = row.answer if row else statuses.unlisted(status)
        answer = quirks.applied(own, quirks.status_key(service, status), listed)
        found.append(
            Explained(what=name, answer=answer, services=(service,), listed=row is not None, own=answer is not listed)
        )
    yield from sorted(_joined(found), key=lambda one: not one.listed)


def _joined(found: Iterable[Explained]) -> Iterator[Explained]:
    """Services that give the same answer in one, whichever clause says so."""
    groups: dict[Explained, list[Explained]] = {}
    for one in found:
        alike = replace(one, answer=replace(one.answer, clause=""), services=())
        groups.setdefault(alike, []).append(one)
    for alike, members in groups.items():
        clauses = dict.fromkeys(one.answer.clause for one in members)
        services = tuple(service for one in members for service in one.services)
        yield replace(alike, answer=replace(alike.answer, clause=", ".join(clauses)), services=services)


def _of_connection(asked: str, own: Quirks) -> Iterator[Explained]:
    """A rejection, an abort, or whatever else has a key of its own."""
    numbers = _REJECTION.fullmatch(asked)
    if numbers:
        result, source, reason = (int(number) for number in numbers.groups())
        key = connections.rejection_key(result, source, reason)
        listed = connections.for_rejection(result, source, reason)
        answer = quirks.applied(own, key, listed)
        yield Explained(what=key, answer=answer, listed=key in connections.CONNECTIONS, own=answer is not listed)
        return
    numbers = _ABORT.fullmatch(asked)
    if numbers:
        source, reason = int(numbers[1]), int(numbers[2] or 0)
        key = f"abort {source}/{reason}" if source else "abort 0"
        answer = connections.for_abort(source, reason)
        yield Explained(what=key, answer=answer, listed=key in connections.CONNECTIONS)
        return
    wanted = asked.replace("time-out", "timeout").replace("_", " ")
    for key, answer in connections.CONNECTIONS.items():
        if key.lower().replace("_", " ") == wanted:
            yield Explained(what=key, answer=answer)


def _of_reason(asked: str, service: str | None, own: Quirks) -> Iterator[Explained]:
    """Every row with this reason word, upper and lower case alike."""
    wanted = asked.lower()
    for key, answer in connections.CONNECTIONS.items():
        if (answer.reason or "").lower() == wanted != key.lower():
            changed = quirks.applied(own, key, answer)
            yield Explained(what=key, answer=changed, own=changed is not answer)
    for reason, answer in REASONS.items():
        if reason.lower() == wanted:
            yield Explained(what=reason, answer=answer)
    yield from _joined(
        Explained(what=row.name, answer=row.answer, services=(name,))
        for name, rows in statuses.SERVICES.items()
        if service in (None, name)
        for row in rows
        if (row.answer.reason or "").lower() == wanted
    )


def reason_words() -> list[str]:
    """Every reason word of the table, in order."""
    answers = [*connections.CONNECTIONS.values(), *REASONS.values()]
    answers += [row.answer for rows in statuses.SERVICES.values() for row in rows]
    return sorted({answer.reason for answer in answers if answer.reason}, key=str.lower)


def _hint(asked: str) -> str:
    known = {word.lower(): word for word in (*reason_words(), *connections.CONNECTIONS)}
    near = difflib.get_close_matches(asked.lower(), known, n=1)
    if near:
        return f"did you mean {known[near[0]]!r}?"
    return "give a status such as 0xA801, a rejection such as 1/1/7, `abort 2/1`, a reason word, or a job"


def document(explained: Explained, what_we_do: str) -> dict[str, object]:
    """The JSON object of a row, with stable keys."""
    answer, checks = explained.answer, explained.answer.checks
    return {
        "what": explained.what,
        "services": list(explained.services),
        "listed": explained.listed,
        "reason": answer.reason,
        "category": answer.category.value,
        "rule": answer.rule.value,
        "own_rule": explained.own,
        "advice": answer.advice,
        "what_we_do": what_we_do,
        "checks": {"ours": checks.ours, "theirs": checks.theirs, "network": checks.network},
        "clause": answer.clause or None,
    }
