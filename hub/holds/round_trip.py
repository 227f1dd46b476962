"""A live round trip on a test profile: held in the tool, read back until it shows, let go, read back again, each step timed.

What a connector's own tests cannot know is this account: its key, its fields, its lag. The profile is somebody's of the business, who
gets no campaigns for a minute; should the hub die meanwhile, the hold runs out by itself after an hour.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from hub.contract import Http, NoAnswer, NotSent, Refused, TryLater
from hub.holds.gate import Asked, ask, hits_of, judge, look_up
from hub.holds.ledger import iso
from hub.marketing import Fate, MarketingTool, ReadBack, Wish
from hub.policy import SECOND, Refusal
from hub.storage.facts import Facts, Needs
from hub.storage.hot import HotReads
from hub.storage.records import Setting

HELD_FOR = 3_600 * SECOND
PATIENCE = 60 * SECOND  # how long reading back is tried for one step
ASK_EVERY = 1.0  # seconds
BROKEN_AFTER = 5 * 60 * SECOND  # a trip that says nothing for so long was broken off with its process

REASON = "round_trip"
RUNNING, DONE, FAILED = "running", "done", "failed"


@dataclass(frozen=True, slots=True)
class Leg:
    """One step that is over: what was done, whether it went well, and how long it took in milliseconds."""

    text: str
    ok: bool
    took_ms: int


@dataclass(frozen=True, slots=True)
class Trip:
    """A round trip as far as it has come. `state` is `running`, `done` or `failed`; times are microseconds."""

    kind: str
    value: str
    state: str
    begun_at: int
    noted_at: int
    legs: tuple[Leg, ...] = ()
    doing: str = ""  # what it is at now
    error: str = ""

    def text(self) -> str:
        return json.dumps(asdict(self))

    def broken_off(self, now: int) -> bool:
        """Whether it went on no further, its process being gone. Pure."""
        return self.state == RUNNING and now - self.noted_at > BROKEN_AFTER

    def going(self, now: int) -> bool:
        return self.state == RUNNING and not self.broken_off(now)


def trip_in(text: str) -> Trip:
    """The reverse of `Trip.text`."""
    said = json.loads(text)
    return Trip(**said | {"legs": tuple(Leg(**leg) for leg in said["legs"])})


def setting_of(tool: str) -> str:
    """The key of the setting that keeps the last round trip of a tool."""
    return f"tool.{tool}.round_trip"


@dataclass(frozen=True, slots=True)
class NoteTrip:
    """Keep how far a round trip has come. `begins`: refused while another one is going on."""

    tool: str
    trip: Trip
    begins: bool = False

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("setting", "key", setting_of(self.tool)))

    def decide(self, facts: Facts) -> None:
        """Raises Refusal."""
        found = facts.found[("setting", "key", setting_of(self.tool))]
        if not found:
            facts.insert(Setting(setting_of(self.tool), self.trip.text()))
            return
        if self.begins and trip_in(found[0].value).going(facts.now):
            raise Refusal("A round trip of this tool is going on already. Wait until it is over.")
        found[0].value = self.trip.text()
        facts.change(found[0])


async def is_held(asked: Asked, hot: HotReads, now: int) -> bool:
    """Whether anybody known by this identifier is held now. Raises StorageBusy."""
    return judge(hits_of(asked, await look_up([asked], hot)), now).held


async def chosen(tool: MarketingTool, kind: str, given: str, hot: HotReads, now: int) -> Asked:
    """The test profile somebody chose, in canonical form. Raises Refusal for none, or one of a customer who is held now."""
    if kind not in tool.kinds:
        raise Refusal(f"{tool.label} knows profiles by {', '.join(tool.kinds)}.")
    asked = ask(kind, given.strip())
    if asked.value is None:
        raise Refusal("This identifier cannot be read. Write a phone number with its country, as +1 202 555 0123.")
    if await is_held(asked, hot, now):
        raise Refusal("A customer known by this identifier is held now: the round trip would let them go. Choose a test profile.")
    return asked


def shows(wish: Wish, seen: ReadBack) -> bool:
    """Whether reading shows what was wished. Pure. A second is as fine as some tools keep."""
    if not seen.present or seen.held != wish.held:
        return False
    return not wish.held or _second(seen.until) == _second(wish.until)


def _second(text: str) -> int | None:
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        return None


@dataclass(slots=True)
class RoundTrip:
    """One round trip; `run` it once."""

    tool: MarketingTool
    asked: Asked
    http: Http
    hot: HotReads
    clock: Callable[[], int]
    note: Callable[[Trip], Awaitable[None]]
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep
    trip: Trip = field(init=False)

    def __post_init__(self) -> None:
        now = self.clock()
        self.trip = Trip(self.asked.name, self.asked.value or "", RUNNING, now, now, doing="Marking the profile as held …")

    async def run(self) -> Trip:
        """Hold, read back, let go, read back. Notes each step; nothing of it is raised but a busy database."""
        held = Wish(kind=self.asked.name, value=self.asked.value or "", held=True, until=iso(self.clock() + HELD_FOR), reasons=(REASON,))
        free = replace(held, held=False, until="", reasons=())
        told = False
        try:
            if not await self._mark(held, "The tool took the hold."):
                return await self._end(FAILED)
            told = True
            confirmed = await self._read_back(held, "Reading it back shows the hold.")
            if await is_held(self.asked, self.hot, self.clock()):
                self.trip = replace(self.trip, error="A customer with this identifier came on hold meanwhile: the hold was left in place.")
                return await self._end(FAILED)
            await self._at("Letting the profile go …")
            told = not await self._mark(free, "The tool took the release.")
            freed = not told and await self._read_back(free, "Reading it back shows the profile free.")
            return await self._end(DONE if confirmed and freed else FAILED)
        except (Refused, TryLater, NotSent, NoAnswer) as error:
            left = " " + await self._let_go(free) if told else ""
            self.trip = replace(self.trip, error=f"{error}{left}")
            return await self._end(FAILED)

    async def _let_go(self, free: Wish) -> str:
        """Once more, after something went wrong; what came of it, in words."""
        try:
            [marked] = await self.tool.mark([replace(free, version=self.clock() // 1_000)], self.http, self.clock() / SECOND)
        except (Refused, TryLater, NotSent, NoAnswer):
            return "The profile may stay held there for up to an hour."
        return "The profile was let go again." if marked.fate is Fate.ACCEPTED else "The profile may stay held there for up to an hour."

    async def _mark(self, wish: Wish, text: str) -> bool:
        began = self.clock()
        [marked] = await self.tool.mark([replace(wish, version=began // 1_000)], self.http, began / SECOND)
        if marked.fate is Fate.ACCEPTED:
            await self._done(text, True, began)
            return True
        known = "The tool knows nobody by this identifier. Choose a profile that is there; none is created."
        self.trip = replace(self.trip, error=known if marked.fate is Fate.ABSENT else marked.error)
        return False

    async def _read_back(self, wish: Wish, text: str) -> bool:
        if not self.tool.reads_back:
            await self._done("This tool cannot be asked: look at the profile there yourself.", True, self.clock())
            return True
        await self._at("Reading it back …")
        began, shown = self.clock(), False
        while True:
            now = self.clock()
            [seen] = await self.tool.read([wish], self.http, now / SECOND)
            if not shown and shows(wish, seen):
                shown = True
                await self._done(text, True, began)
                if seen.effective is False:
                    await self._at("Waiting for the tool's own segment to show it …")
            if shown and seen.effective is not False:
                if seen.effective:
                    where = "has it" if wish.held else "has let it go"
                    await self._done(f"The tool's own segment {where}.", True, began)
                return True
            if self.clock() - began >= PATIENCE:
                break
            await self.sleep(ASK_EVERY)
        late = f"after {PATIENCE // SECOND} s"
        if shown:
            await self._done(
                f"The tool's own segment does not follow yet {late}. Campaigns that use it lag by so much and more.", True, began
            )
        else:
            await self._done(f"Reading it back does not show it {late}.", False, began)
        return shown

    async def _done(self, text: str, ok: bool, began: int) -> None:
        leg = Leg(text, ok, (self.clock() - began) // 1_000)
        self.trip = replace(self.trip, legs=(*self.trip.legs, leg), doing="")
        await self._noted()

    async def _at(self, doing: str) -> None:
        self.trip = replace(self.trip, doing=doing)
        await self._noted()

    async def _end(self, state: str) -> Trip:
        self.trip = replace(self.trip, state=state, doing="")
        await self._noted()
        return self.trip

    async def _noted(self) -> None:
        self.trip = replace(self.trip, noted_at=self.clock())
        await self.note(self.trip)
