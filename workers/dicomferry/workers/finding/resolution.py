"""What the keys of a retrieve match: the archive's answers, held against the keys before anything is fetched.

Archives that do not match on a key list what does not have it, and whatever they list would be fetched.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from dicomferry.models.rules import matching, query
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import local
from dicomferry.models.rules.errors import ContextNotAccepted, DimseFailure
from dicomferry.models.rules.query import UNIQUE, Key, Level
from dicomferry.models.rules.reason import Reason
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.target import Target
from dicomferry.workers.attempts.fault import Fault
from dicomferry.workers.dimse.find import Ask, Match
from dicomferry.workers.dimse.identifier import DecodedIdentifier, vr_of
from dicomferry.workers.finding import walk
from dicomferry.workers.finding.judged import Judge, LeftOut, against, named, number_of

UNDECIDED = Reason.ANSWERS_UNDECIDED
_TOLD = 20


class KeyTrials(Protocol):
    """What is known of the keys that an archive matches on."""

    def matches_on(self, level: str, path: str) -> bool:
        """Whether the archive was found to match on a key of a level."""

    def keep(self, level: str, path: str) -> None:
        """Note that the archive matches on this key."""

    def drop(self, level: str, path: str) -> None:
        """Note that the archive does not match on this key."""


@dataclass
class Noted:
    """What was odd about the matches of an identifier: how many came without their unique key, whether the list of
    them may be cut.
    """

    nameless: int = 0
    capped: bool = False

    def cut(self) -> None:
        """Note that as many answers came as the archive lists at most."""
        self.capped = True

    def passing(self, level: Level, match: walk.DecodedMatch) -> None:
        """Count a match that was walked through, if it has no unique key."""
        self.nameless += not match.unique(level)

    def add(self, other: Noted) -> None:
        """Add what was odd elsewhere."""
        self.nameless += other.nameless
        self.capped |= other.capped

    def to_json(self) -> dict[str, Any] | None:
        """What the request keeps of it; None where nothing was odd."""
        return {name: value for name, value in asdict(self).items() if value} or None


@dataclass
class Resolved:
    """The targets, and the answers that are none because they contradict the keys."""

    targets: list[Target] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)
    noted: Noted = field(default_factory=Noted)


def resolve(
    ask: Ask, remote: Remote, root: str, level: Level, keys: Sequence[Key], trials: KeyTrials, trusted: frozenset[str]
) -> Resolved:
    """The targets that the keys match.

    Raises Fault where the archive refuses the query, or where its answers leave open whether they match and it does not
    match on that key, unless the key is in `trusted`; and what `walk` raises.
    """
    noted = Noted()
    judging = _Judging(walk.heeding_caps(ask, remote.find_cap, noted.cut), root, trials, trusted)
    try:
        found = list(walk.walk(judging.asked, root, level, keys, whole=False, passing=noted.passing))
    except (DimseFailure, ContextNotAccepted) as error:
        raise refusal(error, remote) from error
    targets: dict[Target, list[str]] = {}
    for match in found:
        values = {one: match.unique(one) for one in query.levels(root)}
        if not values[level]:
            noted.nameless += 1
            continue
        one = Target(
            patient_id=values.get(Level.PATIENT),
            study=values[Level.STUDY] if level is not Level.PATIENT else None,
            series=values[Level.SERIES] if level in (Level.SERIES, Level.IMAGE) else None,
        )
        images = targets.setdefault(one, [])
        if level is Level.IMAGE and values[level]:
            images.append(str(values[level]))
    listed = [replace(one, images=tuple(dict.fromkeys(images))) for one, images in targets.items()]
    return Resolved(listed, judging.left_out, noted)


class Refused(Fault):
    """The archive does not take the query."""


def refusal(error: DimseFailure | ContextNotAccepted, remote: Remote) -> Refused:
    """How an attempt ends whose query was not taken."""
    if isinstance(error, DimseFailure):
        return Refused(lookup.for_status("find", error.status, remote.quirks), str(error), error.status)
    return Refused(lookup.for_status("find", 0x0122), str(error))


class _Judging:
    """Queries whose answers are held against their keys: those that contradict are left out."""

    def __init__(self, ask: Ask, root: str, trials: KeyTrials, trusted: frozenset[str]) -> None:
        self._ask = ask
        self._root = root
        self._trials = trials
        self._trusted = trusted
        self.left_out = LeftOut()

    def asked(self, level: Level | None, keys: Sequence[Key]) -> Iterator[tuple[Match, DecodedIdentifier]]:
        """One query; raises Fault at its end where answers leave open whether they match."""
        assert level is not None
        judge = Judge(self._root, keys)
        doubts: dict[str, bool] = {}
        listed: dict[str, None] = {}
        for match, answer in self._ask(level, keys):
            judged = judge.of(answer)
            wrong = against(judged)
            if wrong:
                self._leave_out(level, wrong)
                continue
            for one in judged:
                if one.outcome is matching.UNDECIDED and one.path not in self._trusted:
                    # One that has a value which does not tell is not settled by whether the archive matches.
                    doubts[one.path] = doubts.get(one.path, True) and one.wants_value
            uid = answer.first(UNIQUE[Level.STUDY]) or answer.first(UNIQUE[level])
            listed[uid or "one without a UID"] = None
            yield match, answer
        for path, wants_value in doubts.items():
            self._decide(level, keys, path, wants_value, list(listed))

    def _leave_out(self, level: Level, wrong: Sequence[str]) -> None:
        for path in wrong:
            if path not in self.left_out.against:
                self._trials.drop(level, path)
        self.left_out.add(level, wrong)

    def _decide(self, level: Level, keys: Sequence[Key], path: str, wants_value: bool, listed: Sequence[str]) -> None:
        """Take answers without a value from an archive that matches on the key; raises Fault for all others."""
        why = "some differ from it only in case, padding or leading zeros, or cannot be read for certain"
        if wants_value:
            if path in self.left_out.against:
                why = "some have no value, and it does not match on that key"
            elif self._trials.matches_on(level, path) or self._matches_on(level, keys, path):
                return
            else:
                why = "they have no value, and it lists the same when it is asked for a value that nobody has"
        (key,) = named({path: 1})
        more = f" and {len(listed) - _TOLD:,} more" if len(listed) > _TOLD else ""
        trust = f"--trust-answers {key}"
        raise Fault(
            local(
                UNDECIDED,
                "see by `submit find` with the same keys what it lists; where that is right: "
                f"`dicomferry remote set NAME {trust}`, then release, or submit it again with {trust}",
            ),
            f"the archive's answers do not tell whether they have {key} as asked: {why}; "
            f"{number_of(len(listed), level)} would be fetched: {', '.join(listed[:_TOLD])}{more}",
        )

    def _matches_on(self, level: Level, keys: Sequence[Key], path: str) -> bool:
        """Ask the same for a value that nobody has: whoever lists anything then does not match on the key."""
        nobody = nobodys_value(vr_of(query.steps_of(path)[-1][0]))
        asked = [(name, nobody if name == path else value) for name, value in keys]
        answers = iter(self._ask(level, asked))
        try:
            found = next(answers, None)
        except DimseFailure:
            return False
        finally:
            if isinstance(answers, Generator):  # which cancels the query
                answers.close()
        if found is None:
            self._trials.keep(level, path)
        return found is None


def nobodys_value(vr: str) -> str:
    """A value of this VR that no entity has, as far as anybody can tell."""
    token = secrets.token_hex(5).upper()
    values = {
        "UI": f"2.25.{int(token, 16)}{secrets.randbelow(10**20)}",
        "DA": "18010203",
        "TM": "033359.173911",
        "DT": "18010203033359.173911",
        "IS": "-2047483647",
        "DS": "-7173911.25",
        "AS": "997Y",
        "AT": "FFFDFFFD",
        "US": "65521",
        "SS": "-32749",
        "UL": "4294967291",
        "SL": "-2147483629",
        "UV": "18446744073709551557",
        "SV": "-9223372036854775783",
        "FL": "-7173911.25",
        "FD": "-7173911.25",
    }
    # Sixteen characters are the most of a CS, AE or SH.
    return values.get(vr, f"NONE{token}")
