"""What the gate answered, counted as it goes and handed to the ledger every few seconds: a write for each answer would cost more than it.

An answer that was given and not yet handed over is lost with a process that is killed; a hub that stops in order hands over first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import structlog

from hub.holds.ledger import iso
from hub.storage.facts import Facts, Needs
from hub.storage.writer import StorageBusy

log = structlog.get_logger("hub.gate")

Keep = Literal["none", "counts", "rows"]
EVERY: dict[Keep, float] = {"none": 10.0, "counts": 10.0, "rows": 1.0}  # seconds
MOST_CAMPAIGNS = 1_000  # told apart between two hand-overs; their names are whatever the callers write
MOST_ROWS = 20_000  # receipts waiting while the database takes nothing; answers beyond are counted alone
ROWS = 500  # receipts of one event
OTHERS = "(others)"


class About(NamedTuple):
    """What a question was asked for, in the words of whoever asked."""

    campaign: str = ""
    channel: str = ""
    brand: str = ""
    message_class: str = "marketing"


@dataclass(slots=True)
class Tally:
    """Answers since the last hand-over. Times are microseconds UTC; a receipt comes with whether it said held."""

    since: int
    until: int
    asked: int = 0
    held: int = 0
    degraded: int = 0
    receipts: list[tuple[str, bool]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class NoteAnswers:
    """State what the gate answered for one campaign; the ledger of proof is filled from that."""

    about: About
    asked: int
    held: int
    since: int
    until: int
    degraded: int = 0
    receipts: tuple[tuple[str, bool], ...] = ()

    def needs(self, needs: Needs) -> None: ...

    def decide(self, facts: Facts) -> None:
        told: dict[str, Any] = {
            "campaign": self.about.campaign,
            "brand": self.about.brand,
            "class": self.about.message_class,
            "channel": self.about.channel,
            "asked": self.asked,
            "held": self.held,
            "degraded": self.degraded,
            "since": iso(self.since),
            "until": iso(self.until),
        }
        if self.receipts:
            told["receipts"] = self.receipts
        facts.emit("gate.answered", data=json.dumps(told))


class Answers:
    """Counts answers in memory and hands them over. `start` it with the hub and `stop` it before the database closes."""

    def __init__(self, run: Callable[[NoteAnswers], Awaitable[None]], keep: Keep) -> None:
        self._run = run
        self._keep: Keep = keep
        self._tallies: dict[About, Tally] = {}
        self._rows = 0
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def count(self, about: About, receipt: str, now: int, *, held: int, asked: int = 1, degraded: int = 0) -> None:
        """Note one answer about `asked` identifiers, of which so many were held, and so many answered without the database."""
        if self._keep == "none":
            return
        tally = self._tallies.get(about)
        if tally is None:
            if len(self._tallies) >= MOST_CAMPAIGNS:
                about = About(campaign=OTHERS)
            tally = self._tallies.setdefault(about, Tally(now, now))
        tally.until = max(tally.until, now)
        tally.asked += asked
        tally.held += held
        tally.degraded += degraded
        if self._keep == "rows" and self._rows < MOST_ROWS:
            self._rows += 1
            tally.receipts.append((receipt, held > 0))

    async def flush(self) -> None:
        """Hand over what was counted. What the database does not take now stays counted, and goes with the next time."""
        taken, self._tallies, self._rows = self._tallies, {}, 0
        while taken:
            about, tally = next(iter(taken.items()))
            first, tally.receipts = tuple(tally.receipts[:ROWS]), tally.receipts[ROWS:]
            try:
                await self._run(NoteAnswers(about, tally.asked, tally.held, tally.since, tally.until, tally.degraded, first))
            except StorageBusy as error:
                tally.receipts[:0] = first
                for kept, before in taken.items():
                    self._put_back(kept, before)
                log.warning("answers of the gate are handed over later", campaigns=len(taken), error=str(error))
                return
            if tally.receipts:  # the counts went with the first of them
                tally.asked = tally.held = tally.degraded = 0
            else:
                del taken[about]

    def _put_back(self, about: About, before: Tally) -> None:
        now = self._tallies.setdefault(about, Tally(before.since, before.until))
        now.since, now.until = min(now.since, before.since), max(now.until, before.until)
        now.asked, now.held, now.degraded = now.asked + before.asked, now.held + before.held, now.degraded + before.degraded
        now.receipts[:0] = before.receipts
        self._rows += len(before.receipts)

    async def start(self) -> None:
        if self._keep != "none":
            self._ending.clear()
            self._task = asyncio.create_task(self._serve(), name="gate answers")

    async def _serve(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY[self._keep]):
                    await self._ending.wait()
            try:
                await self.flush()
            except Exception:
                log.exception("answers of the gate could not be handed over")

    async def stop(self) -> None:
        """Hand over the rest. Not by cancelling: a hand-over cut short might be counted twice."""
        self._ending.set()
        if self._task is not None:
            await self._task
            self._task = None
        await self.flush()
