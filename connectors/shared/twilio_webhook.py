"""What Twilio's webhooks say of a message and of its delivery (https://www.twilio.com/docs/messaging/guides/webhook-request). Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from urllib.parse import parse_qs

from connectors.shared.media_names import media_name
from connectors.shared.twilio_lists import Resource
from connectors.shared.twilio_words import EVENTS, NEVER, STATUSES, explain
from hub.contract import Attachment, DeliveryUpdate, Ignored, Inbound, MessageStatus, Request

Form = Mapping[str, str]

# Kinds of WhatsApp messages whose content stands in other fields than Body; of others Twilio may hand over nothing at all.
_KNOWN_TYPES = frozenset({"", "text", "image", "audio", "video", "document", "sticker", "location", "contacts", "button", "interactive"})


def is_form(request: Request) -> bool:
    """Whether the body is a form; Twilio's messaging webhooks are."""
    content_type = request.content_type
    return not content_type or content_type.lower().startswith("application/x-www-form-urlencoded")


def whole(form: Form) -> dict[str, str]:
    """The fields, those included that stand only in `ChannelMetadata` (WhatsApp's own context, as JSON in a field)."""
    try:
        told = json.loads(form["ChannelMetadata"])["data"]["context"] if "ChannelMetadata" in form else {}
    except (ValueError, KeyError, TypeError, RecursionError):
        told = {}
    context = told if isinstance(told, dict) else {}
    return {name: value for name, value in context.items() if isinstance(value, str)} | dict(form)


def text(form: Form) -> str:
    """The words of a message: its body, else the button or the list entry that was chosen, and the place that was sent."""
    said = form.get("Body") or form.get("ButtonText") or form.get("ListTitle") or form.get("ButtonPayload") or form.get("ListId") or ""
    lines = [clean(said)] if said else []
    if form.get("Latitude") and form.get("Longitude"):
        lines.append(place(form))
    kind = form.get("MessageType", "").lower()
    if not lines and not form.get("MediaUrl0") and kind not in _KNOWN_TYPES:
        lines.append(f"(a WhatsApp message of the kind \u201c{clean(kind)[:40]}\u201d, whose content Twilio does not hand over)")
    return "\n".join(lines)


def place(form: Form) -> str:
    """A location people can read, with a link to a map (https://developers.google.com/maps/documentation/urls/get-started)."""
    latitude, longitude = clean(form["Latitude"]), clean(form["Longitude"])
    named = [clean(form[name]) for name in ("Label", "Address") if form.get(name)]
    try:
        north, east = float(latitude), float(longitude)
    except ValueError:
        north = east = math.inf
    if not (abs(north) <= 90 and abs(east) <= 180):  # which no infinity and no not-a-number is
        return f"Location: {', '.join([*named, latitude, longitude])}"
    where = f"{_degrees(north)},{_degrees(east)}"
    return f"Location: {', '.join(named) or where.replace(',', ', ')}\nhttps://www.google.com/maps/search/?api=1&query={where}"


def _degrees(value: float) -> str:
    """Six decimals are eleven centimetres."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def attachments(form: Form) -> tuple[Attachment, ...]:
    """The files of a message, to be fetched after the commit: pictures, sound, documents, contacts as vCards."""
    found: list[Attachment] = []
    while url := form.get(f"MediaUrl{len(found)}"):
        content_type = form.get(f"MediaContentType{len(found)}", "application/octet-stream").partition(";")[0].strip().lower()
        found.append(Attachment(name=media_name(content_type, len(found) + 1), content_type=content_type, url=url))
    return tuple(found)


def status(sid: str, word: str, form: Form, query: str) -> Inbound:
    """What a status callback tells. Its address carries our delivery's id."""
    key = f"status:{sid}:{word}"
    after = STATUSES.get(word)
    if after is None:
        return Ignored(provider_key=key, reason=f"a message status we have no word for: {word[:40]}")
    code = form.get("ErrorCode", "").strip()
    code = "" if code == "0" else code
    ours = parse_qs(query).get("delivery", [""])[0]
    failed = after is MessageStatus.FAILED
    return DeliveryUpdate(
        provider_key=key,
        status=after,
        delivery_id=int(ours) if ours.isascii() and ours.isdigit() and len(ours) < 19 else None,
        provider_message_id=sid,
        error=explain(code, clean(form.get("ErrorMessage", ""))) if code or failed else "",
        event=EVENTS.get(word),
        recipient=clean(form.get("To", "")).rpartition(":")[2],
        permanent=failed and code in NEVER,
    )


def found(resource: Resource) -> DeliveryUpdate:
    """What a listed message tells of the send it came from. A word we do not know still tells that Twilio has it."""
    after = STATUSES.get(str(resource.get("status") or "").lower(), MessageStatus.SENT)
    code = str(resource.get("error_code") or "")
    failed = after is MessageStatus.FAILED
    return DeliveryUpdate(
        provider_key=f"found:{resource['sid']}",
        status=after,
        provider_message_id=str(resource["sid"]),
        error=explain(code, clean(str(resource.get("error_message") or ""))) if failed else "",
    )


def clean(said: str) -> str:
    """Text without what no text column takes: NUL, and the half characters JSON can spell."""
    return said.replace("\x00", "").encode(errors="replace").decode()
