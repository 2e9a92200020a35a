"""The pages (README, docs) against the tree: what they link to and the files that they name exist."""

import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])

_LINK = re.compile(r"\]\((?!\w+://|#)([^)#\s]+)(#[^)\s]*)?\)")
_PATH = re.compile(r"(?<![\w/.-])((?:tests|benchmarks|docs|models|workers|daemon|cli)/[\w./-]*\w)(?![\w*/{])")
_FOLDERS = {"models", "workers", "daemon", "cli"}


def _exists(name: str) -> bool:
    """Whether a file or a folder is there; models/rules/proof is short for models/dicomferry/models/rules/proof.py."""
    top, _, rest = name.partition("/")
    roots = [ROOT / name]
    if top in _FOLDERS:
        roots.append(ROOT / top / "dicomferry" / top / rest)
    return any(path.exists() or path.with_name(path.name + ".py").exists() for path in roots)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A link inside the project leads to a file of the project."""
    text = page.read_text(encoding="utf-8")
    assert [target for target, _ in _LINK.findall(text) if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    """A path is written so that it can be opened: what was moved is named by its new place."""
    text = page.read_text(encoding="utf-8").replace("\\_", "_")
    assert sorted({name for name in _PATH.findall(text) if not _exists(name)}) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    """A test file that is named without its folder, beside another one, is somewhere among the tests."""
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert sorted(set(re.findall(r"`(test_\w+\.py)`", page.read_text(encoding="utf-8"))) - there) == []


def _resolves(name: str) -> bool:
    """Whether a dotted name is a module of the project, or a name that a module of it has."""
    for parts in range(len(name.split(".")), 2, -1):
        module, rest = ".".join(name.split(".")[:parts]), name.split(".")[parts:]
        try:
            found: object = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        for part in rest:
            found = getattr(found, part, None)
        return found is not None
    return False


def test_what_was_moved_is_where_the_table_says() -> None:
    """docs/moved.tsv has one line for each old name, and its new one can be imported."""
    [head, *lines] = (ROOT / "docs" / "moved.tsv").read_text(encoding="utf-8").splitlines()
    assert head == "old\tnew"
    pairs = [line.split("\t") for line in lines]
    assert [old for old, times in Counter(old for old, _ in pairs).items() if times > 1] == []
    assert [new for _, new in pairs if not _resolves(new)] == []
