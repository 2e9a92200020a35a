"""`dicomferry explain`: what an answer means, what we do about it, and what to check on which side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from dicomferry.cli.frame import options, render, words
from dicomferry.cli.frame.command_classes import Command
from dicomferry.cli.frame.options import Utf8
from dicomferry.models.rules.answers import statuses
from dicomferry.models.rules.answers.answer import Answer
from dicomferry.models.rules.answers.explanation import Explained
from dicomferry.models.rules.errors import NotFound

if TYPE_CHECKING:
    from dicomferry.models.documents.job_answers import Met

_SAYS = {
    "failed": ("item", "failed"),
    "warning": ("item", "with a remark"),
    "pending": ("item", "waiting"),
    "skipped": ("item", "left out"),
    "cancelled": ("item", "cancelled"),
    "succeeded": ("item", "in place all the same"),
    "attempts": ("attempt", "ended so"),
    "requests": ("request", "answered so"),
    "arrivals": ("instance", "kept beside what the archive had"),
    "waiting": ("part", "waiting"),
    "held": ("part", "held"),
}


def _counted(count: int, noun: str, what: str) -> str:
    return f"{words.plural(count, noun)} {what}"


class What(Utf8):
    """An answer, a reason word or a job."""

    name = "what"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Reason words and recent jobs."""
        from dicomferry.cli.frame import completers

        return completers.answers(incomplete) + completers.jobs(ctx, incomplete)


@click.command(cls=Command)
@click.argument("what", metavar="WHAT...", type=What(), nargs=-1, required=True)
@click.option("--service", type=click.Choice(list(statuses.SERVICES)), help="Only as an answer to this service.")
@click.option("--remote", metavar="REMOTE", type=options.RemoteType(), help="As this remote's quirks have it.")
@options.json_option
def explain(what: tuple[str, ...], service: str | None, remote: str | None, as_json: bool) -> None:
    """Explain an answer: what it means, what is done about it, what to check on which side.

    \b
    WHAT is a DIMSE status       0xA801   A801   C123   A7xx
    a rejection or an abort      1/1/7   rejected 1/1/7   abort 2/1
    a reason word                unreachable   no match   timeout acse
    or a job, with all its own   12   last
    """
    text = " ".join(" ".join(what).split())
    if _is_job(text):
        if service or remote:
            raise click.UsageError("a job has its own service and remote: leave --service and --remote out")
        _explain_job(text, as_json)
        return
    from dicomferry.models.rules import retry
    from dicomferry.models.rules.answers import explanation

    found = explanation.explain(text, service=service, own=_quirks(remote) if remote else None)
    if as_json:
        rows = [explanation.document(one, retry.in_words(one.answer.rule)) for one in found]
        render.document({"asked": text, "answers": rows})
        return
    groups: dict[object, list[Explained]] = {}
    for one in found:
        # What may happen to a connection, and differs by its advice alone, is told of together.
        answer = one.answer
        alike = one.services, answer.reason, answer.category, answer.rule, answer.clause, one.listed, one.own
        groups.setdefault(alike, []).append(one)
    for number, group in enumerate(groups.values()):
        if number:
            render.line("")
        answer = group[0].answer
        own = f"set for {remote}: {answer.rule}" if group[0].own else None
        if len(group) == 1:
            _tell(_heading(group[0]), answer, own=own)
        else:
            _tell(answer.reason or "success", answer, [(_name(one), one.answer.advice) for one in group], own=own)


def _heading(one: Explained) -> str:
    meaning = one.answer.reason or "success"
    if not one.listed:
        meaning = "not listed" if one.services else f"{meaning} (the Standard gives these numbers no meaning)"
    return _name(one) if meaning == one.what else f"{_name(one)}: {meaning}"


def _name(one: Explained) -> str:
    titles = [statuses.TITLES[service] for service in one.services]
    listed = " and ".join(filter(None, (", ".join(titles[:-1]), *titles[-1:])))
    return f"{one.what}, answered to {listed}" if titles else one.what


def _is_job(text: str) -> bool:
    """A plain decimal is a job; job ids have no leading zeros, and 0110 is a status."""
    return text == "last" or (text.isdecimal() and not text.startswith("0"))


def _quirks(name: str) -> dict[str, Any]:
    from dicomferry.cli.frame import installation
    from dicomferry.models.record.remotes import book
    from dicomferry.models.rules.answers import quirks

    database = installation.for_reading(installation.settings())
    if database is None:
        raise installation.no_remote(name)
    return dict(quirks.from_texts(book.show(database, name)["quirks"]))


def _tell(heading: str, answer: Answer, more: Sequence[tuple[str, str | None]] = (), *, own: str | None = None) -> None:
    """One row on the screen; or several that have all but `more` in common, their names and advice."""
    from dicomferry.models.rules import retry

    checks = answer.checks
    render.line(words.printable(heading))
    render.pairs(
        [
            *more,
            ("about", answer.category.value),
            ("what to do", answer.advice if answer.advice not in dict(more).values() else None),
            ("what we do", retry.in_words(answer.rule)),
            ("quirk", own),
            ("check here", checks.ours),
            ("check there", checks.theirs),
            ("check between", checks.network),
            ("the Standard", answer.clause),
        ]
    )


def _explain_job(text: str, as_json: bool) -> None:
    from dicomferry.cli.frame import installation
    from dicomferry.models.documents import job_answers, jobs
    from dicomferry.models.rules import retry

    try:
        database = installation.for_jobs(installation.settings())
        job_id = jobs.resolve_id(database, text)
        service, met = job_answers.of_job(database, job_id)
        refused = job_answers.refused_here(database, job_id)
    except NotFound as error:
        status = int(text) if text.isdecimal() and len(text) < 6 else 0
        listed = any(statuses.find(name, status) for name in statuses.SERVICES) if status else False
        hint = f"; as a DIMSE status that number is 0x{status:04X}" if listed else ""
        raise NotFound(f"{error}{hint}") from None
    if as_json:
        answers = [
            {
                "reason": one.answer.reason,
                "statuses": [f"0x{status:04X}" for status in sorted(one.statuses)],
                "counts": one.counts,
                "detail": one.detail,
                "files": one.files,
                "category": one.answer.category.value,
                "rule": one.answer.rule.value,
                "advice": one.answer.advice,
                "what_we_do": retry.in_words(one.answer.rule),
                "checks": {key: getattr(one.answer.checks, key) for key in ("ours", "theirs", "network")},
                "clause": one.answer.clause or None,
            }
            for one in met
        ]
        document = {"asked": text, "job": job_id, "service": service, "answers": answers, "refused_here": refused}
        render.document(document)
        return
    if not met and not refused:
        render.line(f"job {job_id}: nothing to explain, it met no answer but success so far")
    for number, one in enumerate(met):
        if number:
            render.line("")
        codes = ", ".join(f"0x{status:04X}" for status in sorted(one.statuses))
        counts = ", ".join(_counted(count, *_SAYS[where]) for where, count in one.counts.items())
        heading = f"job {job_id}: {one.answer.reason}" + (f" ({codes})" if codes else "")
        _tell(heading, one.answer, [("how often", counts), *_concerned(job_id, one)])
    for one_refused in refused:
        render.line("")
        number, why = one_refused["number"], one_refused["why"] or "without a word"
        heading = f"job {job_id}: our own storage SCP answered {one_refused['status']}"
        said = [
            ("how often", words.plural(number, "instance")),
            ("why", why),
            ("such as", one_refused["such_as"]),
            ("about", "here: the archive is not to blame for these; the log of our storage SCP says more"),
        ]
        render.line(words.printable(heading))
        render.pairs([(name, words.printable(text)) for name, text in said])


def _concerned(job_id: int, one: Met) -> list[tuple[str, str | None]]:
    """The files concerned with what was said of each; where there are none, what was said once."""
    if not one.files:
        return [("such as", one.detail)]
    told = [
        f"{file['path'] or file['sop_instance_uid']}" + (f": {file['detail']}" if file["detail"] else "")
        for file in one.files
    ]
    more = max(one.counts.get("failed", 0), one.counts.get("arrivals", 0)) - len(told)
    told += [f"and {words.number(more)} more: `dicomferry jobs items {job_id} --state failed`"] if more > 0 else []
    return [("" if place else "files", text) for place, text in enumerate(told)]
