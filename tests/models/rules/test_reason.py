"""The words that say why, and the table of answers."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomferry.models.rules.answers import connections, reasons, statuses
from dicomferry.models.rules.reason import Reason

ROOT = Path(__file__).parents[3]
PEERS = {row.answer.reason for rows in statuses.SERVICES.values() for row in rows}
WITHOUT_ROW = {Reason.WINDOW, Reason.LIMIT}
"""Why a remote is left alone for a while by what was asked of us: nobody answered anything."""


def test_every_reason_has_its_row_in_the_table_of_answers() -> None:
    """Whoever meets a word can look it up: what it means, and what to do about it."""
    ours = {*reasons.REASONS, *(answer.reason for answer in connections.CONNECTIONS.values())}
    assert {*Reason} - WITHOUT_ROW <= ours | PEERS
    assert {word for word in ours if word is not None} <= {*Reason}
    assert all(row.reason == word and row.advice for word, row in reasons.REASONS.items())


def test_a_reason_is_its_word_wherever_it_is_written() -> None:
    """On record, in JSON, in a sentence and in a log stands the word itself."""
    word = Reason.NOT_DICOM
    assert (str(word), f"{word}", repr(word), word) == ("not DICOM", "not DICOM", "'not DICOM'", "not DICOM")


def _given(node: ast.AST) -> list[ast.expr]:
    """What is handed on as a reason here, or what a reason is compared with."""
    match node:
        case ast.keyword(arg="reason", value=value):
            return [value]
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return [value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "reason"]
        case ast.Compare(left=ast.Attribute(attr="reason"), comparators=others):
            return [one for other in others for one in (other.elts if isinstance(other, ast.Tuple) else [other])]
        case ast.Assign(targets=[ast.Name(id="reason")], value=value):
            return [value]
    return []


def _spelt_out(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        for one in _given(node):
            for side in (one.body, one.orelse) if isinstance(one, ast.IfExp) else (one,):
                if isinstance(side, ast.Constant) and isinstance(side.value, str):
                    yield side.value


@pytest.mark.parametrize("folder", ["models", "workers", "daemon"])
def test_no_reason_is_spelt_out(folder: str) -> None:
    """A word that is mistyped is found by the type checker: code names a member of Reason, never the string."""
    paths = (path for path in (ROOT / folder).rglob("*.py") if not {"migrations", "answers"} & {*path.parts})
    spelt = {(str(path.relative_to(ROOT)), word) for path in paths for word in _spelt_out(path)}
    # A mark on a request that is put otherwise from then on, which is no ending.
    assert {(path, word) for path, word in spelt if word != "refused"} == set()
