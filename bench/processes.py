"""Two hubs on one PostgreSQL against one, with every core there is for all of them; and who used the cores meanwhile."""

from __future__ import annotations

import asyncio
import os
import time

from bench import machine
from bench.databases import SETTINGS, Databases
from bench.load import drive
from bench.report import Figure
from bench.served import Served, plain_config
from bench.traffic import Traffic, signed
from bench.visits import RECEIVED
from tests.postgres import Cluster

AT_LEAST = 1.5
COUNT = 2_400
CORES_NEEDED = 4  # two hubs, the database server, the load: with fewer they take from each other


async def measure(databases: Databases, rounds: int) -> list[Figure]:
    """One hub alone on its database, and two on another one of the same server, in turn."""
    every = machine.usable()
    with machine.confined(every), Cluster(fsync=True, settings=SETTINGS) as cluster:
        directory = databases.directory / "processes"
        shared = cluster.create_database()
        first = Served("one of two", plain_config(directory / "first", url=shared), cores=every)
        second = Served("the other", plain_config(directory / "second", url=shared), cores=every)
        alone = Served("one hub", plain_config(directory / "alone", url=cluster.create_database()), cores=every)
        pair, everybody = (first, second), (alone, first, second)
        ratios: list[float] = []
        rates: dict[int, list[float]] = {1: [], 2: []}
        used: dict[int, list[tuple[float, float, float]]] = {1: [], 2: []}  # cores in use: hubs, database server, load
        answered = {id(alone): 0, id(first): 0}
        wrong = 0
        traffic = Traffic(seed=22)

        async def slice_(hubs: tuple[Served, ...], requests: list[bytes]) -> float:
            nonlocal wrong
            before = (sum(machine.cpu_seconds(hub.pid) for hub in hubs), machine.family_cpu_seconds(cluster.pid), time.process_time())
            began = time.perf_counter()
            slices = await asyncio.gather(*(drive(hub.port, requests[n :: len(hubs)], 64 // len(hubs)) for n, hub in enumerate(hubs)))
            seconds = time.perf_counter() - began
            after = (sum(machine.cpu_seconds(hub.pid) for hub in hubs), machine.family_cpu_seconds(cluster.pid), time.process_time())
            for hub in hubs:
                await hub.rest()
            wrong += sum(len(s.latencies) - s.good for s in slices)
            answered[id(hubs[0])] += sum(s.good for s in slices)
            used[len(hubs)].append(tuple((a - b) / seconds for a, b in zip(after, before, strict=True)))  # type: ignore[arg-type]
            return len(requests) / seconds

        try:
            for server in everybody:
                await server.start()
            introductions = [signed(body) for body in traffic.introductions()]
            await slice_((alone,), introductions)
            await slice_(pair, introductions)
            used = {1: [], 2: []}
            for number in range(rounds):
                requests = traffic.requests(COUNT)
                for hubs in ((alone,), pair) if number % 2 else (pair, (alone,)):
                    rates[len(hubs)].append(await slice_(hubs, requests))
                ratios.append(rates[2][-1] / rates[1][-1])
            short = [hub for hub in (alone, first) if await hub.count(RECEIVED) < answered[id(hub)]]
        finally:
            for server in everybody:
                await server.stop()
    said = ([f"{wrong} answers were not 200"] if wrong else []) + [f"{hub.name} stored fewer than were answered" for hub in short]
    void, cores = "; ".join(said), len(every)
    return [
        Figure(
            "two hubs on one PostgreSQL / one, c=64",
            tuple(ratios),
            "ratio",
            at_least=AT_LEAST if cores >= CORES_NEEDED else None,
            goal=AT_LEAST,
            void=void,
            note=f"of {cores} cores in use: {_shown(used[1])} with one, {_shown(used[2])} with two"
            + ("" if cores >= CORES_NEEDED else f". Fewer than {CORES_NEEDED} cores: judged for nothing, since they take from each other"),
        ),
        Figure("one hub on PostgreSQL, all cores, c=64", tuple(rates[1]), "req/s", void=void),
        Figure("two hubs on one PostgreSQL, all cores, c=64", tuple(rates[2]), "req/s", void=void),
    ]


def _shown(used: list[tuple[float, float, float]]) -> str:
    hubs, database, load = (sorted(column)[len(used) // 2] for column in zip(*used, strict=True))
    return f"hubs {hubs:.2f}, PostgreSQL {database:.2f}, load {load:.2f} (load average {os.getloadavg()[0]:.1f})"
