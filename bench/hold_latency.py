"""From a ticket that opens to the webhook that tells a marketing tool of its hold: a real hub, 200 new customers a second.

Open loop: the requests are sent by the clock, whether the hub keeps up or not, so that a queue shows in the times.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import yaml

from bench.databases import Databases
from bench.report import Figure
from bench.served import Served, plain_config
from bench.stand_in import StandIn, _Exchange
from bench.traffic import Traffic, signed

RATE = 200  # new tickets a second
SECONDS = 20
CONNECTIONS = 32
BOUND = 1.0  # seconds, p99
PATIENCE = 60.0  # seconds until the last webhook must have come


class Receiver(StandIn):
    """A marketing webhook that notes when each hold was placed and when it heard of it."""

    def __init__(self, expected: int) -> None:
        super().__init__()
        self.took: list[float] = []  # seconds from the ticket's opening
        self._expected_holds = expected
        self._complete = asyncio.Event()

    def asked(self, exchange: _Exchange, method: str, path: str, body: bytes) -> None:
        if path.startswith("/hooks"):
            now, said = time.time(), json.loads(body)
            if said["type"].endswith("hold.placed"):
                self.took.append(now - datetime.fromisoformat(said["time"]).timestamp())
                if len(self.took) >= self._expected_holds:
                    self._complete.set()
        super().asked(exchange, method, path, body)

    async def complete(self) -> bool:
        """Whether every hold was heard of in time."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._complete.wait()
        except TimeoutError:
            return False
        return True


async def measure(databases: Databases, rounds: int) -> list[Figure]:
    """Every round has strangers of its own, each of whom opens a ticket."""
    tickets = RATE * SECONDS
    p50: list[float] = []
    p99: list[float] = []
    void = ""
    for number in range(min(rounds, 3)):
        receiver = Receiver(tickets)
        await receiver.start()
        server = Served("hold latency", _config(databases.directory / f"hold-latency-{number}", receiver.port))
        try:
            await server.start()
            await server.rest()
            bodies = Traffic(seed=number + 1).introductions(count=tickets)
            refused = await send(server.port, [signed(body) for body in bodies], RATE)
            arrived = await receiver.complete()
        finally:
            await server.stop()
            await receiver.stop()
        took = sorted(receiver.took)
        if refused or not arrived:
            void = f"{refused} of {tickets:,} messages were refused and {len(took):,} webhooks arrived"
        if took:
            p50.append(took[len(took) // 2])
            p99.append(took[int(len(took) * 0.99) - 1])
    about = f"hold placed to webhook delivered at {RATE} tickets/s"
    note = f"{tickets:,} tickets a round, on SQLite; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end"
    return [
        Figure(f"{about}, p50", tuple(p50), "s", void=void),
        Figure(f"{about}, p99", tuple(p99), "s", at_most=BOUND, void=void, note=note),
    ]


def _config(directory: Path, port: int) -> Path:
    """The webhook and no room: what is measured is the hold's own way."""
    path = plain_config(directory, port)
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    del settings["rooms"]
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


async def send(port: int, requests: Sequence[bytes], rate: float) -> int:
    """Send requests at a rate, over connections that stay open; how many were not answered 200. Raises ConnectionError."""
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
    refused = 0

    async def work() -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (request := await waiting.get()) is not None:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            refused += not head.startswith(b"HTTP/1.1 200")
        writer.close()

    workers = [asyncio.create_task(work()) for _ in range(CONNECTIONS)]
    began = time.perf_counter()
    for number, request in enumerate(requests):
        wait = began + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        waiting.put_nowait(request)
    for _ in workers:
        waiting.put_nowait(None)
    await asyncio.gather(*workers)
    return refused
