"""Numbers, times and foreign text as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

from dicomferry.cli.frame.layout import Brief
from dicomferry.models.documents.shapes import JobDocument


def number(value: int) -> str:
    """A number with thousands separators."""
    return f"{value:,}"


def size(value: int) -> str:
    """Bytes in decimal units."""
    amount, unit = float(value), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds in words, such as 0.4 s, 41 s, 12 min 5 s, 3 h 20 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{number(whole // 3600)} h {whole % 3600 // 60} min"


def rate(per_second: float) -> str:
    """Instances in a second."""
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.1f}/s"


def when(moment: str | None) -> str:
    """A document's time as local time with its zone; empty for None."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") if moment else ""


def age(seconds: float) -> str:
    """How long ago, or `in` how long, as briefly as it can be said: 41s, 9m, 3h, 12d, in 2h."""
    whole = abs(round(seconds))
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if whole >= (2 if unit != "m" else 1) * length:
            break
    else:
        length, unit = 1, "s"
    return f"{'in ' if seconds <= -1 else ''}{number(whole // length)}{unit}"


def lately(moment: str | None) -> Brief:
    """A document's time as a cell: its age where there is little room."""
    if moment is None:
        return Brief("", "")
    return Brief(when(moment), age((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))


def time_of(moment: str | None) -> Brief:
    """A document's time as a cell: of today the time alone, else the day and the time."""
    if moment is None:
        return Brief("", "")
    local = datetime.fromisoformat(moment).astimezone()
    today = local.date() == datetime.now(UTC).astimezone().date()
    return Brief(when(moment), local.strftime("%H:%M:%S" if today else "%m-%d %H:%M"))


def clock(moment: datetime, now: datetime) -> str:
    """A moment as briefly as it can be said: `in 10 s`, else the local time, with its day if that is not today."""
    seconds = (moment - now).total_seconds()
    if seconds < 120:
        return f"in {max(seconds, 0):.0f} s"
    local = moment.astimezone()
    return local.strftime("at %H:%M:%S" if local.date() == now.astimezone().date() else "on %Y-%m-%d at %H:%M %Z")


def printable(text: object) -> str:
    """Text from outside without characters that would move the cursor or change the colour."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)


def plural(count: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def matches(count: int) -> str:
    """`1 match`, `2 matches`."""
    return f"{number(count)} match{'' if count == 1 else 'es'}"


def title(job: JobDocument) -> str:
    """The AE title of a job's remote."""
    return str(job["remote_address"]).partition("@")[0]
