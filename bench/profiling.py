"""Where ingest spends its time: the loop's thread, then the writer's, each under cProfile in a server of its own."""

from __future__ import annotations

import contextlib
import io
import pstats

from bench.databases import Databases
from bench.load import drive
from bench.served import Served, plain_config
from bench.traffic import Traffic, signed

MESSAGES = 4_000
# On PostgreSQL the writer is a task in the loop's own thread.
ENGINES = {"sqlite": ("loop", "writer"), "postgresql": ("loop",)}


async def show(databases: Databases, engine: str, lines: int = 45) -> str:
    """The most expensive functions of each thread by their own time. A profiler slows Python calls more than C: ranks count, not times."""
    if engine == "postgresql" and databases.cluster is None:
        return databases.missing
    shown = []
    for thread in ENGINES[engine]:
        stats = databases.directory / f"{thread}.pstats"
        config = plain_config(databases.directory / f"profile-{thread}", url=databases.new_url() if engine == "postgresql" else None)
        server = Served(thread, config, "--profile", thread, "--profile-to", str(stats))
        traffic = Traffic(seed=7)
        try:
            await server.start()
            await drive(server.port, [signed(body) for body in traffic.introductions()], 64)
            await drive(server.port, traffic.requests(MESSAGES), 64)
            await server.rest()
        finally:
            await server.stop()
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            pstats.Stats(str(stats), stream=text).sort_stats("tottime").print_stats(lines)
        shown.append(f"--- {thread} thread on {engine}, {MESSAGES} messages and 2,000 introductions ---\n{text.getvalue()}")
    return "\n".join(shown)
