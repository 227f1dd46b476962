"""Followers of a PostgreSQL database: every hub hears every event once, in order and without gaps, whoever commits and whatever breaks."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path

import asyncpg
import pytest

from hub.storage.facts import Facts
from hub.storage.records import Event, Setting
from hub.storage.writer import Unstorable
from tests.storage.several import PATIENCE, State, following, needs_postgres, several

pytestmark = needs_postgres

# A hub of its own that states so many events, as fast as it can.
HUB = """
import asyncio, sys
from hub.policy import Policy
from hub.storage.postgres_writer import PostgresWriter

class State:
    def __init__(self, who, number):
        self.data = f"{who} {number} 0"

    def needs(self, needs):
        pass

    def decide(self, facts):
        facts.emit("stated", data=self.data)

async def main(url, who, many):
    writer = PostgresWriter(url, Policy(), lambda facts, event: None)
    await writer.start()
    print("ready", flush=True)
    sys.stdin.readline()
    work = iter(range(many))
    async def run():
        for number in work:
            await writer.run(State(who, number))
    await asyncio.gather(*(run() for _ in range(12)))
    await writer.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def check(events: list[Event], hubs: int, each: int) -> None:
    assert [event.seq for event in events] == list(range(1, hubs * each + 1)), "in order, none missed, none twice"
    assert Counter(event.data for event in events) == Counter(f"{who} {n} 0" for who in range(hubs) for n in range(each))


async def test_four_hubs_commit_at_full_speed_and_a_follower_hears_all_of_it() -> None:
    each = 1_000
    async with several(0) as hubs, following(hubs.url) as (heard, _):
        root = Path(__file__).parents[2]
        started = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", HUB, hubs.url, str(who), str(each)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=root,
            )
            for who in range(4)
        ]
        for process in started:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        assert [await process.wait() for process in started] == [0] * 4
        await heard.upto(4 * each)
        check(heard.events, 4, each)
        assert await hubs.value("SELECT seq FROM event_head") == 4 * each


async def test_a_number_is_not_given_out_while_a_lower_one_may_still_appear() -> None:
    """One hub has its number and has not committed; another one's event must not be numbered, let alone seen, before that is over."""
    async with several(1) as hubs, following(hubs.url) as (heard, _):
        slow = await asyncpg.connect(hubs.url)
        await slow.execute("BEGIN")
        taken = await slow.fetchval("UPDATE event_head SET seq = seq + 1 RETURNING seq")
        quick = asyncio.create_task(hubs.writers[0].run(State("quick", 0)))
        await hubs.waiting()
        assert not quick.done()
        await slow.execute("INSERT INTO event (seq, type, at, data) VALUES ($1, 'stated', 1, 'slow')", taken)
        await slow.execute("COMMIT")
        await asyncio.wait_for(quick, PATIENCE)
        await heard.upto(2)
        assert [(event.seq, event.data) for event in heard.events] == [(1, "slow"), (2, "quick 0 0")]
        slow.terminate()


async def test_an_aborted_transaction_leaves_no_gap() -> None:
    async with several(2) as hubs:
        for number in range(10):
            writer = hubs.writers[number % 2]
            if number % 3 == 1:
                with pytest.raises(Unstorable, match="UniqueViolationError"):
                    await writer.run(_Clash())
            else:
                await writer.run(State("a", number, many=3))
        assert [row[0] for row in await hubs.rows("SELECT seq FROM event ORDER BY seq")] == list(range(1, 22))


class _Clash(State):
    def __init__(self) -> None:
        super().__init__("clash", 0)

    def decide(self, facts: Facts) -> None:
        super().decide(facts)
        facts.insert(Setting("twice", ""))
        facts.insert(Setting("twice", ""))


async def test_whoever_begins_later_hears_only_what_follows() -> None:
    async with several(1) as hubs:
        (writer,) = hubs.writers
        await writer.run(State("before", 0, many=5))
        async with following(hubs.url, after=5) as (heard, _):
            await writer.run(State("after", 0, many=2))
            await heard.upto(7)
            assert [event.seq for event in heard.events] == [6, 7]


async def test_more_events_than_one_look_takes_arrive_in_order() -> None:
    async with several(1) as hubs:
        await hubs.writers[0].run(State("many", 0, many=2_500))
        async with following(hubs.url) as (heard, _):
            await heard.upto(2_500)
            assert [event.seq for event in heard.events] == list(range(1, 2_501))


async def test_a_follower_whose_connection_breaks_connects_again_and_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.storage.postgres_follower.random.uniform", lambda low, high: 0.01)
    async with several(1) as hubs, following(hubs.url) as (heard, follower):
        (writer,) = hubs.writers
        for number in range(5):
            await writer.run(State("a", number))
            assert follower._connection is not None
            pid = follower._connection.get_server_pid()
            assert await hubs.value("SELECT pg_terminate_backend($1, 10000)", pid)
            await writer.run(State("b", number))
            await heard.upto(2 * number + 2)
        assert [event.seq for event in heard.events] == list(range(1, 11))
        assert heard.woken >= 5, "what other hubs left in the outbox meanwhile is looked for"
        # It listens again: told at once, not found by the poll.
        monkeypatch.setattr("hub.storage.postgres_follower.POLL", 3_600.0)
        await writer.run(State("c", 0))
        await heard.upto(11)
        await writer.run(State("c", 1))
        await heard.upto(12)


async def test_a_lost_notification_is_made_up_for_by_the_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.storage.postgres_follower.POLL", 0.02)
    async with several(0) as hubs, following(hubs.url) as (heard, _):
        await hubs.rows("INSERT INTO event (seq, type, at, data) VALUES (1, 'stated', 1, 'told to nobody')")
        await heard.upto(1)


async def test_events_are_dated_by_the_database_and_not_by_a_hub_whose_clock_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async with several(1) as hubs:
        monkeypatch.setattr("hub.storage.writer.time.time_ns", lambda: 86_400 * 10**9)
        micros = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        before = await hubs.value(micros)
        await hubs.writers[0].run(State("a", 0, many=3))
        after = await hubs.value(micros)
        rows = await hubs.rows("SELECT seq, at FROM event ORDER BY seq")
        assert [row["seq"] for row in rows] == [1, 2, 3]
        assert all(before <= row["at"] <= after for row in rows)


async def test_a_writer_with_nothing_to_state_tells_nobody() -> None:
    async with several(1) as hubs:
        told: list[str] = []
        await hubs.other.add_listener("hub_events", lambda *args: told.append(str(args[-1])))
        await hubs.writers[0].run(State("silent", 0, many=0))
        await hubs.writers[0].run(State("said", 0))
        async with asyncio.timeout(PATIENCE):
            while not told:
                await hubs.other.execute("SELECT 1")
        assert told == [""], "one notification, with nothing in it"
