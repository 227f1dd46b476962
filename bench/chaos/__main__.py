"""`python -m bench.chaos`: try every promise, print a line each, write bench/chaos.json; exit 1 where one is broken."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
import traceback
import zlib
from pathlib import Path

import hub.storage  # noqa: F401  (picks the SQLite library before anything imports sqlite3)
from bench.chaos.matrix import PROMISES
from bench.chaos.promise import ENGINES, BrokenPromise, CannotTry, Promise, Run, Tally, Verdict
from tests.postgres import Cluster, postgresql_missing

LATEST = Path(__file__).resolve().parents[1] / "chaos.json"
SEED = 2026


async def attempt(promise: Promise, run: Run) -> Verdict:
    """One promise, tried."""
    began = time.monotonic()
    tally, fault, skipped = Tally(), "", ""
    try:
        tally = await promise.keep(run)
    except BrokenPromise as broken:
        fault = str(broken)
    except CannotTry as missing:
        skipped = str(missing)
    return Verdict(promise.name, run.engine, tally, time.monotonic() - began, fault, skipped)


def seed_of(seed: int, promise: Promise, engine: str) -> int:
    """Each promise its own dice, so that one tried alone falls as it does among the others."""
    return zlib.crc32(f"{seed} {engine} {promise.name}".encode())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the full figures (half an hour) instead of the short form (two minutes)")
    parser.add_argument("--engine", choices=(*ENGINES, "both"), default="both")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", action="append", metavar="ID", help="this promise only, such as F1 (may be given more than once)")
    parser.add_argument("--directory", type=Path, default=Path("data"), help="where the databases go (default data)")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=options.directory.resolve()) as name, contextlib.ExitStack() as opened:
        for engine in ENGINES if options.engine == "both" else (options.engine,):
            cluster, missing = None, ""
            if engine == "postgresql" and not (missing := postgresql_missing()):
                cluster = opened.enter_context(Cluster(fsync=True))
            for number, promise in enumerate(PROMISES):
                if engine not in promise.engines or (options.only and promise.id not in options.only):
                    continue
                if missing:
                    verdict = Verdict(promise.name, engine, Tally(), 0.0, skipped=missing)
                else:
                    directory = Path(name) / f"{engine}-{number}"
                    directory.mkdir()
                    run = Run(engine, options.full, seed_of(options.seed, promise, engine), directory, cluster)
                    try:
                        verdict = asyncio.run(attempt(promise, run))
                    except Exception as error:  # a mistake of the runner's own is no promise kept
                        traceback.print_exc()
                        verdict = Verdict(promise.name, engine, Tally(), 0.0, fault=f"the runner failed: {error!r}")
                print(verdict.line(), flush=True)
                verdicts.append(verdict)
    LATEST.write_text(json.dumps([verdict.entry() for verdict in verdicts], indent=2) + "\n", encoding="utf-8")
    broken = [verdict for verdict in verdicts if not verdict.ok]
    print(f"seed {options.seed}; {len(verdicts) - len(broken)} of {len(verdicts)} kept or skipped; written to {LATEST}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
