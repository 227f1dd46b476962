"""The database: its schema, its copies."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hub import __version__
from hub.cli.shared import config_option, fail, settings_from

if TYPE_CHECKING:
    from hub.storage.copying import Copied, Progress

T = TypeVar("T")


@click.command()
@config_option
def migrate(config: Path) -> None:
    """Bring the database to this version's schema (the server does so by itself at start)."""
    settings = settings_from(config)
    from hub.storage import migrate as steps

    path = settings.storage.database
    if settings.database_url:
        from hub.storage import postgres

        url = settings.database_url.get_secret_value()
        where, changed = postgres.shown(url), _run(lambda: postgres.migrate(url))
    else:
        where = str(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with steps.lock(path):
                changed = steps.migrate(path)
        except (steps.DatabaseInUse, steps.DatabaseTooNew, steps.DatabaseUnreadable) as error:
            fail(str(error))
    click.echo(f"{where} {'brought' if changed else 'was already'} at step {steps.HEAD}.")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--without-secret", is_flag=True, help="Leave out the secret file; keep a copy of it elsewhere.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@config_option
def backup(file: Path, without_secret: bool, force: bool, config: Path) -> None:
    """Write everything the hub holds into one archive, while it runs: database, attachments, and the secret.

    A FILE that ends in .gz is compressed. Exit 1 if a stored file was missing or damaged: the rest is kept.
    """
    settings = settings_from(config)
    from hub.storage.backup import back_up

    url = settings.database_url.get_secret_value() if settings.database_url else None
    secret = settings.storage.secret_file
    if not without_secret and not secret.exists():
        fail(f"storage.secret_file: {secret} is not there. Nothing was written: correct the path, or add --without-secret.")
    with _progress() as progress:
        done = _run(
            lambda: back_up(
                file,
                database=None if url else settings.storage.database,
                snapshot=_snapshot(url) if url else None,
                files=settings.storage.files,
                secret=None if without_secret else secret,
                version=__version__,
                replace=force,
                progress=progress,
            )
        )
    click.echo(f"{file}: {done.rows:,} rows and {done.files:,} files in {done.size:,} bytes.")
    if without_secret:
        click.echo("The secret is not in it: without a copy of it, reply addresses and links already sent are lost with this machine.")
    else:
        click.echo("The secret that signs the hub's links is in it: keep it as safe as a password.")
    if done.faults:
        fail("\n".join([*done.faults, f"{len(done.faults)} files could not be backed up; everything else was."]))


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--send-queued", is_flag=True, help="The old hub never ran again after this backup: send what was still queued in it.")
@config_option
def restore(file: Path, send_queued: bool, config: Path) -> None:
    """Bring a backup back, into the empty place that config.yaml names. The hub must be stopped."""
    settings = settings_from(config)
    from hub.delivery.owed import TOLD_ALL
    from hub.storage.backup import restore as bring_back

    url = settings.database_url.get_secret_value() if settings.database_url else None
    with _progress() as progress:
        done = _run(
            lambda: bring_back(
                file,
                database=None if url else settings.storage.database,
                target=_unserved(url, writing=True) if url else None,
                files=settings.storage.files,
                secret=settings.storage.secret_file,
                forget=(TOLD_ALL,),
                send_queued=send_queued,
                progress=progress,
            )
        )
    if done.copied is not None:
        _say_copied(done.copied)
    taken = datetime.datetime.fromtimestamp(done.manifest["taken_at"] / 1_000_000, datetime.UTC)
    rows = sum(table["rows"] for table in done.manifest["tables"].values())
    click.echo(f"Restored {rows:,} rows and {done.files:,} files as of {taken:%Y-%m-%d %H:%M:%S} UTC (hub {done.manifest['hub']}).")
    for fault in done.manifest["files_missing"]:
        click.echo(f"  not in the backup: {fault}")
    if not done.with_secret:
        click.echo(f"  the backup has no secret: put its copy at {settings.storage.secret_file} before the first start")
    if done.in_doubt:
        click.echo(
            f"  {done.in_doubt} sends were under way or queued; the old hub may have made them since. They will be shown as unknown."
        )
    click.echo(
        "Next: `hub check`, then `hub serve`. At its start the hub fetches what Twilio took in meanwhile, and tells every destination how\n"
        "holds stand. Everybody signs in again. Accounts, passwords and tokens are the backup's: revoke again what was revoked since."
    )


@click.command("copy-database")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
def copy_database(source: str, target: str) -> None:
    """Copy all rows FROM one database TO an empty one, and compare every row.

    Each is the path of a SQLite file or a postgresql:// URL; no hub may serve either. The stored files stay where they are. An interrupted
    copy leaves nothing.
    """
    from hub.storage.copy_sqlite import new_file, unserved_file
    from hub.storage.copying import copy

    async def run(progress: Progress) -> Copied:
        reading: Any = _unserved(source, writing=False) if _is_url(source) else unserved_file(Path(source))
        writing: Any = _unserved(target, writing=True) if _is_url(target) else new_file(Path(target))
        async with reading as left, writing as right:
            return await copy(left, right, progress)

    with _progress() as progress:
        copied = _run(lambda: run(progress))
    _say_copied(copied)
    where = f"database_url: {_shown(target)}" if _is_url(target) else f"storage.database: {target}"
    click.echo(f"Next: set `{where}` in config.yaml (without database_url the hub uses SQLite), then `hub check` and `hub serve`.")


def _is_url(place: str) -> bool:
    return place.startswith(("postgresql://", "postgres://"))


def _shown(url: str) -> str:
    from hub.storage.postgres import shown

    return shown(url)


def _snapshot(url: str) -> Any:
    from hub.storage.copy_postgres import snapshot

    return snapshot(url)


def _unserved(url: str, *, writing: bool) -> Any:
    from hub.storage.copy_postgres import unserved

    return unserved(url, writing=writing)


def _say_copied(copied: Copied) -> None:
    for table, tally in copied.tables.items():
        click.echo(f"  {table:<15} {tally.rows:>11,} rows  {tally.digest[:16]}")
    click.echo(f"{copied.rows:,} rows copied, and each one read back and found equal.")
    for table, count in copied.mended.items():
        click.echo(
            f"hub: {table}: {count:,} values held the character U+0000, which PostgreSQL's text cannot; U+FFFD stands in its place.",
            err=True,
        )


def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    from hub.storage.archive import ArchiveDamaged, ArchiveExists
    from hub.storage.copying import CopyRefused
    from hub.storage.migrate import DatabaseInUse, DatabaseTooNew, DatabaseUnreadable
    from hub.storage.postgres import LOST

    try:
        return asyncio.run(work())
    except (ArchiveDamaged, ArchiveExists, CopyRefused, DatabaseInUse, DatabaseTooNew, DatabaseUnreadable) as error:
        fail(str(error))
    except LOST as error:
        fail(f"{type(error).__name__}: {error}. What was not finished was not kept: mend that, and run this again.")


@contextlib.contextmanager
def _progress() -> Any:
    """A line that says how far it is, where a person watches."""
    if not sys.stderr.isatty():
        yield lambda step, table, rows: None
        return
    try:
        yield lambda step, table, rows: click.echo(f"\r\x1b[K{table}: {rows:,} {step}", err=True, nl=False)
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)


COMMANDS = (migrate, backup, restore, copy_database)
