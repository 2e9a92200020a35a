"""Whatever a remote answers, and in whichever order: the job comes to an end, by the real ledger."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, cycle, repeat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomferry.models.record.jobs import verbs
from dicomferry.models.rules import errors, retry
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Rule
from dicomferry.models.rules.answers.statuses import SERVICES
from dicomferry.models.rules.errors import DimseError
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.state import JobState
from dicomferry.workers import operations
from dicomferry.workers.attempts.work import Answered, Work
from support.inline import Inline

Said = int | Callable[[], DimseError]

STATUSES = st.sampled_from([row.first for row in SERVICES["store"]] + [0xC123, 0x4711, 0xFF00])
FAULTS: st.SearchStrategy[Said] = st.sampled_from(
    [
        lambda: errors.RemoteUnreachable("refused", why="refused"),
        lambda: errors.RemoteUnreachable("closed", closed=True),
        lambda: errors.AssociationRejected(1, 1, 1),
        lambda: errors.AssociationRejected(1, 1, 7),
        lambda: errors.AssociationRejected(2, 3, 1),
        lambda: errors.AssociationAborted("aborted", 2, 2),
        lambda: errors.ConnectionLost("closed"),
        lambda: errors.DimseTimeout("acse", 30),
        lambda: errors.DimseTimeout("store_answer", 300),
        lambda: errors.ProtocolViolation("odd"),
        lambda: errors.NoDicomAnswer("HTTP"),
        lambda: errors.ContextNotAccepted("1.2", "1.2.3", 3),
    ]
)
GIVE_UP = 3600.0
FINAL = (Rule.DONE, Rule.WARNING, Rule.FINAL)


class Talk:
    """A remote that says these things, over and over; what it said of each item is kept."""

    def __init__(self, said: list[Said]) -> None:
        self.said: Iterator[Said] = cycle(said)
        self.heard: dict[int, list[lookup.Answer]] = {}

    def __call__(self, work: Work) -> Iterator[Answered]:
        opening = next(self.said)
        if not isinstance(opening, int) and isinstance(
            opening(), errors.RemoteUnreachable | errors.AssociationRejected
        ):
            raise opening()
        for row in work.feed:
            said = next(self.said)
            error = None if isinstance(said, int) else said()
            answer = lookup.for_error(error) if error else work.status("store", int(said))  # type: ignore[arg-type]
            heard = self.heard.setdefault(row.id, [])
            assert not heard or heard[-1].rule not in FINAL, "a final answer was asked for again"
            heard.append(answer)
            if error:
                raise error
            yield Answered(item_id=row.id, answer=answer, status=int(said))  # type: ignore[arg-type]

    def check(self) -> None:
        """No item is tried more often than its rules allow."""
        for heard in self.heard.values():
            counts = Counter(answer.rule for answer in heard)
            assert sum(counts[rule] for rule in FINAL) <= 1
            assert counts[Rule.AGAIN] + counts[Rule.BROKEN] <= retry.MAX_CHARGES
            for first, second, third in zip(heard, heard[1:], heard[2:], strict=False):
                alike = first.reason == second.reason == third.reason
                assert not (alike and first.rule is Rule.AGAIN), "the same failure three times"


@settings(max_examples=15, deadline=None)
@given(st.lists(STATUSES | FAULTS, min_size=1, max_size=10), st.integers(1, 4), st.integers(1, 3))
def test_every_job_ends_whatever_is_answered(said: list[Said], number: int, cut: int) -> None:
    """Done or held, within a bound of attempts; what is held ends once it is released and the remote behaves."""
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        Inline(Path(folder), patch, retry={"give_up_after": GIVE_UP}) as site,
    ):
        talk = Talk(said)
        patch.setitem(operations.OPERATIONS, Kind.STORE, talk)
        site.cut_at(cut)
        site.mr(number)
        job_id = site.store("ANY@127.0.0.1:104")
        state = site.drain(job_id)
        talk.check()
        # Each item, or each of its charges, may start the clock of giving up anew; so long it takes a dozen tries.
        assert len(site.attempts(job_id)) <= (number * retry.MAX_CHARGES + number) * 15
        if state is JobState.HELD:
            talk.said = chain(repeat(0))
            verbs.release(site.database, job_id)
            site.sweep()
            state = site.drain(job_id)
            talk.check()
        assert state in (JobState.SUCCEEDED, JobState.INCOMPLETE, JobState.FAILED)
        for row in site.items(job_id):
            heard = talk.heard[row.id]
            assert (row.state, row.reason) == (row.state, heard[-1].reason)
            assert (row.state == "failed") == (heard[-1].rule not in (Rule.DONE, Rule.WARNING))
