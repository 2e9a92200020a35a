"""Each peer starts, answers, and is gone at the end: what the other tests rely on."""

import os
import subprocess
from pathlib import Path

import psycopg
import pytest
from pydicom import dcmread

from support import samples
from support.peers import DcmQrScp, Orthanc, PostgresCluster, RedisServer, StoreScp, require
from support.process import PACKAGES, Server


def _run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [require(program), *arguments], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _send(server: Server, aet: str, *paths: Path) -> None:
    _run(
        "storescu",
        "-xf",
        *_profile(server, paths),
        "-aec",
        aet,
        server.host,
        str(server.port),
        *map(str, paths),
    )


def _profile(server: Server, paths: tuple[Path, ...]) -> tuple[str, str]:
    """storescu proposes only what its profile names: one context for each class and syntax of these files."""
    pairs = []
    for path in paths:
        dataset = dcmread(path, stop_before_pixels=True)
        pairs.append((str(dataset.SOPClassUID), str(dataset.file_meta.TransferSyntaxUID)))
    lines = ["[[TransferSyntaxes]]"]
    lines += [f"[S{n}]\nTransferSyntax1 = {syntax}" for n, (_, syntax) in enumerate(pairs)]
    lines += ["[[PresentationContexts]]", "[All]"]
    lines += [f"PresentationContext{n + 1} = {sop_class}\\S{n}" for n, (sop_class, _) in enumerate(pairs)]
    lines += ["[[Profiles]]", "[Test]", "PresentationContexts = All"]
    config = server.folder / "storescu.cfg"
    config.write_text("\n".join(lines) + "\n", encoding="ascii")
    return str(config), "Test"


def _zoo(folder: Path) -> list[samples.Sample]:
    return [
        samples.mr_instance(folder / "mr.dcm"),
        samples.implicit(folder / "implicit.dcm"),
        samples.big_endian(folder / "big.dcm"),
        samples.deflated(folder / "deflated.dcm"),
        samples.rle(folder / "rle.dcm"),
        samples.jpeg_baseline(folder / "jpeg.dcm"),
        samples.jpeg2000(folder / "j2k.dcm"),
        samples.private_sop_class(folder / "private.dcm"),
    ]


def test_storescp_takes_everything_and_counts_repeats(storescp: StoreScp, tmp_path: Path) -> None:
    """Every syntax and class arrives; a second sending of one instance shows in the count of stores only."""
    zoo = _zoo(tmp_path)
    _send(storescp, "STORESCP", *(sample.path for sample in zoo))
    assert set(storescp.received()) == samples.uids(zoo)
    assert storescp.stores() == len(zoo)
    _send(storescp, "STORESCP", zoo[0].path)
    assert set(storescp.received()) == samples.uids(zoo)
    assert storescp.stores() == len(zoo) + 1
    assert storescp.associations() == 2


def test_orthanc_takes_everything_and_hands_it_out(orthanc: Orthanc, tmp_path: Path) -> None:
    """Every syntax and class arrives over DIMSE; the REST side lists it and gives it back."""
    zoo = _zoo(tmp_path)
    _send(orthanc, "ANY", *(sample.path for sample in zoo))
    assert orthanc.instances() == samples.uids(zoo)
    assert orthanc.count() == len(zoo)
    back = tmp_path / "back.dcm"
    back.write_bytes(orthanc.dicom(zoo[4].sop_instance_uid))
    assert dcmread(back).file_meta.TransferSyntaxUID == zoo[4].transfer_syntax_uid


def test_orthanc_moves_to_a_destination_named_late(orthanc: Orthanc, storescp: StoreScp, tmp_path: Path) -> None:
    """A destination added over REST is one that C-MOVE delivers to."""
    sample = samples.mr_instance(tmp_path / "mr.dcm")
    orthanc.upload(sample.path.read_bytes())
    orthanc.set_modality("STORESCP", storescp.port)
    _move(orthanc, "ORTHANC", sample)
    assert set(storescp.received()) == {sample.sop_instance_uid}


def test_dcmqrscp_stores_finds_and_moves(storescp: StoreScp, tmp_path: Path) -> None:
    """DCMTK's archive knows the destinations that it was given."""
    sample = samples.mr_instance(tmp_path / "mr.dcm")
    with DcmQrScp(destinations={"STORESCP": storescp.port}) as archive:
        _send(archive, "QRSCP", sample.path)
        found = _run(
            "findscu", "-v", "-S", "-aec", "QRSCP", "-k", "QueryRetrieveLevel=STUDY",
            "-k", "StudyInstanceUID", archive.host, str(archive.port),
        )  # fmt: skip
        assert sample.study_instance_uid in found
        _move(archive, "QRSCP", sample)
    assert set(storescp.received()) == {sample.sop_instance_uid}


def _move(archive: Server, aet: str, sample: samples.Sample) -> None:
    _run(
        "movescu", "-S", "-aec", aet, "-aem", "STORESCP", "-k", "QueryRetrieveLevel=STUDY",
        "-k", f"StudyInstanceUID={sample.study_instance_uid}", archive.host, str(archive.port),
    )  # fmt: skip


def test_postgres_gives_fresh_databases(postgres_cluster: PostgresCluster, postgres_url: str) -> None:
    """Each database is empty, and its URL is one for SQLAlchemy with psycopg."""
    assert postgres_url.startswith("postgresql+psycopg://")
    other = postgres_cluster.create_database()
    assert other != postgres_url
    name = other.rpartition("/")[2]
    postgres_cluster.execute("CREATE TABLE t (n int)", name)
    assert postgres_cluster.execute("SELECT count(*) FROM t", name) == [(0,)]
    postgres_cluster.drop_database(other)


def test_postgres_comes_back_on_the_same_port() -> None:
    """A cluster of a test's own can be stopped, and started with its data."""
    with PostgresCluster() as cluster:
        cluster.execute("CREATE TABLE kept (n int)")
        cluster.stop()
        with pytest.raises(psycopg.OperationalError):
            cluster.execute("SELECT 1")
        cluster.start()
        assert cluster.execute("SELECT count(*) FROM kept") == [(0,)]


def test_redis_keeps_its_data_over_a_restart_and_loses_it_on_demand() -> None:
    """With a password: reachable by its URL; an orderly restart keeps data, flushall does not."""
    with RedisServer("s3cret") as server:
        assert ":s3cret@" in server.url
        with server.client() as client:
            client.set("k", "v")
        server.stop()
        assert not server.ready()
        server.start()
        with server.client() as client:
            assert client.get("k") == b"v"
            server.flushall()
            assert client.get("k") is None


def test_a_frozen_server_is_mute_and_thaws(redis_server: RedisServer) -> None:
    """Frozen: connections are accepted by the kernel, and no answer comes; thawed it answers again."""
    redis_server.freeze()
    assert Server.ready(redis_server)
    redis_server.thaw()
    assert redis_server.ready()


def test_nothing_is_left_at_the_end() -> None:
    """Leaving the context ends the process and removes its folder."""
    with RedisServer() as server:
        process = server.process
        assert server.running
    assert process is not None and process.poll() is not None
    assert not server.folder.exists()


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_peer_skips_by_name_and_fails_in_ci(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's laptop needs Orthanc; CI never passes for want of it."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setitem(PACKAGES, "no-such-peer", "its-package")
    with pytest.raises(outcome, match=r"no-such-peer is not installed \(Debian package: its-package\)"):
        require("no-such-peer")


def test_no_test_sees_the_users_home(isolated_home: Path) -> None:
    """HOME and DICOMFERRY_HOME are a test's own, and nothing else of dicomferry's is set."""
    assert Path(os.environ["DICOMFERRY_HOME"]) == isolated_home
    assert Path.home() == isolated_home.parent
    assert {name for name in os.environ if name.startswith("DICOMFERRY_")} == {"DICOMFERRY_HOME"}
