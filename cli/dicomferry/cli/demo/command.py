"""`dicomferry demo`: the main job on this machine, with real processes, a real archive and a killed worker."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from dicomferry.cli.demo import retrieve, samples
from dicomferry.cli.frame.command_classes import Command
from dicomferry.daemon.child import python
from dicomferry.models.documents import job_history, jobs
from dicomferry.models.documents.shapes import ItemDocument
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import DicomferryError
from dicomferry.models.rules.state import FINAL_JOB_STATES, ItemState

PATIENCE_SECONDS = 60.0
LEASE_SECONDS = 3
KILL_AFTER = 60
"""Instances sent before a worker is killed."""
_ARCHIVE_AE_TITLE = "DEMOARCHIVE"
_FINAL = frozenset(state.value for state in FINAL_JOB_STATES)


@click.command(cls=Command)
@click.option("--keep", is_flag=True, help="Leave the home and the files behind, and say how to explore them.")
@click.pass_context
def demo(ctx: click.Context, keep: bool) -> None:
    """Send samples to an archive on this machine, kill a worker on the way, fetch them back, count what came.

    Takes under a minute, uses loopback and a temporary folder only, leaves nothing running.
    """
    folder = Path(tempfile.mkdtemp(prefix="dicomferry-demo-"))
    code = 1
    try:
        code = _Demo(folder).run()
    finally:
        if keep:
            click.echo(f"\nkept: {folder}. Explore it with")
            click.echo(f"  dicomferry --home {folder / 'home'} jobs show last")
            click.echo(f"  dicomferry --home {folder / 'home'} jobs items last --state failed")
            click.echo(f"  rm -r {folder}        when you are done")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    ctx.exit(code)


class _Demo:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._home = folder / "home"
        self._samples = folder / "samples"
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("DICOMFERRY_")} | {
            "DICOMFERRY_HOME": str(self._home),
            "DICOMFERRY_LEASE_SECONDS": str(LEASE_SECONDS),
            "DICOMFERRY_SCP__HOST": "127.0.0.1",
            "DICOMFERRY_SCP__PORT": str(_free_port()),
            # The archive is quick; whatever it leaves out is asked for again at once.
            "DICOMFERRY_TIMEOUTS__QUIET": "1",
            "DICOMFERRY_TIMEOUTS__SETTLE": "1",
        }

    def run(self) -> int:
        began = time.monotonic()
        say = click.echo
        say(f"Working in {self._folder}, on loopback only.\n")
        samples.make(self._samples)
        say(
            f"samples   {samples.CT_SLICES} CT slices made now, {len(samples.FROM_PYDICOM)} files that "
            "pydicom ships, a text file, a truncated file"
        )
        with self._archive() as (address, index), self._up():
            self._command("remote", "add", "archive", f"{_ARCHIVE_AE_TITLE}@{address}")
            self._command("submit", "store", "archive", str(self._samples), "-r", "--label", "demo")
            killed = self._kill_a_worker()
            code = self._command("jobs", "wait", "1", show_progress=True)
            database = self._record()
            there = _indexed(index)
            arrived = set().union(*there.values())
            stored = self._stored(database, arrived, killed, code)
            fetched = retrieve.run(self._command, database, self._folder, there)
            result = self._result(stored and fetched, code, time.monotonic() - began)
            database.close()
        return result

    def _record(self) -> Database:
        """The demo's own record, whatever the environment says: what it names is killed."""
        return Database(f"sqlite:///{self._home / 'dicomferry.db'}")

    def _stored(self, database: Database, arrived: set[str], killed: int | None, code: int) -> bool:
        """Tell what came of the first job; whether it is as it should be."""
        say = click.echo
        items = list(jobs.items(database, 1))
        good = (item for item in items if item["state"] in ("succeeded", "warning"))
        sent = {item["sop_instance_uid"] or "" for item in good}
        twice = sum(item["attempts"] > 1 for item in items)
        lost = [attempt for attempt in job_history.attempts(database, 1) if attempt["end"] == "lost"]
        say("\nWhat happened")
        for state in ItemState:
            names = [item for item in items if item["state"] == state]
            if names:
                say(f"  {state.value:<10}{len(names):>5}" + _examples(names))
        say(f"  attempts lost with the killed worker: {len(lost)}; items recorded more than once: {twice}")
        same = sent == arrived
        say(f"\nThe archive's own index lists {len(arrived)} SOP Instance UIDs; this side says {len(sent)} succeeded:")
        say(f"  {'the two sets are equal' if same else 'THE TWO SETS DIFFER'}")
        for uid in sorted(sent ^ arrived)[:5]:
            say(f"  {uid} {'only here' if uid in sent else 'only there'}")
        expected = len(samples.FROM_PYDICOM) + samples.CT_SLICES
        return same and len(sent) == expected and killed is not None and code == 1

    @staticmethod
    def _result(good: bool, code: int, seconds: float) -> int:
        say = click.echo
        say(
            f"\n{'All as it should be' if good else 'This is NOT as it should be'}: the first job is incomplete and "
            f"its exit code is {code}, because one file is truncated; everything else arrived there and came back, "
            f"{seconds:.0f} s in all."
        )
        say("\nTry next\n  dicomferry up                                     everything, in one terminal")
        say("  dicomferry remote add pacs AET@host:port          your archive, in another")
        say("  dicomferry submit store pacs FOLDER -r --wait")
        say("  dicomferry submit move pacs -k AccessionNumber=... --wait")
        say("  dicomferry demo --keep                            the same again, and look around afterwards")
        return 0 if good else 1

    def _command(self, *arguments: str, show_progress: bool = False) -> int:
        """Run one command of ours as a person would, and show what it prints."""
        click.echo(f"\n$ dicomferry {shlex.join(arguments)}")
        argv = python("dicomferry.cli.main", *arguments)
        # A progress bar wants the terminal itself; the other commands' two streams are shown as one.
        output = None if show_progress else sys.stdout.fileno()
        sys.stdout.flush()
        return subprocess.run(argv, env=self._environment, stdin=subprocess.DEVNULL, stderr=output).returncode

    def _kill_a_worker(self) -> int | None:
        """kill -9 the process that sends, in mid-batch; its process id, None when it was too quick for us."""
        database = self._record()
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while time.monotonic() < deadline:
                job = jobs.show(database, 1)
                if job["state"] in _FINAL:
                    break
                running = [one for one in job_history.attempts(database, 1) if one["ended_at"] is None]
                if running and job["items"]["succeeded"] >= KILL_AFTER:
                    pid = int(running[-1]["pid"])
                    os.kill(pid, signal.SIGKILL)
                    click.echo(
                        f"\n>>> killed worker process {pid} with -9 after {job['items']['succeeded']} instances; "
                        f"its lease ends within {LEASE_SECONDS} s, then another one goes on"
                    )
                    return pid
                time.sleep(0.05)
        finally:
            database.close()
        click.echo("\n>>> the job was over before a worker could be killed")
        return None

    @contextlib.contextmanager
    def _up(self) -> Iterator[None]:
        """`dicomferry up` in the demo's home, until the end of the block."""
        click.echo("\n$ dicomferry up")
        argv = python("dicomferry.cli.main", "up")
        with _process(argv, self._environment, stdout=subprocess.PIPE) as up:
            assert up.stdout is not None
            for line in up.stdout:
                text = line.decode(errors="replace").rstrip()
                click.echo(f"  {text}")
                if text.startswith("ready"):
                    break
            else:
                raise DicomferryError("`dicomferry up` ended at once; what it printed stands above")
            yield

    @contextlib.contextmanager
    def _archive(self) -> Iterator[tuple[str, Path]]:
        """An archive that is not our code: pynetdicom's qrscp application. (host:port, its index)."""
        port = _free_port()
        folder = self._folder / "archive"
        folder.mkdir()
        index = folder / "index.sqlite"
        config = folder / "qrscp.ini"
        config.write_text(
            "[DEFAULT]\n"
            f"ae_title: {_ARCHIVE_AE_TITLE}\nport: {port}\nbind_address: 127.0.0.1\nmax_pdu: 0\n"
            "acse_timeout: 30\ndimse_timeout: 30\nnetwork_timeout: 30\n"
            f"instance_location: {folder / 'instances'}\ndatabase_location: {index}\nlog_identifier: False\n"
            f"[DICOMFERRY]\naddress: 127.0.0.1\nport: {self._environment['DICOMFERRY_SCP__PORT']}\n"
        )
        (folder / "instances").mkdir()
        argv = python("pynetdicom", "qrscp", "--quiet", "--config", str(config))
        with (folder / "log").open("wb") as log, _process(argv, dict(os.environ), stdout=log):
            _wait_for_port(port)
            click.echo(f"archive   pynetdicom's qrscp, {_ARCHIVE_AE_TITLE}@127.0.0.1:{port}")
            yield f"127.0.0.1:{port}", index


@contextlib.contextmanager
def _process(argv: list[str], environment: dict[str, str], stdout: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own group, which a Ctrl-C at the terminal does not reach, ended with the block."""
    process = subprocess.Popen(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,  # type: ignore[call-overload]
        stderr=subprocess.STDOUT,
        process_group=0,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout:
            process.stdout.close()


def _examples(items: list[ItemDocument]) -> str:
    """The reasons of the items that did not simply succeed."""
    told = [f"{Path(str(item['path'])).name}: {item['reason']}" for item in items if item["reason"]]
    return ("   " + ", ".join(told[:3])) if told else ""


def _indexed(index: Path) -> dict[str, set[str]]:
    """The SOP Instance UIDs that the archive has in its index, by Study Instance UID."""
    found: dict[str, set[str]] = {}
    with contextlib.closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True)) as connection:
        for study, uid in connection.execute("SELECT study_instance_uid, sop_instance_uid FROM instance"):
            found.setdefault(study, set()).add(uid)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)
    raise DicomferryError("the demo's archive did not start")
