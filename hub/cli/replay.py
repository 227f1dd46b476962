"""Identity cases: what the hub makes of a recorded stream of messages, on databases that are thrown away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from hub.cli.shared import fail


@click.group("identity")
def identity_group() -> None:
    """Who is who."""


@identity_group.command("replay")
@click.argument("file", metavar="CASES.json", type=click.File("r", encoding="utf-8"))
@click.option("--database-url", default="", help="A PostgreSQL server where databases may be made and dropped; else SQLite is used.")
@click.option("--case", "only", multiple=True, metavar="ID", help="This case alone; may be given several times.")
@click.option("--orders", default=12, show_default=True, metavar="N", help="Shuffled orders of each case that may come in any order.")
@click.option("--seed", default=1, show_default=True, help="What the orders are shuffled by.")
def replay(file: Any, database_url: str, only: tuple[str, ...], orders: int, seed: int) -> None:
    """Play CASES.json (schema identity-cases/1) against the real hub and print its answers as JSON.

    Each case and workspace has a database of its own, which is gone afterwards; the configured one is not touched and nothing is sent. A
    case that may come in any order is played in N orders, and all at once in half of them: exit 1 names the order that came out otherwise.
    """
    from hub.cli.rehearsal import Disagreement, answer, postgres_databases, sqlite_databases
    from hub.customers.cases import BadCases, read
    from hub.storage.migrate import DatabaseUnreadable
    from hub.storage.postgres import LOST
    from hub.storage.writer import StorageBusy

    name = getattr(file, "name", "CASES.json")
    try:
        cases = read(file.read())
    except (BadCases, UnicodeDecodeError) as error:
        fail(f"{name}: {error}. Nothing was played.")
    if unknown := set(only) - {case.id for case in cases}:
        fail(f"{name}: there is no case {', '.join(sorted(unknown))}.")

    async def run() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="hub-replay-") as directory:
            places = postgres_databases(database_url) if database_url else sqlite_databases(Path(directory))
            async with places as fresh:
                chosen = [case for case in cases if not only or case.id in only]
                return {case.id: await answer(case, fresh, rounds=orders, seed=seed) for case in chosen}

    try:
        with contextlib.redirect_stdout(sys.stderr):  # what is logged: standard output is the answers' alone
            answers = asyncio.run(run())
    except (BadCases, Disagreement, DatabaseUnreadable, StorageBusy) as error:
        fail(str(error))
    except LOST as error:
        fail(f"{type(error).__name__}: {error}. No answer was printed: mend that, and run this again.")
    click.echo(json.dumps(answers, indent=1, ensure_ascii=False))


COMMANDS = (identity_group,)
