"""Taking a backup while the hub runs, and bringing one back into an empty place."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hub.storage import archive, migrate
from hub.storage.archive import ArchiveDamaged, ArchiveWriter
from hub.storage.blobs import Blobs, sync_directory
from hub.storage.columns import SEQUENCES
from hub.storage.copy_sqlite import SqliteEnd, check_free, filling, put_in_place, read_only, rebuild_search, scratch, seal, step_of
from hub.storage.copying import Copied, CopyRefused, End, Progress, copy, new_epoch, tallies
from hub.storage.engines import EPOCH
from hub.storage.writer import wall_clock

PAGES = 256  # a megabyte a step
LEAP = 1_000_000
# Every row that names a stored file.
FILES = (
    "SELECT sha256 FROM attachment WHERE sha256 <> '' UNION SELECT body_sha256 FROM raw_request WHERE body_sha256 <> '' "
    "UNION SELECT body_sha256 FROM quarantine WHERE body_sha256 <> '' ORDER BY 1"
)


@dataclass(slots=True)
class BackedUp:
    """What a backup holds, and the files it should hold and could not."""

    rows: int
    files: int
    size: int  # bytes of the archive
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Restored:
    """What was brought back, and what of it a person must know."""

    manifest: dict[str, Any]
    files: int
    in_doubt: int
    with_secret: bool
    copied: Copied | None = None  # where the target is another engine than the archive's


# --- taking one ---


async def back_up(
    target: Path,
    *,
    database: Path | None,
    snapshot: contextlib.AbstractAsyncContextManager[End] | None,
    files: Path,
    secret: Path | None,
    version: str,
    replace: bool = False,
    progress: Progress = lambda step, table, rows: None,
) -> BackedUp:
    """Write one archive of everything: of the SQLite file `database`, or of the `snapshot` of another engine.

    The database first, then the files it names: a file is synced before its row commits and never changes, so every row in
    the snapshot has its file. A file that is missing or damaged is reported and left out; the rest is kept. Without `secret`
    the archive has none. Raises ArchiveExists, CopyRefused, DatabaseUnreadable, OSError.
    """
    taken = wall_clock()
    with ArchiveWriter(target, replace=replace) as writer:
        built = scratch(target, ".partial.db")
        try:
            if snapshot is None:
                assert database is not None, "one of the two is named"
                taken = _copy_pages(database, built, progress)
            else:
                migrate.migrate(built)
                with filling(built) as connection:
                    async with snapshot as source:
                        await copy(source, SqliteEnd(connection, str(built)), progress)
            seal(built)
            with contextlib.closing(sqlite3.connect(built)) as connection:
                step = step_of(connection)
                counted = await tallies(SqliteEnd(connection, str(built)))
                wanted = [row[0] for row in connection.execute(FILES)]
            faults = _add_all(writer, built, wanted, Blobs(files), secret, progress)
        finally:
            scratch(target, ".partial.db")
        stored = len(wanted) - len(faults)
        size = writer.finish(
            {
                "format": archive.FORMAT,
                "hub": version,
                "step": step,
                "engine": "sqlite" if snapshot is None else "postgresql",
                "taken_at": taken,
                "tables": {table: {"rows": tally.rows, "digest": tally.digest} for table, tally in counted.items()},
                "files": stored,
                "files_missing": faults,
                "secret": secret is not None,
            }
        )
    return BackedUp(sum(tally.rows for tally in counted.values()), stored, size, faults)


def _add_all(writer: ArchiveWriter, built: Path, wanted: list[str], blobs: Blobs, secret: Path | None, progress: Progress) -> list[str]:
    with built.open("rb") as file:
        writer.add(archive.DATABASE, file, built.stat().st_size)
    faults = []
    for number, sha256 in enumerate(wanted, 1):
        fault = _add_file(writer, blobs.path(sha256), sha256)
        if fault:
            faults.append(fault)
        progress("stored", "files", number)
    if secret is not None:
        writer.add_bytes(archive.SECRET, secret.read_bytes())
    return faults


def _copy_pages(database: Path, built: Path, progress: Progress) -> int:
    """Copy one snapshot of a SQLite file that may be in use; when it was taken (microseconds UTC).

    The read transaction stays open over all steps. Without it SQLite would begin anew after every commit of the hub, and
    under load never end. After each step it rests as long as the step took, so that the hub keeps half of the disk at least.
    """
    with read_only(database) as source, contextlib.closing(sqlite3.connect(built)) as copied:
        taken = wall_clock()
        step = step_of(source)
        if step != migrate.HEAD:
            raise CopyRefused(
                f"{database} stands at step {step}, this hub at {migrate.HEAD}. Nothing was written: run `hub migrate`, or back up with "
                "the version that wrote it."
            )
        since = time.monotonic()

        def rest(_status: int, remaining: int, total: int) -> None:
            nonlocal since
            progress("copied", "pages", total - remaining)
            time.sleep(min(time.monotonic() - since, 0.1))
            since = time.monotonic()

        source.backup(copied, pages=PAGES, progress=rest)
    return taken


def _add_file(writer: ArchiveWriter, path: Path, sha256: str) -> str:
    """Add one stored file if its bytes are what its name says; what is wrong with it otherwise."""
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return f"{path} is damaged: its bytes are not what its name says"
            size = file.tell()
            file.seek(0)
            writer.add(archive.file_name(sha256), file, size)
    except FileNotFoundError:
        return f"{path} is missing"
    except PermissionError:
        return f"{path} cannot be read by this user"
    return ""


# --- bringing one back ---


async def restore(
    source: Path,
    *,
    database: Path | None,
    target: contextlib.AbstractAsyncContextManager[End] | None,
    files: Path,
    secret: Path,
    forget: Sequence[str] = (),
    send_queued: bool = False,
    progress: Progress = lambda step, table, rows: None,
) -> Restored:
    """Bring an archive back: into the SQLite file `database`, or into the empty `target` of another engine.

    All of the archive is read and checked before anything is touched; the database comes last, so that whatever interrupts a
    restore leaves no database, and it can be run again. `forget` names settings that must not outlive a restore. Raises
    ArchiveDamaged, CopyRefused, DatabaseInUse, DatabaseTooNew, DatabaseUnreadable, OSError.
    """
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
        with migrate.lock(database), _room(database) as room:
            check_free(database)
            built, restored, held = _prepare(source, room, secret, forget, send_queued, index=True, progress=progress)
            restored.files = _put_files(source, files, progress)
            _put_secret(secret, held)
            put_in_place(built, database)
        return restored
    assert target is not None, "one of the two is named"
    with _room(secret) as room:
        built, restored, held = _prepare(source, room, secret, forget, send_queued, index=False, progress=progress)
        with read_only(built) as connection:
            async with target as end:
                restored.copied = await copy(SqliteEnd(connection, str(source)), end, progress)
                restored.files = _put_files(source, files, progress)
                _put_secret(secret, held)
    return restored


def _prepare(
    source: Path, room: Path, secret: Path, forget: Sequence[str], send_queued: bool, *, index: bool, progress: Progress
) -> tuple[Path, Restored, bytes | None]:
    """Check all of an archive, and make its database fit to live on: the file, what to tell, and the secret it held."""
    built, kept = room / archive.DATABASE, room / archive.SECRET
    sinks = {archive.DATABASE: built, archive.SECRET: kept}
    manifest = archive.read(source, lambda name: sinks[name].open("wb") if name in sinks else None)
    held = kept.read_bytes() if kept.exists() else None
    if held is not None and secret.exists() and secret.read_bytes() != held:
        raise CopyRefused(
            f"storage.secret_file: {secret} is there already and is not the backup's secret. Nothing was restored: move it away, so that "
            "reply addresses and links already sent keep their meaning."
        )
    if _step(built, manifest, source) != migrate.HEAD:
        migrate.migrate(built)
    with filling(built) as connection:
        in_doubt = adjust(connection, new_epoch(), forget, send_queued=send_queued)
        if index:
            progress("indexing", "message", manifest["tables"]["message"]["rows"])
            rebuild_search(connection)
    seal(built)
    return built, Restored(manifest, 0, in_doubt, held is not None), held


def adjust(connection: sqlite3.Connection, epoch: str, forget: Sequence[str], *, send_queued: bool) -> int:
    """In the caller's transaction, make a database of the past fit to live on; the number of sends whose fate is in doubt.

    - Logins end: one that was signed out since must not live again.
    - The old hub may have sent what was queued after the backup. What can be repeated safely is; the rest is handed over as a
      send that was interrupted, which the next start marks `unknown` and shows: never silently sent twice.
    - Ids given after the backup are out in the world, in reply addresses and at providers: none is given again.
    - Destinations keep the highest version of a customer's hold that they saw: ours must be above it.
    """
    execute = connection.execute
    execute("DELETE FROM agent_session")
    execute("UPDATE delivery SET lease_token = '', lease_until = 0 WHERE state = 'sending'")
    if not send_queued:
        execute("UPDATE delivery SET state = 'sending', lease_token = '', lease_until = 0 WHERE state = 'queued' AND NOT idempotent")
    in_doubt = int(execute("SELECT count(*) FROM delivery WHERE state = 'sending' AND NOT idempotent").fetchone()[0])
    for table in SEQUENCES:
        if not execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = ?", (LEAP, table)).rowcount:
            execute("INSERT INTO sqlite_sequence(name, seq) VALUES (?, ?)", (table, LEAP))
    execute("UPDATE customer SET hold_version = hold_version + ?", (LEAP,))
    for key in forget:
        execute("DELETE FROM setting WHERE key = ?", (key,))
    execute("INSERT OR REPLACE INTO setting(key, value) VALUES (?, ?)", (EPOCH, epoch))
    return in_doubt


@contextlib.contextmanager
def _room(place: Path) -> Iterator[Path]:
    """A directory beside `place` for what is not yet restored, empty at first and gone afterwards."""
    room = place.with_name(place.name + ".restoring")
    shutil.rmtree(room, ignore_errors=True)  # an interrupted restore's
    room.mkdir(mode=0o700, parents=True)
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _step(built: Path, manifest: dict[str, Any], source: Path) -> str:
    with contextlib.closing(sqlite3.connect(built)) as connection:
        try:
            step = step_of(connection)
        except sqlite3.Error as error:
            raise ArchiveDamaged(f"{source}: {archive.DATABASE} cannot be read ({error}). Nothing was restored.") from error
    if step is None or step != manifest["step"]:
        raise ArchiveDamaged(f"{source}: {archive.DATABASE} is not the hub's database its manifest describes. Nothing was restored.")
    if step > migrate.HEAD:
        raise migrate.DatabaseTooNew(
            f"{source} was written by hub {manifest['hub']} and stands at step {step}; this hub knows steps up to {migrate.HEAD}. Nothing "
            "was restored: install that version."
        )
    return step


def _put_secret(path: Path, held: bytes | None) -> None:
    if held is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(held)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_directory(path.parent)


def _put_files(source: Path, root: Path, progress: Progress) -> int:
    """Give every file of a checked archive its place in the store; how many. One that is there and whole is left alone."""
    names: list[tuple[Path, Path]] = []
    blobs = Blobs(root)
    stored = 0

    def sink(name: str) -> IO[bytes] | None:
        nonlocal stored
        if not name.startswith("files/"):
            return None
        stored += 1
        path = blobs.path(name.rpartition("/")[2])
        if path.exists() and _whole(path):
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(".partial-" + path.name)
        names.append((partial, path))
        progress("restored", "files", len(names))
        return partial.open("wb")

    try:
        archive.read(source, sink)
        for partial, path in names:
            partial.replace(path)
    except BaseException:
        for partial, _ in names:
            partial.unlink(missing_ok=True)
        raise
    for directory in {path.parent for _, path in names}:
        sync_directory(directory)
    if names:
        sync_directory(root)
        sync_directory(root.parent)
    return stored


def _whole(path: Path) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == path.name
