"""A destination that is added while customers are held hears of each of them at once, not when a lease is renewed days later."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hub.contract import Claim, Proof
from hub.conversations.commands import Resolve
from hub.delivery import owed
from hub.delivery.owed import introduce
from hub.storage.records import Agent
from tests.delivery import ADA, BEN, CHAT, START, Ground, Insert, ground


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Ground]:
    """No destination is configured, and nobody was ever told."""
    async with ground(tmp_path) as laid:
        await laid.run(Insert((Agent(1, "robin@shop.example", "Robin", "", "agent", START),)))
        yield laid


async def told(hub: Ground) -> list[tuple[str, str, dict[str, Any]]]:
    """(destination, type, data) of everything owed to destinations, oldest first."""
    found = [(row.target, json.loads(row.payload)) for row in await hub.deliveries("hold")]
    return [(target, said["type"], said["data"]) for target, said in found]


async def test_a_new_destination_is_told_of_everybody_held_with_every_identifier(hub: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed, "AT_A_TIME", 1)
    await hub.hears(claims=(Claim("email", "claimed@example.com", Proof.CLAIMED),))
    await hub.hears("device-1", channel=CHAT)
    await hub.run(Resolve(await hub.hears(BEN), 1))
    await introduce(("marketing",), hub.reader, hub.writer)
    assert [(target, type_, data["customer_id"], data["version"]) for target, type_, data in await told(hub)] == [
        ("marketing", "hold.placed", 1, 1),
        ("marketing", "hold.placed", 2, 1),
    ], "one who is not held is not told of"
    named = {one["value"]: one["because"] for one in (await told(hub))[0][2]["identifiers"]}
    assert named == {ADA: "verified", "claimed@example.com": "claimed"}


async def test_a_destination_is_introduced_once_and_again_when_it_comes_back(hub: Ground) -> None:
    await hub.hears()
    for configured, after in (
        (("a",), ["a"]),
        (("a",), ["a"]),
        (("a", "b"), ["a", "b"]),
        (("b",), ["a", "b"]),
        (("b", "a"), ["a", "b", "a"]),  # what changed while it was away it never heard
        (("a", "b"), ["a", "b", "a"]),
    ):
        await introduce(configured, hub.reader, hub.writer)
        assert [target for target, _, _ in await told(hub)] == after


async def test_a_lease_that_ran_out_holds_nobody_and_is_not_told(hub: Ground) -> None:
    await hub.hears()
    hub.clock.pass_(8 * 86_400)
    await introduce(("marketing",), hub.reader, hub.writer)
    assert await told(hub) == []
