"""What a submit command asks for, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from dicomferry.models.rules.spec import Spec


class JobOptions(TypedDict):
    """What every kind of job takes."""

    wait: bool
    timeout: float | None
    label: str | None
    priority: str
    not_before: datetime | None
    ignore_window: bool
    as_json: bool


WAITING = ("wait", "timeout", "as_json")
"""Options about what the command does when the job is written down."""


@dataclass(frozen=True)
class Asked:
    """What a submit command asks for: what to do, with which remote, and how."""

    what: Spec
    remote: str
    how: JobOptions

    @property
    def options(self) -> dict[str, Any]:
        """What is written down of how, as `record.jobs.verbs.submit` takes it."""
        return {key: value for key, value in self.how.items() if key not in WAITING}
