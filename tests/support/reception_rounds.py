"""Rounds of receiving by the reception log that end with a kill: run as a module, `FOLDER SEED`.

A process receives with several threads: new instances, the same again, other contents under one UID, while its log is
filled, freed and filled again; another one removes some of what has its row. The first is killed at a random moment.
Then all is taken from the files that a flush of their own was not needed for, which is what a power cut might leave,
and the archive is recovered. Prints what was answered and is not there, and what was removed and is there again.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from functools import partial
from pathlib import Path

from dicomferry.models.record import schema
from dicomferry.models.record.archive import identity, index
from dicomferry.models.record.database import Database
from dicomferry.models.settings import LEAST_LOG
from dicomferry.workers.receiving import archive_check, removal
from dicomferry.workers.receiving.archive import OWN, Archive
from dicomferry.workers.receiving.indexer import Indexer
from dicomferry.workers.receiving.ingest import Ingest
from dicomferry.workers.receiving.journal import Journal
from dicomferry.workers.receiving.reception_log import recovery
from dicomferry.workers.receiving.reception_log.checkpoint import LogKeeper
from dicomferry.workers.receiving.reception_log.reception_log import Tuning
from support.faulty_ingest import tear
from support.receiving import Site, data_of, encoded

THREADS = 3
UIDS = 40


def content(uid: str, variant: int) -> bytes:
    """A small image; its variants are other contents under one UID."""
    size = 2000 + 6000 * (variant % 7)
    return encoded(SOPInstanceUID=uid, SeriesInstanceUID=f"1.{int(uid[4:]) % 3}", PixelData=bytes([1 + variant]) * size)


def receive(folder: Path, seed: int, report: int) -> None:
    """Receive until somebody ends the process; each instance that was answered is told."""
    database = Database(f"sqlite:///{folder / 'rows.db'}")
    site = Site(folder)
    tuning = Tuning(segments=4, age_seconds=0.05, tick_seconds=0.01)
    keeper = LogKeeper(site.archive, 0, LEAST_LOG, tuning=tuning)
    keeper.start()
    site.ingest = partial(Ingest, reception_log=keeper.log)
    journal = Journal(site.archive.root / OWN / "journal")
    site.indexer = Indexer(database, journal, look=partial(archive_check.look, site.archive))
    site.indexer.start()

    def work(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        while True:
            uid, variant = f"1.2.{chance.randrange(UIDS)}", chance.choice((0, 0, 0, 0, 1, 2))
            if site.receive(content(uid, variant), uid).status == 0:
                os.write(report, f"{uid} {variant}\n".encode())

    for number in range(THREADS):
        threading.Thread(target=work, args=(number,), daemon=True).start()
    signal.pause()


def remove(folder: Path, chance: random.Random) -> set[str]:
    """Remove some of what has its row; the UIDs of what this may concern."""
    database = Database(f"sqlite:///{folder / 'rows.db'}")
    paths = sorted(path for path, _ in identity.sizes(database))
    some = chance.sample(paths, min(len(paths), 5))
    removal.remove(Archive(folder / "archive"), database, some)
    database.close()
    return set(map(uid_of, some))


def uid_of(path: str) -> str:
    """Whose file it is."""
    return path.split("/")[-1].removesuffix(".dcm").split("~")[0]


def main() -> None:
    """One round."""
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    chance = random.Random(seed)
    archive = Archive(folder / "archive")
    archive.prepare()
    database = Database(f"sqlite:///{folder / 'rows.db'}")
    schema.upgrade(database)
    database.close()
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        os.close(reader)
        receive(folder, seed, writer)
    os.close(writer)
    answered: dict[str, set[int]] = {}
    removed: set[str] = set()
    most = chance.randrange(20, 400)
    with os.fdopen(reader) as lines:
        for number, line in enumerate(lines):
            uid, variant = line.split()
            answered.setdefault(uid, set()).add(int(variant))
            if number % 60 == 50:
                removed |= remove(folder, chance)
            if number == most:
                os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    before = sorted(archive.files())
    tear(archive)
    recovery.recover(archive)
    database = Database(f"sqlite:///{folder / 'rows.db'}")
    archive_check.recover(archive, database, Journal(archive.root / OWN / "journal").read())
    rows = {str(row["path"]) for row in index.listing(database)}
    kept = [data_of(archive.root / path) for path in archive.files()]
    wrong = [f"{path} has no row" for path in archive.files() if path not in rows]
    # Of what was removed a duplicate's row may have been under way: whoever looks for the file then makes it history.
    wrong += [
        f"{path} has no file" for path in rows if uid_of(path) not in removed and not (archive.root / path).exists()
    ]
    for uid, variants in answered.items():
        if uid not in removed:
            wrong += [f"{uid} {one} is lost" for one in variants if kept.count(content(uid, one)) != 1]
    # Nothing comes back but what was answered for, or about to be, at the end.
    wrong += [f"{path} came back" for path in set(archive.files()) - set(before)][THREADS:]
    print(json.dumps({"answered": sum(map(len, answered.values())), "removed": len(removed), "wrong": wrong}))
    database.close()


if __name__ == "__main__":
    main()
