"""A backup holds all that was acknowledged before it began; what comes back from it is that, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner

from hub import keys
from hub.agents import CreateAgent
from hub.cli import main
from hub.conversations.commands import NewFile, Reply
from hub.conversations.ingest import Raw, StoredFile
from hub.delivery.owed import TOLD_ALL
from hub.delivery.works import Claim, ReleaseLeases
from hub.storage import archive, migrate
from hub.storage.backup import FILES, LEAP
from hub.storage.blobs import Blobs
from hub.storage.columns import BY_TABLE, COLUMNS, SEQUENCES
from hub.storage.copy_postgres import unserved
from hub.storage.copy_sqlite import unserved_file
from hub.storage.copying import OWN_SETTINGS, copy
from hub.storage.records import AgentSession, Setting
from tests.conftest import ROOT, sandbox_config
from tests.postgres import postgresql_missing, shared
from tests.storage import CHAT, MAIL, SMS, Store, device, email, fresh_database, heard, message, open_store, phone

needs_postgresql = pytest.mark.skipif(bool(postgresql_missing()), reason=postgresql_missing() or "there is one")
LONG_BODY = b"Received: from somewhere\r\n\r\n" + b"a large mail " * 9_000


class Place:
    """A machine: a configuration, and where it keeps everything."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.config = sandbox_config(root)
        self.data = root / "data"
        self.data.mkdir()
        self.database = self.data / "hub.db"
        self.files = self.data / "files"
        self.secret = self.data / "secret"

    def run(self, *arguments: str, expect: int = 0) -> str:
        result = CliRunner().invoke(main, [*arguments, "--config", str(self.config)])
        assert result.exit_code == expect, result.output
        return result.output

    def use_postgresql(self, url: str) -> None:
        self.config.write_text(self.config.read_text() + f"\ndatabase_url: {url}\n")

    def value(self, sql: str) -> Any:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(sql).fetchone()[0]

    def rows(self, table: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return sorted(connection.execute(f'SELECT {", ".join(COLUMNS[table])} FROM "{table}"').fetchall(), key=repr)

    def contents(self) -> dict[str, bytes]:
        """Every file of the place but the database and its locks."""
        found = {str(path.relative_to(self.data)): path for path in self.data.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if not name.startswith("hub.db")}


def said(number: int, blobs: Blobs | None = None) -> Any:
    """One mail or text message; every fifth with a file, every seventh with a body too large for its row."""
    sender = f"+1202555{number % 40:04d}"
    if blobs is None or number % 5:
        return heard(SMS, message(phone(sender), text=f"message {number}", key=f"key-{number}"))
    data = f"file {number % 60} ".encode() * 100
    file = StoredFile(f"file-{number}", "photo.jpg", "image/jpeg", len(data), blobs.put(data), "", False, "")
    work = heard(MAIL, message(email(f"p{number % 40}@example.com"), text=f"message {number}", key=f"key-{number}"))
    body = blobs.put(LONG_BODY + str(number).encode()) if number % 7 == 0 else ""
    raw = Raw(1, "verified", "POST", "/in/mail", "{}", None if body else b"small \0 body", body)
    return replace(work, items=(replace(work.items[0], files=(file,)),), raw=raw)


async def lived_in(place: Place, store: Store, messages: int = 80) -> None:
    """Customers who wrote, an agent who answered, a login, and what is owed outside in every state."""
    blobs = Blobs(place.files)
    keys.load_secret(place.secret)
    await store.run(CreateAgent("one@shop.example", "One", "admin", "x"))
    for number in range(messages):
        await store.run(said(number, blobs))
    await store.run(heard(CHAT, message(device("d-1"), text="Chat ünïcode \0 nul", key="chat-1")))
    data = b"an agent's own file"
    await store.run(Reply(1, 1, "With a file.", "draft-1", attachments=(NewFile("a.txt", "text/plain", len(data), blobs.put(data)),)))
    (claimed, *_) = await store.run(Claim("old-worker", 1))
    assert claimed.state == "sending"
    await store.run(Reply(2, 1, "Not yet sent.", "draft-2"))
    await store.run(
        Insert((AgentSession("t" * 64, 1, "c", 1, 1, 1 << 60), Setting(TOLD_ALL, '["marketing"]'), Setting("epoch", "0badc0de")))
    )


class Insert:
    def __init__(self, records: tuple[Any, ...]) -> None:
        self.records = records

    def needs(self, needs: Any) -> None: ...

    def decide(self, facts: Any) -> None:
        for record in self.records:
            facts.insert(record)


@pytest.fixture
async def old(tmp_path: Path) -> Place:
    """A machine whose hub has lived and is stopped."""
    place = Place(tmp_path / "old")
    async with open_store(place.data) as store:
        await lived_in(place, store)
    return place


@pytest.fixture
def new(tmp_path: Path) -> Place:
    """A machine with nothing on it but a configuration."""
    return Place(tmp_path / "new")


@pytest.fixture
async def postgres_url() -> AsyncIterator[str]:
    cluster = await asyncio.to_thread(shared)
    url = await asyncio.to_thread(cluster.create_database)
    yield url
    await asyncio.to_thread(cluster.drop_database, url)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def threaded(work: Callable[[], Any]) -> Any:
    """Commands begin an event loop of their own."""
    return asyncio.to_thread(work)


def as_left(place: Place, table: str) -> list[Any]:
    """A table's rows without what a restore changes on purpose, and states: each has a test of its own below."""
    dropped = {
        "agent_session": set(COLUMNS["agent_session"]),
        "delivery": {"state", "lease_token", "lease_until"},
        "customer": {"hold_version"},
    }
    keep = [i for i, name in enumerate(COLUMNS[table]) if name not in dropped.get(table, set())]
    rows = [tuple(row[i] for i in keep) for row in place.rows(table)]
    return [] if table == "agent_session" else [row for row in rows if table != "setting" or row[0] not in (*OWN_SETTINGS, TOLD_ALL)]


# --- it is all there ---


async def test_a_restore_equals_the_state_at_the_backup(old: Place, new: Place, tmp_path: Path) -> None:
    file = tmp_path / "hub.tar"
    told = await threaded(lambda: old.run("backup", str(file)))
    assert "keep it as safe as a password" in told
    assert mode(file) == 0o600
    assert names_in(tmp_path) == ["hub.tar", "new", "old"]
    assert "Restored" in await threaded(lambda: new.run("restore", str(file)))
    for table in BY_TABLE:
        assert as_left(new, table) == as_left(old, table), table
    assert new.contents() == old.contents()
    assert len(new.contents()) > 12, "the secret and the files"
    assert new.value("PRAGMA integrity_check") == "ok"
    assert new.value("SELECT count(*) FROM message_search WHERE message_search MATCH 'message'") == 80
    assert mode(new.secret) == mode(new.database) == 0o600
    assert sorted(path.name for path in new.data.iterdir()) == ["files", "hub.db", "hub.db.lock", "secret"]


@pytest.mark.parametrize("name", ["hub.tar", "hub.tar.gz"])
async def test_ordinary_tools_can_open_and_check_a_backup(name: str, old: Place, tmp_path: Path) -> None:
    file, out = tmp_path / name, tmp_path / "out"
    await threaded(lambda: old.run("backup", str(file)))
    out.mkdir()
    await threaded(lambda: subprocess.run(["tar", "xf", file, "-C", out], check=True))
    await threaded(lambda: subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], check=True, cwd=out))
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["step"], manifest["engine"], manifest["secret"]) == (migrate.HEAD, "sqlite", True)
    assert manifest["tables"]["message"]["rows"] == 83
    assert manifest["files"] == len(list((out / "files").rglob("*/*")))
    with contextlib.closing(sqlite3.connect(out / "hub.db")) as connection:
        total = sum(
            int(hashlib.sha256(json.dumps(row, separators=(",", ":"), default=bytes.hex).encode()).hexdigest(), 16)
            for row in connection.execute(f"SELECT {', '.join(COLUMNS['message'])} FROM message")
        )
        assert manifest["tables"]["message"]["digest"] == f"{total % (1 << 256):064x}"
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete", "one file, with no log to lose"


@needs_postgresql
async def test_a_backup_of_either_engine_restores_to_either(old: Place, new: Place, tmp_path: Path, postgres_url: str) -> None:
    """SQLite -> archive -> PostgreSQL -> archive -> SQLite."""
    between = Place(tmp_path / "between")
    between.use_postgresql(postgres_url)
    await threaded(lambda: old.run("backup", str(tmp_path / "1.tar")))
    told = await threaded(lambda: between.run("restore", str(tmp_path / "1.tar")))
    assert "each one read back and found equal" in told
    assert not between.database.exists()
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SELECT count(*) FROM message") == 83
    assert await connection.fetchval("SELECT nextval('ticket_id_seq')") > LEAP
    await connection.close()
    await threaded(lambda: between.run("backup", str(tmp_path / "2.tar")))
    await threaded(lambda: new.run("restore", str(tmp_path / "2.tar")))
    for table in BY_TABLE:
        mended = [tuple(v.replace("\0", "\ufffd") if isinstance(v, str) else v for v in row) for row in as_left(old, table)]
        assert as_left(new, table) == sorted(mended, key=repr), table
    assert new.contents() == old.contents() == between.contents()


@needs_postgresql
async def test_a_backup_of_postgresql_is_one_snapshot(old: Place, new: Place, tmp_path: Path, postgres_url: str) -> None:
    """What others commit while it is read is not in it: neither half."""
    async with unserved_file(old.database) as left, unserved(postgres_url, writing=True) as right:
        await copy(left, right)
    old.use_postgresql(postgres_url)
    stop = asyncio.Event()

    async def others() -> int:
        connection = await asyncpg.connect(postgres_url)
        pairs = 0
        while not stop.is_set():
            async with connection.transaction():
                await connection.execute("INSERT INTO dedupe VALUES (9, $1, 1)", f"pair-{pairs}")
                await connection.execute("INSERT INTO setting VALUES ($1, 'x')", f"pair-{pairs}")
            pairs += 1
        await connection.close()
        return pairs

    writing = asyncio.create_task(others())
    await asyncio.sleep(0)
    await threaded(lambda: old.run("backup", str(tmp_path / "1.tar")))
    stop.set()
    assert await writing > 20
    await threaded(lambda: new.run("restore", str(tmp_path / "1.tar")))
    committed = {row[1] for row in new.rows("dedupe") if row[0] == 9}
    assert committed == {row[0] for row in new.rows("setting") if row[0].startswith("pair-")}


@pytest.mark.process
async def test_under_load_nothing_acknowledged_before_is_missing_and_nobody_waits(tmp_path: Path, new: Place) -> None:
    """F24, F11: another process takes the backup while this one writes as fast as it can."""
    place = Place(tmp_path / "busy")
    blobs = Blobs(place.files)
    keys.load_secret(place.secret)
    file = tmp_path / "hub.tar"
    acknowledged: set[str] = set()
    slowest = 0.0
    async with open_store(place.data) as store:
        ids = iter(range(1_000_000))

        async def writing(until: Callable[[], bool]) -> None:
            nonlocal slowest
            while not until():
                number = next(ids)
                since = time.monotonic()
                await store.run(said(number, blobs if number % 50 == 0 else None))
                slowest = max(slowest, time.monotonic() - since)
                acknowledged.add(f"key-{number}")

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(writing(lambda: len(acknowledged) >= 1_500))
        slowest, before = 0.0, set(acknowledged)
        command = [sys.executable, "-m", "hub", "backup", str(file), "--config", str(place.config)]
        backing_up = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.DEVNULL)
        ended = asyncio.create_task(backing_up.wait())
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(writing(ended.done))
        assert await ended == 0
        meanwhile = len(acknowledged) - len(before)
    assert meanwhile > 100, "the hub went on working"
    assert slowest < 4.0, "what a provider waits, and what a busy machine adds"
    await threaded(lambda: new.run("restore", str(file)))
    kept = {row[1] for row in new.rows("dedupe")}
    assert before <= kept <= acknowledged
    # A prefix of what was committed, whole: every row has what it needs, and events are numbered without a gap.
    for orphan in (
        "SELECT count(*) FROM message WHERE ticket_id NOT IN (SELECT id FROM ticket) OR conversation_id NOT IN (SELECT id FROM customer)",
        "SELECT count(*) FROM delivery WHERE kind = 'card' AND subject_id NOT IN (SELECT id FROM ticket)",
        "SELECT count(*) FROM attachment WHERE message_id NOT IN (SELECT id FROM message)",
        "SELECT count(*) FROM event WHERE message_id NOT IN (SELECT id FROM message)",
        "SELECT (SELECT max(seq) FROM event) - (SELECT count(*) FROM event)",
        "SELECT (SELECT count(*) FROM message) - (SELECT count(*) FROM dedupe)",
    ):
        assert new.value(orphan) == 0, orphan
    with contextlib.closing(sqlite3.connect(new.database)) as connection:
        for (sha256,) in connection.execute(FILES):
            assert hashlib.sha256(Blobs(new.files).get(sha256)).hexdigest() == sha256


async def test_a_provider_that_delivers_again_after_a_restore_doubles_nothing(old: Place, new: Place, tmp_path: Path) -> None:
    await threaded(lambda: old.run("backup", str(tmp_path / "1.tar")))
    await threaded(lambda: new.run("restore", str(tmp_path / "1.tar")))
    async with open_store(new.data) as store:
        outcomes = [await store.run(said(number, Blobs(new.files))) for number in range(85)]
    assert [outcome.stored for outcome in outcomes] == [0] * 80 + [1] * 5, "and what the backup had not is new"
    assert new.value("SELECT count(*) FROM message WHERE direction = 'in'") == 86


# --- it is fit to live on ---


async def test_what_the_old_hub_may_have_sent_since_is_shown_as_unknown_and_not_sent(old: Place, new: Place, tmp_path: Path) -> None:
    await threaded(lambda: old.run("backup", str(tmp_path / "1.tar")))
    told = await threaded(lambda: new.run("restore", str(tmp_path / "1.tar")))
    in_doubt = new.value("SELECT count(*) FROM delivery WHERE NOT idempotent")
    assert f"{in_doubt} sends were under way or queued" in told
    async with open_store(new.data) as store:
        await store.run(ReleaseLeases())
        assert store.value("SELECT count(*) FROM delivery WHERE state = 'unknown'") == in_doubt
        assert {row["status"] for row in store.rows("SELECT status FROM message WHERE direction = 'out'")} == {"unknown"}
        assert not [row for row in await store.run(Claim("new", 100)) if not row.idempotent]


@needs_postgresql
async def test_on_postgresql_an_outbox_worker_finds_the_doubtful_ones_by_their_ended_leases(
    old: Place, tmp_path: Path, postgres_url: str
) -> None:
    there = Place(tmp_path / "there")
    there.use_postgresql(postgres_url)
    await threaded(lambda: old.run("backup", str(tmp_path / "1.tar")))
    await threaded(lambda: there.run("restore", str(tmp_path / "1.tar")))
    connection = await asyncpg.connect(postgres_url)
    states = {
        row[0]: row[1] for row in await connection.fetch("SELECT state, max(lease_until) FROM delivery WHERE NOT idempotent GROUP BY 1")
    }
    assert states == {"sending": 0}
    assert await connection.fetchval("SELECT count(*) FROM delivery WHERE lease_token <> ''") == 0
    await connection.close()


async def test_what_was_queued_is_sent_where_the_old_hub_never_ran_again(old: Place, new: Place, tmp_path: Path) -> None:
    await threaded(lambda: old.run("backup", str(tmp_path / "1.tar")))
    await threaded(lambda: new.run("restore", str(tmp_path / "1.tar"), "--send-queued"))
    assert new.value("SELECT state FROM delivery WHERE kind = 'reply' ORDER BY id DESC LIMIT 1") == "queued"
    under_way = "SELECT count(*) FROM delivery WHERE state = 'sending'"
    assert new.value(under_way) == old.value(under_way) > 0, "what was under way is in doubt all the same"


async def test_nothing_of_the_past_lives_again_and_no_number_is_given_twice(old: Place, new: Place, tmp_path: Path) -> None:
    await threaded(lambda: old.run("backup", str(tmp_path / "1.tar")))
    await threaded(lambda: new.run("restore", str(tmp_path / "1.tar")))
    assert old.value("SELECT count(*) FROM agent_session") == 1
    assert new.value("SELECT count(*) FROM agent_session") == 0
    epoch = new.value("SELECT value FROM setting WHERE key = 'epoch'")
    assert epoch != old.value("SELECT value FROM setting WHERE key = 'epoch'")
    assert len(epoch) == 8
    assert int(epoch, 16) >= 0
    for table in SEQUENCES:
        given = f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'"
        assert new.value(given) == old.value(given) + LEAP, table
    assert new.value("SELECT count(*) FROM setting WHERE key = 'holds.destinations'") == 0, "so that every destination is told again"
    assert new.value("SELECT min(hold_version) FROM customer") >= LEAP, "and listens: it keeps the highest version it saw"


# --- or nothing ---


async def test_a_missing_and_a_damaged_file_are_named_and_the_rest_is_kept(old: Place, new: Place, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(old.database)) as connection:
        missing, damaged, *others = [Blobs(old.files).path(row[0]) for row in connection.execute(FILES)]
    missing.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    told = await threaded(lambda: old.run("backup", str(tmp_path / "1.tar"), expect=1))
    assert f"{missing} is missing" in told
    assert f"{damaged} is damaged: its bytes are not what its name says" in told
    assert "2 files could not be backed up; everything else was." in told
    told = await threaded(lambda: new.run("restore", str(tmp_path / "1.tar")))
    assert f"not in the backup: {missing} is missing" in told
    assert sorted(path.name for path in new.files.rglob("*/*")) == sorted(path.name for path in others)
    assert new.value("SELECT count(*) FROM message") == old.value("SELECT count(*) FROM message")


async def test_the_secret_is_in_it_unless_it_is_left_out(old: Place, new: Place, tmp_path: Path) -> None:
    told = await threaded(lambda: old.run("backup", str(tmp_path / "1.tar"), "--without-secret"))
    assert "The secret is not in it" in told
    told = await threaded(lambda: new.run("restore", str(tmp_path / "1.tar")))
    assert f"put its copy at {new.secret} before the first start" in told
    assert not new.secret.exists()
    await threaded(lambda: old.run("backup", str(tmp_path / "2.tar")))
    other = Place(tmp_path / "other")
    theirs = keys.load_secret(other.secret)
    told = await threaded(lambda: other.run("restore", str(tmp_path / "2.tar"), expect=1))
    assert "is not the backup's secret. Nothing was restored" in told
    assert keys.load_secret(other.secret) == theirs
    assert sorted(path.name for path in other.data.iterdir() if path.suffix != ".lock") == ["secret"]
    old.secret.unlink()
    assert "secret_file" in await threaded(lambda: old.run("backup", str(tmp_path / "3.tar"), expect=1))
    assert not (tmp_path / "3.tar").exists()


async def test_a_backup_replaces_another_only_when_told_and_only_when_whole(old: Place, tmp_path: Path) -> None:
    file = tmp_path / "hub.tar"
    file.write_bytes(b"the backup of yesterday")
    assert "is there already. Nothing was written" in await threaded(lambda: old.run("backup", str(file), expect=1))
    with archive.ArchiveWriter(file, replace=True):
        assert "Another backup is being written" in await threaded(lambda: old.run("backup", str(file), "--force", expect=1))
    with contextlib.closing(sqlite3.connect(old.database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
        connection.commit()
    assert "run `hub migrate`" in await threaded(lambda: old.run("backup", str(file), "--force", expect=1))
    assert file.read_bytes() == b"the backup of yesterday"
    with contextlib.closing(sqlite3.connect(old.database)) as connection:
        connection.execute(f"UPDATE alembic_version SET version_num = '{migrate.HEAD}'")
        connection.commit()
    await threaded(lambda: old.run("backup", str(file), "--force"))
    assert archive.read(file)["files"] > 10
    assert names_in(tmp_path) == ["hub.tar", "old"]


def member_at(file: Path, name: str) -> tarfile.TarInfo:
    with tarfile.open(file) as tar:
        return tar.getmember(name) if name else tar.getmembers()[5]


def flipped(name: str, where: str) -> Callable[[bytes, Path], bytes]:
    """One bit of a member's bytes, or of its header, turned over."""

    def damage(whole: bytes, file: Path) -> bytes:
        member = member_at(file, name)
        at = member.offset + 3 if where == "header" else member.offset_data + member.size // 2
        return whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]

    return damage


DAMAGE: list[tuple[str, Callable[[bytes, Path], bytes], str]] = [
    ("a bit of the database", flipped("hub.db", "data"), "hub.db is damaged"),
    ("a bit of a file", flipped("", "data"), "its bytes have another digest"),
    ("a bit of the manifest", flipped("manifest.json", "data"), "manifest.json is damaged"),
    ("a bit of the secret", flipped("secret", "data"), "secret is damaged"),
    ("a bit of the digests", flipped("SHA256SUMS", "data"), "is damaged: its digest|though SHA256SUMS lists it|SHA256SUMS is damaged"),
    ("a bit of the first header", flipped("hub.db", "header"), "damaged or cut short after its beginning"),
    ("a bit of a later header", flipped("secret", "header"), "damaged or cut short after files/"),
    ("a bit of the last header", flipped("SHA256SUMS", "header"), "damaged or cut short after manifest.json"),
    ("nothing at all", lambda whole, file: b"", "damaged or cut short"),
    ("cut in the first header", lambda whole, file: whole[:300], "damaged or cut short"),
    ("cut in the database", lambda whole, file: whole[:100_000], "damaged or cut short"),
    ("cut between two members", lambda whole, file: whole[: member_at(file, "secret").offset], "SHA256SUMS, which comes last, is missing"),
    (
        "cut in the last member",
        lambda whole, file: whole[: member_at(file, "SHA256SUMS").offset_data + 10],
        "damaged or cut short|is damaged",
    ),
    ("something else", lambda whole, file: b"a picture of a cat" * 1_000, "damaged or cut short after its beginning"),
]


@pytest.mark.parametrize(("damage", "named"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_a_damaged_archive_is_refused_and_nothing_is_touched(
    damage: Callable[[bytes, Path], bytes], named: str, backed_up: Path, new: Place
) -> None:
    file = new.root / "hub.tar"
    file.write_bytes(damage(backed_up.read_bytes(), backed_up))
    with pytest.raises(archive.ArchiveDamaged, match=f"(?s){named}"):
        archive.read(file)
    assert "Nothing was restored" in new.run("restore", str(file), expect=1)
    assert [path.name for path in new.data.iterdir() if path.suffix != ".lock"] == []


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole backup, made once: damaged copies of it are what is tested."""
    root = tmp_path_factory.mktemp("backed-up")
    place = Place(root / "old")

    async def live() -> None:
        async with open_store(place.data) as store:
            await lived_in(place, store, 30)

    asyncio.run(live())
    place.run("backup", str(root / "hub.tar"))
    return root / "hub.tar"


async def test_a_compressed_archive_that_is_cut_or_changed_is_refused(old: Place, new: Place, tmp_path: Path) -> None:
    file = tmp_path / "hub.tar.gz"
    await threaded(lambda: old.run("backup", str(file)))
    whole = file.read_bytes()
    assert whole[:2] == b"\x1f\x8b"
    for changed in (whole[: len(whole) // 2], whole[:-2_000], whole[: len(whole) // 2] + b"????" + whole[len(whole) // 2 + 4 :]):
        file.write_bytes(changed)
        assert "Nothing was restored" in await threaded(lambda: new.run("restore", str(file), expect=1))
    assert not new.database.exists()


FOREIGN = [
    "../../etc/cron.d/x",
    "/etc/passwd",
    "files/ab/" + "ab" * 31 + "a/",
    "files/00/" + "ab" * 32,
    "files/ab/../hub.db",
    "hub.db-wal",
    "config.yaml",
]


@pytest.mark.parametrize("name", FOREIGN)
async def test_an_archive_that_holds_anything_else_is_refused(name: str, new: Place) -> None:
    file = new.root / "evil.tar"
    with tarfile.open(file, "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    assert "does not belong in a backup" in await threaded(lambda: new.run("restore", str(file), expect=1))
    with tarfile.open(file, "w") as tar:
        member = tarfile.TarInfo("hub.db")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    assert "does not belong in a backup" in await threaded(lambda: new.run("restore", str(file), expect=1))
    assert not new.database.exists()


async def test_a_restore_goes_only_into_an_empty_place_that_nobody_serves(backed_up: Path, new: Place, old: Place) -> None:
    before = old.database.read_bytes()
    assert "is not empty: its table" in await threaded(lambda: old.run("restore", str(backed_up), expect=1))
    assert old.database.read_bytes() == before
    with migrate.lock(new.database):
        assert "is open in another hub process" in await threaded(lambda: new.run("restore", str(backed_up), expect=1))
    assert not new.files.exists()
    fresh_database(new.data)
    await threaded(lambda: new.run("restore", str(backed_up)))
    assert new.value("SELECT count(*) FROM message") == 33


@needs_postgresql
async def test_a_restore_goes_only_into_an_empty_postgresql(backed_up: Path, new: Place, postgres_url: str) -> None:
    new.use_postgresql(postgres_url)
    await threaded(lambda: new.run("restore", str(backed_up)))
    shutil.rmtree(new.files)
    assert "is not empty: its table customer has rows" in await threaded(lambda: new.run("restore", str(backed_up), expect=1))
    assert not new.files.exists()


async def test_a_backup_of_a_newer_hub_is_refused(backed_up: Path, new: Place) -> None:
    file = new.root / "newer.tar"
    with tarfile.open(backed_up) as tar:
        held = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    (new.root / "hub.db").write_bytes(held["hub.db"])
    with contextlib.closing(sqlite3.connect(new.root / "hub.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    manifest = json.loads(held["manifest.json"]) | {"step": "9999", "hub": "9.9.9"}
    rewritten(file, (new.root / "hub.db").read_bytes(), manifest)
    assert "was written by hub 9.9.9 and stands at step 9999" in await threaded(lambda: new.run("restore", str(file), expect=1))
    rewritten(file, held["hub.db"], manifest)
    assert "is not the hub's database its manifest describes" in await threaded(lambda: new.run("restore", str(file), expect=1))
    rewritten(file, held["hub.db"], manifest | {"format": 2})
    assert "has format 2" in await threaded(lambda: new.run("restore", str(file), expect=1))
    assert not new.database.exists()


def rewritten(file: Path, database: bytes, manifest: dict[str, Any]) -> None:
    with archive.ArchiveWriter(file, replace=True) as writer:
        writer.add_bytes("hub.db", database)
        writer.finish(manifest)


KILL = """
import asyncio, os, sys
import hub.storage
from pathlib import Path
from hub.storage.backup import restore

def progress(step, table, rows):
    if f"{step} {table}" == sys.argv[3]:
        os.kill(os.getpid(), 9)

data = Path(sys.argv[2])
places = {"database": data / "hub.db", "target": None, "files": data / "files", "secret": data / "secret"}
asyncio.run(restore(Path(sys.argv[1]), **places, progress=progress))
"""


@pytest.mark.process
@pytest.mark.parametrize("point", ["indexing message", "restored files"])
async def test_a_restore_killed_anywhere_leaves_no_database_and_can_be_run_again(point: str, backed_up: Path, new: Place) -> None:
    command = [sys.executable, "-c", KILL, str(backed_up), str(new.data), point]
    killed = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=dict(os.environ))
    assert await killed.wait() == -9
    assert not new.database.exists()
    await threaded(lambda: new.run("restore", str(backed_up)))
    assert new.value("SELECT count(*) FROM message") == 33
    assert sorted(path.name for path in new.data.iterdir()) == ["files", "hub.db", "hub.db.lock", "secret"]
    assert not list(new.files.rglob(".partial*"))
