"""Where each setting comes from: a flag, the environment, the file in the home, or nowhere."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dicomferry.cli.frame.command_classes import HOME, meta
from dicomferry.models.record.database import hide_password
from dicomferry.models.settings import FILE_NAME, Settings

_PREFIX = "DICOMFERRY"
_URL = re.compile(r"\w[\w+.-]*://[^\s'\"]+")


def settings(found: Settings) -> list[dict[str, Any]]:
    """Every setting with its value and its source: flag, environment, file or default. Passwords are hidden."""
    file = _read_file(found.home)
    environment = {name.upper(): value for name, value in os.environ.items()}
    rows = []
    for path, value in _leaves(found.model_dump(mode="json"), ()):
        if path == ("home",):
            source = "flag" if meta().get(HOME) else "environment" if environment.get("DICOMFERRY_HOME") else "default"
        elif _in_environment(environment, path):
            source = "environment"
        else:
            source = "file" if _has(file, path) else "default"
        if isinstance(value, str):
            # A command may name URLs as well.
            value = _URL.sub(lambda found: hide_password(found[0]), hide_password(value))
        rows.append({"setting": ".".join(path), "value": value, "source": source})
    return rows


def describe_file(home: Path) -> str:
    """The settings file's path, and whether there is one."""
    file = home / FILE_NAME
    return str(file) if file.exists() else f"{file} (not there, which is fine)"


def _leaves(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _in_environment(environment: Mapping[str, str], path: tuple[str, ...]) -> bool:
    """Whether the environment sets it: by its own variable, or in the JSON object of a variable for its section."""
    for length in range(len(path), 0, -1):
        name = f"{_PREFIX}_{'__'.join(path[:length]).upper()}"
        if name in environment:
            if length == len(path):
                return True
            with suppress(ValueError):
                if _has(json.loads(environment[name]), path[length:]):
                    return True
    return False


def _read_file(home: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads((home / FILE_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _has(values: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(values, Mapping) or key not in values:
            return False
        values = values[key]
    return True
