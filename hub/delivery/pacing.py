"""How fast a target is spoken to, and whether at all for now: pure state machines, on seconds of a clock that never jumps.

A target is a kind of delivery and the name of its channel, room or destination. What is known of it lives in this process's
memory and is learnt anew after a start; other processes learn for themselves. The durable truth is each row's `due_at`.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from hub.contract import Pace

Target = tuple[str, str]  # kind of delivery, name

HANDS = 16  # deliveries under way to one target; each target has its own, so that none can take another's
DOWN_AFTER = 5  # failures in a row that say "it is down"
FIRST_PAUSE = 5.0  # seconds; doubled with every probe that fails
LONGEST_PAUSE = 300.0
LONGEST_ASKED = 3_600.0  # a Retry-After beyond an hour is capped, and absurd ones with it


class Sign(StrEnum):
    """What one attempt tells of its target."""

    UP = "up"  # it answered, be it with a refusal
    DOWN = "down"  # it could not be reached, gave no answer, or failed at its own end
    BUSY = "busy"  # it named a time to wait
    NOTHING = "nothing"  # the attempt never came so far


@dataclass(frozen=True, slots=True)
class Gate:
    """A circuit breaker (Nygard, Release It!): open to deliveries until failures in a row or a Retry-After shut it; after a while one
    delivery goes as a probe, and its end decides. Behind a probe that arrived the hands come back one by one."""

    shut: bool = False
    until: float = 0.0  # while shut: when the next probe may go
    probe: int | None = None  # the delivery that is out as a probe
    failures: int = 0  # in a row, while open
    pauses: int = 0  # in a row, without a sign of life between them
    hands: int = HANDS
    why: str = ""

    def room(self, under_way: int, now: float) -> int:
        """How many more deliveries may go now."""
        if not self.shut:
            return max(0, self.hands - under_way)
        return 1 if self.probe is None and now >= self.until else 0

    def sent(self, delivery_id: int, now: float) -> Gate:
        """A delivery is on its way."""
        return replace(self, probe=delivery_id) if self.room(0, now) == 1 and self.shut else self

    def heard(self, sign: Sign, delivery_id: int, now: float, *, asked: float = 0.0, jitter: float = 0.0, why: str = "") -> Gate:
        """The end of an attempt. `asked` is the Retry-After in seconds, `jitter` uniform in [0, 1)."""
        if sign is Sign.BUSY:
            # Whoever hears it, it holds for all of this target's lanes. The longest wait asked for counts.
            until = now + (min(asked, LONGEST_ASKED) if asked > 0 else 0.0)
            return replace(self, shut=True, until=max(until, self.until) if self.shut else until, probe=None, failures=0, why=why)
        if self.shut and delivery_id != self.probe:
            return self  # it set out before the gate was shut, and tells nothing new
        if sign is Sign.UP:
            return Gate(hands=2) if self.shut else replace(self, failures=0, pauses=0, hands=min(self.hands + 1, HANDS))
        if sign is Sign.NOTHING:
            return replace(self, probe=None, until=now + FIRST_PAUSE) if self.shut else self
        if not self.shut and self.failures + 1 < DOWN_AFTER:
            return replace(self, failures=self.failures + 1)
        pause = min(FIRST_PAUSE * 2.0**self.pauses, LONGEST_PAUSE)
        # Never before the half of it, so that many processes do not knock at the same moment.
        until = now + pause / 2 + pause / 2 * jitter
        return replace(self, shut=True, until=until, probe=None, failures=0, pauses=min(self.pauses + 1, 16), why=why)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket: `pace.burst` at once, then `pace.per_second`."""

    pace: Pace
    level: float
    at: float  # when the level was right

    def filled(self, now: float) -> Bucket:
        gained = max(0.0, now - self.at) * self.pace.per_second
        return replace(self, level=min(float(self.pace.burst), self.level + gained), at=max(now, self.at))

    def taken(self, now: float) -> Bucket:
        full = self.filled(now)
        return replace(full, level=full.level - 1)

    def room(self, now: float) -> int:
        return max(0, math.floor(self.filled(now).level + 1e-9))

    def wait(self, now: float) -> float:
        """Seconds until one may go."""
        return max(0.0, (1 - self.filled(now).level) / self.pace.per_second)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a target stands, for people."""

    kind: str
    name: str
    state: str  # open | slow (few hands yet, after a pause) | paused | probing
    seconds: int  # until the next try, while paused
    under_way: int
    why: str


class Gates:
    """The gates of every target this process has spoken to, and how many of its deliveries are under way."""

    def __init__(self, paces: Mapping[Target, Pace], rng: random.Random, clock: Callable[[], float]) -> None:
        """`clock` is seconds that never go back. A target without a pace of its own goes as fast as its hands."""
        self.clock = clock
        self._rng = rng
        self._gates: dict[Target, Gate] = {}
        self._under_way: Counter[Target] = Counter()
        now = clock()
        self._buckets = {target: Bucket(pace, float(pace.burst), now) for target, pace in paces.items()}

    def room(self) -> dict[Target, int]:
        """How many may go now, to each target that has not all its hands free."""
        now = self.clock()
        rooms: dict[Target, int] = {}
        for target in self._gates.keys() | self._buckets.keys() | self._under_way.keys():
            room = self._gate(target).room(self._under_way[target], now)
            bucket = self._buckets.get(target)
            if bucket is not None:
                room = min(room, bucket.room(now))
            if room < HANDS:
                rooms[target] = room
        return rooms

    def opens_in(self) -> float:
        """Seconds until a target that only time keeps shut may be spoken to; infinite where there is none."""
        now = self.clock()
        waits = [gate.until - now for gate in self._gates.values() if gate.shut and gate.probe is None]
        waits += [bucket.wait(now) for bucket in self._buckets.values()]
        return min((wait for wait in waits if wait > 0), default=math.inf)

    def sent(self, target: Target, delivery_id: int) -> None:
        self._under_way[target] += 1
        if target in self._gates:
            self._gates[target] = self._gates[target].sent(delivery_id, self.clock())
        bucket = self._buckets.get(target)
        if bucket is not None:
            self._buckets[target] = bucket.taken(self.clock())

    def heard(self, target: Target, delivery_id: int, sign: Sign, asked: float = 0.0, why: str = "") -> None:
        """An attempt ended. Its hand is free only when that is noted: `freed`."""
        before = self._gate(target)
        after = before.heard(sign, delivery_id, self.clock(), asked=asked, jitter=self._rng.random(), why=why)
        if after is not before:
            self._gates[target] = after

    def freed(self, target: Target) -> None:
        self._under_way[target] -= 1
        if not self._under_way[target]:
            del self._under_way[target]

    def standings(self, targets: Iterable[Target] = ()) -> list[Standing]:
        """Every target that was spoken to, and those asked for, sorted by name."""
        now = self.clock()
        return [self._standing(target, now) for target in sorted({*targets, *self._gates, *self._under_way}, key=lambda t: (t[1], t[0]))]

    def _standing(self, target: Target, now: float) -> Standing:
        gate = self._gate(target)
        open_, shut = "open" if gate.hands == HANDS else "slow", "paused" if gate.probe is None else "probing"
        state = shut if gate.shut else open_
        seconds = max(0, math.ceil(gate.until - now)) if state == "paused" else 0
        return Standing(*target, state, seconds, self._under_way[target], gate.why if gate.shut else "")

    def _gate(self, target: Target) -> Gate:
        return self._gates.get(target, _OPEN)


_OPEN = Gate()
