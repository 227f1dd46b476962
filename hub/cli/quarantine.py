"""Requests that could not be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hub.cli.shared import config_option, with_hub

if TYPE_CHECKING:
    from hub.web.context import Hub


@click.group("quarantine")
def quarantine_group() -> None:
    """Requests that could not be used."""


@quarantine_group.command("list")
@config_option
def quarantine_list(config: Path) -> None:
    """List what waits in quarantine."""

    async def work(hub: Hub) -> Any:
        from sqlalchemy import select

        from hub.storage.tables import metadata

        table = metadata.tables["quarantine"].c
        return await hub.reader.all(
            select(table.id, table.kind, table.url, table.reason).where(table.state == "waiting").order_by(table.id)
        )

    for row in with_hub(config, work):
        click.echo(f"{row.id:>6}  {row.kind:<12} {row.url}\n        {row.reason}")


@quarantine_group.command("replay")
@click.argument("number", type=int)
@config_option
def quarantine_replay(number: int, config: Path) -> None:
    """Try one again, after its cause is mended."""

    async def work(hub: Hub) -> str:
        from hub.web.webhooks import replay

        return await replay(hub, number)

    click.echo(with_hub(config, work))


COMMANDS = (quarantine_group,)
