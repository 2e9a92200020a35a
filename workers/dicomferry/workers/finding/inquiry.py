"""The operation find: one query, walked down and halved where that is needed, its matches recorded as they come."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dicomferry.models.record.jobs import matches
from dicomferry.models.record.jobs.items import Item
from dicomferry.models.rules import lists, matching, query, slices
from dicomferry.models.rules.errors import ContextNotAccepted, DimseFailure, UsageError
from dicomferry.models.rules.proof import NO_KEY, is_pinned, looks_capped, nameless_sentence
from dicomferry.models.rules.query import UNIQUE, Key, Level
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.slices import Halving, Slice
from dicomferry.models.rules.spec import FindSpec
from dicomferry.workers.attempts.work import Answered, Work
from dicomferry.workers.dimse import find as c_find
from dicomferry.workers.dimse import identifier
from dicomferry.workers.dimse.find import Ask, FindStopped, Match
from dicomferry.workers.dimse.identifier import DecodedIdentifier
from dicomferry.workers.dimse.requestor import open_association
from dicomferry.workers.finding import walk
from dicomferry.workers.finding.judged import Judge, against, named
from dicomferry.workers.finding.walk import DecodedMatch

MAX_QUERIES = 20_000
"""Halving ends for certain: no archive has so many minutes in which it holds more than it lists."""
TOO_MANY = frozenset({*range(0xA700, 0xA800), 0xB001})
"""Out of resources, or a limit of matches reached: there may be more than was listed (PS3.4 C.4.1.1.4)."""

_COLUMNS = {
    Level.PATIENT: "patient_id",
    Level.STUDY: "study_instance_uid",
    Level.SERIES: "series_instance_uid",
    Level.IMAGE: "sop_instance_uid",
}
_ISSUER = 0x00100021
_encode = json.JSONEncoder(separators=(",", ":")).encode
_Pairs = Generator[tuple[Match, DecodedIdentifier], None, bool]


def find(work: Work) -> Iterator[Answered]:
    """One C-FIND an item; ends without an answer to the item when it is broken off."""
    for row in work.feed:
        answered = Inquiry(work, row).run()
        if answered is None:
            return
        yield answered


class Inquiry:
    """One request item from its query to its answer."""

    def __init__(self, work: Work, row: Item) -> None:
        assert isinstance(work.spec, FindSpec)
        self.work = work
        self.row = row
        self.spec = work.spec
        self.number = 0
        self._rows: list[dict[str, Any]] = []
        self._flushed = time.monotonic()
        self._queries = 0
        self._capped = 0
        self._nameless = 0
        self._stuck: list[Slice] = []
        self._halves = Halving()
        self._seen: set[bytes] = set()
        self._matches = 0
        self._wrong = 0
        self._passed_over = 0
        self._against: Counter[str] = Counter()
        self._judge = Judge(None, ())
        self._level = None if self.spec.worklist else Level(self.spec.level)
        # A series has the UIDs above it in its name, a patient nobody's.
        studies_down = query.levels(query.Root.STUDY)
        is_below = self._level is not None and self._level in studies_down
        self._name = studies_down[: studies_down.index(self._level) + 1] if is_below and self._level else ()

    def run(self) -> Answered | None:
        """Ask, record, and say what came of it; None when it was broken off."""
        work = self.work
        model = query.find_model(self.spec.root, worklist=self.spec.worklist)
        work.record.write(lambda connection: matches.clear(connection, self.row.id), matches=0)
        with open_association(work.remote, [c_find.proposal(model)], progress=work.heart.progress) as association:
            work.heart.on_abort(association.abort)
            ask = walk.asker(association, model, stop=lambda: work.heart.stop)
            try:
                for found in self._found(ask):
                    self._keep(found)
            except FindStopped:
                return None
            except ContextNotAccepted as error:
                return work.local(self.row, Reason.QUERY_NOT_OFFERED, str(error))
            except UsageError as error:
                return work.local(self.row, Reason.NOT_ENCODABLE, str(error))
            except DimseFailure as error:
                self._flush()
                return self._refused(error)
            self._flush()
            return self._answered()

    def _found(self, ask: Ask) -> Iterator[DecodedMatch]:
        spec = self.spec
        whole = self.work.remote.relational
        # Lists are for UIDs (PS3.4 C.2.2.2.2): all others are asked for value by value.
        for keys in lists.alternatives(spec.keys, spec.level, spec.root, identifier.vr_of, uids=False):
            if spec.worklist:
                self._judge = Judge(None, keys)
                asked = self._counted(ask, None, keys)
                yield from (DecodedMatch(match, answer, {}, {}) for match, answer in asked)
                continue
            self._judge = Judge(spec.root, query.steps(spec.level, spec.root, keys, whole=whole)[-1].keys)
            yield from walk.walk(
                lambda level, keys: self._asked(ask, level, keys),
                spec.root,
                Level(spec.level),
                keys,
                whole=whole,
                passing=self._passing,
            )

    def _passing(self, level: Level, found: DecodedMatch) -> None:
        self._nameless += not found.unique(level)

    def _asked(self, ask: Ask, level: Level | None, keys: Sequence[Key]) -> Iterator[tuple[Match, DecodedIdentifier]]:
        """One query of the walk. What contradicts its keys is not walked down."""
        if level == self.spec.level:
            yield from self._whole(ask, level, keys)
            return
        judge = Judge(self.spec.root, keys)
        for match, answer in self._whole(ask, level, keys):
            wrong = against(judge.of(answer))
            if wrong:
                self._passed_over += 1
                self._against.update(wrong)
            else:
                yield match, answer

    def _whole(self, ask: Ask, level: Level | None, keys: Sequence[Key]) -> Iterator[tuple[Match, DecodedIdentifier]]:
        """The answers to one query; what is too much for the remote is halved, if that was asked for."""
        # What is below a study is bounded by it: no date halves that.
        if not self.spec.split or level is Level.PATIENT or is_pinned(level, keys):
            self._capped += yield from self._counted(ask, level, keys)
            return
        seen: set[str] = set()
        waiting = [slices.whole(tuple(keys), datetime.now(UTC).date())]
        while waiting and self._halves.ignored is None:
            part = waiting.pop()
            if (yield from self._part(ask, level, keys, part, seen)):
                halves = self._halves.of(part) if self._queries < MAX_QUERIES else None
                if halves is None:
                    self._stuck.append(part)
                else:
                    waiting += reversed(halves)

    def _part(self, ask: Ask, level: Level | None, keys: Sequence[Key], part: Slice, seen: set[str]) -> _Pairs:
        """One slice: what of it was not seen yet; whether the remote had more than it listed."""
        pairs = self._counted(ask, level, slices.replaced(tuple(keys), part))
        look = self._halves.look(part)
        while True:
            try:
                match, answer = next(pairs)
            except StopIteration as end:
                return bool(end.value) and look.may_be_halved()
            look.at(answer.first(query.STUDY_DATE), answer.first(query.STUDY_TIME), _is_zoned(answer))
            unique = answer.first(UNIQUE[level]) if level else None
            if unique is None or unique not in seen:
                if unique is not None:
                    seen.add(unique)
                yield match, answer

    def _counted(self, ask: Ask, level: Level | None, keys: Sequence[Key]) -> _Pairs:
        """One query; whether it looks as if the remote had more than it listed."""
        self._queries += 1
        count = 0
        try:
            for pair in ask(level, keys):
                count += 1
                yield pair
        except DimseFailure as error:
            if error.status in TOO_MANY and (count or self.spec.split):
                return True
            raise
        cap = self.work.remote.find_cap
        # Within one study or series a round number means nothing: many have 100 images.
        return looks_capped(count, cap) and (cap is not None or not is_pinned(level, keys))

    # --- recording

    def _keep(self, found: DecodedMatch) -> None:
        self.number += 1
        uniques = {level: found.unique(level) or None for level in _COLUMNS}
        repeats = self._is_known(found, uniques)
        if not repeats:
            self._matches += 1
            self._nameless += self._level is not None and not uniques[self._level]
            wrong = against(self._judge.of(found.answer))
            self._wrong += bool(wrong)
            self._against.update(wrong)
        row: dict[str, Any] = {
            "job_id": self.work.record.lease.job_id,
            "item_id": self.row.id,
            "fence": self.work.record.lease.fence,
            "number": self.number,
            "attributes": _encode(found.attributes()),
            "character_set": found.answer.character_set,
            "flaw": found.answer.flaw,
            "transfer_syntax_uid": found.match.transfer_syntax,
            "data": found.match.data,
            "repeats": repeats,
        }
        for level, column in _COLUMNS.items():
            row[column] = uniques[level]
        self._rows.append(row)
        bounds = self.work.tuning.records
        if len(self._rows) >= bounds.matches or time.monotonic() - self._flushed >= bounds.seconds:
            self._flush()

    def _is_known(self, found: DecodedMatch, uniques: Mapping[Level, str | None]) -> bool:
        """Whether its unique key came before: some archives list a study once for each of its images."""
        level = self._level
        if level is None or not uniques[level]:
            return False
        if level is Level.PATIENT:
            # Another issuer's patient is another one (PS3.3 C.7.1.1).
            parts = f"{uniques[level]}\0{found.answer.first(_ISSUER)}"
        else:
            parts = "\0".join([str(uniques[one]) for one in self._name])
        # A digest, since there may be a million of them.
        key = hashlib.blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if key in self._seen:
            return True
        self._seen.add(key)
        return False

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self.work.record.write(lambda connection: matches.add(connection, self.row.id, rows), matches=self._matches)
        self._flushed = time.monotonic()

    # --- what came of it

    def _refused(self, error: DimseFailure) -> Answered:
        told = [error.comment] if error.comment else []
        if self.number:
            told.append(f"after {_matches(self._matches)}")
        return Answered(
            item_id=self.row.id,
            answer=self.work.status(self.spec.service, error.status),
            status=error.status,
            detail="; ".join(told) or None,
        )

    def _answered(self) -> Answered:
        reason, detail = self._came_to()
        if reason:
            return self.work.local(self.row, reason, detail)
        return Answered(item_id=self.row.id, answer=self.work.status(self.spec.service, 0), status=0, detail=detail)

    def _came_to(self) -> tuple[Reason | None, str]:
        """The reason for anything less than all there is, the gravest first, and all that is to be told."""
        told = [_matches(self._matches) + (f" in {self._queries:,} queries" if self._halves.halved else "")]
        told += [self._repeated()] * (self.number > self._matches) + self._contradicted()
        if self._halves.ignored:
            return Reason.SPLIT_NOT_POSSIBLE, "; ".join([*told, self._halves.ignored])
        if self._stuck:
            more = f" and {len(self._stuck) - 1:,} more" if len(self._stuck) > 1 else ""
            return Reason.SLICE_STILL_CAPPED, "; ".join([*told, f"more than it lists: {self._stuck[0]}{more}"])
        if self._nameless:
            return NO_KEY, "; ".join([*told, nameless_sentence(self._nameless)])
        if self._halves.gaps:
            return Reason.SPLIT_LEAVES_GAPS, "; ".join([*told, self._halves.gaps])
        if self._capped:
            return Reason.MAYBE_TRUNCATED, "; ".join(told)
        if self._wrong or self._passed_over:
            return Reason.KEYS_NOT_KEPT_TO, "; ".join(told)
        return (Reason.LISTED_MORE_THAN_ONCE if self.number > self._matches else None), "; ".join(told)

    def _repeated(self) -> str:
        return f"{self.number:,} answers came, {self.number - self._matches:,} of them repeat another"

    def _contradicted(self) -> list[str]:
        """What does not have what was asked for, without a value of it."""
        keys = " and ".join(named(self._against))
        told = []
        if self._wrong:
            verb = "contradicts its" if self._matches == 1 else "contradict their"
            told.append(f"{self._wrong:,} of {_matches(self._matches)} {verb} keys")
        if self._passed_over:
            told.append(f"{self._passed_over:,} above them contradict the keys and were not looked into")
        return [*told[:-1], f"{told[-1]}: this archive does not match on {keys}"] if told else []


def _is_zoned(answer: DecodedIdentifier) -> bool:
    """Whether its dates and times are in a zone of its own, so that they may be others here."""
    return f"{matching.TIMEZONE_OFFSET:08X}" in answer.attributes


def _matches(number: int) -> str:
    return f"{number:,} match{'' if number == 1 else 'es'}"
