"""A marketing tool on this machine, to try holds against without an account there."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import click

from hub.cli.shared import fail

TOOLS = ("klaviyo", "braze", "hubspot", "customerio", "iterable", "mailchimp", "segment")
# The customers of the demo, so that a hub in sandbox mode finds them here.
PEOPLE = (
    {"email": "ada@example.com", "phone": "+12025550123", "external_id": "ada-1"},
    {"email": "ben@example.com", "external_id": "ben-2"},
    {"email": "chen@example.com", "phone": "+12025550147", "external_id": "chen-3"},
)
_LOOK_SECONDS = 0.2


@click.command()
@click.argument("tool", type=click.Choice(TOOLS))
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="The port on 127.0.0.1; without it, any free one.")
@click.option(
    "--profile", "profiles", multiple=True, metavar="KIND=VALUE[,...]", help="One more person, as email=eve@example.com,phone=+1..."
)
@click.option("--quirk", "quirks", multiple=True, metavar="NAME[=VALUE]", help="What shall go wrong, as read_lag=30 or revoked.")
def simulate(tool: str, port: int, profiles: tuple[str, ...], quirks: tuple[str, ...]) -> None:
    """Run a stand-in of a marketing TOOL until stopped, and print what is written to it.

    It answers as the tool does, oddities included. Nobody real is in it and nothing is sent. Quirks are among others read_lag and
    segment_lag (seconds), status, times and retry_after (answer so many calls with this), lose_answers, hang, revoked, and
    refused (an identifier; may be given several times).
    """
    from hub.app import stand_in

    made = stand_in(tool)()
    try:
        for quirk in quirks:
            apply_quirk(made.quirks, quirk)
        people = [*PEOPLE, *(parse_profile(given) for given in profiles)]
    except ValueError as error:
        fail(str(error))
    try:
        asyncio.run(_run(made, tool, port, people))
    except OSError as error:
        fail(f"The stand-in cannot listen on 127.0.0.1:{port} ({error.strerror}). Choose another --port.")


def apply_quirk(quirks: Any, given: str) -> None:
    """Set one quirk from `name=value`, or `name` for a switch. Raises ValueError naming what there is."""
    name, separator, value = given.partition("=")
    names = sorted({slot for cls in type(quirks).__mro__ for slot in getattr(cls, "__slots__", ())})
    if name not in names:
        raise ValueError(f"--quirk {given}: there is no quirk {name!r} here. There are: {', '.join(names)}.")
    present = getattr(quirks, name)
    if isinstance(present, bool):
        if value.lower() not in {"", "true", "false"}:
            raise ValueError(f"--quirk {given}: {name} is true or false.")
        setattr(quirks, name, value.lower() != "false")
    elif isinstance(present, set):
        present.add(value)
    elif not separator:
        raise ValueError(f"--quirk {given}: give {name} a value, as {name}=30.")
    else:
        try:
            setattr(quirks, name, type(present)(value))
        except ValueError:
            raise ValueError(f"--quirk {given}: {name} is a number.") from None


def parse_profile(given: str) -> dict[str, str]:
    """{kind: value} out of `email=...,phone=...`. Raises ValueError."""
    keys = dict(part.partition("=")[::2] for part in given.split(","))
    if not all(keys.values()) or not set(keys) <= {"email", "phone", "external_id"}:
        raise ValueError(f"--profile {given}: write email=..., phone=... and external_id=..., parted by commas.")
    return keys


def to_paste(tool: str, url: str, credentials: dict[str, str]) -> str:
    """The part of config.yaml that makes this tool a destination. JSON strings are YAML."""
    settings = {"type": tool, "base_url": url, **credentials}
    lines = [f"    {name}: {json.dumps(value)}" for name, value in settings.items()]
    host = url.partition("://")[2]
    return "\n".join(
        [
            "sandbox:",
            "  enabled: true",
            f"allowed_hosts: [{json.dumps(host)}]",
            "destinations:",
            f"  {tool}:",
            *lines,
        ]
    )


async def _run(made: Any, tool: str, port: int, people: list[dict[str, str]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    url = await made.start(port)
    try:
        for keys in people:
            made.add_profile(**keys)
        click.echo(f"A stand-in of {tool} listens at {url}\n")
        click.echo(f"Put into config.yaml, beside what is there:\n\n{to_paste(tool, url, made.credentials)}\n")
        click.echo("It knows:")
        for profile in made.profiles:
            click.echo(f"  {profile.id:<34} {', '.join(f'{kind} {value}' for kind, value in profile.keys.items())}")
        click.echo("\nCtrl-C stops it. What is written to it:")
        shown = 0
        while not stop.is_set():
            for write in made.writes[shown:]:
                unset = f", unset {', '.join(write['unset'])}" if write["unset"] else ""
                click.echo(f"  {write['profile']}  {json.dumps(write['attributes'], default=str)}{unset}")
            shown = len(made.writes)
            try:
                await asyncio.wait_for(stop.wait(), _LOOK_SECONDS)
            except TimeoutError:
                pass
    finally:
        await made.stop()
    click.echo(f"Stopped after {len(made.calls)} calls.")


COMMANDS = (simulate,)
