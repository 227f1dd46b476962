"""Agents' answers through the outbox, against what a bare client gets from the same stand-in."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlencode

from bench import machine
from bench.databases import Databases
from bench.load import drive, drive_apart
from bench.report import Figure
from bench.served import Served, ServerFailed, replying_config
from bench.server import REPLIES
from bench.stand_in import MESSAGES, StandIn
from bench.traffic import NUMBER, get, phone
from hub.delivery.pacing import HANDS

COUNT = 600  # answers of a round, each to another customer
LIMIT_COUNT = 4_000  # requests of the bare client: enough for a third of a second
PATIENCE = 60.0
UNDELIVERED = "SELECT count(*) FROM delivery WHERE kind = 'reply' AND state <> 'done'"


def _posted(word: str, number: int) -> bytes:
    """What the hub sends for one answer, as far as it matters to who takes it."""
    body = urlencode({"To": phone(number), "From": NUMBER, "Body": f"{word} {number}"}).encode()
    head = f"POST {MESSAGES} HTTP/1.1\r\nHost: twilio.example\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def measure(databases: Databases, rounds: int) -> list[Figure]:
    """The stand-in lets everybody wait until all answers are committed; then it counts how soon it has them all."""
    engines: list[tuple[str, str | None]] = [("SQLite", None)]
    if databases.cluster is not None:
        engines.append(("PostgreSQL", databases.new_url()))
    figures = []
    for engine, url in engines:
        figures += await _engine(engine, url, databases, rounds)
    return figures


async def _engine(engine: str, url: str | None, databases: Databases, rounds: int) -> list[Figure]:
    stand_in = StandIn()
    await stand_in.start()
    config = replying_config(databases.directory / f"replies-{engine}", stand_in.port, url=url)
    server = Served(f"replies {engine}", config, "--sign-in", "--seed", str(COUNT))
    rates: list[float] = []
    limits: list[float] = []
    cpu: list[float] = []
    wrong = 0
    try:
        await server.start()
        await server.rest()
        for number in range(rounds + 1):
            word = f"answer{number}"
            limit = await drive_apart(stand_in.port, [_posted(f"limit{number}", n) for n in range(LIMIT_COUNT)], HANDS, server.cores)
            stand_in.shut()
            queued = await drive(server.port, [get(f"{REPLIES}?count={COUNT}&word={word}")], 1)
            if queued.good != 1:
                raise ServerFailed(f"the answers were not queued: {dict(queued.statuses)}, see {server.log}")
            before, began, expected = machine.cpu_seconds(server.pid), time.perf_counter(), stand_in.count + COUNT
            stand_in.open()
            async with asyncio.timeout(PATIENCE):
                await stand_in.taken(expected)
            took = stand_in.last - began
            await server.rest()
            wrong += sum(stand_in.texts[f"{word} {n}"] != 1 for n in range(1, COUNT + 1))
            if number:  # the first loads the provider's SDK
                rates.append(COUNT / took)
                limits.append(limit)
                cpu.append((machine.cpu_seconds(server.pid) - before) / COUNT * 1e6)
        owed = await server.count(UNDELIVERED)
    finally:
        await server.stop()
        await stand_in.stop()
    said = [f"{wrong} answers did not arrive exactly once"] if wrong else []
    void = "; ".join(said + ([f"{owed} answers are not noted as sent"] if owed else []))
    share = tuple(mine / limit for mine, limit in zip(rates, limits, strict=True))
    return [
        Figure(f"answers through the outbox on {engine}", tuple(rates), "replies/s", void=void),
        Figure(f"answers through the outbox on {engine} / a bare client of the stand-in, {HANDS} at once", share, "ratio", void=void),
        Figure(f"the stand-in's own limit, {HANDS} at once, beside {engine}", tuple(limits), "req/s"),
        Figure(f"server CPU, an answer on {engine}", tuple(cpu), "us", void=void),
    ]
