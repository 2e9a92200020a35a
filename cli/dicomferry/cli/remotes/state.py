"""How a remote is treated at this moment, in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from dicomferry.cli.frame import render, words
from dicomferry.cli.frame.layout import Column
from dicomferry.models.documents.shapes import ExceptionDocument, RemoteState, ShownState

if TYPE_CHECKING:
    from dicomferry.models.documents.remotes import ShownRemote
    from dicomferry.models.record.database import Database

_LATELY = (
    Column(heading="lately"),
    Column(heading="job", right=True),
    Column(heading="kind", rank=3),
    Column(heading="attempt", rank=1),
    Column(heading="items", rank=2, right=True),
    Column(heading="what was met", least=24),
)
Pair = tuple[str, str | None]


def pairs(found: ShownRemote) -> list[Pair]:
    """What to print of a remote: its limits and what is used of them, its window, and whether it can be used."""
    used = found["in_use"]
    return [
        ("associations", f"{used['associations']} of at most {found['max_associations']} in use"),
        ("moves", f"{used['moves']} of at most {found['max_moves']} in use"),
        ("requests at most", _rate(found["max_requests_per_minute"], "a minute")),
        ("instances at most", _rate(found["max_instances_per_second"], "a second")),
        ("bytes at most", _bytes(found["max_bytes_per_second"])),
        ("window", window(found)),
        ("holidays", ", ".join(found["window"]["holidays"]) if found["window"] else None),
        ("blackouts", _blackouts(found)),
        ("found to bear", learned(found)),
        ("breaker", breaker(found)),
        ("waiting for it", _waiting(found)),
    ]


def window(found: ShownRemote) -> str | None:
    """The hours of a remote, and until when it is open or closed; None where it has none."""
    if not found["window"]:
        return None
    hours = f"{found['window']['hours'] or 'always'} ({found['window']['tz']})"
    return f"{hours}; {hours_now(found)}"


def hours_now(found: ExceptionDocument | ShownRemote) -> str:
    """`open until ...` or `closed, opens ...`."""
    moment = found["closes_at"] if found["open"] else found["opens_at"]
    if moment is None:
        return "open" if found["open"] else "closed for more than two years"
    # As the clock shows it for which the hours were written.
    assert found["window"] is not None, "what opens and closes has hours"
    there = datetime.fromisoformat(moment).astimezone(ZoneInfo(found["window"]["tz"]))
    return f"{'open until' if found['open'] else 'closed, opens'} {there:%a %Y-%m-%d %H:%M %Z}"


def learned(found: RemoteState) -> str | None:
    """What it was found to bear, less than it is allowed."""
    rate, associations = found["learned"]["instances_per_second"], found["learned"]["associations"]
    parts = [f"{rate:,.1f} instances a second for now, as it was short of resources"] if rate is not None else []
    if associations is not None:
        parts.append(f"{words.plural(associations, 'association')} for now, as it had no room for more")
    return "; ".join(parts) or None


def breaker(found: RemoteState) -> str:
    """Whether it is tried at all."""
    state = found["breaker"]
    if state["state"] == "closed":
        failures = state["failures"]
        return "closed" + (f" ({words.plural(failures, 'fruitless attempt')} in a row)" if failures else "")
    why = f"{state['reason']}: {state['detail']}" if state["detail"] else state["reason"]
    if state["state"] == "half-open":
        then = "one attempt is looking now"
    else:
        assert state["probe_at"] is not None, "an open breaker has its time"
        then = f"looked at again {words.clock(datetime.fromisoformat(state['probe_at']), datetime.now(UTC))}"
    return f"{state['state']} since {words.when(state['since'])}: {why}; {then}"


def sentence(found: ExceptionDocument) -> str:
    """Why a remote is not used as it might be, for the status."""
    parts = [] if found["open"] else [f"window {hours_now(found)}"]
    if found["breaker"]["state"] != "closed":
        parts.append(f"breaker {breaker(found)}")
    return "; ".join([*parts, *filter(None, [learned(found)])])


def tell_window(database: Database, name: str) -> None:
    """Print what the window is understood to be, and when it opens and closes next."""
    from dicomferry.models.documents import remotes

    found = remotes.whole(database, name)
    render.line(f"window: {window(found) or 'none, it may be used at any time'}")


def tell_recent(found: ShownState) -> None:
    """Print what came of it lately."""
    if not found["recent"]:
        return
    render.line("")
    rows = [
        (
            words.lately(one["at"]),
            one["job"],
            one["kind"],
            one["end"],
            one["finished_items"],
            one["detail"] or one["reason"],
        )
        for one in found["recent"]
    ]
    render.table(_LATELY, rows)


def _rate(value: float | None, unit: str) -> str | None:
    return f"{value:,g} {unit}" if value else None


def _bytes(value: int | None) -> str | None:
    return f"{words.size(value)} a second" if value else None


def _blackouts(found: ShownRemote) -> str | None:
    listed = found["window"]["blackouts"] if found["window"] else []
    return "; ".join(f"{words.when(begin)} to {words.when(end)}" for begin, end in listed) or None


def _waiting(found: ShownState) -> str | None:
    parts = [words.plural(found["waiting"], "chunk")] if found["waiting"] else []
    parts += [f"{words.number(found['held'])} held"] if found["held"] else []
    return ", ".join(parts) or None
