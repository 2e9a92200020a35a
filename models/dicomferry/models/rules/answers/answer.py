"""One row of the table of answers, and what all rows of a category have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Rule(StrEnum):
    """What happens next; `retry` turns it into a decision."""

    DONE = "done"
    WARNING = "warning"
    FINAL = "final"
    AGAIN = "again"
    """The item is tried once more, then its failure is final."""
    LATER = "later"
    """Not settled yet: more answers follow, or the item comes back at the end of its chunk."""
    CONGESTED = "congested"
    """The remote has no room or no time: slow down, try again."""
    BROKEN = "broken"
    """The association is gone; the item in flight is charged."""
    AWAY = "away"
    """The remote cannot be used now; no item is charged."""
    SUSPECT = "suspect"
    """Everything for the remote waits, as with AWAY, but is held after three tries in a row."""
    DOUBTFUL = "doubtful"
    """The chunk alone waits, longer each time, and is held after two tries in a row."""
    HOLD = "hold"
    """A person has to change something first."""


class Category(StrEnum):
    """What kind of thing an answer is about."""

    SUCCESS = "success"
    REMARK = "done, with a remark"
    OBJECT = "the object"
    REQUEST = "the request"
    CAPABILITY = "what they offer"
    PERMISSION = "who may"
    RESOURCES = "room and time"
    FAULT = "a fault of theirs"
    PROTOCOL = "the protocol"
    NETWORK = "the network"
    SILENCE = "silence"
    FILE = "the file"
    DELIVERY = "the delivery"
    HERE = "this installation"
    PERSON = "a person's decision"


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What to look at, on which side; None where there is nothing to look at."""

    ours: str | None = None
    theirs: str | None = None
    network: str | None = None


# fmt: off
CHECKS: Mapping[Category, Checks] = {
    Category.SUCCESS: Checks(),
    Category.REMARK: Checks(theirs="their log, if the remark matters"),
    Category.OBJECT: Checks(ours="the object itself, with a validator", theirs="their log: which attribute or value they mind"),
    Category.REQUEST: Checks(ours="the keys, the level and the root that were asked for", theirs="their conformance statement: which keys they take at which level"),
    Category.CAPABILITY: Checks(ours="host, port and AE title: is this the service that was meant?", theirs="whether the service and the SOP class are switched on for us"),
    Category.PERMISSION: Checks(ours="our AE title, and the one that we call them by (dicomferry remote show)", theirs="their entry for us: AE title, address, port, and what it may do", network="whether an address translation hides our address from them"),
    Category.RESOURCES: Checks(ours="how much we ask at once (remote set --max-associations, --max-moves)", theirs="disk, queues, licences, limits of associations"),
    Category.FAULT: Checks(theirs="their log at the time of the answer"),
    Category.PROTOCOL: Checks(ours="host and port: is it a DICOM service?", theirs="the version of their software, and their log", network="proxies and inspecting firewalls between us, which cut or change what passes"),
    Category.NETWORK: Checks(ours="host and port as they stand in the address book", theirs="whether the service runs, and listens on that port", network="routes, firewalls and name service between us"),
    Category.SILENCE: Checks(ours="the time-outs of this remote (dicomferry remote show)", theirs="whether the service is healthy, and what it was doing", network="firewalls that forget idle connections"),
    Category.FILE: Checks(ours="the file, and what the user of the workers may read"),
    Category.DELIVERY: Checks(ours="the log of our storage SCP (dicomferry scp)", theirs="their log: did they send it, and where to?", network="the way from them to our storage SCP"),
    Category.HERE: Checks(ours="what runs here (dicomferry status), and the worker's log"),
    Category.PERSON: Checks(ours="what was decided and why (dicomferry jobs events)"),
}
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One row: the rule, a stable reason word, advice for people, the kind of thing, and the Standard's clause.

    Reason and advice are None for a success; the clause is empty where the Standard says nothing.
    """

    rule: Rule
    reason: str | None
    advice: str | None
    category: Category
    clause: str = ""

    @property
    def checks(self) -> Checks:
        """What to look at, on which side."""
        return CHECKS[self.category]
