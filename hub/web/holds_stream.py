"""The gate for whole campaigns: a stream of identifiers in, a stream of answers out, in order, line by line, in bounded memory.

`POST /api/v1/holds/check` with `Content-Type: application/x-ndjson`. Neither side runs ahead of the other: where the caller does not read,
its lines are not read either. A line nothing can be made of is answered as held, and the stream goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from json.encoder import encode_basestring_ascii as quoted
from typing import NamedTuple

import structlog
from aiohttp import ClientError, StreamReader, web
from pydantic_core import to_json

from hub.holds.answers import About
from hub.holds.gate import (
    DEGRADED,
    KINDS,
    LONGEST_LINE,
    NOT_ANSWERED,
    UNREADABLE_LINE,
    Asked,
    BadQuestion,
    Hits,
    Standing,
    by_key,
    keys_of,
    read_line,
    spelled,
    standing_of,
)
from hub.holds.ledger import iso
from hub.storage.writer import StorageBusy
from hub.web.auth import require_token
from hub.web.context import HUB, Hub
from hub.web.holds_check import ANSWERS, about_of, check_names, on_failure, sign

log = structlog.get_logger("hub.api")

NDJSON = "application/x-ndjson"
PATH = "/api/v1/holds/check"
BATCH = 500  # lines looked up together
PART = 50  # lines worked on at a stretch: half a millisecond, after which single checks have their turn
AHEAD = 2  # batches looked up before the one that is written
MOST = 4  # streams at once
STALLED = 60.0  # seconds without a byte either way, after which a caller is given up
RECHECK = 1.0  # seconds after which a stream asks again whether its token lives
WAITS = (0.1, 0.2, 0.4, 0.8, 1.6)  # seconds before the database is asked again
PARAMETERS = frozenset({"kind", "campaign", "channel", "brand", "class", "only"})
OPEN = web.AppKey("open_streams", set[object])


def streams(request: web.Request) -> bool:
    """Whether a request brings a stream of questions."""
    return request.method == "POST" and request.path == PATH and request.content_type == NDJSON


class Wanted(NamedTuple):
    """What a stream asks for all of its lines: of which kind bare lines are, and whether only held ones are to be answered."""

    about: About
    kind: str
    only_held: bool
    otherwise: str  # what its campaign does where we do not answer: closed | open


def _wanted(hub: Hub, request: web.Request) -> Wanted:
    query = request.query
    for name in query:
        if name not in PARAMETERS:
            raise BadQuestion(f"There is no parameter {name} of a stream. Known: {', '.join(sorted(PARAMETERS))}.")
    kind, only = query.get("kind", ""), query.get("only", "")
    if kind and kind not in KINDS:
        raise BadQuestion(f"kind: must be one of {', '.join(KINDS)}.")
    if only not in ("", "held"):
        raise BadQuestion("only: must be held, or left out.")
    about = about_of(query)
    check_names(hub, about.brand, ())
    return Wanted(about, kind, only == "held", on_failure(hub, about.campaign))


async def check_stream(request: web.Request) -> web.StreamResponse:
    """Answer each line of the body, in order, and at the end say how many there were. An answer without that last line was cut short."""
    await require_token(request)
    hub = request.app[HUB]
    wanted = _wanted(hub, request)
    running = request.app[OPEN]
    if len(running) >= MOST:
        text = f"{MOST} streams are being answered; one more would slow down them all. Try again in a moment."
        raise web.HTTPServiceUnavailable(text=text, headers={"Retry-After": "10"})
    answering = Answering(hub, wanted)
    running.add(answering)
    response = web.StreamResponse(headers={"Content-Type": NDJSON, "X-Accel-Buffering": "no"})
    try:
        await response.prepare(request)
        checked = time.monotonic()
        async for asked, looked_up in ahead(answering, request.content):
            answered = await answering.answer(asked, *await looked_up)
            async with asyncio.timeout(STALLED):
                await response.write(answered)
            if time.monotonic() - checked > RECHECK:
                checked = time.monotonic()
                try:
                    await require_token(request)
                except StorageBusy:
                    pass  # the next lines say so
        await response.write(answering.last_line())
        request.app[ANSWERS].count(
            wanted.about, answering.receipt, answering.until, held=answering.held, asked=answering.lines, degraded=answering.degraded
        )
        await response.write_eof()
    except (ConnectionError, ClientError, TimeoutError, web.HTTPUnauthorized) as error:
        # The status is long gone, so only the missing last line can tell: cut.
        log.warning("a stream of hold checks was cut", error=type(error).__name__)
        if request.transport is not None:
            request.transport.abort()
    finally:
        running.discard(answering)
    return response


async def batches(body: StreamReader) -> AsyncIterator[list[bytes | None]]:
    """The lines of a body, at most BATCH at a time and without waiting for more than has come; None for one that is too long to be one.

    Raises TimeoutError where nothing comes for STALLED seconds.
    """
    rest = b""
    skipping = False  # within a line that is too long
    while True:
        async with asyncio.timeout(STALLED):
            chunk = await body.readany()
        if not chunk:
            break
        lines: list[bytes | None] = list((rest + chunk).split(b"\n"))
        last = lines.pop()
        rest = last or b""
        if skipping and lines:
            lines[0], skipping = None, False
        if len(rest) > LONGEST_LINE:
            rest, skipping = b"", True
        elif skipping:
            rest = b""
        for start in range(0, len(lines), BATCH):
            yield lines[start : start + BATCH]
    if skipping:
        yield [None]
    elif rest:
        yield [rest]


Numbered = list[tuple[int, Asked | None]]  # a line's number, and what it asks
Ahead = tuple[Numbered, "asyncio.Task[tuple[int, Hits | None]]"]


async def ahead(answering: Answering, body: StreamReader) -> AsyncIterator[Ahead]:
    """What the lines of a body ask, with what is being looked up for them: while some are written, a few more are read and looked up.

    Raises what reading the body raises.
    """
    waiting: asyncio.Queue[Ahead | BaseException | None] = asyncio.Queue(AHEAD)

    async def read() -> None:
        try:
            async for lines in batches(body):
                asked = await answering.read(lines)
                await waiting.put((asked, asyncio.create_task(answering.look_up(asked))))
            await waiting.put(None)
        except Exception as error:
            await waiting.put(error)

    reading = asyncio.create_task(read(), name="stream of hold checks")
    try:
        while (item := await waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        reading.cancel()
        while not waiting.empty():
            left = waiting.get_nowait()
            if isinstance(left, tuple):
                left[1].cancel()


class Answering:
    """One stream being answered: what was asked so far, and what came of it."""

    def __init__(self, hub: Hub, wanted: Wanted) -> None:
        self._hub = hub
        self._wanted = wanted
        self._digest = hashlib.sha256()
        self._number = 0  # of the line, counted as the caller's editor counts
        self._answers = True  # whether the database did when it was asked last
        self._version = 0
        self.lines = 0
        self.held = 0
        self.known = 0
        self.unreadable = 0
        self.degraded = 0
        self.since = self.until = hub.writer.clock()
        self.receipt = ""

    async def read(self, lines: Sequence[bytes | None]) -> Numbered:
        """What some lines ask, each with its number; empty ones ask nothing."""
        asked: Numbered = []
        for start in range(0, len(lines), PART):
            for line in lines[start : start + PART]:
                self._number += 1
                bare = line.strip() if line is not None else None
                if bare != b"":
                    asked.append((self._number, None if bare is None else read_line(bare, self._wanted.kind, self._hub.settings.sites)))
            await asyncio.sleep(0)
        return asked

    async def answer(self, asked: Numbered, now: int, hits: Hits | None) -> bytes:
        """The answers to some questions, each a line, from what is known of them as of `now` (None: the database did not say)."""
        self.until = max(self.until, now)
        written: list[str] = []
        as_of = iso(now)
        for start in range(0, len(asked), PART):
            for number, one in asked[start : start + PART]:
                written.append(self._line(number, one, hits, now, as_of))
            await asyncio.sleep(0)
        answered = "".join(written).encode()
        self._digest.update(answered)
        return answered

    async def look_up(self, asked: Numbered) -> tuple[int, Hits | None]:
        """As of when, and what is known; None where the database does not say. While it does not, each part asks once and goes on."""
        keys = keys_of([one for _, one in asked if one is not None])
        for wait in (*WAITS, 0.0):
            now = self._hub.writer.clock()
            try:
                hits = by_key(await self._hub.hot.hold_facts(keys)) if keys else {}
                self._answers = True
                return now, hits
            except StorageBusy:
                if not self._answers:
                    break
            await asyncio.sleep(wait)
        self._answers = False
        return self._hub.writer.clock(), None

    def _line(self, number: int, one: Asked | None, hits: Hits | None, now: int, as_of: str) -> str:
        about = self._wanted.about
        extra = ""
        if one is None:
            self.unreadable += 1
            standing = UNREADABLE_LINE if about.message_class != "transactional" else DEGRADED
            extra = ',"error":"This line says nothing that can be asked."'
        elif hits is None:
            self.degraded += 1
            standing = NOT_ANSWERED if self._wanted.otherwise == "closed" else DEGRADED
            extra = ',"degraded":true'
        else:
            standing = standing_of(one, hits, now, about.brand, about.channel, about.message_class)
            self.unreadable += one.value is None
        self.lines += 1
        self.held += standing.held
        self.known += standing.known
        self._version = max(self._version, standing.version)
        if self._wanted.only_held and not standing.held:
            return ""
        named = f',"kind":"{one.name}","value":{quoted(one.given)}' if one is not None else ""
        return f'{{"line":{number}{named},{spelled(standing)}{extra},"as_of":"{as_of}"}}\n'

    def last_line(self) -> bytes:
        """The totals, and the receipt: over the SHA-256 of every byte that was answered before it."""
        digest = self._digest.hexdigest()
        standing = Standing(self.held > 0, self.known > 0, None, (), self._version)
        self.receipt = sign(self._hub, self._wanted.about, [f"stream:{digest}"], standing, self.until)
        totals = {
            "done": True,
            "lines": self.lines,
            "held": self.held,
            "known": self.known,
            "unreadable": self.unreadable,
            "degraded": self.degraded,
            "on_failure": self._wanted.otherwise,
            "sha256": digest,
            "receipt_id": self.receipt,
            "as_of": {"from": iso(self.since), "to": iso(self.until)},
        }
        return to_json(totals) + b"\n"


def add(app: web.Application) -> None:
    """Keep count of open streams. Their requests come by the middleware `api.api_errors`, under the route of `holds_check`."""
    app[OPEN] = set()
