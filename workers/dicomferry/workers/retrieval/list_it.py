"""Finding out what there is to come: the first phase of an attempt at a retrieve.

The first attempt at a request asks its archive for the list, one that waited because the list is not whole asks for it
again, and any other goes by what the record has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from sqlalchemy.engine import Connection

from dicomferry.models.documents.job_sums import DEPTHS
from dicomferry.models.record.jobs import leases, ledger
from dicomferry.models.record.remotes.trials import Trials
from dicomferry.models.record.retrieves import expected, moves, proofs
from dicomferry.models.rules import ending, proof, together
from dicomferry.models.rules.answers.lookup import local
from dicomferry.models.rules.proof import Depth
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.target import Target
from dicomferry.workers.attempts.fault import Fault
from dicomferry.workers.finding import listing as finding
from dicomferry.workers.finding.listing import Listing
from dicomferry.workers.retrieval import charge, watch
from dicomferry.workers.retrieval import progress as so_far
from dicomferry.workers.retrieval.blame import End
from dicomferry.workers.retrieval.progress import Progress
from dicomferry.workers.retrieval.situation import Situation


def list_it(situation: Situation, progress: Progress) -> End | None:
    """Know what there is, and what of it is here; the end of the attempt where that is nothing. Raises Fault where
    nobody would take what comes, or the identifier cannot be resolved, DimseError and FindStopped as queries do.
    """
    if situation.comes_here and not situation.scps:
        raise Fault(local(ending.NO_SCP))
    absent: frozenset[expected.Key] = frozenset()
    is_known = progress.request.is_listed
    if not is_known:
        end = _list_first(situation, progress)
        if end:
            return end
        assert progress.listing is not None
        absent = frozenset(one.kept_key for one in progress.listing.absent)
    elif progress.request.relisted == proofs.WAITS:
        list_again(situation, progress)
        proofs.note_stage(situation.database, situation.lease, progress.request.item_ids, proofs.LISTED_AGAIN)
        progress.is_listed_anew = True
    go_by_record(situation, progress)
    if absent:
        missing = expected.missing(situation.database, situation.lease.chunk_id)
        items = [one.item_id for one in missing if one.key in absent]
        progress.goal.give_up(items, Reason.NO_MATCH, "the archive does not list it")
    if is_known:
        _let_former_end(situation, progress)
    return None


def go_by_record(situation: Situation, progress: Progress) -> None:
    """Take the request and its goal as the record has them now, and look what of it is here."""
    so_far.read_again(situation, progress)
    watch.look(situation, progress, now=True)
    progress.goal.judge_elsewhere()


def _list_first(situation: Situation, progress: Progress) -> End | None:
    """Ask for the list; the end of the attempt where nothing is on it."""
    request, lease = progress.request, situation.lease
    if request.shares:
        return _list_of_each(situation, progress)
    insist, trials = lease.barren == 0, Trials(situation.database, lease.remote_id)
    listed_at = situation.now()
    listing = finding.ask(
        situation.remote, situation.spec, request.identifier, situation.heart, insist=insist, trials=trials
    )
    progress.listing, progress.is_listed_anew = listing, True
    if listing.expected() == 0 or not listing.targets:
        if listing.noted.nameless:
            told = proof.nameless_sentence(listing.noted.nameless)
            return End(failure=charge.failure(request, proof.NO_KEY, told))
        return charge.nothing_found(request, situation.spec, listing.left_out)
    if listing.left_out:
        note(situation, f"left out, {listing.left_out}")
    _write(situation, progress, listing, listed_at, None)
    return None


def _list_of_each(situation: Situation, progress: Progress) -> End | None:
    """Ask for the list of requests that share the chunk; where the archive does not list their images, each goes on by
    itself.
    """
    lease, shares = situation.lease, progress.request.shares
    named = {one.item_id: together.target_of((None, one.identifier), situation.spec) for one in shares}
    targets = {key: one for key, one in named.items() if one is not None}
    if len(targets) < len(shares):
        return End(is_apart=True)
    listed_at = situation.now()
    wanted = together.merged(targets.values())
    listing = finding.of_targets(
        situation.remote, situation.spec.root, wanted, situation.heart, insist=lease.barren == 0
    )
    progress.listing, progress.is_listed_anew = listing, True
    asked_for = {(one.study, one.series, uid) for one in wanted for uid in one.images}
    if listing.depth != Depth.IMAGES or {one.kept_key for one in listing.instances} - asked_for:
        return End(is_apart=True, detail=listing.why)
    if listing.left_out:
        note(situation, f"left out, {listing.left_out}")
    _write_of_each(situation, targets, listing, listed_at)
    return None


def _write_of_each(situation: Situation, targets: Mapping[int, Target], listing: Listing, listed_at: datetime) -> int:
    """Write down what the archive lists of requests that share the chunk; how many instances are new to them."""
    there = {one.kept_key for one in listing.instances}
    told: dict[int, Target] = {}
    for key, one in targets.items():
        listed = sum((one.study, one.series, uid) in there for uid in one.images)
        told[key] = replace(one, count=listed, listed=listed, depth=Depth.IMAGES)
    return expected.expect_of_each(
        situation.database, situation.lease, [*listing.instances, *listing.absent], told, listed_at=listed_at
    )


def _let_former_end(situation: Situation, progress: Progress) -> None:
    """What a former attempt asked for, and did not see answered, may still be on its way."""
    former = moves.moves_of(situation.database, situation.lease.chunk_id)
    if not any(move.status is None and move.answered_at is None for move in former):
        return
    if expected.arrived_within(situation.database, situation.lease.job_id, situation.remote.timeouts.quiet):
        watch.until_quiet(situation, progress)


# --- a list that is taken ---------------------------------------------------------------------------------------------


def list_again(situation: Situation, progress: Progress) -> bool:
    """Ask for the list anew; whether it tells of more than was known. Raises what the queries do."""
    listed_at, targets = situation.now(), progress.request.targets
    listing = finding.again(situation.remote, situation.spec.root, targets, situation.heart)
    return take(situation, progress, listing, listed_at)


def take(situation: Situation, progress: Progress, listing: Listing, listed_at: datetime) -> bool:
    """Go on with a newer list; whether it tells of more than was known. Of a target that is listed less far than before
    the older one stays.
    """
    request = progress.request
    if request.shares:
        # They name their images, so there are never more of them.
        if listing.depth == Depth.IMAGES:
            own = {one.item_id: one.targets[0] for one in request.shares}
            _write_of_each(situation, own, listing, listed_at)
        return False
    targets = [_deeper(old, new) for old, new in zip(request.targets, listing.targets, strict=True)]
    if targets != listing.targets and request.listed_at is not None:
        listed_at = request.listed_at
    depth = min((one.depth or Depth.UNKNOWN for one in targets), key=DEPTHS.index)
    listing = replace(listing, targets=targets, depth=depth)
    before = {one.bare: one.count or 0 for one in request.targets}
    more = [one for one in targets if one.depth == Depth.COUNTS and (one.count or 0) > before.get(one.bare, 0)]
    new = _write(situation, progress, listing, listed_at, request.reason)
    if not new and not more:
        return False
    proofs.note_growth(situation.database, situation.lease, request.item_id)
    told = f"{new} more instances" if new else "more instances"
    note(situation, f"{expected.GREW}, {told} than before: those are fetched as well")
    return True


def _write(situation: Situation, progress: Progress, listing: Listing, listed_at: datetime, reason: str | None) -> int:
    """Write down what the archive lists; how many instances are new to the request."""
    database, lease, request = situation.database, situation.lease, progress.request
    noted = {**request.noted, **(listing.noted.to_json() or {})}
    proofs.note_list(database, lease, request.item_id, listed_at=listed_at, noted=noted or None)
    number = listing.expected(ignored=situation.ignores_numbers)
    before = request.expected
    if before is not None and situation.ignores_numbers:
        # It may hold a number from before that was said.
        before = sum(expected.totals(database, lease.chunk_id).values())
    return expected.expect(
        database,
        lease,
        request.item_id,
        [*listing.instances, *listing.absent],
        targets=listing.targets,
        expectation=listing.depth,
        expected=number if number is None or before is None else max(number, before),
        reason=reason,
    )


def _deeper(old: Target, new: Target) -> Target:
    """The newer of two lists of a target, unless the archive tells less in it."""
    known = DEPTHS.index(old.depth or Depth.UNKNOWN)
    return new if DEPTHS.index(new.depth or Depth.UNKNOWN) >= known else old


def note(situation: Situation, text: str) -> None:
    """Write something into the job's history."""
    database, lease = situation.database, situation.lease
    told = f"chunk {lease.chunk_id}: {text}"

    def work(connection: Connection) -> None:
        ledger.add_event(connection, lease.job_id, database.now(connection), "expected", told)

    leases.fenced(database, lease, work)
