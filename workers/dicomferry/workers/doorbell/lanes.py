"""The queue as the rest of the program sees it: lanes that can be rung.

A ring says only "there is work in lane L". Losing one costs seconds, because the sweep rings again; doubling one costs
a claim that finds nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from dicomferry.models.rules.kind import Lane
from dicomferry.models.settings import Settings

QUICK, BULK = Lane
RINGS_PER_SLOT = 2
"""Nobody rings while a lane's queue is longer than this many times the slots."""


class Doorbell(Protocol):
    """Something that wakes workers."""

    def ring(self, lane: str) -> str | None:
        """Wake one worker for this lane. Never raises and never blocks for long; what went wrong, in a sentence."""


def embedded_note(home: Path) -> Path:
    """The file in which a running `up` says where its embedded broker listens."""
    return home / "run" / "broker.json"


def broker_url(settings: Settings) -> str | None:
    """The broker in use: the one that was set, else the embedded one of a running `up`, else None."""
    if settings.broker:
        return kombu_url(settings.broker)
    try:
        note = json.loads(embedded_note(settings.home).read_text())
        return str(note["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def kombu_url(url: str) -> str:
    """A broker_url, checked with the settings, in the form that kombu takes."""
    parts = urlsplit(url)
    if parts.scheme in ("unix", "redis+socket"):
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        return f"redis+socket://{user}{quote(parts.path, safe='/%')}" + (f"?{parts.query}" if parts.query else "")
    return url
