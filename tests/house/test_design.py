"""Section 2 of docs/design.md ("The house") against the tree: a reader who looks for a module finds it there."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("models", "workers", "daemon", "cli")

_SECTION = re.compile(r"^## 2\. .*?(?=^## 3\. )", re.M | re.S)
_WING = re.compile(r"^- \*\*(?P<wing>[\w/]+)/\*\* (?P<text>.*(?:\n  .*)*)", re.M)
_NAME = re.compile(r"`(\w+)`")


def _named() -> Counter[str]:
    """Each module as `wing/module`, with how often the section names it.

    A wing is an item of a list: its folder in bold, then text. A word between backticks there, outside of brackets,
    is a module of that folder; inside of brackets stands what the module is for.
    """
    [section] = _SECTION.findall((ROOT / "docs" / "design.md").read_text(encoding="utf-8"))
    return Counter(
        f"{found['wing']}/{name}"
        for found in _WING.finditer(section)
        for name in _NAME.findall(re.sub(r"\([^()]*\)", "", found["text"]))
    )


def _modules() -> set[str]:
    """Each module of the tree as `wing/module`; a migration is a step and no module that somebody looks for."""
    return {
        str(path.relative_to(ROOT / folder / "dicomferry").with_suffix(""))
        for folder in FOLDERS
        for path in (ROOT / folder / "dicomferry").rglob("*.py")
        if path.name != "__init__.py" and path.parent.name != "versions"
    }


def test_each_module_is_named_in_its_wing() -> None:
    """A module without words in the design has no place there: whoever adds it says what it is for."""
    assert sorted(_modules() - set(_named())) == []


def test_no_module_is_named_that_does_not_exist() -> None:
    """What was moved, renamed or removed is not looked for in vain."""
    assert sorted(set(_named()) - _modules()) == []


def test_each_module_is_named_once() -> None:
    """One place says what a module is for."""
    assert [name for name, times in _named().items() if times > 1] == []
