"""The doorbell that tests use in place of a broker."""

from __future__ import annotations

from support.inline import InlineDoorbell


def test_the_inline_doorbell() -> None:
    """Each lane rung for is run until nothing is due; ringing while it runs is heard; ringing twice is once."""
    bell = InlineDoorbell()
    work = {"bulk": 3, "quick": 1}
    order: list[str] = []

    def run_next(lane: str) -> bool:
        order.append(lane)
        if not work[lane]:
            return False
        work[lane] -= 1
        if lane == "quick":
            work["bulk"] += 1
            bell.ring("bulk")
        return True

    for lane in ("bulk", "bulk", "quick"):
        assert bell.ring(lane) is None
    bell.drain(run_next)
    assert work == {"bulk": 0, "quick": 0}
    assert order == ["bulk"] * 4 + ["quick"] * 2 + ["bulk"] * 2
    bell.drain(run_next)
    assert len(order) == 8
