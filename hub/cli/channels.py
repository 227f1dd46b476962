"""The ways in and out: how they stand, and what they missed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hub.cli.shared import config_option, fail, settings_from, with_hub

if TYPE_CHECKING:
    from hub.config import Settings
    from hub.web.context import Hub


@click.group("channels")
def channels_group() -> None:
    """The ways in and out."""


@channels_group.command("list")
@config_option
def channels_list(config: Path) -> None:
    """List the configured channels: type, address, when a delivery last proved the key, up to when missed messages were looked for."""
    settings = settings_from(config)
    from sqlalchemy.exc import SQLAlchemyError

    try:
        verified, looked = asyncio.run(_standing(settings))
    except SQLAlchemyError as error:
        fail(f"The database cannot be read ({type(error.__cause__ or error).__name__}). `hub check` says how it stands.")
    for name, entry in settings.channels.items():
        at = verified.get(name)
        proved = _time(at / 1_000_000) if at else "no delivery yet"
        recovery = _time(looked[name]) if name in looked else "-"
        address = str(entry.get("address") or "")
        click.echo(f"{name:<16} {entry['type']:<16} {address:<28} verified {proved:<17} looked for missed ones {recovery}")


async def _standing(settings: Settings) -> tuple[dict[str, int | None], dict[str, int]]:
    """By channel: when a delivery first verified under its present key (microseconds), up to when its list was read (unix seconds).

    Read-only, so that it may be asked while the hub runs."""
    from sqlalchemy import select

    from hub.conversations.recovery import watermark_key
    from hub.storage.reader import postgres_reader, sqlite_reader
    from hub.storage.tables import metadata

    url = settings.database_url
    if url is None and not settings.storage.database.exists():
        return {}, {}
    reader = postgres_reader(url.get_secret_value()) if url is not None else sqlite_reader(settings.storage.database)
    try:
        channel, setting = metadata.tables["channel"].c, metadata.tables["setting"].c
        verified = {row.name: row.verified_at for row in await reader.all(select(channel.name, channel.verified_at))}
        keys = {watermark_key(name): name for name in settings.channels}
        rows = await reader.all(select(setting.key, setting.value).where(setting.key.in_(list(keys))))
        return verified, {keys[row.key]: int(row.value) for row in rows}
    finally:
        await reader.close()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ")


@channels_group.command("recover")
@click.argument("name")
@click.option("--since", required=True, help="From when on, such as 2026-11-20 or 2026-11-20T08:00+01:00 (without a zone: UTC).")
@config_option
def channels_recover(name: str, since: str, config: Path) -> None:
    """Take in what a channel's provider received since a time and no webhook brought. What is known is not doubled."""
    try:
        given = datetime.fromisoformat(since)
    except ValueError:
        fail(f"--since: {since!r} is no date. Write it like 2026-11-20 or 2026-11-20T08:00+01:00.")
    begin = int((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp())

    async def work(hub: Hub) -> Any:
        from hub.contract import Refused, TryLater
        from hub.conversations.recovery import Recovery
        from hub.delivery.tokens import reply_token_names
        from hub.http import GuardedHttp

        now = hub.writer.clock() // 1_000_000
        if begin >= now:
            fail(f"--since: {since} has not been yet.")
        sandbox = [f"{host}:{hub.settings.sandbox.port}" for host in ("127.0.0.1", "localhost")] if hub.settings.sandbox.enabled else []
        http = GuardedHttp([*hub.settings.allowed_hosts, *sandbox])
        recovery = Recovery(hub.channels, hub.reader, hub.writer, hub.blobs, http, lambda token: reply_token_names(hub.secret, token))
        try:
            return await recovery.recover(name, begin, now)
        except (Refused, TryLater, OSError) as error:
            fail(f"{error} Nothing is lost by trying again.")
        finally:
            await http.close()

    found = with_hub(config, work)
    if found is None:
        fail(f"Another process is looking for what {name} missed at this moment. Try again in a few minutes.")
    click.echo(f"{name}: {found.listed} messages listed since {_time(begin)}, {found.stored} of them new.")


BEGIN, END = "<!-- abilities: begin, written by `hub channels abilities --into FILE` -->", "<!-- abilities: end -->"


@channels_group.command("abilities")
@click.option("--markdown", is_flag=True, help="As the table docs/channels.md has.")
@click.option(
    "--into", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Write that table into a file, between its markers."
)
def channels_abilities(markdown: bool, into: Path | None) -> None:
    """Which type of channel can do what, and why not, as the code itself says."""
    from hub.app import channel_types

    can: dict[str, Mapping[str, str]] = {type_: cls.can for type_, cls in channel_types().items()}  # type: ignore[attr-defined]
    if into is None:
        click.echo(abilities_markdown(can) if markdown else abilities_text(can))
        return
    text = into.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or END not in text.partition(BEGIN)[2]:
        fail(f"{into}: has no place for the table. Put these two lines where it belongs:\n{BEGIN}\n{END}")
    before, _, rest = text.partition(BEGIN)
    into.write_text(f"{before}{BEGIN}\n{abilities_markdown(can)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def abilities_markdown(can: Mapping[str, Mapping[str, str]]) -> str:
    """A row for each ability, a column for each type; why not stands in numbered notes below, each reason once. Pure."""
    from hub.abilities import ABILITIES

    notes: dict[str, int] = {}
    lines = [f"| | {' | '.join(f'`{type_}`' for type_ in can)} |", "|---|" + ":---:|" * len(can)]
    for ability, words in ABILITIES.items():
        cells = [f"no [{notes.setdefault(why, len(notes) + 1)}]" if (why := of[ability]) else "yes" for of in can.values()]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{number}. {_sentence(why)}" for why, number in notes.items())])


def abilities_text(can: Mapping[str, Mapping[str, str]]) -> str:
    """The same for a terminal: under each ability who has it, and for each reason who has it not. Pure."""
    from hub.abilities import ABILITIES

    lines = []
    for ability, words in ABILITIES.items():
        lines.append(words)
        by_reason: dict[str, list[str]] = {}
        for type_, of in can.items():
            by_reason.setdefault(of[ability], []).append(type_)
        for why, types in sorted(by_reason.items()):
            lines.append(f"  {'no ' if why else 'yes'}  {', '.join(types)}{f': {why}' if why else ''}")
    return "\n".join(lines)


def _sentence(why: str) -> str:
    return f"{re.sub(r'[|<>]', '', why[:1].upper() + why[1:])}."


COMMANDS = (channels_group,)
