"""The rules of the house that import-linter cannot say in general: they hold for each module from its first day."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("cli", "daemon", "workers", "models")
MAX_LINES = 400

BROKER_LIBRARIES = {"celery", "kombu", "redis", "billiard", "valkey"}
CELERY_MODULES = {"dicomferry.workers.doorbell.celery_app", "dicomferry.workers.doorbell.tasks"}
RULES = "dicomferry.models.rules"
PURE_LIBRARIES = {"dicomferry.models.rules.timetable": {"cronsim"}}
"""Arithmetic of others that a rule may use: no input, no output, no state."""


class Module(NamedTuple):
    name: str
    path: Path
    imports: frozenset[str]
    """Dotted names, those in functions and under TYPE_CHECKING included."""


def _imports(name: str, path: Path) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])
            # `from package import module` is an import of package.module; of a name in it, of the package at least.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _modules() -> list[Module]:
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(name, path, frozenset(_imports(name, path))))
    return found


MODULES = _modules()


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _importers_of(libraries: set[str]) -> set[str]:
    return {module.name for module in MODULES if {name.split(".")[0] for name in module.imports} & libraries}


def test_there_are_modules_to_look_at() -> None:
    """The walk finds the project: the rules below are not true for want of modules."""
    assert {folder for folder in FOLDERS if any(_is_in(m.name, f"dicomferry.{folder}") for m in MODULES)}


def test_only_the_celery_modules_know_the_queue() -> None:
    """Synchronous mode runs with celery and redis uninstalled: two modules alone import them."""
    assert _importers_of(BROKER_LIBRARIES) <= CELERY_MODULES


def test_only_the_dimse_package_knows_pynetdicom() -> None:
    """The network library can be replaced behind one seam."""
    assert {name for name in _importers_of({"pynetdicom"}) if not _is_in(name, "dicomferry.workers.dimse")} == set()


@pytest.mark.parametrize("module", [m for m in MODULES if _is_in(m.name, RULES)], ids=lambda m: str(m.name))
def test_rules_import_the_standard_library_and_each_other(module: Module) -> None:
    """Rules are plain functions of their arguments: no database, no network, no settings, and time comes in."""
    for name in module.imports:
        top = name.split(".")[0]
        allowed = _is_in(name, RULES) or top in sys.stdlib_module_names or top in PURE_LIBRARIES.get(module.name, ())
        assert allowed or top == "__future__", f"{module.name} imports {name}"


def test_no_circles() -> None:
    """No module imports itself by way of others, for imports inside functions and under TYPE_CHECKING too."""
    names = {module.name for module in MODULES}
    edges = {
        module.name: {one for name in module.imports for one in (name, name.rpartition(".")[0]) if one in names}
        for module in MODULES
    }
    settled: set[str] = set()
    for _ in names:
        free = {name for name in names - settled if edges[name] - {name} <= settled}
        if not free:
            break
        settled |= free
    assert names - settled == set(), "in a circle, or above one"


def test_rows_of_the_database_stay_in_the_record() -> None:
    """A raw row, whose columns no type checker knows, is for the modules that ask for it; others are given values."""
    raw = "dicomferry.models.record.database.AnyRow"
    at_home = ("dicomferry.models.record", "dicomferry.models.documents")
    users = {module.name for module in MODULES if raw in module.imports}
    assert {name for name in users if not any(_is_in(name, home) for home in at_home)} == set()


def test_the_wire_knows_no_operation() -> None:
    """dimse/wire is PDUs, associations and messages (PS3.8, PS3.7); the operations stand on it."""
    wire, dimse = "dicomferry.workers.dimse.wire", "dicomferry.workers.dimse"
    wrong = {
        f"{module.name} imports {name}"
        for module in MODULES
        if _is_in(module.name, wire)
        for name in module.imports
        if _is_in(name, dimse) and not _is_in(name, wire)
    }
    assert wrong == set()


def test_imports_go_one_way() -> None:
    """cli -> daemon -> workers -> models, for imports inside functions too."""
    wrong = []
    for module in MODULES:
        own = FOLDERS.index(module.name.split(".")[1])
        for name in module.imports:
            parts = name.split(".")
            if parts[0] == "dicomferry" and len(parts) > 1 and parts[1] in FOLDERS[:own]:
                wrong.append(f"{module.name} imports {name}")
    assert wrong == []


def test_the_namespace_has_no_init() -> None:
    """A dicomferry/__init__.py in one folder would hide the other three."""
    assert [str(p) for folder in FOLDERS for p in (ROOT / folder).glob("dicomferry/__init__.py")] == []
    assert not (ROOT / "dicomferry").exists()


def test_each_folder_holds_its_own_part_only() -> None:
    """cli/dicomferry/cli and nothing beside it: what follows the folder's name is the import path."""
    for folder in FOLDERS:
        inside = {p.name for p in (ROOT / folder / "dicomferry").glob("*") if p.name != "__pycache__"}
        assert inside <= {folder, "py.typed"}, folder
        assert {p.name for p in (ROOT / folder).glob("*.py")} == set(), folder


def test_modules_stay_short_and_are_named_for_what_they_do() -> None:
    """About 400 lines at most, and no drawer for everything."""
    long = {m.name: n for m in MODULES if (n := len(m.path.read_text().splitlines())) > MAX_LINES}
    assert long == {}
    drawers = {"util", "utils", "helper", "helpers", "misc", "common"}
    assert [m.name for m in MODULES if m.name.split(".")[-1] in drawers] == []


def test_the_folder_lists_agree() -> None:
    """Build, tests, types and lint look at the same four folders."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tool = config["tool"]
    folders = list(FOLDERS)
    assert tool["hatch"]["build"]["dev-mode-dirs"] == folders
    assert tool["hatch"]["build"]["targets"]["wheel"]["packages"] == [f"{f}/dicomferry" for f in folders]
    assert tool["hatch"]["build"]["targets"]["sdist"]["only-include"][:4] == folders
    for name, key in (
        ("mypy", "mypy_path"),
        ("mypy", "files"),
        ("pyright", "include"),
        ("pyright", "extraPaths"),
        ("ruff", "src"),
    ):
        assert tool[name][key][:5] == [*folders, "tests"], (name, key)
    assert tool["pytest"]["ini_options"]["pythonpath"] == [*folders, "tests"]
    assert tool["coverage"]["run"]["source"] == folders
    assert tool["importlinter"]["root_packages"] == [f"dicomferry.{f}" for f in folders]
    assert tool["importlinter"]["contracts"][0]["layers"] == [f"dicomferry.{f}" for f in folders]


def test_the_locks_name_no_place() -> None:
    """No index address and no machine's path: the same lock serves every mirror."""
    for path in sorted(ROOT.glob("requirements*.lock")):
        text = path.read_text(encoding="utf-8")
        assert not any(word in text for word in ("://", "--index", "--find-links", "/tmp", "/home", "/root")), path
        pins = [line for line in text.splitlines() if "==" in line and not line.startswith((" ", "#"))]
        assert len(pins) > 3 and text.count("--hash=sha256:") >= len(pins), path


def test_every_dependency_is_locked() -> None:
    """A dependency added to pyproject.toml without `make lock` is found here, not on a user's machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for lock, wanted in (
        ("requirements.lock", project["dependencies"] + extras["postgres"]),
        ("requirements-dev.lock", project["dependencies"] + extras["postgres"] + extras["dev"]),
    ):
        locked = (ROOT / lock).read_text(encoding="utf-8").lower()
        names = {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", line, maxsplit=1)[0]).lower() for line in wanted}
        assert {name for name in names if f"\n{name}==" not in locked} == set(), lock
