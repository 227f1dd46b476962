"""What the simulation has found, told alone; and the storm it was found in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from hub.contract import Claim, InboundMessage, Proof, TryLater
from hub.conversations.commands import Reply
from hub.delivery.works import Finish, finish
from hub.storage.records import Delivery
from tests.simulation.process import STORM, Weather
from tests.simulation.seeds import CHUNK, STORMS, chunk
from tests.simulation.world import POLICY, SMS, World

FINE = Weather(refused=0.0, lost=0.0, crash=0.0, network=0.0, disasters=0.0, jumps=False)


class Slow:
    """Asks to wait; asked again, takes its time."""

    def __init__(self) -> None:
        self.tries = 0
        self.under_way = 0
        self.most = 0

    async def carry(self, delivery: Delivery) -> Finish:
        self.tries += 1
        if self.tries == 1:
            raise TryLater("Too many requests.")
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(30)
        self.under_way -= 1
        return finish(delivery, provider_id=f"SM{self.tries}")


class SaidAgain(World):
    """How the first try ended is stored, but the answer of that COMMIT is lost, and the database refuses what is said again until
    the second try is under way."""

    lost_at: float | None = None

    def ending(self, works: Sequence[Any]) -> str:
        if any(isinstance(work, Finish) for work in works):
            if self.lost_at is None:
                self.lost_at = self.loop.now
                return "lost"
            if self.loop.now < self.lost_at + 6.0:
                return "refused"
        return "stored"

    async def main(self) -> None:
        self.haste = 200.0
        self.carriers["reply"] = self.slow = Slow()
        await self._begin(0.0)
        said = InboundMessage(provider_key="1", claims=(Claim("phone", "+12025550123", Proof.CHANNEL),), text="Hello?")
        self._post(SMS, [(said, ())], lambda outcome: None)
        await asyncio.sleep(1)
        await self._call(Reply(1, 1, "Here it is.", "draft"))
        await asyncio.sleep(200)


@pytest.mark.parametrize("seed", [0, 1, 3])  # in these the second try is under way when it is said again
def test_what_is_said_again_of_an_earlier_try_does_not_end_a_later_one(seed: int) -> None:
    world = SaidAgain(seed, policy=replace(POLICY, rooms=(), destinations=()), weather=FINE).run()
    assert world.seen["commit refused"] >= 2
    assert (world.slow.tries, world.slow.most) == (2, 1), "one answer to the customer, sent once"
    assert world.model.rows("SELECT status FROM message WHERE direction = 'out'") == [("sent",)]


@pytest.mark.parametrize("first", range(0, STORMS, CHUNK))
def test_every_promise_holds_in_a_storm_of_refused_and_doubtful_commits(first: int) -> None:
    chunk(first, weather=STORM)
