"""Workers of several hubs share one outbox on PostgreSQL: each row is carried once, in its lane's order, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from hub.delivery.works import Claim, finish
from hub.policy import SECOND, Policy
from hub.storage.postgres import CONVERSATION_LOCKS
from hub.storage.postgres_writer import PostgresWriter
from hub.storage.records import Delivery
from tests.storage import Clock
from tests.storage.several import Several, holding, needs_postgres, several

pytestmark = needs_postgres

ROWS, LANES = 2_000, 300
POLICY = Policy()

# Half of the rows are answers at a provider without idempotency keys, half are told to a destination that knows what it heard.
FILL = (
    "INSERT INTO customer (id, name, created_at, hold_version) SELECT n, '', 1, 0 FROM generate_series(1, {lanes}) AS n",
    "INSERT INTO message (id, conversation_id, direction, status, text, created_at, proof, subject, sender_name, automatic, doubt, error, "
    "in_reply_to) SELECT n, n % {lanes} + 1, 'out', 'queued', '', 1, '', '', '', '', '', '', '' FROM generate_series(1, {rows}) AS n",
    "INSERT INTO delivery (id, lane, kind, target, subject_id, payload, state, idempotent, created_at, due_at, attempt, version, ref, "
    "lease_token, lease_until, error) "
    "SELECT n, CASE WHEN n % 2 = 0 THEN 'reply:' ELSE 'hold:' END || n % {lanes}, "
    "CASE WHEN n % 2 = 0 THEN 'reply' ELSE 'hold' END, CASE WHEN n % 2 = 0 THEN 'sms' ELSE 'marketing' END, "
    "CASE WHEN n % 2 = 0 THEN n ELSE n % {lanes} + 1 END, '{}', 'queued', n % 2 = 1, 1, 1, 0, 1, '', '', 0, '' "
    "FROM generate_series(1, {rows}) AS n",
)


# What a living worker has in hand, or can claim now: what is due, behind nothing that a dead one left.
LEFT = (
    "SELECT 1 FROM delivery d WHERE (d.state = 'sending' AND d.lease_token <> 'dies') "
    "OR (d.state = 'queued' AND d.due_at <= $1 AND NOT EXISTS "
    "(SELECT 1 FROM delivery e WHERE e.lane = d.lane AND (e.state = 'sending' OR e.state = 'unknown' AND e.due_at > $1))) LIMIT 1"
)


async def fill(hubs: Several, rows: int, lanes: int) -> None:
    for statement in FILL:
        await hubs.rows(statement.replace("{rows}", str(rows)).replace("{lanes}", str(lanes)))


class Outside:
    """What the providers were told, in the order they heard it."""

    def __init__(self, together: int = 1) -> None:
        """`together`: so many workers have something in hand before the first of them is done with anything."""
        self.carried: list[Delivery] = []
        self._together = asyncio.Barrier(together)

    async def work(self, writer: PostgresWriter, token: str, hubs: Several, dies_after: int | None = None) -> None:
        """One worker: until nothing can be claimed, or until it is killed with its hands full."""
        claims = 0
        while True:
            claimed = await writer.run(Claim(token, 16))
            self.carried += claimed
            claims += bool(claimed)
            if claims == dies_after:
                return
            if claimed and claims == 1:
                await self._together.wait()
            await asyncio.gather(*(writer.run(finish(row)) for row in claimed))
            if not claimed and not await hubs.value(LEFT, writer.clock()):
                return

    def times(self) -> Counter[int]:
        return Counter(row.id for row in self.carried)

    def check_order(self) -> None:
        lanes: dict[str, list[int]] = defaultdict(list)
        for row in self.carried:
            lanes[row.lane].append(row.id)
        assert all(ids == sorted(ids) for ids in lanes.values())


async def states(hubs: Several) -> dict[str, int]:
    return {row[0]: row[1] for row in await hubs.rows("SELECT state, count(*) FROM delivery GROUP BY state")}


async def test_four_workers_carry_each_row_once_and_every_lane_in_order() -> None:
    outside = Outside(together=4)
    async with several(4, clock=Clock()) as hubs:
        await fill(hubs, ROWS, LANES)
        await asyncio.gather(*(outside.work(writer, f"w{n}", hubs) for n, writer in enumerate(hubs.writers)))
        assert await states(hubs) == {"done": ROWS}
        assert outside.times() == Counter(range(1, ROWS + 1))
        assert len({row.lane for row in outside.carried}) == LANES
        assert len({row.lease_token for row in outside.carried}) == 4, "all four had a share"
        outside.check_order()


async def test_what_a_killed_worker_had_in_hand_is_sent_again_only_where_that_is_harmless() -> None:
    outside, clock = Outside(), Clock()
    rows, lanes = 600, 100
    async with several(4, clock=clock) as hubs:
        await fill(hubs, rows, lanes)
        # It dies before the others begin: beside them, how much it has in hand, and of which kind, would be theirs to leave to it.
        await outside.work(hubs.writers[0], "dies", hubs, 3)
        in_hand = outside.carried[-32:]  # sixteen for each target
        assert Counter(row.idempotent for row in in_hand) == {True: 16, False: 16}
        await asyncio.gather(*(outside.work(w, t, hubs) for w, t in zip(hubs.writers[1:], "bcd", strict=True)))
        left = {row["id"] for row in await hubs.rows("SELECT id FROM delivery WHERE state = 'sending'")}
        assert left == {row.id for row in in_hand}
        before = len(outside.carried)
        await outside.work(hubs.writers[1], "b", hubs)
        assert len(outside.carried) == before, "while the lease runs, it may live"

        clock.advance(POLICY.delivery_lease / SECOND)
        await asyncio.gather(*(outside.work(w, t, hubs) for w, t in zip(hubs.writers[1:], "bcd", strict=True)))
        unknown = {row["id"] for row in await hubs.rows("SELECT id FROM delivery WHERE state = 'unknown'")}
        assert unknown == {row.id for row in in_hand if not row.idempotent}
        clock.advance(POLICY.unknown_blocks / SECOND)
        await asyncio.gather(*(outside.work(w, t, hubs) for w, t in zip(hubs.writers[1:], "bcd", strict=True)))
        assert await states(hubs) == {"done": rows - len(unknown), "unknown": len(unknown)}
        times = outside.times()
        assert set(times) == set(range(1, rows + 1))
        assert {id_ for id_, many in times.items() if many > 1} == left - unknown
        assert max(times.values()) == 2
        outside.check_order()
        # The dead one comes back and notes what it knows: its lease is another's, or nobody's.
        late = await asyncio.gather(*(hubs.writers[0].run(finish(row)) for row in in_hand))
        assert not any(late)


async def test_a_worker_passes_over_what_another_hub_is_busy_with() -> None:
    async with several(1, clock=Clock()) as hubs:
        await fill(hubs, 8, 8)
        (writer,) = hubs.writers
        async with holding(hubs.url, CONVERSATION_LOCKS + 3, CONVERSATION_LOCKS + 4):
            claimed = await writer.run(Claim("w", 16))
            assert sorted(row.id for row in claimed) == [1, 4, 5, 6, 7, 8], "without waiting for conversations 3 and 4"
        assert sorted(row.id for row in await writer.run(Claim("w", 16))) == [2, 3]


async def test_of_two_that_claim_at_once_each_row_has_one() -> None:
    async with several(4, clock=Clock()) as hubs:
        await fill(hubs, 40, 40)
        claims: Sequence[list[Delivery]] = await asyncio.gather(*(w.run(Claim(f"w{n}", 16)) for n, w in enumerate(hubs.writers)))
        ids = [row.id for claimed in claims for row in claimed]
        assert len(ids) == len(set(ids))
        stored = {row["id"]: row["lease_token"] for row in await hubs.rows("SELECT id, lease_token FROM delivery WHERE state = 'sending'")}
        assert stored == {row.id: row.lease_token for claimed in claims for row in claimed}


async def test_a_hub_whose_clock_is_a_day_ahead_takes_no_lease_and_nothing_that_is_not_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases run by the database's clock, whatever a machine believes."""
    async with several(2) as hubs:
        await fill(hubs, 4, 4)
        micros = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        await hubs.rows(f"UPDATE delivery SET due_at = {micros} + 3600000000 WHERE id = 4")
        claimed = await hubs.writers[0].run(Claim("a", 16))
        assert sorted(row.id for row in claimed) == [1, 2, 3]
        now = await hubs.value(f"SELECT {micros}")
        assert all(0 < row.lease_until - now <= POLICY.delivery_lease for row in claimed)
        real = time.time_ns
        monkeypatch.setattr("hub.storage.writer.time.time_ns", lambda: real() + 86_400 * 10**9)
        assert hubs.writers[1].clock() > max(row.lease_until for row in claimed)
        assert await hubs.writers[1].run(Claim("b", 16)) == []
        assert await states(hubs) == {"sending": 3, "queued": 1}


@pytest.mark.parametrize("kind", ["hold", "card", "media", "reply"])
async def test_a_delivery_is_changed_under_the_lock_of_its_conversation(kind: str, tmp_path: Path) -> None:
    subject = {"hold": 2, "card": 1, "media": 1, "reply": 1}[kind]  # ticket 1 and message 1 stand in conversation 2
    async with several(1, clock=Clock()) as hubs:
        await fill(hubs, 1, 3)
        await hubs.rows(
            "INSERT INTO ticket (id, conversation_id, status, subject, brand, channel_id, identifier_id, opened_at, last_at, preview, "
            "version) VALUES (1, 2, 'open', '', '', 1, 1, 1, 1, '', 0)"
        )
        await hubs.rows("UPDATE delivery SET kind = $1, subject_id = $2, target = 'x'", kind, subject)
        (writer,) = hubs.writers
        (row,) = await writer.run(Claim("w", 16))
        async with holding(hubs.url, CONVERSATION_LOCKS + 2) as release:
            ending = asyncio.create_task(writer.run(finish(row) if kind != "media" else _media(row)))
            await hubs.waiting()
            release()
            assert await ending
        assert await states(hubs) == {"done": 1}


def _media(row: Delivery):  # type: ignore[no-untyped-def]
    row.payload = '{"attachment": "a"}'
    return finish(row)
