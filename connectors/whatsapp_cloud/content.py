"""What a WhatsApp message says, as text and files people can read. Pure.

Kinds: https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from connectors.whatsapp_cloud.words import clean, file_name
from hub.contract import Attachment

Fields = Mapping[str, Any]

MEDIA = ("image", "audio", "voice", "video", "document", "sticker")
MEDIA_ID = re.compile(r"[0-9A-Za-z_-]{1,200}")
MOST_CONTACTS = 50
MOST_LINES = 100  # of an order or a form


def fields(value: object) -> Fields:
    """The value where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Fields]:
    """The objects of a list; none where it is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def word(value: object) -> str:
    """A text or a number as text."""
    return clean(value) if isinstance(value, str) else str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def content(message: Fields) -> tuple[str, tuple[Attachment, ...]]:
    """The text and the files of a message, whatever its kind. Never both empty."""
    kind = word(message.get("type"))
    said = fields(message.get(kind))
    files: tuple[Attachment, ...] = ()
    if kind == "text":
        text = word(said.get("body"))
    elif kind in MEDIA:
        text, files = word(said.get("caption")), tuple(_media(kind, said))
    elif kind == "location":
        text = place(said)
    elif kind == "contacts":
        text, files = _contacts(items(message.get("contacts"))[:MOST_CONTACTS])
    elif kind == "interactive":
        text = _interactive(said)
    elif kind == "button":
        text = word(said.get("text")) or word(said.get("payload"))
    elif kind == "order":
        text = _order(said)
    else:
        text = ""
    lines = [text] if text else []
    if not text and not files:
        lines.append(_not_handed_over(kind, said, message))
    lines += _around(message)
    return "\n".join(lines), files


def _media(kind: str, said: Fields) -> Iterator[Attachment]:
    media_id = word(said.get("id"))
    if not MEDIA_ID.fullmatch(media_id):
        return
    content_type = word(said.get("mime_type")).partition(";")[0].strip().lower()[:100] or "application/octet-stream"
    noun = "voice message" if kind == "voice" or said.get("voice") is True else kind
    name = re.split(r"[/\\]", word(said.get("filename")))[-1].strip(". ")[:120] or file_name(noun, content_type)
    yield Attachment(name=name, content_type=content_type, url=f"media:{media_id}")


def place(said: Fields) -> str:
    """A location people can read, with a link to a map (https://developers.google.com/maps/documentation/urls/get-started)."""
    named = [word(said.get(name)) for name in ("name", "address") if word(said.get(name))]
    raw = [word(said.get("latitude")), word(said.get("longitude"))]
    try:
        north, east = float(raw[0]), float(raw[1])
    except ValueError:
        north = east = math.inf
    if not (abs(north) <= 90 and abs(east) <= 180):  # which no infinity and no not-a-number is
        shown = ", ".join([*named, *filter(None, raw)])
        return f"Location: {shown}" if shown else ""
    where = ",".join(f"{value:.6f}".rstrip("0").rstrip(".") for value in (north, east))  # six decimals are eleven centimetres
    label = f"{', '.join(named)} ({where.replace(',', ', ')})" if named else where.replace(",", ", ")
    return f"Location: {label}\nhttps://www.google.com/maps/search/?api=1&query={where}"


def _contacts(people: list[Fields]) -> tuple[str, tuple[Attachment, ...]]:
    lines, files = [], []
    for one in people:
        name = person_name(one)
        numbers = [word(phone.get("phone")) or word(phone.get("wa_id")) for phone in items(one.get("phones"))]
        mails = [word(mail.get("email")) for mail in items(one.get("emails"))]
        company = word(fields(one.get("org")).get("company"))
        lines.append(f"Contact: {', '.join(filter(None, [name, company, *numbers, *mails])) or 'without a name'}")
        stem = re.sub(r"[^\w .-]", "", name).strip(". ")[:80] or "contact"
        files.append(Attachment(name=f"{stem}.vcf", content_type="text/vcard", data=_vcard(one, name).encode()))
    return "\n".join(lines), tuple(files)


def person_name(one: Fields) -> str:
    names = fields(one.get("name"))
    parts = [word(names.get(part)) for part in ("first_name", "last_name")]
    return word(names.get("formatted_name")) or " ".join(filter(None, parts))


def _vcard(one: Fields, name: str) -> str:
    """The contact as the sender's vCard, or one made of its fields (RFC 2426)."""
    given = word(one.get("vcard"))
    if given:
        return given
    names = fields(one.get("name"))
    lines = ["BEGIN:VCARD", "VERSION:3.0"]
    lines.append(
        "N:" + ";".join(_escaped(word(names.get(part))) for part in ("last_name", "first_name", "middle_name", "prefix", "suffix"))
    )
    lines.append(f"FN:{_escaped(name)}")
    for phone in items(one.get("phones")):
        lines.append(f"TEL:{_escaped(word(phone.get('phone')) or word(phone.get('wa_id')))}")
    for mail in items(one.get("emails")):
        lines.append(f"EMAIL:{_escaped(word(mail.get('email')))}")
    for url in items(one.get("urls")):
        lines.append(f"URL:{_escaped(word(url.get('url')))}")
    if company := word(fields(one.get("org")).get("company")):
        lines.append(f"ORG:{_escaped(company)}")
    return "\r\n".join([*lines, "END:VCARD", ""])


def _escaped(value: str) -> str:
    return re.sub(r"([\\;,])", r"\\\1", value).replace("\r", "").replace("\n", "\\n")


def _interactive(said: Fields) -> str:
    kind = word(said.get("type"))
    chosen = fields(said.get(kind))
    if kind == "nfm_reply":
        return _form(chosen)
    if kind == "call_permission_reply":
        return f"(answered whether we may call: {word(chosen.get('response')) or 'no answer'})"
    title, description = word(chosen.get("title")) or word(chosen.get("id")), word(chosen.get("description"))
    return f"{title}\n{description}" if title and description else title


def _form(chosen: Fields) -> str:
    """The answers of a flow (https://developers.facebook.com/docs/whatsapp/flows/reference/responsemsgwebhook)."""
    try:
        answers = json.loads(word(chosen.get("response_json")) or "{}")
    except (ValueError, RecursionError):
        answers = {}
    lines = [
        f"{clean(name)}: {word(value) or clean(json.dumps(value, ensure_ascii=False))}"
        for name, value in list(fields(answers).items())[:MOST_LINES]
        if name != "flow_token"
    ]
    title = word(chosen.get("body")) or word(chosen.get("name"))
    return "\n".join(([f"Form: {title}"] if title else []) + lines)


def _order(said: Fields) -> str:
    lines = ["Order:"]
    for one in items(said.get("product_items"))[:MOST_LINES]:
        price = f"{word(one.get('item_price'))} {word(one.get('currency'))}".strip()
        what = word(one.get("product_retailer_id")) or "an article"
        lines.append(f"{word(one.get('quantity')) or '?'} x {what}" + (f" at {price}" if price else ""))
    if note := word(said.get("text")):
        lines.append(note)
    return "\n".join(lines) if len(lines) > 1 else ""


def _not_handed_over(kind: str, said: Fields, message: Fields) -> str:
    """What is said of a message whose content is not here: an agent must see that something came."""
    codes = {word(error.get("code")) for error in items(message.get("errors"))}
    details = [fields(error.get("error_data")).get("details") or error.get("title") for error in items(message.get("errors"))]
    if "131060" in codes:
        return "(a message that is not available at WhatsApp: ask them to send it again)"
    if kind in ("unsupported", "unknown", "errors", ""):
        inner = word(said.get("type")) or word(message.get("unsupported_type"))
        return f"(a kind of message WhatsApp does not hand over{f': {inner}' if inner and inner != 'unknown' else ''})"
    if kind == "ephemeral":
        return "(a message that disappears, which WhatsApp does not hand over)"
    if kind == "text":
        return "(an empty message)"
    reason = "; ".join(clean(one) for one in details if isinstance(one, str))
    return f"(a WhatsApp message of the kind “{kind[:40]}” whose content did not come along{f': {reason}' if reason else ''})"


def _around(message: Fields) -> Iterator[str]:
    """Where a message came from besides its own words: an advertisement, a group."""
    referral = fields(message.get("referral"))
    if referral:
        headline = word(referral.get("headline")) or word(referral.get("body"))
        source = word(referral.get("source_url"))
        told = " ".join(filter(None, [f"“{headline}”" if headline else "", source]))
        yield f"(They came by an advertisement or a post{': ' + told if told else ''})"
    product = fields(fields(message.get("context")).get("referred_product"))
    if product:
        yield f"(They ask about the article {word(product.get('product_retailer_id')) or 'of the catalogue'})"
    if message.get("group_id"):
        yield "(written in a WhatsApp group)"
