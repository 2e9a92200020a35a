"""What can be asked of the table of answers: every row is found, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomferry.models.rules import retry
from dicomferry.models.rules.answers import connections, explanation, quirks, statuses
from dicomferry.models.rules.answers.answer import Rule
from dicomferry.models.rules.answers.explanation import explain, status_of
from dicomferry.models.rules.errors import NotFound, UsageError
from support import answers_page

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())


@pytest.mark.parametrize("service", statuses.SERVICES)
def test_every_status_of_the_table_is_explained(service: str) -> None:
    """By its number, for its service alone, and among all of them."""
    for row in statuses.SERVICES[service]:
        found = explain(f"0x{row.last:04X}", service=service)
        assert [(one.answer, one.services, one.listed) for one in found] == [(row.answer, (service,), True)]
        among = [one for one in explain(f"{row.last:#06x}") if service in one.services]
        assert [(one.answer.reason, one.listed) for one in among] == [(row.answer.reason, True)]


@pytest.mark.parametrize("key", connections.CONNECTIONS)
def test_every_rejection_abort_time_out_and_socket_error_is_explained(key: str) -> None:
    """By what happened."""
    found = explain(key)
    assert found[0].what == key
    assert found[0].answer == connections.CONNECTIONS[key]
    assert found[0].listed


def test_every_reason_word_is_explained() -> None:
    """In any case of letters; each row with that word, and none with another."""
    for word in explanation.reason_words():
        for text in (word, word.upper(), word.capitalize()):
            assert {one.answer.reason for one in explain(text)} == {word}, text
    assert {one.what for one in explain("unreachable")} == {
        "timeout connect", "connect refused", "connect no route", "connect name", "connect other",
    }  # fmt: skip


@pytest.mark.parametrize("rule", Rule)
def test_what_we_do_can_be_said_of_every_rule(rule: Rule) -> None:
    """A sentence for each, without a number that the rules do not have."""
    assert retry.in_words(rule)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("0xA801", 0xA801), ("0xa801", 0xA801), ("A801", 0xA801), ("fe00", 0xFE00), ("0110", 0x0110), ("0x110", 0x110),
        ("0xC123", 0xC123), ("A7xx", 0xA700), ("0xCxxx", 0xC000), ("Bxxx", 0xB000),
        ("43009", None), ("110", None), ("12", None), ("face to face", None), ("last", None), ("A80", None),
    ],
)  # fmt: skip
def test_what_is_a_status(text: str, status: int | None) -> None:
    """Hexadecimal by its prefix, by a letter among four digits, or by a leading zero; a plain decimal is a job."""
    assert status_of(text) == status


def test_services_that_agree_are_told_of_once() -> None:
    """And those that do not list a status come after those that do."""
    found = explain("0xA801")
    assert [(one.services, one.listed) for one in found] == [
        (("move",), True), (("store", "find", "worklist", "get", "echo"), False),
    ]  # fmt: skip
    (shared,) = (one for one in explain("0xB000") if "move" in one.services)
    assert shared.services == ("move", "get")
    assert shared.answer.clause == "PS3.4 C.4.2.1.5, PS3.4 C.4.3.1.4"


@pytest.mark.parametrize(
    ("text", "words"),
    [("0xA6FF", "service or their software defines"), ("0x01F0", "keeps to itself"), ("0xD123", "gives no meaning")],
)
def test_a_status_that_nobody_lists_is_explained_by_its_class(text: str, words: str) -> None:
    """PS3.7 Annex C: what is not listed is a failure with one retry."""
    (found,) = explain(text, service="store")
    assert (found.listed, found.answer.rule, found.answer.clause) == (False, Rule.AGAIN, "PS3.7 C")
    assert found.answer.advice and words in found.answer.advice


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1/1/7", "reject 1/1/7"), ("rejected 1/1/7", "reject 1/1/7"), ("Rejection 2/3/1", "reject 2/3/1"),
        ("abort 2/1", "abort 2/1"), ("aborted 2/6", "abort 2/6"), ("abort 0/5", "abort 0"), ("abort 0", "abort 0"),
        ("timeout store answer", "timeout store_answer"), ("time-out acse", "timeout acse"),
    ],
)  # fmt: skip
def test_ways_to_say_it(text: str, what: str) -> None:
    """As logs and people write it."""
    assert explain(text)[0].what == what


def test_reserved_numbers_are_not_listed() -> None:
    """They are explained all the same, with what is done."""
    (permanent,), (transient,), (abort,) = explain("1/1/5"), explain("2/3/6"), explain("abort 2/3")
    assert (permanent.listed, permanent.answer.rule) == (False, Rule.HOLD)
    assert (transient.listed, transient.answer.rule) == (False, Rule.AWAY)
    assert (abort.listed, abort.answer.reason) == (False, "aborted")


@pytest.mark.parametrize(
    ("text", "hint"),
    [("no mach", "did you mean 'no match'?"), ("unreachabel", "did you mean 'unreachable'?"), ("qqqq", "0xA801")],
)
def test_unknown_words_are_met_with_a_hint(text: str, hint: str) -> None:
    """The nearest reason word, or what can be asked at all."""
    with pytest.raises(NotFound, match=r"nothing is known of") as caught:
        explain(text)
    assert hint in str(caught.value)


# --- quirks


def test_a_quirk_changes_the_rule_and_says_so() -> None:
    """Only for the service or triple that it names; reason and advice stay those of the table."""
    own = quirks.from_texts(["store 0xA700=final", "reject 1/1/7=away"])
    (found,) = explain("0xA700", service="store", own=own)
    assert (found.own, found.answer.rule, found.answer.reason) == (True, Rule.FINAL, "out of resources")
    (other,) = explain("0xA701", service="store", own=own)
    assert (other.own, other.answer.rule) == (False, Rule.CONGESTED)
    (rejected,) = explain("1/1/7", own=own)
    assert (rejected.own, rejected.answer.rule) == (True, Rule.AWAY)


def test_quirks_are_kept_in_one_form_and_taken_back() -> None:
    """However they were written; a rule of nothing gives the table's own back."""
    kept = quirks.merged([], quirks.parse(["store a700 = final", "rejected 1/1/7=away", "MOVE 0xC000=hold"]))
    assert kept == ["move 0xC000=hold", "reject 1/1/7=away", "store 0xA700=final"]
    assert quirks.merged(kept, quirks.parse(["store 0xA700="])) == kept[:2]
    assert quirks.merged(kept, quirks.parse(["store 0xA700=again"]))[2] == "store 0xA700=again"


@pytest.mark.parametrize(
    "text",
    [
        "store 0xA700", "store 0xA700=done", "store 0xA700=perhaps", "store 0x0000=final", "find 0xFF00=final",
        "print 0xA700=final", "0xA700=final", "reject 1/1/7=final", "reject 1/1=hold", "=", "store =final",
    ],
)  # fmt: skip
def test_quirks_that_make_no_sense_are_refused(text: str) -> None:
    """Nothing makes a success of a failure, and nothing is final where nobody is charged."""
    with pytest.raises(UsageError, match="--quirk"):
        quirks.parse([text])


# --- the page


def test_the_page_shows_the_table() -> None:
    """docs/answers.md, row by row."""
    assert answers_page.PAGE.read_text() == answers_page.text(), "write it anew: python -m support.answers_page"
