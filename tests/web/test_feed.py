"""The live feed: every stream gets every event once and in order, or is told that it missed some."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub.storage.records import Event
from hub.web import feed as module
from hub.web.feed import QUEUE, RING, Feed, Stream


@pytest.fixture(autouse=True)
def no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK", 0)


def events(first: int, last: int, type_: str = "message.received") -> list[Event]:
    return [Event(seq, type_, 1) for seq in range(first, last + 1)]


async def next_of(batches: AsyncIterator[Any]) -> Any:
    batch = await asyncio.wait_for(anext(batches), 30)
    return None if batch is None else [event.seq for event in batch]


async def drain(stream: Stream) -> list[int | None]:
    """Everything the stream has for its reader now; None where it says reload."""
    got: list[int | None] = []
    async for batch in stream.batches(keepalive=0):
        if batch == []:
            return got
        got += [None] if batch is None else [event.seq for event in batch]
    return got


async def test_what_commits_between_two_looks_comes_as_one_frame_in_order() -> None:
    feed = Feed()
    stream = feed.subscribe()
    feed.publish(events(1, 3))
    feed.publish(events(4, 5))
    assert await next_of(stream.batches()) == [1, 2, 3, 4, 5]


async def test_what_commits_within_one_tick_of_the_first_leaves_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed()
    stream = feed.subscribe()
    ticking, over = asyncio.Event(), asyncio.Event()

    async def tick(seconds: float) -> None:
        ticking.set()
        await over.wait()

    waiting = asyncio.ensure_future(anext(stream.batches()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    monkeypatch.setattr(module.asyncio, "sleep", tick)
    feed.publish(events(1, 1))
    await ticking.wait()
    feed.publish(events(2, 2))
    over.set()
    assert [event.seq for event in await waiting or ()] == [1, 2]


async def test_only_what_is_wanted_is_delivered() -> None:
    feed = Feed()
    stream = feed.subscribe(wanted=lambda event: event.type == "note.added")
    feed.publish([*events(1, 2), *events(3, 3, "note.added"), *events(4, 4)])
    assert await drain(stream) == [3]


@pytest.mark.parametrize(
    ("published", "after", "expected"),
    [
        ((1, 5), None, []),  # a new stream begins now
        ((1, 5), 5, []),  # nothing missed
        ((1, 5), 3, [4, 5]),  # missed two
        ((1, 5), 0, [1, 2, 3, 4, 5]),  # everything since the beginning of the database
        ((100, 105), 99, [100, 101, 102, 103, 104, 105]),  # the ring begins right after
        ((100, 105), 98, [None]),  # one is gone for good: reload
        ((100, 105), 3, [None]),
        ((100, 105), 400, [None]),  # a number of another database, or from before a restore
        ((), 7, [None]),  # a restart: nobody can say what was missed
        ((), 0, []),  # an empty database
    ],
)
async def test_a_reconnect_is_caught_up_or_told_to_reload(published: tuple[int, ...], after: int | None, expected: list[Any]) -> None:
    feed = Feed()
    if published:
        feed.publish(events(*published))
    stream = feed.subscribe(after)
    assert await drain(stream) == expected
    feed.publish(events(1_000, 1_001))
    assert await drain(stream) == [1_000, 1_001], "and goes on from there"


async def test_nothing_is_lost_or_doubled_between_subscribing_and_reading_the_backlog() -> None:
    feed = Feed()
    feed.publish(events(1, 10))
    stream = feed.subscribe(after=7)
    feed.publish(events(11, 12))
    assert await drain(stream) == [8, 9, 10, 11, 12]


async def test_the_ring_forgets_the_oldest() -> None:
    feed = Feed()
    feed.publish(events(1, RING + 10))
    assert feed.last_seq == RING + 10
    assert await drain(feed.subscribe(after=9)) == [None]
    rest = await drain(feed.subscribe(after=RING))
    assert rest == list(range(RING + 1, RING + 11))


async def test_a_stream_that_falls_behind_is_told_once_and_goes_on() -> None:
    feed = Feed()
    slow, quick = feed.subscribe(), feed.subscribe(wanted=lambda event: event.seq > QUEUE)
    feed.publish(events(1, QUEUE + 1))
    feed.publish(events(QUEUE + 2, QUEUE + 3))
    assert await drain(slow) == [None]
    assert await drain(quick) == [QUEUE + 1, QUEUE + 2, QUEUE + 3], "the others lose nothing"
    feed.publish(events(QUEUE + 4, QUEUE + 4))
    assert await drain(slow) == [QUEUE + 4]


async def test_a_full_queue_is_not_yet_behind() -> None:
    feed = Feed()
    stream = feed.subscribe()
    feed.publish(events(1, QUEUE))
    assert await drain(stream) == list(range(1, QUEUE + 1))


async def test_a_quiet_stream_says_so_from_time_to_time() -> None:
    stream = Feed().subscribe()
    batches = stream.batches(keepalive=0)
    assert await next_of(batches) == []
    assert await next_of(batches) == []


async def test_a_closed_stream_ends_even_while_it_waits_and_is_forgotten() -> None:
    feed = Feed()
    stream = feed.subscribe()
    waiting = asyncio.ensure_future(drain_to_end(stream))
    await asyncio.sleep(0)
    feed.close()
    assert await asyncio.wait_for(waiting, 30) == []
    assert not feed._streams


async def drain_to_end(stream: Stream) -> list[Any]:
    return [batch async for batch in stream.batches()]


async def test_after_a_restart_whoever_saw_an_older_event_must_reload() -> None:
    feed = Feed(start=57)
    assert feed.last_seq == 57
    assert feed.subscribe(after=56).lost
    assert not feed.subscribe(after=57).lost


async def test_one_stream_whose_filter_fails_keeps_nothing_from_the_others() -> None:
    feed = Feed()
    bad = feed.subscribe(wanted=lambda event: 1 / 0 > 1)
    good = feed.subscribe()
    feed.publish(events(1, 2))
    assert await drain(good) == [1, 2]
    assert await drain(bad) == [None], "a stream whose filter failed does not know what it missed"
