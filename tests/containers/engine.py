"""A container engine of the tests' own, stand-ins for public images, and the compose file started on it.

No registry is asked. The stand-ins carry the names that the Dockerfile and the compose file give, and are made of
Debian's packages: so what is proven is our image, our file and our roles, not the stores' own images.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
STAND_INS = Path(__file__).parent / "stand_ins"
WORK = Path(os.environ.get("CONTAINER_TESTS", "/var/tmp/dicomferry-containers"))
"""Where the engine keeps its data; stand-ins are kept there for the next run."""
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates,netbase,tzdata"
PROGRAMS = {"dockerd": "docker.io", "docker-compose": "docker-compose", "debootstrap": "debootstrap"}
"""Program -> the Debian package that brings it."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def run(argv: Sequence[str | Path], *, cwd: Path | None = None, **more: str) -> str:
    """What a command prints; it has to succeed."""
    done = subprocess.run(
        list(map(str, argv)), cwd=cwd, env=os.environ | more, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def until(condition: Any, what: str, seconds: float = 180.0) -> Any:
    """Wait until it holds; what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.5)
    return found


@contextmanager
def engine() -> Iterator[str]:
    """A dockerd of our own, its data below WORK; the address of its socket."""
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian package: {package})")
    if os.geteuid() != 0:
        pytest.skip("an engine is started by root")
    WORK.mkdir(parents=True, exist_ok=True)
    address = f"unix://{WORK}/docker.sock"
    with (WORK / "dockerd.log").open("w") as log:
        daemon = subprocess.Popen(
            ["dockerd", "--data-root", WORK / "data", "--exec-root", WORK / "exec", "--pidfile", WORK / "pid",
             "--host", address],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        asked = ["docker", "--host", address, "info"]
        until(lambda: subprocess.run(asked, capture_output=True).returncode == 0, "the engine answers", 60)
        yield address
    finally:
        daemon.terminate()
        daemon.wait(60)


def make_stand_ins(address: str) -> None:
    """The public images that our files name, under those names, where they are not there yet."""
    services = YAML(typ="safe", pure=True).load(ROOT / "docker-compose.yml")["services"]
    base = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.M)[-1]
    have = run(["docker", "--host", address, "images", "--format", "{{.Repository}}:{{.Tag}}"]).split()
    if base not in have:
        _make_base(address, base)
    for name in ("postgres", "valkey"):
        if services[name]["image"] not in have:
            folder = STAND_INS / name
            argv = ["docker", "--host", address, "build", "-q", "--build-arg", f"BASE={base}", "-t"]
            run([*argv, services[name]["image"], folder])


def _make_base(address: str, tag: str) -> None:
    root = WORK / "root"
    shutil.rmtree(root, ignore_errors=True)
    run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root])
    for name, target in (("python", "python3"), ("python3", "python3"), ("pip", "pip3")):
        (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{target}")
    shutil.copy(CERTIFICATES, root / "etc/ssl/certs/ca-certificates.crt")
    path = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    change = f"ENV PATH={path} PIP_CERT={CERTIFICATES} LANG=C.UTF-8"
    with subprocess.Popen(["tar", "-C", root, "--numeric-owner", "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(
            ["docker", "--host", address, "import", "--change", change, "--change", 'CMD ["python3"]', "-", tag],
            stdin=tar.stdout, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    shutil.rmtree(root)


class Site:
    """The compose file, started from a folder of its own as docs/containers.md says."""

    def __init__(self, address: str, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.port = variables["DICOMFERRY_PORT"]
        self._environment = {"DOCKER_HOST": address}
        for name in run(["git", "ls-files"], cwd=ROOT).splitlines():
            if name.split("/")[0] not in ("tests", "benchmarks", "docs") and (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        env = (folder / ".env.example").read_text()
        for name, value in variables.items():
            env = re.sub(rf"(?m)^#?{name}=.*$", f"{name}={value}", env)
        (folder / ".env").write_text(env)
        with (folder / "deploy/compose/dicomferry.env").open("a") as settings:
            settings.write("DICOMFERRY_SCP__ACCEPT=both\n")
        (folder / "images").mkdir()
        (folder / "secrets").mkdir(mode=0o700)
        for name in ("postgres_password", "valkey_password"):
            (folder / "secrets" / name).write_text('p@ss/w#"rd\\ $x 7%2\n')

    def compose(self, *words: str) -> str:
        """What docker-compose prints."""
        return run(["docker-compose", *words], cwd=self.folder, **self._environment)

    def docker(self, *words: str) -> str:
        return run(["docker", *words], cwd=self.folder, **self._environment)

    def ferry(self, *words: str) -> str:
        """What `dicomferry` prints in a worker's container."""
        return self.compose("exec", "-T", "worker", "dicomferry", *words)

    def said(self, *words: str) -> str:
        """The same, with what it says to people on standard error."""
        return self.compose("exec", "-T", "worker", "sh", "-c", 'exec dicomferry "$@" 2>&1', "sh", *words)

    def json(self, *words: str) -> Any:
        return json.loads(self.ferry(*words, "--json"))

    def containers(self, service: str) -> list[str]:
        """Their names."""
        ids = self.compose("ps", "-q", service).split()
        return [self.docker("inspect", "-f", "{{.Name}}", one).strip().lstrip("/") for one in ids]

    def state(self, name: str, what: str) -> str:
        """Of a container: `Health.Status`, `Status`, `ExitCode`, `Pid`."""
        return self.docker("inspect", "-f", f"{{{{.State.{what}}}}}", name).strip()

    def is_healthy(self, service: str, *, wanted: str = "healthy") -> bool:
        names = self.containers(service)
        return bool(names) and all(self.state(name, "Health.Status") == wanted for name in names)

    def kill(self, name: str) -> None:
        """By its process id, as a crash does it; `docker kill` would count as a wish."""
        os.kill(int(self.state(name, "Pid")), 9)


def own_address() -> str:
    """An address of this machine that containers reach it by, and it them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.77", 9))  # a documentation address: nothing is sent
        return str(probe.getsockname()[0])
