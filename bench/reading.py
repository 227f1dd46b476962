"""What is asked of a hub with 100,000 conversations and a million messages: the hold check, the inbox, a long conversation.

The hold check is compared with a handler that reads nothing, behind the same middlewares, asked in the same words; also while
messages come in at half the rate this server takes them.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

from bench.generate import LONG, SESSION, TOKEN, Volumes, sqlite_copy
from bench.load import Slice, drive
from bench.report import Figure
from bench.served import Served, plain_config
from bench.server import BARE
from bench.traffic import Traffic, get, phone

SINGLE, MANY = 1, 32
BULK = 1_000  # identifiers of one question
VIEWS = ("open", "mine", "unassigned", "resolved", "all")
# Requests of a slice at c=1 and at c=32.
COUNTS = {"bare": (200, 2_000), "check": (200, 1_500), "bulk": (5, 40), "conversation": (15, 30)} | dict.fromkeys(VIEWS, (15, 45))
LOAD_SECONDS = 4.0


def asks(volumes: Volumes) -> dict[str, Callable[[], bytes]]:
    """A maker of one request for each thing asked."""
    chosen = random.Random(3)
    cookie, bearer = f"__Host-hub_session={SESSION}", f"Bearer {TOKEN}"

    def somebody() -> str:
        return phone(chosen.randrange(volumes.conversations * 3 // 2))  # one in three is a person nobody knows

    def by_phone(path: str) -> bytes:
        return get(f"{path}?phone=%2B{somebody()[1:]}", Authorization=bearer)

    def bulk() -> bytes:
        body = json.dumps({"identifiers": [{"kind": "phone", "value": somebody()} for _ in range(BULK)]}).encode()
        head = f"POST /api/v1/holds/check HTTP/1.1\r\nHost: hub.example\r\nAuthorization: {bearer}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def page(path: str) -> Callable[[], bytes]:
        return lambda: get(path, Cookie=cookie)

    return {
        "bare": lambda: by_phone(BARE),
        "check": lambda: by_phone("/api/v1/holds/check"),
        "bulk": bulk,
        "conversation": page(f"/inbox/open?ticket={LONG}&parts=conversation,customer"),
        **{view: page(f"/inbox/{view}") for view in VIEWS},
    }


async def measure(directory: Path, rounds: int, volumes: Volumes | None = None) -> list[Figure]:
    """Each round asks everything in turn, at c=1 and at c=32; then the hold check beside incoming messages."""
    volumes = volumes or Volumes()
    config = plain_config(directory / "reading")
    sqlite_copy(config.parent / "hub.db", volumes, directory.parent)
    server = Served("reading", config)
    makers = asks(volumes)
    seen: dict[tuple[str, int], list[Slice]] = {(what, c): [] for what in COUNTS for c in (SINGLE, MANY)}
    wrong = 0
    try:
        await server.start()
        await server.rest()
        for maker in makers.values():
            await drive(server.port, [maker() for _ in range(20)], 2)
        for _ in range(rounds):
            for what, counts in COUNTS.items():
                for concurrency, count in zip((SINGLE, MANY), counts, strict=True):
                    slice_ = await drive(server.port, [makers[what]() for _ in range(count)], concurrency)
                    wrong += count - slice_.good
                    seen[what, concurrency].append(slice_)
        beside = [await _beside_ingest(server, makers["check"]) for _ in range(rounds)]
        wrong += sum(len(s.latencies) - s.good for s in beside)
    finally:
        await server.stop()
    void = f"{wrong} answers were not 200" if wrong else ""
    base = seen["bare", MANY]

    def middle(what: str) -> tuple[float, ...]:
        return tuple(s.quantile(0.5) * 1e3 for s in seen[what, SINGLE])

    def ratio(what: str) -> tuple[float, ...]:
        return tuple(mine.rate / bare.rate for mine, bare in zip(seen[what, MANY], base, strict=True))

    def rate(what: str) -> tuple[float, ...]:
        return tuple(s.rate for s in seen[what, MANY])

    size = f"{volumes.conversations:,} conversations"
    figures = [
        Figure(f"hold check / bare handler, c={MANY}", ratio("check"), "ratio", at_least=0.70, void=void),
        Figure(f"hold check, c={MANY}", rate("check"), "req/s", void=void),
        Figure(f"bare handler, c={MANY}", rate("bare"), "req/s", void=void),
        Figure("hold check, p50 at c=1", middle("check"), "ms", void=void),
        Figure(f"hold check of {BULK:,}, p50 at c=1", middle("bulk"), "ms", void=void),
        Figure(f"hold check of {BULK:,}, c={MANY}", tuple(BULK * one for one in rate("bulk")), "people/s", void=void),
        Figure(
            "hold check while ingest runs at half load, p99", tuple(s.quantile(0.99) * 1e3 for s in beside), "ms", at_most=20.0, void=void
        ),
    ]
    for view in VIEWS:
        figures.append(Figure(f"inbox {view}, list of 50 at {size}, p50 at c=1", middle(view), "ms", at_most=10.0, void=void))
    figures.append(
        Figure(f"opening a conversation of {volumes.long:,} messages, p50 at c=1", middle("conversation"), "ms", at_most=15.0, void=void)
    )
    return figures


async def _beside_ingest(server: Served, ask: Callable[[], bytes]) -> Slice:
    """The hold check at c=4 while messages come in, evenly, at half the rate a closed loop of 64 reaches."""
    traffic = Traffic(seed=time.monotonic_ns())
    full = await drive(server.port, traffic.requests(600), 64)
    pause, count = 16 / (full.rate / 2), int(full.rate / 2 * LOAD_SECONDS)
    messages = traffic.requests(count)

    async def ingest() -> int:
        good, began = 0, time.perf_counter()
        for n, start in enumerate(range(0, count, 16)):
            await asyncio.sleep(max(0.0, began + n * pause - time.perf_counter()))
            good += (await drive(server.port, messages[start : start + 16], 16)).good
        return good

    running = asyncio.create_task(ingest())
    await asyncio.sleep(0.2)
    asked = await drive(server.port, [ask() for _ in range(1_200)], 4)
    if await running != count:
        raise ConnectionError("messages beside the hold check were not all taken")
    return asked
