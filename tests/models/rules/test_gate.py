"""The table of gates: whether a chunk may be begun, until when not, and what it is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dicomferry.models.rules import gate, window
from dicomferry.models.rules.gate import LIMIT, WINDOW, Gate, InUse, Known
from dicomferry.models.rules.pacing import RateLimits

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
DAY = window.from_document(window.changed(None, hours="daily 08:00-18:00", tz="UTC"))
BROKEN = {"is_broken": True, "reason": "unreachable", "failures": 3}
SLOW = {"limits": RateLimits(requests=1.0, instances=1.0)}


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


TABLE: dict[str, tuple[dict[str, Any], InUse, dict[str, Any]]] = {
    "nothing is known of it": ({}, InUse(), {"until": None, "full": False, "probe": False}),
    "limits go along": (SLOW, InUse(), {"limits": SLOW["limits"]}),
    "closed at this hour": ({"hours": DAY}, InUse(), {"until": NOW.replace(hour=8), "reason": WINDOW}),
    "open at this hour": ({"hours": DAY, "now": NOW.replace(hour=9)}, InUse(), {"until": None}),
    "its hour before its breaker": (
        {"hours": DAY, "look_at": at(60), **BROKEN}, InUse(), {"until": NOW.replace(hour=8), "reason": WINDOW}),
    "broken": ({"look_at": at(60), **BROKEN}, InUse(), {"until": at(60), "reason": "unreachable", "probe": False}),
    "time to look again": (BROKEN, InUse(), {"until": None, "probe": True, "failures": 3}),
    "somebody looks": (BROKEN, InUse(looks=True), {"full": True, "probe": False}),
    "places of requests": ({**SLOW, "taken": {"requests": at(5)}}, InUse(), {"until": at(5), "reason": LIMIT}),
    "soon": ({**SLOW, "taken": {"requests": at(gate.DEBT_SECONDS)}}, InUse(), {"until": None}),
    "no limit any more": ({"taken": {"requests": at(5)}}, InUse(), {"until": None}),
    "a store asks for none": (
        {**SLOW, "kind": "store", "taken": {"requests": at(5), "instances": at(9)}}, InUse(), {"until": None}),
    "what came is paid before more is asked for": (
        {**SLOW, "kind": "get", "taken": {"requests": at(5), "size": at(9)}}, InUse(), {"until": at(9)}),
    "a query brings nothing": ({**SLOW, "taken": {"size": at(9)}}, InUse(), {"until": None}),
    "room for one more": ({"most": 2}, InUse(running=1), {"full": False}),
    "no room": ({"most": 2}, InUse(running=2), {"full": True, "until": None}),
    "one move at a time": ({"most": 4, "kind": "move"}, InUse(running=1, moves=1), {"full": True}),
    "one move at a time, the next one is listed": (
        {"most": 4, "kind": "move"}, InUse(running=1, moves=1, may_list=True), {"full": False, "ahead": True}),
    "no room for a list": (
        {"most": 1, "kind": "move"}, InUse(running=1, moves=1, may_list=True), {"full": True, "ahead": False}),
    "nothing is listed of a remote that is broken": (
        {"most": 4, "kind": "move", **BROKEN}, InUse(running=1, moves=1, may_list=True), {"full": True}),
    "a get beside a move": ({"most": 4, "kind": "get"}, InUse(running=1, moves=1), {"full": False}),
}  # fmt: skip


@pytest.mark.parametrize("situation", TABLE)
def test_the_table_of_gates(situation: str) -> None:
    """The window first, then the breaker, then places in time, then room; a gate that opens at a known time says so."""
    known, in_use, expected = TABLE[situation]
    given = Known(**{"kind": "find", "now": NOW, **known})
    found: Gate = gate.closed(given) or gate.opened(given, in_use)
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.until is None or (found.until > NOW and found.reason)
