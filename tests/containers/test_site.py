"""The compose file as a site runs it: started, sending, receiving, moving, killed, cut off, stopped, brought back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.engine import Site, engine, make_stand_ins, own_address, until
from support import samples
from support.peers import DcmQrScp, StoreScp, require
from support.process import LOOPBACK, free_port

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

INSTANCES = 60


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site, up with three workers, told to archives by this machine's own address."""
    with engine() as address:
        make_stand_ins(address)
        made = Site(
            address,
            tmp_path_factory.mktemp("site"),
            COMPOSE_PROJECT_NAME="ferrytest",
            DICOMFERRY_PUBLIC_HOST=own_address(),
            DICOMFERRY_PORT=str(free_port()),
            TZ="Europe/Berlin",
        )
        try:
            made.compose("build")
            made.compose("up", "-d", "--scale", "worker=3")
            yield made
        finally:
            made.compose("down", "-v", "--timeout", "5")


@pytest.fixture(scope="module")
def sink(site: Site) -> Iterator[StoreScp]:
    """A receiver outside of the containers, in the site's address book; it may send to the site as well."""
    with StoreScp("SINK") as peer:
        site.ferry("remote", "add", "sink", f"SINK@{own_address()}:{peer.port}")
        yield peer


def series(folder: Path, name: str, number: int = INSTANCES) -> list[samples.Sample]:
    """A series in a folder that uid 10001 may read."""
    folder.mkdir(parents=True)
    os.chmod(folder, 0o755)
    return samples.ct_series(folder, number, size=64, study=name)


def received(site: Site) -> int:
    """How many instances the index of the archive has."""
    return int(site.json("status")["scp"]["instances"])


def send(site: Site, folder: Path, code: int = 0) -> None:
    """storescu from outside to the published port."""
    done = subprocess.run(
        [require("storescu"), "-aet", "SINK", "-aec", "DICOMFERRY", "+sd", "+r", own_address(), site.port, str(folder)],
        capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == code, done.stderr.decode()


def test_all_services_become_healthy(site: Site) -> None:
    """In the order that the file gives, `migrate` first; and the whole of it is well."""
    for service in ("postgres", "valkey", "worker", "scp", "scheduler"):
        until(lambda service=service: site.is_healthy(service), f"{service} is healthy")
    (migrate,) = site.containers("migrate")
    assert site.state(migrate, "ExitCode") == "0"
    told = site.ferry("status", "--check").strip().removeprefix("well: ")
    assert set(told.split(", ")) == {"3 workers", "1 scheduler", "1 scp"}
    assert len(site.containers("worker")) == 3


def test_no_secret_is_told(site: Site) -> None:
    """Neither by `inspect`, nor by what a service writes, nor by a process list; and no store runs as root."""
    names = [name for service in ("postgres", "valkey", "worker", "scp") for name in site.containers(service)]
    told = site.docker("inspect", *names) + site.compose("logs", "--no-color")
    told += "".join(site.docker("top", name) for name in names)
    assert "p@ss" not in told and "p%40ss" not in told
    assert all(" valkey" not in line or not line.startswith("root") for line in told.splitlines())


def test_roles_say_what_they_do_with_their_host(site: Site) -> None:
    """In `logs` of each service, a JSON object a line."""
    for service in ("worker", "scp", "scheduler"):
        told = site.compose("logs", "--no-color", service)
        assert f'"role": "{service}", "host": "' in told, told


def test_files_of_this_machine_are_sent(site: Site, sink: StoreScp) -> None:
    """What lies in the folder of the settings is seen below /data, read only."""
    sent = series(site.folder / "images" / "a", "a")
    told = site.said("submit", "store", "sink", "/data/a", "-r", "--wait")
    assert f"{INSTANCES} of {INSTANCES} proven at SINK" in told
    assert set(sink.received()) == samples.uids(sent)


def test_what_is_sent_to_the_published_port_is_archived(site: Site, sink: StoreScp, tmp_path: Path) -> None:
    """And indexed; a stranger is refused, and why stands in the log."""
    before = received(site)
    series(tmp_path / "in", "in")
    send(site, tmp_path / "in")
    until(lambda: received(site) == before + INSTANCES, "all of them are indexed")
    stranger = [require("echoscu"), "-aet", "STRANGER", "-aec", "DICOMFERRY", own_address(), site.port]
    assert subprocess.run(stranger, capture_output=True).returncode != 0
    assert "remote add NAME STRANGER@" in site.compose("logs", "--no-color", "scp")


def test_an_archive_outside_sends_to_the_place_that_it_was_told(site: Site, tmp_path: Path) -> None:
    """A move is refused with the place to enter; once that is entered, all of it comes."""
    with DcmQrScp("QR", destination_host=own_address()) as archive:
        held = series(tmp_path / "held", "held")
        to_archive = [require("storescu"), "-aec", "QR", "+sd", LOOPBACK, str(archive.port), str(tmp_path / "held")]
        subprocess.run(to_archive, check=True)
        site.ferry("remote", "add", "qr", f"QR@{own_address()}:{archive.port}")
        study = held[0].study_instance_uid
        asked = ("submit", "move", "qr", "-k", f"StudyInstanceUID={study}")
        job = site.ferry(*asked).split()[-1]
        until(lambda: site.json("jobs", "show", job)["state"] == "held", "it is held")
        place = f"AE title DICOMFERRY, {own_address()}:{site.port}"
        assert place in site.ferry("jobs", "show", job).replace("\n", " ")
        archive.stop()
        archive.destinations = {"DICOMFERRY": int(site.port)}
        archive.start()
        site.ferry("jobs", "release", job)
        until(lambda: site.json("jobs", "show", job)["state"] == "succeeded", "it succeeded")
        assert site.json("jobs", "show", job)["verified"] == "uids"


def test_a_killed_role_comes_back_and_nothing_is_lost(site: Site, sink: StoreScp, tmp_path: Path) -> None:
    """Each role by its process id, while it works."""
    sent = series(site.folder / "images" / "killed", "killed", 400)
    job = site.ferry("submit", "store", "sink", "/data/killed", "-r").split()[-1]
    for name in site.containers("worker"):
        site.kill(name)
    (scp,) = site.containers("scp")
    site.kill(scp)
    until(lambda: site.is_healthy("worker") and site.is_healthy("scp"), "they are back")
    until(lambda: site.json("jobs", "show", job)["state"] == "succeeded", "the job succeeded")
    assert samples.uids(sent) <= set(sink.received())
    before = received(site)
    series(tmp_path / "after", "after")
    send(site, tmp_path / "after")
    until(lambda: received(site) == before + INSTANCES, "what came after it is indexed")


def test_stores_that_are_away_make_no_role_ill(site: Site, sink: StoreScp, tmp_path: Path) -> None:
    """The storage SCP goes on receiving without the database; jobs wait for both stores, and go on."""
    series(tmp_path / "away", "away")
    series(site.folder / "images" / "away", "sent while away")
    before = received(site)
    site.compose("stop", "postgres", "valkey")
    send(site, tmp_path / "away")
    assert site.is_healthy("scp") and site.is_healthy("worker")
    site.compose("start", "postgres", "valkey")
    until(lambda: site.is_healthy("postgres") and site.is_healthy("valkey"), "the stores are back")
    until(lambda: received(site) == before + INSTANCES, "what came meanwhile is indexed")
    assert "proven at SINK" in site.said("submit", "store", "sink", "/data/away", "-r", "--wait")


def test_a_role_that_stands_still_is_unhealthy(site: Site) -> None:
    """And only that one."""
    name = site.containers("scheduler")[0]
    site.docker("kill", "--signal", "STOP", name)
    try:
        until(lambda: site.is_healthy("scheduler", wanted="unhealthy"), "it is unhealthy", 300)
        assert site.is_healthy("scp")
    finally:
        site.docker("kill", "--signal", "CONT", name)
    until(lambda: site.is_healthy("scheduler"), "it is well again")


def test_a_stop_lets_items_end_and_all_is_there_afterwards(site: Site, sink: StoreScp) -> None:
    """Each role ends in good order within the grace period; `down` and `up` keep jobs and archive."""
    jobs, instances = len(site.json("jobs", "list")), received(site)
    site.compose("stop")
    for service in ("worker", "scp", "scheduler"):
        assert {site.state(name, "ExitCode") for name in site.containers(service)} == {"0"}, service
    site.compose("down")
    site.compose("up", "-d", "--scale", "worker=1")
    until(lambda: site.is_healthy("scp") and site.is_healthy("worker"), "it is back")
    assert (len(site.json("jobs", "list")), received(site)) == (jobs, instances)
