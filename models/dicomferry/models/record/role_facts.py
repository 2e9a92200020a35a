"""What a role writes down when it begins, for whoever asks later, in another environment, what runs."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from dicomferry.models.record.database import hide_password
from dicomferry.models.settings import Settings


def version() -> str | None:
    """The version of this program, None where it is not installed."""
    try:
        return metadata.version("dicomferry")
    except metadata.PackageNotFoundError:
        return None


def of_role(role: str, settings: Settings) -> dict[str, Any]:
    """Version, and the settings that matter to this role and to who works with it; no password."""
    found: dict[str, Any] = {
        "version": version(),
        "home": str(settings.home),
        "ae_title": settings.ae_title,
        "database": hide_password(settings.database),
        "broker": hide_password(settings.broker) if settings.broker else "embedded",
    }
    if role == "scp":
        scp = settings.scp
        found |= {
            "host": scp.host,
            "port": scp.port,
            "public_host": scp.public_host,
            "public_port": scp.public_port,
            "accept": scp.accept,
            "processes": scp.processes,
            "max_associations": scp.max_associations,
            "per_caller": scp.per_caller,
            "idle": scp.idle,
            "archive": str(settings.archive),
            "reserve_bytes": scp.reserve_bytes,
            "flush": scp.flush,
            "log_bytes": scp.log_bytes,
        }
    if role == "worker":
        found |= {"workers": settings.workers, "lease_seconds": settings.lease_seconds}
    return found
