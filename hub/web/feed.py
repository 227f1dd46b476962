"""The live feed: committed events, numbered, to every open stream of this process.

What commits within a tick leaves as one batch, the same object for all streams that want all of it, so that it is encoded
once. A stream that falls behind is cut, not waited for: its browser comes back with the id of the last event it saw
(`epoch-seq`) and is caught up from the ring, from the event table where the ring no longer reaches back that far, or told to
reload (`resync`) where the gap is too wide or the number belongs to another database.

Numbers grow but may have gaps: on PostgreSQL a rolled-back transaction leaves one.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import structlog

from hub.storage.records import Event

log = structlog.get_logger("hub.feed")

RING = 4_096
QUEUE = 1_000  # events one stream may be behind
FIRST = 0.02  # seconds from the first event after a quiet spell to its frame
TICK = 0.1  # seconds between two frames while much is going on ...
TICK_EACH = 0.0004  # ... and so much more for each open stream: a frame costs some 40 us of the loop a stream, so a tenth of a core at most
TICK_MOST = 0.5

Id = tuple[str, int]  # epoch and number


def parse_id(typed: str) -> Id | None:
    """An event id as a browser sends it back, or None for what is none."""
    epoch, _, number = typed.rpartition("-")
    return (epoch, int(number)) if number.isascii() and number.isdigit() and len(number) < 18 and len(epoch) <= 32 else None


class Batch(list[Event]):
    """Events that leave together. Whoever encodes them keeps the encoding here, for all the other streams."""

    __slots__ = ("encoded",)

    def __init__(self, events: Sequence[Event]) -> None:
        super().__init__(events)
        self.encoded: bytes | None = None


class Stream:
    """One subscriber. Iterate for batches of events; a `None` batch means: too far behind, reload."""

    def __init__(self, feed: Feed, wanted: Callable[[Event], bool] | None, seen: int) -> None:
        self._feed = feed
        self._wanted = wanted
        self._seen = seen  # what it was given, or never has to be
        self._waiting: deque[Batch] = deque()
        self._behind = 0
        self._wake = asyncio.Event()
        self._idle = False
        self.customers: frozenset[int] = frozenset()
        self.gap: tuple[int, int] | None = None  # (after, upto]: missed, and no longer in the ring; whoever reads the table may fill it
        self.cut: Callable[[], None] | None = None  # how to end the connection of a browser that does not keep up
        self.lost = False
        self.closed = False

    def offer(self, batch: Batch) -> None:
        """Take a batch, or what of it is new and wanted here."""
        if batch[0].seq <= self._seen:
            batch = Batch([event for event in batch if event.seq > self._seen])
        if self._wanted is not None:
            batch = Batch([event for event in batch if self._wanted(event)])
        if not batch:
            return
        self._seen = batch[-1].seq
        self._behind += len(batch)
        if self._behind > QUEUE and self._waiting:
            self._fall_behind()
        elif len(batch) > QUEUE:
            self.lose()
        else:
            self._waiting.append(batch)
            self._wake.set()

    def _fall_behind(self) -> None:
        if self.cut is None:
            self.lose()
        else:
            # Its browser comes back with the last id that reached it, and is caught up then.
            self.close()
            self.cut()

    def lose(self) -> None:
        """Note that this stream missed events: its reader must reload."""
        self.lost = True
        self._waiting.clear()
        self._behind = 0
        self._wake.set()

    def close(self) -> None:
        self.closed = True
        self._wake.set()
        self._feed.leave(self)

    def end(self) -> None:
        """Close, even where its handler is stuck in the middle of writing to a browser that does not read."""
        stuck = bool(self._waiting) and not self._idle
        self.close()
        if stuck and self.cut is not None:
            self.cut()

    async def batches(self, keepalive: float = 15.0) -> AsyncIterator[list[Event] | None]:
        """Batches of events as they come; an empty one every `keepalive` quiet seconds; None once when events were lost."""
        while not self.closed:
            if not self._waiting and not self.lost:
                self._wake.clear()
                self._idle = True
                try:
                    async with asyncio.timeout(keepalive):
                        await self._wake.wait()
                except TimeoutError:
                    yield []
                    continue
                finally:
                    self._idle = False
            if self.lost:
                self.lost = False
                self._waiting.clear()
                self._behind = 0
                yield None
            elif len(self._waiting) == 1:
                self._behind = 0
                yield self._waiting.popleft()
            elif self._waiting:
                together = Batch([event for batch in self._waiting for event in batch])
                self._waiting.clear()
                self._behind = 0
                yield together


class Feed:
    """Publishes committed events to the streams of this process."""

    def __init__(self, start: int = 0, epoch: str = "") -> None:
        """`start` is the newest event stored before this process; `epoch` names this life of the database: a restored copy has another."""
        self._last = start
        self._reaches = start  # everything after this number is in the ring
        self._epoch = epoch
        self._ring: deque[Event] = deque()
        self._pending: list[Event] = []
        self._flushing: asyncio.TimerHandle | None = None
        self._flushed = float("-inf")
        self._streams: set[Stream] = set()  # all of them
        self._general: set[Stream] = set()  # those that are offered everything
        self._of: dict[int, set[Stream]] = {}  # those that listen to one customer
        self._strangers: set[Stream] = set()  # those that would, and do not know to whom yet

    @property
    def last_seq(self) -> int:
        return self._last

    @property
    def last_id(self) -> str:
        return self.id(self._last)

    def id(self, seq: int) -> str:
        """The id of an event as browsers know it."""
        return f"{self._epoch}-{seq}" if self._epoch else str(seq)

    def publish(self, events: Sequence[Event]) -> None:
        """Take committed events, in the order of their numbers; they leave with the next tick."""
        if not events:
            return
        self._ring.extend(events)
        while len(self._ring) > RING:
            self._reaches = self._ring.popleft().seq
        self._last = events[-1].seq
        if not self._streams:
            return
        self._pending += events
        if self._flushing is None:
            loop = asyncio.get_running_loop()
            tick = min(TICK + TICK_EACH * len(self._streams), TICK_MOST)
            self._flushing = loop.call_later(max(FIRST, self._flushed + tick - loop.time()), self._flush)

    def _flush(self) -> None:
        self._flushing = None
        self._flushed = asyncio.get_running_loop().time()
        if not self._pending:
            return
        batch, self._pending = Batch(self._pending), []
        for stream in tuple(self._general):
            self._offer(stream, batch)
        if self._of or self._strangers:
            self._to_customers(batch)

    def _offer(self, stream: Stream, batch: Batch) -> None:
        try:
            stream.offer(batch)
        except Exception:  # one that fails keeps nothing from the others
            log.exception("a filter of the live feed failed; its stream must reload")
            stream.lose()

    def _to_customers(self, batch: Batch) -> None:
        """Hand each event to the streams of its customer alone: asking every stream about every event would grow with both."""
        parts: dict[Stream, list[Event]] = {}
        for event in batch:
            if event.customer_id is None:
                continue
            if event.type in ("customer.merged", "customer.unmerged", "customer.split"):
                # At once: the next event may bear the survivor's id before anything was read again.
                both = {event.customer_id, json.loads(event.data).get("other")}
                for stream in {stream for customer_id in both for stream in self._of.get(customer_id, ())}:
                    self.listen(stream, stream.customers | both)
            for stream in self._of.get(event.customer_id, ()):
                parts.setdefault(stream, []).append(event)
        for stream, events in parts.items():
            self._offer(stream, Batch(events))
        for stream in tuple(self._strangers):
            # Any of these may be the first message that makes this stranger somebody: it looks for itself.
            if any(stream._wanted is None or stream._wanted(event) for event in batch):
                stream.lose()

    def subscribe(self, after: Id | int | None = None, wanted: Callable[[Event], bool] | None = None) -> Stream:
        """A stream from now on; with `after`, also of what came since that event.

        What the ring no longer holds of that is the stream's `gap`. A number of another epoch is lost at once.
        """
        epoch, number = after if isinstance(after, tuple) else (self._epoch, after)
        stream = Stream(self, wanted, self._last if number is None else max(self._last, number))
        self._streams.add(stream)
        self._general.add(stream)
        if number is None:
            return stream
        if epoch != self._epoch:
            stream._seen = self._last
            stream.lose()
            return stream
        if number < self._reaches:
            stream.gap = (number, self._reaches)
        stream._seen = number
        missed = Batch([event for event in self._ring if event.seq > number])
        if missed:
            self._offer(stream, missed)
            stream._seen = self._last
        return stream

    def subscribe_customers(self, wanted: Callable[[Event], bool]) -> Stream:
        """A stream of what concerns some customers, named by `listen`; until then it is told to look (a None batch) at whatever comes."""
        stream = Stream(self, wanted, self._last)
        self._streams.add(stream)
        self._strangers.add(stream)
        return stream

    def listen(self, stream: Stream, customers: frozenset[int]) -> None:
        """Let a stream of `subscribe_customers` hear of these customers, and no others."""
        self._forget(stream)
        if stream.closed:
            return
        stream.customers = customers
        for customer in customers:
            self._of.setdefault(customer, set()).add(stream)
        if not customers:
            self._strangers.add(stream)

    def _forget(self, stream: Stream) -> None:
        self._strangers.discard(stream)
        for customer in stream.customers:
            listeners = self._of.get(customer, set())
            listeners.discard(stream)
            if not listeners:
                self._of.pop(customer, None)

    def leave(self, stream: Stream) -> None:
        self._streams.discard(stream)
        self._general.discard(stream)
        self._forget(stream)

    def close(self) -> None:
        """End every stream, so that the server can stop at once."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        for stream in tuple(self._streams):
            stream.end()
