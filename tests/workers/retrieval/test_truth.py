"""Archives of all kinds, made up: what is called proven is here, and what is here is called proven where nobody lies.

`TRUTH_EXAMPLES` is how many archives are made up, other ones each time; without it the same two hundred.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.fabled_archive import FOREVER, Fable, FabledArchive, FabledSite, Image

GIVEN = os.environ.get("TRUTH_EXAMPLES")
EXAMPLES = int(GIVEN or "200")
pytestmark = pytest.mark.timeout(max(300, 5 * EXAMPLES))
_MANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not GIVEN,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_FEWER = settings(_MANY, max_examples=max(1, EXAMPLES // 4))
_FEW = settings(_MANY, max_examples=max(1, EXAMPLES // 16))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FabledSite]:
    with pytest.MonkeyPatch.context() as patch:
        made = FabledSite(tmp_path_factory.mktemp("fables"), patch)
        yield made
        made.close()


def images(**more: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[Image, ...]]:
    """One to six instances in up to three series, as `more` says of each."""
    one = st.builds(Image, series=st.integers(0, 2), **more)
    return st.lists(one, min_size=1, max_size=6).map(tuple)


# What comes truncated twice is so at the archive, and counts; here it is what lay here before, and never the archive's.
SPOILT = ("pixels:", "unreadable:", "uid differs:", "damaged:", "no study")
HABITS: dict[str, st.SearchStrategy[object]] = {
    "fails": st.sampled_from([0, 0, 1]),
    "twice": st.booleans(),
    "here": st.booleans(),
    "gone": st.booleans(),
    "flawed": st.sampled_from([None, None, "truncated:", *SPOILT]),
    "astray": st.sampled_from([None, "series", "study", "other"]),
    "spoiled": st.sampled_from([0, 0, 1]),
}
VICES = HABITS | {
    "listed": st.booleans(),
    "silent": st.booleans(),
    "fails": st.sampled_from([0, 0, 0, 1, FOREVER, FOREVER]),
    "appears": st.sampled_from([0, 0, 0, 1, 2]),
    "vanishes": st.sampled_from([0, 0, 0, 1, 2, 3]),
    "spoiled": st.sampled_from([0, 0, 0, 1, FOREVER]),
}


@st.composite
def fables(
    draw: st.DrawFn, /, manners: dict[str, st.SearchStrategy[object]], **speech: st.SearchStrategy[object]
) -> Fable:
    """An archive with some of these manners: of one that has them all hardly anything would ever be proven."""
    some = draw(st.sets(st.sampled_from(sorted(manners)), max_size=4))
    shown = {name: manners[name] for name in sorted(some)}
    shown |= {"manner": st.sampled_from(["refused", "lost"]), "with_flaw": st.sampled_from(SPOILT)}
    held = draw(images(**shown))
    if "listed" in manners and draw(st.booleans()):
        # Without it hardly any would hide what an answer alone tells of.
        hidden = shown | {"listed": st.just(False), "fails": st.sampled_from([0, FOREVER])}
        held += (draw(st.builds(Image, series=st.integers(0, 2), **hidden)),)
    said = {name: draw(one) for name, one in speech.items()} | {"seconds": draw(st.sampled_from([1, 1, 61]))}
    return Fable(images=held, names_failed=draw(st.booleans()), counted=draw(st.booleans()), **said)  # type: ignore[arg-type]


NUMBERS = st.sampled_from(["right", "low", "high", "as listed", "as listed", None, None])
LYING = fables(VICES, study_number=NUMBERS, series_number=NUMBERS, cap=st.sampled_from([None] * 9 + [1, 2, 3]))
TRUE_NUMBERS = st.sampled_from(["right", "low", None])
HONEST = fables(HABITS, study_number=TRUE_NUMBERS, series_number=TRUE_NUMBERS)
SILENT = st.builds(
    Fable,
    images=st.lists(
        st.one_of(
            st.builds(Image, series=st.integers(0, 2)),
            st.builds(Image, series=st.integers(0, 2), listed=st.just(False), silent=st.just(True)),
        ),
        min_size=1,
        max_size=6,
    ).map(lambda found: (Image(series=0), *found)),
    study_number=st.none(),
    series_number=st.none(),
)


@_MANY
@given(fable=LYING)
def test_what_is_proven_is_here(site: FabledSite, fable: Fable) -> None:
    """`uids` only if each instance that the archive held when it was listed, and gave any sign of, lies here with its
    bytes. A sign is a place in a list, a number above the list, or a sub-operation that an answer counts or names.
    """
    archive, job, request = site.retrieve(fable)
    if job["verified"] != "uids" or job["state"] != "succeeded":
        return
    held = archive.at(datetime.fromisoformat(str(request["listed_at"])))
    missing = {place for place in held if not site.has(archive, place)}
    told = {place for place in missing if fable.images[place].listed and fable.cap is None}
    assert not told, f"listed, and not here: {sorted(map(archive.uid, told))}"
    assert not missing & _counted(archive), "an answer told of it"
    assert not (missing and _says_more(archive, held)), "a number told of it"


def _counted(archive: FabledArchive) -> set[int]:
    """What a sub-operation was for that an answer counts or names."""
    fable = archive.fable
    if fable.counted:
        return archive.attempted
    return {
        place
        for place in archive.attempted
        if fable.names_failed
        and fable.images[place].manner == "refused"
        and fable.images[place].fails
        # Of one that is not listed its UID alone is told, and a file of the study with that UID is here.
        and not (fable.images[place].astray == "series" and not fable.images[place].listed)
    }


def _says_more(archive: FabledArchive, held: frozenset[int]) -> bool:
    """Whether a number of the study or of one of its series is above what is listed of it."""
    fable = archive.fable
    for how, groups in (
        (fable.study_number, [set(held)]),
        (
            fable.series_number,
            [{place for place in held if fable.images[place].series == number} for number in range(3)],
        ),
    ):
        for group in groups:
            # Images are asked for series by series, so a cap cuts each of these lists.
            of_series = Counter(fable.images[place].series for place in group if fable.images[place].listed)
            listed = sum(number if fable.cap is None else min(number, fable.cap) for number in of_series.values())
            number = archive._number(how, sorted(group))
            if group and number is not None and int(number) > listed:
                return True
    return False


@_FEWER
@given(fable=HONEST)
def test_where_nobody_lies_all_is_proven(site: FabledSite, fable: Fable) -> None:
    """All is listed, every number is right, low or not said, and what fails at first comes: never less than `uids`."""
    archive, job, _ = site.retrieve(fable)
    assert (job["state"], job["verified"], job["reason"]) == ("succeeded", "uids", None), site.inline.events(job["id"])
    assert all(site.has(archive, place) for place in range(len(fable.images)))


@_FEWER
@given(fable=SILENT)
def test_what_hides_without_any_sign_is_not_known(site: FabledSite, fable: Fable) -> None:
    """No list, number or answer tells of it: proven, and said to be so by its list alone; where a series lists nothing,
    by nothing at all.
    """
    archive, job, _ = site.retrieve(fable)
    assert job["state"] == "succeeded"
    assert job["basis"] == "list" or job["verified"] != "uids"
    assert all(site.has(archive, place) for place, one in enumerate(fable.images) if one.listed)


LISTS = st.sampled_from(["taken", "taken", "refused", "first"])


@_FEW
@given(fable=LYING, lists=LISTS)
def test_of_images_asked_for_together_each_that_is_proven_is_here(site: FabledSite, fable: Fable, lists: str) -> None:
    """A request for each image, which share what is asked on the wire: `uids` only where that one lies here."""
    archive, job, requests = site.retrieve_each(replace(fable, lists=lists))
    for place, request in enumerate(requests):
        if (request["state"], request["verified"]) == ("succeeded", "uids"):
            assert site.has(archive, place), site.inline.events(job["id"])


@_FEW
@given(fable=HONEST, lists=LISTS)
def test_of_images_asked_for_together_all_are_proven(site: FabledSite, fable: Fable, lists: str) -> None:
    """Where nobody lies and what fails at first comes, every row is proven, whether the archive takes lists or not."""
    archive, job, requests = site.retrieve_each(replace(fable, lists=lists))
    told = {(request["state"], request["verified"]) for request in requests}
    assert told == {("succeeded", "uids")}, site.inline.events(job["id"])
    assert all(site.has(archive, place) for place in range(len(fable.images)))


@pytest.mark.parametrize("manner", ["refused", "lost"])
@pytest.mark.parametrize("astray", ["series", "other", None])
def test_what_lay_here_before_is_not_what_an_answer_tells_of(site: FabledSite, manner: str, astray: str | None) -> None:
    """One is listed and two are sent, of which one fails for good. A file of the study that lay here before, and that
    nobody lists or sent, does not stand for it.
    """
    hidden = Image(series=0, listed=False, fails=FOREVER, manner=manner)
    fable = Fable(
        images=(Image(series=0, astray=astray), hidden), study_number=None, series_number=None, names_failed=False
    )
    archive, job, _ = site.retrieve(fable)
    assert not site.has(archive, 1)
    assert (job["state"], job["verified"], job["reason"]) == ("incomplete", "counts", "listing not whole")


def test_what_lay_here_before_and_comes_again_is_what_an_answer_tells_of(site: FabledSite) -> None:
    """The archive lists one of two and sends both; the other one lay here and has come once more."""
    hidden = Image(series=0, listed=False, here=True)
    archive, job, _ = site.retrieve(Fable(images=(Image(series=0), hidden), study_number=None, series_number=None))
    assert all(site.has(archive, place) for place in range(2))
    assert (job["state"], job["verified"], job["reason"]) == ("succeeded", "uids", None)


@pytest.mark.parametrize("rest", [{}, {"gone": True}, {"flawed": "pixels:"}, {"astray": "study"}, {"here": True}])
def test_what_is_named_as_failed_is_known_once_it_was_seen_here(site: FabledSite, rest: dict[str, Any]) -> None:
    """The archive lists one and names another that it cannot send. It is here if a sound file of it is, of its study
    and on disk: no row alone, no flawed file, none of another study.
    """
    hidden = Image(series=0, listed=False, fails=FOREVER, **rest)
    fable = Fable(images=(Image(series=0), hidden), study_number=None, series_number=None, counted=False)
    archive, job, _ = site.retrieve(fable)
    if site.has(archive, 1):
        assert (job["state"], job["verified"], job["reason"]) == ("succeeded", "uids", None)
    else:
        assert (job["state"], job["verified"], job["reason"]) == ("incomplete", "counts", "listing not whole")


@pytest.mark.parametrize(("spoiled", "end"), [(1, ("succeeded", "uids")), (FOREVER, ("incomplete", "counts"))])
def test_what_comes_flawed_is_not_what_an_answer_tells_of(site: FabledSite, spoiled: int, end: tuple[str, str]) -> None:
    """One that nobody lists comes with a flaw: the answer tells of more than is here, until it comes well."""
    hidden = Image(series=0, listed=False, spoiled=spoiled)
    fable = Fable(images=(Image(series=0), hidden), study_number=None, series_number=None)
    archive, job, _ = site.retrieve(fable)
    assert site.has(archive, 1) == (spoiled == 1)
    assert (job["state"], job["verified"]) == end


@pytest.mark.parametrize("counted", [True, False])
def test_a_proof_names_a_moment_after_the_answer_that_it_rests_on(site: FabledSite, counted: bool) -> None:
    """The first answer tells of one that nobody lists and that fails, the second one, to the request that follows a new
    list, does not: it may have gone between the two, so a list from before proves nothing.
    """
    hidden = Image(series=0, listed=False, fails=FOREVER, vanishes=2)
    fable = Fable(images=(Image(series=0), hidden), study_number=None, series_number=None, counted=counted)
    archive, job, request = site.retrieve(fable)
    assert (job["state"], job["verified"]) == ("succeeded", "uids")
    assert archive.requests == 2
    assert archive.at(datetime.fromisoformat(str(request["listed_at"]))) == {0}


@pytest.mark.parametrize(("counted", "seconds"), [(True, 1), (False, 61)])
def test_what_has_appeared_meanwhile_is_listed_at_once(site: FabledSite, counted: bool, seconds: float) -> None:
    """An answer tells of one more than was listed, or the list is older than `settle`: the archive is asked for it anew
    in the same attempt, though its number is as before; and only where it is no longer, again after `settle`.
    """
    gone = Image(series=0, listed=False, silent=True, vanishes=1)
    late = Image(series=0, appears=1, fails=1, manner="lost")
    fable = Fable(images=(Image(series=0), gone, late), series_number=None, counted=counted, seconds=seconds)
    archive, job, _ = site.retrieve(fable)
    assert (job["state"], job["verified"]) == ("succeeded", "uids")
    assert site.has(archive, 2)
    assert len(site.inline.attempts(job["id"])) == 1
