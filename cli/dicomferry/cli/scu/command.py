"""`scu` among the commands of `dicomferry`: for the list of commands, and for whoever calls them from Python.

The console script does not come this way, because click takes too long to import for an echo.
"""

from __future__ import annotations

import sys

import click

from dicomferry.cli.scu.run import run


class _Verbatim(click.Command):
    """A command whose words are not click's to read."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """All of them are left over."""
        ctx.args = list(args)
        return []


@click.command("scu", cls=_Verbatim, add_help_option=False)
@click.pass_context
def scu(ctx: click.Context) -> None:
    """Do one operation now, without a queue: gdcmscu's command line."""
    sys.exit(run(ctx.args))
