"""One attempt at a retrieve: find out what there is, ask for what is missing, see it come, judge what did not.

Each of these is a phase, a function of the situation, which does not change, and of the progress, which is all that
does; it says how the attempt ends, or None where the next phase is to go on. An attempt is one round at most. Whatever
is missing after it gives its slot back and is asked for again, finer, by a later one; a worker that dies leaves rows
from which the next one goes on.
"""

from __future__ import annotations

from dicomferry.models import telemetry
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.retrieves import request
from dicomferry.models.rules.answers.lookup import Rule, local
from dicomferry.models.rules.errors import DimseError, LeaseLost, OutOfReach
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.state import AttemptEnd
from dicomferry.workers.attempts.environment import INTERNAL, STUCK, Environment, sentence
from dicomferry.workers.attempts.fault import Fault, Stopped
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.dimse.find import FindStopped
from dicomferry.workers.receiving.sight import OutOfSight
from dicomferry.workers.retrieval import charge, finish
from dicomferry.workers.retrieval import progress as so_far
from dicomferry.workers.retrieval import situation as circumstances
from dicomferry.workers.retrieval.ask import ask, fault_of
from dicomferry.workers.retrieval.blame import End
from dicomferry.workers.retrieval.judge import judge
from dicomferry.workers.retrieval.list_it import list_it
from dicomferry.workers.retrieval.progress import Progress
from dicomferry.workers.retrieval.situation import Situation
from dicomferry.workers.retrieval.wait import wait

log = telemetry.logger(__name__)

_PASSING = frozenset({Rule.AWAY, Rule.SUSPECT, Rule.BROKEN, Rule.CONGESTED, Rule.AGAIN})
"""Answers that an archive may give to a list that is made ahead because it is busy with a move."""


def run(environment: Environment, lease: Lease, heart: Heartbeat, remote: Remote) -> None:
    """Try a chunk of a retrieve and end the attempt. Raises LeaseLost, OutOfReach."""
    found = request.of_chunk(environment.database, lease.chunk_id)
    situation = circumstances.look_round(environment, lease, heart, remote)
    progress = so_far.begin(situation, found)
    finish.write(situation, progress, _end(situation, progress) if found.is_pending else End())


def _end(situation: Situation, progress: Progress) -> End:
    """How an attempt ends, whatever happens in it. Raises LeaseLost, OutOfReach."""
    heart = situation.heart
    try:
        try:
            return _phases(situation, progress)
        except (LeaseLost, OutOfReach):
            raise
        except (Stopped, FindStopped):
            heart.require_lease()
            return End(end=AttemptEnd.CANCELLED if heart.signals.cancel else AttemptEnd.INTERRUPTED)
        except Fault as error:
            fault = error
        except OutOfSight as error:
            heart.require_lease()
            fault = Fault(local(Reason.ARCHIVE_OUT_OF_SIGHT), str(error))
        except DimseError as error:
            heart.require_lease()
            fault = Fault(STUCK, sentence(error)) if heart.gave_up else fault_of(situation, error)
        except Exception as error:
            log.exception("attempt failed")
            heart.require_lease()
            fault = Fault(INTERNAL, sentence(error))
        if situation.lease.ahead and fault.answer.rule in _PASSING:
            # It may have room for no more while it moves: whoever moves this chunk asks again, and nobody is blamed.
            return End(end=AttemptEnd.INTERRUPTED, is_ahead=True, detail=str(fault) or fault.answer.reason)
        return charge.end_of(situation, progress, fault)
    finally:
        situation.lines.close()


def _phases(situation: Situation, progress: Progress) -> End:
    """One after the other, until one of them says how the attempt ends."""
    end = list_it(situation, progress)
    while end is None:
        if situation.lease.ahead and not progress.goal.is_reached():
            return End(is_ahead=True, detail="listed while no move was free")
        end = ask(situation, progress) or wait(situation, progress) or judge(situation, progress)
    return end
