"""Slices of ingest given to several servers in turn, inside rounds; afterwards what each answered is compared with what it stored."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench import machine
from bench.load import Slice, drive
from bench.served import Served

RECEIVED = "SELECT count(*) FROM message WHERE direction = 'in'"


@dataclass(slots=True)
class Seen:
    """One server's slices at one concurrency."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # microseconds of the server's CPU a request, what it did afterwards included
    beside: list[float] = field(default_factory=list)  # the same of the database server
    middles: list[float] = field(default_factory=list)
    tails: list[float] = field(default_factory=list)

    def note(self, slice_: Slice, cpu: float, beside: float) -> None:
        count = len(slice_.latencies)
        self.rates.append(slice_.rate)
        self.cpu.append(cpu / count * 1e6)
        self.beside.append(beside / count * 1e6)
        self.middles.append(slice_.quantile(0.5) * 1e3)
        self.tails.append(slice_.quantile(0.99) * 1e3)

    def over(self, base: Seen) -> tuple[float, ...]:
        """This server's rate as a share of another's, round by round."""
        return tuple(mine / other for mine, other in zip(self.rates, base.rates, strict=True))

    @property
    def latency(self) -> str:
        return f"p50 {statistics.median(self.middles):.1f} ms, p99 {statistics.median(self.tails):.1f} ms (medians of slices, closed loop)"


class Visits:
    """Who was asked how much, and what came of it."""

    def __init__(self, postmaster: int | None = None) -> None:
        """`postmaster` is the process id of the PostgreSQL server whose CPU counts beside a hub's on it."""
        self._postmaster = postmaster
        self._answered: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._before: dict[str, int] = {}
        self.seen: dict[tuple[str, int], Seen] = {}

    def _database_cpu(self, server: Served) -> float:
        return machine.family_cpu_seconds(self._postmaster) if server.url is not None and self._postmaster is not None else 0.0

    async def introduce(self, servers: Sequence[Served], requests: list[bytes]) -> None:
        """Everybody's first messages, which count as answered and not as measured."""
        for server in servers:
            self._before[server.name] = await server.count(RECEIVED)
            self._count(server, await drive(server.port, requests, 64))
            await server.rest()

    async def round(self, number: int, servers: Sequence[Served], requests: Callable[[], list[bytes]], concurrency: int) -> None:
        """The same requests to each; every round begins with another one, so that none is always the first after the generator's work."""
        made = requests()
        for offset in range(len(servers)):
            server = servers[(number + offset) % len(servers)]
            before, database_before = machine.cpu_seconds(server.pid), self._database_cpu(server)
            slice_ = await drive(server.port, made, concurrency)
            await server.rest()
            self._count(server, slice_)
            self.seen.setdefault((server.name, concurrency), Seen()).note(
                slice_, machine.cpu_seconds(server.pid) - before, self._database_cpu(server) - database_before
            )

    def _count(self, server: Served, slice_: Slice) -> None:
        self._answered[server.name] += slice_.good
        self._refused[server.name] += len(slice_.latencies) - slice_.good

    async def void(self, storing: Sequence[Served], not_storing: Sequence[Served] = ()) -> str:
        """Why none of this counts: an answer that was not 200, fewer messages stored than answers given; empty where all is well."""
        said = [f"{count} answers of {name} were not 200" for name, count in self._refused.items() if count]
        for server in storing:
            stored = await server.count(RECEIVED) - self._before[server.name]
            if stored < self._answered[server.name]:
                said.append(f"{server.name} answered {self._answered[server.name]} and stored {stored}")
        for server in not_storing:
            if stored := await server.count(RECEIVED):
                said.append(f"{server.name} stored {stored}")
        return "; ".join(said)
