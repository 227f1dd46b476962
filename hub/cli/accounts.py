"""Who may sign in, and the tokens of marketing tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hub.cli.shared import config_option, with_hub

if TYPE_CHECKING:
    from hub.web.context import Hub


@click.group("agents")
def agents_group() -> None:
    """Who may sign in."""


@agents_group.command("add")
@click.argument("email")
@click.option("--name", default="", help="The name customers and colleagues see.")
@click.option("--role", type=click.Choice(["admin", "agent"]), default="agent", show_default=True)
@click.password_option(help="At least 12 characters; asked for when not given.")
@config_option
def agents_add(email: str, name: str, role: str, password: str, config: Path) -> None:
    """Add an agent."""

    async def work(hub: Hub) -> int:
        from hub import agents
        from hub.passwords import Passwords, check_password

        hashed = await Passwords().hash(check_password(password, email))
        return await hub.writer.run(agents.CreateAgent(email, name or email.partition("@")[0], role, hashed))

    click.echo(f"Agent {with_hub(config, work)}: {email} ({role}).")


@agents_group.command("list")
@config_option
def agents_list(config: Path) -> None:
    """List the agents."""

    async def work(hub: Hub) -> Any:
        from hub import agents

        return await agents.list_agents(hub.reader)

    for row in with_hub(config, work):
        click.echo(f"{row.id:>4}  {row.email:<40} {row.role:<6} {row.name}{'  (disabled)' if row.disabled_at else ''}")


@click.group("tokens")
def tokens_group() -> None:
    """API tokens for marketing tools."""


@tokens_group.command("add")
@click.argument("name")
@config_option
def tokens_add(name: str, config: Path) -> None:
    """Make an API token and print it, this once."""
    from hub import keys

    async def work(hub: Hub) -> str:
        from hub import agents

        token = "hub_" + agents.new_token()
        await hub.writer.run(agents.CreateApiToken(name, keys.digest(token)))
        return token

    click.echo(with_hub(config, work))


COMMANDS = (
    agents_group,
    tokens_group,
)
