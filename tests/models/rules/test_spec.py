"""What was asked for survives the way into the row and back."""

from __future__ import annotations

import os
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomferry.models.rules import spec
from dicomferry.models.rules.kind import JOBS, Kind, Lane
from dicomferry.models.rules.spec import EchoSpec, FindSpec, StoreSpec


@pytest.mark.parametrize(
    "what",
    [
        EchoSpec(),
        StoreSpec(paths=("/data",)),
        FindSpec(),
        FindSpec(
            level="image", root="patient", keys=(("00100010", "*Jérôme*"), ("00400100[0].00080060", "")), split=True
        ),
        FindSpec(worklist=True),
        StoreSpec(paths=("/data/a b", "/data/Straße/日本"), recursive=True),
        StoreSpec(paths=(os.fsdecode(b"/data/\xff\xfe.dcm"), os.fsdecode("/data/é".encode("latin-1")))),
    ],
)
def test_round_trip(what: spec.Spec) -> None:
    """JSON and back is the same value; the text is ASCII, so that any database takes it."""
    text = spec.to_json(what)
    assert text.isascii()
    assert spec.from_json(what.kind, text) == what


def test_paths_that_are_no_utf8_keep_their_bytes() -> None:
    """A path is bytes: what the file system has comes back bit by bit."""
    raw = b"/data/\xff\x80/\xc3\x28"
    back = spec.from_json("store", spec.to_json(StoreSpec(paths=(os.fsdecode(raw),))))
    assert isinstance(back, StoreSpec)
    assert back.roots == (raw,)


@given(st.lists(st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw), min_size=1, max_size=4))
def test_any_path_survives(raw: list[bytes]) -> None:
    """Whatever bytes a file system allows."""
    what = StoreSpec(paths=tuple(os.fsdecode(path) for path in raw))
    back = spec.from_json("store", spec.to_json(what))
    assert isinstance(back, StoreSpec)
    assert list(back.roots) == raw


def test_lanes_and_plans() -> None:
    """Echo is quick and needs no plan; store is bulk and is planned first."""
    assert (EchoSpec.lane, EchoSpec.planned) == ("quick", False)
    assert (StoreSpec.lane, StoreSpec.planned) == ("bulk", True)
    assert {EchoSpec.lane, StoreSpec.lane} <= set(spec.LANES)


def test_specs_are_frozen() -> None:
    """Nobody changes what was asked for."""
    with pytest.raises(AttributeError):
        StoreSpec(paths=("/data",)).recursive = True  # type: ignore[misc]


def test_whose_answers_hold() -> None:
    """A job's service is told from its row; the spec is read only where it depends on that, as with a worklist."""
    assert spec.service_of("find", spec.to_json(FindSpec(worklist=True))) == "worklist"
    assert spec.service_of("find", spec.to_json(FindSpec())) == "find"
    others = [Kind.ECHO, Kind.STORE, Kind.MOVE, Kind.GET]
    assert [spec.service_of(kind, "no spec") for kind in others] == others


def test_every_kind_can_be_asked_for() -> None:
    """Each kind but the plan has its spec, and each spec a kind of its own."""
    assert sorted(cls.kind for cls in get_args(spec.Spec)) == sorted(JOBS)
    assert {spec.lane_of(kind) for kind in JOBS} == set(Lane)
