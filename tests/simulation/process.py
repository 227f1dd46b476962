"""One run of the hub in the simulation, from its start to its death, and the weather it lives in."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hub.conversations.commands import WakeSnoozed
from hub.delivery.outbox import Outbox
from hub.holds.renewal import RenewLeases
from hub.policy import Refusal
from hub.storage.writer import StorageBusy
from tests.simulation.loop import Task
from tests.simulation.store import SimulatedWriter

if TYPE_CHECKING:
    from tests.simulation.world import World

PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Unreachable(Exception):
    """Nobody listens, or the connection broke."""


@dataclass
class Weather:
    """How bad this seed is; every figure a rate."""

    refused: float
    lost: float
    crash: float
    network: float
    disasters: float  # over the whole run
    jumps: bool

    @classmethod
    def of(cls, rng: random.Random, jumps: bool | None) -> Weather:
        storage = rng.random() < 0.5
        dying = rng.random() < 0.5
        return cls(
            refused=rng.choice((0.02, 0.1)) if storage else 0.0,
            lost=rng.choice((0.01, 0.05)) if storage else 0.0,
            crash=rng.choice((0.005, 0.03)) if dying else 0.0,
            network=rng.choice((0.0, 0.1, 0.3)),
            disasters=rng.choice((0.0, 1.0, 3.0)),
            jumps=rng.random() < 0.3 if jumps is None else jumps,
        )


# A database that refuses every third batch and leaves the answer of every fourth in doubt: what is said again must harm nothing.
STORM = Weather(refused=0.35, lost=0.25, crash=0.0, network=0.1, disasters=1.0, jumps=True)


class Process:
    """One run of the hub, from its start to its death."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.alive = True
        self.tasks: list[Task] = []
        self.connections: list[asyncio.Future[Any]] = []
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)
        self.writer = SimulatedWriter(
            world.db, world.loop, world.policy, world.react, world.wall, lambda events, owes: self._on_commit(owes), world
        )
        self.outbox = Outbox(self.writer, world.carriers, random.Random(world.rng.random()))

    def _on_commit(self, owes: bool) -> None:
        if owes:
            self.outbox.wake()

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> Any:
        return self.world.loop.create_task(coro, name=name, context=self.context.copy())

    async def start(self) -> None:
        # The one process that writes here: whoever held a lease is gone.
        if "release_leases" in inspect.signature(self.outbox.start).parameters:
            await self.outbox.start(release_leases=True)  # type: ignore[call-arg]
        else:
            await self.outbox.start()
        self.spawn(self._every(3_600.0, self.renew), "renew")
        self.spawn(self._every(self.world.rng.uniform(5, 20), self.wake_snoozed), "wake")

    async def _every(self, seconds: float, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        while True:
            try:
                await work()
            except StorageBusy:
                pass
            await asyncio.sleep(seconds)

    async def renew(self) -> None:
        while await self.writer.run(RenewLeases(self.world.wall() + self.world.policy.hold_renew_under)):
            pass

    async def wake_snoozed(self) -> None:
        await self.writer.run(WakeSnoozed(self.world.wall()))

    async def answer(self, work: Any, connection: asyncio.Future[Any], acknowledged: Callable[[Any], None]) -> None:
        try:
            outcome = await self.writer.run(work)
        except (StorageBusy, Refusal) as error:
            if not connection.done():
                connection.set_exception(error)
            return
        acknowledged(outcome)  # the answer leaves the hub now, whether it arrives or not
        if not connection.done():
            connection.set_result(outcome)

    async def stop(self) -> None:
        """SIGTERM: as `hub.app` stops."""
        await self.outbox.stop(5.0)
        await self.writer.close()
