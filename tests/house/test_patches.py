"""Tests hand values and functions in; they do not reach into our modules to put others in their place."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
HOUSE = "dicomferry"

_FABLE = "thousands of examples are told without a network; a retrieve takes no argument for that yet"
LEFT = {
    ("cli/test_schedules.py", "dicomferry.daemon.scheduler.run"): "a scheduler that the command starts never ends",
    ("support/fabled_archive.py", "dicomferry.models.record.archive.calls.living_scps"): _FABLE,
    ("support/fabled_archive.py", "dicomferry.workers.finding.listing.inquiry"): _FABLE,
    ("support/fabled_archive.py", "dicomferry.workers.finding.walk.asker"): _FABLE,
    ("support/fabled_archive.py", "dicomferry.workers.retrieval.blame.why_nothing_came"): _FABLE,
    ("support/fabled_archive.py", "dicomferry.workers.retrieval.lines.MoveLine"): _FABLE,
    (
        "workers/retrieval/test_attempt.py",
        "dicomferry.workers.retrieval.watch.follow",
    ): "dies in a request",
    ("workers/retrieval/test_our_own_fault.py", "dicomferry.models.record.archive.calls.short_disk"): "a full disk",
    ("workers/retrieval/test_our_own_fault.py", "dicomferry.workers.retrieval.refusals.no_room"): "a full disk",
    (
        "workers/test_removal.py",
        "dicomferry.workers.receiving.archive.Archive.remove",
    ): "dies or is slow there",
}
"""(file, what is replaced): why no argument stands in its place yet. To get shorter, never longer."""


def _ours(tree: ast.Module) -> dict[str, str]:
    """What the names that a file imports stand for, of ours."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == HOUSE:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                alias.asname: alias.name for alias in node.names if alias.asname and alias.name.startswith(f"{HOUSE}.")
            }
    return found


def _dotted(node: ast.expr) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def patched(source: str) -> Iterator[str]:
    """What of ours a test replaces: an attribute of a module or class that it imports, or a path in a string."""
    tree = ast.parse(source)
    ours = _ours(tree)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr"):
            continue
        target, *more = node.args
        if isinstance(target, ast.Constant) and str(target.value).split(".")[0] == HOUSE:
            yield str(target.value)
            continue
        head, _, rest = _dotted(target).partition(".")
        if head in ours and more and isinstance(more[0], ast.Constant):
            yield ".".join(filter(None, (ours[head], rest, str(more[0].value))))


def test_a_patch_is_found_however_it_is_written() -> None:
    """By module, by class, by another name, by a path in a string; objects and other people's modules are free."""
    source = """
import os
from dicomferry.models import disks
from dicomferry.models.record import database as base
from dicomferry.models.record.database import Database
patch.setattr(disks, "LIMIT", 1)
patch.setattr(base.Database, "write", None)
patch.setattr(Database, "read", None)
patch.setattr("dicomferry.models.disks.LIMIT", 1)
patch.setattr(os, "fsync", None)
patch.setattr(site.database, "write", None)
"""
    assert list(patched(source)) == [
        "dicomferry.models.disks.LIMIT",
        "dicomferry.models.record.database.Database.write",
        "dicomferry.models.record.database.Database.read",
        "dicomferry.models.disks.LIMIT",
    ]


def test_tests_hand_in_and_do_not_patch() -> None:
    """What a test wants otherwise is an argument, a value, or an event of a library below."""
    found = Counter(
        (path.relative_to(TESTS).as_posix(), what)
        for path in sorted(TESTS.rglob("*.py"))
        for what in patched(path.read_text(encoding="utf-8"))
    )
    assert set(found) == set(LEFT), "hand it in; what is handed in by now is no exception any more"
