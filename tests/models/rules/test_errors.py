"""What an error tells the command line."""

from __future__ import annotations

import pytest

from dicomferry.models.rules import errors

CODES: dict[type[errors.DicomferryError], int] = {
    errors.DicomferryError: 1,
    errors.IllegalTransition: 1,
    errors.LeaseLost: 1,
    errors.DimseError: 1,
    errors.UnusableFile: 1,
    errors.UsageError: 2,
    errors.NotFound: 2,
    errors.ConfigurationError: 3,
    errors.OutOfReach: 4,
}


def _all(kind: type[errors.DicomferryError]) -> set[type[errors.DicomferryError]]:
    return {kind}.union(*(_all(child) for child in kind.__subclasses__()))


def test_exit_codes() -> None:
    """0 done, 1 failed, 2 usage or unknown, 3 configuration, 4 out of reach; an answer of a peer is always 1."""
    for kind, code in CODES.items():
        assert kind.exit_code == code
    for kind in _all(errors.DimseError):
        assert kind.exit_code == 1
    assert {kind.exit_code for kind in _all(errors.DicomferryError)} == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.AssociationRejected(1, 2, 3), "result 1, source 2, reason 3"),
        (errors.DimseTimeout("acse", 30.0), "within 30 s (acse)"),
        (errors.DimseFailure(0xA801), "0xA801"),
        (errors.DimseFailure(0x122, "no Verification"), "0x0122 (no Verification)"),
        (errors.ContextNotAccepted("1.2.3", "1.2.840.10008.1.2", 4), "1.2.3 in 1.2.840.10008.1.2"),
    ],
)
def test_messages_name_what_the_peer_answered(error: errors.DimseError, words: str) -> None:
    """Numbers as the Standard writes them: a status as four hexadecimal digits."""
    assert words in str(error)
