"""What a shell is offered for remotes, jobs and schedules. Completion never fails: it is silent."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

_JOBS_OFFERED = 10


def remotes(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Names of the address book that begin like this."""
    try:
        from dicomferry.cli.frame import installation
        from dicomferry.models.record.remotes import book
        from dicomferry.models.rules.remote import host_and_port

        with ctx.scope():
            database = installation.for_reading(installation.settings())
            listed = book.listing(database) if database else []
    except Exception:
        return []
    return [
        CompletionItem(row["name"], help=f"{row['ae_title']}@{host_and_port(row['host'], row['port'])}")
        for row in listed
        if row["name"].startswith(incomplete)
    ]


def answers(incomplete: str) -> list[CompletionItem]:
    """Reason words that begin like this."""
    from dicomferry.models.rules.answers import explanation

    return [CompletionItem(word) for word in explanation.reason_words() if word.startswith(incomplete)]


def jobs(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """The newest jobs whose id begins like this, and `last`."""
    items = [CompletionItem("last", help="the newest job")] if "last".startswith(incomplete) else []
    try:
        from dicomferry.cli.frame import installation
        from dicomferry.models.documents import jobs as job_documents

        with ctx.scope():
            database = installation.for_reading(installation.settings())
            listed = job_documents.listing(database, limit=_JOBS_OFFERED) if database else []
    except Exception:
        return items
    return items + [
        CompletionItem(str(job["id"]), help=f"{job['kind']} to {job['remote']}, {job['state']}")
        for job in listed
        if str(job["id"]).startswith(incomplete)
    ]


def schedules(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Names of schedules that begin like this."""
    try:
        from dicomferry.cli.frame import installation
        from dicomferry.models.record.schedules import verbs

        with ctx.scope():
            database = installation.for_reading(installation.settings())
            listed = verbs.names(database) if database else []
    except Exception:
        return []
    return [CompletionItem(name) for name in listed if name.startswith(incomplete)]
