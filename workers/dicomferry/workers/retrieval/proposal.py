"""What an attempt at a C-GET proposes: the SOP classes of what is missing, and in which transfer syntaxes."""

from __future__ import annotations

from dicomferry.models.record.database import Database
from dicomferry.models.record.jobs.claims import Lease
from dicomferry.models.record.remotes import book
from dicomferry.models.record.retrieves import expected, moves
from dicomferry.models.record.retrieves.request import Request
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.spec import GetSpec, MoveSpec
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.dimse import get, storage_classes
from dicomferry.workers.finding import listing
from dicomferry.workers.retrieval.get_association import GetLine, Store


def line(database: Database, lease: Lease, heart: Heartbeat, remote: Remote, request: Request, store: Store) -> GetLine:
    """Where C-GET is asked for what is missing of the chunk."""
    assert isinstance(lease.spec, MoveSpec | GetSpec)
    root = lease.spec.root
    told: list[str] | None = None

    def classes() -> list[str]:
        nonlocal told
        found = expected.missing_classes(database, lease.chunk_id)
        named = [one for one in found if one]
        if found and len(named) == len(found):
            return named
        if told is None:
            told = listing.classes(remote, root, request.targets, heart)
        return list(dict.fromkeys([*named, *(told or (storage_classes.CLASSES if named else ()))]))

    # What was preferred brought not everything, or was ill encoded: then it is asked for otherwise.
    plainly = moves.asks_plainly(database, lease.chunk_id)
    prefer = book.PLAIN if plainly else remote.prefer_syntax if not request.rounds else None
    return GetLine(
        remote,
        root,
        store,
        lease,
        heart,
        classes,
        part=request.rounds,
        compressed_first=moves.is_repair(database, lease.chunk_id),
        only=get.narrowed(prefer),
    )
