"""The image and the compose file, as far as they can be checked without a container engine.

Not covered: that an engine builds the image and that the containers come up.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from dicomferry.models.settings import Settings

ROOT = Path(__file__).parents[2]
OURS = "dicomferry"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(ROOT / "docker-compose.yml")
    return loaded


def _dockerfile() -> list[str]:
    """Its instructions, one string each, continuation lines joined, comments gone."""
    lines = [
        line for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [line for line in joined.splitlines() if line.strip()]


def _pinned(image: str) -> bool:
    """A tag with a whole version: `17.6`, `3.11.14-slim`; neither none nor `latest` nor a bare major."""
    tag = image.rpartition(":")[2] if ":" in image else ""
    return re.match(r"\d+\.\d+", tag) is not None


def test_the_file_is_valid_compose(compose: dict[str, Any]) -> None:
    """The compose specification's own schema accepts it."""
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    errors = [f"{error.json_path}: {error.message}" for error in Draft7Validator(schema).iter_errors(compose)]
    assert errors == []


def test_every_image_is_a_version(compose: dict[str, Any]) -> None:
    """What came up yesterday comes up today: no `latest`, no moving major tag, in both files."""
    images = [service["image"] for service in compose["services"].values()]
    bases = [line.split()[1] for line in _dockerfile() if line.startswith("FROM ")]
    assert bases and [image for image in images + bases if not _pinned(image)] == []


def test_our_image_carries_our_version(compose: dict[str, Any]) -> None:
    """The tag in the compose file is the project's version."""
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert compose["services"]["worker"]["image"] == f"{OURS}:{version[1]}"


def test_every_standing_service_is_watched_and_restarted(compose: dict[str, Any]) -> None:
    """A health check (the image's own for our roles) and a restart policy; the one-shot service has neither."""
    for name, service in compose["services"].items():
        if service.get("restart") == "no":
            assert service["healthcheck"] == {"disable": True}, name
            continue
        assert service["restart"] == "unless-stopped", name
        assert "healthcheck" in service or "build" in service, name
    assert any(line.startswith("HEALTHCHECK") for line in _dockerfile())


def test_data_lies_in_named_volumes_or_folders_of_ones_choice(compose: dict[str, Any]) -> None:
    """What is written lies in a volume that the file declares, or where `.env` says: `down` loses nothing."""
    mounts = [volume for service in compose["services"].values() for volume in service.get("volumes", [])]
    written = [mount for mount in mounts if not mount.endswith(":ro")]
    used = {re.sub(r"\$\{\w+:-(.*?)\}", r"\1", mount).split(":")[0] for mount in written}
    assert used == set(compose["volumes"])
    assert {"postgres", "valkey", "home", "archive"} <= used


def test_each_role_sees_the_same_folders(compose: dict[str, Any]) -> None:
    """A chunk may run on any worker, a schedule may store: a folder that one role sees is there for all."""
    seen = [compose["services"][name]["volumes"] for name in ("migrate", "worker", "scp", "scheduler")]
    assert all(one == seen[0] for one in seen)


def test_roles_may_do_nothing_that_they_need_not(compose: dict[str, Any]) -> None:
    """A root that is read only, no capability, no way to gain one; one service builds the image for all."""
    for name in ("migrate", "worker", "scp", "scheduler"):
        service = compose["services"][name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert ("build" in service) is (name == "migrate"), name
        assert (service.get("pull_policy") == "never") is (name != "migrate"), name


def test_every_service_keeps_its_log_short(compose: dict[str, Any]) -> None:
    """The engine's own default has no end."""
    assert all("max-size" in service["logging"]["options"] for service in compose["services"].values())


def test_nothing_in_it_is_unknown_to_the_older_program(compose: dict[str, Any]) -> None:
    """Compose 1.29, which Debian 12 ships, takes these keys at the top and no `name`."""
    tops = {"services", "volumes", "networks", "secrets", "configs", "version"}
    assert {key for key in compose if not key.startswith("x-")} <= tops


def test_a_worker_scales(compose: dict[str, Any]) -> None:
    """No fixed name and no published port stand in the way of --scale."""
    worker = compose["services"]["worker"]
    assert "container_name" not in worker
    assert "ports" not in worker


def test_passwords_are_asked_for(compose: dict[str, Any]) -> None:
    """They come from files, so that nothing of them stands in an environment. Stores publish no port."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert not re.search(r"\$\{\w*PASSWORD", text)
    assert {name for name in compose["secrets"]} == {"postgres_password", "valkey_password"}
    environment = compose["services"]["worker"]["environment"]
    assert {key: value for key, value in environment.items() if "PASSWORD" in key} == {
        "DICOMFERRY_DATABASE_PASSWORD_FILE": "/run/secrets/postgres_password",
        "DICOMFERRY_BROKER_PASSWORD_FILE": "/run/secrets/valkey_password",
    }
    assert all("ports" not in compose["services"][name] for name in ("postgres", "valkey"))


def test_the_files_for_its_variables_hold_only_what_there_is() -> None:
    """`.env.example` names each variable that the compose file reads, and each setting of the other file exists."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    read = set(re.findall(r"\$\{(\w+)", text))
    named = set(re.findall(r"^#?(\w+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.M))
    assert named == read | {"COMPOSE_PROJECT_NAME"}
    settings = (ROOT / "deploy/compose/dicomferry.env").read_text(encoding="utf-8")
    for name in re.findall(r"^#?DICOMFERRY_(\w+)=", settings, re.M):
        where: Any = Settings
        for part in name.lower().split("__"):
            assert part in where.model_fields, name
            where = type(where.model_fields[part].default)


def test_roles_wait_for_healthy_stores_and_the_upgrade(compose: dict[str, Any]) -> None:
    """A role starts on a database of its own version."""
    assert compose["services"]["worker"]["depends_on"] == {
        "postgres": {"condition": "service_healthy"},
        "valkey": {"condition": "service_healthy"},
        "migrate": {"condition": "service_completed_successfully"},
    }
    assert compose["services"]["migrate"]["command"] == ["db", "upgrade"]


def test_the_image_does_not_run_as_root() -> None:
    """The last USER before the entry point is ours."""
    users = [line.split()[1] for line in _dockerfile() if line.startswith("USER ")]
    assert users == [OURS]


def test_what_the_image_copies_is_in_the_build_context() -> None:
    """.dockerignore admits by name; a COPY of something else would fail only at build time."""
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    admitted = {line[1:].rstrip("/") for line in ignore if line.startswith("!")}
    copied: set[str] = set()
    for line in _dockerfile():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    assert copied <= admitted
    assert [name for name in copied if not (ROOT / name).exists()] == []


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_build_steps_make_a_program_that_starts(tmp_path: Path) -> None:
    """The Dockerfile's pip commands, in an empty folder with what it copies: `dicomferry version` answers.

    The commands are read out of the Dockerfile; no engine runs here, and no other base than this machine's Python.
    """
    source = tmp_path / "src"
    source.mkdir()
    for line in _dockerfile():
        if not line.startswith("COPY ") or "--from" in line:
            continue
        for name in line.split()[1:-1]:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, source / name)
    steps = [line.removeprefix("RUN ") for line in _dockerfile() if re.match(r"RUN .*(venv|pip) ", line)]
    assert len(steps) == 3
    for step in steps:
        here = step.replace("/opt/", f"{tmp_path}/opt/").replace("/wheels", f"{tmp_path}/wheels")
        here = re.sub(r"\bpython -m venv", f"{sys.executable} -m venv", here)
        done = subprocess.run(["sh", "-ec", here], cwd=source, capture_output=True, text=True)
        assert done.returncode == 0, f"{here}\n{done.stdout}\n{done.stderr}"
    program = tmp_path / "opt/dicomferry/bin/dicomferry"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([program, "version"], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0.1.0" in done.stdout
