"""The heads of files that are alike are compared, all others walked over, and both ways tell the same."""

from __future__ import annotations

import pytest

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.workers.dimse.heads import Begin, Heads
from dicomferry.workers.files import part10
from support.part10_bytes import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, MR, element, elements, meta, uid
from support.part10_bytes import part10 as file_of

UIDS = ("1.2.31", "1.2.32", "1.2.33")


def image(instance: str, *, ahead: bytes = b"", syntax: str = EXPLICIT_LE, named: str | None = None) -> bytes:
    """An image, whose data set begins with `ahead`; its meta group names the same instance, or `named`."""
    group = meta(syntax, instance=named or instance)
    return b"\0" * 128 + b"DICM" + group + ahead + b"".join(elements(instance=instance))


def made_at(time: bytes) -> bytes:
    """Instance Creation Time."""
    return element(0x00080013, "TM", time)


def both(first: bytes, instance: str, heads: Heads) -> Begin | None:
    """What `heads` say of it, which is what a fresh look says."""
    told = heads.begin(first, EXPLICIT_LE, MR, instance)
    assert told == Heads().begin(first, EXPLICIT_LE, MR, instance)
    return told


def test_images_of_a_series() -> None:
    """Each begins where the first one does."""
    heads = Heads()
    begins = [both(image(instance), instance, heads) for instance in UIDS]
    assert begins[0] is not None
    assert begins == [begins[0]] * 3


@pytest.mark.parametrize(
    "other",
    [
        image("1.2.32", ahead=made_at(b"235959")),
        image("1.2.32", ahead=made_at(b"235959.5")),
        image("1.2.32", syntax=IMPLICIT_LE),
        image("1.2.39"),
        image("1.2.32")[:300],
        image("1.2.32")[:140],
        image("1.2.321"),
        b"",
    ],
)
@pytest.mark.parametrize("instance", ["1.2.32", "1.2.321"])
def test_another_head_after_one_that_was_seen(other: bytes, instance: str) -> None:
    """Another time of creation, syntax, length of UID, instance, or an end too early: told as on a first look."""
    heads = Heads()
    assert both(image("1.2.31", ahead=made_at(b"101112")), "1.2.31", heads) is not None
    both(other, instance, heads)
    both(image("1.2.33"), "1.2.33", heads)


def test_one_of_the_two_uids_is_another() -> None:
    """Where the data set holds another instance it is not the planned one; where the meta group does, that is told."""
    heads = Heads()
    assert both(image("1.2.31"), "1.2.31", heads) is not None
    assert both(image("1.2.39", named="1.2.32"), "1.2.32", heads) is None
    told = both(image("1.2.32", named="1.2.39"), "1.2.32", heads)
    assert told is not None
    assert "1.2.39" in str(told.meta_differs)


def test_a_transfer_syntax_that_is_not_the_planned_one() -> None:
    """What the meta group names now decides, so the file is read anew."""
    assert Heads().begin(image("1.2.31"), IMPLICIT_LE, MR, "1.2.31") is None


def test_the_uid_of_another_element_is_none_of_the_instance() -> None:
    """The instance's UID in an element before (0008,0018), here as the one that created it, is no sign of it."""

    def made(creator: str, instance: str) -> bytes:
        ahead = element(0x00080014, "UI", uid(creator))
        return image(instance, ahead=ahead, named="1.2.32" if creator == "1.2.32" else None)

    heads = Heads()
    assert both(made("1.2.31", "1.2.31"), "1.2.31", heads) is not None
    assert both(made("1.2.32", "1.2.32"), "1.2.32", heads) is not None
    assert both(made("1.2.32", "1.2.39"), "1.2.32", heads) is None


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE])
def test_each_encoding(syntax: str) -> None:
    """Whatever the encoding: twice the same file is told twice the same."""
    heads, content = Heads(), file_of(syntax)
    told = heads.begin(content, syntax, MR, "1.2.3")
    assert told is not None
    assert told.offset == 132 + len(meta(syntax))
    assert heads.begin(content, syntax, MR, "1.2.3") == told


def told(first: bytes, heads: Heads) -> part10.Header | str:
    """The header as `heads` read it, without what only a walk tells; or the reason why there is none."""
    try:
        return heads.header(b"/nowhere", first)._replace(study_instance_uid=None, series_instance_uid=None)
    except UnusableFile as error:
        return str(error.reason)


OTHERS = [
    image("1.2.32"),
    image("1.2.3."),
    image("1.2.32", ahead=made_at(b"235959")),
    image("1.2.32", syntax=IMPLICIT_LE),
    image("1.2.32", syntax=EXPLICIT_BE),
    image("1.2.321"),
    image("1.2.32", named="1.2.39"),
    image("1.2.3 "),
    image("1.2./3"),
    image("......"),
    b"\0" * 128 + b"DICK" + image("1.2.32")[132:],
    image("1.2.32")[132:],
    b"text, and no image at all" * 20,
]


@pytest.mark.parametrize("other", OTHERS)
def test_a_header_read_after_another_is_what_a_fresh_look_reads(other: bytes) -> None:
    """Class, instance, syntax and where the data set begins, or why it cannot be sent; the next one is read well."""
    heads = Heads()
    for first in (image("1.2.31"), other, image("1.2.33"), other):
        assert told(first, heads) == told(first, Heads())


def test_only_what_is_known_is_passed_over() -> None:
    """Of images that are alike the first alone is walked over for study and series; one that differs is again."""
    heads = Heads()
    headers = [heads.header(b"/nowhere", image(instance)) for instance in UIDS]
    assert [header.study_instance_uid is not None for header in headers] == [True, False, False]
    assert heads.header(b"/nowhere", image("1.2.3456")).study_instance_uid is not None
