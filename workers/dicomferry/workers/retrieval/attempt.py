"""One attempt at a retrieve: find out what there is, ask for what is missing, see it come, judge what did not.

An attempt is one round at most. Whatever is missing after it gives its slot back and is asked for again, finer, by a
later one; a worker that dies leaves rows from which the next one goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy.engine import Connection

from dicomferry.models import telemetry
from dicomferry.models.record.archive import calls
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.remotes.trials import Trials
from dicomferry.models.record.retrieves import expected, moves, proofs, request
from dicomferry.models.rules import proof
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import local
from dicomferry.models.rules.callers import Callers
from dicomferry.models.rules.errors import ConfigurationError, DimseError, LeaseLost, OutOfReach
from dicomferry.models.rules.kind import Kind
from dicomferry.models.rules.proof import Way
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.situation import Account
from dicomferry.models.rules.spec import GetSpec, MoveSpec
from dicomferry.models.rules.state import AttemptEnd, ItemState
from dicomferry.models.rules.text import printable
from dicomferry.workers.attempts.environment import INTERNAL, STUCK, Environment, sentence
from dicomferry.workers.attempts.fault import Fault, Stopped
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.dimse.find import FindStopped
from dicomferry.workers.finding import listing as expectation
from dicomferry.workers.receiving.sight import OutOfSight
from dicomferry.workers.retrieval import charge, elsewhere, proposal, round_end
from dicomferry.workers.retrieval.association_in_use import Line
from dicomferry.workers.retrieval.blame import End, callers_of
from dicomferry.workers.retrieval.completeness import ItemByItem
from dicomferry.workers.retrieval.get_association import Store
from dicomferry.workers.retrieval.judgement import Judgement
from dicomferry.workers.retrieval.requests import Asking
from dicomferry.workers.retrieval.slow_media import Media
from dicomferry.workers.retrieval.watch import Watch

log = telemetry.logger(__name__)


def run(environment: Environment, lease: Lease, heart: Heartbeat, remote: Remote) -> None:
    """Try a chunk of a retrieve and end the attempt. Raises LeaseLost, OutOfReach."""
    _Attempt(environment, lease, heart, remote).run()


class _Attempt:
    def __init__(self, environment: Environment, lease: Lease, heart: Heartbeat, remote: Remote) -> None:
        assert isinstance(lease.spec, MoveSpec | GetSpec)
        self.environment = environment
        self.database = environment.database
        self.lease = lease
        self.heart = heart
        self.remote = remote
        self.spec = lease.spec
        self.state = request.of_chunk(self.database, lease.chunk_id)
        self.request_id: int = self.state.item_id
        self.asking: Asking | None = None
        self.store: Store | None = None
        self.callers = Callers()
        self.call_mark = self.arrival_mark = 0
        self.scps: frozenset[int] = frozenset()
        self.absent: frozenset[expected.Key] = frozenset()
        self.listing: expectation.Listing | None = None
        way = elsewhere.way_of(environment, self.spec) if self.goes_elsewhere else Way.HERE
        self.judgement = Judgement(environment, lease, heart, remote, self.spec, way)

    @property
    def progressed(self) -> int:
        """How many instances this attempt has seen come."""
        return self.asking.watch.came if self.asking else 0

    @property
    def comes_here(self) -> bool:
        """Whether a C-MOVE sends to our own storage SCP."""
        return self.spec.kind == Kind.MOVE and self.spec.destination in (None, self.remote.calling_ae_title)

    @property
    def goes_elsewhere(self) -> bool:
        """Whether a C-MOVE sends to somebody else."""
        return self.spec.kind == Kind.MOVE and not self.comes_here

    # --- from claim to end

    def run(self) -> None:
        """Work, and write down what came of it."""
        try:
            end = self._work() if self.state.state is ItemState.PENDING else End()
        except (LeaseLost, OutOfReach):
            raise
        except (Stopped, FindStopped):
            self.heart.require_lease()
            cancelled = self.heart.signals.cancel
            end = End(end=AttemptEnd.CANCELLED if cancelled else AttemptEnd.INTERRUPTED)
        except Fault as found:
            end = self._at_fault(found)
        except OutOfSight as error:
            self.heart.require_lease()
            end = self._at_fault(Fault(local(Reason.ARCHIVE_OUT_OF_SIGHT), str(error)))
        except DimseError as error:
            self.heart.require_lease()
            end = self._at_fault(Fault(STUCK, sentence(error)) if self.heart.gave_up else self._fault(error))
        except Exception as error:
            log.exception("attempt failed")
            self.heart.require_lease()
            end = self._at_fault(Fault(INTERNAL, sentence(error)))
        finally:
            self.heart.on_abort(None)
            self._line_ends(lambda line: line.abort())
            if self.store:
                self.store.close()
        self._finish(end)

    def _line_ends(self, how: Callable[[Line], None]) -> None:
        if self.asking and self.asking.line:
            how(self.asking.line)

    def _finish(self, end: End) -> None:
        self.heart.progress(0)
        known = self.state.expectation is not None
        away = self.goes_elsewhere
        whole = end.cause is None and end.end is AttemptEnd.COMPLETED
        if whole and known and end.finding is None and self.state.state is ItemState.PENDING:
            end = self.judgement.conclude(end, request.of_chunk(self.database, self.lease.chunk_id))

        def last(connection: Connection) -> None:
            # What came since the last look: with the job locked, nobody else sees to it.
            expected.settle(
                connection,
                self.lease.chunk_id,
                expected.arrived(connection, self.lease, refetch=self.spec.refetch, after=self.arrival_mark)
                if known and not away
                else (),
            )
            if end.finding:
                proofs.conclude(connection, self.request_id, end.finding)
            if end.failure or (known and whole):
                expected.close(
                    connection,
                    self.lease,
                    self.request_id,
                    failure=end.failure,
                    missing_as=end.lost.outcome if end.lost else None,
                )

        pending = self.state.state is ItemState.PENDING
        account = Account(end=end.end, cause=end.cause, finished=self.progressed, detail=printable(end.detail))
        self.environment.end(
            self.lease,
            account,
            outcomes=end.outcomes,
            last=last if pending else None,
            values={} if end.rounds is None else {"round": end.rounds},
        )

    def _fault(self, error: DimseError) -> Fault:
        return Fault(lookup.for_error(error, self.remote.quirks), sentence(error))

    def _at_fault(self, found: Fault) -> End:
        """Who is charged, and when it is tried again."""
        return charge.end_of(self.environment, self.lease, self.state, self.asking, found)

    # --- the work

    def _work(self) -> End:
        database = self.database
        self.callers = callers_of(self.environment, self.lease, self.remote)
        if self.comes_here:
            self.scps = calls.living_scps(database)
            if not self.scps:
                raise Fault(local(calls.NO_SCP))
        self.call_mark = calls.last_call(database)
        self.arrival_mark = self.judgement.arrival_mark = expected.last_arrival(database)
        fresh = self.state.expectation is None
        again = self.state.relisted == proofs.WAITS
        if fresh:
            end = self._expect()
            if end:
                return end
        elif again:
            self.judgement.list_again(self.state)
            proofs.note_stage(self.database, self.lease, self.request_id, proofs.LISTED_AGAIN)
        self.asking = self._begin()
        if self.absent:
            missing = expected.missing(self.database, self.lease.chunk_id)
            absent = [one.item_id for one in missing if one.key in self.absent]
            self.asking.fail(absent, Reason.NO_MATCH, "the archive does not list it")
        if not fresh:
            self._let_former_end(self.asking.watch)
        while True:
            asking = self.asking
            media = Media(asking, self.listing)
            if not asking.goal.is_reached():
                if media.is_waited_for():
                    media.put_off()
                self._ask(asking, media)
            if not asking.goal.is_reached():
                end = round_end.round_is_over(asking, media, self.scps)
                if end.cause is None:
                    self.judgement.look_once_more()
                return end
            just_listed = (fresh or again) and not asking.asked
            grew = self.state.reason == expected.GREW
            if just_listed or grew or not self.judgement.has_more(self.state):
                end = self.judgement.end(asking, lambda: request.of_chunk(self.database, self.lease.chunk_id))
                if end is not None:
                    return end
            self._begin()

    def _ask(self, asking: Asking, media: Media) -> None:
        """Ask for what is missing; where that fails because of slow media, for what does not lie there."""
        while True:
            try:
                asking.ask_all()
                break
            except FindStopped:
                raise
            except (Fault, DimseError) as error:
                found = error if isinstance(error, Fault) else self._fault(error)
                self._line_ends(lambda line: line.abort())
                if self.heart.gave_up or not media.put_off_for(found):
                    raise
        if asking.asked and not asking.is_in_vain():
            asking.watch.settle()
        if isinstance(asking.goal, ItemByItem):
            asking.goal.judge_elsewhere()
        asking.hang_up()

    def _begin(self) -> Asking:
        """The goal as the record has it now, and all that it takes to reach it."""
        self.state = request.of_chunk(self.database, self.lease.chunk_id)
        goal = elsewhere.goal_for(
            self.environment,
            self.lease,
            self.state,
            self.heart,
            self.remote,
            self.spec,
            away=self.goes_elsewhere,
            after=self.arrival_mark,
        )
        watch = Watch(
            self.environment,
            self.lease.job_id,
            self.remote,
            self.heart,
            goal,
            self.callers,
            lambda: self.store is not None and self.store.is_behind(),
            came=self.progressed,
        )
        if self.asking:
            asking = replace(self.asking, state=self.state, goal=goal, watch=watch)
        else:
            asking = Asking(
                environment=self.environment,
                lease=self.lease,
                heart=self.heart,
                remote=self.remote,
                spec=self.spec,
                state=self.state,
                goal=goal,
                watch=watch,
                callers=self.callers,
                call_mark=self.call_mark,
                comes_here=self.comes_here,
                get_line=self._get_line,
            )
        self.asking = asking
        asking.watch.look(now=True)
        if isinstance(asking.goal, ItemByItem):
            asking.goal.judge_elsewhere()
        return asking

    def _get_line(self) -> Line:
        """Where C-GET is asked; the archive is opened for it. Raises Fault where that is out of sight."""
        try:
            self.store = self.store or Store(self.environment.settings, self.database)
        except ConfigurationError as error:
            raise Fault(local(Reason.ARCHIVE_OUT_OF_SIGHT), str(error)) from error
        return proposal.line(self.database, self.lease, self.heart, self.remote, self.state, self.store)

    def _expect(self) -> End | None:
        """Find out what there is; the end of the attempt where that is nothing."""
        keys = self.state.identifier
        insist, trials = self.lease.barren == 0, Trials(self.database, self.lease.remote_id)
        listed_at = self.judgement.now()
        listing = expectation.ask(self.remote, self.spec, keys, self.heart, insist=insist, trials=trials)
        self.listing = listing
        if listing.expected() == 0 or not listing.targets:
            if listing.noted.nameless:
                told = proof.nameless_sentence(listing.noted.nameless)
                return End(failure=charge.failure(self.state, proof.NO_KEY, told))
            return charge.nothing_found(self.state, self.spec, listing.left_out)
        if listing.left_out:
            self.judgement.note(f"left out, {listing.left_out}")
        self.judgement.write(self.state, listing, listed_at, reason=None)
        self.absent = frozenset(one.kept_key for one in listing.absent)
        return None

    def _let_former_end(self, watch: Watch) -> None:
        """What a former attempt asked for, and did not see answered, may still be on its way."""
        former = moves.moves_of(self.database, self.lease.chunk_id)
        if not any(row.status is None and row.answered_at is None for row in former):
            return
        if expected.arrived_within(self.database, self.lease.job_id, self.remote.timeouts.quiet):
            watch.settle()
