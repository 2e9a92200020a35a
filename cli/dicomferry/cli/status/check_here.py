"""`dicomferry status --check --here`: whether this host's own roles do their work; asks neither database nor broker.

So it costs little, and what is away elsewhere makes nobody restart a role that does what it can.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from dicomferry.cli.frame import words
from dicomferry.daemon.pulse import Beat
from dicomferry.models.rules.errors import DimseError
from dicomferry.models.rules.remote import Remote, Timeouts, host_and_port
from dicomferry.models.settings import Settings

LEAST_SECONDS = 60.0
"""A pulse younger than that is one; so is one younger than twice the time that a role waits for its database."""
ECHO_SECONDS = 5.0


def problems(settings: Settings, beats: Sequence[Beat], roles: Sequence[str]) -> Iterator[str]:
    """What is wrong with these roles of this host, or with all that are there; `beats` are their last pulses."""
    found = {beat.role: beat for beat in beats}
    where = f"on {socket.gethostname()}"
    if not roles and not found:
        yield f"no role of ours runs {where}"
    for role in roles or found:
        beat = found.get(role)
        if beat is None:
            yield f"no {role} runs {where}"
            continue
        if beat.age > max(LEAST_SECONDS, 2 * settings.lease_seconds):
            silent = words.duration(beat.age)
            yield f"the {role} {where}, process {beat.pid}, stands still: no sign of life for {silent}"
        elif role == "scp" and (why := _does_not_answer(settings)):
            yield f"the storage SCP {where}, process {beat.pid}, {why}"


def told(beats: Sequence[Beat], roles: Sequence[str]) -> str:
    """What runs here, in words."""
    return ", ".join(words.plural(1, beat.role) for beat in beats if beat.role in roles or not roles)


def _does_not_answer(settings: Settings) -> str | None:
    """Why the storage SCP does not answer a C-ECHO of this host; None where it does."""
    from dicomferry.workers.dimse.echo import echo

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.scp.host, settings.scp.host)
    waits = Timeouts(connect=ECHO_SECONDS, acse=ECHO_SECONDS, first_answer=ECHO_SECONDS, progress=ECHO_SECONDS)
    itself = Remote(
        name="itself",
        ae_title=settings.ae_title,
        host=host,
        port=settings.scp.port,
        calling_ae_title=settings.ae_title,
        timeouts=waits,
    )
    try:
        status = echo(itself).status
    except DimseError as error:
        return f"does not answer at {host_and_port(host, settings.scp.port)}: {error}"
    return None if status == 0 else f"answers a C-ECHO with 0x{status:04X}"
