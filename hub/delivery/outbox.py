"""The outbox worker: claims what is due, hands each to its carrier, notes how it ended.

Delivery is at least once where repeating is harmless (webhooks, updates of cards, media). Where the provider takes no idempotency key, a
crash or a lost answer between its acceptance and our note leaves `unknown`: shown, never silently sent again.
Every target has hands of its own (bulkheads), a gate and a pace (`pacing`), so that none delays another.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Protocol

import structlog

from hub.contract import NoAnswer, NotSent, Pace, Refused, TryLater, Unknown
from hub.delivery.attempt import CURRENT, Attempt
from hub.delivery.pacing import HANDS, Gates, Sign, Standing, Target
from hub.delivery.works import Claim, Finish, ReleaseLeases, finish
from hub.storage.records import Delivery
from hub.storage.writer import StorageBusy, Writer

log = structlog.get_logger("hub.outbox")

POLL = 1.0  # seconds between looks at what has become due
PATIENCE = 60.0  # seconds one attempt may take; below the lease, so that a lease never runs out under a living worker
LAST_NOTES = 2.0  # seconds for noting, when stopping, how things ended
LONGEST_ERROR = 500  # characters

CUT_OFF = "The hub was stopped while this was being sent. It may have arrived: look there or ask, or send it again yourself."


class Carrier(Protocol):
    """Carries one kind of delivery to its target."""

    async def carry(self, delivery: Delivery) -> Finish:
        """Deliver, and say how it ended; what it reads before, it reads under `preparing`. Raises Refused, TryLater or Unknown."""
        ...


EXPECTED = (Refused, TryLater, NotSent, Unknown, NoAnswer, TimeoutError)


def judge(error: Exception, delivery: Delivery, left: bool = True) -> Finish:
    """The outcome an exception stands for; `left`: bytes may have gone. Pure."""
    if isinstance(error, Refused):
        return finish(delivery, "failed", error=in_words(error))
    if isinstance(error, TryLater):
        return finish(delivery, "later", error=in_words(error), retry_after=error.retry_after)
    if isinstance(error, NotSent):
        return finish(delivery, "later", error=in_words(error))
    if not left:
        if isinstance(error, EXPECTED):
            return finish(delivery, "later", error=in_words(error) or "It could not be made ready in time. Nothing was sent yet.")
        return finish(delivery, "failed", error=f"Unexpected: {type(error).__name__}. Nothing was sent.")
    # A lost answer, or a mistake of ours: we cannot say how far it came.
    text = (in_words(error) or "No answer in time.") if isinstance(error, EXPECTED) else f"Unexpected: {type(error).__name__}."
    return finish(delivery, "later" if delivery.idempotent else "unknown", error=text)


def in_words(error: Exception) -> str:
    """An expected exception's text for people: one line of a bearable length, without what only programs read. Pure."""
    text = " ".join(str(error).split())
    # Where a connector passes on what the other side said, that may be a page or a data structure.
    for opening, closing in (("{", "}"), ("[{", "}]"), ("<!", ">"), ("<html", ">")):
        start, end = text.lower().find(opening), text.rfind(closing)
        if 0 <= start < end:
            text = f"{text[:start].rstrip()} (an answer only programs can read){text[end + len(closing) :]}".strip()
    return text if len(text) <= LONGEST_ERROR else text[: LONGEST_ERROR - 1] + "…"


def cut_off(delivery: Delivery, left: bool) -> Finish:
    """The outcome of an attempt that was broken off because the hub stops. Pure."""
    if not left:
        return finish(delivery, "back")
    if delivery.idempotent:
        return finish(delivery, "later", error="The hub was stopped while this was under way. It is tried again.")
    return finish(delivery, "unknown", error=CUT_OFF)


def sign_of(error: Exception | None, left: bool) -> Sign:
    """What the end of an attempt tells of its target. Pure."""
    if error is None or isinstance(error, Refused):
        return Sign.UP
    if not left:
        return Sign.NOTHING
    if isinstance(error, TryLater) and error.retry_after is not None:
        return Sign.BUSY
    return Sign.DOWN if isinstance(error, EXPECTED) else Sign.NOTHING


class Outbox:
    """One worker of the outbox."""

    def __init__(
        self,
        writer: Writer,
        carriers: Mapping[str, Carrier],
        rng: random.Random | None = None,
        *,
        paces: Mapping[Target, Pace] | None = None,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        """`paces` is how fast a target may be spoken to; `monotonic` the seconds that gates count in, by default the loop's own."""
        self._writer = writer
        self._carriers = carriers
        self._rng = rng or random.Random()
        self.gates = Gates(paces or {}, self._rng, monotonic or asyncio.get_running_loop().time)
        self._token = secrets.token_hex(8)
        self._wake = asyncio.Event()
        self._running: dict[asyncio.Task[None], Attempt] = {}
        self._carried: set[int] = set()  # in hand, or over without that being noted: never to be taken for a dead worker's
        self._claim_lost = False
        self._loop_task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def wake(self) -> None:
        """Something may have become due."""
        self._wake.set()

    def standings(self, targets: Iterable[Target] = ()) -> list[Standing]:
        """How each target stands, as this process sees it."""
        return self.gates.standings(targets)

    async def start(self, release_leases: bool = True) -> None:
        """Begin to work. `release_leases`: nobody else works on this database, so whoever held a lease is gone."""
        if release_leases:
            lost = await self._writer.run(ReleaseLeases())
            if lost:
                log.warning("deliveries were under way when the hub stopped", count=lost)
        self._loop_task = asyncio.create_task(self._serve(), name="outbox")

    async def stop(self, patience: float = 5.0) -> None:
        """Claim nothing new; give what is under way `patience` seconds to end, break off the rest and note that.

        Takes at most LAST_NOTES seconds more.
        """
        self._stopping.set()
        self._wake.set()
        await self._wait(patience)
        for task, attempt in self._running.items():
            if not attempt.noting:
                task.cancel()
        await self._wait(LAST_NOTES)
        left = [task for task in (self._loop_task, *self._running) if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _wait(self, seconds: float) -> None:
        """Until nothing is under way, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if self._loop_task is not None:
                    await asyncio.wait([self._loop_task])  # a claim under way may add to what is running
                if self._running:
                    await asyncio.wait(self._running)

    async def _serve(self) -> None:
        while not self._stopping.is_set():
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
                    async with asyncio.timeout(min(POLL, self.gates.opens_in())):
                        await self._wake.wait()

    async def _claim(self) -> bool:
        lost, self._claim_lost = self._claim_lost, True  # until we know better
        claimed = await self._writer.run(Claim(self._token, HANDS, self.gates.room(), frozenset(self._carried), lost))
        self._claim_lost = False
        for delivery in claimed:
            self._carried.add(delivery.id)
            self.gates.sent((delivery.kind, delivery.target), delivery.id)
            attempt = Attempt(delivery)
            task = asyncio.create_task(self._carry(attempt), name=f"delivery-{delivery.id}")
            self._running[task] = attempt
            task.add_done_callback(self._running.pop)
        return bool(claimed)

    async def _carry(self, attempt: Attempt) -> None:
        delivery, target = attempt.delivery, (attempt.delivery.kind, attempt.delivery.target)
        CURRENT.set(attempt)
        try:
            if self._stopping.is_set():
                outcome = finish(delivery, "back")
            else:
                carrier = self._carriers[delivery.kind]
                attempt.begun = True
                async with asyncio.timeout(PATIENCE):
                    outcome = await carrier.carry(delivery)
                self.gates.heard(target, delivery.id, Sign.UP)
        except asyncio.CancelledError:
            outcome = cut_off(delivery, attempt.left)
        except Exception as error:
            outcome = self._judge(error, attempt)
        attempt.noting = True
        try:
            if await self._note(replace(outcome, jitter=self._rng.random())):
                self._carried.discard(delivery.id)
        finally:
            self.gates.freed(target)
            self._wake.set()

    def _judge(self, error: Exception, attempt: Attempt) -> Finish:
        delivery = attempt.delivery
        outcome = judge(error, delivery, attempt.left)
        asked = outcome.retry_after or 0.0
        self.gates.heard((delivery.kind, delivery.target), delivery.id, sign_of(error, attempt.left), asked, outcome.error)
        if not isinstance(error, EXPECTED):
            log.error("delivery failed unexpectedly", delivery=delivery.id, error=type(error).__name__, where=_where(error))
        return outcome

    async def _note(self, outcome: Finish) -> bool:
        """Whether it is on the disk. Until then the row stays `sending`; giving up on it would turn a success into an `unknown`."""
        for wait in itertools.chain((0.1, 0.5, 2.0), itertools.repeat(5.0)):
            try:
                await self._writer.run(outcome)
            except StorageBusy as error:
                log.warning("outcome not stored yet; will try again", delivery=outcome.delivery_id, error=str(error))
            except Exception as error:
                log.error("outcome not stored", delivery=outcome.delivery_id, error=type(error).__name__, where=_where(error))
                return False
            else:
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stopping.wait()
            if self._stopping.is_set():
                await asyncio.sleep(min(wait, 0.2))
        raise AssertionError("unreachable: it tries for ever")


def _where(error: BaseException) -> str:
    """The lines of code an error came through. Not its text, which may quote what a customer wrote."""
    return "".join(traceback.format_tb(error.__traceback__)[-4:])
