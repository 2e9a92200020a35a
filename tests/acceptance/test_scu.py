"""`dicomferry scu` as a whole process: echo and find with real archives, beside the real gdcmscu, and interrupted."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomferry.cli.scu.messages import rejection_text
from dicomferry.models.rules.errors import AssociationRejected
from support import find_scp, gdcmscu, samples
from support import scripted_peer as peer
from support.find_scp import FindScp
from support.peers import DcmQrScp, Orthanc
from support.process import LOOPBACK, free_port, require
from support.samples import Sample
from support.scripted_peer import ScriptedPeer, opening, send

SCU = (sys.executable, "-m", "dicomferry.cli.main", "scu")
NAMES = {"PAT1": "Müller^Jérôme", "PAT2": "Ferry^Test"}
UNWANTED = "celery redis kombu sqlalchemy pydantic click rich pynetdicom pydicom numpy"


def scu(line: str, *more: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """`dicomferry scu` with these words, in a UTF-8 locale, and its exit status as it has to be."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    known |= {"LANG": "C.UTF-8", **environment}
    command = [*SCU, *shlex.split(line), *more]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=known, timeout=60, check=False)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Two patients, names with accents in ISO_IR 100, of two images each."""
    folder = tmp_path_factory.mktemp("patients")
    made = []
    for patient, name in NAMES.items():
        for number in (1, 2):
            ds = samples.dataset(size=8, PatientID=patient, PatientName=name, InstanceNumber=number)
            ds.StudyInstanceUID = samples.uid("study", patient)
            ds.SeriesInstanceUID = samples.uid("series", patient)
            ds.SOPInstanceUID = samples.uid("sop", patient, number)
            made.append(samples.write(folder / f"{patient}-{number}.dcm", ds))
    return made


@pytest.fixture(scope="module")
def archive(held: list[Sample]) -> Iterator[DcmQrScp]:
    """A dcmqrscp that holds them."""
    server = DcmQrScp()
    for sample in held:
        (server.storage / sample.path.name).write_bytes(sample.path.read_bytes())
    files = sorted(server.storage.glob("*.dcm"))
    subprocess.run([require("dcmqridx"), str(server.storage), *map(str, files)], check=True, capture_output=True)
    with server:
        yield server


@pytest.fixture(scope="module")
def stocked(held: list[Sample]) -> Iterator[Orthanc]:
    """An Orthanc that holds them."""
    with Orthanc() as server:
        for sample in held:
            server.upload(sample.path.read_bytes())
        yield server


def test_an_echo_is_silent(archive: DcmQrScp) -> None:
    """In every spelling of host and port; nothing on either stream."""
    port = archive.port
    for line in (f"{LOOPBACK} {port}", f"--ech -H {LOOPBACK} -p{port}", f"--port={port} -- {LOOPBACK}"):
        done = scu(f"--call {archive.aet} {line}")
        assert done.stdout == done.stderr == ""
    assert "C-ECHO answered" in scu(f"-D {LOOPBACK} {port} --call {archive.aet}").stderr


def test_an_echo_needs_none_of_the_queues_libraries(archive: DcmQrScp) -> None:
    """It runs where they cannot be imported, and imports no library at all that takes its time."""
    program = f"""
import sys
unwanted = {UNWANTED.split()!r}
sys.modules.update(dict.fromkeys(unwanted))  # each import of them fails
from dicomferry.cli.main import main
sys.argv = ["dicomferry", "scu", "--echo", {LOOPBACK!r}, "{archive.port}", "--call", {archive.aet!r}]
main()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_find_needs_neither_queue_nor_database(archive: DcmQrScp) -> None:
    """Only the data dictionary is loaded on top."""
    program = f"""
import sys
sys.modules.update(dict.fromkeys("celery redis kombu sqlalchemy pydantic click rich pynetdicom".split()))
from dicomferry.cli.main import main
sys.argv = ["dicomferry", "scu", "--find", "--studyroot", {LOOPBACK!r}, "{archive.port}", "--call", {archive.aet!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True)
    assert "Find Response: 2" in done.stdout


def test_a_rejection_is_four_lines(archive: DcmQrScp, tmp_path: Path) -> None:
    """On standard error, or in the -L file alone."""
    expected = (
        "PDULength: 4\nResult: rejected-permanent\nSource: DICOM UL service-provider (ACSE related function)\n"
        "Reason: 7 - called-AE-title-not-recognized\n"
    )
    done = scu(f"{LOOPBACK} {archive.port}", code=1)
    assert (done.stdout, done.stderr) == ("", expected)
    assert done.stderr.encode() == gdcmscu.run(archive.port).stderr
    log = tmp_path / "x.log"
    log.write_text("what was there before")
    done = scu(f"--find --studyroot {LOOPBACK} {archive.port} -L {log}", code=1)
    assert (done.stdout, done.stderr, log.read_text()) == ("", "", expected)


@pytest.mark.parametrize(
    ("triple", "lines"),
    [
        ((2, 1, 1), "Result: rejected-transient .* Reason: 1 - no-reason-given"),
        ((1, 1, 3), "Reason: 3 - calling-AE-title-not-recognized"),
        ((1, 1, 5), "Reason: 4-6 - reserved"),
        ((1, 2, 2), r"\(Presentation related function\) Reason: protocol-version-not-supported"),
        ((2, 3, 2), "Reason: 2 - local-limit-exceeded"),
        ((9, 9, 9), "Result: 9 - unknown Source: 9 - unknown Reason: 9 - reserved"),
    ],
)
def test_every_rejection_has_its_words(triple: tuple[int, int, int], lines: str) -> None:
    """PS3.8 table 9-21, in gdcmscu's words where it has any."""
    assert re.search(lines, rejection_text(AssociationRejected(*triple)).replace("\n", " "))


def test_failures_are_one_line_and_name_the_peer() -> None:
    """Nobody there, nobody who speaks, a status, an abort; without any -E."""
    port = free_port()
    assert f"{LOOPBACK}:{port}: connection refused" in scu(f"{LOOPBACK} {port}", code=1).stderr
    assert "no.such.host.invalid" in scu("no.such.host.invalid 104", code=1).stderr
    with ScriptedPeer([peer.expect(peer.RQ), peer.until_end]) as silent:
        done = scu(f"{LOOPBACK} {silent.port} --acse-timeout 0.2", code=1)
        assert f"{LOOPBACK}:{silent.port}" in done.stderr and done.stderr.count("\n") == 1
    refusal = send(peer.p_data(peer.pdv(peer.echo_rsp_command(1, 0x0122), 3)))
    script = [*opening(), peer.expect_message(data_set=False), refusal, peer.expect(peer.RELEASE_RQ)]
    with ScriptedPeer([*script, send(peer.release_pdu(peer.RELEASE_RP)), peer.expect_end]) as failing:
        done = scu(f"{LOOPBACK} {failing.port}", code=1)
        assert "C-ECHO ended with status 0122" in done.stderr and done.stderr.count("\n") == 1
    with FindScp(lambda asked: [peer.until_end], deaf=True) as scp:
        done = scu(f"--find --studyroot {LOOPBACK} {scp.port} --dimse-timeout 0.2", code=1)
        assert f"{LOOPBACK}:{scp.port}" in done.stderr and done.stderr.count("\n") == 1
    with ScriptedPeer([*opening(), peer.expect_message(data_set=False), send(peer.abort_pdu()), peer.expect_end]) as it:
        assert "aborted" in scu(f"{LOOPBACK} {it.port}", code=1).stderr


def test_wrong_usage_asks_nobody(tmp_path: Path) -> None:
    """One line and exit 1; the help of a call without a host goes to standard output."""
    for line, words in (
        ("--frobnicate h", "unrecognized option '--frobnicate'"),
        ("-k 10 h", "Could not read Tag: 10"),
        ("h 0", "Problem with port number"),
        ("--call '' h", "AE title"),
        ("--find h", "Find failed."),
    ):
        done = scu(line, code=1)
        assert done.stdout == "" and words in done.stderr and done.stderr.count("\n") == 1
    done = scu("", code=1)
    assert done.stdout.startswith("Usage: dicomferry scu") and done.stderr.count("\n") == 1
    assert "not valid: abc" in scu("h", code=1, GDCM_ROOT_UID="abc").stderr
    assert scu("-h", GDCM_ROOT_UID="abc").stdout.endswith(
        "\nLocal Name: C.UTF-8\nLocal Character Set: UTF-8\nDICOM Character Set: [ISO_IR 192]\n"
    )
    assert "ISO_IR 100" in scu("-h", LC_ALL="C").stdout
    assert "ISO_IR 192" in scu("-h", LC_CTYPE="UTF-8").stdout
    assert scu("-v -h").stdout.startswith("gdcmscu: gdcm 3.0.21 $Date$")
    assert "--queryhelp --patientroot" in scu("--queryhelp").stdout
    assert "--queryhelp --studyroot" in scu("--queryhelp --patientroot").stdout
    done = scu(f"127.0.0.1 1 -L {tmp_path}/missing/x.log", code=1)
    assert "x.log" in done.stderr and done.stderr.count("\n") == 2


QUERIES = [
    "--find --patientroot --patient --key 10,10 --key 10,20=P*",
    "--find --studyroot --key 10,20=PAT2 --key 10,10 --key 20,d --key 8,20",
    "--find --studyroot --series --key 20,d --key 8,60 --key 10,20=PAT2",
    "--find --patientroot --image --key 8,18 --key 20,13 --key 10,20=PAT2",
    "--find --patientroot --patient --key 10,20=NOBODY",
]


@pytest.mark.parametrize("kind", ["archive", "stocked"])
@pytest.mark.parametrize("line", QUERIES)
def test_records_and_query_files_are_gdcmscus_own(
    request: pytest.FixtureRequest, tmp_path: Path, line: str, kind: str
) -> None:
    """The same query file; of a real archive the same lines, on standard output, or in the -L file alone. Patients with
    accents in their names apart, which gdcmscu cannot show.
    """
    server: DcmQrScp | Orthanc = request.getfixturevalue(kind)
    asked = line.replace("P*", "PAT2")
    theirs = gdcmscu.run(
        server.port, *shlex.split(asked), "--call", server.aet, "--store-query", str(tmp_path / "theirs")
    )
    assert (b"Find Response: 1" in theirs.stderr) == ("NOBODY" not in line)
    log = tmp_path / "log"
    peer_words = f"{LOOPBACK} {server.port} --call {server.aet}"
    ours = scu(f"{asked} {peer_words} --store-query {tmp_path}/ours")
    assert ours.stdout.encode() == theirs.stderr and ours.stderr == ""
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    ours = scu(f"{asked} {peer_words} -V -L {log}")
    assert (ours.stdout, ours.stderr) == ("", "")
    assert log.read_bytes() == theirs.stderr + b"Find was successful.\n"


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192"])
def test_accents_match_and_are_shown(stocked: Orthanc, charset: str) -> None:
    """Orthanc answers in either character set; keys go out as they were typed, names are printed as UTF-8."""
    line = f"--find --patientroot --patient {LOOPBACK} {stocked.port} --call {stocked.aet} -k 10,20"
    if charset == "ISO_IR 192":
        done = scu(line, "-k", "10,10=*Jérôme*")
        assert "[Müller^Jérôme" in done.stdout and "Find Response: 2" not in done.stdout
        return
    # Bytes of Latin-1, as a terminal in such a locale types them; in the C locale the query says ISO_IR 100.
    environment = {**os.environ, "LC_ALL": "C"}
    command = [os.fsencode(word) for word in (*SCU, *shlex.split(line), "-k")]
    done_raw = subprocess.run(
        [*command, "10,10=*Jérôme*".encode("latin-1")], capture_output=True, env=environment, timeout=60, check=True
    )
    assert "[Müller^Jérôme" in done_raw.stdout.decode() and b"Find Response: 2" not in done_raw.stdout


def match(patient_id: str) -> bytes:
    return find_scp.identifier(QueryRetrieveLevel="STUDY", PatientID=patient_id)


def packed(data: bytes) -> bytes:
    """A pending answer whose command and data set share one P-DATA-TF."""
    apart = find_scp.pending(data)
    first = 6 + int.from_bytes(apart[2:6])
    return peer.p_data(apart[6:first], apart[first + 6 :])


def test_command_and_data_set_may_share_a_pdu() -> None:
    """PS3.8 9.3.5: no match is lost, whatever their number."""
    with FindScp(lambda asked: [*(packed(match(f"P{n}")) for n in range(5)), find_scp.final()]) as scp:
        done = scu(f"--find --studyroot {LOOPBACK} {scp.port} -k 10,20")
    assert [f"[P{n}]" in done.stdout for n in range(6)] == [True] * 5 + [False]


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC000, 0xFE00])
def test_matches_of_a_find_that_fails_are_printed(status: int) -> None:
    """They were paid for; the status is named, the association released."""
    with FindScp(lambda asked: [find_scp.pending(match("P1")), find_scp.final(status)]) as scp:
        done = scu(f"--find --studyroot {LOOPBACK} {scp.port} -k 10,20", code=1)
    assert "[P1]" in done.stdout and f"{status:04X}" in done.stderr and done.stderr.count("\n") == 1
    assert scp.endings == ["released"]


@pytest.mark.parametrize(
    ("model", "status", "meaning"),
    [
        ("--find --studyroot", 0xC001, "unable to process"),
        ("--find --studyroot", 0xA900, "identifier does not match SOP class"),
        ("--find --studyroot", 0xA710, "invalid prior record key"),
        ("--worklist", 0xC001, "unable to process"),
        ("--worklist", 0xA710, "out of resources"),
    ],
)
def test_a_status_means_what_its_service_says(model: str, status: int, meaning: str) -> None:
    """PS3.4 C.4.1.1.4 and K.4.1.1.4 give the statuses of a query other meanings than B.2.3 gives those of a C-STORE."""
    with FindScp(lambda asked: [find_scp.final(status)]) as scp:
        done = scu(f"{model} {LOOPBACK} {scp.port} -k 10,20", code=1)
    assert f"C-FIND ended with status {status:04X} ({meaning})" in done.stderr


def test_a_worklist_is_a_find_of_its_own_kind() -> None:
    """Its own model and heading, and no level; nobody there is a failure as elsewhere."""
    with FindScp(lambda asked: [find_scp.pending(match("P1")), find_scp.final()]) as scp:
        done = scu(f"--worklist {LOOPBACK} {scp.port} -k 10,20")
        assert done.stdout.startswith("WL Find Response: 1\n")
        assert "QueryRetrieveLevel" not in scp.queries[0] and scp.queries[0].SpecificCharacterSet == "ISO_IR 192"
    scu(f"--worklist {LOOPBACK} {free_port()}", code=1)


def interrupted(line: str) -> subprocess.Popen[str]:
    """A process to interrupt, which is not to inherit that a shell in the background ignores it."""
    return subprocess.Popen(
        [*SCU, *shlex.split(line)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_an_interrupted_find_aborts() -> None:
    """Ctrl-C while answers come: exit 130, one line, the association aborted at once and no answer waited for."""
    endless = [find_scp.pending(match(f"P{n}")) for n in range(2000)]
    with FindScp(lambda asked: [*endless, peer.until_end], deaf=True) as scp:
        with interrupted(f"--find --studyroot {LOOPBACK} {scp.port}") as process:
            assert process.stdout is not None and process.stdout.readline() == "Find Response: 1\n"
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
        assert (process.returncode, told) == (130, "interrupted\n")


def test_an_interrupted_echo_aborts() -> None:
    """Ctrl-C while the peer keeps us waiting, before and after the association is there."""
    for waiting in ([peer.expect(peer.RQ)], [*opening(), peer.expect_message(data_set=False)]):
        holder: list[subprocess.Popen[str]] = []

        def interrupt(_conversation: peer.Conversation, holder: list[subprocess.Popen[str]] = holder) -> None:
            holder[0].send_signal(signal.SIGINT)

        with ScriptedPeer([*waiting, interrupt, peer.expect(peer.ABORT), peer.expect_end]) as scripted:
            # The peer's thread waits for the connection, so the process is in the list when it is needed.
            holder.append(interrupted(f"{LOOPBACK} {scripted.port}"))
            _, told = holder[0].communicate(timeout=30)
        assert (holder[0].returncode, told) == (130, "interrupted\n")


def test_a_closed_pipe_ends_it_quietly(archive: DcmQrScp) -> None:
    """`scu --find | head -1`: no traceback."""
    line = f"--find --patientroot --image {LOOPBACK} {archive.port} --call {archive.aet}"
    command = " ".join(map(shlex.quote, SCU)) + f" {line} | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("Find Response: 1\n", "")
