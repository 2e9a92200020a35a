"""The keys of the rows of a retrieve's report."""

from __future__ import annotations

from typing import TypedDict


class StudyReport(TypedDict):
    """What came of one study. `expected` and `missing` are None where the remote does not say how many there are."""

    StudyInstanceUID: str | None
    rows: list[int]
    expected: int | None
    received: int
    missing: int | None
    surplus: int
    conflicts: int
    arrivals: int
    bytes: int
    attempts: int
    statuses: dict[str, int]
    asked_at: str | None
    first_arrival: str | None
    last_arrival: str | None


class InstanceReport(TypedDict):
    """What came of one instance that was expected, or one that came besides."""

    row: int | None
    StudyInstanceUID: str | None
    SeriesInstanceUID: str | None
    SOPInstanceUID: str | None
    sop_class: str | None
    transfer_syntax: str | None
    expected: bool
    received: bool
    state: str
    status: str | None
    reason: str | None
    detail: str | None
    attempts: int | None
    arrivals: int | None
    conflicts: int | None
    first_arrival: str | None
    last_arrival: str | None
    bytes: int | None
    file: str | None
    filed_study: str | None
    filed_series: str | None
