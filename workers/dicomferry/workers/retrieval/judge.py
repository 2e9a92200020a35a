"""What comes after everything that is expected is here: is the list itself whole, and what is the request to be called?
The last phase of an attempt at a retrieve.

The rule is `proof`. An archive that gives a sign of more than it lists is listed again, at once where something changed
meanwhile, else after `timeouts.settle`; what is short then is asked for whole, once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dicomferry.models.record.retrieves import expected, proofs, request
from dicomferry.models.record.retrieves.request import Request
from dicomferry.models.rules import proof
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Rule
from dicomferry.models.rules.batches import batches
from dicomferry.models.rules.proof import Facts, Finding, Part, Way
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.rounds import Ask
from dicomferry.models.rules.situation import Round
from dicomferry.models.rules.target import Target
from dicomferry.workers.attempts.fault import Fault, Stopped
from dicomferry.workers.finding import listing as finding_out
from dicomferry.workers.retrieval import charge, last_look, list_it, requests, watch
from dicomferry.workers.retrieval.blame import End
from dicomferry.workers.retrieval.completeness import Blind
from dicomferry.workers.retrieval.progress import Progress
from dicomferry.workers.retrieval.situation import Situation

NOT_WHOLE_YET = Reason.LISTING_NOT_WHOLE_YET
"""Why the chunk of a retrieve waits to be listed again."""
_LOOK_SECONDS = 0.25


def judge(situation: Situation, progress: Progress) -> End | None:
    """How an attempt ends that has all that is expected; None where it has got a newer list to go on with. Raises
    Fault, DimseError, Stopped, OutOfSight.
    """
    is_new = progress.is_listed_anew and not progress.asked
    if not is_new and progress.request.reason != expected.GREW and _take_more(situation, progress):
        list_it.go_by_record(situation, progress)
        return None
    last_look.look(situation, progress)
    progress.request = request.of_chunk(situation.database, situation.lease.chunk_id)
    finding = _when_quiet(situation, progress)
    stage = progress.request.relisted or 0
    if finding.is_short and stage < proofs.WAITS:
        proofs.note_stage(situation.database, situation.lease, progress.request.item_ids, proofs.WAITS)
        return _later(situation, finding)
    if finding.short and stage == proofs.LISTED_AGAIN:
        proofs.note_stage(situation.database, situation.lease, progress.request.item_ids, proofs.ASKED_WHOLE)
        _ask_whole(situation, progress, finding.short)
        finding = _when_quiet(situation, progress)
    if finding.is_outlived and not progress.is_renewed:
        progress.is_renewed = True
        progress.request = request.of_chunk(situation.database, situation.lease.chunk_id)
        list_it.list_again(situation, progress)
        list_it.go_by_record(situation, progress)
        return None
    return conclude(situation, progress, End(), finding)


def _take_more(situation: Situation, progress: Progress) -> bool:
    """Take what the archive lists now, if that is more than it was; it is asked where anything speaks for that. What it
    does not say is no. Of images that were named by their UIDs there are never more.
    """
    if progress.request.names_images:
        return False
    listed_at = situation.now()
    ask = finding_out.changed if _is_as_before(situation, progress) else finding_out.now
    listing = ask(situation.remote, situation.spec.root, progress.request.targets, situation.heart)
    return listing is not None and list_it.take(situation, progress, listing, listed_at)


def _is_as_before(situation: Situation, progress: Progress) -> bool:
    """Whether nothing came or was answered that the list does not explain, and the list is not old."""
    database, job_id = situation.database, situation.lease.job_id
    if proofs.is_stale(database, progress.request, job_id, situation.remote.timeouts.settle):
        return False
    if situation.way is Way.HERE and proofs.came_along(database, job_id):
        return False
    facts = _facts(situation, progress)
    return not (facts.strangers or any(one.told for one in (*facts.targets, *facts.inner)))


# --- the verdict ------------------------------------------------------------------------------------------------------


def conclude(situation: Situation, progress: Progress, end: End, finding: Finding | None = None) -> End:
    """An end with what the request is to be called; what is wanting fails it, unless it has failed already."""
    finding = finding or proof.judge(_facts(situation, progress))
    for told in finding.notes:
        list_it.note(situation, told)
    failure = end.failure
    if failure is None and finding.wanting:
        failure = charge.failure(progress.request, finding.wanting, finding.detail)
    return replace(end, finding=finding, failure=failure)


def of_each(situation: Situation, progress: Progress, requests: Iterable[Request]) -> dict[int, Finding]:
    """What the rule says of requests that share a chunk, of each by itself, by its item."""
    found = proofs.facts_of_each(
        situation.database, situation.lease, requests, ignored=situation.ignores_numbers, way=situation.way
    )
    return {item_id: proof.judge(facts) for item_id, facts in found.items()}


def _facts(situation: Situation, progress: Progress) -> Facts:
    return proofs.facts(
        situation.database,
        situation.lease,
        progress.request,
        ignored=situation.ignores_numbers,
        way=situation.way,
    )


def _find(situation: Situation, progress: Progress) -> Finding:
    """What the rule says now."""
    _keep_unlisted(situation, progress)
    return proof.judge(_facts(situation, progress))


def _when_quiet(situation: Situation, progress: Progress) -> Finding:
    """What the rule says once nothing comes any more that could change it. Raises Stopped."""
    finding = _find(situation, progress)
    clock, quiet = situation.environment.clock, situation.remote.timeouts.quiet
    last = clock()
    while progress.asked and finding.short and situation.way is Way.HERE and clock() - last < quiet:
        situation.environment.sleep(min(_LOOK_SECONDS, quiet))
        situation.heart.progress(0)
        situation.heart.require_lease()
        if situation.heart.stop:
            raise Stopped
        if watch.look(situation, progress):
            last = clock()
        finding = _find(situation, progress)
    return finding


def _keep_unlisted(situation: Situation, progress: Progress) -> None:
    """Make items of what lies here of a part of which the archive says more than it lists, and of what it names as
    failed.
    """
    if situation.way is not Way.HERE:
        return
    database, lease, found = situation.database, situation.lease, progress.request
    facts = _facts(situation, progress)
    parts = [one.part for one in (*facts.targets, *facts.inner) if one.short(situation.ignores_numbers)]
    if not parts and not facts.strangers:
        return
    goal = Blind(
        database,
        lease,
        found,
        situation.remote.max_uids,
        situation.spec.refetch,
        situation.last_arrival,
        situation.sight,
        progress.looked_at,
    )
    for part in parts:
        goal.keep(Target(study=part.study, series=part.series), after=None)
    if not facts.strangers:
        return
    for uids in batches(proofs.strangers(database, lease, found)):
        for one in found.targets:
            goal.keep(Target(study=one.study, series=one.series, images=tuple(uids)), after=None)


def _later(situation: Situation, finding: Finding) -> End:
    cause = Round(answer=lookup.local(NOT_WHOLE_YET), pause=situation.remote.timeouts.settle)
    return End(cause=cause, detail=finding.detail)


def _ask_whole(situation: Situation, progress: Progress, short: Iterable[Part]) -> None:
    """Ask once for all of what is short, whatever of it is here. A refusal is an answer too: then nothing new comes.
    Raises Fault, DimseError, Stopped.
    """
    patient = next((one.patient_id for one in progress.request.targets), None)
    for part in short:
        if situation.heart.stop:
            raise Stopped
        try:
            requests.make(situation, progress, Ask(Target(patient_id=patient, study=part.study, series=part.series)))
        except Fault as fault:
            if fault.answer.rule not in (Rule.FINAL, Rule.AGAIN):
                raise
    situation.lines.hang_up()
