"""What a mail or a webhook would become. The shape of what is printed is stable: people script against it."""

from __future__ import annotations

import base64
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from hub.cli.shared import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hub.contract import Channel, DeliveryUpdate, Inbound, InboundMessage

# As the printed events name them.
MACHINES = {"auto-reply": "auto_reply"}


def lone_channel(type_: str, settings: dict[str, Any]) -> Channel:
    from hub.app import lone_channel as build
    from hub.config import ConfigError

    try:
        return build(type_, settings)
    except ConfigError as error:
        fail(str(error))


def as_event(said: Inbound, channel: str) -> dict[str, Any]:
    """One thing a request said, as a plain event: a `message`, a `delivery`, or what else it is by the name of its class."""
    from dataclasses import asdict

    from hub.contract import DeliveryUpdate, InboundMessage

    if isinstance(said, InboundMessage):
        return _message(said, channel)
    if isinstance(said, DeliveryUpdate):
        return _delivery(said)
    return {"kind": type(said).__name__.lower()} | asdict(said)


def _message(said: InboundMessage, channel: str) -> dict[str, Any]:
    return {
        "kind": "message",
        "channel": channel,
        "external_id": said.external_id,
        "message_id": said.message_id,
        "in_reply_to": said.in_reply_to,
        "references": list(said.references),
        "from": {"name": said.sender_name, "address": said.claims[0].value if said.claims else ""},
        "to": list(said.to),
        "cc": list(said.cc),
        "subject": said.subject,
        "text": said.text,
        "reply_text": said.text if said.reply_text is None else said.reply_text,
        "html": said.html,
        "attachments": [
            {
                "filename": file.name,
                "content_type": file.content_type,
                "size": len(file.data) if file.data is not None else None,
                "content_id": file.content_id,
                "inline": file.inline,
            }
            for file in said.attachments
        ],
        "machine": MACHINES.get(said.automatic, said.automatic) or None,
        "spam": dict(said.spam),
        # Beyond what every mail has.
        "claims": [{"kind": claim.kind, "value": claim.value, "proof": claim.proof.value} for claim in said.claims],
        "reports": [_delivery(report) for report in said.reports],
        "quoted_id": said.quoted_id,
        "opts": said.opts,
        "doubt": said.doubt,
        "sent_at": said.sent_at,
        "provider_key": said.provider_key,
    }


def _delivery(said: DeliveryUpdate) -> dict[str, Any]:
    # Queued over there is sent, as far as we are concerned; what a provider did not understand itself is something else.
    plain = {"queued": "sent", "sending": "sent", "failed": "bounced", "unknown": "other"}
    return {
        "kind": "delivery",
        "status": said.event.value if said.event is not None else plain.get(said.status.value, said.status.value),
        "recipient": said.recipient,
        "external_id": said.provider_message_id,
        "reason": said.error,
        "message_id": said.mail_id,
        "permanent": said.permanent,
        "provider_key": said.provider_key,
    }


def _parsed(parse: Callable[[], Sequence[Inbound]], channel: str) -> list[Any]:
    from hub.contract import Unparseable

    try:
        return [as_event(one, channel) for one in parse()]
    except Unparseable as error:
        return [{"kind": "unparseable", "reason": str(error)}]


@click.group("mail")
def mail_group() -> None:
    """Mails."""


@mail_group.command("parse")
@click.argument("file", type=click.File("rb"))
@click.option("--address", default="support@shop.example", show_default=True, help="The mailbox it was written to.")
@click.option("--authserv-id", default="", help="Our mail server's id in Authentication-Results.")
def mail_parse(file: Any, address: str, authserv_id: str) -> None:
    """Print as JSON what ingest would make of a mail: one message event."""
    from hub.contract import Request

    channel = lone_channel("mime", {"address": address, "authserv_id": authserv_id, "smtp": {"host": "127.0.0.1"}})
    request = Request("POST", "http://localhost/in/mail", {"content-type": "message/rfc822"}, file.read())
    [event] = _parsed(lambda: channel.parse(request), "mime")
    click.echo(json.dumps(event, indent=2, ensure_ascii=False))


@click.group("webhook")
def webhook_group() -> None:
    """Webhooks."""


@webhook_group.command("parse")
@click.argument("type_", metavar="TYPE")
@click.argument("file", metavar="REQUEST.json", type=click.File("r", encoding="utf-8"))
@click.option("--secret", "secrets", multiple=True, metavar="NAME=VALUE", help="A setting of the channel, such as auth_token=…")
@click.option("--public-url", default=None, help="The hub's public address, over which requests were signed.")
def webhook_parse(type_: str, file: Any, secrets: tuple[str, ...], public_url: str | None) -> None:
    """Print as JSON what ingest would make of recorded requests `{method, path, content_type, headers, body or body_base64}`: one, or a
    list of them (or of `{"request": ...}`). TYPE is the connector's name.

    For each: its number from 0, the `answer` its provider would get (an HTTP status), and its events. Without --secret and --public-url
    signatures are not checked, and `answer` is null.
    """
    import time

    from hub.contract import Request, Verdict

    channel = lone_channel(type_, dict(pair.split("=", 1) for pair in secrets))
    checked = bool(secrets) or public_url is not None
    try:
        recorded = json.load(file)
    except ValueError as error:
        fail(f"{file.name} is not JSON: {error}")
    shown = []
    for number, entry in enumerate(recorded if isinstance(recorded, list) else [recorded]):
        one = entry.get("request", entry)
        body = base64.b64decode(one["body_base64"]) if one.get("body_base64") is not None else str(one.get("body") or "").encode()
        headers = {name.lower(): str(value) for name, value in (one.get("headers") or {}).items()}
        if one.get("content_type"):
            headers.setdefault("content-type", one["content_type"])
        request = Request(
            one.get("method") or "POST", (public_url or "http://localhost").rstrip("/") + (one.get("path") or "/"), headers, body
        )
        answer = None
        if checked:
            verdict = channel.verify(request, time.time())
            answers = channel.answers
            answer = {Verdict.GOOD: answers.ok.status, Verdict.NO_KEY: 503}.get(verdict, answers.bad_signature)
        events = _parsed(partial(channel.parse, request), type_) if answer in (None, channel.answers.ok.status) else []
        shown.append({"request": number, "answer": answer, "events": events})
    click.echo(json.dumps(shown, indent=2, ensure_ascii=False, default=str))


COMMANDS = (
    mail_group,
    webhook_group,
)
