"""The outbox worker over hours: outages, slow targets, failures at random, clocks that jump. Time is virtual: nothing waits.

The worker, its gates, its units of work and SQLite are the real ones; only the event loop's clock and the other side are not.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import selectors
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hub import reactions
from hub.contract import NoAnswer, NotSent, Pace, Refused, TryLater, Unknown
from hub.delivery.outbox import Outbox
from hub.delivery.pacing import DOWN_AFTER, HANDS, LONGEST_PAUSE, Target
from hub.delivery.works import Claim, Finish, finish
from hub.policy import Policy
from hub.storage import sqlite_statements as statements
from hub.storage.facts import Counting, Facts, decide_one, gather
from hub.storage.records import Delivery
from hub.storage.sqlite_writer import connect
from hub.storage.writer import StorageBusy
from tests.delivery import SECOND, START, Insert, delivery
from tests.storage import fresh_database

HOUR = 3_600.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock leaps to the next timer as soon as there is nothing else to do."""

    def __init__(self) -> None:
        loop = self

        class Leaping(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
            def select(self, timeout: float | None = None) -> Any:
                ready = super().select(0)
                if not ready and timeout is not None:
                    loop.now += max(0.0, timeout)
                assert ready or timeout is not None, "everybody waits for something that never comes"
                return ready

        self.now = 0.0
        super().__init__(Leaping())

    def time(self) -> float:
        return self.now


class World:
    """A worker, its database, and an other side that `answers` as a test likes."""

    def __init__(self, path: Path, loop: VirtualLoop, answers: Callable[[World, Delivery], Coroutine[Any, Any, None]]) -> None:
        self.loop = loop
        self.connection = connect(path)
        self.connection.execute("PRAGMA synchronous=OFF")
        self.ids = Counting(statements.next_ids(self.connection.execute))
        self.jumped = 0.0  # seconds the wall clock was set forth (or back)
        self.answers = answers
        self.begun: list[tuple[float, Delivery]] = []
        self.taken: dict[int, list[float]] = defaultdict(list)
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.trouble: Callable[[Any], Exception | None] = lambda work: None
        self.outbox: Outbox
        self.ended: Counter[str] = Counter()  # how the rows stood when all was over

    def clock(self) -> int:
        return START + int((self.loop.now + self.jumped) * SECOND)

    async def run(self, work: Any) -> Any:
        """`Writer.run`, without a thread. `trouble` may report a commit as refused that was none."""
        await asyncio.sleep(0.001)
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        facts = Facts(self.clock(), Policy(), self.ids)
        statements.read(execute, gather([work]), facts)
        outcome = decide_one(work, facts, reactions.react)
        statements.write(execute, self.connection.executemany, facts)
        execute("COMMIT")
        if error := self.trouble(work):
            raise error
        if facts.owes and hasattr(self, "outbox"):
            self.outbox.wake()
        return outcome

    async def close(self) -> None: ...

    async def carry(self, row: Delivery) -> Finish:
        self.begun.append((self.loop.now, row))
        self.under_way[row.target] += 1
        self.most[row.target] = max(self.most[row.target], self.under_way[row.target])
        try:
            await self.answers(self, row)
        finally:
            self.under_way[row.target] -= 1
        return finish(row)

    def take(self, row: Delivery) -> None:
        self.taken[row.id].append(self.loop.now)

    def states(self) -> Counter[str]:
        return Counter(state for (state,) in self.connection.execute("SELECT state FROM delivery"))

    async def until_done(self, hours: float = 100.0) -> None:
        while self.states().keys() - {"done", "failed", "unknown"}:
            assert self.loop.now < hours * HOUR, f"not done after {hours} hours: {self.states()}"
            await asyncio.sleep(1.0 if hours < 2 else 300.0)


Plot = Callable[[World], Coroutine[Any, Any, None]]


def play(
    tmp_path: Path, answers: Any, rows: list[Delivery], plot: Plot, paces: Mapping[Target, Pace] | None = None, seed: int = 1
) -> World:
    """Lay the rows down, start a worker, follow the plot, stop."""
    loop = VirtualLoop()
    world = World(fresh_database(tmp_path), loop, answers)

    async def main() -> None:
        await world.run(Insert(tuple(rows)))
        world.outbox = Outbox(world, {"reply": world, "hold": world}, random.Random(seed), paces=paces)
        await world.outbox.start()
        await plot(world)
        await world.outbox.stop()

    try:
        loop.run_until_complete(main())
        world.ended = world.states()
    finally:
        loop.close()
        world.connection.close()
    return world


def owed(lanes: int, each: int = 1, target: str = "sms", first: int = 1, **values: Any) -> list[Delivery]:
    """Rows of several lanes, written turn by turn; without a message, which the worker does not need."""
    ids = itertools.count(first)
    given = {"kind": "hold", "state": "queued", "attempt": 0, "lease_token": "", "idempotent": True} | values
    return [
        delivery(id=next(ids), lane=f"{target}:{lane}", subject_id=0, target=target, **given) for _ in range(each) for lane in range(lanes)
    ]


def check_order(world: World, rows: list[Delivery]) -> None:
    """In every lane, what was taken was taken in the order it was written."""
    lanes: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        lanes[row.lane].append(row.id)
    for lane, ids in lanes.items():
        first = [world.taken[id_][0] for id_ in ids if world.taken[id_]]
        assert first == sorted(first), lane


async def at_once(world: World, row: Delivery) -> None:
    await asyncio.sleep(0.05)
    world.take(row)


@contextmanager
def within(seconds: float, world: World) -> Iterator[None]:
    began = world.loop.now
    yield
    assert world.loop.now - began <= seconds


def test_thirty_targets_that_hang_delay_no_other(tmp_path: Path) -> None:
    async def answers(world: World, row: Delivery) -> None:
        if row.target.startswith("hanging"):
            await asyncio.sleep(3_600)
        await at_once(world, row)

    rows = [row for n in range(30) for row in owed(40, target=f"hanging-{n}", first=1 + 100 * n)]
    good = owed(50, 4, target="good", first=10_000)

    async def plot(world: World) -> None:
        await asyncio.sleep(5)
        assert all(world.taken[row.id] for row in good)

    world = play(tmp_path, answers, rows + good, plot)
    # Sixteen hands, 0.05 s each, and two commits of 0.001 s around them: as if it were alone.
    assert max(times[0] for times in world.taken.values()) < 200 / HANDS * 0.06 + 0.5
    assert {n for target, n in world.most.items() if target != "good"} == {HANDS}
    check_order(world, good)


@pytest.mark.parametrize("pace", [None, Pace(20.0, 5)], ids=["as fast as its hands", "20 a second"])
def test_after_six_hours_of_outage_everything_leaves_in_order_and_nothing_in_a_herd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pace: Pace | None
) -> None:
    monkeypatch.setattr("hub.delivery.outbox.POLL", 20.0)  # fewer idle looks in six hours

    async def answers(world: World, row: Delivery) -> None:
        if world.loop.now < 6 * HOUR:
            await asyncio.sleep(0.01)
            raise NotSent("connection refused")
        await at_once(world, row)

    rows = owed(500, 2)

    async def plot(world: World) -> None:
        await world.until_done()

    world = play(tmp_path, answers, rows, plot, {("hold", "sms"): pace} if pace else None)
    assert {len(times) for times in world.taken.values()} == {1}
    assert len(world.taken) == len(rows)
    check_order(world, rows)
    knocks = [at for at, _ in world.begun if at < 6 * HOUR]
    assert 6 * HOUR / LONGEST_PAUSE <= len(knocks) <= 2 * 6 * HOUR / LONGEST_PAUSE + HANDS + 10, "a probe now and then, and no tries burnt"
    arrivals = sorted(times[0] for times in world.taken.values())
    assert arrivals[0] - 6 * HOUR <= LONGEST_PAUSE + 1, "noticed soon"
    herd = [at for at in arrivals if at < arrivals[0] + 0.2]
    assert len(herd) <= 16, "the hands come back one by one"
    if pace is not None:
        for at in arrivals:
            assert sum(at <= other < at + 1 for other in arrivals) <= pace.per_second + pace.burst + 1
    else:
        # What was a probe waits for its own next try; all others leave at once.
        assert arrivals[int(len(arrivals) * 0.9)] - arrivals[0] < 60


@pytest.mark.parametrize("asked", [30.0, 600.0, 1e9], ids=["half a minute", "ten minutes", "absurd: an hour at most"])
def test_a_retry_after_holds_for_every_lane_of_its_target(tmp_path: Path, asked: float) -> None:
    async def answers(world: World, row: Delivery) -> None:
        if row.target == "sms" and world.loop.now < 10:
            raise TryLater("Too many requests.", asked)
        await at_once(world, row)

    rows, others = owed(100), owed(20, target="mail", first=1_000)

    async def plot(world: World) -> None:
        await world.until_done()

    world = play(tmp_path, answers, rows + others, plot)
    until = min(asked, HOUR)
    early = [row for at, row in world.begun if row.target == "sms" and at < until - 0.01]
    assert len(early) <= HANDS, "those under way when the first one heard it"
    assert max(world.taken[row.id][0] for row in others) < 2
    assert len(world.taken) == 120
    assert world.ended == {"done": 120}


def test_one_that_fails_for_ever_does_not_keep_its_target_shut(tmp_path: Path) -> None:
    async def answers(world: World, row: Delivery) -> None:
        if row.id == 1:
            raise TryLater("It fails on this one.")
        await at_once(world, row)

    rows = owed(200)

    async def plot(world: World) -> None:
        await asyncio.sleep(60)

    world = play(tmp_path, answers, rows, plot)
    assert len(world.taken) == 199


def test_what_is_down_leaves_few_in_doubt(tmp_path: Path) -> None:
    """A provider without idempotency keys that answers 500 to all: the gate shuts before everything is `unknown`."""

    async def answers(world: World, row: Delivery) -> None:
        await asyncio.sleep(0.05)
        raise Unknown("Twilio failed (HTTP 500); the message may have gone.")

    rows = owed(500, idempotent=False)

    async def plot(world: World) -> None:
        await asyncio.sleep(HOUR)

    world = play(tmp_path, answers, rows, plot)
    assert world.ended["unknown"] <= HANDS + DOWN_AFTER + 2 * HOUR / LONGEST_PAUSE + 8
    assert world.ended["queued"] > 400


@pytest.mark.parametrize("seed", range(12))
def test_failures_at_random_never_change_the_order_of_a_lane_nor_double_what_cannot_be_repeated(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)

    async def answers(world: World, row: Delivery) -> None:
        await asyncio.sleep(rng.expovariate(5))
        match rng.randrange(12):
            case 0:
                raise NotSent("no route")
            case 1:
                raise TryLater("busy", rng.choice((None, 0.0, 3.0, 40.0, -1.0)))
            case 2:
                world.take(row)
                raise NoAnswer("lost")
            case 3:
                raise Unknown("lost")
            case 4 if row.id % 7 == 0:
                raise Refused("no")
            case 5:
                await asyncio.sleep(100)  # longer than an attempt may take
        world.take(row)

    rows = owed(15, 4, idempotent=False) + owed(15, 4, target="mail", first=1_000)

    async def plot(world: World) -> None:
        await world.until_done()

    world = play(tmp_path, answers, rows, plot, seed=seed)
    check_order(world, rows)
    assert max(len(world.taken[row.id]) for row in rows if not row.idempotent) == 1
    for row in rows:
        (state,) = [one.state for _, one in world.begun if one.id == row.id][:1]
        assert state == "sending"
    assert world.ended["done"] > 60


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0, 100.0, -100.0, 3_600.0])
def test_a_clock_that_jumps_steals_no_lease_and_reorders_nothing(tmp_path: Path, jump: float) -> None:
    async def answers(world: World, row: Delivery) -> None:
        await asyncio.sleep(20)
        world.take(row)

    rows = owed(10, 3, idempotent=False) + owed(10, 3, target="mail", first=1_000)

    async def plot(world: World) -> None:
        await asyncio.sleep(10)
        assert world.states()["sending"] == 20
        world.jumped += jump
        await world.until_done(0.5)

    world = play(tmp_path, answers, rows, plot)
    assert world.ended == {"done": 60}, "nothing unknown"
    assert {len(times) for times in world.taken.values()} == {1}
    check_order(world, rows)


def test_a_claim_that_was_committed_and_reported_lost_is_not_called_unknown(tmp_path: Path) -> None:
    rows = owed(3, idempotent=False)
    lost = [StorageBusy("The connection was lost in COMMIT.")]

    async def plot(world: World) -> None:
        world.trouble = lambda work: lost.pop() if isinstance(work, Claim) and lost else None
        await world.until_done(0.1)

    world = play(tmp_path, at_once, rows, plot)
    assert lost == []
    assert world.ended == {"done": 3}
    assert {(row.id, row.attempt) for _, row in world.begun} == {(1, 1), (2, 1), (3, 1)}, "the claim nobody heard of counts as no try"


def test_an_outcome_that_was_committed_and_reported_lost_is_noted_once(tmp_path: Path) -> None:
    rows = owed(5, 2, idempotent=False)
    rng = random.Random(5)

    async def plot(world: World) -> None:
        world.trouble = lambda work: StorageBusy("The connection was lost in COMMIT.") if rng.random() < 0.4 else None
        await world.until_done(0.5)
        world.trouble = lambda work: None

    world = play(tmp_path, at_once, rows, plot)
    assert world.ended == {"done": 10}
    assert {len(times) for times in world.taken.values()} == {1}


def test_an_outcome_that_cannot_be_stored_for_long_keeps_its_row_in_hand(tmp_path: Path) -> None:
    """Longer than a lease: nobody calls it unknown or sends it again; once the disk takes it, it is done."""
    rows = owed(2, 2, idempotent=False)

    async def plot(world: World) -> None:
        run = world.run

        async def full(work: Any) -> Any:
            if isinstance(work, Finish) and world.loop.now < 600:
                raise StorageBusy("The disk is full.")
            return await run(work)

        world.outbox._writer = world
        world.run = full  # type: ignore[method-assign]
        await asyncio.sleep(500)
        assert len(world.begun) == 2
        assert world.states() == {"sending": 2, "queued": 2}
        await world.until_done(1)

    world = play(tmp_path, at_once, rows, plot)
    assert world.ended == {"done": 4}
    assert len(world.begun) == 4
