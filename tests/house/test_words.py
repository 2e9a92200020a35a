"""One word for one thing: a name that several classes share says nothing to who meets it."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("models", "workers", "daemon", "cli")

SHARED = {
    # Each module that has bounds or pauses to be handed in has them in a value of this name.
    "Tuning",
    # Of a job on a screen, of a mode of scu, of an attempt at a retrieve.
    "Progress",
    # An instance that an archive lists, and a retrieve whose instances are listed.
    "Listed",
}
"""Names that several classes have, each with what the classes have in common."""


def test_a_class_has_a_name_of_its_own() -> None:
    """No two classes of the product have one name, whatever folders they are in; private ones do not count."""
    where: dict[str, list[str]] = defaultdict(list)
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.parse(path.read_bytes()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    where[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in where.items() if len(paths) > 1 and name not in SHARED} == {}
