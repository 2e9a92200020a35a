"""`submit store --verify`: what was sent is looked for at the remote, by C-FIND, before it counts as stored.

A sent item stays pending, `to be verified`, and comes back at the end of its chunk: so a worker that dies in between
sends nothing again, and an archive that indexes late has had a little time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dicomferry.models.record.jobs import verbs
from dicomferry.models.record.jobs.items import Item
from dicomferry.models.rules import proof
from dicomferry.models.rules.answers.lookup import Rule, local
from dicomferry.models.rules.errors import DimseError
from dicomferry.models.rules.proof import UNVERIFIED, Facts, PartSeen
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.target import Target
from dicomferry.workers.attempts.work import Answered, Work
from dicomferry.workers.dimse.find import FindStopped
from dicomferry.workers.finding import listing as expectation

SENT = verbs.TO_BE_VERIFIED
PAUSES = (1.0, 4.0, 10.0)
"""Seconds after which a series is asked for again where the remote does not list all of it."""

Send = Callable[[Work, Iterator[Item]], Iterator[Answered]]
_SENT = local(SENT)


def verified(work: Work, send: Send) -> Iterator[Answered]:
    """The answers of `send`; those that report success only after the remote was found to list the instance."""
    check = _Check(work)
    for row in work.feed:
        found: Item | None = row
        while found is not None:
            if not check.was_sent(found):
                run = _RunOfItems(found, work.feed, check)
                yield from map(check.put_off, send(work, iter(run)))
                found = run.stopped_at
                continue
            try:
                yield check.verify(found)
            except FindStopped:
                return
            found = None


class _RunOfItems:
    """The items from `first` on that have to be sent; ends before one that was."""

    def __init__(self, first: Item, feed: Iterator[Item], check: _Check) -> None:
        self._first = first
        self._feed = feed
        self._check = check
        self.stopped_at: Item | None = None

    def __iter__(self) -> Iterator[Item]:
        yield self._first
        for row in self._feed:
            if self._check.was_sent(row):
                self.stopped_at = row
                return
            yield row


@dataclass(frozen=True)
class _SeriesListing:
    """What the remote lists of a series; `more` says that it has more than that: what is not listed may be there."""

    uids: frozenset[str]
    more: str | None


class _Check:
    def __init__(self, work: Work) -> None:
        self._work = work
        self._ignores = work.remote.numbers == "ignored"
        self._answers: dict[int, Answered] = {}
        self._listed: dict[Target, _SeriesListing | str] = {}
        self._rows = {row.id: row for row in work.rows}

    def was_sent(self, row: Item) -> bool:
        """Whether an item was sent, by this attempt or by an earlier one."""
        return row.id in self._answers or row.reason == SENT

    def put_off(self, answered: Answered) -> Answered:
        """A success waits for its verification; any other answer stands."""
        if answered.answer.rule not in (Rule.DONE, Rule.WARNING):
            return answered
        self._answers[answered.item_id] = answered
        # A list is as new as the last send that it speaks of.
        row = self._rows[answered.item_id]
        self._listed.pop(Target(study=row.study_instance_uid, series=row.series_instance_uid), None)
        return answered._replace(answer=_SENT)

    def verify(self, row: Item) -> Answered:
        """What became of an item that was sent. Raises FindStopped."""
        answered = self._answers.get(row.id) or self._answered_before(row)
        answered = answered._replace(sent_bytes=0, tried=False)
        if not (row.study_instance_uid and row.series_instance_uid):
            return self._unverified(answered, "its study or series is not known, so it cannot be asked for")
        series = Target(study=row.study_instance_uid, series=row.series_instance_uid)
        listed = self._look(series)
        if isinstance(listed, str):
            return self._unverified(answered, listed)
        if row.sop_instance_uid in listed.uids:
            return answered
        if listed.more:
            return self._unverified(answered, listed.more)
        return answered._replace(answer=local(Reason.NOT_FOUND_AFTER_SUCCESS))

    def _answered_before(self, row: Item) -> Answered:
        """What an earlier attempt was told when it sent this one."""
        assert row.status is not None
        answer = self._work.status("store", row.status)
        return Answered(item_id=row.id, answer=answer, status=row.status, detail=row.detail, sent_as=row.sent_as)

    def _unverified(self, answered: Answered, why: str) -> Answered:
        return answered._replace(answer=local(UNVERIFIED), detail=why)

    def _look(self, series: Target) -> _SeriesListing | str:
        """What the remote lists of a series, or why it cannot be asked. Waits a little for what is not there yet."""
        if series not in self._listed:
            sent = {
                row.sop_instance_uid
                for row in self._work.rows
                if self.was_sent(row) and row.series_instance_uid == series.series
            }
            found = self._ask(series)
            for pause in PAUSES:
                if isinstance(found, str) or sent <= found.uids:
                    break
                self._work.heart.pause(pause)
                found = self._ask(series)
            self._listed[series] = found
        return self._listed[series]

    def _ask(self, series: Target) -> _SeriesListing | str:
        heart = self._work.heart
        try:
            listing = expectation.again(self._work.remote, "study", [series], heart)
        except FindStopped:
            raise
        except DimseError as error:
            heart.require_lease()
            return str(error)
        if listing.depth != "images":
            return listing.why or "the remote does not list single instances"
        seen = proof.judge(Facts(targets=[PartSeen(one.part) for one in listing.targets], ignored=self._ignores))
        more = "it says that it has more in the series than it lists" if seen.is_short else None
        return _SeriesListing(frozenset(one.uid for one in listing.instances), more)
