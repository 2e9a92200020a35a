"""An archive and an index that is a list: what comes in, without a network and a database."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pydicom import dcmread

from dicomferry.models.record.archive.index import Received
from dicomferry.models.record.database import Database
from dicomferry.models.rules.errors import OutOfReach
from dicomferry.workers.dimse.acceptor import Incoming, StatusReply
from dicomferry.workers.dimse.wire.associate_as_acceptor import AssociateRequest
from dicomferry.workers.dimse.wire.contexts import Context
from dicomferry.workers.receiving import archive_check
from dicomferry.workers.receiving.archive import OWN, Archive
from dicomferry.workers.receiving.draft import Draft
from dicomferry.workers.receiving.indexer import Indexer, Tuning
from dicomferry.workers.receiving.ingest import Ingest
from dicomferry.workers.receiving.journal import Journal
from support import samples

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
MR = "1.2.840.10008.5.1.4.1.1.4"
CALLER = AssociateRequest(1, "FERRY", "SENDER", "", (), 0, b"")


class Site:
    """An archive and an index that is a list; `ingest` makes what takes an instance."""

    ingest: Callable[..., Ingest] = Ingest

    def __init__(self, folder: Path, **indexer: Any) -> None:
        self.archive = Archive(folder / "archive")
        self.archive.prepare()
        self.rows: list[Received] = []
        self.number = 0
        self.away = False
        journal = Journal(self.archive.root / OWN / "journal")
        tuning = Tuning(**{"pause_seconds": 0.01, **indexer})
        self.indexer = Indexer(Database("sqlite://"), journal, record=self._record, tuning=tuning)

    def _record(self, database: Database, batch: Any) -> None:
        if self.away:
            raise OutOfReach("away")
        self.rows += batch

    def sink(self, uid: str, syntax: str = EXPLICIT, sop_class: str = MR, spare: Draft | None = None) -> Ingest:
        self.number += 1
        incoming = Incoming(
            request=CALLER,
            number=self.number,
            context=Context(1, sop_class, (syntax,), 0, syntax),
            sop_class_uid=sop_class,
            sop_instance_uid=uid,
            message_id=7,
            originator_ae_title=None,
            originator_message_id=None,
        )
        return self.ingest(self.archive, self.indexer, incoming, association="a" * 32, address="127.0.0.1", spare=spare)

    def receive(
        self, data: bytes, uid: str, syntax: str = EXPLICIT, sop_class: str = MR, size: int = 512 * 1024
    ) -> StatusReply:
        """One C-STORE whose data set comes in buffers of `size`."""
        sink = self.sink(uid, syntax, sop_class)
        try:
            for at in range(0, len(data), size):
                sink.take([memoryview(data)[at : at + size]])
            return sink.finish()
        finally:
            sink.discard()

    def receive_file(self, path: Path, **options: Any) -> StatusReply:
        """The data set of a DICOM file."""
        ds = dcmread(path, stop_before_pixels=True)
        return self.receive(
            data_of(path), str(ds.SOPInstanceUID), str(ds.file_meta.TransferSyntaxUID), str(ds.SOPClassUID), **options
        )

    @property
    def files(self) -> list[str]:
        return list(self.archive.files())

    @property
    def only(self) -> Path:
        (path,) = self.files
        return self.archive.root / path

    @property
    def waiting(self) -> list[Received]:
        """What was handed to the index."""
        return [entry.received for entry in self.indexer._waiting]

    @property
    def looked_at(self) -> list[Received]:
        """The same as its rows will have it."""
        return [found for found in map(partial(archive_check.look, self.archive), self.waiting) if found]


def data_of(path: Path) -> bytes:
    """A file's data set as it stands there."""
    with path.open("rb") as file:
        file.seek(140)
        length = struct.unpack("<L", file.read(4))[0]
        file.seek(144 + length)
        return file.read()


def encoded(syntax: str = EXPLICIT, **elements: object) -> bytes:
    """A small image; pydicom warns of UIDs that tests set on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = samples.dataset(size=16)
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
        return samples.encoded(ds, syntax)
