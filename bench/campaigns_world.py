"""What happens in the campaign simulation, drawn from a seed before anything runs: customers, tickets, merges, campaigns and troubles.

The history knows nothing of the hub. `Truth` is the simulation's own book of who is held, kept from the history alone, so that the
hub's gate is judged by something else than itself. Times are seconds since the first day, midnight UTC.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

TICK = 300  # seconds: what happens is gathered at this grain
HOUR, DAY = 3_600, 86_400
LONGEST = 21 * DAY  # a ticket holds for so long (hub.policy.HoldRules.longest)
FREEZES, GATED = "freezing", "gated"  # the two tools: one like Klaviyo, one like Braze
TOOLS = (FREEZES, GATED)

Kind = Literal["writes", "assigned", "snoozed", "woken", "reopened", "resolved", "merged", "unmerged"]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Size:
    """How large a simulation is."""

    customers: int = 10_000
    events: int = 100_000
    campaigns: int = 200
    days: int = 90
    seed: int = 5

    @property
    def end(self) -> int:
        return self.days * DAY


class Happening(NamedTuple):
    """One thing that happens to a customer (numbered from 0); `other` is the second one of a merge."""

    at: int
    number: int  # keeps the order of what happens at one time
    kind: Kind
    customer: int
    other: int = -1


class Plan(NamedTuple):
    """A campaign as its marketer planned it."""

    number: int
    tool: str
    channel: str
    scheduled_at: int
    send_at: float
    freezes: bool  # its recipients are determined when it is scheduled
    may_wait: bool  # its recipients could be determined at send time (not so for SMS and A/B tests)
    filtered: bool  # it leaves out the segment of held people

    def reaches(self, profile: int) -> bool:
        """Whether a customer is in its audience: three in ten are."""
        return (profile * 2_654_435_761 + self.number * 97_003_931) % 1_000_003 % 10 < 3


@dataclass(frozen=True, slots=True)
class Troubles:
    """What goes wrong and when."""

    api_down: dict[str, list[Span]]  # a tool's API answers nothing but errors; what it has scheduled goes out all the same
    late: dict[str, list[tuple[int, int, int]]]  # its segments are so many seconds late
    hub_down: list[Span]  # nothing is taken in, carried or answered: the gate is down too
    crashes: list[int]  # the process dies with deliveries in hand, and starts again


@dataclass(frozen=True, slots=True)
class World:
    size: Size
    happenings: list[Happening]
    plans: list[Plan]
    troubles: Troubles
    known_from: dict[str, list[int]]  # tool -> customer -> since when it has a profile of theirs


def within(at: float, spans: Sequence[Span]) -> Span | None:
    """The span a time is in."""
    return next((span for span in spans if span[0] <= at < span[1]), None)


def draw(size: Size) -> World:
    """The whole history of a seed."""
    rng = random.Random(size.seed)
    troubles = _troubles(rng, size)
    return World(size, _happenings(rng, size), _plans(rng, size, troubles), troubles, _profiles(rng, size))


def _profiles(rng: random.Random, size: Size) -> dict[str, list[int]]:
    """Nearly everybody is known from the start, one in fifty signs up later, one in a hundred never does."""

    def since() -> int:
        chance = rng.random()
        return 0 if chance < 0.97 else rng.randrange(size.end) if chance < 0.99 else 10 * size.end

    return {tool: [since() for _ in range(size.customers)] for tool in TOOLS}


def _troubles(rng: random.Random, size: Size) -> Troubles:
    def spans(share: float, *hours: float) -> list[Span]:
        """One span of each length, at a time of its own, no longer than a share of all the time."""
        days = sorted(rng.sample(range(2, max(size.days - 2, len(hours) + 3)), len(hours)))
        begins = [day * DAY + rng.randrange(7, 15) * HOUR for day in days]
        return [(begin, begin + int(min(length * HOUR, share * size.end))) for begin, length in zip(begins, hours, strict=True)]

    late = {
        FREEZES: [(a, b, int(2.5 * HOUR)) for a, b in spans(0.05, 12, 26, 8)],  # the incident of 2026-03-26: 2.5 hours
        GATED: [(a, b, HOUR) for a, b in spans(0.05, 6, 9)],
    }
    return Troubles(
        api_down={FREEZES: spans(0.05, 5, 54, 2), GATED: spans(0.05, 3, 31)},
        late=late,
        hub_down=spans(0.02, *(rng.choice((0.2, 0.5, 1.0, 3.0)) for _ in range(min(12, size.days // 3)))),
        crashes=sorted(rng.randrange(DAY, size.end) for _ in range(max(4, size.days * 2 // 3))),
    )


def _plans(rng: random.Random, size: Size, troubles: Troubles) -> list[Plan]:
    """Campaigns in working hours, one in six of them in the middle of some trouble: luck is not what is shown."""
    plans = []
    for number in range(size.campaigns):
        tool = TOOLS[number % 2]
        hard = [*troubles.api_down[tool], *((a, b) for a, b, _ in troubles.late[tool]), *troubles.hub_down]
        if number % 12 < 2:
            begin, end = hard[number // 12 % len(hard)]
            send_at = float(begin + rng.random() * (end - begin))
        else:
            send_at = rng.randrange(2, size.days) * DAY + 8 * HOUR + rng.random() * 12 * HOUR
        if number % 10 < 2:
            send_at = send_at // TICK * TICK + 0.5  # half a second after tickets opened
        send_at = min(send_at, size.end - TICK)
        scheduled_at = max(0, int(send_at - rng.choice((1, 3, 8, 24, 48, 72)) * HOUR - rng.random() * HOUR))
        sms = rng.random() < 0.2
        freezes = tool == FREEZES and (sms or rng.random() < 0.6)
        may_wait = not sms and rng.random() < 0.7
        filtered = rng.random() >= 0.08
        plans.append(Plan(number, tool, "sms" if sms else "email", scheduled_at, send_at, freezes, may_wait, filtered))
    return plans


# --- tickets -------------------------------------------------------------------------------------------------------------


def _happenings(rng: random.Random, size: Size) -> list[Happening]:
    pairs = _pairs(rng, size)
    away = {who: (begin - 8 * DAY, end + DAY) for a, b, begin, end in pairs for who in (a, b)}
    busy: list[list[Span]] = [[] for _ in range(size.customers)]
    found: list[tuple[int, Kind, int, int]] = []
    tries = 0
    while len(found) < size.events - 6 * len(pairs) and tries < 20 * size.events:
        tries += 1
        who = int(size.customers * rng.random() ** 1.3)
        episode = _episode(rng, _moment(rng, size))
        begin, end = episode[0][0], episode[-1][0] + 2 * TICK
        # Nobody writes while they are one person with somebody, nor so shortly before that an older ticket would be reopened.
        if any(begin < until and since < end for since, until in [*busy[who], *([away[who]] if who in away else [])]):
            continue
        busy[who].append((begin, end))
        found += [(at, kind, who, -1) for at, kind in episode if at < size.end]
    for a, b, begin, end in pairs:
        # Two tickets at once: both write shortly before they turn out to be one person. The second's is resolved soon, the first's later.
        found += [(begin - 3 * TICK, "writes", a, -1), (begin - 3 * TICK, "writes", b, -1), (begin, "merged", a, b)]
        found += [(begin + 5 * HOUR, "resolved", b, -1), (min(end + 20 * HOUR, begin + 3 * DAY), "resolved", a, -1)]
        if end < size.end:
            found.append((end, "unmerged", a, b))
    found = [one for one in found if one[0] < size.end]
    found.sort(key=lambda one: (one[0], one[2]))
    return [Happening(at, number, kind, who, other) for number, (at, kind, who, other) in enumerate(found[: size.events])]


def _moment(rng: random.Random, size: Size) -> int:
    """Mostly by day, all week."""
    hour = rng.choices(range(24), (1, 1, 1, 1, 1, 2, 3, 6, 9, 10, 10, 10, 9, 9, 10, 10, 9, 8, 7, 6, 5, 4, 2, 1))[0]
    return (rng.randrange(size.days) * DAY + hour * HOUR + rng.randrange(HOUR)) // TICK * TICK


def _episode(rng: random.Random, at: int) -> list[tuple[int, Kind]]:
    """A ticket from its first message to its last resolve."""
    lasts = rng.lognormvariate(2.0, 1.4) * HOUR  # median 7 hours
    if rng.random() < 0.012:
        lasts = rng.randrange(23, 40) * DAY  # left lying
    steps: list[tuple[float, Kind]] = [(0.0, "writes"), (0.02, "assigned")]
    while rng.random() < 0.92:
        steps.append((rng.uniform(0.05, 0.95), "writes"))
    if rng.random() < 0.25:
        steps += [(0.3, "snoozed"), (0.6, "woken")]
    steps.append((1.0, "resolved"))
    if rng.random() < 0.12:
        steps += [(2.0, "writes" if rng.random() < 0.7 else "reopened"), (2.8, "resolved")]
    steps.sort()
    if lasts > 20 * DAY:
        steps = [one for one in steps if one[0] <= 1.0]
    told: list[tuple[int, Kind]] = []
    last, snoozed = at - 2 * TICK, False
    for share, kind in steps:
        when = max(int(at + min(share, 1.0) * lasts + max(0.0, share - 1.0) * 2 * DAY) // TICK * TICK, last + 2 * TICK)
        if kind == "writes" and snoozed:
            continue  # a message would wake it
        snoozed = kind == "snoozed" or (snoozed and kind != "woken")
        told.append((when, kind))
        last = when
    return told


def _pairs(rng: random.Random, size: Size) -> list[tuple[int, int, int, int]]:
    """(one, other, merged at, unmerged at): seven in ten are two people again some days later."""
    chosen = rng.sample(range(size.customers), 2 * (size.customers // 40))
    pairs = []
    for a, b in zip(chosen[::2], chosen[1::2], strict=True):
        begin = rng.randrange(2 * DAY // TICK, size.end * 2 // 3 // TICK) * TICK
        end = begin + rng.randrange(DAY, 10 * DAY) // TICK * TICK if rng.random() < 0.7 else 10 * size.end
        pairs.append((a, b, begin, end))
    return pairs


class Truth:
    """Who is held, by the history alone: whoever has an unresolved ticket, or is one person with somebody who has, for 21 days at most."""

    def __init__(self, size: Size) -> None:
        self._open: dict[int, int] = {}  # customer -> since when
        self._with: dict[int, int] = {}
        self.log: list[list[tuple[int, bool]]] = [[] for _ in range(size.customers)]  # as it changed
        self._ends: list[tuple[int, int]] = []

    def held(self, who: int, now: float) -> bool:
        return any(now < self._open[one] + LONGEST for one in self._group(who) if one in self._open)

    def since(self, who: int) -> int | None:
        """Since when a customer has been held, by the last change."""
        log = self.log[who]
        return log[-1][0] if log and log[-1][1] else None

    def _group(self, who: int) -> tuple[int, ...]:
        return (who, self._with[who]) if who in self._with else (who,)

    def note(self, what: Happening, now: int) -> bool:
        """Take in what happened; whether it opened or closed a ticket."""
        was = self._open.get(what.customer)
        if what.kind in ("writes", "reopened"):
            self._open.setdefault(what.customer, now)
            self._ends.append((now + LONGEST, what.customer))
        elif what.kind == "resolved":
            self._open.pop(what.customer, None)
        elif what.kind == "merged":
            self._with |= {what.customer: what.other, what.other: what.customer}
        elif what.kind == "unmerged":
            self._with.pop(what.customer, None)
            self._with.pop(what.other, None)
        for who in {*self._group(what.customer), *([what.other] if what.other >= 0 else [])}:
            self._log(who, now)
        return (was is None) != (self._open.get(what.customer) is None)

    def pass_(self, now: int) -> None:
        """Time passes: tickets that were left lying hold no more."""
        while self._ends and self._ends[0][0] <= now:
            at, who = self._ends.pop(0)
            for one in self._group(who):
                self._log(one, at)

    def _log(self, who: int, at: int) -> None:
        held, log = self.held(who, at), self.log[who]
        if held != (log[-1][1] if log else False):
            log.append((at, held))


def at_time(log: Sequence[tuple[float, bool]], when: float) -> bool:
    """What a log of changes said at a time."""
    place = bisect_right(log, (when, True))
    return log[place - 1][1] if place else False
