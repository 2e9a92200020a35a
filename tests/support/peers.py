"""The real peers: DCMTK's storescp and dcmqrscp, and Orthanc."""

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pydicom import dcmread

from support.process import LOOPBACK, Server, find, free_port, require
from support.stores import PostgresCluster, RedisServer

__all__ = [
    "DcmQrScp",
    "Orthanc",
    "PostgresCluster",
    "PynetdicomScp",
    "RedisServer",
    "StoreScp",
    "find",
    "free_port",
    "require",
]

# Not through a proxy of the environment: all peers are on loopback.
_http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class StoreScp(Server):
    """DCMTK's storescp: takes every SOP class and transfer syntax, writes what it receives (+B).

    Two instances with one UID leave one file; `stores()` counts what came.
    """

    binary = "storescp"

    def __init__(self, aet: str = "STORESCP", *options: str, port: int | None = None, accept_all: bool = True) -> None:
        super().__init__(port)
        self.aet = aet
        self.options = options
        self.accept_all = accept_all
        self.received_folder = self.folder / "received"
        self.received_folder.mkdir()

    def command(self) -> list[str]:
        syntaxes = ["+xa"] if self.accept_all else []
        return [
            self.program, "-v", "--fork", "-dhl", "-aet", self.aet, "-pm", "+B", *syntaxes,
            "-od", str(self.received_folder), *self.options, str(self.port),
        ]  # fmt: skip

    def files(self) -> list[Path]:
        return sorted(path for path in self.received_folder.iterdir() if path.is_file())

    def received(self) -> dict[str, Path]:
        """SOP Instance UID (of the data set, not of the file's name or meta group) -> file."""
        found: dict[str, Path] = {}
        for path in self.files():
            dataset = dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
            found[str(dataset.SOPInstanceUID)] = path
        return found

    def stores(self) -> int:
        """How many C-STORE requests came, repeated ones included.

        Its children share the log: one's line may begin behind what another has written of its own.
        """
        return self.log.read_text(errors="replace").count("I: Received Store Request")

    def associations(self) -> int:
        """How many associations were accepted."""
        return self.log.read_text(errors="replace").count("I: Association Acknowledged")


class PynetdicomScp(Server):
    """pynetdicom's own storescp app: every standard storage class, every transfer syntax that it knows."""

    binary = "env"

    def __init__(self, *options: str, port: int | None = None) -> None:
        super().__init__(port)
        self.options = options
        self.received_folder = self.folder / "received"

    def command(self) -> list[str]:
        output = ["-od", str(self.received_folder)]
        return [sys.executable, "-m", "pynetdicom", "storescp", "-ba", LOOPBACK, *output, *self.options, str(self.port)]

    def received(self) -> dict[str, Path]:
        """SOP Instance UID -> file."""
        return {path.name.partition(".")[2]: path for path in self.received_folder.glob("*")}


class DcmQrScp(Server):
    """DCMTK's dcmqrscp: a small archive. `destinations` (AE title -> port, at `destination_host`) are those that
    it can move to.

    It takes uncompressed transfer syntaxes and re-encodes; mixed syntaxes are for Orthanc.
    """

    binary = "dcmqrscp"

    def __init__(
        self,
        aet: str = "QRSCP",
        *options: str,
        destinations: dict[str, int] | None = None,
        destination_host: str = "localhost",
        port: int | None = None,
    ) -> None:
        super().__init__(port)
        self.aet = aet
        self.destination_host = destination_host
        self.options = options
        self.destinations = dict(destinations or {})
        self.storage = self.folder / "storage"
        self.storage.mkdir()
        self.config = self.folder / "dcmqrscp.cfg"

    def prepare(self) -> None:
        hosts = [
            f"host{n} = ({aet}, {self.destination_host}, {port})"
            for n, (aet, port) in enumerate(self.destinations.items())
        ]
        lines = [
            f"NetworkTCPPort = {self.port}",
            "MaxPDUSize = 131072",
            "MaxAssociations = 64",
            "HostTable BEGIN",
            *hosts,
            "HostTable END",
            "VendorTable BEGIN",
            "VendorTable END",
            "AETable BEGIN",
            f"{self.aet} {self.storage} RW (100000, 16384mb) ANY",
            "AETable END",
        ]
        self.config.write_text("\n".join(lines) + "\n", encoding="ascii")

    def command(self) -> list[str]:
        return [self.program, "-v", "-dhl", "+B", "-c", str(self.config), *self.options, str(self.port)]


class Orthanc(Server):
    """Orthanc with an archive of its own: every SOP class and transfer syntax, no plugins, else its defaults.

    `modalities` (AE title -> port) are those that it can move to; `settings` go over ours.
    """

    binary = "Orthanc"

    def __init__(
        self,
        aet: str = "ORTHANC",
        *,
        modalities: dict[str, int] | None = None,
        settings: dict[str, Any] | None = None,
        port: int | None = None,
    ) -> None:
        super().__init__(port)
        self.aet = aet
        self.http_port = free_port()
        self.modalities = dict(modalities or {})
        self.settings = dict(settings or {})
        self.config = self.folder / "orthanc.json"

    def prepare(self) -> None:
        configuration: dict[str, Any] = {
            "Name": "dicomferry test",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "HttpServerEnabled": True,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomServerEnabled": True,
            "DicomAet": self.aet,
            "DicomPort": self.port,
            "DicomCheckCalledAet": False,
            "DicomCheckModalityHost": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "AcceptedTransferSyntaxes": ["1.2.840.10008.1.*"],
            "UnknownSopClassAccepted": True,
            "DicomModalities": {aet: [aet, LOOPBACK, port] for aet, port in self.modalities.items()},
            "StableAge": 1,
            "Plugins": [],
        }
        self.config.write_text(json.dumps({**configuration, **self.settings}, indent=1), encoding="utf-8")

    def command(self) -> list[str]:
        return [self.program, "--verbose", str(self.config)]

    def ready(self) -> bool:
        if not super().ready():
            return False
        try:
            self.get("/system")
        except (OSError, ValueError):
            return False
        return True

    def instances(self) -> set[str]:
        """The SOP Instance UIDs that it holds."""
        found = self.post("/tools/find", {"Level": "Instance", "Query": {}, "Expand": True})
        return {entry["MainDicomTags"]["SOPInstanceUID"] for entry in found}

    def count(self) -> int:
        """How many instances it holds; cheaper than asking for their UIDs."""
        return int(self.get("/statistics")["CountInstances"])

    def dicom(self, sop_instance_uid: str) -> bytes:
        """One instance as it would hand it out: a DICOM file."""
        found = [entry["ID"] for entry in self.post("/tools/lookup", sop_instance_uid) if entry["Type"] == "Instance"]
        if len(found) != 1:
            raise LookupError(f"Orthanc has {len(found)} instances {sop_instance_uid}")
        return self.request("GET", f"/instances/{found[0]}/file")

    def upload(self, content: bytes) -> None:
        """Puts one DICOM file into the archive, without DIMSE."""
        self.request("POST", "/instances", content)

    def set_modality(self, aet: str, port: int) -> None:
        """Makes a move destination known while it runs."""
        self.modalities[aet] = port
        body = {"AET": aet, "Host": LOOPBACK, "Port": port}
        self.request("PUT", f"/modalities/{aet}", json.dumps(body).encode())

    def get(self, path: str) -> Any:
        return json.loads(self.request("GET", path))

    def post(self, path: str, body: object) -> Any:
        data = body if isinstance(body, str) else json.dumps(body)
        return json.loads(self.request("POST", path, data.encode()))

    def request(self, method: str, path: str, data: bytes | None = None) -> bytes:
        url = f"http://{LOOPBACK}:{self.http_port}{path}"
        with _http.open(urllib.request.Request(url, data=data, method=method), timeout=60) as answer:
            content: bytes = answer.read()
        return content
