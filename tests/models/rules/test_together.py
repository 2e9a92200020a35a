"""Which requests of a list are asked for together."""

from __future__ import annotations

import pytest

from dicomferry.models.rules import together
from dicomferry.models.rules.spec import GetSpec, Identifier, MoveSpec, Retrieve
from dicomferry.models.rules.target import Target

STUDY, SERIES, IMAGE, PATIENT = "0020000D", "0020000E", "00080018", "00100020"
MOVE = MoveSpec(identifiers=(), level="image")


def image(row: int, series: str, *uids: str, study: str = "1", patient: str | None = None) -> Identifier:
    keys = [(STUDY, study), (SERIES, series), (IMAGE, "\\".join(uids))]
    return row, tuple([(PATIENT, patient), *keys] if patient else keys)


def rows(identifiers: list[Identifier], what: Retrieve = MOVE, most: int = 4) -> list[list[int | None]]:
    return [[row for row, _ in part] for part in together.chunks(identifiers, what, most)]


def test_images_are_asked_for_together_series_by_series() -> None:
    """Requests for single images share a chunk until it is full; those of a series stand beside each other."""
    asked = [image(number, "1.1" if number % 2 else "1.2", f"1.{number}") for number in range(6)]
    assert rows(asked) == [[0, 2, 4, 1], [3, 5]]
    assert rows(asked, GetSpec(identifiers=(), level="image")) == [[0, 2, 4, 1], [3, 5]]
    assert rows(asked, most=100) == [[0, 2, 4, 1, 3, 5]]


def test_a_list_counts_by_its_images_and_a_long_one_is_alone() -> None:
    """A request that names several images counts as many; one that names more than fit is a chunk by itself."""
    long = image(1, "1.1", *(f"3.{number}" for number in range(5)))
    assert rows([image(0, "1.1", "1.1", "1.2"), long, image(2, "1.1", "2.1", "2.2", "2.3")]) == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (image(1, "1.1", "1.1"), "an image that another request names"),
        ((1, ((STUDY, "1"), (IMAGE, "9"))), "no series: it has to be looked up"),
        ((1, ((STUDY, "1"), (SERIES, "1.1"), (IMAGE, "9*"))), "a wildcard"),
        (image(1, "1.1", "9", patient="P"), "in Study Root a Patient ID has to be looked up"),
        (image(1, "1.1", "9" * 200), "a UID that is not kept as it is"),
    ],
)
def test_what_has_to_be_looked_at_by_itself_is_alone(one: Identifier, why: str) -> None:
    """Requests share a chunk only where unique keys alone name their images, and tell them apart."""
    assert rows([image(0, "1.1", "1.1"), one, image(2, "1.1", "1.2")]) == [[0, 2], [1]], why


def test_patient_root_keeps_the_patient() -> None:
    """In Patient Root the patient is a key above: one who is called otherwise for the same study is asked for alone."""
    patient_root = MoveSpec(identifiers=(), level="image", root="patient")
    asked = [image(0, "1.1", "1", patient="P"), image(1, "1.1", "2", patient="P"), image(2, "1.1", "3", patient="Q")]
    assert rows(asked, patient_root) == [[0, 1], [2]]


def test_other_levels_and_what_goes_elsewhere_stay_alone() -> None:
    """Studies and series have a chunk each; so has what goes to somebody else, where numbers alone tell what went."""
    studies: list[Identifier] = [(number, ((STUDY, f"1.{number}"),)) for number in range(2)]
    assert rows(studies, MoveSpec(identifiers=())) == [[0], [1]]
    asked = [image(number, "1.1", f"1.{number}") for number in range(2)]
    assert rows(asked, MoveSpec(identifiers=(), level="image", destination="OTHER")) == [[0], [1]]


def test_targets_of_a_series_are_one_target() -> None:
    """Images of a series are named together, with the numbers of all; series stay apart."""
    one = Target(study="1", series="1.1", images=("1",), count=1, listed=1, depth="images")
    other = Target(study="1", series="1.1", images=("2", "1"), count=2, listed=1, depth="images")
    (both, apart) = together.merged([one, other, Target(study="1", series="1.2", images=("5",))])
    assert both == Target(study="1", series="1.1", images=("1", "2"), count=3, listed=2, depth="images")
    assert apart.images == ("5",)
