"""What a power cut leaves of what was received: the writes of real storage SCPs, cut anywhere, and a restart.

The programs are recorded once a scenario (tests/support/recorded_disk); what a disk may hold is then made for each of
many cuts on two models of a disk (tests/support/cut_disk), and the storage SCP starts on it. Whatever it had answered
with 0x0000 by then has to be there, whole, indexed, once.

`POWER_CUTS=1000` makes so many cuts of each scenario in the long test, `POWER_CUTS_SEED=7` others than usual.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dicomferry.workers.receiving.archive import Archive
from support import caller as calls
from support import cut_disk, samples
from support.caller import association
from support.cut_disk import CutDisk
from support.installation import SCRIPT
from support.receiving import data_of
from support.recorded_disk import RecordedDisk
from support.restarts import Restarts
from support.scp import StorageScp

CUTS = int(os.environ.get("POWER_CUTS", "30"))
SEED = int(os.environ.get("POWER_CUTS_SEED", "1"))
BEGIN, REMOVING, REMOVED = "begin", "removing ", "removed "
SUCCESS = 0x0000


@dataclass(frozen=True)
class Image:
    """An instance to send."""

    uid: str
    study: str
    data: bytes


def image(number: int, study: int = 1, size: int = 16) -> Image:
    uid, study_uid = samples.uid("power", study, number), samples.uid("power study", study)
    ds = samples.dataset(
        size=size, SOPInstanceUID=uid, StudyInstanceUID=study_uid, SeriesInstanceUID=samples.uid("power series", study)
    )
    return Image(uid, study_uid, samples.encoded(ds, calls.EXPLICIT))


class RecordedScp(StorageScp):
    """A storage SCP whose writes below its home are recorded from its start on."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.database.close()
        self.recorder = RecordedDisk(self.folder)
        self.sent: dict[str, Image] = {}
        self.confirmed: set[str] = set()
        self.before = self.folder / "before"
        shutil.copytree(self.home, self.before)
        self.disk = CutDisk(self.home)

    def environment(self) -> dict[str, str]:
        return super().environment() | dict(self.recorder.environment)

    def send(self, images: list[Image], times: int = 1, tries: int = 1) -> None:
        """Over one association, each so many times; what is refused again, up to so many tries in all."""
        self.sent |= {one.uid: one for one in images}
        with association(self.port) as caller:
            for one in images * times:
                for _ in range(tries):
                    if caller.store(one.uid, one.data).Status == SUCCESS:
                        self.confirmed.add(one.uid)
                        break
            caller.release()

    def send_at_once(self, parts: list[list[Image]], **options: Any) -> None:
        """Over as many associations at the same time."""
        with ThreadPoolExecutor(len(parts)) as pool:
            for done in [pool.submit(self.send, part, **options) for part in parts]:
                done.result()


# --- what is recorded ----------------------------------------------------------------------------------------


def _one(scp: RecordedScp) -> None:
    scp.send([image(number, study, 96 if number % 3 == 2 else 16) for study in range(3) for number in range(9)])


def _four(scp: RecordedScp) -> None:
    scp.send_at_once([[image(number, study % 3, 16 + study) for number in range(study * 20, study * 20 + 12)]
                      for study in range(4)])  # fmt: skip


def _duplicates(scp: RecordedScp) -> None:
    """Two processes, each instance from four associations at once, and twice from each."""
    images = [image(number, number % 2) for number in range(10)]
    scp.send_at_once([images] * 4, times=2)


def _removal(scp: RecordedScp) -> None:
    """A study is removed while another one comes, and then comes again."""
    first = [image(number, 1) for number in range(8)]
    scp.send(first)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(scp.send, [image(number, 2) for number in range(30)])
        scp.recorder.note(REMOVING + first[0].study)
        done = subprocess.run(
            [*SCRIPT, "archive", "remove", "--study", first[0].study, "--yes"],
            env=scp.environment(), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        scp.recorder.note(REMOVED + first[0].study)
        sending.result()
    scp.send([image(number, 3) for number in range(6)])


def _database_away(scp: RecordedScp) -> None:
    """Nobody else can write into the database all the while: no row is written until the end."""
    scp.send([image(90, 0)])
    with closing(sqlite3.connect(scp.home / "dicomferry.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        scp.send([image(number, number % 4) for number in range(24)])
        scp.kill()


def _reuse(scp: RecordedScp) -> None:
    """More than the whole log takes, so that its segments are freed and used again."""
    scp.send_at_once(
        [[image(number, study, 180) for number in range(study * 50, study * 50 + 40)] for study in range(2)]
    )


def _failing(number: int, every: int) -> Callable[[RecordedScp], None]:
    def scenario(scp: RecordedScp) -> None:
        scp.recorder.fail_flushes(every, number)
        parts = [[image(n, study) for n in range(study * 20, study * 20 + 12)] for study in range(2)]
        scp.send_at_once(parts, tries=4)
        scp.recorder.fail_flushes(0)
        scp.send([image(200, 0), image(201, 1)])

    return scenario


@dataclass(frozen=True)
class Scenario:
    run: Callable[[RecordedScp], None]
    settings: Mapping[str, object] = field(default_factory=dict)


SMALL_LOG: Mapping[str, object] = {"scp__log_bytes": 4 * 1024**2}
NO_LOG: Mapping[str, object] = {"scp__log_bytes": 0}
SCENARIOS = {
    "one association": Scenario(_one, SMALL_LOG),
    "one association, no log": Scenario(_one, NO_LOG),
    "four associations": Scenario(_four, SMALL_LOG),
    "four associations, no log": Scenario(_four, NO_LOG),
    "duplicates over two processes": Scenario(_duplicates, {"scp__processes": 2, **SMALL_LOG}),
    "duplicates over two processes, no log": Scenario(_duplicates, {"scp__processes": 2, **NO_LOG}),
    "removal": Scenario(_removal, SMALL_LOG),
    "removal, no log": Scenario(_removal, NO_LOG),
    "database away": Scenario(_database_away, SMALL_LOG),
    "database away, no log": Scenario(_database_away, NO_LOG),
    "segments used again": Scenario(_reuse, SMALL_LOG),
    "EIO at each third flush": Scenario(_failing(errno.EIO, 3), SMALL_LOG),
    "EIO at each third flush, no log": Scenario(_failing(errno.EIO, 3), NO_LOG),
    "ENOSPC at each fifth flush": Scenario(_failing(errno.ENOSPC, 5), SMALL_LOG),
}
QUICK = ("four associations", "duplicates over two processes, no log", "removal", "segments used again")


@contextmanager
def recorded(scenario: Scenario) -> Iterator[RecordedScp]:
    """The scenario as it was played, with the storage SCP ended in good order where it still ran."""
    with RecordedScp(**scenario.settings) as scp:
        scp.recorder.note(BEGIN)
        scenario.run(scp)
        if scp.running:
            scp.stop()
        yield scp


class Revived(StorageScp):
    """A storage SCP that is not recorded, on what another one left in `home`."""

    def __init__(self, home: Path, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.database.close()
        shutil.rmtree(self.home)
        shutil.copytree(home, self.home)


# --- what is left of it --------------------------------------------------------------------------------------


@dataclass
class Promises:
    """What was said by some moment."""

    confirmed: set[str] = field(default_factory=set)
    removing: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)


def judge(home: Path, scp: RecordedScp, said: Promises) -> list[str]:
    """What is wrong with an archive and its index after a restart."""
    archive = Archive(home / "archive")
    files = list(archive.files())
    with closing(sqlite3.connect(home / "dicomferry.db")) as database:
        rows = database.execute("SELECT path, sop_instance_uid, flaw FROM instance WHERE removed_at IS NULL").fetchall()
    flaws = {path: flaw for path, _, flaw in rows}
    wrong = [f"row without a file: {path}" for path in flaws.keys() - set(files)]
    if len(rows) != len(flaws):
        wrong.append("a file has two rows")
    if archive.drafts():
        wrong.append("a temporary file is left")
    there: list[str] = []
    for path in files:
        uid = Path(path).name.removesuffix(".dcm").partition("~")[0]
        one = scp.sent[uid]
        if one.study in said.removed:
            wrong.append(f"removed and there again: {path}")
        if path not in flaws and one.study not in said.removing:
            wrong.append(f"without a row: {path}")
        if _is(archive.root / path, one.data):
            there.append(uid)
        elif not flaws.get(path):
            wrong.append(f"not whole, and not told: {path}")
    for uid in said.confirmed:
        if scp.sent[uid].study not in said.removing and there.count(uid) != 1:
            wrong.append(f"answered with 0x0000, and {there.count(uid)} times there: {uid}")
    return wrong


def _is(path: Path, data: bytes) -> bool:
    try:
        return data_of(path) == data
    except struct.error:
        return False


def sent_again(home: Path, scp: RecordedScp, said: Promises) -> list[str]:
    """What is wrong after everything was sent once more, in one go, to a storage SCP on what is left."""
    images = [one for one in scp.sent.values() if one.study not in said.removing]
    with Revived(home, **scp.settings) as again:
        with association(again.port) as caller:
            wrong = [f"refused: {one.uid}" for one in images if caller.store(one.uid, one.data).Status != SUCCESS]
            caller.release()
        again.stop()
        return wrong + judge(again.home, scp, replace(said, confirmed={one.uid for one in images}))


def cut(scp: RecordedScp, number: int, seed: int, folder: Path) -> list[str]:
    """What was found wrong at so many cuts: half of them right behind an answer, the others anywhere.

    After the last one all is sent again.
    """
    rng = random.Random(seed)
    steps = list(scp.recorder.steps())
    begin = next(at for at, step in enumerate(steps) if step.data == BEGIN.encode())
    answers = [at for at, step in enumerate(steps) if step.confirmed or step.data.startswith(REMOVED.encode())]
    places = sorted(
        rng.choice(answers) if half % 2 and answers else rng.randrange(begin, len(steps)) for half in range(number)
    )
    said, wrong = Promises(), []
    environment = super(RecordedScp, scp).environment()
    with Restarts(environment) as restarts:
        for at, step in enumerate(steps):
            scp.disk.step(step)
            if step.confirmed:
                said.confirmed.add(step.confirmed)
            elif step.kind == "N":
                word, _, study = step.data.decode().partition(" ")
                {REMOVING: said.removing, REMOVED: said.removed}.get(word + " ", set()).add(study)
            while places and places[0] == at:
                places.pop(0)
                model = cut_disk.MODELS[len(places) % 2]
                home = folder / "home"
                scp.disk.cut(model, rng, home)
                log = folder / "log"
                # What several processes left one takes over, which is quicker; the last time it is as many again.
                fewer = {"DICOMFERRY_SCP__PROCESSES": "1"} if places else {}
                ready, code = restarts.restart({**environment, "DICOMFERRY_HOME": str(home), **fewer}, log)
                found = judge(home, scp, said) if ready else [f"did not start: {log.read_text()[-2000:]}"]
                if not places:
                    found += sent_again(home, scp, said)
                if code:
                    found.append(f"ended with {code}: {log.read_text()[-2000:]}")
                wrong += [f"{model}, seed {seed}, step {at}: {one}" for one in found]
                shutil.rmtree(home)
                log.unlink()
    # What the recorder saw is what the sender was told.
    assert said.confirmed == scp.confirmed
    return wrong


def test_an_answer_before_the_flush_is_found_out(tmp_path: Path) -> None:
    """With `scp.flush` off nothing is promised, and a few cuts show it: the test would see a loss."""
    with recorded(Scenario(_one, {"scp__flush": False})) as scp:
        wrong = cut(scp, 6, SEED, tmp_path)
    assert any("answered with 0x0000, and 0 times there" in one for one in wrong)


@pytest.mark.parametrize("name", QUICK)
def test_what_was_answered_outlives_a_power_cut(name: str, tmp_path: Path) -> None:
    """A few cuts of some scenarios, which are others than those of the long test."""
    with recorded(SCENARIOS[name]) as scp:
        assert cut(scp, 8, SEED, tmp_path) == []


@pytest.mark.long
@pytest.mark.parametrize("name", SCENARIOS)
def test_what_was_answered_outlives_any_power_cut(name: str, tmp_path: Path) -> None:
    """More than a thousand cuts of all scenarios together."""
    with recorded(SCENARIOS[name]) as scp:
        assert cut(scp, CUTS, SEED + 1, tmp_path) == []
