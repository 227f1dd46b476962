"""Durable ingest on both engines against the same server answering without storing, visited in turn inside each round."""

from __future__ import annotations

import functools

from bench.databases import Databases
from bench.report import Figure
from bench.served import Served, plain_config
from bench.stand_in import StandIn
from bench.traffic import Traffic, signed
from bench.visits import Visits

REFERENCE, SQLITE, POSTGRES, TOLD = "no store", "SQLite", "PostgreSQL", "SQLite, room and destination told"
FLOORS = {SQLITE: 0.40, POSTGRES: 0.50}  # at 64 connections
GOALS = {SQLITE: 0.50}
COUNTS = {64: 1_600, 8: 600, 1: 200}  # requests of a slice, by concurrency
OWED = "SELECT count(*) FROM delivery WHERE state <> 'done'"


async def measure(databases: Databases, rounds: int) -> list[Figure]:
    """Servers: without storing; storing on SQLite and on PostgreSQL; on SQLite with a room and a destination that are really told."""
    directory = databases.directory / "ingest"
    stand_in = StandIn()
    await stand_in.start()
    reference = Served(REFERENCE, plain_config(directory / "no-store"), "--no-store")
    outbox = Served(TOLD, plain_config(directory / "outbox", stand_in.port))
    storing = [Served(SQLITE, plain_config(directory / "sqlite"))]
    if databases.cluster is not None:
        storing.append(Served(POSTGRES, plain_config(directory / "postgresql", url=databases.new_url())))
    storing.append(outbox)
    servers = [reference, *storing]
    visits = Visits(databases.cluster.pid if databases.cluster is not None else None)
    traffic = Traffic(seed=2026)
    try:
        for server in servers:
            await server.start()
        await visits.introduce(servers, [signed(body) for body in traffic.introductions()])
        for number in range(rounds):
            for concurrency, count in COUNTS.items():
                # Telling is for information, and slow to come to rest: at one concurrency only.
                asked = servers if concurrency == 64 else servers[:-1]
                await visits.round(number, asked, functools.partial(traffic.requests, count), concurrency)
        void = await visits.void(storing, [reference])
        owed = await outbox.count(OWED)
    finally:
        for server in servers:
            await server.stop()
        await stand_in.stop()
    told = f"{stand_in.cards} cards and {stand_in.hooks} hold notices delivered meanwhile" + (f"; {owed} still owed" if owed else "")
    return _figures(visits, [server.name for server in storing], void, told)


def _figures(visits: Visits, storing: list[str], void: str, told: str) -> list[Figure]:
    seen = visits.seen
    figures = []
    for name in storing:
        for concurrency in COUNTS:
            if (name, concurrency) in seen:
                figures.append(
                    Figure(
                        f"ingest on {name} / no store, c={concurrency}",
                        seen[name, concurrency].over(seen[REFERENCE, concurrency]),
                        "ratio",
                        at_least=FLOORS.get(name) if concurrency == 64 else None,
                        goal=GOALS.get(name) if concurrency == 64 else None,
                        void=void,
                        note=told if name == TOLD else "",
                    )
                )
    for name in (REFERENCE, *storing):
        for concurrency in COUNTS:
            if (name, concurrency) in seen:
                mine = seen[name, concurrency]
                label = "no-store server" if name == REFERENCE else f"ingest on {name}"
                figures.append(Figure(f"{label}, c={concurrency}", tuple(mine.rates), "req/s", void=void, note=mine.latency))
    for name in (REFERENCE, *storing):
        mine = seen[name, 64]
        figures.append(Figure(f"server CPU, {name}, c=64, work left over included", tuple(mine.cpu), "us/request", void=void))
        if name == POSTGRES:
            figures.append(Figure("database server's CPU, PostgreSQL, c=64", tuple(mine.beside), "us/request", void=void))
    return figures
