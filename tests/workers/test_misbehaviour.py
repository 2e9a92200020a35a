"""What archives do instead of what they should, and how a retrieve ends for each: state, reason, counts, proof.

docs/misbehaviour.md says the same to people, and is held against this table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import samples
from support.misbehaviour import NAMED, OF_GET
from support.qr_catalogue import Catalogue
from support.qr_peer import Manners, QrPeer
from support.retrieving import STUDY, TITLE, Site, archived
from support.samples import Sample

DOCUMENT = Path(__file__).parents[2] / "docs" / "misbehaviour.md"
COUNT = 20
"""Instances of the study that is asked for: 12 and 8 in two series."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How the job ends. `reason` is that of the job while it is held, else of the instances that failed, or, where
    there are none, of the request.
    """

    state: str = "succeeded"
    reason: str | None = None
    received: int = COUNT
    expected: int | None = COUNT
    failed: int = 0
    surplus: int = 0
    expectation: str | None = "images"
    verified: str | None = "uids"

    @property
    def proof(self) -> str | None:
        """What `verified` says: nothing as long as the job is held, and nothing proves that nothing came."""
        return {"held": None, "failed": "none"}.get(self.state, self.verified)


def nothing_known(reason: str) -> Ending:
    """Held before anything could be asked."""
    return Ending(state="held", reason=reason, received=0, expected=None, expectation=None)


GOOD = Ending()
UNREACHED = Ending(state="held", reason="archive cannot reach us", received=0)
ONE_SHORT = Ending(state="incomplete", reason="not delivered", received=COUNT - 1, failed=1)

ENDINGS: dict[str, Ending] = {
    "success with zero sub-operations": UNREACHED,
    "success, no counters, nothing sent": UNREACHED,
    "success with all failed": UNREACHED,
    "counters missing": GOOD,
    "counters that decrease": GOOD,
    "0xB000 with everything there": GOOD,
    "0xA702 with everything there": GOOD,
    "a status that the Standard does not have": UNREACHED,
    "final answers announce a data set and send none": GOOD,
    "the list of what failed stands in the command set": ONE_SHORT,
    "0xA801: does not know our AE title": Ending(state="held", reason="move destination unknown", received=0),
    "0xA701 always": UNREACHED,
    "0xA701 at first": GOOD,
    "0xC000, no association made": UNREACHED,
    "all failed, no association made": UNREACHED,
    "IMAGE level of C-MOVE refused": GOOD,
    "lists of UIDs refused": GOOD,
    "says that it has more than it lists": Ending(
        state="incomplete", reason="listing not whole", received=COUNT - 2, verified="counts"
    ),
    "lists nothing below the study, and no number": Ending(expectation="unknown", verified="none", expected=None),
    "lists a study once for each of its images": GOOD,
    "IMAGE level of C-FIND refused": Ending(expectation="counts", verified="counts"),
    "C-FIND refused, C-MOVE accepted": Ending(expectation="unknown", verified="none", expected=None),
    "C-FIND has no presentation context": Ending(expectation="unknown", verified="none", expected=None),
    "the association is refused: called AE title": nothing_known("called AE title not recognized"),
    "the association is refused at first: busy": GOOD,
    "TCP accepts only": nothing_known("no answer"),
    "on slow media, back a little later": GOOD,
    "on slow media for good": Ending(state="held", reason="nearline", received=0),
    "listed as unavailable": Ending(state="failed", reason="unavailable", received=0, failed=COUNT),
    "aborts midway": GOOD,
    "aborts at one instance": Ending(state="incomplete", reason="aborted", received=COUNT - 1, failed=1),
    "pending for ever": Ending(state="held", reason="no progress", received=0),
    "pending for ever, until it is cancelled": Ending(state="held", reason="no progress", received=0),
    "silent, and deaf to C-CANCEL": Ending(state="held", reason="no progress", received=0),
    "the final answer never comes, everything arrived": GOOD,
    "slow but alive": GOOD,
    "the final answer before the stores": GOOD,
    "drops every tenth sub-operation": GOOD,
    "one instance never comes": ONE_SHORT,
    "one instance never comes, success said": ONE_SHORT,
    "one instance comes only when it is asked for alone": GOOD,
    "one instance is gone by then": Ending(state="incomplete", reason="gone at source", received=COUNT - 1, failed=1),
    "duplicates": GOOD,
    "other patients' objects as well": Ending(surplus=3),
    "more of the study than it lists": Ending(surplus=3),
    "a different study than the one asked for": Ending(
        state="failed", reason="not delivered", received=0, failed=COUNT, surplus=4
    ),
    "grows at the source between": Ending(reason="grew at source", received=COUNT + 3, expected=COUNT + 3),
    "nothing matches": Ending(state="failed", reason="no match", received=0, expected=0, expectation=None),
    "a wrong calling AE title": GOOD,
    "no move originator": GOOD,
    "a wrong calling AE title, and no move originator": GOOD,
    "a transfer syntax that our SCP refuses": Ending(
        state="incomplete", reason="context refused here", received=COUNT - 1, failed=1
    ),
    "an instance under another UID": ONE_SHORT,
}
FEW = {"pending for ever", "pending for ever, until it is cancelled", "silent, and deaf to C-CANCEL", "0xA701 always"}
"""Those that cost seconds a request; three instances show the same."""


def catalogue(folder: Path, name: str, count: int) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """(the study that is asked for, another patient's, what comes to the first one later)."""

    def made(study: str, series: int, first: int, number: int, patient: str) -> list[Sample]:
        return [
            samples.instance(
                folder / f"{study}-{series}-{one}.dcm", study=(name, study), series=series, number=one, size=8,
                patient_id=patient,
            )
            for one in range(first, first + number)
        ]  # fmt: skip

    first = count * 3 // 5
    asked = made("asked", 1, 1, first, "P1") + made("asked", 2, 1, count - first, "P1")
    return asked, made("other", 1, 1, 4, "P2"), made("asked", 2, 100, 3, "P1")


NOT_SENT = Ending(state="failed", reason="not delivered", received=0, failed=COUNT)
OVER_GET: dict[str, Ending] = {
    "success with zero sub-operations": NOT_SENT,
    "success, no counters, nothing sent": NOT_SENT,
    "counters missing": GOOD,
    "0xB000 with everything there": GOOD,
    "0xA702 with everything there": GOOD,
    "lists of UIDs refused": GOOD,
    "IMAGE level of C-FIND refused": ENDINGS["IMAGE level of C-FIND refused"],
    "C-FIND refused, C-MOVE accepted": ENDINGS["C-FIND refused, C-MOVE accepted"],
    "final answers announce a data set and send none": GOOD,
    "the list of what failed stands in the command set": ONE_SHORT,
    "aborts midway": GOOD,
    "aborts at one instance": ENDINGS["aborts at one instance"],
    "pending for ever": ENDINGS["pending for ever"],
    "the final answer never comes, everything arrived": GOOD,
    "slow but alive": GOOD,
    "drops every tenth sub-operation": GOOD,
    "one instance never comes": ONE_SHORT,
    "one instance comes only when it is asked for alone": GOOD,
    "one instance is gone by then": ENDINGS["one instance is gone by then"],
    "duplicates": GOOD,
    "other patients' objects as well": ENDINGS["other patients' objects as well"],
    "grows at the source between": ENDINGS["grows at the source between"],
    "nothing matches": ENDINGS["nothing matches"],
    "an instance under another UID": ONE_SHORT,
    "the roles that C-GET needs are not granted": NOT_SENT,
    "C-GET has no presentation context": Ending(state="failed", reason="context refused", received=0, failed=COUNT),
}
"""The same over C-GET, where it differs at all: nobody has to reach us."""


def end(name: str, manners: Manners, method: str, ending: Ending, here: Site, folder: Path) -> None:
    """Run one retrieve against a peer of these manners, and compare how it ends."""
    count = 3 if name in FEW else COUNT
    asked, other, later = catalogue(folder, f"{method} {name}", count)
    with QrPeer(Catalogue([*asked, *other]), manners=manners, destinations={TITLE: here.scp.port}, later=later) as peer:
        submit = here.move if method == "move" else here.get
        job_id = submit(peer.address, (STUDY, asked[0].study_instance_uid))
        job = here.drive(job_id)
    told = here.story(job_id)
    less = COUNT - count
    failed = here.reasons(job_id) or {here.request(job_id)["reason"]}
    assert (job["state"], {job["reason"]} if job["state"] == "held" else failed) == (
        ending.state, {ending.reason}
    ), told  # fmt: skip
    assert (job["expectation"], job["verified"]) == (ending.expectation, ending.proof), told
    expected = ending.expected and ending.expected - less
    received = ending.received and ending.received - less
    assert (job["received"], job["expected"], job["surplus"]) == (received, expected, ending.surplus), told
    instances = [item for item in here.items(job_id) if item["kind"] == "instance"]
    assert sum(item["state"] == "failed" for item in instances) == ending.failed, told
    wanted = [*asked, *later] if received > count else asked
    came = set(archived(here.scp)) & samples.uids(wanted)
    assert len(came) == received, told
    here.check(job_id)


# What test_media shows as well, by a clock that it moves.
LONG = {"on slow media for good"}


@pytest.mark.parametrize(
    "name", [name if name not in LONG else pytest.param(name, marks=pytest.mark.long) for name in NAMED]
)
def test_each_misbehaviour_has_its_ending(name: str, here: Site, tmp_path: Path) -> None:
    """None hangs; nothing that did not come is called here; what came is neither lost nor doubted; the reason says
    whose fault it is.
    """
    here.tune(cancel_seconds=1.0)
    end(name, NAMED[name], "move", ENDINGS[name], here, tmp_path)


# What C-MOVE shows as well, and takes long.
PATIENT = {"slow but alive", "pending for ever", "the final answer never comes, everything arrived"}


@pytest.mark.parametrize(
    "name", [name if name not in PATIENT else pytest.param(name, marks=pytest.mark.long) for name in OVER_GET]
)
def test_the_same_over_c_get(name: str, here: Site, tmp_path: Path) -> None:
    """A C-GET ends like a C-MOVE, but that nobody has to call us: what did not come was not delivered."""
    here.tune(cancel_seconds=1.0)
    end(name, (NAMED | OF_GET)[name], "get", OVER_GET[name], here, tmp_path)


def test_every_misbehaviour_is_written_down() -> None:
    """docs/misbehaviour.md has a line for each, with the state and the reason that these tables have; of C-GET those
    that differ.
    """
    for_moves, _, for_gets = DOCUMENT.read_text().partition("## Over C-GET")
    assert set(ENDINGS) == set(NAMED)
    assert written(for_moves) == {name: (ending.state, ending.reason) for name, ending in ENDINGS.items()}
    assert written(for_gets) == {
        name: (ending.state, ending.reason) for name, ending in OVER_GET.items() if ending != ENDINGS.get(name)
    }


def written(text: str) -> dict[str, tuple[str, str | None]]:
    """Name -> (state, reason) of the lines of a table."""
    lines = re.findall(r"^\| (.+?) \| (\w+) \| (.*?) \|", text, re.MULTILINE)
    return {name: (state, reason.strip("`") or None) for name, state, reason in lines if name in NAMED | OF_GET}
