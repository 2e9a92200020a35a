"""Every row of the table of answers, given by a peer: what the job, its chunk and its item show is the row's."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dicomferry.models.documents import job_answers, jobs
from dicomferry.models.rules import errors, retry
from dicomferry.models.rules.answers import connections, lookup
from dicomferry.models.rules.answers.answer import Answer, Rule
from dicomferry.models.rules.answers.statuses import SERVICES, Status
from dicomferry.models.rules.spec import FindSpec, GetSpec, MoveSpec, Spec
from dicomferry.models.rules.state import JobState
from support import scripted_peer as peer
from support.bench import Bench, free_port
from support.find_scp import FindScp, final, identifier, pending
from support.inline import Inline
from support.qr_catalogue import Catalogue
from support.qr_peer import Manners, QrPeer
from support.scripted_peer import Step, expect, send

STUDY = "0020000D"
GOODBYE: Sequence[Step] = (expect(peer.RELEASE_RQ), send(peer.release_pdu(peer.RELEASE_RP)))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    hasty = {"acse": 0.2, "first_answer": 0.2, "store_answer": 0.2, "progress": 0.2, "quiet": 0.05, "settle": 0.05}
    with Inline(tmp_path, monkeypatch, retry={"give_up_after": 600.0}, timeouts=hasty) as made:
        yield made


@pytest.fixture
def patient_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inline]:
    """For peers that answer: a slow machine is no silent peer."""
    with Inline(tmp_path, monkeypatch, timeouts={"quiet": 0.05, "settle": 0.05}) as made:
        yield made


SAME_WORDS = {"worklist": "find", "move": "get"}
"""Whose rows are tested already where both have the very same one."""


def rows(service: str) -> Iterator[tuple[int, Status]]:
    """The final ones, each with one of its statuses."""
    other = SERVICES[SAME_WORDS[service]] if service in SAME_WORDS else ()
    for row in SERVICES[service]:
        if row.answer.rule is not Rule.LATER and row not in other:
            yield row.last, row


def shown(site: Inline, job_id: int, answer: Answer, what: str) -> None:
    """State, reason and advice, after all that was due has run."""
    (item,) = jobs.items(site.database, job_id)
    (chunk,) = site.chunks(job_id)
    states = {Rule.DONE: "succeeded", Rule.WARNING: "warning", Rule.FINAL: "failed", Rule.AGAIN: "failed"}
    if answer.rule is Rule.BROKEN:
        states[Rule.BROKEN] = "failed"
    assert item["state"] == states.get(answer.rule, "pending"), what
    if answer.rule in states:
        assert (item["reason"], item["advice"]) == (answer.reason, answer.advice), what
    else:
        assert chunk.state == ("held" if answer.rule is Rule.HOLD else "pending"), what
        assert (chunk.reason, chunk.advice) == (answer.reason, answer.advice), what
    charged = {Rule.AGAIN: 2, Rule.BROKEN: retry.MAX_CHARGES}.get(answer.rule, 0)
    assert site.items(job_id)[0].charges == charged, what
    explained(site, job_id, answer, what)


def explained(site: Inline, job_id: int, answer: Answer, what: str) -> None:
    """`explain JOB` has it."""
    _, met = job_answers.of_job(site.database, job_id)
    assert [one.answer.reason for one in met] == ([answer.reason] if answer.reason else []), what


def run(site: Inline, job_id: int) -> int:
    """All that is due now, in both lanes."""
    for lane in ("quick", "bulk"):
        while site.run_next(lane):
            pass
    return job_id


# --- DIMSE statuses -------------------------------------------------------------------------------------------------


def test_every_answer_to_a_store(patient_site: Inline) -> None:
    """The object's item shows the row; a lack of resources and a refusal of us leave it waiting."""
    site = patient_site
    site.mr(1)
    for status, row in rows("store"):
        with Bench(answer=lambda _, status=status: status) as bench:  # type: ignore[misc]
            job_id = run(site, site.store(bench.address))
        shown(site, job_id, row.answer, f"store {row.name}")
        tries = {Rule.AGAIN: 2, Rule.CONGESTED: retry.MAX_CONGESTED_IN_A_ROW}.get(row.answer.rule, 1)
        assert len(bench.stores) == tries, row.name
    site.check()


def test_every_answer_to_an_echo(patient_site: Inline) -> None:
    """The request shows the row."""
    for status, row in rows("echo"):
        answer = peer.p_data(peer.pdv(peer.echo_rsp_command(1, status), 3))
        steps = [peer.accept(), peer.expect_message(data_set=False), send(answer), *GOODBYE]
        with Bench(greet=lambda _, steps=steps: steps) as bench:  # type: ignore[misc]
            job_id = run(patient_site, patient_site.echo(bench.address))
        shown(patient_site, job_id, row.answer, f"echo {row.name}")


@pytest.mark.parametrize("service", ["find", "worklist"])
def test_every_answer_to_a_query(service: str, patient_site: Inline) -> None:
    """The request shows the row, with the advice for a worklist where it asked one."""
    site = patient_site
    keys = (("00100010", ""),)
    what = FindSpec(keys=keys, worklist=True) if service == "worklist" else FindSpec(keys=keys)
    for status, row in rows(service):
        with FindScp(lambda _, status=status: [final(status)]) as scp:  # type: ignore[misc]
            job_id = run(site, site.submit(scp.address, what))
        shown(site, job_id, row.answer, f"{service} {row.name}")


def test_pending_is_never_the_end(patient_site: Inline) -> None:
    """FF00 and FF01 each bring a match, and the query goes on to its end."""
    matches = [pending(identifier(StudyInstanceUID=f"1.2.{status}"), status) for status in (0xFF00, 0xFF01)]
    with FindScp(lambda _: [*matches, final()]) as scp:
        job_id = run(patient_site, patient_site.submit(scp.address, FindSpec(keys=((STUDY, ""),))))
    (item,) = jobs.items(patient_site.database, job_id)
    assert (item["state"], item["detail"]) == ("succeeded", "2 matches")


@pytest.mark.parametrize("service", ["move", "get"])
def test_every_answer_to_a_retrieve(service: str, patient_site: Inline) -> None:
    """One attempt against an archive that sends nothing: what it said decides how it goes on, and can be explained."""
    site = patient_site
    held = site.mr(1)
    for status, row in rows(service):
        nothing = Manners(
            retrieve=lambda retrieval, status=status: retrieval.final(  # type: ignore[misc]
                status, completed=None, failed=None, warning=None
            )
        )
        with QrPeer(Catalogue(held), manners=nothing, destinations={"RESEARCH": 1}) as archive:
            job_id = run(site, site.submit(archive.address, retrieve(service, held[0].study_instance_uid)))
            assert len(archive.retrieves) == 1, row.name
        answer, what = row.answer, f"{service} {row.name}"
        request = next(item for item in jobs.items(site.database, job_id) if item["kind"] == "request")
        (chunk,) = site.chunks(job_id)
        if answer.rule is Rule.FINAL:
            told = (request["state"], request["reason"], request["advice"])
            assert told == ("failed", answer.reason, answer.advice), what
        elif answer.rule in (Rule.HOLD, Rule.CONGESTED):
            state = "held" if answer.rule is Rule.HOLD else "pending"
            assert (chunk.state, chunk.reason) == (state, answer.reason), what
            assert chunk.advice == answer.advice or "enter AE title RESEARCH" in chunk.advice, what
        else:
            # Whatever it says: what is expected has not come, so it is asked for again.
            assert (chunk.state, chunk.reason) == ("pending", "not delivered yet"), what
        _, met = job_answers.of_job(site.database, job_id)
        assert answer.reason in {None, *(one.answer.reason for one in met)}, what


def retrieve(service: str, study: str) -> Spec:
    """Of one study; a move goes elsewhere, so that nobody looks at our storage SCP."""
    wanted = ((None, ((STUDY, study),)),)
    return GetSpec(identifiers=wanted) if service == "get" else MoveSpec(identifiers=wanted, destination="RESEARCH")


# --- rejections, aborts, time-outs, sockets -------------------------------------------------------------------------


def greeted(*steps: Step) -> Bench:
    """A peer that plays these steps for each association."""
    return Bench(greet=lambda _: steps)


def answered(*steps: Step) -> Bench:
    """A peer that plays these steps for each object."""
    return Bench(answer=lambda _: steps)


def rejected(key: str) -> Bench:
    numbers = [int(number) for number in key.removeprefix("reject ").split("/")]
    return greeted(send(peer.rejection(*numbers)))


def aborted(key: str) -> Bench:
    numbers = [int(number) for number in key.removeprefix("abort ").split("/")]
    return answered(send(peer.abort_pdu(*numbers)))


def wrong_message(store: Any) -> Sequence[Step]:
    return [send(peer.store_rsp(store.message_id + 7))]


PEERS: dict[str, Callable[[], Bench]] = {
    "timeout acse": lambda: greeted(peer.until_end),
    "timeout store_answer": lambda: answered(peer.until_end),
    "timeout release": lambda: Bench(
        answer=lambda store: [send(peer.store_rsp(store.message_id)), expect(peer.RELEASE_RQ), peer.until_end]
    ),
    "connect closed": lambda: greeted(peer.close),
    "connect TLS": lambda: greeted(send(bytes((0x15, 3, 3, 0, 2, 2, 40)))),
    "connect not DICOM": lambda: greeted(send(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    "connection lost": lambda: answered(peer.close),
    "connection released": lambda: answered(send(peer.release_pdu(peer.RELEASE_RQ)), peer.until_end),
    "protocol violation": lambda: Bench(answer=wrong_message),
    "context refused": lambda: Bench(choose=lambda _, syntaxes: (3, syntaxes[0])),
    **{key: (lambda key=key: rejected(key)) for key in connections.CONNECTIONS if key.startswith("reject ")},  # type: ignore[misc]
    **{key: (lambda key=key: aborted(key)) for key in connections.CONNECTIONS if key.startswith("abort ")},  # type: ignore[misc]
}
SOCKETS: dict[str, OSError | None] = {
    "connect refused": None,  # a port on which nobody listens
    "connect no route": OSError(errno.EHOSTUNREACH, "No route to host"),
    "connect name": socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    "connect other": OSError(errno.EACCES, "Permission denied"),
    "timeout connect": TimeoutError(),
}
"""What the system says of a connection, where no peer says anything."""
OF_QUERIES = {"timeout first_answer", "timeout progress"}
RECORDED: dict[str, errors.DimseError] = {"failure": errors.DimseFailure(0xC000)}
"""What no peer can bring about now: the row for an error of a kind that is not known yet."""


def test_every_row_of_a_connection_has_its_case() -> None:
    """A new row is tested, or this fails."""
    assert {*PEERS, *SOCKETS, *OF_QUERIES, *RECORDED} == set(connections.CONNECTIONS)
    for key, error in RECORDED.items():
        assert lookup.for_error(error) == connections.CONNECTIONS[key]


@pytest.mark.parametrize("key", PEERS)
def test_every_rejection_abort_and_end(key: str, site: Inline) -> None:
    """A store to a peer that does nothing else: held, waiting or failed, with the row's reason and advice."""
    site.mr(1)
    answer = connections.CONNECTIONS[key]
    with PEERS[key]() as bench:
        job_id = site.store(bench.address)
        to_the_end(site, job_id, answer)
    if key == "timeout release":
        assert JobState(site.job(job_id).state) is JobState.SUCCEEDED
    else:
        shown(site, job_id, answer, key)


def to_the_end(site: Inline, job_id: int, answer: Answer) -> None:
    """As often as an item may be charged where it is, else once."""
    run(site, job_id)
    for _ in range(retry.MAX_CHARGES - 1 if answer.rule is Rule.BROKEN else 0):
        site.wait(job_id)
        run(site, job_id)


@pytest.mark.parametrize("key", SOCKETS)
def test_every_failure_to_connect(key: str, site: Inline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is charged, and the advice tells one from the other."""
    site.mr(1)
    error = SOCKETS[key]

    def fails(*_: object, **__: object) -> socket.socket:
        assert error is not None
        raise error

    if error is not None:
        monkeypatch.setattr(socket, "create_connection", fails)
    job_id = run(site, site.store(f"BENCH@127.0.0.1:{free_port()}"))
    (chunk,) = site.chunks(job_id)
    answer = connections.CONNECTIONS[key]
    assert (chunk.state, chunk.reason, chunk.advice) == ("pending", answer.reason, answer.advice)
    assert site.items(job_id)[0].charges == 0


@pytest.mark.parametrize("key", sorted(OF_QUERIES))
def test_every_silence_of_a_query(key: str, site: Inline) -> None:
    """Before the first answer, and after one."""
    first = [pending(identifier(StudyInstanceUID="1.2"))] if key == "timeout progress" else []
    with FindScp(lambda _: [*first, peer.until_end]) as scp:
        job_id = site.submit(scp.address, FindSpec(keys=((STUDY, ""),)))
        to_the_end(site, job_id, connections.CONNECTIONS[key])
    shown(site, job_id, connections.CONNECTIONS[key], key)
