"""What comes after everything that is expected is here: is the list itself whole, and what is the request to be called?

The rule is `proof`. An archive that gives a sign of more than it lists is listed again, at once where something changed
meanwhile, else after `timeouts.settle`; what is short then is asked for whole, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.engine import Connection

from dicomferry.models.documents.job_sums import DEPTHS
from dicomferry.models.record.database import in_groups
from dicomferry.models.record.jobs import leases, ledger
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.retrieves import expected as request_store
from dicomferry.models.record.retrieves import proofs, second_look
from dicomferry.models.record.retrieves.request import Request
from dicomferry.models.rules import proof
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Rule
from dicomferry.models.rules.outcome import Outcome
from dicomferry.models.rules.proof import Depth, Facts, Finding, Part, Way
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.situation import Round
from dicomferry.models.rules.spec import GetSpec, MoveSpec
from dicomferry.models.rules.state import ItemState
from dicomferry.models.rules.target import Target
from dicomferry.models.rules.text import printable
from dicomferry.workers.attempts.environment import Environment
from dicomferry.workers.attempts.fault import Fault, Stopped
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.finding import listing as expectation
from dicomferry.workers.finding.listing import Listing
from dicomferry.workers.retrieval import elsewhere
from dicomferry.workers.retrieval.blame import End
from dicomferry.workers.retrieval.completeness import Blind, seen
from dicomferry.workers.retrieval.requests import Asking

NOT_WHOLE_YET = Reason.LISTING_NOT_WHOLE_YET
"""Why the chunk of a retrieve waits to be listed again."""
_LOOK_SECONDS = 0.25


@dataclass
class Judgement:
    """Of one attempt at a retrieve. `way` is how it is known what came."""

    environment: Environment
    lease: Lease
    heart: Heartbeat
    remote: Remote
    spec: MoveSpec | GetSpec
    way: Way
    arrival_mark: int = 0
    """The last arrival of anybody before this attempt."""
    _is_renewed: bool = False
    """Whether the list was made again since an answer was silent of what an earlier one told of."""

    def __post_init__(self) -> None:
        self.database = self.environment.database

    @property
    def ignores_numbers(self) -> bool:
        """Whether the address book says that this archive's numbers are wrong."""
        return self.remote.numbers == "ignored"

    def now(self) -> datetime:
        """The record's clock."""
        return self.database.read(self.database.now)

    # --- the list

    def write(self, state: Request, listing: Listing, listed_at: datetime, *, reason: str | None) -> int:
        """Write down what the archive lists; how many instances are new to the request."""
        noted = {**state.noted, **(listing.noted.to_json() or {})}
        proofs.note_list(self.database, self.lease, state.item_id, listed_at=listed_at, noted=noted or None)
        expected = listing.expected(ignored=self.ignores_numbers)
        before = state.expected
        if before is not None and self.ignores_numbers:
            # It may hold a number from before that was said.
            before = sum(request_store.totals(self.database, self.lease.chunk_id).values())
        return request_store.expect(
            self.database,
            self.lease,
            state.item_id,
            [*listing.instances, *listing.absent],
            targets=listing.targets,
            expectation=listing.depth,
            expected=expected if expected is None or before is None else max(expected, before),
            reason=reason,
        )

    def list_again(self, state: Request) -> bool:
        """Ask for the list anew; whether it tells of more than was known. Raises what the queries do."""
        listed_at = self.now()
        return self._take(state, expectation.again(self.remote, self.spec.root, state.targets, self.heart), listed_at)

    def has_more(self, state: Request) -> bool:
        """Whether the archive lists more now than it did; it is asked where anything speaks for that. What it does not
        say is no.
        """
        listed_at = self.now()
        if self._is_as_before(state):
            listing = expectation.changed(self.remote, self.spec.root, state.targets, self.heart)
        else:
            listing = expectation.now(self.remote, self.spec.root, state.targets, self.heart)
        return listing is not None and self._take(state, listing, listed_at)

    def _is_as_before(self, state: Request) -> bool:
        """Whether nothing came or was answered that the list does not explain, and the list is not old."""
        if proofs.is_stale(self.database, state, self.lease.job_id, self.remote.timeouts.settle):
            return False
        if self.way is Way.HERE and proofs.came_along(self.database, self.lease.job_id):
            return False
        facts = self._facts(state)
        return not (facts.strangers or any(one.told for one in (*facts.targets, *facts.inner)))

    def _take(self, state: Request, listing: Listing, listed_at: datetime) -> bool:
        """Go on with a newer list; of a target that is listed less far than before the older one stays."""
        targets = [_deeper(old, new) for old, new in zip(state.targets, listing.targets, strict=True)]
        if targets != listing.targets and state.listed_at is not None:
            listed_at = state.listed_at
        depth = min((one.depth or Depth.UNKNOWN for one in targets), key=DEPTHS.index)
        listing = replace(listing, targets=targets, depth=depth)
        before = {one.bare: one.count or 0 for one in state.targets}
        more = [one for one in targets if one.depth == Depth.COUNTS and (one.count or 0) > before.get(one.bare, 0)]
        new = self.write(state, listing, listed_at, reason=state.reason)
        if not new and not more:
            return False
        self._note_growth(state, new)
        return True

    def _note_growth(self, state: Request, new: int) -> None:
        told = f"{new} more instances" if new else "more instances"
        proofs.note_growth(self.database, self.lease, state.item_id)
        self.note(f"{request_store.GREW}, {told} than before: those are fetched as well")

    def note(self, text: str) -> None:
        """Write something into the job's history."""
        told = f"chunk {self.lease.chunk_id}: {text}"

        def work(connection: Connection) -> None:
            ledger.add_event(connection, self.lease.job_id, self.database.now(connection), "expected", told)

        leases.fenced(self.database, self.lease, work)

    # --- the verdict

    def find(self, state: Request) -> Finding:
        """What the rule says now."""
        self._keep_unlisted(state)
        return proof.judge(self._facts(state))

    def _facts(self, state: Request) -> Facts:
        return proofs.facts(self.database, self.lease, state, ignored=self.ignores_numbers, way=self.way)

    def end(self, asking: Asking, read: Callable[[], Request]) -> End | None:
        """How an attempt ends that has all that is expected; None where it has got a newer list to go on with. Raises
        Fault, DimseError, Stopped.
        """
        self.look_once_more()
        state = read()
        finding = self._when_quiet(asking, state)
        stage = state.relisted or 0
        if finding.is_short and stage < proofs.WAITS:
            proofs.note_stage(self.database, self.lease, state.item_id, proofs.WAITS)
            return self._later(finding)
        if finding.short and stage == proofs.LISTED_AGAIN:
            proofs.note_stage(self.database, self.lease, state.item_id, proofs.ASKED_WHOLE)
            self._ask_whole(asking, state, finding.short)
            finding = self._when_quiet(asking, state)
        if finding.is_outlived and not self._is_renewed:
            self._is_renewed = True
            self.list_again(read())
            return None
        return self.conclude(End(), state, finding)

    def look_once_more(self) -> None:
        """Look at each file by which an instance is called here: one that was removed meanwhile proves nothing. Raises
        OutOfSight.
        """
        if self.way is not Way.HERE:
            return
        found = second_look.counted(self.database, self.lease)
        there = {one.item_id for one in seen(elsewhere.sight_of(self.environment, self.heart), found)}
        gone = [one for one in found if one.item_id not in there]
        if gone:
            second_look.fail(self.database, self.lease, gone)

    def _later(self, finding: Finding) -> End:
        cause = Round(answer=lookup.local(NOT_WHOLE_YET), pause=self.remote.timeouts.settle)
        return End(cause=cause, detail=finding.detail)

    def _ask_whole(self, asking: Asking, state: Request, short: Iterable[Part]) -> None:
        """Ask once for all of what is short. A refusal is an answer too: then nothing new comes."""
        patient = next((one.patient_id for one in state.targets), None)
        for part in short:
            target = Target(patient_id=patient, study=part.study, series=part.series)
            try:
                asking.ask_whole(target)
            except Fault as fault:
                if fault.answer.rule not in (Rule.FINAL, Rule.AGAIN):
                    raise
        asking.hang_up()

    def _when_quiet(self, asking: Asking, state: Request) -> Finding:
        """What the rule says once nothing comes any more that could change it. Raises Stopped."""
        finding = self.find(state)
        clock, quiet = self.environment.clock, self.remote.timeouts.quiet
        last = clock()
        while asking.asked and finding.short and self.way is Way.HERE and clock() - last < quiet:
            self.environment.sleep(min(_LOOK_SECONDS, quiet))
            self.heart.progress(0)
            self.heart.require_lease()
            if self.heart.stop:
                raise Stopped
            if asking.watch.look():
                last = clock()
            finding = self.find(state)
        return finding

    def conclude(self, end: End, state: Request, finding: Finding | None = None) -> End:
        """An end with what the request is to be called; what is wanting fails it, unless it has failed already."""
        finding = finding or proof.judge(self._facts(state))
        for note in finding.notes:
            self.note(note)
        failure = end.failure
        if failure is None and finding.wanting:
            failure = Outcome(
                item_id=state.item_id,
                state=ItemState.FAILED,
                reason=finding.wanting,
                detail=printable(finding.detail),
                charges=state.charges,
            )
        return replace(end, finding=finding, failure=failure)

    def _keep_unlisted(self, state: Request) -> None:
        """Make items of what lies here of a part of which the archive says more than it lists, and of what it names as
        failed.
        """
        if self.way is not Way.HERE:
            return
        facts = self._facts(state)
        parts = [one.part for one in (*facts.targets, *facts.inner) if one.short(self.ignores_numbers)]
        if not parts and not facts.strangers:
            return
        sight = elsewhere.sight_of(self.environment, self.heart)
        goal = Blind(
            self.database, self.lease, state, self.remote.max_uids, self.spec.refetch, self.arrival_mark, sight
        )
        for part in parts:
            goal.keep(Target(study=part.study, series=part.series), after=None)
        if not facts.strangers:
            return
        for uids in in_groups(proofs.strangers(self.database, self.lease, state)):
            for one in state.targets:
                goal.keep(Target(study=one.study, series=one.series, images=tuple(uids)), after=None)


def _deeper(old: Target, new: Target) -> Target:
    """The newer of two lists of a target, unless the archive tells less in it."""
    known = DEPTHS.index(old.depth or Depth.UNKNOWN)
    return new if DEPTHS.index(new.depth or Depth.UNKNOWN) >= known else old
