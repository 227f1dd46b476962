"""Moving a hub from one database to another: every row, whatever is in it, on either engine, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner
from sqlalchemy import Boolean, Integer, LargeBinary

from hub.cli import main
from hub.storage import migrate, postgres
from hub.storage.columns import BY_TABLE, COLUMNS, COUNTED, SEQUENCES, key_of
from hub.storage.copy_postgres import snapshot, unserved
from hub.storage.copy_sqlite import SqliteEnd, filling, new_file, read_only, unserved_file
from hub.storage.copying import CHUNK, OWN_SETTINGS, CopyRefused, Row, Tally, copy, tallies
from hub.storage.tables import metadata
from tests.conftest import ROOT
from tests.postgres import postgresql_missing, shared
from tests.storage import fresh_database

needs_postgresql = pytest.mark.skipif(bool(postgresql_missing()), reason=postgresql_missing() or "there is one")

# What people, providers and other programs put into a text; what breaks the one engine or the other, or a sort order.
AWKWARD = (
    *(
        "",
        " ",
        "\ufffd",
        "NULL",
        "\\N",
        "\\.",
        "\t",
        "a\r\nb",
        "'; DROP TABLE message; --",
        '"',
        "\\",
        "\\x00",
        "%s",
        "$1",
        "{}",
        "\x7f\x01",
    ),
    *("é", "e\u0301", "ß", "İ", "אבג", "\u202eevil", "👩‍👩‍👧‍👦", "\U0001d518", "\U0010fffd", "\ue000", "\u2028", "Z", "a", "~", "ä"),
    "word " * 1_000,
)
NUL = ("\0", "a\0b", "\0\0\0", "tail\0")
BYTES = (b"", b"\0", bytes(range(256)), b"\xff\xfe", b"x" * 70_000)
MANY = {"message": 3 * CHUNK + 7, "event": CHUNK, "dedupe": CHUNK + 1}  # streams longer than a chunk, exactly one, and one more


def awkward_rows(table: str, count: int, chosen: random.Random, texts: tuple[str, ...]) -> Iterator[Row]:
    """Rows of generated values at the edges of every column's type; a unique text bears its number."""
    kinds = metadata.tables[table].c
    unique = {column for index in metadata.tables[table].indexes if index.unique for column in index.columns.keys()}  # noqa: SIM118  (a collection of columns)
    unique |= {column.name for column in kinds if column.unique} | set(key_of(table))
    for number in range(1, count + 1):
        row: list[Any] = []
        for name in COLUMNS[table]:
            kind = kinds[name].type
            if kinds[name].nullable and chosen.random() < 0.3:
                row.append(None)
            elif isinstance(kind, Boolean):
                row.append(chosen.randrange(2))
            elif isinstance(kind, Integer):
                edge = (1 << 31 if type(kind) is Integer else 1 << 63) - 1
                row.append(number if name in unique else chosen.choice((0, 1, -1, edge, -edge - 1, chosen.randrange(edge))))
            elif isinstance(kind, LargeBinary):
                row.append(chosen.choice(BYTES))
            else:
                text = chosen.choice(texts)
                row.append(f"{text[:9]}{number}" if name in unique else text)
        yield tuple(row)


def fill(path: Path, seed: int, texts: tuple[str, ...] = AWKWARD) -> None:
    chosen = random.Random(seed)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for table in BY_TABLE:
            marks = ", ".join("?" * len(COLUMNS[table]))
            rows = awkward_rows(table, MANY.get(table, 40), chosen, texts)
            connection.executemany(f'INSERT INTO "{table}" ({", ".join(COLUMNS[table])}) VALUES ({marks})', rows)
        # Ids that were given once and whose rows are gone.
        connection.execute("UPDATE sqlite_sequence SET seq = 100000 WHERE name = 'ticket'")
        connection.execute("INSERT INTO setting (key, value) VALUES ('epoch', '0badc0de'), ('search.watermark', '7')")
        connection.commit()


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """A database that has rows in every table."""
    (tmp_path / "source").mkdir()
    path = fresh_database(tmp_path / "source")
    fill(path, 11)
    return path


@pytest.fixture
async def postgres_url() -> AsyncIterator[str]:
    """An empty database of a throw-away cluster."""
    cluster = await asyncio.to_thread(shared)
    url = await asyncio.to_thread(cluster.create_database)
    yield url
    await asyncio.to_thread(cluster.drop_database, url)


def everything(path: Path) -> dict[str, list[Row]]:
    """Every row of a SQLite hub, by plain SELECTs of its own."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = {}
        for table in BY_TABLE:
            rows = connection.execute(f'SELECT {", ".join(COLUMNS[table])} FROM "{table}"').fetchall()
            found[table] = sorted((row for row in rows if table != "setting" or row[0] not in OWN_SETTINGS), key=repr)
    return found


def value(path: Path, sql: str) -> Any:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchone()[0]


async def copied(source: Any, target: Any) -> Any:
    async with source as left, target as right:
        return await copy(left, right)


def run(*arguments: str, expect: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == expect, result.output
    return result.output


# --- all of it ---


async def test_a_sqlite_copy_has_every_row_and_goes_on_counting_where_the_source_stood(grown: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "hub.db"
    done = await copied(unserved_file(grown), new_file(target))
    assert everything(target) == everything(grown)
    assert sum(map(len, everything(grown).values())) == done.rows > 3 * CHUNK
    assert not done.mended
    assert value(target, "SELECT seq FROM sqlite_sequence WHERE name = 'ticket'") == 100_000
    assert value(target, "SELECT value FROM setting WHERE key = 'epoch'") != "0badc0de"
    assert value(target, "SELECT value FROM setting WHERE key = 'search.watermark'") == str(value(target, "SELECT max(id) FROM message"))
    assert value(target, "SELECT count(*) FROM message_search WHERE message_search MATCH 'word'") > 0
    assert sorted(path.name for path in target.parent.iterdir()) == ["hub.db", "hub.db.lock"]


@needs_postgresql
async def test_a_hub_moves_to_postgresql_and_back_with_every_row(grown: Path, tmp_path: Path, postgres_url: str) -> None:
    there = await copied(unserved_file(grown), unserved(postgres_url, writing=True))
    back = await copied(unserved(postgres_url, writing=False), new_file(tmp_path / "back.db"))
    assert everything(tmp_path / "back.db") == everything(grown)
    assert {t: (c.rows, c.digest) for t, c in there.tables.items()} == {t: (c.rows, c.digest) for t, c in back.tables.items()}
    assert value(tmp_path / "back.db", "SELECT seq FROM sqlite_sequence WHERE name = 'ticket'") == 100_000
    connection = await asyncpg.connect(postgres_url)
    try:
        assert await connection.fetchval("SELECT seq FROM event_head") == await connection.fetchval("SELECT max(seq) FROM event")
        for table in (*SEQUENCES, *COUNTED):
            if table != "event":
                taken = await connection.fetchval(f'SELECT max(id) FROM "{table}"')
                assert await connection.fetchval(f"SELECT nextval('{table}_id_seq')") > taken, table
        assert await connection.fetchval("SELECT nextval('ticket_id_seq')") > 100_000
        assert await connection.fetchval("SELECT count(*) FROM message_search") == MANY["message"]
        assert len(await connection.fetchval("SELECT value FROM setting WHERE key = 'epoch'")) == 8
    finally:
        await connection.close()


@needs_postgresql
async def test_a_hub_moves_from_one_postgresql_to_another(grown: Path, postgres_url: str) -> None:
    cluster = shared()
    other = await asyncio.to_thread(cluster.create_database)
    await copied(unserved_file(grown), unserved(postgres_url, writing=True))
    await copied(unserved(postgres_url, writing=False), unserved(other, writing=True))
    async with snapshot(other) as left, unserved_file(grown) as right:
        there, here = await tallies(left), await tallies(right)
    assert {t: (c.rows, c.digest) for t, c in there.items()} == {t: (c.rows, c.digest) for t, c in here.items()}
    await asyncio.to_thread(cluster.drop_database, other)


@needs_postgresql
async def test_the_character_postgresql_cannot_hold_is_replaced_and_counted(tmp_path: Path, postgres_url: str) -> None:
    source = fresh_database(tmp_path)
    fill(source, 12, (*AWKWARD[:20], *NUL))
    held = {table: sum(isinstance(v, str) and "\0" in v for row in rows for v in row) for table, rows in everything(source).items()}
    said = (
        run("copy-database", str(source), postgres_url)
        if False
        else await asyncio.to_thread(run, "copy-database", str(source), postgres_url)
    )
    assert held["message"] > 100
    for table, count in held.items():
        if count:
            assert f"{table}: {count:,} values held the character U+0000" in said
    done = await copied(unserved(postgres_url, writing=False), new_file(tmp_path / "back.db"))
    mended = {
        t: sorted((tuple(v.replace("\0", "\ufffd") if isinstance(v, str) else v for v in row) for row in rows), key=repr)
        for t, rows in everything(source).items()
    }
    assert everything(tmp_path / "back.db") == mended
    assert done.rows == sum(map(len, mended.values()))


async def test_text_that_is_no_utf8_does_not_stop_a_copy(tmp_path: Path) -> None:
    source = fresh_database(tmp_path)
    with contextlib.closing(sqlite3.connect(source)) as connection:
        connection.execute("INSERT INTO setting (key, value) VALUES ('k', CAST(x'41ff42' AS TEXT))")
        connection.commit()
    await copied(unserved_file(source), new_file(tmp_path / "new.db"))
    assert value(tmp_path / "new.db", "SELECT value FROM setting WHERE key = 'k'") == "A\ufffdB"


UNFIT: list[tuple[str, str, str]] = [
    ("INSERT INTO read_marker VALUES (1, 3000000000, 1)", "read_marker 1, 3000000000: agent_id holds 3000000000", "beyond four bytes"),
    (
        "INSERT INTO hold_ledger VALUES (7, 'x', 1, 'o', 'r', 's', 1, 1, 1)",
        "hold_ledger 7: customer_id holds a str where int belongs",
        "text",
    ),
    ("INSERT INTO customer VALUES (7, 'n', 1.5, 1, NULL, '')", "customer 7 reads back different in created_at", "a fraction"),
]


@needs_postgresql
@pytest.mark.parametrize(("sql", "named"), [row[:2] for row in UNFIT], ids=[row[2] for row in UNFIT])
async def test_a_value_no_column_takes_is_named_and_nothing_is_kept(sql: str, named: str, grown: Path, postgres_url: str) -> None:
    with contextlib.closing(sqlite3.connect(grown)) as connection:
        connection.execute(f"DELETE FROM {sql.split()[2]}")
        connection.execute(sql)
        connection.commit()
    with pytest.raises(CopyRefused, match=named):
        await copied(unserved_file(grown), unserved(postgres_url, writing=True))
    await empty(postgres_url)


async def empty(url: str) -> None:
    async with snapshot(url) as end:
        assert await end.occupied() is None


# --- or nothing ---


class Lying(SqliteEnd):
    """A target that loses, adds or changes what it is given: what the comparison is there to see."""

    def __init__(self, connection: sqlite3.Connection, lie: Callable[[str, list[Row]], list[Row]]) -> None:
        super().__init__(connection, "a liar")
        self._lie = lie

    async def rows(self, table: str) -> AsyncIterator[list[Row]]:
        async for chunk in super().rows(table):
            told = self._lie(table, chunk)
            if told:
                yield told


def changed(chunk: list[Row]) -> list[Row]:
    row = list(chunk[3])
    row[1] = row[1] + "!"
    return [*chunk[:3], tuple(row), *chunk[4:]]


LIES: list[tuple[str, Callable[[str, list[Row]], list[Row]], str]] = [
    ("a lost row", lambda t, c: c[1:] if t == "dedupe" and c[0][0] == 1 else c, "(?s)dedupe 1, .* is missing from the copy"),
    ("a lost table", lambda t, c: [] if t == "event" else c, "event 1 is missing from the copy"),
    ("a foreign row", lambda t, c: [*c, (99_999, *c[0][1:])] if t == "ticket" else c, "ticket 99999 is in the copy and not in the source"),
    ("a row twice", lambda t, c: [*c, c[-1]] if t == "hold" else c, "hold 40 is in the copy and not in the source"),
    ("a changed text", lambda t, c: changed(c) if t == "agent" else c, "agent 4 reads back different in email"),
]


@pytest.mark.parametrize(("lie", "named"), [row[1:] for row in LIES], ids=[row[0] for row in LIES])
async def test_a_copy_that_reads_back_otherwise_is_refused(
    lie: Callable[[str, list[Row]], list[Row]], named: str, grown: Path, tmp_path: Path
) -> None:
    target = fresh_database(tmp_path)
    with (
        filling(target) as connection,
        read_only(grown) as source,
        pytest.raises(CopyRefused, match=named),
    ):
        await copy(SqliteEnd(source, "source"), Lying(connection, lie))


async def test_rows_that_come_in_another_order_are_the_same_rows(grown: Path, tmp_path: Path) -> None:
    target = fresh_database(tmp_path)
    with filling(target) as connection, read_only(grown) as source:
        await copy(SqliteEnd(source, "source"), Lying(connection, lambda t, c: c[::-1]))


def test_a_tally_is_of_the_rows_and_not_of_their_order() -> None:
    rows: list[Row] = [(1, "a", b"\0", None), (2, "ä\0", b"", 1 << 62)]
    one, other, third = Tally(), Tally(), Tally()
    one.add(rows)
    other.add(reversed(rows))
    third.add([rows[0], (2, "ä", b"", 1 << 62)])
    assert one.digest == other.digest != third.digest
    # Stated in docs/backup.md, so that others can compute it.
    lines = (b'[1,"a","00",null]', b'[2,"\\u00e4\\u0000","",4611686018427387904]')
    assert int(one.digest, 16) == sum(int(hashlib.sha256(line).hexdigest(), 16) for line in lines) % (1 << 256)
    assert Tally().digest == "0" * 64


def test_only_an_empty_target_is_filled(grown: Path, tmp_path: Path) -> None:
    used = fresh_database(tmp_path)
    with contextlib.closing(sqlite3.connect(used)) as connection:
        connection.execute("INSERT INTO login_attempt VALUES ('somebody', 1, 1)")
        connection.commit()
    before = used.read_bytes()
    assert "is not empty: its table login_attempt has rows" in run("copy-database", str(grown), str(used), expect=1)
    assert used.read_bytes() == before
    (tmp_path / "cat.db").write_bytes(b"a picture of a cat" * 100)
    assert "cannot be read as a database" in run("copy-database", str(grown), str(tmp_path / "cat.db"), expect=1)
    assert "There is no database at" in run("copy-database", str(tmp_path / "none.db"), str(tmp_path / "new.db"), expect=1)
    (tmp_path / "new.db-wal").write_bytes(b"of another database")
    assert "is left over from another database" in run("copy-database", str(grown), str(tmp_path / "new.db"), expect=1)
    assert not (tmp_path / "new.db").exists()


def test_an_empty_database_in_the_place_gives_way_with_its_log(grown: Path, tmp_path: Path) -> None:
    target = fresh_database(tmp_path)
    # As a hub leaves it that was started once and killed: its last commits only in the log.
    code = (
        "import hub.storage, sqlite3, os, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA journal_mode=WAL');"
        "c.execute(\"INSERT INTO setting VALUES ('epoch', 'ffffffff')\"); c.commit(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(target)], check=True, cwd=ROOT)
    assert target.with_name("hub.db-wal").stat().st_size > 0
    run("copy-database", str(grown), str(target))
    assert everything(target) == everything(grown)
    assert value(target, "PRAGMA integrity_check") == "ok"


@needs_postgresql
async def test_only_an_empty_postgresql_is_filled(grown: Path, postgres_url: str) -> None:
    await postgres.migrate(postgres_url)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("INSERT INTO login_attempt VALUES ('somebody', 1, 1)")
    said = await asyncio.to_thread(lambda: run("copy-database", str(grown), postgres_url, expect=1))
    assert "is not empty: its table login_attempt has rows" in said
    assert await connection.fetchval("SELECT count(*) FROM message") == 0
    await connection.close()


def test_a_database_that_is_served_is_not_copied(grown: Path, tmp_path: Path) -> None:
    with migrate.lock(grown):
        assert "is open in another hub process. Stop that one first." in run("copy-database", str(grown), str(tmp_path / "a.db"), expect=1)
    with migrate.lock(tmp_path / "b.db"):
        assert "is open in another hub process" in run("copy-database", str(grown), str(tmp_path / "b.db"), expect=1)
    assert not list(tmp_path.glob("*.db*[!k]"))


@needs_postgresql
async def test_a_postgresql_that_is_served_is_not_copied(grown: Path, postgres_url: str) -> None:
    serving = await asyncpg.connect(postgres_url)
    await serving.execute(f"SELECT pg_advisory_lock_shared({postgres.SERVING})")
    said = await asyncio.to_thread(lambda: run("copy-database", str(grown), postgres_url, expect=1))
    assert "is served by a hub. Stop it first." in said
    await serving.close()


def test_a_source_at_another_step_is_not_copied(grown: Path, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(grown)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
        connection.commit()
    assert "run `hub migrate` first" in run("copy-database", str(grown), str(tmp_path / "new.db"), expect=1)


KILLED_AT = ("copied message", "copied setting", "compared setting")
KILL = """
import asyncio, os, sys
import hub.storage
from pathlib import Path
from hub.storage import copying
from hub.storage.copy_postgres import unserved
from hub.storage.copy_sqlite import new_file, unserved_file

def progress(step, table, rows):
    if f"{step} {table}" == sys.argv[3]:
        os.kill(os.getpid(), 9)

async def run():
    target = unserved(sys.argv[2], writing=True) if "://" in sys.argv[2] else new_file(Path(sys.argv[2]))
    async with unserved_file(Path(sys.argv[1])) as left, target as right:
        await copying.copy(left, right, progress)

asyncio.run(run())
"""


@pytest.mark.process
@pytest.mark.parametrize("point", KILLED_AT)
def test_a_copy_killed_anywhere_leaves_no_file_that_a_hub_would_trust(point: str, grown: Path, tmp_path: Path) -> None:
    target = tmp_path / "new.db"
    killed = subprocess.run([sys.executable, "-c", KILL, str(grown), str(target), point], check=False, cwd=ROOT, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert not target.exists()
    run("copy-database", str(grown), str(target))
    assert everything(target) == everything(grown)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.db", "new.db.lock", "source"]


@needs_postgresql
@pytest.mark.process
async def test_a_copy_killed_anywhere_leaves_postgresql_empty(grown: Path, postgres_url: str) -> None:
    def killed(point: str) -> Any:
        return subprocess.run([sys.executable, "-c", KILL, str(grown), postgres_url, point], check=False, cwd=ROOT, capture_output=True)

    for point in KILLED_AT:
        found = await asyncio.to_thread(killed, point)
        assert found.returncode == -9, found.stderr
        await gone(postgres_url)
        await empty(postgres_url)
    assert "each one read back and found equal" in await asyncio.to_thread(run, "copy-database", str(grown), postgres_url)


async def gone(url: str) -> None:
    """Until the server has noticed that its client is dead, and given back the dead one's locks."""
    connection = await asyncpg.connect(url)
    async with asyncio.timeout(30):
        await connection.execute(f"SELECT pg_advisory_lock({postgres.SERVING})")
    await connection.close()


@needs_postgresql
async def test_migrate_brings_the_configured_postgresql_to_this_step(tmp_path: Path, postgres_url: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"database_url: {postgres_url}\n")
    assert "brought at step" in await asyncio.to_thread(run, "migrate", "--config", str(config))
    assert "was already at step" in await asyncio.to_thread(run, "migrate", "--config", str(config))
    assert await postgres.current(postgres_url) == migrate.HEAD


@needs_postgresql
def test_a_password_is_never_shown(grown: Path, tmp_path: Path) -> None:
    said = run("copy-database", str(grown), "postgresql://hub:geheim@127.0.0.1:1/nothing", expect=1)
    assert "postgresql://127.0.0.1:1/nothing" in said
    assert "geheim" not in said
