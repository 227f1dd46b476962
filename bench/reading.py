"""What is asked of a hub with 100,000 conversations and a million messages: the hold check, the inbox, a long conversation.

The hold check is compared with a handler that reads nothing, behind the same middlewares, asked in the same words; both also while
messages come in, evenly, at half the rate this server takes them.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.databases import Databases
from bench.generate import LONG, SESSION, TOKEN, Volumes
from bench.load import Slice, drive
from bench.report import Figure
from bench.served import Served, plain_config
from bench.server import BARE, BARE_BULK
from bench.traffic import Traffic, get, phone

SINGLE, FEW, MANY = 1, 4, 32
BULK = 1_000  # identifiers of one question
VIEWS = ("open", "mine", "unassigned", "resolved", "all")
CONVERSATION, WHOLE = "conversation", "conversation, whole page"
# Requests of a slice at each concurrency.
COUNTS: dict[str, dict[int, int]] = {
    "bare": {SINGLE: 200, MANY: 1_500},
    "check": {SINGLE: 200, MANY: 1_500},
    "bare bulk": {MANY: 48},
    "bulk": {SINGLE: 5, MANY: 48},
    CONVERSATION: {SINGLE: 15},
    WHOLE: {SINGLE: 10},
    **{view: {SINGLE: 20} for view in VIEWS},
}
BESIDE = {("check", FEW): 800, ("bare", MANY): 800, ("check", MANY): 800}
AT_ONCE = 16  # messages of one beat of the incoming stream

Asks = dict[str, Callable[[], bytes]]


def asks(volumes: Volumes) -> Asks:
    """A maker of one request for each thing asked."""
    chosen = random.Random(3)
    cookie, bearer = f"__Host-hub_session={SESSION}", f"Bearer {TOKEN}"

    def somebody() -> str:
        return phone(chosen.randrange(volumes.conversations * 3 // 2))  # one in three is a person nobody knows

    def by_phone(path: str) -> Callable[[], bytes]:
        return lambda: get(f"{path}?phone=%2B{somebody()[1:]}", Authorization=bearer)

    def bulk(path: str) -> Callable[[], bytes]:
        def made() -> bytes:
            body = json.dumps({"identifiers": [{"kind": "phone", "value": somebody()} for _ in range(BULK)]}).encode()
            head = f"POST {path} HTTP/1.1\r\nHost: hub.example\r\nAuthorization: {bearer}\r\nContent-Length: {len(body)}\r\n"
            return f"{head}Content-Type: application/json\r\n\r\n".encode() + body

        return made

    def page(path: str) -> Callable[[], bytes]:
        return lambda: get(path, Cookie=cookie)

    return {
        "bare": by_phone(BARE),
        "check": by_phone("/api/v1/holds/check"),
        "bare bulk": bulk(BARE_BULK),
        "bulk": bulk("/api/v1/holds/check"),
        CONVERSATION: page(f"/inbox/open?ticket={LONG}&parts=conversation,customer"),
        WHOLE: page(f"/inbox/open?ticket={LONG}"),
        **{view: page(f"/inbox/{view}") for view in VIEWS},
    }


@dataclass(slots=True)
class Read:
    """One server's slices: alone, and beside incoming messages."""

    alone: dict[tuple[str, int], list[Slice]] = field(default_factory=dict)
    beside: dict[tuple[str, int], list[Slice]] = field(default_factory=dict)
    wrong: int = 0
    wanted: float = 0.0  # messages a second beside
    reached: list[float] = field(default_factory=list)


async def measure(databases: Databases, rounds: int) -> list[Figure]:
    """Each engine's server is asked everything in turn in every round."""
    path, url = await databases.filled()
    figures = await _engine("SQLite", plain_config(databases.directory / "reading", database=path), databases.volumes, rounds)
    if url is not None:
        figures += await _engine("PostgreSQL", plain_config(databases.directory / "reading-pg", url=url), databases.volumes, rounds)
    return figures


async def _engine(engine: str, config: Path, volumes: Volumes, rounds: int) -> list[Figure]:
    server, makers, read = Served(f"reading {engine}", config), asks(volumes), Read()
    try:
        await server.start()
        await server.rest()
        for what, maker in makers.items():
            slice_ = await drive(
                server.port, [maker() for _ in range(8 if "bulk" in what else 40)], 8
            )  # every connection of a pool is open
            read.wrong += len(slice_.latencies) - slice_.good
        for _ in range(rounds):
            for what, counts in COUNTS.items():
                for concurrency, count in counts.items():
                    await _ask(server, makers, read, read.alone, what, concurrency, count)
        traffic = Traffic(seed=time.monotonic_ns(), people=volumes.conversations)
        # Once for everybody, so that what comes in at half load are not first messages.
        full = [(await drive(server.port, traffic.requests(1_600), 64)).rate for _ in range(4)][1:]
        read.wanted = statistics.median(full) / 2
        for _ in range(rounds):
            await _beside_ingest(server, makers, read, traffic)
    finally:
        await server.stop()
    return _figures(engine, read, volumes)


async def _ask(
    server: Served, makers: Asks, read: Read, kept: dict[tuple[str, int], list[Slice]], what: str, concurrency: int, count: int
) -> None:
    slice_ = await drive(server.port, [makers[what]() for _ in range(count)], concurrency)
    read.wrong += count - slice_.good
    kept.setdefault((what, concurrency), []).append(slice_)


async def _beside_ingest(server: Served, makers: Asks, read: Read, traffic: Traffic) -> None:
    """Ask while messages come in at `read.wanted` a second."""
    messages = traffic.requests(int(read.wanted * 6))
    over = asyncio.Event()

    async def ingest() -> None:
        good, began = 0, time.perf_counter()
        for start in range(0, len(messages), AT_ONCE):
            await asyncio.sleep(max(0.0, began + start / read.wanted - time.perf_counter()))
            if over.is_set():
                break
            part = messages[start : start + AT_ONCE]
            good += (slice_ := await drive(server.port, part, AT_ONCE)).good
            read.wrong += len(part) - slice_.good
        read.reached.append(good / (time.perf_counter() - began))

    running = asyncio.create_task(ingest())
    await asyncio.sleep(0.2)
    for (what, concurrency), count in BESIDE.items():
        await _ask(server, makers, read, read.beside, what, concurrency, count)
    over.set()
    await running
    await server.rest()


def _figures(engine: str, read: Read, volumes: Volumes) -> list[Figure]:
    void = f"{read.wrong} answers were not 200" if read.wrong else ""
    judged = engine == "SQLite"  # what a single process reaches is promised; the other engine is for information

    def bound(value: float) -> float | None:
        return value if judged else None

    def middle(what: str) -> tuple[float, ...]:
        return tuple(s.quantile(0.5) * 1e3 for s in read.alone[what, SINGLE])

    def rate(what: str) -> tuple[float, ...]:
        return tuple(s.rate for s in read.alone[what, MANY])

    def tail(what: str, concurrency: int) -> tuple[float, ...]:
        return tuple(s.quantile(0.99) * 1e3 for s in read.beside[what, concurrency])

    def ratio(what: str, base: str, kept: dict[tuple[str, int], list[Slice]]) -> tuple[float, ...]:
        return tuple(mine.rate / other.rate for mine, other in zip(kept[what, MANY], kept[base, MANY], strict=True))

    check, many = f"hold check on {engine}", f"hold check of {BULK:,} on {engine}"
    half = f"while ingest runs at half load ({read.wanted:,.0f} messages/s asked for, {statistics.median(read.reached):,.0f} reached)"
    figures = [
        Figure(f"{check} / bare handler, c={MANY}", ratio("check", "bare", read.alone), "ratio", at_least=bound(0.70), void=void),
        Figure(f"{check}, c={MANY}", rate("check"), "req/s", void=void),
        Figure(f"bare handler beside {engine}, c={MANY}", rate("bare"), "req/s", void=void),
        Figure(f"{check}, p50 at c=1", middle("check"), "ms", void=void),
        Figure(
            f"{check} beside ingest / bare handler beside ingest, c={MANY}",
            ratio("check", "bare", read.beside),
            "ratio",
            goal=0.70,
            void=void,
        ),
        Figure(f"{check} beside ingest, p99 at c={FEW}", tail("check", FEW), "ms", at_most=bound(20.0), void=void, note=half),
        Figure(f"{check} beside ingest, p99 at c={MANY}", tail("check", MANY), "ms", void=void),
        Figure(f"{many} / bare handler of as many answers, c={MANY}", ratio("bulk", "bare bulk", read.alone), "ratio", void=void),
        Figure(f"{many}, c={MANY}", tuple(BULK * one for one in rate("bulk")), "people/s", void=void),
        Figure(f"{many}, p50 at c=1", middle("bulk"), "ms", void=void),
    ]
    size = f"{volumes.conversations:,} conversations"
    for view in VIEWS:
        figures.append(Figure(f"inbox {view} on {engine}, 50 of {size}, p50 at c=1", middle(view), "ms", at_most=bound(10.0), void=void))
    long = f"a conversation of {volumes.long:,} messages on {engine}"
    figures.append(Figure(f"opening {long}, p50 at c=1", middle(CONVERSATION), "ms", at_most=bound(15.0), void=void))
    figures.append(Figure(f"{long} with the list beside it, p50 at c=1", middle(WHOLE), "ms", void=void))
    return figures
