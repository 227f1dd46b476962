"""The outbox worker: claims what is due, hands each to its carrier, notes how it ended.

Delivery is at least once where repeating is harmless (webhooks, updates of cards, media). Where the provider takes no idempotency key, a
crash or a lost answer between its acceptance and our note leaves `unknown`: shown, never silently sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import structlog

from hub.contract import NoAnswer, NotSent, Refused, TryLater, Unknown
from hub.delivery.works import Claim, Finish, ReleaseLeases, finish
from hub.storage.records import Delivery
from hub.storage.writer import StorageBusy, Writer

log = structlog.get_logger("hub.outbox")

AT_ONCE = 64  # deliveries under way
PER_TARGET = 8  # of them to one target, so that a slow one delays no other
POLL = 1.0  # seconds between looks at what has become due
PATIENCE = 60.0  # seconds one attempt may take; below the lease, so that a lease never runs out under a living worker


class Carrier(Protocol):
    """Carries one kind of delivery to its target."""

    async def carry(self, delivery: Delivery) -> Finish:
        """Deliver, and say how it ended. Raises Refused, TryLater or Unknown."""
        ...


EXPECTED = (Refused, TryLater, NotSent, Unknown, NoAnswer, TimeoutError)


def judge(error: Exception, delivery: Delivery) -> Finish:
    """The outcome an exception stands for. Pure."""
    if isinstance(error, Refused):
        return finish(delivery, "failed", error=str(error))
    if isinstance(error, TryLater):
        return finish(delivery, "later", error=str(error), retry_after=error.retry_after)
    if isinstance(error, NotSent):
        return finish(delivery, "later", error=str(error))
    # A lost answer, or a mistake of ours: we cannot say how far it came.
    text = (str(error) or "No answer in time.") if isinstance(error, EXPECTED) else f"Unexpected: {type(error).__name__}."
    return finish(delivery, "later" if delivery.idempotent else "unknown", error=text)


class Outbox:
    """One worker of the outbox."""

    def __init__(self, writer: Writer, carriers: Mapping[str, Carrier], rng: random.Random | None = None) -> None:
        self._writer = writer
        self._carriers = carriers
        self._rng = rng or random.Random()
        self._token = secrets.token_hex(8)
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._per_target: Counter[str] = Counter()
        self._loop_task: asyncio.Task[None] | None = None
        self._stopping = False

    def wake(self) -> None:
        """Something may have become due."""
        self._wake.set()

    async def start(self) -> None:
        lost = await self._writer.run(ReleaseLeases())
        if lost:
            log.warning("deliveries were under way when the hub stopped", count=lost)
        self._loop_task = asyncio.create_task(self._serve(), name="outbox")

    async def stop(self, patience: float = 5.0) -> None:
        """Claim nothing new; give what is under way `patience` seconds to end."""
        self._stopping = True
        self._wake.set()
        if self._loop_task is not None:
            await self._loop_task
        if self._running:
            await asyncio.wait(self._running, timeout=patience)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _serve(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                more = await self._claim()
            except StorageBusy as error:
                log.warning("nothing claimed; will look again", error=str(error))
                more = False
            except Exception as error:
                # Nobody else would carry anything any more: whatever it is, look again.
                log.error("nothing claimed; will look again", error=type(error).__name__, where=_where(error))
                more = False
            if not more:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await self._wake.wait()

    async def _claim(self) -> bool:
        free = AT_ONCE - len(self._running)
        if free <= 0:
            return False
        claimed = await self._writer.run(Claim(min(free, PER_TARGET), self._token, PER_TARGET, dict(self._per_target)))
        for delivery in claimed:
            self._per_target[delivery.target] += 1
            task = asyncio.create_task(self._carry(delivery), name=f"delivery-{delivery.id}")
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return bool(claimed)

    async def _carry(self, delivery: Delivery) -> None:
        try:
            outcome = await self._attempt(delivery)
            await self._note(replace(outcome, jitter=self._rng.random()))
        finally:
            self._per_target[delivery.target] -= 1
            self._wake.set()

    async def _attempt(self, delivery: Delivery) -> Finish:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._carriers[delivery.kind].carry(delivery)
        except Exception as error:
            if not isinstance(error, EXPECTED):
                log.error("delivery failed unexpectedly", delivery=delivery.id, error=type(error).__name__, where=_where(error))
            return judge(error, delivery)

    async def _note(self, outcome: Finish) -> None:
        # Until this is committed the row stays `sending`; giving up on it would turn a success into an `unknown`.
        for wait in (0.1, 0.5, 2.0, 5.0, None):
            try:
                await self._writer.run(outcome)
            except StorageBusy:
                if wait is None:
                    log.error("outcome not stored; the lease will run out", delivery=outcome.delivery_id)
                    return
                await asyncio.sleep(wait)
            except Exception as error:
                log.error("outcome not stored", delivery=outcome.delivery_id, error=type(error).__name__, where=_where(error))
                return
            else:
                return


def _where(error: BaseException) -> str:
    """The lines of code an error came through. Not its text, which may quote what a customer wrote."""
    return "".join(traceback.format_tb(error.__traceback__)[-4:])
