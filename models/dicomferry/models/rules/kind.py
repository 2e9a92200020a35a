"""The kinds of jobs and chunks, and the lanes they wait in: the same words on record, in JSON and in queues."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What a job asks for, and what a chunk of it does; the chunk that turns a job into others is its plan."""

    ECHO = "echo"
    FIND = "find"
    MOVE = "move"
    GET = "get"
    STORE = "store"
    PLAN = "plan"


JOBS = tuple(kind for kind in Kind if kind is not Kind.PLAN)
"""What a person can ask for."""


class Lane(StrEnum):
    """Where chunks wait: what is over at once does not stand behind what takes long."""

    QUICK = "quick"
    BULK = "bulk"
