"""The click classes: options that every command takes, commands loaded when they are used, errors in one line."""

from __future__ import annotations

import difflib
import importlib
import shutil
import sys
import traceback
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import click

from dicomferry.cli.frame.layout import wrapped
from dicomferry.cli.frame.output import mute
from dicomferry.cli.frame.words import printable
from dicomferry.models.rules.errors import DicomferryError, OutputFailed, UsageError

HOME = "dicomferry.home"
DEBUG = "dicomferry.debug"
RAW = "dicomferry.raw"
"""Set where cells of a CSV are to be written as they came."""
WIDE = "dicomferry.wide"
"""Set where tables are to be in full, also on a narrow terminal."""
QUIET = "dicomferry.quiet"
"""Set where nobody reads what commands have to say."""
INTERRUPTED = 130
PIPE_CLOSED = 141
"""What a shell shows for any program that a closed pipe ended."""


def remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Kept for the whole command line, so that the option may stand after any of its words."""
    if value:
        ctx.meta[f"dicomferry.{param.name}"] = value


_COMMON: Sequence[click.Option] = (
    click.Option(
        ["--home"],
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        expose_value=False,
        callback=remember,
        help="The folder of the installation (else DICOMFERRY_HOME).",
    ),
    click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        callback=remember,
        help="Show where in the program an error arose.",
    ),
)


class Command(click.Command):
    """A command that takes --home and --debug."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The parameters of the command: its own, the common ones, --help."""
        *own, help_option = super().get_params(ctx)
        return [*own, *_COMMON, help_option]


class Group(click.Group):
    """A group that takes --home and --debug. `default` is the command that may be left out."""

    command_class = Command
    elsewhere: Mapping[str, str] = {}

    def __init__(self, *args: Any, default: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.default = default
        if default:
            self.no_args_is_help = False

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The parameters of the command: its own, the common ones, --help."""
        *own, help_option = super().get_params(ctx)
        return [*own, *_COMMON, help_option]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were written."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, each with its whole first sentence."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(200)) for name, command in self.commands.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Options without a command belong to the default command."""
        named = set(args) & {*self.commands, "--help", "-h"} or (args and not args[0].startswith("-"))
        if self.default and not named and not ctx.resilient_parsing:
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command by its name as click does, with "did you mean" for a misspelt one."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(args[0], [*known, *self.elsewhere], n=1)
            meant = self.elsewhere.get(near[0], near[0]) if near else ""
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(known)}"
            ctx.fail(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


@dataclass(frozen=True)
class Lazy:
    """A command that is imported when it is used: `module:name`, and what the list of commands says about it."""

    target: str
    help: str


class RootGroup(Group):
    """The command `dicomferry`: its commands are imported one by one, and whatever goes wrong ends in one line.

    `elsewhere` are words that people try here, and where they are commands.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], elsewhere: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy
        self.elsewhere = elsewhere

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        found = self.lazy.get(cmd_name)
        if found is None:
            return None
        module, _, name = found.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in self.lazy.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; raises click's Exit with the code of whatever went wrong."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except (click.exceptions.Exit, click.ClickException):
            raise
        except BrokenPipeError:
            mute()
            raise click.exceptions.Exit(PIPE_CLOSED) from None
        except KeyboardInterrupt:
            complain("interrupted")
            raise click.exceptions.Exit(INTERRUPTED) from None
        except Exception as error:
            if ctx.meta.get(DEBUG):
                traceback.print_exc()
            raise click.exceptions.Exit(_explain(error)) from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit; wrong usage is told in one line."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)
        try:
            code = super().main(args, prog_name, complete_var, False, **extra)
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.UsageError as error:
            where = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
            complain(f"{' '.join(error.format_message().split())}{where}")
            code = error.exit_code
        except click.ClickException as error:
            complain(error.format_message())
            code = error.exit_code
        except click.Abort:
            complain("interrupted")
            code = INTERRUPTED
        except OutputFailed as error:
            code = _explain(error)
        sys.exit(code if isinstance(code, int) else 0)


def complain(text: str) -> None:
    """One line on stderr."""
    _write(sys.stderr, f"dicomferry: {text}")


def note(text: str) -> None:
    """A hint, a warning or progress on stderr, without a prefix: it is no error."""
    context = click.get_current_context(silent=True)
    if context is None or not context.meta.get(QUIET):
        for line in wrapped(text, shutil.get_terminal_size().columns) if sys.stderr.isatty() else [text]:
            _write(sys.stderr, line)


def confirm(what: str) -> None:
    """Go on only if a person agrees to that; raises UsageError where there is none to be asked."""
    agree(f"{what} for good?", f"this would {what} for good: give --yes", "nothing was removed")


def agree(question: str, refusal: str, otherwise: str) -> None:
    """Go on only if a person says yes; raises UsageError where there is none to be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(refusal)
    if not click.confirm(question, err=True):
        note(otherwise)
        raise click.exceptions.Exit(1)


def _write(stream: TextIO, text: str) -> None:
    with suppress(OSError):
        print(printable(text), file=stream, flush=True)


def _explain(error: Exception) -> int:
    """Say what went wrong in one line; the exit code for it."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, DicomferryError):
        complain(text)
        return error.exit_code
    if type(error).__module__.startswith("sqlalchemy"):
        text = " ".join(str(getattr(error, "orig", None) or error).split())
        complain(f"database: {text}; --debug shows more")
        return 4
    complain(f"unexpected {type(error).__name__}: {text}; --debug shows where")
    return 1


def meta() -> MutableMapping[str, Any]:
    """What the common options of the running command line said."""
    return click.get_current_context().meta
