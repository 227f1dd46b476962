"""What is owed to the outside world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hub.cli.shared import config_option, with_hub

if TYPE_CHECKING:
    from hub.web.context import Hub


@click.group("deliveries")
def deliveries_group() -> None:
    """What is owed to the outside world."""


@deliveries_group.command("list")
@config_option
def deliveries_list(config: Path) -> None:
    """List what is queued, failed or of unknown fate."""

    async def work(hub: Hub) -> Any:
        from sqlalchemy import select

        from hub.storage.tables import metadata

        table = metadata.tables["delivery"].c
        wanted = table.state.in_(["queued", "sending", "failed", "unknown"])
        return await hub.reader.all(
            select(table.id, table.kind, table.target, table.state, table.attempt, table.error).where(wanted).order_by(table.id)
        )

    for row in with_hub(config, work):
        click.echo(f"{row.id:>6}  {row.kind:<6} {row.target:<16} {row.state:<8} tried {row.attempt}  {row.error}")


@deliveries_group.command("retry")
@click.argument("number", type=int)
@config_option
def deliveries_retry(number: int, config: Path) -> None:
    """Queue a failed or unknown delivery again."""

    async def work(hub: Hub) -> None:
        from hub.delivery.works import Retry

        await hub.writer.run(Retry(number))

    with_hub(config, work)
    click.echo(f"Delivery {number} is queued; it leaves when the hub runs.")


COMMANDS = (deliveries_group,)
