"""Migrations: equal to the tables, all or nothing, after a backup, never on a newer database, never beside another process."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, create_engine, event, text
from sqlalchemy.engine import Engine

from hub.storage import migrate
from hub.storage.reader import sqlite_reader
from hub.storage.tables import metadata
from tests.storage import fresh_database, open_store

# A next step as it may come: a column, an index, and rows rewritten.
NEXT = '''
"""A next step."""
import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade():
    with op.batch_alter_table("customer") as batch:
        batch.add_column(sa.Column("language", sa.Text(), nullable=False, server_default=""))
    op.create_index("ix_customer_language", "customer", ["language"])
    op.execute("UPDATE customer SET name = upper(name), language = 'en'")
'''


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        yield connection


def dump(path: Path) -> list[Any]:
    """The whole schema and every row of every table."""
    with opened(path) as connection:
        schema = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        tables = [name for kind, name, sql in schema if kind == "table" and "VIRTUAL" not in sql]
        return [schema, *((name, connection.execute(f'SELECT * FROM "{name}"').fetchall()) for name in tables)]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database of today's version with somebody in it."""
    path = fresh_database(tmp_path)
    with opened(path) as connection:
        connection.execute("INSERT INTO customer(id, name, created_at, hold_version) VALUES (1, 'Ada', 1, 0)")
        connection.commit()
    return path


@pytest.fixture
def next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub of tomorrow: one step more."""
    steps = tmp_path / "100% steps"
    shutil.copytree(migrate.STEPS, steps, ignore=shutil.ignore_patterns("__pycache__"))
    (steps / "versions" / "0004_next.py").write_text(NEXT)
    monkeypatch.setattr(migrate, "STEPS", steps)
    monkeypatch.setattr(migrate, "HEAD", "0006")
    return steps


def test_head_names_the_newest_step_and_the_steps_are_one_line() -> None:
    names = sorted(path.name for path in (migrate.STEPS / "versions").glob("*.py"))
    assert names
    assert names[-1].partition("_")[0] == migrate.HEAD
    assert [name.partition("_")[0] for name in names] == [f"{number:04d}" for number in range(1, len(names) + 1)]


def test_the_steps_make_exactly_the_tables(tmp_path: Path) -> None:
    engine = create_engine(URL.create("sqlite", database=str(fresh_database(tmp_path))))
    options = {"include_name": lambda name, kind, parents: not (kind == "table" and name.startswith("message_search"))}
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True, **options})
        assert compare_metadata(context, metadata) == []
        # The negative twin: a difference of one column and one index is seen.
        connection.execute(text("ALTER TABLE customer ADD COLUMN stray TEXT"))
        connection.execute(text("DROP INDEX ix_ticket_conversation_id"))
        assert len(compare_metadata(context, metadata)) == 2
    engine.dispose()


def partial_indexes(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'")
    return {name: sql.partition(" WHERE ")[2] for name, sql in rows}


def test_the_conditions_of_partial_indexes_are_those_of_the_tables_too(tmp_path: Path) -> None:
    """Alembic compares no conditions, and a wrong one would be used silently, or never."""
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as connection:
        declared = partial_indexes(connection.connection.dbapi_connection)  # type: ignore[arg-type]
    engine.dispose()
    with opened(fresh_database(tmp_path)) as migrated:
        assert partial_indexes(migrated) == declared
    assert len(declared) >= 10


def test_a_new_database_is_made_and_a_current_one_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "100% new?.db"
    assert migrate.migrate(path)
    assert migrate.current(path) == migrate.HEAD
    before = dump(path)
    assert not migrate.migrate(path)
    assert dump(path) == before
    assert [p.name for p in path.parent.iterdir()] == [path.name], "an empty database needs no backup"


async def test_a_path_with_signs_of_a_url_is_read_and_written_alike(tmp_path: Path) -> None:
    directory = tmp_path / "50%25 off?mode=ro#x"
    directory.mkdir()
    async with open_store(directory) as store:
        reader = sqlite_reader(store.path)
        assert await reader.value(text("SELECT version_num FROM alembic_version")) == migrate.HEAD
        await reader.close()


def test_the_search_index_is_made_with_the_tables_or_not_at_all(tmp_path: Path) -> None:
    with opened(fresh_database(tmp_path)) as connection:
        assert connection.execute("SELECT count(*) FROM message_search").fetchone() == (0,)


def test_an_old_database_is_brought_up_after_a_backup_of_it(old: Path, next_step: Path) -> None:
    before = dump(old)
    assert migrate.migrate(old)
    assert migrate.current(old) == "0006"
    with opened(old) as connection:
        assert connection.execute("SELECT name, language FROM customer").fetchall() == [("ADA", "en")]
    backup = old.with_name("hub.db.before-0006")
    assert dump(backup) == before
    assert not list(old.parent.glob("*.partial*"))
    assert not migrate.migrate(old)


def test_the_backup_holds_what_still_lies_in_the_write_ahead_log(old: Path, next_step: Path) -> None:
    writer = sqlite3.connect(old)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("INSERT INTO customer(id, name, created_at, hold_version) VALUES (2, 'Bob', 1, 0)")
    writer.commit()
    copy = old.with_name("copy.db")
    migrate.backup(old, copy)
    with opened(copy) as connection:
        assert connection.execute("SELECT name FROM customer ORDER BY id").fetchall() == [("Ada",), ("Bob",)]
    writer.close()


def test_a_newer_database_is_refused_and_not_touched(old: Path) -> None:
    with opened(old) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
        connection.commit()
    before = old.read_bytes()
    with pytest.raises(migrate.DatabaseTooNew, match=f"step 0999.*up to {migrate.HEAD}"):
        migrate.migrate(old)
    assert old.read_bytes() == before
    assert not list(old.parent.glob("*.before-*"))


def test_a_file_that_is_no_database_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    path.write_bytes(b"these are somebody's holiday photographs" * 100)
    with pytest.raises(migrate.DatabaseUnreadable, match=r"cannot be read as a database .* put a backup in place"):
        migrate.migrate(path)
    assert path.read_bytes().startswith(b"these are")


class Crash(Exception):
    pass


def statements_of_the_step(old: Path) -> int:
    """How many statements the next step takes, BEGIN to the check before COMMIT, counted on a copy."""
    copy = old.with_name("counted.db")
    migrate.backup(old, copy)
    seen: list[str] = []

    def count(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        migrate.migrate(copy)
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    return len(seen)


def test_a_fault_at_any_statement_of_a_migration_leaves_the_old_database_whole(old: Path, next_step: Path) -> None:
    before, total = dump(old), statements_of_the_step(old)
    assert total >= 8
    for fatal in range(total):
        left = [fatal]

        def crash(*_: Any, left: list[int] = left) -> None:
            if left[0] == 0:
                raise Crash
            left[0] -= 1

        event.listen(Engine, "before_cursor_execute", crash)
        try:
            with pytest.raises(Crash):
                migrate.migrate(old)
        finally:
            event.remove(Engine, "before_cursor_execute", crash)
        assert dump(old) == before, f"after a fault at statement {fatal}"
    assert migrate.migrate(old)
    assert migrate.current(old) == "0006"


@pytest.mark.process
@pytest.mark.parametrize("moment", ["first", "middle", "commit"])
def test_a_process_killed_during_a_migration_leaves_the_old_database_whole(moment: str, old: Path, next_step: Path) -> None:
    before, total = dump(old), statements_of_the_step(old)
    fatal = {"first": 1, "middle": total // 2, "commit": -1}[moment]
    program = f"""
import os, signal
from pathlib import Path
import hub.storage
from hub.storage import migrate
from sqlalchemy import event
from sqlalchemy.engine import Engine

left = [{fatal}]

@event.listens_for(Engine, "before_cursor_execute")
def statement(*_):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

@event.listens_for(Engine, "commit")
def commit(*_):
    if {fatal} < 0:
        os.kill(os.getpid(), signal.SIGKILL)

migrate.STEPS, migrate.HEAD = Path({str(next_step)!r}), "0006"
migrate.migrate(Path({str(old)!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert dump(old) == before
    assert dump(old.with_name("hub.db.before-0006")) == before
    assert migrate.migrate(old)
    assert migrate.current(old) == "0006"


def test_broken_references_stop_a_migration_before_it_commits(old: Path, next_step: Path) -> None:
    (next_step / "versions" / "0004_next.py").write_text(
        NEXT + '    op.execute("CREATE TABLE child(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES customer(id))")\n'
        '    op.execute("INSERT INTO child VALUES (1, 99)")\n'
    )
    before = dump(old)
    with pytest.raises(RuntimeError, match="broken references"):
        migrate.migrate(old)
    assert dump(old) == before


def test_a_second_process_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    program = f"""
from pathlib import Path
import hub.storage
from hub.storage import migrate
try:
    migrate.lock(Path({str(path)!r}))
except migrate.DatabaseInUse as error:
    print(error)
else:
    print("taken")
"""

    def other() -> str:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout

    held = migrate.lock(path)
    assert "open in another hub process. Stop that one first." in other()
    with pytest.raises(migrate.DatabaseInUse):
        migrate.lock(path)
    held.close()
    assert other() == "taken\n", "the lock ends with its process, whatever killed it"
    migrate.lock(path).close()
