"""`python -m bench`: measure, print a table, write bench/latest.json; exit 1 when a floor is missed."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import hub.storage  # noqa: F401  (picks the SQLite library before anything imports sqlite3)
from bench import (
    campaigns,
    gate,
    hold_latency,
    ingest,
    machine,
    people,
    processes,
    profiling,
    reading,
    replies,
    report,
    resolving,
    searching,
    start_up,
    streams,
    volume,
)
from bench.databases import Databases
from bench.generate import Volumes
from bench.report import Figure

LATEST = Path(__file__).with_name("latest.json")
Part = Callable[[Databases, int], Awaitable[list[Figure]]]
# In this order: what grows the filled databases comes after what reads them.
PARTS: dict[str, Part] = {
    "ingest": ingest.measure,
    "streams": streams.measure,
    "replies": replies.measure,
    "processes": processes.measure,
    "search": searching.measure,
    "reading": reading.measure,
    "gate": gate.measure,
    "volume": volume.measure,
    "resolving": resolving.measure,
    "people": people.measure,
    "holds": hold_latency.measure,
    "campaigns": campaigns.measure,
}
NEEDS_POSTGRESQL = {"processes"}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=("start", *PARTS), action="append", help="measure this part only (may be given more than once)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of every part (default 5; fewer say little)")
    parser.add_argument("--starts", type=int, default=5, help="starts of each configuration (default 5)")
    parser.add_argument("--directory", type=Path, default=Path("data"), help="where the databases go while measuring (default data)")
    parser.add_argument("--conversations", type=int, default=Volumes().conversations, help="in the filled databases")
    parser.add_argument("--messages", type=int, default=Volumes().messages, help="in the filled databases")
    parser.add_argument("--profile", nargs="?", const="sqlite", choices=profiling.ENGINES, help="profile ingest instead of measuring")
    return parser.parse_args()


def main() -> int:
    options = parse()
    wanted = options.only or ["start", *PARTS]
    options.directory.mkdir(parents=True, exist_ok=True)
    server_core, load_core = machine.cores()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory.resolve()) as name:
        directory = Path(name)
        began = time.monotonic()
        print(machine.versions())
        alone = "" if server_core != load_core else " (ONE CORE: the load takes from the server)"
        print(
            f"{os.cpu_count()} cores, server on {server_core}, load on {load_core}{alone}; load average {os.getloadavg()[0]:.2f} before; "
            f"{machine.flush_rate(directory):,.0f} flushes/s of 4 KiB (fdatasync)"
        )
        print("Closed loop: latencies leave out the queue a burst would build. Ratios are taken inside each round.\n", flush=True)
        figures: list[Figure] = []
        # Start-up is measured before anything else is there, and unpinned: the machine may use all it has.
        if "start" in wanted and not options.profile:
            figures += start_up.measure(directory / "start", options.starts)
            _progress("start", began)
        with Databases(directory, Volumes(options.conversations, options.messages)) as databases:
            if databases.missing:
                print(f"Left out, PostgreSQL's part of everything: {databases.missing}", flush=True)
            os.sched_setaffinity(0, {load_core})
            if options.profile:
                print(asyncio.run(profiling.show(databases, options.profile)))
                return 0
            for part, measure in PARTS.items():
                if part not in wanted or (part in NEEDS_POSTGRESQL and databases.cluster is None):
                    continue
                figures += asyncio.run(_measured(measure, databases, options.rounds))
                _progress(part, began)
    print(report.table(figures))
    report.write(figures, LATEST)
    missed = [figure.name for figure in figures if figure.ok is False]
    print(f"\n{time.monotonic() - began:.0f} s, load average {os.getloadavg()[0]:.2f} after; written to {LATEST}")
    if missed:
        print(f"Missed: {'; '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


async def _measured(measure: Part, databases: Databases, rounds: int) -> list[Figure]:
    return await measure(databases, rounds)


def _progress(part: str, began: float) -> None:
    print(f"{part} done after {time.monotonic() - began:.0f} s, load average {os.getloadavg()[0]:.2f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
