"""Ingest into a database that holds a million messages against ingest into an empty one, on both engines."""

from __future__ import annotations

import functools

from bench.databases import Databases
from bench.report import Figure
from bench.served import Served, plain_config
from bench.traffic import Traffic, signed
from bench.visits import Visits

AT_LEAST = 0.85
COUNT = 1_600  # requests of a slice
CONCURRENCY = 64


async def measure(databases: Databases, rounds: int) -> list[Figure]:
    """The same requests to a filled and an empty server, of senders spread over everybody the filled one knows."""
    directory, volumes = databases.directory / "volume", databases.volumes
    path, url = await databases.filled()
    pairs = {
        "SQLite": (Served("empty SQLite", plain_config(directory / "empty")), plain_config(directory / "filled", database=path)),
    }
    if url is not None:
        pairs["PostgreSQL"] = (
            Served("empty PostgreSQL", plain_config(directory / "empty-pg", url=databases.new_url())),
            plain_config(directory / "filled-pg", url=url),
        )
    servers: dict[str, tuple[Served, Served]] = {
        engine: (empty, Served(f"filled {engine}", filled)) for engine, (empty, filled) in pairs.items()
    }
    visits = Visits(databases.cluster.pid if databases.cluster is not None else None)
    traffic = Traffic(seed=64, people=volumes.conversations)
    everyone = [server for pair in servers.values() for server in pair]
    try:
        for server in everyone:
            await server.start()
            await server.rest()
        await visits.introduce(everyone, [signed(body) for body in traffic.introductions()])
        for number in range(rounds):
            # Each pair by itself, so that what is compared lies next to each other in time.
            for pair in servers.values():
                await visits.round(number, pair, functools.partial(traffic.requests, COUNT), CONCURRENCY)
        void = await visits.void(everyone)
    finally:
        for server in everyone:
            await server.stop()
    figures = []
    for engine, (empty, filled) in servers.items():
        mine, base = visits.seen[filled.name, CONCURRENCY], visits.seen[empty.name, CONCURRENCY]
        label = f"ingest on {engine} with {volumes.messages:,} messages stored"
        figures.append(Figure(f"{label} / empty, c={CONCURRENCY}", mine.over(base), "ratio", at_least=AT_LEAST, void=void))
        figures.append(Figure(f"{label}, c={CONCURRENCY}", tuple(mine.rates), "req/s", void=void, note=mine.latency))
        figures.append(Figure(f"server CPU, {engine}, {volumes.messages:,} messages stored", tuple(mine.cpu), "us/request", void=void))
        figures.append(Figure(f"server CPU, {engine}, empty, the same requests", tuple(base.cpu), "us/request", void=void))
    return figures
