"""docs/moved.tsv says where modules and public names of earlier versions are now, for scripts that use them."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "moved.tsv"


def _is_there(name: str) -> bool:
    """Whether it is a module, or a name in one, or one in a class."""
    parts = name.split(".")
    for end in range(len(parts), 2, -1):
        try:
            found = find_spec(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        if found is not None:
            value: object = import_module(".".join(parts[:end]))
            return all((value := getattr(value, part, None)) is not None for part in parts[end:])
    return False


def test_each_new_place_is_there() -> None:
    """One line an old name, sorted, and it leads somewhere."""
    heading, *lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert heading == "old\tnew"
    pairs = [tuple(line.split("\t")) for line in lines]
    assert [old for old, _ in pairs] == sorted({old for old, _ in pairs})
    assert [new for _, new in pairs if not _is_there(new)] == []
