"""An archive that a test makes up: what it holds, lists, says and sends, without a network; and a site that retrieves
from it by the product's own attempt, into an archive of real files. Time is made up as well.

It stands in for C-FIND at `walk.asker` and for C-MOVE at the line of an attempt; everything above is the product's own.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dicomferry.models.documents import jobs, retrieves
from dicomferry.models.record import presence
from dicomferry.models.record.archive import calls, index
from dicomferry.models.record.archive.index import Arrival, Received
from dicomferry.models.rules import query, spec
from dicomferry.models.rules.query import UNIQUE, Key, Level
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.target import Target
from dicomferry.workers.dimse.find import Match
from dicomferry.workers.dimse.identifier import DecodedIdentifier
from dicomferry.workers.dimse.reports import Report
from dicomferry.workers.finding import listing, walk
from dicomferry.workers.receiving import archive_mark
from dicomferry.workers.receiving.archive import Archive
from dicomferry.workers.retrieval import blame, lines
from support.inline import Inline

MR, SYNTAX = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.2.1"
TITLE, ADDRESS = "FABLED", "FABLED@127.0.0.1:9"
STUDY = "1.2.826.0.1.3680043.8.498.1"
FOREVER = 99
ASTRAY = 8
"""The series of what nobody listed."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """One instance. `listed`: at IMAGE level; `silent`: never sent either, and no answer counts it.

    `fails` is how often sending it fails, as `manner` says: the archive refuses it, or says that it went.
    It is there from the `appears`-th request on and no more from the `vanishes`-th (0: always). `here`: a file of it
    lies here before; `gone`: or only its row; `flawed`: or one with this flaw; `astray`: or one that nobody lists: with
    its UID in another `series` or `study`, or an`other` one of the study. The first `spoiled` times it comes with the
    flaw `with_flaw`.
    """

    series: int
    listed: bool = True
    silent: bool = False
    fails: int = 0
    manner: str = "refused"
    twice: bool = False
    appears: int = 0
    vanishes: int = 0
    here: bool = False
    gone: bool = False
    flawed: str | None = None
    astray: str | None = None
    spoiled: int = 0
    with_flaw: str = "pixels:"


@dataclass(frozen=True, kw_only=True)
class Fable:
    """What an archive holds, and how it speaks. A number is `right`, `low`, `high`, `as listed` or not said (None)."""

    images: tuple[Image, ...]
    study_number: str | None = "right"
    series_number: str | None = "right"
    cap: int | None = None
    names_failed: bool = True
    counted: bool = True
    seconds: float = 1
    """What goes by between a request and the first that it brings."""
    lists: str = "taken"
    """What becomes of a request for several UIDs: `taken`, `refused`, or its `first` alone is sent."""


@dataclass(frozen=True)
class Sent:
    """An image as it comes: well, or with a flaw; or another instance, see `Image.astray`."""

    place: int
    flaw: str | None = None
    astray: str | None = None

    @property
    def unlike(self) -> str:
        """What tells its file from the one that is expected."""
        return f".{self.astray}" if self.astray else f".{self.flaw.rstrip(':').replace(' ', '-')}" if self.flaw else ""


@dataclass
class FabledArchive:
    """One study of a fable, while it is retrieved. `held` is what it held since when, `attempted` what it tried."""

    fable: Fable
    study: str
    site: FabledSite
    requests: int = 0
    tried: Counter[int] = field(default_factory=Counter)
    spoiled: Counter[int] = field(default_factory=Counter)
    held: list[tuple[datetime, frozenset[int]]] = field(default_factory=list)
    attempted: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.note()

    def series(self, number: int) -> str:
        return f"{self.study}.{number + 1}"

    def uid(self, place: int) -> str:
        return f"{self.series(self.fable.images[place].series)}.{place + 1}"

    def body(self, place: int, unlike: str = "") -> bytes:
        return f"pixels of {self.uid(place)}{unlike}".encode()

    def present(self) -> list[int]:
        """What it holds now."""
        return [
            place
            for place, one in enumerate(self.fable.images)
            if one.appears <= self.requests and not (one.vanishes and self.requests >= one.vanishes)
        ]

    def note(self) -> None:
        """Remember what it holds, and since when."""
        now = frozenset(self.present())
        if not self.held or self.held[-1][1] != now:
            self.held.append((self.site.inline.clock.time, now))

    def at(self, moment: datetime) -> frozenset[int]:
        """What it held then."""
        return [held for since, held in self.held if since <= moment][-1]

    # --- C-FIND

    def ask(self, level: Level | None, keys: Sequence[Key]) -> Iterator[tuple[Match, DecodedIdentifier]]:
        """The answers to a query."""
        self.site.pass_time(0.01)
        assert level is not None
        asked = {tag: query.value_of(keys, UNIQUE[tag]) or None for tag in Level}
        for values in list(self._answers(level, asked)):
            attributes = {f"{tag:08X}": {"vr": "UI", **({"Value": [v]} if v else {})} for tag, v in values.items()}
            yield Match(b"", SYNTAX, False), DecodedIdentifier(attributes, "ISO_IR 192")

    def _answers(self, level: Level, asked: dict[Level, str | None]) -> Iterator[dict[int, str | None]]:
        if asked[Level.STUDY] not in (None, self.study):
            return
        there = self.present()
        study: dict[int, str | None] = {UNIQUE[Level.STUDY]: self.study}
        if level is Level.STUDY:
            if there:
                yield study | {query.RELATED_INSTANCES[level]: self._number(self.fable.study_number, there)}
            return
        wanted = (asked[Level.SERIES] or "").split("\\")
        listed = 0
        for number in sorted({self.fable.images[place].series for place in there}):
            own = study | {UNIQUE[Level.SERIES]: self.series(number)}
            if wanted != [""] and self.series(number) not in wanted:
                continue
            mine = [place for place in there if self.fable.images[place].series == number]
            if level is Level.SERIES:
                yield own | {query.RELATED_INSTANCES[level]: self._number(self.fable.series_number, mine)}
                continue
            for place in mine:
                if self.fable.images[place].listed and (self.fable.cap is None or listed < self.fable.cap):
                    listed += 1
                    yield own | {UNIQUE[Level.IMAGE]: self.uid(place), query.SOP_CLASS_UID: MR}

    def _listed(self, places: Sequence[int]) -> int:
        return sum(self.fable.images[place].listed for place in places)

    def _number(self, how: str | None, places: Sequence[int]) -> str | None:
        numbers = {"right": len(places), "low": max(0, len(places) - 1), "high": len(places) + 1}
        return None if how is None else str(numbers.get(how, self._listed(places)))

    # --- C-MOVE

    def move(self, one: Target, message_id: int) -> Report:
        """Send what is asked for; its final answer."""
        self.requests += 1
        self.site.pass_time(self.fable.seconds)
        self.note()
        if len(one.images) > 1 and self.fable.lists == "refused":
            return Report(status=0xA900, completed=0, failed=0, warning=0)
        if len(one.images) > 1 and self.fable.lists == "first":
            one = replace(one, images=one.images[:1])
        sent: list[Sent] = []
        refused: list[str] = []
        completed = 0
        for place in self.present():
            image = self.fable.images[place]
            asked = one.holds(self.study, self.series(image.series)) and (
                not one.images or self.uid(place) in one.images
            )
            if not asked or image.silent:
                continue
            self.attempted.add(place)
            failing = self.tried[place] < image.fails
            self.tried[place] += 1
            if failing and image.manner == "refused":
                refused.append(self.uid(place))
                continue
            times = 2 if image.twice else 1
            completed += times
            if not failing:
                flaw = image.with_flaw if self.spoiled[place] < image.spoiled else None
                self.spoiled[place] += 1
                sent += [Sent(place, flaw)] * times
        self.site.receive(self, sent, message_id)
        self.site.pass_time(1)
        status = 0x0000 if not refused else 0xB000 if completed else 0xA702
        report = Report(status=status, completed=completed, failed=len(refused), warning=0)
        if not self.fable.counted:
            report = replace(report, completed=None, failed=None, warning=None)
        return replace(report, failed_uids=tuple(refused) if self.fable.names_failed else ())


@dataclass
class _Answered:
    """A request whose answer is there. See `Retrieval`."""

    report: Report
    stores: int = 0

    def poll(self, seconds: float) -> Report:
        """The final answer."""
        return self.report

    def cancel(self) -> None:
        """Too late."""


class _Line:
    """Where the archive of this moment is asked."""

    def __init__(self, site: FabledSite) -> None:
        self._site = site
        self.refused: dict[int, Any] = {}

    def ask(self, one: Target, message_id: int, move_id: int) -> _Answered:
        """Ask for it."""
        assert self._site.archive is not None
        return _Answered(self._site.archive.move(one, message_id))

    def abort(self) -> None:
        """Nothing is open."""

    def release(self) -> None:
        """Nothing is open."""


class FabledSite:
    """A record, an archive of real files, and a worker for which every peer is a fable."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inline = Inline(folder, monkeypatch, ae_title="FERRY", timeouts={"quiet": 0.02, "settle": 60.0})
        self.root = self.inline.settings.archive
        archive_mark.prepare(Archive(self.root), self.inline.database)
        self.scp = presence.register(self.inline.database, "scp", slots=0)
        self.archive: FabledArchive | None = None
        self.number = 0
        self._files: dict[Path, tuple[str, str]] = {}
        began = self.inline.clock.time
        self._ends = contextlib.ExitStack()
        self._ends.enter_context(self.inline)
        self._bring_back = self._ends.enter_context(self.inline.moment())
        self.inline.environment = replace(
            self.inline.environment,
            clock=lambda: (self.inline.clock.time - began).total_seconds(),
            sleep=self.pass_time,
        )
        monkeypatch.setattr(calls, "living_scps", lambda *_, **__: frozenset({self.scp.id}))
        monkeypatch.setattr(blame, "why_nothing_came", lambda *_, **__: None)
        monkeypatch.setattr(walk, "asker", lambda *_, **__: self._ask)
        monkeypatch.setattr(listing, "inquiry", self._inquiry)
        monkeypatch.setattr(lines, "MoveLine", lambda *_: _Line(self))

    def close(self) -> None:
        """No more fables."""
        self._ends.close()

    def _ask(self, level: Level | None, keys: Sequence[Key]) -> Iterator[tuple[Match, DecodedIdentifier]]:
        assert self.archive is not None
        return self.archive.ask(level, keys)

    @contextlib.contextmanager
    def _inquiry(self, remote: Remote, root: str, heart: object) -> Iterator[Any]:
        @dataclass
        class Association:
            remote: Remote

        yield Association(remote)

    def pass_time(self, seconds: float) -> None:
        """So many seconds go by."""
        self.inline.clock.move(seconds)

    def receive(self, archive: FabledArchive, sent: Sequence[Sent], message_id: int | None) -> None:
        """Our storage SCP takes these: the file, then its rows."""
        batch = []
        for one in sent:
            self.number += 1
            place = one.place
            path = self.root / f"{archive.uid(place)}{one.unlike}"
            uid = archive.uid(place) + (".9" if one.astray == "other" else "")
            study = f"{archive.study}.9.9" if one.astray == "study" else archive.study
            series = archive.series(ASTRAY if one.astray else archive.fable.images[place].series)
            first = not path.exists()
            rival = any(name != path and owner == (uid, series) for name, owner in self._files.items())
            path.write_bytes(archive.body(place, one.unlike))
            self._files[path] = uid, series
            batch.append(
                Received(
                    path=path.name, size=path.stat().st_size, sop_instance_uid=uid,
                    sop_class_uid=MR, transfer_syntax_uid=SYNTAX, study_instance_uid=study,
                    series_instance_uid=series, relation="conflict" if rival else "first",
                    flaw=one.flaw, stored_at=self.inline.clock.time,
                    arrival=Arrival(
                        association="fable", number=self.number,
                        outcome="duplicate" if not first else "conflict" if rival else "stored",
                        calling_ae_title=TITLE, called_ae_title="FERRY", address="127.0.0.1", message_id=1,
                        originator_ae_title="FERRY" if message_id else None, originator_message_id=message_id,
                        at=self.inline.clock.time,
                    ),
                )
            )  # fmt: skip
        if batch:
            index.record(self.inline.database, batch)

    def _lies_here(self, archive: FabledArchive) -> None:
        """What was here before the retrieve."""
        for place, image in enumerate(archive.fable.images):
            if image.astray:
                self.receive(archive, [Sent(place, astray=image.astray)], None)
            if image.flawed:
                self.receive(archive, [Sent(place, image.flawed)], None)
            if image.here or image.gone:
                self.receive(archive, [Sent(place)], None)
            if image.gone:
                (self.root / archive.uid(place)).unlink()
        self.pass_time(1)

    def has(self, archive: FabledArchive, place: int) -> bool:
        """Whether an instance lies here as the archive has it."""
        path = self.root / archive.uid(place)
        return path.exists() and path.read_bytes() == archive.body(place)

    def retrieve(self, fable: Fable) -> tuple[FabledArchive, Any, Any]:
        """(the archive, the job, its request) once the job has ended; of the fables before nothing is left."""
        archive, job, (request,) = self._run(fable, [(None, ((f"{UNIQUE[Level.STUDY]:08X}", STUDY),))], "study")
        return archive, job, request

    def retrieve_each(self, fable: Fable) -> tuple[FabledArchive, Any, list[Any]]:
        """The same of a request for each image, in their order."""
        named = FabledArchive(fable, STUDY, self)
        identifiers: list[spec.Identifier] = []
        for place, image in enumerate(fable.images):
            values = {
                Level.STUDY: STUDY,
                Level.SERIES: named.series(image.series),
                Level.IMAGE: named.uid(place),
            }
            identifiers.append((place, tuple((f"{UNIQUE[level]:08X}", value) for level, value in values.items())))
        return self._run(fable, identifiers, "image")

    def _run(
        self, fable: Fable, identifiers: Sequence[spec.Identifier], level: str
    ) -> tuple[FabledArchive, Any, list[Any]]:
        for path in self._files:
            path.unlink(missing_ok=True)
        self._files.clear()
        self._bring_back()
        archive = self.archive = FabledArchive(fable, STUDY, self)
        self._lies_here(archive)
        what = spec.MoveSpec(identifiers=tuple(identifiers), level=level)
        job_id = self.inline.submit(ADDRESS, what)
        self.inline.drain(job_id)
        database = self.inline.database
        return archive, jobs.show(database, job_id), list(retrieves.requests(database, job_id))
