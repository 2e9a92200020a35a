"""What ends an attempt before its work is done: a fault that an answer judges, or a stop that was asked for."""

from __future__ import annotations

from dicomferry.models.rules.answers.lookup import Answer


class Fault(Exception):
    """What ends an attempt before its work is done: the answer that decides how it goes on, and a sentence."""

    def __init__(self, answer: Answer, detail: str | None = None, status: int | None = None) -> None:
        super().__init__(detail or answer.reason)
        self.answer = answer
        self.detail = detail
        self.status = status


class Stopped(Exception):
    """Ends an attempt because cancel, hold or drain was asked for."""
