"""What a writer is: where decisions become rows. Two engines, one meaning.

A handler hands over plain work and awaits its outcome; it is answered only after COMMIT. Whatever waits at that moment commits
as one transaction, and while one batch is being written the next one gathers: there is no artificial wait.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from hub.policy import Policy
from hub.storage.facts import Work
from hub.storage.records import Event

R = TypeVar("R")
MAX_WAITING = 4_096
MAX_AGE = 2.0  # seconds the oldest waiting unit may have waited before new ones are refused
OnCommit = Callable[[Sequence[Event], bool], None]
Clock = Callable[[], int]


class StorageBusy(Exception):
    """The database cannot take this now. Nothing of it was stored (or, where the connection broke during COMMIT, nobody can
    say): the sender should try again, and what was stored after all is recognised by its key."""


class Unstorable(Exception):
    """The database cannot hold what one unit of work would write. Nothing of it was stored; trying again does not help.

    Without the database's own words: they quote values."""


class Writer(Protocol):
    """Where decisions become rows."""

    clock: Clock  # microseconds UTC
    policy: Policy  # the rules decisions follow

    async def run(self, work: Work[R]) -> R:
        """Decide and commit one unit of work, batched with whatever else waits.

        Raises StorageBusy when it was not committed (the queue is full, the disk refused, the hub is closing), and whatever the
        work's own `decide` raised, alone among its batch.
        """
        ...

    async def close(self) -> None: ...


def wall_clock() -> int:
    """Microseconds UTC."""
    return time.time_ns() // 1_000


class Unit:
    """A piece of work that waits, and who waits for it."""

    __slots__ = ("future", "since", "work")

    def __init__(self, work: Work[Any], future: asyncio.Future[Any], since: float) -> None:
        self.work = work
        self.future = future
        self.since = since


def admit(waiting: deque[Unit], now: float) -> None:
    """Refuse new work where too much waits, or for too long. Raises StorageBusy."""
    if waiting and (len(waiting) >= MAX_WAITING or now - waiting[0].since > MAX_AGE):
        raise StorageBusy("The database is behind. Nothing was stored; try again shortly.")


def answer(outcomes: Sequence[tuple[Unit, Any]]) -> None:
    """Tell everybody what became of their work. In the event loop."""
    for unit, outcome in outcomes:
        if unit.future.done():  # its caller stopped waiting; what was committed stays
            continue
        if isinstance(outcome, StopIteration):  # a future takes any exception but this one
            unit.future.set_exception(RuntimeError("a unit of work raised StopIteration"))
        elif isinstance(outcome, BaseException):
            unit.future.set_exception(outcome)
        else:
            unit.future.set_result(outcome)
