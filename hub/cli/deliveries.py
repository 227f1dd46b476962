"""What is owed to the outside world: listed, shown, tried again, given up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hub.cli.shared import config_option, fail, with_hub, with_reader

if TYPE_CHECKING:
    from hub.web.context import Hub

PAGE = 500

target_option = click.option("--target", default="", help="Only to this channel, room or destination, by its name in config.yaml.")
kind_option = click.option(
    "--kind",
    type=click.Choice(["reply", "card", "hold", "mark", "alert", "media", "code", "check", "unseen"]),
    default=None,
    help="Only of this kind.",
)


@click.group("deliveries")
def deliveries_group() -> None:
    """What is owed to the outside world."""


@deliveries_group.command("list")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(["queued", "sending", "failed", "unknown", "done", "discarded"]),
    help="Only in this state; may be given several times. [default: all that is not over]",
)
@target_option
@kind_option
@click.option("--limit", type=click.IntRange(1, 100_000), default=PAGE, show_default=True, help="At most so many, the newest.")
@config_option
def deliveries_list(states: tuple[str, ...], target: str, kind: str | None, limit: int, config: Path) -> None:
    """List what is queued, under way, failed or of unknown fate. Works while the hub runs."""
    from hub.delivery.listing import TROUBLED, WAITING, listed

    statement = listed(states or (*WAITING, *TROUBLED), kind=kind or "", target=target, limit=limit)

    async def work(reader: Any) -> Any:
        return await reader.all(statement)

    for row in reversed(with_reader(config, work)):
        ticket = f"ticket {row.ticket_id}" if row.ticket_id is not None else ""
        click.echo(f"{row.id:>6}  {row.kind:<6} {row.target:<16} {row.state:<9} tried {row.attempt:<3} {ticket:<12} {row.error}".rstrip())


@deliveries_group.command("show")
@click.argument("number", type=int)
@config_option
def deliveries_show(number: int, config: Path) -> None:
    """Show all that is noted of one delivery. Works while the hub runs."""
    from hub.conversations.wording import customer_name
    from hub.delivery.listing import KINDS, STATES, listed

    statement = listed(STATES, before=number + 1, limit=1)

    async def work(reader: Any) -> Any:
        return await reader.first(statement)

    row = with_reader(config, work)
    if row is None or row.id != number:
        fail(f"There is no delivery {number}.")
    click.echo(f"delivery  {row.id}: {KINDS.get(row.kind, row.kind)} to {row.target}")
    click.echo(f"state     {row.state}, after {row.attempt} {'try' if row.attempt == 1 else 'tries'}")
    for name, at in (("created", row.created_at), ("due", row.due_at if row.state == "queued" else None), ("ended", row.done_at)):
        if at is not None:
            click.echo(f"{name:<9} {_moment(at)}")
    if row.ticket_id is not None:
        click.echo(f"ticket    {row.ticket_id}, of {customer_name(row.customer, row.address_kind, row.address)}")
    elif row.customer_id is not None:
        click.echo(f"customer  {row.customer_id}, {customer_name(row.customer, row.address_kind, row.address)}")
    if row.error:
        click.echo(f"error     {row.error}")


def _moment(at: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@deliveries_group.command("retry")
@click.argument("numbers", type=int, nargs=-1)
@click.option("--failed", is_flag=True, help="Every one that failed (not those of unknown fate: they may have arrived).")
@target_option
@kind_option
@config_option
def deliveries_retry(numbers: tuple[int, ...], failed: bool, target: str, kind: str | None, config: Path) -> None:
    """Queue failed deliveries again, by NUMBER or all with --failed; one of unknown fate only by its number."""
    if bool(numbers) == failed:
        fail("Say which: their numbers, or --failed for every one that failed.")
    if (target or kind) and not failed:
        fail("--target and --kind go with --failed.")

    async def work(hub: Hub) -> tuple[int, ...]:
        from hub.delivery.listing import listed
        from hub.delivery.works import Retry

        retried: list[int] = []
        wanted = list(numbers)
        before: int | None = None
        while True:
            if failed:
                rows = await hub.reader.all(listed(("failed",), kind=kind or "", target=target, before=before, limit=PAGE))
                wanted = [row.id for row in rows]
                before = wanted[-1] if wanted else None
            for number in wanted:
                await hub.writer.run(Retry(number, only_failed=failed))
            retried += wanted
            if not failed or not wanted:
                return tuple(retried)

    retried = with_hub(config, work)
    which = f"Delivery {retried[0]} is" if len(retried) == 1 else f"{len(retried)} deliveries are"
    click.echo(f"{which} queued; what is queued leaves when the hub runs." if retried else "Nothing failed; nothing was changed.")


@deliveries_group.command("discard")
@click.argument("number", type=int)
@click.option("--reason", required=True, help="Why it is given up; kept with it.")
@config_option
def deliveries_discard(number: int, reason: str, config: Path) -> None:
    """Give up for good what failed, is of unknown fate or still waits."""

    async def work(hub: Hub) -> None:
        from hub.delivery.works import Discard

        await hub.writer.run(Discard(number, reason))

    with_hub(config, work)
    click.echo(f"Delivery {number} is discarded.")


COMMANDS = (deliveries_group,)
