"""The `hub` command. Subcommands import what they need themselves: `hub --help` loads no database library."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from hub import __version__

if TYPE_CHECKING:
    from hub.config import Settings
    from hub.contract import Channel, Inbound
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


@click.group()
@click.version_option(__version__, prog_name="hub")
def main() -> None:
    """One person, one conversation: a support hub for WhatsApp, SMS, web chat and e-mail."""
    # What the hub writes holds every customer's messages: it is for the account it runs under alone.
    os.umask(0o077)


@main.command()
@config_option
def serve(config: Path) -> None:
    """Run the server and its workers until stopped."""
    settings = settings_from(config)
    from hub.config import ConfigError
    from hub.serving import serve as run
    from hub.storage.migrate import DatabaseInUse, DatabaseTooNew

    try:
        asyncio.run(run(settings))
    except (ConfigError, DatabaseInUse, DatabaseTooNew, OSError, RuntimeError, ValueError) as error:
        fail(str(error))


@main.command()
@click.argument("target", type=click.Path(path_type=Path), default=Path("config.yaml"))
def init(target: Path) -> None:
    """Write the shipped config.yaml, to begin from."""
    if target.exists():
        fail(f"{target} is there already. Nothing was written.")
    package = Path(__file__).resolve().parent
    shipped = package / "config.default.yaml"
    target.write_bytes((shipped if shipped.exists() else package.parent / "config.yaml").read_bytes())
    click.echo(f"Wrote {target}. Next: hub serve, or hub check after you changed it.")


@main.command()
@config_option
def check(config: Path) -> None:
    """Check the configuration and print the webhook URLs to paste at each provider; exit 1 names what to mend."""
    settings = settings_from(config)
    from hub import keys
    from hub.app import configure, keyless, webhook_urls
    from hub.config import ConfigError
    from hub.storage import migrate, sqlite_library

    try:
        # Checking writes nothing: a secret made here, perhaps as root, could keep the service itself from starting.
        there = settings.storage.secret_file.exists()
        built = configure(settings, keys.load_secret(settings.storage.secret_file) if there else bytes(keys.SECRET_BYTES))
    except (ConfigError, keys.BadSecret, OSError) as error:
        fail(str(error))
    click.echo(f"Configuration   ok: {len(built.channels)} channels, {len(built.rooms)} rooms, {len(built.destinations)} destinations")
    database = settings.storage.database
    try:
        standing = migrate.current(database) if database.exists() else None
    except migrate.DatabaseUnreadable as error:
        fail(str(error))
    click.echo(f"Database        {database}: {standing or 'not there yet; made at first start'} (this hub: {migrate.HEAD})")
    click.echo(f"SQLite          {sqlite_library.VERSION}")
    if settings.sandbox.enabled:
        click.echo("Sandbox         on: the providers are stand-ins on this machine; nobody real is reached")
    click.echo("\nPaste at your providers:")
    for where, url in webhook_urls(settings, built):
        click.echo(f"  {where:<44} {url}")
    faults = [
        f"channels.{name}: has no key to verify deliveries with, so it takes none. Set its password, token or verification key."
        for name in keyless(built)
    ]
    faults += [
        f"storage.{name}: {place} cannot be written by this user. Give its directory to the user the hub runs as, or name another place."
        for name, place in (("database", database), ("files", settings.storage.files), ("secret_file", settings.storage.secret_file))
        if not writable(place)
    ]
    if not sqlite_library.SOUND:
        faults.append(f"SQLite {sqlite_library.VERSION} can corrupt a database: install the pysqlite3 package, or SQLite 3.51.3 or newer.")
    if standing is not None and standing > migrate.HEAD:
        faults.append(f"{database} was written by a newer hub. Install that version.")
    if not settings.sandbox.enabled and not settings.server.public_url.startswith("https://"):
        faults.append(
            f"server.public_url: {settings.server.public_url} is not https. Providers refuse plain http, and sign-in cookies need it."
        )
    if faults:
        fail("\n".join(faults))


def writable(path: Path) -> bool:
    """Whether this user may write `path`, or make it."""
    while not path.exists():
        path = path.absolute().parent
    return os.access(path, os.W_OK)


@main.command()
@config_option
def migrate(config: Path) -> None:
    """Bring the database to this version's schema (the server does so by itself at start)."""
    settings = settings_from(config)
    from hub.storage import migrate as steps

    path = settings.storage.database
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with steps.lock(path):
            changed = steps.migrate(path)
    except (steps.DatabaseInUse, steps.DatabaseTooNew, steps.DatabaseUnreadable) as error:
        fail(str(error))
    click.echo(f"{path} {'brought' if changed else 'was already'} at step {steps.HEAD}.")


# --- what the commands below share ---


def with_hub(config: Path, work: Any) -> Any:
    """Run `work(hub)` on the database of a hub that is not serving."""
    settings = settings_from(config)
    from hub.config import ConfigError
    from hub.conversations import Refusal
    from hub.keys import BadSecret
    from hub.serving import offline
    from hub.storage.migrate import DatabaseInUse, DatabaseTooNew, DatabaseUnreadable
    from hub.storage.writer import StorageBusy

    async def run() -> Any:
        async with offline(settings) as hub:
            return await work(hub)

    try:
        return asyncio.run(run())
    except DatabaseInUse:
        fail("The hub is running: do this in its web pages (Settings), or stop it first.")
    except (ConfigError, BadSecret, DatabaseTooNew, DatabaseUnreadable, Refusal, StorageBusy) as error:
        fail(str(error))


@main.group("agents")
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


@main.group("tokens")
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


@main.group("quarantine")
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


@main.group("deliveries")
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


# --- what a mail or webhook would become ---


def _plain(value: Any) -> Any:
    from dataclasses import fields, is_dataclass

    if is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__} | {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, bytes):
        return {"bytes": len(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def lone_channel(type_: str, settings: dict[str, Any]) -> Channel:
    from hub.app import lone_channel as build
    from hub.config import ConfigError

    try:
        return build(type_, settings)
    except ConfigError as error:
        fail(str(error))


def _parsed(parse: Any) -> list[Any]:
    from hub.contract import Unparseable

    try:
        said: list[Inbound] = list(parse())
    except Unparseable as error:
        return [{"kind": "Unparseable", "reason": str(error)}]
    return [_plain(one) for one in said]


@main.group("mail")
def mail_group() -> None:
    """Mails."""


@mail_group.command("parse")
@click.argument("file", type=click.File("rb"))
@click.option("--address", default="support@shop.example", show_default=True, help="The mailbox it was written to.")
@click.option("--authserv-id", default="", help="Our mail server's id in Authentication-Results.")
def mail_parse(file: Any, address: str, authserv_id: str) -> None:
    """Print as JSON what ingest would make of a mail."""
    from hub.contract import Request

    channel = lone_channel("email_raw", {"address": address, "authserv_id": authserv_id, "smtp": {"host": "127.0.0.1"}})
    request = Request("POST", "http://localhost/in/mail", {"content-type": "message/rfc822"}, file.read())
    click.echo(json.dumps(_parsed(lambda: channel.parse(request)), indent=2, ensure_ascii=False))


@main.group("webhook")
def webhook_group() -> None:
    """Webhooks."""


@webhook_group.command("parse")
@click.argument("type_")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--secret", "secrets", multiple=True, metavar="NAME=VALUE", help="A setting of the channel, such as auth_token=…")
@click.option("--public-url", default="http://localhost", show_default=True)
def webhook_parse(type_: str, file: Any, secrets: tuple[str, ...], public_url: str) -> None:
    """Print as JSON what ingest would make of recorded requests `{method, path, content_type, headers, body or body_base64}`."""
    import time

    from hub.contract import Request

    channel = lone_channel(type_, dict(pair.split("=", 1) for pair in secrets))
    recorded = json.load(file)
    shown = []
    for entry in recorded if isinstance(recorded, list) else [recorded]:
        one = entry.get("request", entry)
        body = base64.b64decode(one["body_base64"]) if "body_base64" in one else str(one.get("body") or "").encode()
        headers = {name.lower(): value for name, value in (one.get("headers") or {}).items()}
        if one.get("content_type"):
            headers.setdefault("content-type", one["content_type"])
        request = Request(one.get("method", "POST"), public_url.rstrip("/") + one.get("path", "/"), headers, body)
        verdict = channel.verify(request, time.time()).value
        shown.append({"verdict": verdict, "items": _parsed(lambda request=request: channel.parse(request))})
    click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
