"""The live feed: committed events, numbered, to every open stream of this process.

A stream that falls behind is cut, not waited for: its browser reconnects with the number of the last event it saw and is
caught up from the ring, or told to reload (`resync`) where the ring no longer reaches back that far.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import structlog

from hub.storage.records import Event

log = structlog.get_logger("hub.feed")

RING = 4_096
QUEUE = 512
TICK = 0.05  # seconds: what commits within one tick leaves as one frame


class Stream:
    """One subscriber. Iterate for batches of events; a `None` batch means: too far behind, reload."""

    def __init__(self, feed: Feed, wanted: Callable[[Event], bool]) -> None:
        self._feed = feed
        self._wanted = wanted
        self._waiting: deque[Event] = deque()
        self._wake = asyncio.Event()
        self.lost = False
        self.closed = False

    def offer(self, events: Sequence[Event]) -> None:
        for event in events:
            if self._wanted(event):
                if len(self._waiting) >= QUEUE:
                    self.lose()
                self._waiting.append(event)
                self._wake.set()

    def lose(self) -> None:
        """Note that this stream missed events: its reader must reload."""
        self.lost = True
        self._waiting.clear()
        self._wake.set()

    def close(self) -> None:
        self.closed = True
        self._wake.set()
        self._feed.leave(self)

    async def batches(self, keepalive: float = 15.0) -> AsyncIterator[list[Event] | None]:
        """Batches of events as they come; an empty one every `keepalive` quiet seconds; None once when events were lost."""
        while not self.closed:
            if not self._waiting and not self.lost:
                self._wake.clear()
                try:
                    async with asyncio.timeout(keepalive):
                        await self._wake.wait()
                except TimeoutError:
                    yield []
                    continue
                await asyncio.sleep(TICK)
            if self.lost:
                self.lost = False
                self._waiting.clear()
                yield None
                continue
            batch = list(self._waiting)
            self._waiting.clear()
            if batch:
                yield batch


class Feed:
    """Publishes committed events to the streams of this process."""

    def __init__(self, start: int = 0) -> None:
        """`start` is the newest event stored before this process: a browser that saw an older one has missed something."""
        self._start = start
        self._ring: deque[Event] = deque(maxlen=RING)
        self._streams: set[Stream] = set()

    @property
    def last_seq(self) -> int:
        return self._ring[-1].seq if self._ring else self._start

    def publish(self, events: Sequence[Event]) -> None:
        """Hand committed events to every stream; one that fails keeps nothing from the others."""
        self._ring.extend(events)
        for stream in tuple(self._streams):
            try:
                stream.offer(events)
            except Exception:
                log.exception("a filter of the live feed failed; its stream must reload")
                stream.lose()

    def subscribe(self, after: int | None = None, wanted: Callable[[Event], bool] = lambda event: True) -> Stream:
        """A stream from now on; with `after`, also of what came since that event, or lost at once where that is gone."""
        stream = Stream(self, wanted)
        self._streams.add(stream)
        if after is not None and after != self.last_seq:
            missed = [event for event in self._ring if event.seq > after]
            if not missed or missed[0].seq > after + 1:
                # The ring is empty (a restart) or begins later: nobody can say what was missed.
                stream.lose()
            else:
                stream.offer(missed)
        return stream

    def leave(self, stream: Stream) -> None:
        self._streams.discard(stream)

    def close(self) -> None:
        """End every stream, so that the server can stop at once."""
        for stream in tuple(self._streams):
            stream.close()
