"""The one table of answers, row by row as the design page has it."""

from __future__ import annotations

import pytest
from pynetdicom import status as library

from dicomferry.models.rules import errors
from dicomferry.models.rules.answers import statuses
from dicomferry.models.rules.answers.answer import CHECKS, Category
from dicomferry.models.rules.answers.lookup import Answer, Rule, advice_for, for_error, for_status, local
from dicomferry.models.rules.answers.statuses import SERVICES
from dicomferry.models.rules.reason import Reason

STORE = {
    0x0000: Rule.DONE,
    0xB000: Rule.WARNING,
    0xB006: Rule.WARNING,
    0xB007: Rule.WARNING,
    0xB123: Rule.WARNING,
    0xBFFF: Rule.WARNING,
    0x0111: Rule.WARNING,
    0xA700: Rule.CONGESTED,
    0xA7FF: Rule.CONGESTED,
    0xA900: Rule.FINAL,
    0xA9FF: Rule.FINAL,
    0xC000: Rule.FINAL,
    0xC123: Rule.FINAL,
    0xCFFF: Rule.FINAL,
    0x0110: Rule.AGAIN,
    0x0112: Rule.FINAL,
    0x0117: Rule.FINAL,
    0x0118: Rule.FINAL,
    0x0122: Rule.FINAL,
    0x0124: Rule.HOLD,
    0x0210: Rule.AGAIN,
    0x0211: Rule.FINAL,
    0x0212: Rule.FINAL,
    0x0213: Rule.CONGESTED,
    0xFE00: Rule.AGAIN,
}
ECHO = {
    0x0000: Rule.DONE,
    0x0122: Rule.FINAL,
    0x0124: Rule.HOLD,
    0x0210: Rule.AGAIN,
    0x0211: Rule.FINAL,
    0x0212: Rule.FINAL,
}
UNLISTED = [0x0002, 0x0199, 0x0999, 0x4711, 0xA000, 0xA6FF, 0xA800, 0xAA00, 0xD000, 0xFF00, 0xFF01, 0xFFFF]


@pytest.mark.parametrize(
    ("service", "status", "rule"),
    [
        *(pytest.param("store", *row, id=f"store-{row[0]:04X}") for row in STORE.items()),
        *(pytest.param("echo", *row, id=f"echo-{row[0]:04X}") for row in ECHO.items()),
    ],
)
def test_listed_statuses(service: str, status: int, rule: Rule) -> None:
    """Each status of the design page has the rule that the page gives it."""
    assert for_status(service, status).rule is rule


@pytest.mark.parametrize("service", ["store", "echo"])
@pytest.mark.parametrize("status", UNLISTED, ids=lambda status: f"{status:04X}")
def test_a_status_not_listed_is_a_failure_with_one_retry_shown_in_hex(service: str, status: int) -> None:
    """No status is ever taken for a success because nobody knows it."""
    answer = for_status(service, status)
    assert answer.rule is Rule.AGAIN
    assert answer.reason == f"status 0x{status:04X}"


@pytest.mark.parametrize("service", SERVICES)
def test_only_zero_is_success_and_every_answer_has_advice(service: str) -> None:
    """Rows are ranges, so their bounds stand for all 65,536: 0000 alone is done; the rest says why and what to do."""
    bounds = {bound for row in SERVICES[service] for bound in (row.first - 1, row.first, row.last, row.last + 1)}
    for status in (bounds & set(range(0x10000))) | set(UNLISTED):
        answer = for_status(service, status)
        assert (answer.rule is Rule.DONE) == (status == 0)
        _is_whole(answer)


CLASSES: dict[str, set[Rule]] = {
    library.STATUS_SUCCESS: {Rule.DONE},
    library.STATUS_WARNING: {Rule.WARNING},
    library.STATUS_PENDING: {Rule.LATER},
    library.STATUS_CANCEL: {Rule.AGAIN},
    library.STATUS_FAILURE: {Rule.FINAL, Rule.AGAIN, Rule.CONGESTED, Rule.HOLD},
}
LISTED = {
    "store": library.STORAGE_SERVICE_CLASS_STATUS,
    "find": library.QR_FIND_SERVICE_CLASS_STATUS,
    "worklist": library.MODALITY_WORKLIST_SERVICE_CLASS_STATUS,
    "move": library.QR_MOVE_SERVICE_CLASS_STATUS,
    "get": library.QR_GET_SERVICE_CLASS_STATUS,
    "echo": library.VERIFICATION_SERVICE_CLASS_STATUS,
}


@pytest.mark.parametrize("service", LISTED)
def test_every_status_that_a_library_lists_has_a_row_of_its_class(service: str) -> None:
    """PS3.4 and PS3.7 as pynetdicom has them; the one departure: an object that is there already counts as there."""
    listed = LISTED[service]
    for code, (kind, meaning) in listed.items():
        row = statuses.find(service, code)
        assert row, f"{service} 0x{code:04X} {meaning}"
        already_there = service == "store" and code == 0x0111
        assert row.answer.rule in ({Rule.WARNING} if already_there else CLASSES[kind]), (service, hex(code), meaning)


@pytest.mark.parametrize("service", SERVICES)
def test_no_row_hides_another(service: str) -> None:
    """Rows are searched top down: each is found by one of its statuses at least."""
    for row in SERVICES[service]:
        found = {id(statuses.find(service, code)) for code in range(row.first, row.last + 1)}
        assert id(row) in found, row.name


@pytest.mark.parametrize("category", Category)
def test_every_kind_says_where_to_look(category: Category) -> None:
    """Ours, theirs or between: somebody can check something, unless all went well."""
    checks = CHECKS[category]
    assert any((checks.ours, checks.theirs, checks.network)) == (category is not Category.SUCCESS)


def _is_whole(answer: Answer) -> None:
    assert answer.clause.startswith("PS3.")
    if answer.rule is Rule.DONE:
        assert answer.reason is None and answer.advice is None
        return
    assert answer.reason and len(answer.reason) <= 80
    assert answer.advice


@pytest.mark.parametrize("reason", [1, 2])
@pytest.mark.parametrize("result", [1, 2])
def test_congestion_and_local_limit_are_waited_for(result: int, reason: int) -> None:
    """2/3/1 and 2/3/2, and the same said permanently (1/3/1, 1/3/2): retry and slow down."""
    assert for_error(errors.AssociationRejected(result, 3, reason)).rule is Rule.AWAY


@pytest.mark.parametrize(("source", "reason"), [(1, 1), (1, 3), (1, 7), (2, 1), (3, 0), (3, 7)])
def test_any_transient_rejection_is_waited_for(source: int, reason: int) -> None:
    """Result 2 is `for now`, whatever the reason says."""
    assert for_error(errors.AssociationRejected(2, source, reason)).rule is Rule.AWAY


@pytest.mark.parametrize(("reason", "whose"), [(3, "calling AE title"), (7, "called AE title")])
def test_unknown_ae_titles_are_held_and_say_whose_side_has_to_act(reason: int, whose: str) -> None:
    """1/1/3 and 1/1/7: a person has to change something, and the advice says where."""
    answer = for_error(errors.AssociationRejected(1, 1, reason))
    assert answer.rule is Rule.HOLD
    assert answer.reason and whose in answer.reason
    assert answer.advice and answer.advice.startswith("their side" if reason == 3 else "our side")


def test_other_permanent_rejections_are_held() -> None:
    """What the Standard does not name here is no reason to knock for ever."""
    for numbers in [(1, 1, 2), (1, 2, 1), (1, 2, 2), (1, 1, 9), (1, 3, 5), (7, 7, 7)]:
        assert for_error(errors.AssociationRejected(*numbers)).rule is Rule.HOLD


def test_rejected_without_a_reason_and_hung_up_are_suspect() -> None:
    """1/1/1 and TCP closed before an answer ask whether our address is allowed."""
    for error in (errors.AssociationRejected(1, 1, 1), errors.RemoteUnreachable("closed", closed=True)):
        answer = for_error(error)
        assert answer.rule is Rule.SUSPECT
        assert answer.advice and "is our address allowed" in answer.advice


@pytest.mark.parametrize(
    ("error", "rule"),
    [
        (errors.RemoteUnreachable("refused"), Rule.AWAY),
        (errors.DimseTimeout("acse", 30), Rule.AWAY),
        (errors.DimseTimeout("store_answer", 300), Rule.BROKEN),
        (errors.DimseTimeout("first_answer", 600), Rule.BROKEN),
        (errors.DimseTimeout("progress", 60), Rule.BROKEN),
        (errors.AssociationAborted("abort"), Rule.BROKEN),
        (errors.ProtocolViolation("message id 7"), Rule.BROKEN),
        (errors.ContextNotAccepted("1.2.3", "1.2.840.10008.1.2", 3), Rule.FINAL),
        (errors.NoDicomAnswer("HTTP"), Rule.SUSPECT),
        (errors.NoDicomAnswer("alert", tls=True), Rule.HOLD),
        (errors.DimseFailure(0xC000), Rule.BROKEN),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_errors_of_an_association(error: errors.DimseError, rule: Rule) -> None:
    """What ends an association in mid-transfer charges the item in flight; what keeps it from opening charges none."""
    assert for_error(error).rule is rule


def test_every_association_result_is_whole() -> None:
    """Every A-ASSOCIATE-RJ that fits into three bytes' worth of sense has a reason, an advice and a clause."""
    for result in range(4):
        for source in range(5):
            for reason in range(12):
                answer = for_error(errors.AssociationRejected(result, source, reason))
                assert answer.rule is not Rule.DONE
                _is_whole(answer)


LOCAL = [
    "not DICOM", "DICOMDIR", "duplicate", "unreadable", "unreadable folder", "truncated", "changed", "conflict",
    "meta mismatch", "syntax mismatch", "odd length", "not transcodable", "worker died twice on it",
]  # fmt: skip


@pytest.mark.parametrize("reason", LOCAL)
def test_every_reason_of_our_own_has_advice(reason: str) -> None:
    """Each failure says what to do, also where no peer was asked."""
    assert local(Reason(reason)).advice
    assert advice_for("store", None, reason) == local(Reason(reason)).advice


def test_a_recorded_item_gets_the_advice_of_its_status() -> None:
    """By the status where a peer gave one, else by the reason; nothing for a success or an unknown word."""
    assert advice_for("store", 0xA700, "anything") == for_status("store", 0xA700).advice
    assert advice_for("store", 0x0000, None) is None
    assert advice_for("store", 0x0000, "not found after success") == local(Reason.NOT_FOUND_AFTER_SUCCESS).advice
    assert advice_for("store", None, None) is None
    assert advice_for("store", None, "no such word") is None


@pytest.mark.parametrize(
    "error",
    [
        errors.AssociationAborted("abort"),
        errors.DimseTimeout("store_answer", 300),
        errors.ProtocolViolation("odd"),
        errors.ContextNotAccepted("1.2.3", "1.2.840.10008.1.2"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_reason_without_status_finds_its_advice_again(error: errors.DimseError) -> None:
    """An item whose association broke carries only the reason word; that is enough for the advice."""
    answer = for_error(error)
    assert advice_for("store", None, answer.reason) == answer.advice


@pytest.mark.parametrize("status", [status for status in STORE if status], ids=lambda status: f"{status:04X}")
def test_a_reason_of_the_table_finds_its_advice_again(status: int) -> None:
    """A job's reason stands for the status of its items: the word alone leads to advice."""
    answer = for_status("store", status)
    assert advice_for("store", None, answer.reason)
