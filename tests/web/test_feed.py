"""The live feed: every stream gets every event once and in order, or is told that it missed some."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub.storage.records import Event
from hub.web import feed as module
from hub.web import live
from hub.web.feed import QUEUE, RING, Feed, Stream, parse_id


@pytest.fixture(autouse=True)
def no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST", "TICK", "TICK_EACH"):
        monkeypatch.setattr(module, name, 0)


def events(first: int, last: int, type_: str = "message.received") -> list[Event]:
    return [Event(seq, type_, 1) for seq in range(first, last + 1)]


async def next_of(batches: AsyncIterator[Any]) -> Any:
    batch = await asyncio.wait_for(anext(batches), 30)
    return None if batch is None else [event.seq for event in batch]


async def ticked() -> None:
    """Long enough for what was published to have left: timers that are due run before the next turn's callbacks."""
    for _ in range(3):
        await asyncio.sleep(0)


async def drain(stream: Stream) -> list[int | None]:
    """Everything the stream has for its reader now; None where it says reload."""
    await ticked()
    got: list[int | None] = []
    async for batch in stream.batches(keepalive=0):
        if batch == []:
            return got
        got += [None] if batch is None else [event.seq for event in batch]
    return got


async def test_what_commits_between_two_looks_comes_as_one_frame_in_order() -> None:
    feed = Feed()
    stream = feed.subscribe()
    await publish(feed, events(1, 3), events(4, 5))
    assert await next_of(stream.batches()) == [1, 2, 3, 4, 5]


async def test_what_commits_within_one_tick_leaves_as_one_batch_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed()
    one, other = feed.subscribe(), feed.subscribe()
    feed.publish(events(1, 1))
    feed.publish(events(2, 3))
    await ticked()
    [mine], [theirs] = one._waiting, other._waiting
    assert [event.seq for event in mine] == [1, 2, 3]
    assert mine is theirs, "so that it is encoded once"
    assert live.frame(mine, feed) is live.frame(theirs, feed)


async def test_a_lone_event_leaves_soon_and_a_stream_of_them_by_the_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST", 0.02)
    monkeypatch.setattr(module, "TICK", 0.1)
    monkeypatch.setattr(module, "TICK_EACH", 0.1)
    monkeypatch.setattr(module, "TICK_MOST", 0.25)
    delays: list[float] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def noted(delay: float, callback: Any, *args: Any) -> Any:
        if callback == feed._flush:
            delays.append(delay)
        return call_later(0, callback, *args)

    monkeypatch.setattr(loop, "call_later", noted)
    feed = Feed()
    feed.subscribe()
    feed.publish(events(1, 1))
    await ticked()
    feed.publish(events(2, 2))
    feed.publish(events(3, 3))
    await ticked()
    for _ in range(9):
        feed.subscribe()
    feed.publish(events(4, 4))
    await ticked()
    assert delays[0] == 0.02
    assert len(delays) == 3
    assert 0.1 < delays[1] <= 0.2, "the next frame waits for the tick to pass"
    assert 0.2 < delays[2] <= 0.25, "longer the more streams there are, but not for ever"


async def test_only_what_is_wanted_is_delivered() -> None:
    feed = Feed()
    stream = feed.subscribe(wanted=lambda event: event.type == "note.added")
    feed.publish([*events(1, 2), *events(3, 3, "note.added"), *events(4, 4)])
    assert await drain(stream) == [3]


NO_GAP = None


@pytest.mark.parametrize(
    ("start", "published", "after", "expected", "gap"),
    [
        (0, (1, 5), None, [], NO_GAP),  # a new stream begins now
        (0, (1, 5), 5, [], NO_GAP),  # nothing missed
        (0, (1, 5), 3, [4, 5], NO_GAP),  # missed two
        (0, (1, 5), 0, [1, 2, 3, 4, 5], NO_GAP),  # everything since the beginning of the database
        (99, (100, 105), 99, [100, 101, 102, 103, 104, 105], NO_GAP),  # the ring begins right after
        (99, (100, 105), 98, [100, 101, 102, 103, 104, 105], (98, 99)),  # one is from before this process: in the table
        (99, (100, 105), 3, [100, 101, 102, 103, 104, 105], (3, 99)),
        (99, (), 7, [], (7, 99)),  # a restart
        (99, (), 99, [], NO_GAP),
        (90, (100, 105), 95, [100, 101, 102, 103, 104, 105], NO_GAP),  # numbers 91 to 99 were rolled back: nothing is missing
        (0, (100, 105), 98, [100, 101, 102, 103, 104, 105], NO_GAP),
        (99, (100, 105), 400, [], NO_GAP),  # seen through another process, which is ahead of this one
        (0, (), 0, [], NO_GAP),  # an empty database
    ],
)
async def test_a_reconnect_is_caught_up(start: int, published: tuple[int, ...], after: int | None, expected: list[Any], gap: Any) -> None:
    feed = Feed(start)
    if published:
        feed.publish(events(*published))
    stream = feed.subscribe(after)
    assert stream.gap == gap
    assert await drain(stream) == expected
    feed.publish(events(1_000, 1_001))
    assert await drain(stream) == [1_000, 1_001], "and goes on from there"


@pytest.mark.parametrize("after", [("", 3), ("bbbbbbbb", 3), ("bbbbbbbb", 0), ("aaaaaaaa", 3)])
async def test_a_number_of_another_epoch_says_nothing(after: tuple[str, int]) -> None:
    """A restored or copied database counts anew from where it stood: the same number is another event."""
    feed = Feed(0, "aaaaaaaa")
    feed.publish(events(1, 5))
    stream = feed.subscribe(after)
    assert feed.last_id == "aaaaaaaa-5"
    assert await drain(stream) == ([4, 5] if after[0] == "aaaaaaaa" else [None])
    feed.publish(events(6, 6))
    assert await drain(stream) == [6]


@pytest.mark.parametrize(
    ("typed", "id_"),
    [
        ("57", ("", 57)),
        ("0a1b2c3d-57", ("0a1b2c3d", 57)),
        ("", None),
        ("-", None),
        ("0a1b2c3d-", None),
        ("x", None),
        ("²", None),
        ("a-" + "9" * 18, None),
        ("e" * 40 + "-1", None),
    ],
)
def test_an_id_is_an_epoch_and_a_number_or_nothing(typed: str, id_: Any) -> None:
    assert parse_id(typed) == id_


async def test_a_browser_ahead_of_this_process_is_not_told_again_what_it_saw() -> None:
    feed = Feed(5)
    stream = feed.subscribe(8)
    feed.publish(events(6, 10))
    assert await drain(stream) == [9, 10]


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
    assert feed.subscribe(after=9).gap == (9, 10)
    assert feed.subscribe(after=10).gap is None
    rest = await drain(feed.subscribe(after=RING))
    assert rest == list(range(RING + 1, RING + 11))


async def publish(feed: Feed, *batches: list[Event]) -> None:
    for batch in batches:
        feed.publish(batch)
        await ticked()


async def test_a_stream_that_falls_behind_is_told_once_and_goes_on() -> None:
    feed = Feed()
    slow, quick = feed.subscribe(), feed.subscribe(wanted=lambda event: event.seq > QUEUE)
    await publish(feed, events(1, QUEUE), events(QUEUE + 1, QUEUE + 1), events(QUEUE + 2, QUEUE + 3))
    assert await drain(slow) == [None]
    assert await drain(quick) == [QUEUE + 1, QUEUE + 2, QUEUE + 3], "the others lose nothing"
    feed.publish(events(QUEUE + 4, QUEUE + 4))
    assert await drain(slow) == [QUEUE + 4]


async def test_a_browser_that_does_not_keep_up_is_cut_and_catches_up_when_it_comes_back() -> None:
    feed = Feed()
    slow, cuts = feed.subscribe(), []
    slow.cut = lambda: cuts.append(True)
    await publish(feed, events(1, QUEUE), events(QUEUE + 1, QUEUE + 1), events(QUEUE + 2, QUEUE + 2))
    assert (cuts, slow.closed, slow in feed._streams) == ([True], True, False)
    assert await drain(feed.subscribe(after=QUEUE - 1)) == [QUEUE, QUEUE + 1, QUEUE + 2]


async def test_a_stream_stuck_in_a_write_ends_with_the_hub() -> None:
    feed = Feed()
    stuck, reading, cuts = feed.subscribe(), feed.subscribe(), []
    stuck.cut, reading.cut = (lambda: cuts.append("stuck")), (lambda: cuts.append("reading"))
    waiting = asyncio.ensure_future(drain_to_end(reading))
    await publish(feed, events(1, 1))
    feed.close()
    assert cuts == ["stuck"]
    assert [[event.seq for event in batch] for batch in await asyncio.wait_for(waiting, 30)] == [[1]]


async def test_a_full_queue_is_not_yet_behind() -> None:
    feed = Feed()
    stream = feed.subscribe()
    await publish(feed, events(1, QUEUE - 1), events(QUEUE, QUEUE))
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


def of(seq: int, customer: int | None, type_: str = "message.received", data: str = "{}") -> Event:
    return Event(seq, type_, 1, customer, data=data)


def said(event: Event) -> bool:
    return event.type == "message.received"


async def test_a_customers_stream_hears_of_its_own_and_of_nobody_else() -> None:
    feed = Feed()
    ada, ben = feed.subscribe_customers(said), feed.subscribe_customers(said)
    feed.listen(ada, frozenset({1, 3}))
    feed.listen(ben, frozenset({2}))
    feed.publish([of(1, 1), of(2, 2), of(3, None), of(4, 3), of(5, 1, "note.added"), of(6, 9)])
    assert await drain(ada) == [1, 4]
    assert await drain(ben) == [2]
    feed.listen(ben, frozenset({9}))
    feed.publish([of(7, 2), of(8, 9)])
    assert await drain(ben) == [8]


async def test_a_customers_stream_follows_a_join_at_once() -> None:
    feed = Feed()
    stream = feed.subscribe_customers(said)
    feed.listen(stream, frozenset({2}))
    feed.publish([of(1, 1), of(2, 1, "customer.merged", '{"other": 2}'), of(3, 1)])
    assert await drain(stream) == [3], "what the survivor said before is not this visitor's news"


async def test_a_stranger_is_told_to_look_whenever_something_was_said() -> None:
    feed = Feed()
    stream = feed.subscribe_customers(said)
    feed.publish([of(1, 1, "note.added")])
    assert await drain(stream) == []
    feed.publish([of(2, 5), of(3, 6)])
    assert await drain(stream) == [None], "it cannot know whose message that was"
    feed.listen(stream, frozenset({5}))
    feed.publish([of(4, 5), of(5, 6)])
    assert await drain(stream) == [4]


async def test_a_stream_that_left_leaves_nothing_behind() -> None:
    feed = Feed()
    for stream in (feed.subscribe(), feed.subscribe_customers(said), feed.subscribe_customers(said)):
        if stream in feed._strangers:
            feed.listen(stream, frozenset({1, 2}))
        stream.close()
        feed.listen(stream, frozenset({3}))  # its reader was in the middle of finding out
    assert [feed._streams, feed._general, feed._of, feed._strangers] == [set(), set(), {}, set()]


async def test_one_stream_whose_filter_fails_keeps_nothing_from_the_others() -> None:
    feed = Feed()
    bad = feed.subscribe(wanted=lambda event: 1 / 0 > 1)
    good = feed.subscribe()
    feed.publish(events(1, 2))
    assert await drain(good) == [1, 2]
    assert await drain(bad) == [None], "a stream whose filter failed does not know what it missed"
