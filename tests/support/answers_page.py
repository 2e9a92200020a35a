"""docs/answers.md as the table of answers has it. From the folder tests, `python -m support.answers_page` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dicomferry.models.rules import retry
from dicomferry.models.rules.answers import connections, reasons, statuses
from dicomferry.models.rules.answers.answer import CHECKS, Answer, Rule

PAGE = Path(__file__).parents[2] / "docs" / "answers.md"
_HEADING = ("| {} | reason | about | rule | what to do | clause |", "|---|---|---|---|---|---|")


def text() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# What archives answer, and what becomes of it"
    yield ""
    yield "The table of answers, row by row; `dicomferry explain WHAT` prints one row, and what to check on which side."
    yield "This page is made from the table (`tests/support/answers_page.py`), and a test compares both. A remote may"
    yield "have another rule for a status or a rejection: `dicomferry remote set NAME --quirk 'store 0xA700=final'`."
    yield ""
    yield "## Rules"
    yield ""
    yield from ("| rule | what we do |", "|---|---|")
    yield from (f"| {rule} | {retry.in_words(rule)} |" for rule in Rule)
    yield ""
    yield "## What to check"
    yield ""
    yield from ("| about | here | there | between |", "|---|---|---|---|")
    for category, checks in CHECKS.items():
        yield f"| {category} | {checks.ours or ''} | {checks.theirs or ''} | {checks.network or ''} |"
    for service, rows in statuses.SERVICES.items():
        yield from ("", f"## Answers to {statuses.TITLES[service]}", "")
        yield from _table("status", ((row.name, row.answer) for row in rows))
    yield ""
    yield "Any other status is a failure with one retry; its reason is `status 0x...`."
    yield from ("", "## Rejections, aborts, time-outs, connections", "")
    yield "`reject` result/source/reason (PS3.8 9.3.4), `abort` source/reason (PS3.8 9.3.8)."
    yield ""
    yield from _table("what", connections.CONNECTIONS.items())
    yield from ("", "## What arises here", "")
    yield from _table("what", reasons.REASONS.items())


def _table(heading: str, rows: Iterable[tuple[str, Answer]]) -> Iterator[str]:
    yield _HEADING[0].format(heading)
    yield _HEADING[1]
    for name, answer in rows:
        cells = (name, answer.reason or "", answer.category, answer.rule, answer.advice or "", answer.clause)
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(text())
