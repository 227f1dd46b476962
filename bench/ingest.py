"""Durable ingest against the same server answering without storing, visited in turn inside each round."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine
from bench.load import Slice, drive
from bench.report import Figure
from bench.served import Served, plain_config
from bench.stand_in import StandIn
from bench.traffic import Traffic, signed

FLOOR, GOAL = 0.25, 0.5
COUNTS = {64: 1_600, 8: 800, 1: 300}  # requests of a slice, by concurrency
RECEIVED = "SELECT count(*) FROM message WHERE direction = 'in'"
OWED = "SELECT count(*) FROM delivery WHERE state <> 'done'"


@dataclass(slots=True)
class Seen:
    """One server's slices at one concurrency."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # microseconds of the server's CPU a request, what it did afterwards included
    middles: list[float] = field(default_factory=list)
    tails: list[float] = field(default_factory=list)

    def note(self, slice_: Slice, cpu: float) -> None:
        self.rates.append(slice_.rate)
        self.cpu.append(cpu / len(slice_.latencies) * 1e6)
        self.middles.append(slice_.quantile(0.5) * 1e3)
        self.tails.append(slice_.quantile(0.99) * 1e3)


async def measure(directory: Path, rounds: int) -> list[Figure]:
    """Three servers: without storing, storing, and storing with a room and a destination that are really told."""
    stand_in = StandIn()
    await stand_in.start()
    reference = Served("no-store", plain_config(directory / "no-store"), "--no-store")
    durable = Served("durable", plain_config(directory / "durable"))
    outbox = Served("outbox", plain_config(directory / "outbox", stand_in.port))
    servers = (reference, durable, outbox)
    try:
        for server in servers:
            await server.start()
        return await _rounds(servers, rounds, stand_in)
    finally:
        for server in servers:
            await server.stop()
        await stand_in.stop()


async def _rounds(servers: tuple[Served, Served, Served], rounds: int, stand_in: StandIn) -> list[Figure]:
    reference, durable, outbox = servers
    traffic = Traffic(seed=2026)
    answered = {server.name: 0 for server in servers}
    refused = {server.name: 0 for server in servers}
    seen = {(server.name, concurrency): Seen() for server in servers for concurrency in COUNTS}

    async def visit(server: Served, requests: list[bytes], concurrency: int) -> tuple[Slice, float]:
        before = machine.cpu_seconds(server.pid)
        slice_ = await drive(server.port, requests, concurrency)
        await server.rest()
        answered[server.name] += slice_.good
        refused[server.name] += len(slice_.latencies) - slice_.good
        return slice_, machine.cpu_seconds(server.pid) - before

    introductions = [signed(body) for body in traffic.introductions()]
    for server in servers:
        await visit(server, introductions, 64)
    for number in range(rounds):
        for concurrency, count in COUNTS.items():
            requests = traffic.requests(count)
            # Each round begins with another server, so that none is always the first after the generator's own work.
            for offset in range(len(servers)):
                server = servers[(number + offset) % len(servers)]
                slice_, cpu = await visit(server, requests, concurrency)
                seen[server.name, concurrency].note(slice_, cpu)

    void = "; ".join(
        [f"{refused[s.name]} answers of the {s.name} server were not 200" for s in servers if refused[s.name]]
        + [
            f"the {s.name} server answered {answered[s.name]} and stored {stored}"
            for s in (durable, outbox)
            if (stored := s.count(RECEIVED)) < answered[s.name]
        ]
        + ([f"the no-store server stored {stored}"] if (stored := reference.count(RECEIVED)) else [])
    )
    owed = outbox.count(OWED)
    told = f"{stand_in.cards} cards and {stand_in.hooks} hold notices delivered meanwhile" + (f"; {owed} still owed" if owed else "")
    return _figures(seen, void, told)


def _figures(seen: dict[tuple[str, int], Seen], void: str, told: str) -> list[Figure]:
    figures = []
    for concurrency in COUNTS:
        base = seen["no-store", concurrency]
        for name, label in (("durable", "durable ingest"), ("outbox", "durable ingest, room and destination told")):
            mine = seen[name, concurrency]
            ratios = tuple(a / b for a, b in zip(mine.rates, base.rates, strict=True))
            judged = name == "durable" and concurrency == 64
            figures.append(
                Figure(
                    f"{label} / no store, c={concurrency}",
                    ratios,
                    "ratio",
                    at_least=FLOOR if judged else None,
                    goal=GOAL if judged else None,
                    void=void,
                    note=told if name == "outbox" and concurrency == 64 else "",
                )
            )
    for concurrency in COUNTS:
        for name in ("no-store", "durable", "outbox"):
            mine = seen[name, concurrency]
            note = (
                f"p50 {statistics.median(mine.middles):.1f} ms, p99 {statistics.median(mine.tails):.1f} ms (medians of slices, closed loop)"
            )
            figures.append(Figure(f"{name} server, c={concurrency}", tuple(mine.rates), "req/s", void=void, note=note))
    figures += [
        Figure(f"{name} server CPU, c=64, work left over included", tuple(seen[name, 64].cpu), "us/request", void=void)
        for name in ("no-store", "durable", "outbox")
    ]
    return figures
