"""One simulated history lived through: tickets, campaigns and troubles in time's order, and who was reached in each of four worlds.

a: no hub. b: a flag, set when a ticket opens and cleared when it is resolved, once. c: reconciled holds. d: with gate and watch.
c and d have one hub, since what is done about campaigns changes nothing of what it tells: only their campaigns differ.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from bench.campaigns_hub import START, SimulatedHub, address_of
from bench.campaigns_tool import Planned, Profile, Tool
from bench.campaigns_world import DAY, GATED, HOUR, TICK, TOOLS, Happening, Plan, Truth, World, within
from hub.marketing import SendSeen
from hub.storage.tables import metadata

WORLDS = ("a", "b", "c", "d")
SEEN_AFTER = 60  # seconds until a tool tells what it sent (hub.delivery.watching.SENDS_EVERY)
GRAIN = 5  # seconds between two looks of the hub at what is due
LOOK_EVERY = 1_800  # seconds between looks at what is scheduled
WATCHED_AFTER = 150  # seconds until the hub notices what a marketer scheduled (hub.delivery.watching.CAMPAIGNS_EVERY: 300)
MOST_MENDED = 3  # times a marketer mends one campaign
CONTROLS = 10  # messages to customers who were not held, told of each campaign beside those that reached held ones


@dataclass
class Outcome:
    """What came of it, by (world, tool). World `d-` is d with the gate switched off, `d~` d with campaigns that fail open."""

    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    leaks: Counter[tuple[str, str]] = field(default_factory=Counter)  # messages that reached somebody held
    reached: dict[tuple[str, str], set[int]] = field(default_factory=lambda: defaultdict(set))  # campaigns that reached somebody held
    needless: Counter[tuple[str, str]] = field(default_factory=Counter)  # messages not sent to somebody not held
    causes: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # (world, tool, cause)
    odd: list[str] = field(default_factory=list)  # leaks nobody can explain, and other things that must not be
    aborted: int = 0  # by the gate
    closed: int = 0  # by campaigns that fail closed while the gate is down
    gate_down: int = 0  # campaigns of the tool with a gate that went out meanwhile
    asked: int = 0
    disagreed: int = 0  # answers of the gate that the history contradicts
    unseen: int = 0  # messages of world d to customers who wrote while the hub was down
    warned: int = 0
    mended: int = 0
    kept: dict[tuple[str, str], list[float]] = field(default_factory=dict)  # seconds held after the last ticket was resolved
    stuck: Counter[tuple[str, str]] = field(default_factory=Counter)  # held at the end without need
    confirmed: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in TOOLS})  # milliseconds
    effective: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in TOOLS})
    counts: Counter[str] = field(default_factory=Counter)


class Run:
    """A history on its way. `clock.now` of the hub is where it stands."""

    def __init__(self, directory: Path, world: World, reconciles: bool = True) -> None:
        self.world = world
        self.hub = SimulatedHub(directory, world, reconciles)
        self.truth = Truth(world.size)
        self.outcome = Outcome()
        self._rng = random.Random(f"{world.size.seed} people")
        self._todo: list[tuple[float, int, str, Any]] = []  # what is to be done between ticks, by time
        self._numbers = itertools.count()
        self._mending: set[str] = set()
        self._looks_at = float("inf")
        self._unseen: set[int] = set()
        self._reported: dict[str, tuple[int, float, bool]] = {}  # key of a send -> (customer, when, the tool's API was down)

    def _soon(self, at: float) -> None:
        """The hub looks for work then, unless it does so earlier."""
        if at < self._looks_at:
            self._looks_at = at
            self._later(at, "work", at)

    def _later(self, at: float, what: str, about: Any = None) -> None:
        heapq.heappush(self._todo, (at, next(self._numbers), what, about))

    async def live(self) -> Outcome:
        """From the first day to the last."""
        await self.hub.start()
        size, troubles = self.world.size, self.world.troubles
        for plan in self.world.plans:
            self._later(plan.scheduled_at, "schedule", plan)
            self._later(plan.send_at, "send", plan)
        for at in troubles.crashes:
            self._later(at, "crash", self._rng.choice(TOOLS))
        for at in range(0, size.end, LOOK_EVERY):
            self._later(at + 2, "watch")
        happenings = iter([*self.world.happenings, None])
        coming = next(happenings)
        waiting: list[Happening] = []
        for tick in range(0, size.end, TICK):
            while coming is not None and coming.at <= tick:
                waiting.append(coming)
                coming = next(happenings)
            down = within(tick, troubles.hub_down) is not None
            await self._until(tick)
            self.hub.now = float(tick)
            if not down:
                self.truth.pass_(tick)
                if tick % HOUR == 0:
                    await self.hub.renew()
                if waiting:
                    await self._take(waiting)
                    waiting = []
                self._soon(tick + 1)
            self._unseen = {one.customer for one in waiting if one.kind == "writes"}
        await self._until(size.end)
        await self._sum_up()
        await self.hub.close()
        return self.outcome

    async def _take(self, waiting: list[Happening]) -> None:
        now = int(self.hub.now)
        # One customer's happenings never stand in one batch, so that each knows the ticket of the one before.
        while waiting:
            batch: list[Happening] = []
            rest: list[Happening] = []
            named: set[int] = set()
            for one in waiting:
                who = {one.customer, one.other} - {-1}
                (rest if who & named else batch).append(one)
                named |= who
            await self.hub.take(batch)
            for one in batch:
                turned = self.truth.note(one, now)
                self.outcome.counts[one.kind] += 1
                if turned:
                    for tool in self.hub.tools.values():
                        tool.flagged(one.customer, one.kind != "resolved", now)
            waiting = rest

    async def _until(self, time: float) -> None:
        while self._todo and self._todo[0][0] < time:
            at, _, what, about = heapq.heappop(self._todo)
            self.hub.now = max(self.hub.now, at)
            down = within(at, self.world.troubles.hub_down) is not None
            if what == "work":
                if about == self._looks_at:
                    self._looks_at = float("inf")
                    if not down:
                        worked = await self._work()
                        due = await self.hub.due()
                        # What was just told is read back in seconds; a segment that is late, and a tool that is down, wait for the tick.
                        if worked and due - at <= GRAIN:
                            self._soon(max(due, at) // GRAIN * GRAIN + GRAIN)
            elif what == "schedule":
                self.hub.tools[about.tool].schedule(about, WORLDS, at)
                self._later(at + WATCHED_AFTER, "watch")
            elif what == "send":
                await self._send(about)
            elif what == "crash":
                self.hub.tools[about].dies = self._rng.randrange(1, 4)
            elif what == "watch" and not down:
                await self._watch()
            elif what == "mend":
                self._mend(about)
            elif what == "report":
                await self._report(about) if not down else self._later(at + TICK, "report", about)

    async def _work(self) -> bool:
        worked = await self.hub.work()
        for event in self.hub.heard():
            if event.type in ("mark.confirmed", "mark.effective"):
                data = json.loads(event.data)
                if data["held"]:
                    into = self.outcome.confirmed if event.type == "mark.confirmed" else self.outcome.effective
                    into[data["destination"]].append(data["took_ms"])
            elif event.type == "mark.drifted":
                self.outcome.counts["drifted"] += 1
        return worked

    # --- campaigns ---

    async def _watch(self) -> None:
        if not any(one.status == "scheduled" for tool in self.hub.tools.values() for one in tool.planned.values()):
            return
        await self._work()
        await self.hub.watch.look_at_campaigns()
        for event in self.hub.heard():
            if event.type != "campaign.warned":
                continue
            data = json.loads(event.data)
            self.outcome.warned += data["campaign_id"].startswith("d")
            planned = self.hub.tools[data["destination"]].planned[data["campaign_id"]]
            if planned.world == "d" and planned.id not in self._mending and planned.mended < MOST_MENDED:
                # Read in working hours, and not at once.
                at = self.hub.now + self._rng.uniform(600, 5_400)
                hour = at % DAY / HOUR
                at += 0 if 8 <= hour < 20 else (8 - hour) % 24 * HOUR
                self._mending.add(planned.id)
                self._later(at, "mend", planned)

    def _mend(self, planned: Planned) -> None:
        """What the alarm says: add the filter; revert, let recipients be determined at send time where that can be, schedule again."""
        self._mending.discard(planned.id)
        if planned.status != "scheduled":
            return
        planned.mended += 1
        planned.filtered = True
        planned.freezes = planned.freezes and not planned.plan.may_wait
        self.hub.tools[planned.plan.tool].freeze(planned, self.hub.now)
        self.outcome.mended += 1
        self._later(self.hub.now + WATCHED_AFTER, "watch")

    async def _send(self, plan: Plan) -> None:
        tool, at, count = self.hub.tools[plan.tool], self.hub.now, self.outcome
        everybody = tool.audience(plan, at)
        held = {who for who in everybody if self.truth.held(who, at)}
        gate_down = within(at, self.world.troubles.hub_down) is not None
        # What the gate says, where the hub took in all that happened: everybody is asked about, for the history to be held against it.
        answered = {} if gate_down else await self.hub.held(everybody)
        for who, said in answered.items():
            if said != (who in held):
                count.disagreed += 1
                count.odd.append(f"the gate says {said} of customer {who} at {at:.1f}")
        for name in WORLDS:
            planned = tool.planned[f"{name}-{plan.number:03}"]
            recipients = tool.chosen(planned, at) if planned.recipients is None else planned.recipients
            planned.status = "sent"
            if name == "d" and plan.tool == GATED:
                self._note("d-", plan, recipients, everybody, held)
                count.asked += len(recipients)
                if gate_down:
                    count.gate_down += 1
                    count.closed += len(recipients)
                    self._note("d~", plan, recipients, everybody, held)
                    recipients = []
                else:
                    through = [who for who in recipients if not answered[who]]
                    count.aborted += len(recipients) - len(through)
                    recipients = through
                    self._note("d~", plan, recipients, everybody, held)
            if name == "d":
                count.unseen += sum(1 for who in recipients if who in self._unseen)
            self._note(name, plan, recipients, everybody, held)
            if name in ("c", "d"):
                self._tell(tool, planned, recipients, held)

    def _note(self, name: str, plan: Plan, recipients: list[int], everybody: list[int], held: set[int]) -> None:
        key, leaks = (name, plan.tool), [who for who in recipients if who in held]
        self.outcome.sent[key] += len(recipients)
        self.outcome.leaks[key] += len(leaks)
        self.outcome.needless[key] += len(set(everybody) - held - set(recipients))
        if leaks:
            self.outcome.reached[key].add(plan.number)

    def _tell(self, tool: Tool, planned: Planned, recipients: list[int], held: set[int]) -> None:
        """The tool tells the hub what it sent: every message to somebody held, and some others."""
        others = [who for who in recipients if who not in held][:CONTROLS]
        sends = []
        for who in [*(who for who in recipients if who in held), *others]:
            kind, value = address_of(who)
            key = f"{planned.id}-{who}"
            self._reported[key] = (who, self.hub.now, tool.down(self.hub.now))
            sends.append(SendSeen(provider_key=key, at=START + self.hub.now, kind=kind, value=value, campaign_id=planned.id))
        if sends:
            self._later(self.hub.now + SEEN_AFTER, "report", (tool.name, sends))

    async def _report(self, about: tuple[str, list[SendSeen]]) -> None:
        await self.hub.watch.note(*about)

    # --- the end ---

    async def _sum_up(self) -> None:
        columns = metadata.tables["send_seen"].c
        rows = await self.hub.reader.all(select(columns.destination, columns.provider_key, columns.leak, columns.cause))
        campaigns = await self.hub.reader.all(select(metadata.tables["campaign_seen"].c.campaign_id))
        seen = {row.campaign_id for row in campaigns}
        for row in rows:
            _, at, down = self._reported[row.provider_key]
            world = row.provider_key[0]
            cause = row.cause
            if cause == "our_delay" and down:
                cause = "tool down"
            if cause == "unexplained" and row.provider_key.rpartition("-")[0] not in seen:
                cause = "never seen"
            if row.leak:
                self.outcome.causes[world, row.destination, cause] += 1
            if cause == "unexplained":
                self.outcome.odd.append(f"{row.destination} {row.provider_key} at {at:.1f}: nobody can explain it")
        for world in ("c", "d"):
            for tool in TOOLS:
                told = sum(many for (w, t, _), many in self.outcome.causes.items() if (w, t) == (world, tool))
                if told != self.outcome.leaks[world, tool]:
                    self.outcome.odd.append(f"{tool}, {world}: {self.outcome.leaks[world, tool]} leaks, the leak watch saw {told}")
        for name, of in self.hub.tools.items():
            for world in ("b", "c"):
                self._kept(world, name, of)
        self.outcome.counts.update(self.hub.counts)

    def _kept(self, world: str, name: str, tool: Tool) -> None:
        """How long the tool's segment went on holding people after their last ticket was resolved."""
        end, kept = float(self.world.size.end), []
        for profile in tool.profiles:
            log = profile.flag if world == "b" else profile.said
            for (at, held), nextly in itertools.pairwise([*self.truth.log[profile.customer], (end, True)]):
                if held or not any(since < at and on for since, on, _ in log):
                    continue
                free = self._freed(tool, profile, log, float(at), float(nextly[0]))
                kept.append(free - at)
            if log and tool.shows(log, end) and not self.truth.held(profile.customer, end):
                self.outcome.stuck[world, name] += 1
        self.outcome.kept[world, name] = sorted(kept)

    def _freed(self, tool: Tool, profile: Profile, log: list[tuple[float, bool, float]], at: float, most: float) -> float:
        """When the segment let go of somebody after `at`, `most` at the latest."""
        before = [entry for entry in log if entry[0] <= at]
        if before and not before[-1][1]:
            return at
        until = before[-1][2] if before else at
        freed = next((when for when, held, _ in log if when > at and not held), most)
        return max(at, min(tool.shown_from(freed), until, most))
