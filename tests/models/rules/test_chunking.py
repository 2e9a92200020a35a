"""Where a plan begins a new chunk: enough of them for all associations, and a study on one of them."""

from __future__ import annotations

import random

import pytest

from dicomferry.models.rules.chunking import LEAST, borders, bound, open_tail

MOST = 500


def lengths(studies: list[str | None], *, most_of_several: int) -> list[int]:
    """How many items each chunk has."""
    cuts = sorted(borders(studies, bound=most_of_several, most=MOST))
    return [after - before for before, after in zip([0, *cuts], [*cuts, len(studies)], strict=True)]


@pytest.mark.parametrize(
    ("coming", "planned", "associations", "is_last", "found"),
    [
        (1000, 0, 4, False, 250),
        (1000, 1000, 4, False, 500),
        (1000, 9000, 4, False, 500),
        (973, 9000, 4, True, 244),
        (32, 0, 4, True, 8),
        (3, 0, 4, True, LEAST),
        (1000, 0, 1, True, 500),
        (2003, 0, 8, True, 251),
    ],
)
def test_the_share_of_an_association(coming: int, planned: int, associations: int, is_last: bool, found: int) -> None:
    """The first files are shared out among all associations, later chunks are large, the last ones shared out again."""
    assert bound(coming, planned=planned, associations=associations, most=MOST, is_last=is_last) == found


def test_each_study_has_a_chunk() -> None:
    """Eight studies of 250 images to a remote with eight associations are eight chunks."""
    studies: list[str | None] = [f"study {index // 250}" for index in range(2000)]
    assert lengths(studies, most_of_several=250) == [250] * 8


def test_small_studies_share_a_chunk() -> None:
    """Whole studies are put together up to an association's share, and none is cut for it."""
    studies: list[str | None] = [f"study {index // 30}" for index in range(300)]
    assert lengths(studies, most_of_several=75) == [60] * 5


def test_a_study_with_more_than_its_share_is_whole() -> None:
    """A study of 400 images stays in one chunk, however many associations are free, and nothing joins it."""
    studies: list[str | None] = ["before", *["large"] * 400, "behind"]
    assert lengths(studies, most_of_several=50) == [1, 400, 1]


def test_a_study_that_fits_no_chunk_is_cut_evenly() -> None:
    """501 images are 250 and 251, not 500 and one."""
    assert lengths(["large"] * 501, most_of_several=125) == [250, 251]


def test_files_of_no_known_study_keep_nobody_together() -> None:
    """Where no study is known, each file is on its own, and they share a chunk up to an association's share."""
    assert lengths([None] * 100, most_of_several=25) == [25] * 4


def test_what_may_go_on_is_left_for_later() -> None:
    """Items at the end that are of one study are kept back, unless nothing would be left or a chunk is full of them."""
    assert open_tail(["a", "a", "b"], most=MOST) == 1
    assert open_tail(["b", "b"], most=MOST) == 0
    assert open_tail(["a", *["b"] * MOST], most=MOST) == 0
    assert open_tail(["a", None], most=MOST) == 0
    assert open_tail([], most=MOST) == 0


def test_any_studies() -> None:
    """No study that fits a chunk is ever in two, and no chunk is larger than one may be."""
    chance = random.Random(20)
    for _ in range(200):
        sizes = [chance.choice((1, 2, 7, 40, 260, 499, 500)) for _ in range(chance.randint(1, 12))]
        studies: list[str | None] = [f"study {number}" for number, size in enumerate(sizes) for _ in range(size)]
        share = chance.randint(1, MOST)
        cuts = borders(studies, bound=share, most=MOST)
        assert all(studies[cut - 1] != studies[cut] for cut in cuts)
        assert max(lengths(studies, most_of_several=share)) <= MOST
