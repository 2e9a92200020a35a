"""The storage SCP as a process: who may call, how many, how it ends, and what a restart mends."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
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
from dicomferry.models.settings import LEAST_LOG
from dicomferry.workers.receiving import archive_check
from support import caller as calls
from support import samples
from support import scripted_peer as peer
from support.caller import Caller, association
from support.installation import until
from support.scp import StorageScp, storage_scp

STUDY, SERIES = samples.uid("study"), samples.uid("series")


def instance(number: int, size: int = 16) -> tuple[str, bytes]:
    """(SOP Instance UID, data set) of an MR image."""
    uid = samples.uid("scp", number)
    return uid, samples.encoded(samples.dataset(size=size, SOPInstanceUID=uid), calls.EXPLICIT)


@pytest.fixture
def scp() -> Iterator[StorageScp]:
    with storage_scp() as server:
        yield server


def test_what_is_received_is_in_the_archive_and_indexed(scp: StorageScp) -> None:
    """File, instance row and arrival row, with where it came from."""
    uid, data = instance(1)
    with association(scp.port) as caller:
        assert caller.store(uid, data, message_id=5).Status == 0
        assert caller.store(uid, data, message_id=6).Status == 0
        caller.release()
    until(lambda: len(scp.rows("SELECT id FROM arrival")) == 2, "the rows are there")
    assert [path.read_bytes()[-len(data) :] for path in scp.files] == [data]
    assert scp.rows("SELECT path, sop_instance_uid, study_instance_uid, is_current, relation FROM instance") == [
        (f"{STUDY}/{SERIES}/{uid}.dcm", uid, STUDY, 1, "first")
    ]
    found = scp.rows("SELECT outcome, calling_ae_title, called_ae_title, address, message_id, number FROM arrival")
    assert found == [
        ("stored", "TESTER", "FERRY", "127.0.0.1", 5, 1),
        ("duplicate", "TESTER", "FERRY", "127.0.0.1", 6, 2),
    ]


def test_files_and_folders_are_their_owners_alone(scp: StorageScp) -> None:
    """Nobody else on the machine reads patients' images."""
    uid, data = instance(1)
    with association(scp.port) as caller:
        caller.store(uid, data)
    for path in [*scp.archive.root.rglob("*"), scp.archive.root]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_no_patient_is_named_in_the_log(scp: StorageScp) -> None:
    """Logs carry UIDs and ids; nor does a library quote a value that it minds, while two files are compared."""
    uid, data = instance(1)
    with association(scp.port) as caller:
        caller.store(uid, data)
        caller.store(uid, data.replace(b"19700101", b"Ferry^Te"))
        caller.store("1.2.3", data)
        caller.release()
    until(lambda: scp.said("association ended"), "the end is logged")
    text = scp.log.read_text()
    assert "Ferry^Te" not in text and "PAT1" not in text and '"1.2.3"' in text


# --- who may call -------------------------------------------------------------------------------------------


def outsider() -> str:
    """An address of this machine that is not loopback."""
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                return address.address
    pytest.skip("this machine has no address but loopback")


def rejected(host: str, port: int, calling: str) -> tuple[int, ...] | None:
    """The numbers of the rejection; None for an association."""
    with Caller(port, host) as caller:
        caller.send(calls.request(calling=calling))
        pdu = caller.read_pdu()
        return tuple(pdu[7:10]) if pdu[0] == peer.RJ else None


def test_known_callers_are_taken_and_others_told_apart() -> None:
    """Loopback, AE titles and addresses of the address book, `--also-from` included; a new remote at once."""
    host = outsider()
    with storage_scp(scp__host="0.0.0.0") as scp:
        assert rejected("127.0.0.1", scp.port, "STRANGER") is None
        assert rejected(host, scp.port, "Pacs1") == (1, 1, 3)
        book.add(scp.database, "pacs1", "PACS1@192.0.2.1:104", also_from=["MOVER", "198.51.100.0/24"])
        # What was refused a moment ago is looked up again after a second at most.
        until(lambda: rejected(host, scp.port, "PACS1") is None, "the new remote is known")
        assert rejected(host, scp.port, "MOVER") is None
        assert rejected(host, scp.port, "pacs1") == (1, 1, 3)
        record = scp.said("association rejected")[-1]
        assert "PACS1" in record["why"] and "case-sensitive" in record["why"]
        assert "dicomferry remote add" in record["advice"] and "scp.accept" in record["advice"]
        assert (record["calling_ae_title"], record["address"]) == ("pacs1", host)
        book.change(scp.database, "pacs1", None, also_from=[f"{host}/32"])
        until(lambda: rejected(host, scp.port, "WHOEVER") is None, "its network is known")


def test_anybody_is_taken_if_that_is_set() -> None:
    """scp.accept = "any"."""
    host = outsider()
    with storage_scp(scp__host="0.0.0.0", scp__accept="any") as scp:
        assert rejected(host, scp.port, "STRANGER") is None


def test_a_remote_prefers_its_syntax(scp: StorageScp) -> None:
    """`--prefer-syntax` of the remote whose AE title calls."""
    jpeg = "1.2.840.10008.1.2.4.50"
    book.add(scp.database, "pacs1", "PACS1@192.0.2.1:104", prefer_syntax="compressed")

    def chosen() -> str:
        with Caller(scp.port) as caller:
            (context,) = caller.associate([(calls.MR, [calls.EXPLICIT, jpeg])], calling="PACS1")
            return context.transfer_syntax

    until(lambda: chosen() == jpeg, "the remote is known")


# --- crowds -------------------------------------------------------------------------------------------------


def good_sender(port: int, first: int = 1, number: int = 20) -> list[int]:
    """Statuses of instances sent over one association."""
    with association(port) as caller:
        statuses = [int(caller.store(*instance(first + n)).Status) for n in range(number)]
        caller.release()
        return statuses


def test_idle_associations_and_slow_ones_disturb_nobody() -> None:
    """200 that say nothing, and one that drips, beside one that sends."""
    uid, data = instance(999)
    with storage_scp(scp__per_caller=256) as scp, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(association(scp.port))
        slow = stack.enter_context(association(scp.port))
        message = peer.p_data(peer.pdv(calls.store_command(uid), 3)) + calls.data_pdus(data, 99)
        cut = len(message) // 2
        for at in range(cut):
            slow.send(message[at : at + 1])
        assert good_sender(scp.port) == [0] * 20
        slow.send(message[cut:])
        assert slow.response().Status == 0
        assert psutil.Process(scp.pid).memory_info().rss < 200e6
        until(lambda: scp.indexed() == 21, "all are indexed")


def test_an_association_that_says_nothing_is_aborted() -> None:
    """After `scp.idle` seconds between two messages; one that is used lives on until then."""
    uid, data = instance(1)
    with storage_scp(scp__idle=0.5) as scp, association(scp.port) as caller:
        assert caller.store(uid, data).Status == 0
        caller.abort_heard()
        assert caller.ended()


def test_the_limit_on_associations() -> None:
    """One too many: 2/3/2; when one ends, its place is free again."""
    with storage_scp(scp__per_caller=256) as scp, ExitStack() as stack:
        held = [stack.enter_context(association(scp.port)) for _ in range(256)]
        assert rejected("127.0.0.1", scp.port, "TESTER") == (2, 3, 2)
        held[0].release()
        until(lambda: rejected("127.0.0.1", scp.port, "TESTER") is None, "a place is free")


class _Cramped(StorageScp):
    """Started with room for 64 open files."""

    def command(self) -> list[str]:
        return ["sh", "-c", 'ulimit -Sn 64 && exec "$@"', "sh", *super().command()]


def test_few_open_files_are_no_limit() -> None:
    """It makes more room, as far as the system lets it."""
    with _Cramped(scp__accept="any", scp__per_caller=256) as scp, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(association(scp.port))
        assert good_sender(scp.port) == [0] * 20


def test_connections_that_never_associate_take_no_places(scp: StorageScp) -> None:
    """300 TCP connections that say nothing: the oldest of them have to go, and a sender comes through."""
    with ExitStack() as stack:
        mute = [stack.enter_context(Caller(scp.port)) for _ in range(300)]
        assert good_sender(scp.port) == [0] * 20
        mute[0].abort_heard()
        until(lambda: psutil.Process(scp.pid).num_threads() < 100, "their threads have ended")


def _fuzz(rng: random.Random, good: bytes) -> bytes:
    """One case: a good conversation with some of it spoilt, or noise."""
    kind = rng.randrange(6)
    data = bytearray(good)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 400))
    if kind == 1:
        return bytes(data[: rng.randrange(len(data))])
    if kind == 2:
        at = rng.randrange(len(data))
        del data[at : at + rng.randrange(1, 50)]
    elif kind == 3:
        at = rng.randrange(len(data))
        data[at:at] = rng.randbytes(rng.randrange(1, 50))
    elif kind == 4:
        at = rng.randrange(len(data) - 4)
        data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", rng.randbytes(4)])
    else:
        for _ in range(rng.randrange(1, 10)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _run_fuzz(scp: StorageScp, cases: int) -> None:
    rng = random.Random(20240229)
    uid, data = instance(500, 4)
    good = (
        calls.request()
        + peer.p_data(peer.pdv(calls.store_command(uid), 3))
        + calls.data_pdus(data)
        + peer.release_pdu(peer.RELEASE_RQ)
    )
    done = threading.Event()
    statuses: list[int] = []

    def send() -> None:
        with association(scp.port) as caller:
            number = 0
            while not done.is_set():
                number += 1
                statuses.append(int(caller.store(*instance(number % 50)).Status))
            caller.release()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(cases):
            with Caller(scp.port) as caller:
                # The other side may have had enough of it before all is said.
                try:
                    caller.send(_fuzz(rng, good))
                    caller.socket.shutdown(socket.SHUT_WR)
                    while caller.socket.recv(65536):
                        pass
                except (ConnectionResetError, BrokenPipeError):
                    pass
    finally:
        done.set()
        sender.join()
    assert set(statuses) == {0} and len(statuses) > 10
    assert not scp.said("an association failed")
    assert scp.running
    outside = {path for path in scp.folder.rglob("*") if path.is_file() and scp.home not in path.parents}
    assert outside <= {scp.log}
    scp.stop()
    found = archive_check.verify(scp.archive, scp.database)
    assert (found.missing_files, found.unindexed, found.damaged, found.temporary) == (0, 0, 0, 0)


def test_fuzzed_bytes_disturb_nobody(scp: StorageScp) -> None:
    """300 spoilt conversations, always the same ones, beside a good sender."""
    _run_fuzz(scp, 300)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_many_fuzzed_bytes_disturb_nobody(scp: StorageScp) -> None:
    """5,000 of them."""
    _run_fuzz(scp, 5000)


# --- size ---------------------------------------------------------------------------------------------------


def _memory_over(scp: StorageScp, megabytes: int) -> int:
    """Growth of the process in bytes while it receives one object of so many megabytes."""
    process = psutil.Process(scp.pid)
    uid = samples.uid("large", megabytes)
    head = samples.encoded(samples.dataset(size=2, SOPInstanceUID=uid), calls.EXPLICIT)
    head = head[: -(12 + 8)] + struct.pack("<HH2s2xL", 0x7FE0, 0x10, b"OW", megabytes << 20)
    block = peer.p_data(peer.pdv(bytes(131066), 0))
    with association(scp.port) as caller:
        before = process.memory_info().rss
        caller.send(peer.p_data(peer.pdv(calls.store_command(uid), 3)) + peer.p_data(peer.pdv(head, 0)))
        left = megabytes << 20
        while left > 131066:
            caller.send(block)
            left -= 131066
        caller.send(peer.p_data(peer.pdv(bytes(left), 2)))
        assert caller.response().Status == 0
        return process.memory_info().rss - before


def test_memory_does_not_follow_the_object(scp: StorageScp) -> None:
    """A hundred megabytes pass through one buffer."""
    assert _memory_over(scp, 100) < 20e6


@pytest.mark.long
def test_memory_does_not_follow_a_very_large_object(scp: StorageScp) -> None:
    """A gigabyte passes through the same one."""
    assert _memory_over(scp, 1024) < 20e6


# --- end and restart ----------------------------------------------------------------------------------------


def test_term_ends_it_in_good_order(scp: StorageScp) -> None:
    """What is coming in is taken and answered; idle associations are aborted; exit 0; rows are written."""
    uid, data = instance(1)
    with association(scp.port) as idle, association(scp.port) as busy:
        busy.send(peer.p_data(peer.pdv(calls.store_command(uid), 3)) + peer.p_data(peer.pdv(data[:1000], 0)))
        assert scp.process is not None
        scp.process.terminate()
        idle.abort_heard()
        busy.send(peer.p_data(peer.pdv(data[1000:], 2)))
        assert busy.response().Status == 0
        busy.abort_heard()
        assert scp.process.wait(30) == 0
    assert scp.indexed() == len(scp.files) == 1
    assert presence.alive(scp.database) == []


def test_signs_of_life(scp: StorageScp) -> None:
    """The role is on record while it runs."""
    (role,) = until(lambda: presence.alive(scp.database), "it is on record")
    assert (role.role, role.pid) == ("scp", scp.pid)


def test_a_port_in_use(scp: StorageScp) -> None:
    """One line that names address and setting, exit 3."""
    other = StorageScp(port=scp.port)
    try:
        done = subprocess.run(other.command(), env=other.environment(), capture_output=True, text=True, timeout=60)
    finally:
        other.remove()
    assert done.returncode == 3
    assert "cannot listen on" in done.stderr.splitlines()[-1] and "scp.port" in done.stderr.splitlines()[-1]


def test_one_archive_has_one_storage_scp(scp: StorageScp) -> None:
    """A second one on the same archive, whatever its port, is refused."""
    other = StorageScp(scp__archive=scp.archive.root)
    try:
        with pytest.raises(RuntimeError, match="another storage SCP"):
            other.start()
    finally:
        other.remove()


def test_a_damaged_file_a_lost_one_and_one_too_many(scp: StorageScp) -> None:
    """`verify` names each, `repair` mends the index."""
    good_sender(scp.port, number=4)
    scp.stop()
    files = scp.files
    os.truncate(files[0], files[0].stat().st_size - 100)
    files[1].unlink()
    files[2].rename(files[2].with_name("1.2.3.dcm"))
    found = archive_check.verify(scp.archive, scp.database)
    assert (found.files, found.indexed) == (3, 4)
    assert (found.damaged, found.missing_files, found.unindexed) == (1, 2, 1)
    archive_check.verify(scp.archive, scp.database, repair=True)
    found = archive_check.verify(scp.archive, scp.database)
    assert (found.files, found.indexed) == (3, 3)
    assert (found.damaged, found.missing_files, found.unindexed) == (1, 0, 0)


STEPS = [
    f"{step} {when} {number}"
    for step, numbers in (
        ("writev", (1, 7)), ("fdatasync", (1, 2, 9)), ("link", (1, 8)), ("fsync", (1, 2, 3, 4, 12)), ("mkdir", (1, 2)),
        ("record", (1,)),
    )
    for number in numbers
    for when in ("before", "after")
]  # fmt: skip


def send_until_it_dies(port: int, instances: list[tuple[str, bytes]]) -> set[str]:
    """Send over one association; the UIDs that were answered with success."""
    answered = set()
    try:
        with association(port) as caller:
            for uid, data in instances:
                if caller.store(uid, data).Status == 0:
                    answered.add(uid)
            caller.socket.settimeout(5)
            caller.socket.recv(1)
    except (OSError, AssertionError):
        pass
    return answered


QUICK = {"writev before 7", "fdatasync before 2", "link after 8", "fsync before 4", "mkdir after 2", "record before 1"}


LOGGED = ("link before 8", "link after 8", "record before 1", "fdatasync before 9", "fdatasync after 9")
QUICK_LOGGED = {"link after 8", "record before 1"}


@pytest.mark.parametrize(
    "step", [step if step in QUICK else pytest.param(step, marks=pytest.mark.long) for step in STEPS]
)
def test_nothing_that_was_answered_is_lost(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Power cut at any step, what was not flushed is undone: each 0x0000 is whole, there once, and indexed after a
    restart; no temporary file stays. Each instance is flushed by itself.
    """
    _cut_at(step, 0, monkeypatch)


@pytest.mark.parametrize(
    "step", [step if step in QUICK_LOGGED else pytest.param(step, marks=pytest.mark.long) for step in LOGGED]
)
def test_nothing_that_was_answered_by_the_log_is_lost(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with a reception log: of what was received by it neither bytes nor name of a file is left."""
    _cut_at(step, LEAST_LOG, monkeypatch)


def _cut_at(step: str, log_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    instances = [instance(number) for number in range(12)]
    monkeypatch.setenv("FRAIL_STEP", step)
    with StorageScp(module="support.frail_scp", scp__log_bytes=log_bytes) as scp:
        answered = send_until_it_dies(scp.port, instances)
        assert scp.process is not None
        assert scp.process.wait(30) == -signal.SIGKILL
        scp.module = "dicomferry.daemon.storage_scp"
        scp.start()
        check(scp, answered)
        # What was not answered is sent again, and what was is too: none is there twice.
        assert send_all(scp.port, instances) == {uid for uid, _ in instances}
        check(scp, {uid for uid, _ in instances})


def send_all(port: int, instances: list[tuple[str, bytes]]) -> set[str]:
    with association(port) as caller:
        found = {uid for uid, data in instances if caller.store(uid, data).Status == 0}
        caller.release()
        return found


def check(scp: StorageScp, answered: set[str]) -> None:
    """All of `answered` lie in the archive, whole and indexed, each once; nothing else is left over."""
    until(lambda: scp.indexed() == len(scp.files), "all files are indexed")
    names = [path.stem for path in scp.files]
    assert answered <= set(names) and len(names) == len(set(names))
    sizes = {len(path.read_bytes()) for path in scp.files}
    assert len(sizes) <= 1 and 0 not in sizes
    found = archive_check.verify(scp.archive, scp.database)
    assert (found.missing_files, found.unindexed, found.damaged, found.temporary) == (0, 0, 0, 0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_moment(seed: int, tmp_path: Path) -> None:
    """Four senders, kill -9 at a random moment, three times over."""
    rng = random.Random(seed)
    instances = [instance(number, 64) for number in range(400)]
    answered: set[str] = set()
    with StorageScp() as scp:
        for _ in range(3):
            parts = [instances[n::4] for n in range(4)]
            with ThreadPoolExecutor(4) as pool:
                found = [pool.submit(send_until_it_dies, scp.port, part) for part in parts]
                threading.Event().wait(rng.uniform(0.05, 1.5))  # the moment itself, not a wait for anything
                scp.kill()
            answered = answered.union(*(sent.result() for sent in found))
            scp.start()
            check(scp, answered)
