"""Channels that fetch or take their messages themselves (a mailbox by IMAP, an SMTP port): kept running, begun again after a fault.

Each message goes through the same door as a webhook. What a listener has come to is kept in the table `bookmark`, and means nothing
before the messages up to there are on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from hub.contract import Answer, Listens, Refused, Request, TryLater
from hub.conversations.bookmarks import SaveBookmark, bookmark_of
from hub.storage.writer import StorageBusy
from hub.web.context import BoundChannel, Hub
from hub.web.webhooks import receive

log = structlog.get_logger("hub.listening")

FIRST_PAUSE = 5.0  # seconds after a fault, doubled up to ...
LONGEST_PAUSE = 300.0


@dataclass(frozen=True, slots=True)
class _Kept:
    hub: Hub
    channel_id: int

    async def load(self) -> str:
        return str(await self.hub.reader.value(bookmark_of(self.channel_id)) or "")

    async def save(self, value: str) -> None:
        await self.hub.writer.run(SaveBookmark(self.channel_id, value))


class Listeners:
    """Every listening channel of this hub, each in a task of its own."""

    def __init__(self, hub: Hub, pause: Callable[[float], float] = lambda seconds: seconds) -> None:
        self._hub = hub
        self._pause = pause
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        for bound in self._hub.channels.values():
            if isinstance(bound.connector, Listens):
                self._tasks.append(asyncio.create_task(self._keep(bound, bound.connector), name=f"listen {bound.rule.name}"))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()

    async def _keep(self, bound: BoundChannel, listener: Listens) -> None:
        pause = FIRST_PAUSE
        kept = _Kept(self._hub, bound.rule.id)

        async def deliver(request: Request) -> Answer:
            nonlocal pause
            try:
                answer = await receive(self._hub, bound, request)
            except (StorageBusy, OSError) as error:
                log.warning("not stored; handed over again later", channel=bound.rule.name, error=str(error))
                return Answer(503, "Not stored. Try again.")
            pause = FIRST_PAUSE
            return answer

        while True:
            try:
                await listener.listen(deliver, kept, self._hub.http)
                return
            except Refused as error:
                log.error("does not listen: mend its settings and restart", channel=bound.rule.name, error=str(error))
                return
            except (TryLater, StorageBusy, OSError) as error:
                log.warning("listens again in a moment", channel=bound.rule.name, error=str(error), seconds=pause)
            except Exception:
                log.exception("listening failed; begun again", channel=bound.rule.name)
            await asyncio.sleep(self._pause(pause))
            pause = min(pause * 2, LONGEST_PAUSE)
