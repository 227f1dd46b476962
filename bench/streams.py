"""Open inboxes: how soon one event reaches a thousand of them, what an idle one costs, and what a hundred take from ingest."""

from __future__ import annotations

import asyncio
import time

from bench import machine
from bench.databases import Databases
from bench.load import drive
from bench.report import Figure
from bench.served import Served, plain_config
from bench.traffic import Traffic, get, signed

STREAMS = 1_000
BESIDE = 100  # streams open while ingest is measured
COUNT = 1_600  # requests of a slice


class Listener(asyncio.Protocol):
    """One browser's stream: notes when it heard of a change, and how often."""

    def __init__(self) -> None:
        self.changes = 0
        self.heard: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if b"event: changes" in data:
            self.changes += 1
            if not self.heard.done():
                self.heard.set_result(time.perf_counter())
        if not self.opened.done() and b"retry:" in data:
            self.opened.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("a stream was refused"))


async def listen(server: Served, count: int) -> list[Listener]:
    """So many open streams, each having been answered."""
    loop = asyncio.get_running_loop()
    listeners = []
    for _ in range(count):
        _, listener = await loop.create_connection(Listener, "127.0.0.1", server.port)
        listener.transport.write(get("/stream", Cookie=server.ready["cookie"], Accept="text/event-stream"))
        listeners.append(listener)
        await listener.opened
    return listeners


async def hang_up(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.transport.close()
    await asyncio.sleep(0.2)


async def measure(databases: Databases, rounds: int) -> list[Figure]:
    """Ingest beside streams and without, then a thousand streams that are told one thing."""
    server = Served("streams", plain_config(databases.directory / "streams"), "--sign-in")
    traffic = Traffic(seed=11)
    last: list[float] = []
    shares: list[float] = []
    alone: list[float] = []
    deaf, missed = 0, 0
    try:
        await server.start()
        await drive(server.port, [signed(body) for body in traffic.introductions()], 64)
        await server.rest()

        async def slice_(streams: int) -> float:
            """Seconds for COUNT messages beside so many streams."""
            nonlocal deaf
            listeners = await listen(server, streams)
            seconds = (await drive(server.port, traffic.requests(COUNT), 64)).seconds
            await server.rest()
            deaf += sum(not listener.changes for listener in listeners)
            await hang_up(listeners)
            return seconds

        # Without, with, with, without, and the other way round: what grows or slows steadily falls on both alike.
        for n in range(rounds):
            pattern = (0, BESIDE, BESIDE, 0) if n % 2 else (BESIDE, 0, 0, BESIDE)
            seconds = {0: 0.0, BESIDE: 0.0}
            for streams in pattern:
                seconds[streams] += await slice_(streams)
            shares.append(seconds[0] / seconds[BESIDE])
            alone.append(2 * COUNT / seconds[0])
        before, _ = machine.memory(server.pid)
        listeners = await listen(server, STREAMS)
        await server.rest()
        after, _ = machine.memory(server.pid)
        for _ in range(rounds):
            for listener in listeners:
                listener.changes, listener.heard = 0, asyncio.get_running_loop().create_future()
            sent = time.perf_counter()
            await drive(server.port, traffic.requests(1), 1)
            async with asyncio.timeout(10):
                heard = await asyncio.gather(*(listener.heard for listener in listeners))
            await asyncio.sleep(0.2)  # for a second frame, if there is one
            missed += sum(listener.changes != 1 for listener in listeners)
            last.append((max(heard) - sent) * 1e3)
            await server.rest()
        await hang_up(listeners)
    finally:
        await server.stop()
    void = f"{missed} streams heard one message in more than one frame" if missed else ""
    silent = f"{deaf} streams heard nothing of the messages" if deaf else ""
    return [
        Figure(f"one message to {STREAMS:,} open streams, the last of them", tuple(last), "ms", at_most=200.0, void=void),
        Figure("memory of an idle stream", ((after - before) * 1e3 / STREAMS,), "kB", at_most=20.0),
        Figure(f"ingest with {BESIDE} open streams / without, c=64", tuple(shares), "ratio", at_least=0.85, void=silent),
        Figure("ingest without streams, c=64", tuple(alone), "req/s"),
    ]
