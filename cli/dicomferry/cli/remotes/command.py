"""`dicomferry remote`: the address book."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dicomferry.cli.frame import options, render, words
from dicomferry.cli.frame.command_classes import Group, note
from dicomferry.cli.frame.layout import Column
from dicomferry.cli.frame.options import Utf8
from dicomferry.cli.remotes import state
from dicomferry.models.rules import remote as grammar
from dicomferry.models.rules.errors import UsageError

if TYPE_CHECKING:
    from dicomferry.models.record.remotes.book import RemoteDocument

_F = TypeVar("_F", bound=Callable[..., Any])
_TABLE = (
    Column(heading="name", least=12),
    Column(heading="AE title", rank=1),
    Column(heading="address", rank=1, least=16, middle=True),
    Column(heading="knows us as", rank=2),
    Column(heading="associations", rank=4, right=True),
    Column(heading="moves", rank=3, right=True),
)
_TIMEOUTS = ("connect", "acse", "first_answer", "store_answer", "progress")
_CHARSET = re.compile(r"(ISO_IR \d+|ISO 2022 IR \d+|GB18030|GBK)?(\\(ISO 2022 IR \d+))*")
_SYNTAX = re.compile(r"explicit|implicit|compressed|[0-9.]{5,64}")


def _remote_options(function: _F) -> _F:
    """All that an address book knows of a remote beside its address. An empty text or 0 s: the default again."""
    listed = (
        click.option("--calling", metavar="AET", type=Utf8(), help="How this remote knows us (else ae_title)."),
        click.option(
            "--store", metavar="AET@HOST:PORT", type=Utf8(), help="Where its storage SCP is, if it is another."
        ),
        click.option(
            "--also-from",
            metavar="AET|CIDR",
            multiple=True,
            type=Utf8(),
            help="Other AE titles or addresses that send for it; may be given several times.",
        ),
        click.option("--charset", metavar="CS", type=Utf8(), help="Its Specific Character Set, such as ISO_IR 100."),
        click.option("--max-associations", metavar="N", type=options.Number(0), help="At once, at most (else 4)."),
        click.option("--max-moves", metavar="N", type=options.Number(0), help="Moves at once, at most (else 1)."),
        click.option(
            "--max-requests-per-minute",
            metavar="N",
            type=options.Rate(),
            help="C-ECHO, C-FIND, C-MOVE and C-GET, evenly spread.",
        ),
        click.option(
            "--max-instances-per-second", metavar="N", type=options.Rate(), help="Sent to it, or coming from it."
        ),
        click.option(
            "--max-bytes-per-second", metavar="SIZE", type=options.Size(), help="The same in bytes: 500k, 10M, 1G."
        ),
        click.option(
            "--window",
            metavar="HOURS",
            type=Utf8(),
            help='When it may be used, such as "mon-fri 22:00-06:00, sat-sun 00:00-24:00" (else always).',
        ),
        click.option("--window-tz", metavar="ZONE", type=Utf8(), help="Time zone of the window (else this machine's)."),
        click.option(
            "--holiday",
            metavar="DATE",
            multiple=True,
            type=Utf8(),
            help="A day that has the hours of `holiday`, else of Sunday; may be given several times, all of them anew.",
        ),
        click.option(
            "--blackout",
            metavar="FROM/UNTIL",
            multiple=True,
            type=Utf8(),
            help="A time at which it is left alone, as in 2026-12-01T10:00/2026-12-01T14:00; like --holiday.",
        ),
        click.option("--max-uids", metavar="N", type=options.Number(0), help="UIDs in a request, at most (else 100)."),
        click.option("--find-cap", metavar="N", type=options.Number(0), help="Matches it lists at most, if known."),
        click.option(
            "--relational/--hierarchical",
            default=None,
            help="Whether it takes one query over several levels (else: each level apart).",
        ),
        click.option(
            "--numbers",
            type=click.Choice(["used", "ignored"]),
            help="Whether what it says of how many instances there are counts; ignored: its lists are the measure.",
        ),
        click.option(
            "--prefer-syntax",
            metavar="SYNTAX",
            type=Utf8(),
            help="What to take of several transfer syntaxes: explicit, implicit, compressed, or a UID.",
        ),
        click.option(
            "--quirk",
            metavar="ANSWER=RULE",
            multiple=True,
            type=Utf8(),
            help="What an answer means here, such as 'store 0xA700=final' or 'reject 1/1/7=away'; several times.",
        ),
        click.option(
            "--trust-answers",
            metavar="KEY[,KEY]",
            type=Utf8(),
            help="Keys whose answers are taken though they do not tell whether they have what was asked for.",
        ),
        click.option(
            "--coerces",
            metavar="LEVELS",
            type=Utf8(),
            help="UIDs that its files carry otherwise than it lists them: study, series, study,series or none.",
        ),
        click.option("--connect", metavar="S", type=options.Seconds(), help="Seconds for the TCP connection."),
        click.option("--acse", metavar="S", type=options.Seconds(), help="Seconds for the association."),
        click.option("--first-answer", metavar="S", type=options.Seconds(), help="Seconds for a first answer."),
        click.option("--store-answer", metavar="S", type=options.Seconds(), help="Seconds after an object."),
        click.option("--progress", metavar="S", type=options.Seconds(), help="Seconds without any progress."),
        click.option("--no-probe", is_flag=True, help="Do not test the connection now."),
    )
    for option in reversed(listed):
        function = option(function)
    return function


def _values(given: dict[str, Any]) -> dict[str, Any]:
    """What was given, as the address book calls it; raises UsageError."""
    from dicomferry.models.record.remotes import book

    values: dict[str, Any] = {}
    for option, key in (("calling", "calling_ae_title"), ("store", "store_address"), ("charset", "charset")):
        if given[option] is not None:
            values[key] = given[option] or None
    if given["charset"] and not _CHARSET.fullmatch(given["charset"]):
        raise UsageError(f"--charset {given['charset']!r}: no defined term of (0008,0005), such as ISO_IR 100")
    if given["prefer_syntax"] is not None:
        if given["prefer_syntax"] and not _SYNTAX.fullmatch(given["prefer_syntax"]):
            raise UsageError("--prefer-syntax is explicit, implicit, compressed, or a transfer syntax UID")
        values["prefer_syntax"] = given["prefer_syntax"] or None
    if given["also_from"]:
        values["also_from"] = [_sender(text) for text in given["also_from"] if text]
    for key in ("max_associations", "max_moves", "max_uids"):
        if given[key] is not None:
            values[key] = given[key] or book.DEFAULTS[key]
    for key in ("max_requests_per_minute", "max_instances_per_second", "max_bytes_per_second"):
        if given[key] is not None:
            values[key] = given[key] or None
    hours = _window(given)
    if hours:
        values["window"] = hours
    if given["find_cap"] is not None:
        values["find_cap"] = given["find_cap"] or None
    if given["relational"] is not None:
        values["relational"] = given["relational"]
    if given["numbers"] is not None:
        values["numbers"] = given["numbers"]
    if given["quirk"]:
        values["quirks"] = [text for text in given["quirk"] if text]
    if given["trust_answers"] is not None:
        from dicomferry.workers.finding import keys

        values["trust_answers"] = list(keys.paths([given["trust_answers"]]))
    if given["coerces"] is not None:
        values["coerces"] = given["coerces"]
    timeouts = {key: given[key] for key in _TIMEOUTS if given[key] is not None}
    if timeouts:
        values["timeouts"] = timeouts
    return values


def _window(given: dict[str, Any]) -> dict[str, Any]:
    """What was given of a window; its zone is this machine's where none is known."""
    found: dict[str, Any] = {}
    if given["window"] is not None:
        found["hours"] = given["window"]
    if given["window_tz"]:
        found["tz"] = given["window_tz"]
    for option, key in (("holiday", "holidays"), ("blackout", "blackouts")):
        if given[option]:
            found[key] = list(given[option])
    if found:
        import tzlocal

        found["local_tz"] = tzlocal.get_localzone_name()
    return found


def _sender(text: str) -> str:
    """An AE title, or an address or network."""
    try:
        return str(ipaddress.ip_network(text, strict=False)) if "/" in text else str(ipaddress.ip_address(text))
    except ValueError:
        if "/" in text or ":" in text:
            raise UsageError(f"--also-from {text!r} is no address or network, such as 10.0.0.0/24") from None
        return grammar.check_ae_title(text)


@click.group(cls=Group)
def remote() -> None:
    """Keep the address book of remote AEs and test them.

    An AE (application entity) is an archive or device at AET@HOST:PORT, such as PACS1@10.0.0.5:104.
    """


@remote.command()
@click.argument("name", metavar="NAME", type=Utf8())
@click.argument("address", metavar="AET@HOST:PORT", type=Utf8())
@_remote_options
def add(name: str, address: str, no_probe: bool, **given: Any) -> None:
    """Add a remote, then test the connection.

    It is saved in any case; the test says what works and what does not.
    """
    from dicomferry.cli.frame import installation
    from dicomferry.models.record.remotes import book

    values = _values(given)
    if "timeouts" in values:
        values["timeouts"] = {key: seconds for key, seconds in values["timeouts"].items() if seconds}
    settings = installation.settings()
    grammar.check_name(name)
    grammar.parse_address(address)
    database = installation.for_writing(settings)
    book.add(database, name, address, **values)
    render.line(f"{name} is saved")
    if "window" in values:
        state.tell_window(database, name)
    if not no_probe:
        _probe_saved(name)


@remote.command("set")
@click.argument("name", metavar="NAME", type=options.RemoteType())
@click.argument("address", metavar="[AET@HOST:PORT]", required=False, type=Utf8())
@_remote_options
def set_(name: str, address: str | None, no_probe: bool, **given: Any) -> None:
    """Change what is given of a remote, then test the connection.

    An empty text ("") or 0 goes back to the default, and so does a quirk without a rule ('store 0xA700='). Jobs under
    way see the change: limits within two seconds, the rest at their next step.
    """
    from dicomferry.cli.frame import installation
    from dicomferry.models.record.remotes import book

    values = _values(given)
    if not values and not address:
        raise UsageError("nothing to change: give an address or an option (see `dicomferry remote set --help`)")
    database = installation.for_writing(installation.settings())
    book.change(database, name, address, **values)
    render.line(f"{name} is saved")
    if "window" in values:
        state.tell_window(database, name)
    # Whether its address still works is a question only where that, or how it is called, was changed.
    if not no_probe and (address or values.keys() & {"calling_ae_title", "timeouts"}):
        _probe_saved(name)


@remote.command("list")
@options.form_options
def list_(form: str | None) -> None:
    """List the address book."""
    from dicomferry.cli.frame import installation
    from dicomferry.models.documents import shapes
    from dicomferry.models.record.remotes import book

    database = installation.for_reading(installation.settings())
    found = book.listing(database) if database else []
    render.rows(found, form, columns=shapes.columns(book.RemoteDocument), text=_table)
    if not found and not form:
        note("the address book is empty; add a remote with `dicomferry remote add NAME AET@HOST:PORT`")


def _table(found: Iterable[RemoteDocument]) -> None:
    cells = (
        (
            row["name"],
            row["ae_title"],
            grammar.host_and_port(row["host"], row["port"]),
            row["calling_ae_title"],
            row["max_associations"],
            row["max_moves"],
        )
        for row in found
    )
    render.table(_TABLE, cells)


@remote.command()
@click.argument("name", metavar="NAME", type=options.RemoteType())
@options.json_option
@options.wide_option
def show(name: str, as_json: bool) -> None:
    """Show all that is known of a remote: what was set, how it is treated now, and what came of it lately."""
    from dicomferry.cli.frame import installation
    from dicomferry.models.documents import remotes
    from dicomferry.workers.finding import keys

    settings = installation.settings()
    database = installation.for_reading(settings)
    if database is None:
        raise installation.no_remote(name)
    found = remotes.whole(database, name)
    if as_json:
        render.document(found)
        return
    render.line(f"{name}: {found['ae_title']}@{grammar.host_and_port(found['host'], found['port'])}")
    defaults = settings.timeouts.model_dump()
    timeouts = [
        (f"{key.replace('_', ' ')} timeout", f"{found['timeouts'].get(key, seconds):g} s")
        for key, seconds in defaults.items()
    ]
    render.pairs(
        [
            ("knows us as", found["calling_ae_title"] or settings.ae_title),
            ("its storage SCP", found["store_address"]),
            ("also sends from", ", ".join(found["also_from"])),
            ("character set", found["charset"]),
            *state.pairs(found),
            ("UIDs in a request", str(found["max_uids"])),
            ("matches at most", str(found["find_cap"]) if found["find_cap"] else None),
            ("queries", "over several levels" if found["relational"] else None),
            ("its numbers", "ignored: its lists are the measure" if found["numbers"] == "ignored" else None),
            ("preferred syntax", found["prefer_syntax"]),
            ("quirks", ", ".join(found["quirks"])),
            ("coerces", found["coerces"]),
            ("trusted answers", ", ".join(map(keys.spelled, found["trust_answers"]))),
            *timeouts,
        ]
    )
    state.tell_recent(found)


@remote.command()
@click.argument("name", metavar="NAME", type=options.RemoteType())
def remove(name: str) -> None:
    """Take a remote out of the address book; its jobs and their history stay."""
    from dicomferry.cli.frame import installation
    from dicomferry.models.record.remotes import book

    database = installation.for_reading(installation.settings())
    if database is None:
        raise installation.no_remote(name)
    book.remove(database, name)
    render.line(f"{name} is removed from the address book; its jobs stay")


@remote.command()
@options.remote_argument
@options.json_option
def echo(remote: str, as_json: bool) -> None:
    """Test the connection now: TCP, association, C-ECHO, with the time of each."""
    from dicomferry.cli.remotes import probe

    found = probe.probe(remote)
    if as_json:
        render.document(found)
    else:
        probe.tell(found)
    if probe.tell_the_record(found):
        note(f"what waited for {remote} goes on")
    click.get_current_context().exit(0 if found["ok"] else 1)


@remote.command()
@click.argument("name", metavar="NAME", type=options.RemoteType())
def resume(name: str) -> None:
    """Try what waits for a remote to answer now, and forget what was learned of it; windows, limits and holds stay."""
    from dicomferry.cli.frame import installation
    from dicomferry.models.record.remotes import book, breaker

    database = installation.for_reading(installation.settings())
    if database is None:
        raise installation.no_remote(name)
    number = breaker.resume(database, book.resolve_id(database, name))
    told = f"goes on now with {words.plural(number, 'part')} of jobs" if number else "nothing waited for it to answer"
    render.line(f"{name}: {told}")


def _probe_saved(name: str) -> None:
    from dicomferry.cli.remotes import probe

    found = probe.probe(name)
    probe.tell(found)
    if not found["ok"]:
        note(f"{name} is saved all the same; test it again with `dicomferry remote echo {name}`")
