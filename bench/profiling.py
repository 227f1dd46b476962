"""Where ingest spends its time: the loop's thread, then the writer's, each under cProfile in a server of its own."""

from __future__ import annotations

import contextlib
import io
import pstats
from pathlib import Path

from bench.load import drive
from bench.served import Served, plain_config
from bench.traffic import Traffic, signed

MESSAGES = 4_000


async def show(directory: Path, lines: int = 45) -> str:
    """The most expensive functions of each thread by their own time. A profiler slows Python calls more than C: ranks count, not times."""
    shown = []
    for thread in ("loop", "writer"):
        stats = directory / f"{thread}.pstats"
        config = plain_config(directory / f"profile-{thread}")
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
        shown.append(f"--- {thread} thread, {MESSAGES} messages and 2,000 introductions ---\n{text.getvalue()}")
    return "\n".join(shown)
