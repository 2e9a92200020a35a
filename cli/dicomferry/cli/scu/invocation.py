"""One command line of `dicomferry scu`, read and checked: what every mode works from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dicomferry.models.rules.remote import Remote, Timeouts, host_and_port

Mode = Literal["echo", "store", "find", "move", "get"]
Level = Literal["patient", "study", "series", "image"]
RootWord = Literal["patient", "study"]

# Silence of the peer, in seconds; no more than a minute, because scripts wrap the command in `timeout`.
CONNECT_SECONDS = 10.0
ACSE_SECONDS = 30.0
DIMSE_SECONDS = 60.0
QUIET_SECONDS = Timeouts().quiet
"""What an archive says that it sent and that has not come is waited for as long as something comes, and so much
longer."""

MAX_PDU = 16384
"""The longest PDU that we offer to take, as gdcmscu does."""


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """What was asked for. Paths are as they were typed; AE titles have no surrounding blanks.

    `files`: those of -i, then the positional ones. `keys`: (tag, value) in the order of the command line, the value's
    bytes as they were typed, without padding; the first of two equal tags counts. `level` and `root` are None where
    none was given (the level is study then). `output`: where received files go. `output_is_long`: it was given as
    `--output`. The seconds bound the peer's silence while connecting, associating, and between two messages.
    """

    mode: Mode
    host: str
    port: int
    calling: str = "GDCMSCU"
    called: str = "ANY-SCP"
    level: Level | None = None
    root: RootWord | None = None
    worklist: bool = False
    keys: tuple[tuple[int, bytes], ...] = ()
    files: tuple[str, ...] = ()
    recursive: bool = False
    output: str = "."
    output_is_long: bool = False
    port_scp: int | None = None
    store_query: str | None = None
    log_file: str | None = None
    verbose: bool = False
    warning: bool = False
    debug: bool = False
    error: bool = False
    transcode: bool = False
    record: bool = False
    connect_seconds: float = CONNECT_SECONDS
    acse_seconds: float = ACSE_SECONDS
    dimse_seconds: float = DIMSE_SECONDS
    quiet_seconds: float = QUIET_SECONDS

    @property
    def address(self) -> str:
        """`host:port`, which names the peer in messages."""
        return host_and_port(self.host, self.port)

    @property
    def service(self) -> str:
        """The service whose table says what the peer's statuses mean: a worklist has its own."""
        return "worklist" if self.worklist else self.mode

    @property
    def remote(self) -> Remote:
        """The peer, as the association layer wants it."""
        return Remote(
            name=self.called,
            ae_title=self.called,
            host=self.host,
            port=self.port,
            calling_ae_title=self.calling,
            timeouts=Timeouts(
                connect=self.connect_seconds,
                acse=self.acse_seconds,
                first_answer=self.dimse_seconds,
                store_answer=self.dimse_seconds,
                progress=self.dimse_seconds,
            ),
        )
