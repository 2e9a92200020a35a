"""Several processes that receive for one storage SCP: together they are what one of them is alone."""

from __future__ import annotations

import random
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from dicomferry.models.record import presence
from dicomferry.models.record.remotes import book
from dicomferry.workers.receiving import archive_check
from dicomferry.workers.receiving.archive import OWN
from support import caller as calls
from support import samples
from support import scripted_peer as peer
from support.caller import association
from support.installation import until
from support.qr_catalogue import Catalogue
from support.qr_peer import Manners, QrPeer
from support.qr_retrieval import Retrieval
from support.retrieving import IMPATIENT, STUDY, TITLE, Site, flat
from support.scp import StorageScp, storage_scp

from .test_storage_scp import check, instance, rejected, send_until_it_dies


@pytest.fixture
def scp() -> Iterator[StorageScp]:
    with storage_scp(scp__processes=2) as server:
        yield server


def members(scp: StorageScp) -> list[psutil.Process]:
    """The processes that receive."""
    children = psutil.Process(scp.pid).children()
    living = [one for one in children if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in living if "dicomferry.daemon.crew_member" in one.cmdline()]


def connected(process: psutil.Process, port: int) -> int:
    """How many connections of that port a process has open."""
    return sum(one.laddr.port == port and one.status == "ESTABLISHED" for one in process.net_connections("tcp"))


def store(port: int, uid: str, data: bytes) -> int:
    with association(port) as caller:
        status = int(caller.store(uid, data).Status)
        caller.release()
    return status


def test_connections_are_shared_evenly(scp: StorageScp) -> None:
    """Each goes to the process that has fewest of them; what has ended counts no more."""
    first, second = members(scp)
    with ExitStack() as stack:
        held = [stack.enter_context(association(scp.port)) for _ in range(6)]
        until(lambda: (connected(first, scp.port), connected(second, scp.port)) == (3, 3), "each has three")
        for caller in held[::2]:
            caller.release()
        until(lambda: connected(first, scp.port) + connected(second, scp.port) == 3, "three are left")
        stack.enter_context(association(scp.port))
        until(lambda: connected(first, scp.port) + connected(second, scp.port) == 4, "and one more")
    (role,) = presence.alive(scp.database)
    assert (role.role, role.pid, role.facts and role.facts["processes"]) == ("scp", scp.pid, 2)


def test_limits_hold_for_all_processes_together() -> None:
    """A caller has its share of the places of all of them, and the house is full when all together are; who has said
    nothing for long gives way, also to a caller whom another process serves.
    """
    with storage_scp(scp__processes=2, scp__max_associations=4, scp__per_caller=3) as scp, ExitStack() as stack:
        idle = [stack.enter_context(association(scp.port)) for _ in range(3)]
        assert rejected("127.0.0.1", scp.port, "TESTER") == (2, 3, 2)
        assert scp.said("association rejected")[-1]["why"].startswith("3 associations of 'TESTER'")
        with association(scp.port, calling="OTHER"):
            assert rejected("127.0.0.1", scp.port, "THIRD") == (2, 3, 2)
            assert "scp.max_associations" in scp.said("association rejected")[-1]["why"]
        until(lambda: rejected("127.0.0.1", scp.port, "TESTER") is None, "an idle one gives way", 30)
        ended, _, _ = select.select([caller.socket for caller in idle], [], [], 30)
        assert len(ended) == 1


def test_one_uid_over_two_processes_at_once(scp: StorageScp) -> None:
    """The same instance from both is one file, kept once, and two arrivals; other contents are both kept, and one of
    them is current.
    """
    same, other = instance(1), instance(2)
    changed = other[1].replace(b"19700101", b"19700102")
    assert changed != other[1]
    with ExitStack() as stack:
        callers = [stack.enter_context(association(scp.port)) for _ in range(2)]
        assert all(connected(one, scp.port) == 1 for one in members(scp))
        barrier = threading.Barrier(2)

        def send(number: int) -> list[int]:
            found = []
            for uid, data in (same, (other[0], (other[1], changed)[number])):
                barrier.wait(30)
                found.append(int(callers[number].store(uid, data).Status))
            callers[number].release()
            return found

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(send, range(2))) == [[0, 0], [0, 0]]
    until(lambda: len(scp.rows("SELECT id FROM arrival")) == 4, "the rows are there")
    assert [path.read_bytes()[-len(same[1]) :] for path in scp.files if path.stem == same[0]] == [same[1]]
    assert sorted(scp.rows("SELECT outcome FROM arrival")) == [
        ("conflict",), ("duplicate",), ("stored",), ("stored",)
    ]  # fmt: skip
    rows = scp.rows(f"SELECT path, is_current FROM instance WHERE sop_instance_uid = '{other[0]}'")
    assert len(rows) == 2 and sum(current for _, current in rows) == 1


def test_a_process_that_dies_is_started_again(scp: StorageScp) -> None:
    """The other one receives on; nothing that was answered is lost, the calls that went with it are over on the record,
    and for retrieves that wait it is as if the storage SCP had been restarted.
    """
    instances = [instance(number) for number in range(400)]
    (before,) = presence.alive(scp.database)
    with ThreadPoolExecutor(2) as pool, association(scp.port):
        sent = [pool.submit(send_until_it_dies, scp.port, part) for part in (instances[::2], instances[1::2])]
        until(lambda: len(scp.files) >= 20, "both receive")
        killed, other = members(scp)
        assert connected(killed, scp.port) and connected(other, scp.port)
        killed.kill()
        answered = set().union(*(one.result() for one in sent))
    assert len(answered) >= 200
    until(lambda: len(scp.said("a process receives")) == 3, "it is there again")
    assert "killed by signal 9" in scp.said("a process that receives has changed")[0]["what"]
    assert {store(scp.port, *instances[0]), store(scp.port, *instances[1])} == {0}
    until(lambda: not scp.rows("SELECT id FROM call WHERE ended_at IS NULL"), "no call is open")
    (after,) = until(lambda: [one for one in presence.alive(scp.database) if one != before], "it is on record anew")
    assert (after.pid, after.started_at > before.started_at) == (scp.pid, True)
    check(scp, answered)
    assert len(members(scp)) == 2


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_processes_killed_at_any_moment(seed: int, scp: StorageScp) -> None:
    """Four senders, one of the two processes killed at a random moment, twice over; at last the role."""
    rng = random.Random(seed)
    instances = [instance(number, 64) for number in range(400)]
    answered: set[str] = set()
    for _ in range(2):  # one more quick end of the same process would end the role
        parts = [instances[n::4] for n in range(4)]
        with ThreadPoolExecutor(4) as pool:
            sent = [pool.submit(send_until_it_dies, scp.port, part) for part in parts]
            threading.Event().wait(rng.uniform(0.05, 1.5))  # the moment itself, not a wait for anything
            rng.choice(members(scp)).kill()
        answered = answered.union(*(one.result() for one in sent))
        until(lambda: len(members(scp)) == 2 and store(scp.port, *instances[0]) == 0, "it is there again")
        check(scp, answered | {instances[0][0]})
    scp.kill()
    scp.start()
    check(scp, answered)


def test_moves_over_two_processes_are_paired(tmp_path: Path) -> None:
    """Two studies in flight at once, each over an association of its own to another process: every arrival belongs to
    the retrieve and the C-MOVE that it came for, and both are proven.
    """
    studies = [
        [samples.instance(tmp_path / f"{n}-{k}.dcm", study=("crew", n), series=1, number=k, size=8) for k in range(6)]
        for n in range(2)
    ]
    both = threading.Barrier(2)

    def together(retrieval: Retrieval) -> None:
        both.wait(30)
        retrieval.well()

    catalogue = Catalogue([sample for study in studies for sample in study])
    manners = Manners(retrieve=together)
    with (
        StorageScp(scp__processes=2, **flat(IMPATIENT)) as scp,
        QrPeer(catalogue, destinations={TITLE: scp.port}, manners=manners) as archive,
    ):
        site = Site(scp)
        book.add(scp.database, "archive", archive.address, max_moves=2, max_associations=4)
        jobs = [site.move("archive", (STUDY, study[0].study_instance_uid)) for study in studies]
        with ThreadPoolExecutor(2) as pool:
            ended = list(pool.map(site.drive, jobs))
        assert [(job["state"], job["verified"], job["received"]) for job in ended] == [("succeeded", "uids", 6)] * 2
        rows = scp.rows(
            "SELECT i.study_instance_uid, a.job_id, m.job_id, m.message_id = a.originator_message_id FROM arrival a "
            "JOIN instance i ON i.id = a.instance_id JOIN move m ON m.id = a.move_id"
        )
        wanted = [(study[0].study_instance_uid, job, job, 1) for study, job in zip(studies, jobs, strict=True)]
        assert sorted(rows) == sorted(6 * wanted)
        assert len(scp.said("association accepted")) >= 2


def test_term_ends_all_in_good_order(scp: StorageScp) -> None:
    """What is coming in, whichever process takes it, is answered; exit 0; rows are written, nobody is left."""
    parts = [instance(number) for number in range(2)]
    processes = members(scp)
    with ExitStack() as stack:
        callers = [stack.enter_context(association(scp.port)) for _ in parts]
        for caller, (uid, data) in zip(callers, parts, strict=True):
            caller.send(peer.p_data(peer.pdv(calls.store_command(uid), 3)) + peer.p_data(peer.pdv(data[:1000], 0)))
        assert scp.process is not None
        scp.process.terminate()
        for caller, (_, data) in zip(callers, parts, strict=True):
            caller.send(peer.p_data(peer.pdv(data[1000:], 2)))
            assert caller.response().Status == 0
            caller.abort_heard()
        assert scp.process.wait(30) == 0
    assert scp.indexed() == len(scp.files) == 2
    assert presence.alive(scp.database) == []
    assert not any(process.is_running() for process in processes)


def test_without_the_role_nobody_receives(scp: StorageScp) -> None:
    """When it is killed its processes end, and let go of the archive; the next one has all that was answered."""
    instances = [instance(number) for number in range(200)]
    processes = members(scp)
    with ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(send_until_it_dies, scp.port, part) for part in (instances[::2], instances[1::2])]
        until(lambda: len(scp.files) >= 20, "both receive")
        scp.kill()
        answered = set().union(*(one.result() for one in sent))
    until(lambda: not any(process.is_running() for process in processes), "they have ended")
    scp.start()
    check(scp, answered)


def test_fewer_processes_than_before_lose_nothing() -> None:
    """What a process left whose number is used no longer is found, and its journal goes."""
    with storage_scp() as scp:
        assert [store(scp.port, *instance(number)) for number in range(3)] == [0, 0, 0]
        until(lambda: scp.indexed() == 3, "all are indexed")
        scp.stop()
        scp.database.write(lambda connection: connection.exec_driver_sql("DELETE FROM arrival"))
        scp.database.write(lambda connection: connection.exec_driver_sql("DELETE FROM instance"))
        folder = scp.files[0].parent.relative_to(scp.archive.root)
        journal = scp.archive.root / OWN / "journal-7"
        journal.write_text(f"{folder}\n")
        scp.start()
        assert scp.indexed() == 3
        assert not journal.exists()
        found = archive_check.verify(scp.archive, scp.database)
        assert (found.missing_files, found.unindexed, found.damaged, found.temporary) == (0, 0, 0, 0)


def test_a_port_in_use_ends_all() -> None:
    """A port in use is told as it is for one process, and none of them stays."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        other = StorageScp(port=taken.getsockname()[1], scp__processes=2)
        try:
            done = subprocess.run(other.command(), env=other.environment(), capture_output=True, text=True, timeout=60)
        finally:
            other.remove()
    assert done.returncode == 3
    assert "cannot listen on" in done.stderr.splitlines()[-1]
