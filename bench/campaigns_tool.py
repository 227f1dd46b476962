"""A marketing tool in memory, with the quirks that matter (reference: docs/holds.md): segments that lag, recipients that are fixed when a
campaign is scheduled, an API that fails while campaigns go out, answers that are lost after the write."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from bench.campaigns_world import FREEZES, HOUR, Plan, World, within
from hub.contract import Http, TryLater
from hub.marketing import Campaign, Check, Fate, Marked, Proved, ReadBack, Step, ToolSettings, Wish

LOST = 0.005  # share of calls that are carried out and not answered
FAILING = 0.01  # share of calls that fail for no reason of ours


class Crashed(Exception):
    """The hub's process died here."""


@dataclass(slots=True)
class Profile:
    """One customer in the tool: what was written, with when; by the hub, and by an integration that only sets a flag."""

    customer: int
    since: int
    said: list[tuple[float, bool, float]] = field(default_factory=list)  # (when, held, until)
    flag: list[tuple[float, bool, float]] = field(default_factory=list)


@dataclass(slots=True)
class Planned:
    """A campaign as it stands in one of the worlds."""

    plan: Plan
    world: str
    filtered: bool
    freezes: bool
    status: str = "scheduled"
    frozen_at: float | None = None
    recipients: list[int] | None = None
    mended: int = 0
    first_frozen: float | None = None

    @property
    def id(self) -> str:
        return f"{self.world}-{self.plan.number:03}"


class Tool:
    """One marketing tool: `MarketingTool`, `WatchesCampaigns` and `KnowsAudiences`, beside what the simulation does with it."""

    Settings: ClassVar[type[ToolSettings]] = ToolSettings
    kinds: ClassVar[tuple[str, ...]] = ("email", "phone")
    lapse, settles, reads_back, proved = "at once", 5.0, True, Proved.LIVE

    def __init__(self, name: str, world: World, addresses: Sequence[tuple[str, str]], start: float) -> None:
        """`addresses` are (kind, value) by customer; `start` is the unix second of the first day."""
        self.name = self.label = name
        self.start = start
        self._world = world
        self._rng = random.Random(f"{world.size.seed} {name}")
        self.profiles = [Profile(who, since) for who, since in enumerate(world.known_from[name])]
        self._by_address = dict(zip(addresses, self.profiles, strict=True))
        self.planned: dict[str, Planned] = {}
        self.dies: int = 0  # calls until the hub dies after one was carried out; 0: it does not
        self.calls = 0

    # --- what its segment shows ---

    def lag(self, at: float) -> float:
        """Seconds its segments are behind, on a good day: slowly more and less, so that what was shown goes on being shown."""
        wave = abs(at / HOUR % 2 - 1)
        return 60 + 540 * wave if self.name == FREEZES else 30 * wave

    def as_of(self, at: float) -> float:
        """The moment whose state its segments show. An incident stops them where they were, until they are so much behind."""
        for begin, end, seconds in self._world.troubles.late[self.name]:
            if begin <= at < end:
                return max(at - seconds, begin - self.lag(begin))
        return at - self.lag(at)

    def shown_from(self, written: float) -> float:
        """When its segments show what was written then."""
        for begin, end, seconds in self._world.troubles.late[self.name]:
            if begin - self.lag(begin) < written < end:
                return min(written + seconds, end + self.lag(end))
        return written + self.lag(written)

    def down(self, at: float) -> bool:
        return within(at, self._world.troubles.api_down[self.name]) is not None

    def shows(self, log: Sequence[tuple[float, bool, float]], at: float) -> bool:
        """Whether its segment shows somebody as held at a time."""
        until = self.as_of(at)
        for when, held, ends in reversed(log):
            if when <= until:
                return held and ends > at
        return False

    def audience(self, plan: Plan, at: float) -> list[int]:
        """Everybody a campaign is meant for."""
        return [one.customer for one in self.profiles if one.since <= at and plan.reaches(one.customer)]

    def chosen(self, planned: Planned, at: float) -> list[int]:
        """Whom it would go to, determined now."""
        everybody = self.audience(planned.plan, at)
        if not planned.filtered or planned.world == "a":
            return everybody
        logs = [(who, self.profiles[who].flag if planned.world == "b" else self.profiles[who].said) for who in everybody]
        return [who for who, log in logs if not log or not self.shows(log, at)]

    # --- what marketers do ---

    def schedule(self, plan: Plan, worlds: Iterable[str], at: float) -> None:
        """The campaign is scheduled, in each world a copy of its own."""
        for world in worlds:
            planned = Planned(plan, world, plan.filtered, plan.freezes)
            self.planned[planned.id] = planned
            self.freeze(planned, at)

    def freeze(self, planned: Planned, at: float) -> None:
        """Determine its recipients now, where that is done when it is scheduled."""
        planned.recipients = self.chosen(planned, at) if planned.freezes else None
        planned.frozen_at = at if planned.freezes else None

    def flagged(self, customer: int, held: bool, at: float) -> None:
        """An integration that sets a flag when a ticket opens and clears it when it is resolved: once, whatever comes of it."""
        profile = self.profiles[customer]
        if profile.since <= at and not self.down(at) and self._rng.random() >= FAILING:
            profile.flag.append((at, held, float("inf")))

    # --- what the hub asks ---

    def _fails(self, now: float) -> float:
        at = now - self.start
        self.calls += 1
        if self.down(at):
            raise TryLater(f"{self.name} answers 503.")
        if self._rng.random() < FAILING:
            raise TryLater(f"{self.name} answers 429.")
        return at

    async def mark(self, wishes: Sequence[Wish], http: Http, now: float) -> list[Marked]:
        at = self._fails(now)
        results = []
        for wish in wishes:
            profile = self._by_address.get((wish.kind, wish.value))
            if profile is None or profile.since > at:
                results.append(Marked(fate=Fate.ABSENT))
                continue
            until = datetime.fromisoformat(wish.until).timestamp() - self.start if wish.until else float("inf")
            profile.said.append((at, wish.held, until))
            results.append(Marked(fate=Fate.ACCEPTED, profile=str(profile.customer)))
        if self.dies:
            self.dies -= 1
            if not self.dies:
                raise Crashed
        if self._rng.random() < LOST:
            raise TryLater("The answer was lost.")
        return results

    async def read(self, wishes: Sequence[Wish], http: Http, now: float) -> list[ReadBack]:
        at = self._fails(now)
        return [self._read(wish, at) for wish in wishes]

    def _read(self, wish: Wish, at: float) -> ReadBack:
        profile = self._by_address.get((wish.kind, wish.value))
        if profile is None or profile.since > at:
            return ReadBack(present=False)
        held, until = profile.said[-1][1:] if profile.said else (False, 0.0)
        shown = datetime.fromtimestamp(self.start + until).astimezone().isoformat() if held and until < float("inf") else ""
        effective = self.shows(profile.said, at) == held
        return ReadBack(present=True, held=held, until=shown, profile=str(profile.customer), effective=effective)

    async def campaigns(self, http: Http, now: float) -> list[Campaign]:
        """What is scheduled in the worlds with a hub. Each copy is a campaign of its own."""
        if self.down(now - self.start):
            raise TryLater(f"{self.name} answers 503.")
        return [
            Campaign(
                id=one.id,
                name=f"Campaign {one.plan.number}",
                channel=one.plan.channel,
                status="scheduled",
                send_at=self.start + one.plan.send_at,
                frozen_at=None if one.frozen_at is None else self.start + one.frozen_at,
                excludes_hold=one.filtered,
                audiences=(str(one.plan.number),),
                revertable=True,
            )
            for one in self.planned.values()
            if one.status == "scheduled" and one.world in ("c", "d")
        ]

    async def audiences(self, profile: str, http: Http) -> frozenset[str]:
        return frozenset(str(one.plan.number) for one in self.planned.values() if one.plan.reaches(int(profile)))

    async def test(self, http: Http, now: float) -> list[Check]:
        return []

    async def prepare(self, http: Http, now: float) -> list[Check]:
        return []

    def steps(self) -> list[Step]:
        return []

    def is_sandbox(self) -> bool:
        return True
