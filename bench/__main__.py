"""`python -m bench`: measure, print a table, write bench/latest.json; exit 1 when a floor is missed."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import hub.storage  # noqa: F401  (picks the SQLite library before anything imports sqlite3)
from bench import ingest, machine, profiling, reading, report, start_up, streams
from bench.report import Figure

LATEST = Path(__file__).with_name("latest.json")
PARTS = ("start", "ingest", "reading", "streams")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part only (may be given more than once)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of ingest and reading (default 7; fewer than 5 say little)")
    parser.add_argument("--starts", type=int, default=7, help="starts of each configuration (default 7)")
    parser.add_argument("--directory", type=Path, default=Path("data"), help="where the databases go while measuring (default data)")
    parser.add_argument("--profile", action="store_true", help="profile ingest instead of measuring")
    return parser.parse_args()


def main() -> int:
    options = parse()
    parts = options.only or PARTS
    options.directory.mkdir(parents=True, exist_ok=True)
    _, ours = machine.cores()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory.resolve()) as name:
        directory = Path(name)
        if options.profile:
            os.sched_setaffinity(0, {ours})
            print(asyncio.run(profiling.show(directory)))
            return 0
        began = time.monotonic()
        print(machine.versions())
        server_core, load_core = machine.cores()
        alone = "" if server_core != load_core else " (ONE CORE: the load takes from the server)"
        print(
            f"{os.cpu_count()} cores, server on {server_core}, load on {load_core}{alone}; load average {os.getloadavg()[0]:.2f} before; "
            f"{machine.flush_rate(directory):,.0f} flushes/s of 4 KiB (fdatasync)"
        )
        print("Closed loop: latencies leave out the queue a burst would build. Ratios are taken inside each round.\n", flush=True)
        figures: list[Figure] = []
        # Start-up is measured unpinned: the machine may use all it has.
        if "start" in parts:
            figures += start_up.measure(directory / "start", options.starts)
        os.sched_setaffinity(0, {ours})
        if "ingest" in parts:
            figures += asyncio.run(ingest.measure(directory / "ingest", options.rounds))
        if "reading" in parts:
            figures += asyncio.run(reading.measure(directory / "reading", options.rounds))
        if "streams" in parts:
            figures += asyncio.run(streams.measure(directory / "streams", options.rounds))
    print(report.table(figures))
    report.write(figures, LATEST)
    missed = [figure.name for figure in figures if figure.ok is False]
    print(f"\n{time.monotonic() - began:.0f} s, load average {os.getloadavg()[0]:.2f} after; written to {LATEST}")
    if missed:
        print(f"Missed: {'; '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
