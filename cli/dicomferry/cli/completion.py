"""`dicomferry completion`, and what a shell is offered for remotes and jobs. Completion never fails: it is silent."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from dicomferry.cli import render
from dicomferry.cli.commands import Command

_JOBS_OFFERED = 10
_SHELLS = ("bash", "zsh", "fish")


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash: eval "$(dicomferry completion bash)" in ~/.bashrc
    zsh:  eval "$(dicomferry completion zsh)" in ~/.zshrc
    fish: dicomferry completion fish | source, in ~/.config/fish/config.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    root = ctx.find_root().command
    script = found(root, {}, "dicomferry", "_DICOMFERRY_COMPLETE")
    # Not source(): for bash that runs bash to learn its version, on machines that have none as well.
    render.verbatim(script.source_template % script.source_vars())


def remotes(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Names of the address book that begin like this."""
    try:
        from dicomferry.cli import record
        from dicomferry.models import remote_store
        from dicomferry.models.remote import host_and_port

        with ctx.scope():
            database = record.for_reading(record.settings())
            listed = remote_store.listing(database) if database else []
    except Exception:
        return []
    return [
        CompletionItem(row["name"], help=f"{row['ae_title']}@{host_and_port(row['host'], row['port'])}")
        for row in listed
        if row["name"].startswith(incomplete)
    ]


def answers(incomplete: str) -> list[CompletionItem]:
    """Reason words that begin like this."""
    from dicomferry.models import explanation

    return [CompletionItem(word) for word in explanation.reason_words() if word.startswith(incomplete)]


def jobs(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """The newest jobs whose id begins like this, and `last`."""
    items = [CompletionItem("last", help="the newest job")] if "last".startswith(incomplete) else []
    try:
        from dicomferry.cli import record
        from dicomferry.models import job_view

        with ctx.scope():
            database = record.for_reading(record.settings())
            listed = job_view.listing(database, limit=_JOBS_OFFERED) if database else []
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
        from dicomferry.cli import record
        from dicomferry.models import schedule_store

        with ctx.scope():
            database = record.for_reading(record.settings())
            listed = schedule_store.names(database) if database else []
    except Exception:
        return []
    return [CompletionItem(name) for name in listed if name.startswith(incomplete)]
