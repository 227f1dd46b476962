"""What a mail or a webhook would become."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import click

from hub.cli.shared import fail

if TYPE_CHECKING:
    from hub.contract import Channel, Inbound


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


@click.group("mail")
def mail_group() -> None:
    """Mails."""


@mail_group.command("parse")
@click.argument("file", type=click.File("rb"))
@click.option("--address", default="support@shop.example", show_default=True, help="The mailbox it was written to.")
@click.option("--authserv-id", default="", help="Our mail server's id in Authentication-Results.")
def mail_parse(file: Any, address: str, authserv_id: str) -> None:
    """Print as JSON what ingest would make of a mail."""
    from hub.contract import Request

    channel = lone_channel("mime", {"address": address, "authserv_id": authserv_id, "smtp": {"host": "127.0.0.1"}})
    request = Request("POST", "http://localhost/in/mail", {"content-type": "message/rfc822"}, file.read())
    click.echo(json.dumps(_parsed(lambda: channel.parse(request)), indent=2, ensure_ascii=False))


@click.group("webhook")
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


COMMANDS = (
    mail_group,
    webhook_group,
)
