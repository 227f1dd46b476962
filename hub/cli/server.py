"""Starting the server, and checking what it would start with."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hub.cli.shared import config_option, fail, settings_from

if TYPE_CHECKING:
    from hub.config import Settings

# Channel type -> how long we may be away; what the vendors' own pages say is linked in docs/install.md.
AWAY = {
    "twilio_sms": "7 days: Twilio gives a webhook up after 15 s; the hub lists what came meanwhile (longer: hub channels recover)",
    "twilio_whatsapp": "7 days: Twilio gives a webhook up after 15 s; the hub lists what came meanwhile (longer: hub channels recover)",
    "sendgrid": "72 hours, while something answers 5xx: SendGrid drops a mail on 3xx, 4xx and a name that does not resolve",
    "whatsapp_cloud": "up to 7 days: Meta tries again for so long",
    "telnyx_sms": "7 days: Telnyx tries two addresses three times each; the hub lists what came meanwhile (longer: hub channels recover)",
    "mailgun": "about 8 hours, while anything but 200 or 406 is answered",
    "mailersend": "not stated for mails: MailerSend tries a failed webhook twice more",
    "postmark": "about 10 hours: Postmark tries ten times; a 403 would stop it",
    "resend": "about a day: Resend's webhooks (Svix) try again for so long",
    "brevo": "about 11 hours, while nothing answers or 429 does: Brevo drops a webhook on any other 4xx and on any 5xx",
    "mandrill": "not stated: Mandrill tries a failed batch again until it is stopped there",
    "amazon_ses": "1 minute (3 retries) unless the SNS subscription's delivery policy says more (an hour at most); add a dead-letter queue",
    "imap": "as long as the mailbox keeps the mails: everything since is read",
    "smtp_listener": "about 4 to 5 days: sending servers keep what they could not hand over",
    "mime": "as long as your mail server keeps in its queue what it could not post",
    "webchat": "no time: visitors need the hub to write at all, and see that it is away",
}


@click.command()
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


@click.command()
@click.argument("target", type=click.Path(path_type=Path), default=Path("config.yaml"))
def init(target: Path) -> None:
    """Write the shipped config.yaml, to begin from."""
    if target.exists():
        fail(f"{target} is there already. Nothing was written.")
    package = Path(__file__).resolve().parents[1]
    shipped = package / "config.default.yaml"
    target.write_bytes((shipped if shipped.exists() else package.parent / "config.yaml").read_bytes())
    click.echo(f"Wrote {target}. Next: hub serve, or hub check after you changed it.")


@click.command()
@config_option
def check(config: Path) -> None:
    """Check the configuration and print the webhook URLs to paste at each provider; exit 1 names what to mend."""
    settings = settings_from(config)
    from hub import keys
    from hub.app import configure, keyless, webhook_urls
    from hub.config import ConfigError
    from hub.contract import Advises, Checks
    from hub.storage import migrate, sqlite_library

    try:
        # Checking writes nothing: a secret made here, perhaps as root, could keep the service itself from starting.
        there = settings.storage.secret_file.exists()
        built = configure(settings, keys.load_secret(settings.storage.secret_file) if there else bytes(keys.SECRET_BYTES))
    except (ConfigError, keys.BadSecret, OSError) as error:
        fail(str(error))
    counted = (("channels", built.channels), ("rooms", built.rooms), ("destinations", built.destinations), ("marketing tools", built.tools))
    click.echo(f"Configuration   ok: {', '.join(f'{len(those)} {name}' for name, those in counted)}")
    try:
        database, standing = standing_of(settings)
    except migrate.DatabaseUnreadable as error:
        fail(str(error))
    click.echo(f"Database        {database}: {standing or 'not there yet; made at first start'} (this hub: {migrate.HEAD})")
    on_sqlite = settings.database_url is None
    if on_sqlite:
        click.echo(f"SQLite          {sqlite_library.VERSION}")
    if settings.sandbox.enabled:
        click.echo("Sandbox         on: the providers are stand-ins on this machine; nobody real is reached")
    click.echo("\nPaste at your providers:")
    advised = {place.inbound_url: channel for _, channel, place in built.channels.values() if isinstance(channel, Advises)}
    for where, url in webhook_urls(settings, built):
        for field, value in advised[url].to_paste() if url in advised else (("", url),):
            click.echo(f"  {f'{where}: {field}' if field else where:<44} {value}")
    checking = [(name, channel) for name, (_, channel, _) in built.channels.items() if isinstance(channel, Checks)]
    if checking:
        asked = ", ".join(settings.identity.nameservers) or "this system's name servers"
        click.echo(f"\nSenders checked by us, with the DKIM signature of their own mail ({asked} are asked for the keys):")
        for name, channel in checking:
            click.echo(f"  {name:<16} {channel.what_is_checked()}")
    if standing == migrate.HEAD:
        for address, many in asyncio.run(many_named(settings)):
            click.echo(
                f"\nNote: {address} wrote with {many} different Reply-To addresses. If it is a contact form or a list of yours, name it in "
                "form_senders or trusted_forwarders of its mail channel: then each of them is a customer of their own."
            )
    click.echo("\nAway (stopped, unreachable, its disk full), the hub loses nothing that customers write for:")
    for name, entry in settings.channels.items():
        click.echo(f"  {name:<16} {AWAY[entry['type']]}")
    faults = [
        f"channels.{name}: has no key to verify deliveries with, so it takes none. Set its password, token or verification key."
        for name in keyless(built)
    ]
    faults += [
        f"storage.{name}: {place} cannot be written by this user. Give its directory to the user the hub runs as, or name another place."
        for name, place in settings.storage.paths()
        if not (name == "database" and not on_sqlite) and not writable(place)
    ]
    if on_sqlite and not sqlite_library.SOUND:
        faults.append(f"SQLite {sqlite_library.VERSION} can corrupt a database: install the pysqlite3 package, or SQLite 3.51.3 or newer.")
    if standing is not None and standing > migrate.HEAD:
        faults.append(f"{database} was written by a newer hub. Install that version.")
    if not settings.sandbox.enabled and not settings.server.public_url.startswith("https://"):
        faults.append(
            f"server.public_url: {settings.server.public_url} is not https. Providers refuse plain http, and sign-in cookies need it."
        )
    if faults:
        fail("\n".join(faults))


def standing_of(settings: Settings) -> tuple[str, str | None]:
    """The database as people know it, and the step it stands at (None: empty, or not there). Raises DatabaseUnreadable."""
    from hub.storage import migrate

    if settings.database_url is None:
        path = settings.storage.database
        return str(path), migrate.current(path) if path.exists() else None
    from hub.storage import postgres

    url = settings.database_url.get_secret_value()
    return postgres.shown(url), asyncio.run(postgres.current(url))


async def many_named(settings: Settings) -> list[tuple[str, int]]:
    """Senders of mail who showed more than ten Reply-To addresses, and how many: likely a contact form that nobody told the hub of."""
    from hub.customers.profile import many_reply_to
    from hub.storage.reader import postgres_reader, sqlite_reader

    url = settings.database_url
    reader = postgres_reader(url.get_secret_value()) if url is not None else sqlite_reader(settings.storage.database)
    try:
        return [(row.address, row.many) for row in await reader.all(many_reply_to())]
    finally:
        await reader.close()


def writable(path: Path) -> bool:
    """Whether this user may write `path`, or make it."""
    while not path.exists():
        path = path.absolute().parent
    return os.access(path, os.W_OK)


COMMANDS = (
    serve,
    init,
    check,
)
