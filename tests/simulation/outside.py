"""The world outside the hub: providers of channels, a room, destinations. What each does with a request is drawn from the seed.

They are carriers to the outbox, and live on when the hub's process dies: what was under way there arrives all the same.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

from hub.contract import DeliveryUpdate, MessageStatus, NoAnswer, NotSent, Refused, TryLater, Unknown
from hub.delivery.works import Finish, finish
from hub.storage.records import Delivery
from tests.simulation.model import Attempt, Model

# What a provider does with a request -> how often, when the weather is bad.
TEMPERS = {
    "takes it": 60,
    "refuses": 4,
    "asks to wait": 9,
    "cannot be reached": 8,
    "takes it, answer lost": 6,
    "never gets it, answer lost": 3,
    "takes it, never answers": 3,
    "never answers": 2,
    "is slow": 3,
    "takes it, answers nonsense": 2,
}
TAKING = {"takes it", "takes it, answer lost", "takes it, never answers", "takes it, answers nonsense", "is slow"}
WAITS = (None, 0.0, 2.0, 7.5, 30.0, -5.0, 1e9)  # Retry-After, sensible and not
# What is told of a message after it was taken, in the order it happens there. It arrives in any order.
STORIES: tuple[tuple[str, ...], ...] = (
    (),
    ("sent",),
    ("queued", "sent", "delivered"),
    ("sent", "delivered", "read"),
    ("delivered",),
    ("sent", "failed"),
    ("failed",),
)


class Provider:
    """A temperamental other side; `take` says what taking a delivery means there."""

    def __init__(self, rng: random.Random, loop: Any, model: Model, calm: Callable[[], bool]) -> None:
        self.rng = rng
        self.loop = loop
        self.model = model
        self.calm = calm

    def begin(self, delivery: Delivery) -> Attempt:
        attempt = Attempt()
        self.model.attempts[delivery.id].append(attempt)
        return attempt

    def take(self, delivery: Delivery, attempt: Attempt) -> dict[str, Any]:
        raise NotImplementedError

    def temper(self) -> str:
        if self.calm():
            return "takes it"
        return self.rng.choices(list(TEMPERS), TEMPERS.values())[0]

    async def carry(self, delivery: Delivery) -> Finish:
        """Answers as the seed has it. Raises what connectors raise."""
        attempt = self.begin(delivery)
        model, rng = self.model, self.rng
        temper = self.temper()
        if temper == "refuses" and delivery.idempotent and len(model.attempts[delivery.id]) > 1:
            temper = "takes it"  # whoever knows a repeated request by its key does not refuse what he may have taken
        model.seen[f"{delivery.kind}: {temper}"] += 1
        there = rng.expovariate(8.0)
        back = there + rng.expovariate(8.0)
        if temper == "is slow":
            there = rng.uniform(1, 90)
            back = there + rng.uniform(1, 20)
        answer: asyncio.Future[dict[str, Any]] = self.loop.create_future()
        if temper in TAKING:
            self.loop.call_later(there, self._arrives, delivery, attempt, answer, back - there, temper)
        elif temper != "never answers":
            self.loop.call_later(back, _settle, answer, {})
        model.in_hand[delivery.id] = delivery
        try:
            told = await answer
        except asyncio.CancelledError:
            model.doubt([delivery.id], "gave up waiting, or died")
            raise
        finally:
            if model.in_hand.get(delivery.id) is delivery:
                del model.in_hand[delivery.id]
        if temper == "refuses":
            attempt.heard = "refused"
            raise Refused("There is no such number.")
        if temper == "asks to wait":
            attempt.heard = "later"
            raise TryLater("Too many requests.", rng.choice(WAITS))
        if temper == "cannot be reached":
            attempt.heard = "later"
            raise NotSent("Connection refused.")
        if temper in ("takes it", "is slow"):
            attempt.heard = "taken"
            return finish(delivery, **told)
        model.doubt([delivery.id], temper)
        if temper == "takes it, answers nonsense":
            raise KeyError("sid")
        raise rng.choice((Unknown, NoAnswer))("The connection broke.")

    def _arrives(self, delivery: Delivery, attempt: Attempt, answer: asyncio.Future[Any], back: float, temper: str) -> None:
        told = self.take(delivery, attempt)
        attempt.taken = True
        if temper != "takes it, never answers":
            self.loop.call_later(back, _settle, answer, told)


def _settle(answer: asyncio.Future[Any], told: dict[str, Any]) -> None:
    if not answer.done():
        answer.set_result(told)


Report = Callable[[int, DeliveryUpdate], None]


class Telephone(Provider):
    """Providers of replies. Without idempotency every request taken is a message sent; reports come by webhook."""

    def __init__(self, *arguments: Any, report: Report, channel: dict[str, int]) -> None:
        super().__init__(*arguments)
        self._report = report
        self._channel = channel
        self._sids: dict[int, str] = {}  # of an idempotent delivery
        self._count = 0

    def begin(self, delivery: Delivery) -> Attempt:
        self.model.may_send(delivery)
        return super().begin(delivery)

    def take(self, delivery: Delivery, attempt: Attempt) -> dict[str, Any]:
        sid = self._sids.get(delivery.id)
        if sid is None:
            self._count += 1
            sid = f"SM{self._count}"
            if delivery.idempotent:
                self._sids[delivery.id] = sid
            self._tell(delivery, sid)
        return {"provider_id": sid, "status": MessageStatus.SENT}

    def _tell(self, delivery: Delivery, sid: str) -> None:
        if delivery.target not in ("sms", "whatsapp"):
            return
        for word in self.rng.choice(STORIES):
            failed = "Unreachable handset (30003)." if word == "failed" else ""
            update = DeliveryUpdate(
                provider_key=f"{sid}:{word}",
                status=MessageStatus(word),
                delivery_id=delivery.id,
                provider_message_id=sid,
                error=failed,
            )
            self._report(self._channel[delivery.target], update)


class Destination(Provider):
    """A marketing tool: it keeps the newest version it was told of every customer."""

    def temper(self) -> str:
        temper = super().temper()
        return temper if temper != "refuses" else "takes it"  # for good: then it never learns, and that is shown

    def take(self, delivery: Delivery, attempt: Attempt) -> dict[str, Any]:
        told = json.loads(delivery.payload)
        customer, version = told["data"]["customer_id"], told["data"]["version"]
        newest = self.model.told[delivery.target]
        if version >= newest.get(customer, (0, False))[0]:
            newest[customer] = (version, told["type"] != "hold.released")
        self.model.told_rows.add(delivery.id)
        return {}


class Room(Provider):
    """The agents' room: a post a ticket, updated in place."""

    def take(self, delivery: Delivery, attempt: Attempt) -> dict[str, Any]:
        ref = delivery.ref
        if not ref:
            self.model.first_posts[delivery.id] += 1
            ref = f"post-{len(self.model.posts)}"
        # What a late request brings does not replace what a later one brought: a room takes updates in the order they come,
        # and this one's network keeps that order.
        self.model.posts[ref] = max(delivery.version, self.model.posts.get(ref, 0))
        return {"ref": ref}


class Media(Provider):
    """Files to be fetched."""

    def take(self, delivery: Delivery, attempt: Attempt) -> dict[str, Any]:
        return {"sha256": "ab" * 32, "size": 3, "content_type": "image/png"}
