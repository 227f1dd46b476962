"""A closed-loop HTTP client: so many connections, each sending its next request when the last one was answered.

Closed loop means that a slow server is asked less often, so that its percentiles leave out the queue a real burst would
build (no correction for coordinated omission): rates and their ratios are the result, latencies are colour.

`python -m bench.load PORT CONCURRENCY` sends the requests it reads (pickled) from a process of its own, and prints the rate.
"""

from __future__ import annotations

import asyncio
import math
import os
import pickle
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

PATIENCE = 60.0  # seconds one slice may take


@dataclass(frozen=True, slots=True)
class Slice:
    """What one slice of load saw. Latencies in seconds, sorted."""

    seconds: float
    statuses: Counter[int]
    latencies: list[float]

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds

    @property
    def good(self) -> int:
        return self.statuses[200] + self.statuses[201]

    def quantile(self, share: float) -> float:
        return self.latencies[max(0, math.ceil(share * len(self.latencies)) - 1)]


class _Connection(asyncio.Protocol):
    def __init__(self, waiting: deque[bytes], statuses: Counter[int], latencies: list[float], done: asyncio.Future[None]) -> None:
        self._waiting = waiting
        self._statuses = statuses
        self._latencies = latencies
        self._done = done
        self._transport: asyncio.Transport
        self._buffer = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self) -> None:
        if not self._waiting:
            self._finish()
            return
        self._sent = time.perf_counter()
        self._transport.write(self._waiting.popleft())

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        head = buffer.find(b"\r\n\r\n")
        if head < 0 or len(buffer) < head + 4 + _content_length(buffer[:head]):
            self._buffer = buffer
            return
        self._buffer = b""
        self._latencies.append(time.perf_counter() - self._sent)
        self._statuses[int(buffer[9:12])] += 1
        self.send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError(f"the server closed a connection: {error}"))

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)
        self._transport.close()


def _content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError("the answer names no Content-Length; this client knows no other framing")
    return int(lower[at + 17 :].partition(b"\r\n")[0])


def _itself(connection: _Connection) -> _Connection:
    return connection


async def drive(port: int, requests: Sequence[bytes], concurrency: int) -> Slice:
    """Send every request once over `concurrency` open connections. Raises ConnectionError or TimeoutError."""
    loop = asyncio.get_running_loop()
    waiting = deque(requests)
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    ends = [loop.create_future() for _ in range(concurrency)]
    connections = [_Connection(waiting, statuses, latencies, end) for end in ends]
    for connection in connections:
        await loop.create_connection(partial(_itself, connection), "127.0.0.1", port)
    began = time.perf_counter()
    for connection in connections:
        connection.send()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*ends)
    return Slice(time.perf_counter() - began, statuses, sorted(latencies))


async def drive_apart(port: int, requests: Sequence[bytes], concurrency: int, cores: set[int]) -> float:
    """The same from another process on these cores, for what must not share ours; the rate."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load", str(port), str(concurrency)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    os.sched_setaffinity(process.pid, cores)
    told, _ = await process.communicate(pickle.dumps(list(requests)))
    if process.returncode != 0:
        raise ConnectionError("the load of another process failed")
    return float(told)


if __name__ == "__main__":
    print(asyncio.run(drive(int(sys.argv[1]), pickle.load(sys.stdin.buffer), int(sys.argv[2]))).rate)
