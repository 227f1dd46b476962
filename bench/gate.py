"""A whole campaign asked about before it goes out: a million identifiers as one stream, while single checks go on being answered."""

from __future__ import annotations

import asyncio
import random
import re
import time
from pathlib import Path

from bench.databases import Databases
from bench.generate import TOKEN, Volumes
from bench.load import Slice, drive
from bench.report import Figure
from bench.served import Served, plain_config
from bench.traffic import get, phone

PEOPLE = 1_000_000
LONGEST = 30.0  # seconds a stream of PEOPLE may take
STREAMS = 2  # of each engine, whatever the rounds: each takes half a minute
PART = 1_000  # lines of one write
SINGLES = 40  # single checks of one beat while the stream runs
_LAST = re.compile(rb'\{"done":true,"lines":(\d+),"held":(\d+)')


async def measure(databases: Databases, rounds: int) -> list[Figure]:
    """Each engine is asked about a million people, one in three of whom nobody knows, no one twice in a row."""
    path, url = await databases.filled()
    streams = min(rounds, STREAMS)
    figures = await _engine("SQLite", plain_config(databases.directory / "gate", database=path), databases.volumes, streams)
    if url is not None:
        figures += await _engine("PostgreSQL", plain_config(databases.directory / "gate-pg", url=url), databases.volumes, streams)
    return figures


async def _engine(engine: str, config: Path, volumes: Volumes, streams: int) -> list[Figure]:
    server = Served(f"gate {engine}", config)
    seconds: list[float] = []
    alone: list[float] = []
    beside: list[float] = []
    void = ""
    try:
        await server.start()
        await server.rest()
        chosen = random.Random(9)
        alone.append(_tail(await _checks(server, volumes, chosen, 800)))
        for number in range(streams):
            body = _body(volumes, number)
            began = time.perf_counter()
            streaming = asyncio.create_task(stream(server.port, body))
            single: list[Slice] = []
            while not streaming.done():
                single.append(await _checks(server, volumes, chosen, SINGLES))
                await asyncio.sleep(0.05)
            lines, held = await streaming
            seconds.append(time.perf_counter() - began)
            beside.append(_tail(*single))
            if lines != PEOPLE or held == 0 or any(one.good < len(one.latencies) for one in single):
                void = f"{lines:,} lines were answered, {held:,} of them held"
    finally:
        await server.stop()
    about = f"{PEOPLE:,} identifiers as one stream on {engine}"
    return [
        Figure(about, tuple(seconds), "s", at_most=LONGEST, void=void, note=f"{volumes.conversations:,} customers in the database"),
        Figure(f"{about}, each", tuple(one / PEOPLE * 1e6 for one in seconds), "us", void=void),
        Figure(f"hold check beside a stream on {engine}, p99 at c=4", tuple(beside), "ms", goal=20.0, void=void),
        Figure(f"hold check before it on {engine}, p99 at c=4", tuple(alone), "ms", void=void),
    ]


def _tail(*slices: Slice) -> float:
    """The 99th percentile of all of them, in milliseconds."""
    latencies = sorted(latency for one in slices for latency in one.latencies)
    return latencies[int(len(latencies) * 0.99) - 1] * 1e3


async def _checks(server: Served, volumes: Volumes, chosen: random.Random, count: int) -> Slice:
    asked = [phone(chosen.randrange(volumes.conversations * 3 // 2)) for _ in range(count)]
    return await drive(
        server.port, [get(f"/api/v1/holds/check?phone=%2B{one[1:]}", Authorization=f"Bearer {TOKEN}") for one in asked], concurrency=4
    )


def _body(volumes: Volumes, seed: int) -> list[bytes]:
    """The lines, in parts: seven in ten by phone, three by e-mail."""
    chosen = random.Random(seed)
    most = volumes.conversations * 3 // 2
    parts = []
    for _ in range(PEOPLE // PART):
        lines = []
        for _ in range(PART):
            who = chosen.randrange(most)
            lines.append(
                f'{{"kind":"email","value":"person{who}@example.com"}}\n'
                if chosen.random() < 0.3
                else f'{{"kind":"phone","value":"{phone(who)}"}}\n'
            )
        parts.append("".join(lines).encode())
    return parts


async def stream(port: int, parts: list[bytes], path: str = "/api/v1/holds/check") -> tuple[int, int]:
    """Send a stream and read its answers side by side; (lines, held) as the last line counts them. Raises ConnectionError if it was cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: hub.example\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/x-ndjson\r\n"
        writer.write(f"{head}Connection: close\r\nContent-Length: {sum(map(len, parts))}\r\n\r\n".encode())
        for part in parts:
            writer.write(part)
            await writer.drain()

    sending = asyncio.create_task(send())
    end = b""
    while data := await reader.read(1 << 18):
        end = (end + data)[-2_000:]
    await sending
    writer.close()
    found = _LAST.search(end)
    if found is None:
        raise ConnectionError(f"the stream was cut: {end[-300:]!r}")
    return int(found[1]), int(found[2])
