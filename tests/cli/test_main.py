"""The command as a whole: help, misspelt words, errors in one line, interrupts, closed pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from sqlalchemy.engine import Connection

from dicomferry.cli.frame.command_classes import Group, RootGroup
from dicomferry.cli.root import cli
from support.desk import SUCCEEDED, Desk
from support.process import free_port

SCRIPT = (sys.executable, "-m", "dicomferry.cli.main")


def _commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            found = command.get_command(ctx, name)
            assert found is not None
            yield from _commands(found, (*words, name))


COMMANDS = dict(_commands(cli))


def test_every_command_of_this_version_is_offered_and_no_other() -> None:
    """What is not there yet is not promised."""
    offered = {" ".join(words) for words, command in COMMANDS.items() if not isinstance(command, click.Group)}
    assert offered - {"demo"} == {
        "up", "worker", "scp", "scheduler", "archive list", "archive verify", "archive remove", "archive adopt",
        "status", "version", "completion", "config show", "db upgrade", "db check", "service print", "service install",
        "remote add", "remote set", "remote list", "remote show", "remote remove", "remote echo", "remote resume",
        "submit echo", "submit store", "submit find", "submit move", "submit get", "submit retrieve",
        "jobs list", "jobs show", "jobs items", "jobs events", "jobs wait", "jobs cancel", "jobs retry", "jobs hold",
        "jobs accept", "jobs release", "jobs report", "jobs prune", "jobs matches", "scu", "explain",
        "schedule add", "schedule list", "schedule show", "schedule run", "schedule pause", "schedule resume",
        "schedule remove",
    }  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_the_common_options(words: tuple[str, ...], desk: Desk) -> None:
    """A sentence says what it does, each option has its text, --home and --debug are taken everywhere."""
    command = COMMANDS[words]
    assert command.help
    for param in command.params:
        assert not isinstance(param, click.Option) or param.help, param.name
    told = desk.run(*words, "--help").stdout
    # scu takes gdcmscu's options and no others.
    assert words == ("scu",) or ("--home DIR" in told and "--debug" in told)
    assert not desk.home.exists()


def test_the_list_of_commands_says_what_the_commands_say() -> None:
    """The list does not import the commands, so it has texts of its own: they agree."""
    assert isinstance(cli, RootGroup)
    for name, lazy in cli.lazy.items():
        assert lazy.help == COMMANDS[(name,)].get_short_help_str(200)


def test_help_imports_nothing_heavy(isolated_home: Path) -> None:
    """--help of every command comes at once: no database, settings, queue, network or table library is loaded."""
    program = """
import sys
from dicomferry.cli.root import cli
for words in sys.argv[1:]:
    try:
        cli.main(words.split() + ["--help"], prog_name="dicomferry")
    except SystemExit as end:
        assert not end.code
heavy = {"sqlalchemy", "alembic", "pydantic", "celery", "redis", "pynetdicom", "pydicom", "rich", "psutil"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    words = [" ".join(words) for words in COMMANDS if words[:1] != ("demo",)]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_an_error_cannot_command_a_terminal(desk: Desk) -> None:
    """What was typed or what a peer said is shown with its control characters as escapes, in one line."""
    told = desk.run("jobs", "show", "\x1b[2J\n7", code=2).stderr
    assert "\x1b" not in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "meant"),
    [(("jbs",), "jobs"), (("jobs", "shw", "1"), "show"), (("remote", "ad"), "add"), (("submit", "stor"), "store")],
)
def test_a_misspelt_command_is_guessed(words: tuple[str, ...], meant: str, desk: Desk) -> None:
    """Exit 2 and one line: did you mean ...?"""
    told = desk.run(*words, code=2)
    assert f"did you mean {meant}?" in told.stderr
    assert told.stderr.count("\n") == 1 and told.stdout == ""


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        *((word, f"`submit {word}`") for word in ("store", "find", "move", "get", "retrieve", "echo")),
        ("cancel", "`jobs cancel`"),
    ],
)
def test_a_command_that_stands_elsewhere_is_named(word: str, meant: str, desk: Desk) -> None:
    """What people try first: `dicomferry store` is `dicomferry submit store`."""
    assert f"did you mean {meant}" in desk.run(word, "pacs1", code=2).stderr


def test_the_version_is_an_option_too(desk: Desk) -> None:
    """As with any other program."""
    assert desk.run("--version").stdout == desk.run("version").stdout


def test_a_misspelt_option_is_guessed(desk: Desk) -> None:
    """Exit 2 and one line that names the option."""
    told = desk.run("jobs", "list", "--stat", "held", code=2).stderr
    assert told.startswith("dicomferry: ") and "--state" in told and told.count("\n") == 1


def test_home_and_debug_are_taken_anywhere(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the command, on a group, and after the last word: it means the same."""
    desk.echo_job()
    home = str(desk.home)
    monkeypatch.setenv("DICOMFERRY_HOME", str(desk.home.parent / "other"))
    for words in (
        ("--home", home, "jobs", "list", "--json"),
        ("jobs", "--home", home, "list", "--json"),
        ("jobs", "list", "--json", "--home", home),
        ("jobs", "--debug", "--json", "--home", home),
    ):
        assert [job["id"] for job in json.loads(desk.run(*words).stdout)] == [1]
    assert json.loads(desk.run("jobs", "--json").stdout) == []


def test_a_wrong_setting_is_named_and_ends_with_3(desk: Desk) -> None:
    """The key, where it stands and what is wrong with it, in one line."""
    desk.home.mkdir(parents=True)
    (desk.home / "dicomferry.toml").write_text("wokers = 3\n")
    told = desk.run("jobs", "list", code=3)
    assert told.stderr.startswith("dicomferry: wokers in ") and told.stderr.count("\n") == 1
    assert told.stdout == ""


def test_a_wrong_environment_is_named(desk: Desk) -> None:
    """The variable is named, not the field of a class."""
    assert "DICOMFERRY_WORKERS" in desk.run("status", code=3, DICOMFERRY_WORKERS="many").stderr


@pytest.mark.parametrize(
    "words", [("jobs",), ("jobs", "show", "1"), ("submit", "echo", "A@b:104"), ("remote", "list"), ("db", "upgrade")]
)
def test_a_database_out_of_reach_ends_with_4(words: tuple[str, ...], desk: Desk) -> None:
    """One line that names the database, without its password."""
    url = f"postgresql://me:secret@127.0.0.1:{free_port()}/x"
    told = desk.run(*words, code=4, DICOMFERRY_DATABASE_URL=url).stderr
    assert told.startswith("dicomferry: database postgresql://me:***@") and told.count("\n") == 1
    assert "secret" not in told


def test_a_file_that_is_no_database_ends_with_4(desk: Desk) -> None:
    """Whatever the database library raises comes out as one line."""
    desk.home.mkdir(parents=True)
    desk.file.write_text("this is a letter, not a database " * 100)
    told = desk.run("jobs", code=4).stderr
    assert told.startswith("dicomferry: database") and told.count("\n") == 1


def test_an_unexpected_error_is_one_line_and_a_traceback_with_debug(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback unless --debug asks for it; never exit 0."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nought")

    desk.echo_job()
    # A fault that nobody thought of, in the library below all of it.
    monkeypatch.setattr(Connection, "execute", fail)
    brief = desk.run("jobs", code=1).stderr
    assert brief == "dicomferry: unexpected ZeroDivisionError: by nought; --debug shows where\n"
    assert "Traceback" in desk.run("jobs", "list", "--debug", code=1).stderr


def test_an_empty_postgresql_database_asks_for_the_upgrade(
    desk: Desk, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's server database is changed without being asked; afterwards everything works there."""
    monkeypatch.setenv("DICOMFERRY_DATABASE_URL", postgres_url)
    for words in (("jobs",), ("remote", "add", "p", "P@127.0.0.1:104", "--no-probe"), ("status",)):
        assert "dicomferry db upgrade" in desk.run(*words, code=3).stderr
    desk.run("db", "upgrade")
    desk.run("db", "check")
    desk.run("remote", "add", "p", "P@127.0.0.1:104", "--no-probe")
    assert desk.run("remote", "list", "--csv").stdout.splitlines()[1].startswith("p,P,127.0.0.1,104")


def test_a_closed_pipe_ends_a_listing_quietly(desk: Desk) -> None:
    """`| head` gets its lines and nobody complains."""
    desk.planned_job(5000)
    with subprocess.Popen(
        [*SCRIPT, "jobs", "items", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as listing:
        assert listing.stdout is not None and listing.stderr is not None
        assert listing.stdout.readline().startswith("pending    /data/0000.dcm")
        listing.stdout.close()
        assert listing.stderr.read() == ""
    assert listing.returncode == 141


@pytest.mark.parametrize(
    ("words", "where"),
    [(("jobs",), ">&-"), (("jobs", "--csv"), ">/dev/full"), (("--help",), ">/dev/full"), (("status",), ">&- <&-")],
)
def test_output_that_cannot_be_written_is_told(words: tuple[str, ...], where: str, desk: Desk) -> None:
    """Closed or full: one line that says so and exit 1, instead of a silence that looks like an empty list."""
    desk.echo_job()
    done = subprocess.run(["sh", "-c", f'exec "$@" {where}', "sh", *SCRIPT, *words], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("dicomferry: cannot write to standard output: ") and done.stderr.count("\n") == 1


def test_ctrl_c_leaves_the_job_alone(desk: Desk) -> None:
    """Exit 130; it is said that the job goes on and how to look at it."""
    job_id = desk.echo_job()
    with subprocess.Popen(
        [*SCRIPT, "jobs", "wait", str(job_id)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has it ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as waiting:
        assert waiting.stderr is not None and waiting.stdout is not None
        assert "dicomferry up" in waiting.stderr.readline()
        os.kill(waiting.pid, signal.SIGINT)
        told = waiting.stderr.read()
        assert waiting.stdout.read() == ""
    assert waiting.returncode == 130
    assert (
        told.startswith("job 1 goes on without you; `dicomferry jobs wait 1`")
        and "jobs cancel 1" in told
        and told.count("\n") == 1
    )


def test_output_to_a_pipe_has_no_colour(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says about terminals and colours."""
    desk.store_job([SUCCEEDED])
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    for words in ((), ("jobs",), ("jobs", "show", "1"), ("remote", "list"), ("config", "show"), ("jobs", "wait", "1")):
        told = desk.run(*words)
        assert "\x1b" not in told.stdout + told.stderr


def test_a_group_alone_shows_its_help(desk: Desk) -> None:
    """`remote` and `submit` need a word more; exit 2 says that nothing was done."""
    assert "add" in desk.run("remote", code=2).stderr
    assert isinstance(COMMANDS[("remote",)], Group)
