"""The operation find: one query, walked down and halved where that is needed, its matches recorded as they come."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from dicomferry.models import match_store, query, slices
from dicomferry.models.database import AnyRow
from dicomferry.models.errors import ContextNotAccepted, DimseFailure, UsageError
from dicomferry.models.proof import NO_KEY, is_pinned, looks_capped, nameless_sentence
from dicomferry.models.query import UNIQUE, Key, Level
from dicomferry.models.slices import Slice
from dicomferry.models.spec import FindSpec
from dicomferry.workers.dimse import find as c_find
from dicomferry.workers.dimse import walk
from dicomferry.workers.dimse.association import open_association
from dicomferry.workers.dimse.find import FindStopped, Match
from dicomferry.workers.dimse.identifier import Answer
from dicomferry.workers.dimse.walk import Ask, Found
from dicomferry.workers.operations import Answered, Work

RECORD_MATCHES = 500
RECORD_SECONDS = 0.5
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
_Pairs = Generator[tuple[Match, Answer], None, bool]


def find(work: Work) -> Iterator[Answered]:
    """One C-FIND an item; ends without an answer to the item when it is broken off."""
    for row in work.feed:
        answered = Inquiry(work, row).run()
        if answered is None:
            return
        yield answered


class Inquiry:
    """One request item from its query to its answer."""

    def __init__(self, work: Work, row: AnyRow) -> None:
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
        self._ignored: Slice | None = None
        self._halved = False

    def run(self) -> Answered | None:
        """Ask, record, and say what came of it; None when it was broken off."""
        work = self.work
        model = query.find_model(self.spec.root, worklist=self.spec.worklist)
        work.record.write(lambda connection: match_store.clear(connection, self.row.id), matches=0)
        with open_association(work.remote, [c_find.proposal(model)], progress=work.heart.progress) as association:
            work.heart.on_abort(association.abort)
            ask = walk.asker(association, model, stop=lambda: work.heart.stop)
            try:
                for found in self._found(ask):
                    self._keep(found)
            except FindStopped:
                return None
            except ContextNotAccepted as error:
                return work.local(self.row, "query not offered", str(error))
            except UsageError as error:
                return work.local(self.row, "not encodable", str(error))
            except DimseFailure as error:
                self._flush()
                return self._refused(error)
            self._flush()
            return self._answered()

    def _found(self, ask: Ask) -> Iterator[Found]:
        spec = self.spec
        if spec.worklist:
            asked = self._counted(ask, None, spec.keys)
            yield from (Found(match, answer, {}, {}) for match, answer in asked)
            return
        level = Level(spec.level)
        yield from walk.walk(
            lambda level, keys: self._asked(ask, level, keys),
            spec.root,
            level,
            spec.keys,
            whole=self.work.remote.relational,
            passing=self._passing,
        )

    def _passing(self, level: Level, found: Found) -> None:
        self._nameless += not found.unique(level)

    def _asked(self, ask: Ask, level: Level | None, keys: Sequence[Key]) -> Iterator[tuple[Match, Answer]]:
        """One query of the walk; what is too much for the remote is halved, if that was asked for."""
        # What is below a study is bounded by it: no date halves that.
        if not self.spec.split or level is Level.PATIENT or is_pinned(level, keys):
            self._capped += yield from self._counted(ask, level, keys)
            return
        seen: set[str] = set()
        waiting = [slices.whole(tuple(keys), datetime.now(UTC).date())]
        while waiting and self._ignored is None:
            part = waiting.pop()
            if (yield from self._part(ask, level, keys, part, seen)):
                self._halved = True
                halves = part.halves() if self._queries < MAX_QUERIES else None
                if halves is None:
                    self._stuck.append(part)
                else:
                    waiting += reversed(halves)

    def _part(self, ask: Ask, level: Level | None, keys: Sequence[Key], part: Slice, seen: set[str]) -> _Pairs:
        """One slice: what of it was not seen yet; whether the remote had more than it listed."""
        pairs = self._counted(ask, level, slices.replaced(tuple(keys), part))
        while True:
            try:
                match, answer = next(pairs)
            except StopIteration as end:
                return bool(end.value)
            if not part.holds(answer.first(query.STUDY_DATE)):
                self._ignored = part
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

    def _keep(self, found: Found) -> None:
        self.number += 1
        self._nameless += not (self.spec.worklist or found.unique(Level(self.spec.level)))
        row: dict[str, Any] = {
            "job_id": self.work.record.held.job_id,
            "item_id": self.row.id,
            "fence": self.work.record.held.fence,
            "number": self.number,
            "attributes": json.dumps(found.attributes(), separators=(",", ":")),
            "character_set": found.answer.character_set,
            "flaw": found.answer.flaw,
            "transfer_syntax_uid": found.match.transfer_syntax,
            "data": found.match.data,
        }
        for level, column in _COLUMNS.items():
            row[column] = found.unique(level) or None
        self._rows.append(row)
        if len(self._rows) >= RECORD_MATCHES or time.monotonic() - self._flushed >= RECORD_SECONDS:
            self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self.work.record.write(
                lambda connection: match_store.add(connection, self.row.id, rows), matches=self.number
            )
        self._flushed = time.monotonic()

    # --- what came of it

    def _refused(self, error: DimseFailure) -> Answered:
        told = [error.comment] if error.comment else []
        if self.number:
            told.append(f"after {_matches(self.number)}")
        return Answered(
            item_id=self.row.id,
            answer=self.work.status(self.spec.service, error.status),
            status=error.status,
            detail="; ".join(told) or None,
        )

    def _answered(self) -> Answered:
        told = _matches(self.number)
        if self._halved:
            told += f" in {self._queries:,} queries; studies without a date or time are not covered"
        local = self.work.local
        if self._ignored is not None:
            told = f"{told}; asked for {self._ignored}, it listed studies of other days"
            return local(self.row, "split not possible", told)
        if self._stuck:
            more = f" and {len(self._stuck) - 1:,} more" if len(self._stuck) > 1 else ""
            return local(self.row, "slice still capped", f"{told}; more than it lists: {self._stuck[0]}{more}")
        if self._nameless:
            return local(self.row, NO_KEY, f"{told}; {nameless_sentence(self._nameless)}")
        if self._capped:
            return local(self.row, "maybe truncated", told)
        return Answered(item_id=self.row.id, answer=self.work.status(self.spec.service, 0), status=0, detail=told)


def _matches(number: int) -> str:
    return f"{number:,} match{'' if number == 1 else 'es'}"
