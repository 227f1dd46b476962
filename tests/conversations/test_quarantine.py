"""What we could not use is kept whole; what anybody can send is kept in bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from hub.conversations.quarantine import OVERSIZE, SIGNATURE, UNPARSEABLE, Keep, Settle, SweepUnverified
from hub.policy import DAY, SECOND
from tests.storage import ENGINES, POLICY, SMS, WHATSAPP, Store, open_store
from tests.storage.test_writer import held, queued

KEPT = 5


@pytest.fixture(params=ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with open_store(tmp_path, replace(POLICY, signatures_kept=KEPT), engine=request.param) as opened:
        yield opened


def keep(number: int, kind: str = SIGNATURE, channel: int = SMS) -> Keep:
    return Keep(channel, kind, "why", "POST", "http://hub/in/sms", '{"x": "y"}', f"body {number}".encode(), "", f"digest {number}")


def bodies(store: Store, channel: int = SMS) -> list[str]:
    rows = store.rows("SELECT body FROM quarantine WHERE channel_id = ? ORDER BY id", channel)
    return [row["body"].decode() for row in rows]


async def test_a_request_is_kept_whole_and_told_of(store: Store) -> None:
    await store.run(keep(1, UNPARSEABLE))
    row = store.rows("SELECT * FROM quarantine")[0]
    assert (row["kind"], row["state"], row["body"], row["headers"]) == (UNPARSEABLE, "waiting", b"body 1", '{"x": "y"}')
    assert row["received_at"] == store.clock()
    assert [event.type for event in store.events()] == ["quarantine.added"]


async def test_the_same_request_again_is_kept_once(store: Store) -> None:
    await store.run(keep(1))
    async with held(store) as release:
        tasks = await queued(store, keep(1), keep(2), keep(2))
        release()
        await asyncio.gather(*tasks)
    assert bodies(store) == ["body 1", "body 2"]
    await store.run(keep(1, channel=WHATSAPP))
    assert bodies(store, WHATSAPP) == ["body 1"], "another channel keeps its own"


@pytest.mark.parametrize("kind", [SIGNATURE, OVERSIZE])
async def test_of_what_anybody_can_send_only_the_last_are_kept(kind: str, store: Store) -> None:
    await store.run(keep(0, UNPARSEABLE))
    for number in range(1, KEPT + 4):
        await store.run(keep(number, kind))
    assert bodies(store) == ["body 0", *(f"body {number}" for number in range(4, KEPT + 4))]
    await store.run(keep(99, kind, WHATSAPP))
    assert len(bodies(store)) == KEPT + 1, "each channel has its own bound"


async def test_a_flood_in_one_batch_keeps_the_bound_too(store: Store) -> None:
    for round_ in range(3):
        async with held(store) as release:
            tasks = await queued(store, *(keep(round_ * 100 + number) for number in range(40)))
            release()
            await asyncio.gather(*tasks)
        assert bodies(store) == [f"body {round_ * 100 + number}" for number in range(40 - KEPT, 40)]


async def test_a_flood_is_told_of_once_a_minute(store: Store) -> None:
    """Events are kept for ever: a forger must not fill the disk with them either."""
    for number in range(20):
        await store.run(keep(number))
    assert len(store.events()) == 1
    store.clock.advance(61)
    await store.run(keep(20))
    assert len(store.events()) == 2
    for number in range(30, 33):
        await store.run(keep(number, UNPARSEABLE))
    assert len(store.events()) == 5, "of what is authentic each one counts"


async def test_what_could_not_be_understood_is_never_dropped(store: Store) -> None:
    for number in range(3 * KEPT):
        await store.run(keep(number, UNPARSEABLE))
    store.clock.advance(400 * DAY / SECOND)
    await store.run(keep(999, UNPARSEABLE))
    await store.run(keep(1_000))
    assert len(bodies(store)) == 3 * KEPT + 2


async def test_a_bad_signature_is_kept_for_thirty_days(store: Store) -> None:
    await store.run(keep(1))
    store.clock.advance(30 * DAY / SECOND)
    await store.run(keep(2))
    assert bodies(store) == ["body 1", "body 2"]
    store.clock.advance(1)
    await store.run(keep(3))
    assert bodies(store) == ["body 2", "body 3"]


async def test_bad_signatures_are_forgotten_on_a_quiet_channel_too(store: Store) -> None:
    await store.run(keep(1))
    await store.run(keep(2, UNPARSEABLE))
    await store.run(keep(3, OVERSIZE, WHATSAPP))
    assert await store.run(SweepUnverified((SMS, WHATSAPP))) == 0
    store.clock.advance(30 * DAY / SECOND + 1)
    assert await store.run(SweepUnverified((SMS, WHATSAPP))) == 2
    assert (bodies(store), bodies(store, WHATSAPP)) == (["body 2"], [])


async def test_a_request_is_settled_once(store: Store) -> None:
    await store.run(keep(1))
    assert await store.run(Settle(1, "replayed"))
    assert not await store.run(Settle(1, "dismissed"))
    assert store.value("SELECT state FROM quarantine") == "replayed"
    assert not await store.run(Settle(404, "dismissed"))
