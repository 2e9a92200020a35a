"""What proves a retrieve: numbers held against lists, answers against arrivals, and what each sign of more means."""

from __future__ import annotations

import pytest

from dicomferry.models.rules import proof
from dicomferry.models.rules.proof import Basis, Depth, Facts, Finding, Part, PartSeen, Verified, Way
from dicomferry.models.rules.query import Level

STUDY, A, B = "1.2.3", "1.2.3.1", "1.2.3.2"


def study(listed: int, said: int | None, **seen: int) -> PartSeen:
    return PartSeen(Part(STUDY, None, said, listed), **seen)


def judge(*targets: PartSeen, **more: object) -> Finding:
    return proof.judge(Facts(targets=targets, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("listed", "said", "refused", "mute", "depth"),
    [
        (5, 5, False, False, Depth.IMAGES),
        (5, None, False, False, Depth.IMAGES),
        (5, 12, False, False, Depth.IMAGES),
        (5, 3, False, False, Depth.IMAGES),
        (0, 0, False, False, Depth.IMAGES),
        (0, None, False, False, Depth.UNKNOWN),
        (0, 7, False, False, Depth.COUNTS),
        (5, None, False, True, Depth.UNKNOWN),
        (5, 5, False, True, Depth.IMAGES),
        (5, 7, False, True, Depth.COUNTS),
        (5, 7, True, False, Depth.COUNTS),
        (5, None, True, False, Depth.UNKNOWN),
    ],
)
def test_how_far_an_entity_was_listed(listed: int, said: int | None, refused: bool, mute: bool, depth: Depth) -> None:
    """Nothing below and no number is unknown; empty is only what the archive says is 0, or lists no match for."""
    assert proof.depth_of(listed=listed, said=said, refused=refused, mute=mute) is depth


def test_a_list_that_its_number_confirms_is_proven() -> None:
    """As many listed as said, all here: `uids`, and nothing is wanting."""
    found = judge(study(12, 12))
    assert (found.word, found.basis, found.wanting, found.short) == (Verified.UIDS, Basis.NUMBER, None, ())


def test_what_a_later_answer_is_silent_of_is_no_proof_by_an_older_list() -> None:
    """It may have been there when the list was made. Nothing is wanting: a newer list may prove it."""
    found = judge(study(5, 5), is_outlived=True)
    assert (found.word, found.wanting, found.is_outlived) == (Verified.COUNTS, None, True)


def test_more_said_than_listed_is_not_whole() -> None:
    """It says how many are listed, how many are here, what the archive says, and what to do; never `uids`."""
    found = judge(study(900, 903))
    assert (found.word, found.wanting) == (Verified.COUNTS, proof.NOT_WHOLE)
    assert found.detail == (
        "900 of 900 listed are here, the archive says 903: hidden or rejected objects, or a stale count; ask its "
        "administrator"
    )
    assert found.short == (Part(STUDY, None, 903, 900),)
    assert "897 of 900 listed are here" in (judge(study(900, 903, missing=3)).detail or "")


def test_as_many_here_as_said_is_a_number_and_no_proof() -> None:
    """What nobody listed may be another instance than the one that was meant."""
    found = judge(study(5, 12, others=7, surplus=7))
    assert (found.word, found.wanting, found.short) == (Verified.COUNTS, None, ())
    assert judge(study(5, 12, others=6, surplus=6)).wanting == proof.NOT_WHOLE


def test_a_number_below_the_list_changes_nothing() -> None:
    """It is noted: numbers are stale more often than lists are too long."""
    found = judge(study(12, 10))
    assert (found.word, found.wanting) == (Verified.UIDS, None)
    assert found.notes == (f"the archive says 10 of {STUDY} and lists 12: what it lists is what counts",)


def test_without_a_number_the_list_alone_proves() -> None:
    """Proven, and said to be so by its list alone."""
    assert (judge(study(5, None)).word, judge(study(5, None)).basis) == (Verified.UIDS, Basis.LIST)
    mixed = judge(study(5, None), study(3, 3))
    assert (mixed.word, mixed.basis) == (Verified.UIDS, Basis.LIST)


def test_numbers_that_are_set_aside() -> None:
    """The list is the measure, and it is said; what the archive could not send is no number, and stays a sign."""
    found = judge(study(5, 12, told=9), ignored=True)
    assert (found.word, found.basis, found.wanting) == (Verified.UIDS, Basis.SET_ASIDE, None)
    found = judge(study(5, 12, told=9, refused=2), ignored=True)
    assert (found.word, found.wanting) == (Verified.COUNTS, proof.NOT_WHOLE)


def test_the_series_that_is_short_is_named_and_not_the_study() -> None:
    """The numbers of series bind as well where their study was asked for whole; asked again is the smallest."""
    short = PartSeen(Part(STUDY, B, 7, 4))
    inner = (PartSeen(Part(STUDY, A, 5, 5)), short)
    found = judge(study(9, 12), inner=inner)
    assert found.short == (short.part,)
    assert "9 of 9 listed are here, the archive says 12" in (found.detail or "")
    found = judge(study(9, None), inner=inner)
    assert (found.word, found.wanting) == (Verified.COUNTS, proof.NOT_WHOLE)
    assert "the archive says 12" in (found.detail or "")


def test_failed_sub_operations_that_name_nobody_expected() -> None:
    """What an answer tells of beyond what is listed or came is a sign of more; what came all the same is none."""
    found = judge(study(5, None, told=12, refused=7))
    assert (found.word, found.wanting) == (Verified.COUNTS, proof.NOT_WHOLE)
    assert "tells of 7 more, of which 7 failed" in (found.detail or "")
    assert judge(study(12, None, told=12, refused=3)).word is Verified.UIDS
    assert judge(study(5, None, told=8, others=3, surplus=3)).word is Verified.UIDS
    found = judge(study(5, 5), strangers=2)
    assert (found.word, found.wanting) == (Verified.COUNTS, proof.NOT_WHOLE)
    assert "names 2 more that it could not send" in (found.detail or "")


@pytest.mark.parametrize(
    ("depth", "said", "word"), [(Depth.COUNTS, 7, Verified.COUNTS), (Depth.UNKNOWN, None, Verified.NONE)]
)
def test_less_than_a_list_is_no_proof(depth: Depth, said: int | None, word: Verified) -> None:
    """The least that is known of any target holds for the request."""
    mute = PartSeen(Part("1.2.4", None, said, 0, depth))
    assert (judge(mute).word, judge(study(5, 5), mute).word) == (word, word)


def test_who_believes_proves_nothing() -> None:
    """Elsewhere the archive's word is none; a destination that lists the instances proves them."""
    assert judge(study(5, 5), way=Way.BELIEVED).word is Verified.NONE
    assert judge(study(5, 5), way=Way.SHOWN).word is Verified.UIDS
    assert judge(study(5, 7), way=Way.SHOWN).wanting == proof.NOT_WHOLE


def test_a_cut_list_of_targets_and_matches_without_a_key() -> None:
    """Each keeps `uids` away with a word of its own."""
    capped = judge(study(5, 5), capped=True)
    assert (capped.word, capped.wanting) == (Verified.NONE, proof.TRUNCATED)
    nameless = judge(study(5, 5), nameless=1)
    assert (nameless.word, nameless.wanting) == (Verified.NONE, proof.NO_KEY)
    assert (nameless.detail or "").startswith("1 match without a unique key: it cannot be retrieved")


def test_uids_that_were_asked_for_need_no_number() -> None:
    """The identifier itself says what is to come."""
    assert judge(PartSeen(Part(STUDY, A, None, 2)), by_uid=True).basis is Basis.NUMBER


def test_the_weakest_of_all_stands_for_a_job() -> None:
    """One request that is known by number makes the job known by number; one whose list stands alone says so."""
    assert proof.weakest(["uids", "counts"]) is Verified.COUNTS
    assert proof.weakest(["uids", None]) is Verified.NONE
    assert proof.weakest([]) is Verified.NONE
    assert proof.weakest_basis(["number", "list", None]) is Basis.LIST
    assert proof.weakest_basis([None]) is None
    assert proof.of_store(delivered=3, unverified=False) is Verified.UIDS
    assert (
        proof.of_store(delivered=3, unverified=True) is proof.of_store(delivered=0, unverified=False) is Verified.NONE
    )


PATIENT_ID, STUDY_UID = "00100020", "0020000D"


@pytest.mark.parametrize(
    ("count", "cap", "level", "keys", "confirmed", "capped"),
    [
        (3, 3, Level.STUDY, ((PATIENT_ID, "P"),), False, True),
        (3, 3, Level.STUDY, ((PATIENT_ID, "P"),), True, False),
        (3, 3, Level.SERIES, ((STUDY_UID, "1.2"),), False, False),
        (100, None, Level.STUDY, ((PATIENT_ID, "P"),), False, True),
        (100, None, Level.IMAGE, ((STUDY_UID, "1.2"),), False, False),
        (100, None, Level.STUDY, ((STUDY_UID, "1.2\\1.3"),), False, True),
        (101, None, Level.STUDY, ((PATIENT_ID, "P"),), False, False),
        (100, 500, Level.STUDY, ((PATIENT_ID, "P"),), False, False),
    ],
)
def test_where_a_number_of_answers_counts_as_a_cap(
    count: int, cap: int | None, level: Level, keys: tuple[tuple[str, str], ...], confirmed: bool, capped: bool
) -> None:
    """Only where no unique key names a study or series, and no number of the archive confirms the list."""
    assert proof.is_capped(count, cap, level, keys, confirmed=confirmed) is capped


@pytest.mark.parametrize(
    ("count", "cap", "capped"),
    [
        (100, None, True), (200, None, True), (250, None, True), (500, None, True), (1000, None, True),
        (2500, None, True), (99, None, False), (101, None, False), (300, None, False), (10, None, False),
        (0, None, False), (50, None, False), (100, 150, False), (150, 150, True), (200, 150, True),
    ],
)  # fmt: skip
def test_which_numbers_look_like_a_limit(count: int, cap: int | None, capped: bool) -> None:
    """Those that people configure; where the limit is known, that one and no other."""
    assert proof.looks_capped(count, cap) is capped
