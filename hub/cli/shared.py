"""What every command needs: the configuration, a way to fail that says what to mend, and the hub without its server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from hub.config import Settings
    from hub.web.context import Hub

config_option = click.option(
    "--config", "config", type=click.Path(path_type=Path), default=Path("config.yaml"), show_default=True, help="The configuration file."
)


def fail(text: str) -> NoReturn:
    """Say what to mend, and exit 1."""
    for line in text.splitlines():
        click.echo(f"hub: {line}", err=True)
    sys.exit(1)


def settings_from(path: Path) -> Settings:
    from hub.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        fail(str(error))


def with_reader(config: Path, work: Any) -> Any:
    """Run `work(reader)`, which only reads, whether a hub serves this database or not."""
    settings = settings_from(config)
    if settings.database_url is not None:

        async def at_hub(hub: Hub) -> Any:
            return await work(hub.reader)

        return with_hub(config, at_hub)
    path = settings.storage.database
    if not path.exists():
        fail(f"{path}: there is no database yet.")
    from sqlalchemy.exc import DBAPIError

    from hub.storage.reader import sqlite_reader
    from hub.storage.writer import StorageBusy

    async def run() -> Any:
        reader = sqlite_reader(path)
        try:
            return await work(reader)
        finally:
            await reader.close()

    try:
        return asyncio.run(run())
    except DBAPIError as error:
        fail(f"{path} cannot be read ({error.orig}). Run hub migrate, or see which version wrote it.")
    except StorageBusy:
        fail(f"{path} cannot be read. Run hub migrate, or see which version wrote it.")


def with_hub(
    config: Path, work: Any, *, running: str = "The hub is running: do this in its web pages (Settings), or stop it first."
) -> Any:
    """Run `work(hub)` on the database of a hub that is not serving; `running` is what to say where one is."""
    settings = settings_from(config)
    from hub.config import ConfigError
    from hub.keys import BadSecret
    from hub.policy import Refusal
    from hub.serving import offline
    from hub.storage.migrate import DatabaseInUse, DatabaseTooNew, DatabaseUnreadable
    from hub.storage.writer import StorageBusy

    async def run() -> Any:
        async with offline(settings) as hub:
            return await work(hub)

    try:
        return asyncio.run(run())
    except DatabaseInUse:
        fail(running)
    except (ConfigError, BadSecret, DatabaseTooNew, DatabaseUnreadable, Refusal, StorageBusy) as error:
        fail(str(error))
