"""Search for the newest 50 of a million messages, by words of every frequency; and the plans, none of which may be a full scan."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql import asyncpg as postgres_dialect

from bench.databases import Databases
from bench.generate import SESSION, vocabulary
from bench.load import Slice, drive
from bench.report import Figure
from bench.served import Served, plain_config
from bench.traffic import get
from hub.storage.postgres_search import POSTGRES
from hub.storage.search import SQLITE

COUNT = 20  # searches of a kind and round, each for other words
P95 = 15.0  # ms
# A search that looks at more of a million rows than this, to show 50, is a scan by another name.
MOST_ROWS = 50_000


def kinds() -> dict[str, Callable[[], str]]:
    """What is typed, by kind. Words follow Zipf's law: the commonest is in half of all messages, one of rank 100 in about 1 %."""
    words, chosen = vocabulary(), random.Random(9)

    def one(first: int, last: int) -> str:
        return words[chosen.randrange(first, last)]

    return {
        "a rare word": lambda: one(20_000, 50_000),
        "a middling word": lambda: one(100, 3_000),
        "a common word": lambda: one(0, 20),
        "two words": lambda: f"{one(0, 300)} {one(50, 3_000)}",
        "the beginning of a word": lambda: one(0, 3_000)[:4],
        "nothing there is": lambda: one(0, 50_000) + "qq",
    }


async def measure(databases: Databases, rounds: int) -> list[Figure]:
    """Every kind in turn, in every round, on each engine; then the plans."""
    path, url = await databases.filled()
    messages = databases.volumes.messages
    plans = sqlite_plans(path)
    figures = await _engine("SQLite", plain_config(databases.directory / "search", database=path), messages, rounds, "; ".join(plans))
    if url is not None:
        scans, most = await postgres_plans(url)
        config = plain_config(databases.directory / "search-pg", url=url)
        figures += await _engine("PostgreSQL", config, messages, rounds, "; ".join(scans))
        figures.append(Figure("rows the dearest search looked at, PostgreSQL", (most,), "rows", at_most=MOST_ROWS))
    return figures


async def _engine(engine: str, config: Path, messages: int, rounds: int, scans: str) -> list[Figure]:
    server, typed = Served(f"search {engine}", config), kinds()
    seen: dict[str, list[Slice]] = {kind: [] for kind in typed}
    wrong = 0
    try:
        await server.start()
        await server.rest()
        for maker in typed.values():
            await drive(server.port, [_asked(maker()) for _ in range(8)], 4)
        for _ in range(rounds):
            for kind, maker in typed.items():
                slice_ = await drive(server.port, [_asked(maker()) for _ in range(COUNT)], 1)
                wrong += COUNT - slice_.good
                seen[kind].append(slice_)
    finally:
        await server.stop()
    void = "; ".join(([f"{wrong} answers were not 200"] if wrong else []) + ([f"a full scan: {scans}"] if scans else []))
    label = f"search on {engine}, newest 50 of {messages:,} messages"
    every = [
        Slice(0.0, slices[0].statuses, sorted(latency for one in slices for latency in one.latencies))
        for slices in zip(*seen.values(), strict=True)
    ]
    figures = [
        Figure(f"{label}, every kind, p95", tuple(s.quantile(0.95) * 1e3 for s in every), "ms", at_most=P95, void=void),
        Figure(f"{label}, every kind, p50", tuple(s.quantile(0.5) * 1e3 for s in every), "ms", void=void),
    ]
    for kind, slices in seen.items():
        figures.append(Figure(f"search on {engine}: {kind}, p95", tuple(s.quantile(0.95) * 1e3 for s in slices), "ms", void=void))
    return figures


def _asked(typed: str) -> bytes:
    # What the browser asks for: the list alone. Its own time is what is bounded, not that of the other parts.
    return get(f"/search?q={quote(typed)}&parts=list", Cookie=f"__Host-hub_session={SESSION}")


# --- plans ---------------------------------------------------------------------------------------------------------------


def sqlite_plans(path: Path) -> list[str]:
    """The steps of SQLite's plans that read a table from end to end; the index's own virtual table is asked by MATCH."""
    found = set()
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        for maker in kinds().values():
            match = SQLITE.match(maker())
            for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {SQLITE.statement.text}", {"match": match}):
                # "SCAN f VIRTUAL TABLE INDEX 0:M4" is the match itself; an idxStr without M would be all rows.
                if step.startswith("SCAN") and not ("VIRTUAL TABLE INDEX" in step and ":M" in step.replace("=", "")):
                    found.add(step)
    return sorted(found)


async def postgres_plans(url: str) -> tuple[list[str], int]:
    """(sequential scans in PostgreSQL's plans, most rows any step read or threw away), with every kind of search really run."""
    scans, most = set(), 0
    connection = await asyncpg.connect(url, server_settings={"jit": "off"})
    try:
        for kind, maker in kinds().items():
            for _ in range(3):
                statement = POSTGRES.found(maker())
                assert statement is not None
                sql, values = _positional(statement)
                (plan,) = await connection.fetchrow(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", *values)
                for node in _nodes(json.loads(plan)[0]["Plan"]):
                    if node["Node Type"] == "Seq Scan":
                        scans.add(f"{kind}: Seq Scan on {node['Relation Name']}")
                    loops = int(node["Actual Loops"])
                    read = int(node["Actual Rows"]) + int(node.get("Rows Removed by Filter", 0))
                    most = max(most, loops * (read + int(node.get("Rows Removed by Index Recheck", 0))))
    finally:
        await connection.close()
    return sorted(scans), most


def _positional(statement: TextClause) -> tuple[str, list[Any]]:
    compiled = statement.compile(dialect=postgres_dialect.dialect())
    return str(compiled), [compiled.params[name] for name in compiled.positiontup or ()]


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in _nodes(child))]
