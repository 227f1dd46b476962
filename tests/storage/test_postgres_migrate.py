"""Migrations on PostgreSQL: equal to the tables, all or nothing, one hub at a time, never on a newer database."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from hub.storage import migrate, postgres
from hub.storage.migrate import DatabaseInUse, DatabaseTooNew, DatabaseUnreadable
from hub.storage.postgres import OWN_TABLES
from hub.storage.tables import metadata
from tests.postgres import shared
from tests.storage import fresh_postgres
from tests.storage.several import PATIENCE, following, needs_postgres, until_waiting

pytestmark = needs_postgres

# A next step as it may come, and a moment at which it can be caught: it waits for a lock before its end.
NEXT = '''
"""A next step."""
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("customer", sa.Column("language", sa.Text(), nullable=False, server_default=""))
    op.create_index("ix_customer_language", "customer", ["language"])
    op.execute("UPDATE customer SET name = upper(name), language = 'en'")
    op.execute("SELECT pg_advisory_xact_lock(4711)")
'''
NEXT_HEAD = f"{int(migrate.HEAD) + 1:04d}"

HUB = """
import asyncio, sys
from pathlib import Path
from hub.storage import migrate, postgres
migrate.STEPS, postgres.HEAD = Path(sys.argv[2]), sys.argv[3]
asyncio.run(postgres.migrate(sys.argv[1]))
"""


async def dump(url: str) -> list[Any]:
    """The schema and every row that a step may touch."""
    connection = await asyncpg.connect(url)
    try:
        columns = await connection.fetch(
            "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns "
            "WHERE table_schema = 'public' ORDER BY 1, 2"
        )
        indexes = await connection.fetch("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
        rows = [await connection.fetch(f"SELECT * FROM {table} ORDER BY 1") for table in ("customer", "alembic_version", "event_head")]
        return [columns, indexes, rows]
    finally:
        await connection.close()


def empty() -> str:
    return shared().create_database()


@pytest.fixture
async def old() -> str:
    """A database of today's version with somebody in it."""
    url = fresh_postgres()
    connection = await asyncpg.connect(url)
    await connection.execute("INSERT INTO customer (id, name, created_at, hold_version) VALUES (1, 'Ada', 1, 0)")
    await connection.close()
    return url


@pytest.fixture
def next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub of tomorrow: one step more."""
    steps = tmp_path / "steps"
    shutil.copytree(migrate.STEPS, steps, ignore=shutil.ignore_patterns("__pycache__"))
    (steps / "versions" / f"{NEXT_HEAD}_next.py").write_text(NEXT.format(revision=NEXT_HEAD, before=migrate.HEAD))
    monkeypatch.setattr(migrate, "STEPS", steps)
    monkeypatch.setattr(postgres, "HEAD", NEXT_HEAD)
    return steps


async def test_an_empty_database_is_made_and_a_current_one_left_alone() -> None:
    url = empty()
    assert await postgres.current(url) is None
    assert await postgres.migrate(url)
    assert await postgres.current(url) == migrate.HEAD
    made = await dump(url)
    assert not await postgres.migrate(url)
    assert await dump(url) == made


async def test_the_steps_make_exactly_the_tables() -> None:
    engine = create_async_engine(postgres.sqlalchemy_url(fresh_postgres()))
    own = ("event_head", "message_search")

    def differences(connection: Connection) -> list[Any]:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, kind, parents: not (kind == "table" and name in own),
        }
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        # The negative twin: a difference of one column and one index is seen.
        await connection.exec_driver_sql("ALTER TABLE customer ADD COLUMN stray TEXT")
        await connection.exec_driver_sql("DROP INDEX ix_ticket_conversation_id")
        assert len(await connection.run_sync(differences)) == 2
    await engine.dispose()


async def test_every_index_has_the_conditions_and_the_order_of_the_tables_too() -> None:
    """Alembic compares no conditions, and a wrong one would be used silently, or never."""
    url = empty()
    engine = create_async_engine(postgres.sqlalchemy_url(url))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        for statement in OWN_TABLES:
            await connection.exec_driver_sql(statement)
    await engine.dispose()
    declared, migrated = await _indexes(url), await _indexes(fresh_postgres())
    migrated.pop("alembic_version_pkc")
    assert migrated == declared
    assert len([one for one in declared.values() if " WHERE " in one]) >= 10


async def _indexes(url: str) -> dict[str, str]:
    connection = await asyncpg.connect(url)
    try:
        return dict(await connection.fetch("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"))
    finally:
        await connection.close()


async def test_hubs_that_start_at_once_migrate_one_after_another() -> None:
    url = empty()

    def start() -> bool:
        return asyncio.run(postgres.migrate(url))

    with ThreadPoolExecutor(4) as threads:
        loop = asyncio.get_running_loop()
        did = await asyncio.gather(*(loop.run_in_executor(threads, start) for _ in range(4)))
    assert sorted(did) == [False, False, False, True]
    assert await postgres.current(url) == migrate.HEAD


async def test_a_newer_database_is_refused_and_not_touched(old: str) -> None:
    connection = await asyncpg.connect(old)
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    await connection.close()
    before = await dump(old)
    with pytest.raises(DatabaseTooNew, match="9999"):
        await postgres.migrate(old)
    assert await dump(old) == before


async def test_a_step_that_is_killed_leaves_the_old_schema_whole_and_runs_the_next_time(old: str, next_step: Path) -> None:
    before = await dump(old)
    other = await asyncpg.connect(old)
    await other.execute("SELECT pg_advisory_lock(4711)")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HUB, old, str(next_step), NEXT_HEAD), cwd=Path(__file__).parents[2], stderr=asyncio.subprocess.DEVNULL
    )
    (pid,) = await until_waiting(other)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    # The server notices by itself, at the latest when the step would go on.
    await other.execute("SELECT pg_terminate_backend($1, 10000)", pid)
    assert await dump(old) == before
    await other.close()
    assert await asyncio.wait_for(postgres.migrate(old), PATIENCE)
    assert await postgres.current(old) == NEXT_HEAD
    connection = await asyncpg.connect(old)
    assert await connection.fetchrow("SELECT name, language FROM customer") == ("ADA", "en")
    await connection.close()


async def test_a_step_that_fails_leaves_the_old_schema_whole(old: str, next_step: Path) -> None:
    step = next_step / "versions" / f"{NEXT_HEAD}_next.py"
    step.write_text(step.read_text().replace("SELECT pg_advisory_xact_lock(4711)", "SELECT 1/0"))
    before = await dump(old)
    with pytest.raises(Exception, match="division by zero"):
        await postgres.migrate(old)
    assert await dump(old) == before


async def test_a_database_of_the_first_version_is_brought_up_to_date_with_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = tmp_path / "first"
    shutil.copytree(migrate.STEPS, steps, ignore=shutil.ignore_patterns("__pycache__", "000[2-9]*"))
    url = empty()
    with monkeypatch.context() as first:
        first.setattr(migrate, "STEPS", steps)
        first.setattr(postgres, "HEAD", "0001")
        assert await postgres.migrate(url)
    connection = await asyncpg.connect(url)
    await connection.execute("INSERT INTO customer (id, name, created_at, hold_version) VALUES (1, 'Ada', 1, 0)")
    await connection.execute("INSERT INTO event (seq, type, at, data) VALUES (7, 'customer.created', 1, '{}')")
    await connection.execute("UPDATE event_head SET seq = 7")
    await connection.close()
    assert await postgres.migrate(url) == (migrate.HEAD != "0001")
    assert (await dump(url))[1] == (await dump(fresh_postgres()))[1], "the same indexes as a new one"
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT name FROM customer") == "Ada"
    assert await connection.fetchval("SELECT seq FROM event_head") == 7
    await connection.close()


async def test_what_cannot_be_reached_is_said_in_words_and_without_the_password() -> None:
    url = shared().url("nowhere").replace("hub@", "hub:sesame@")
    with pytest.raises(DatabaseUnreadable) as raised:
        await postgres.migrate(url)
    assert "nowhere" in str(raised.value)
    assert "sesame" not in f"{raised.value!r} {postgres.shown(url)}"


async def test_a_database_that_is_served_is_not_to_be_had_alone() -> None:
    url = fresh_postgres()
    async with following(url):
        with pytest.raises(DatabaseInUse):
            await postgres.alone(url)
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                connection = await postgres.alone(url)
            except DatabaseInUse:  # the server has not noticed yet that the hub is gone
                continue
            break
    # And while it is had alone, no hub begins to serve.
    await connection.close()
