"""What Meta's webhooks tell: messages, statuses, changes of number, consent. Pure.

One POST carries `entry[]` x `changes[]` x `messages[]` (and `statuses[]`), all of which are read:
https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from connectors.whatsapp_cloud.content import Fields, content, fields, items, word
from connectors.whatsapp_cloud.words import EVENTS, FIELDS, STATUSES, STOPPED_MARKETING, UNDELIVERABLE, clean, explain
from hub.contract import (
    Altered,
    Claim,
    ConsentChanged,
    DeliveryEvent,
    DeliveryUpdate,
    HolderChanged,
    Ignored,
    Inbound,
    InboundMessage,
    MessageStatus,
    Proof,
    Unparseable,
)

_NUMBER = re.compile(r"\+?([1-9][0-9]{6,14})")
# https://developers.facebook.com/documentation/business-messaging/whatsapp/business-scoped-user-ids
USER_ID = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{1,128}")
# The end of the sentence, after the name, which is whatever the customer likes.
_FROM_TO = re.compile(r"changed from (\S{1,200}) to (\S{1,200}?)\.?$")
_OURS = re.compile(r"delivery=([0-9]{1,18})(?: to=(\S{1,200}))?")
_PREFERENCES: dict[str, Literal["out", "in"]] = {"stop": "out", "resume": "in"}


def read(body: bytes, phone_number_id: str) -> Sequence[Inbound]:
    """Everything one webhook tells of this number (of every number where `phone_number_id` is empty). Raises Unparseable."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unparseable(f"The body is not JSON: {type(error).__name__}.") from error
    if not isinstance(told, dict) or told.get("object") != "whatsapp_business_account":
        raise Unparseable(
            f"This is no webhook of a WhatsApp business account (its object is {clean(fields(told).get('object'))[:60]!r}). "
            "Check which product of the app posts here."
        )
    changes = [change for entry in items(told.get("entry")) for change in items(entry.get("changes"))]
    if not changes:
        raise Unparseable("The webhook tells of no change.")
    try:
        return [one for change in changes for one in _change(change, phone_number_id)]
    except RecursionError as error:
        raise Unparseable("The webhook is nested too deeply.") from error


def delivery_tag(delivery_id: int, to: str) -> str:
    """What a message bears, for its statuses to bring back (`biz_opaque_callback_data`): the delivery, and whom it was addressed to,
    whom a status may name otherwise (by number for a user id, without Argentina's 9)."""
    return f"delivery={delivery_id} to={to}"


def _change(change: Fields, phone_number_id: str) -> Iterator[Inbound]:
    field = word(change.get("field"))
    value = fields(change.get("value"))
    number = word(fields(value.get("metadata")).get("phone_number_id"))
    if phone_number_id and number and number != phone_number_id:
        yield _ignored(
            change,
            f"it is about another number (phone_number_id {number[:30]}). Give each number its own webhook at Meta "
            "(override_callback_uri), or one app",
        )
        return
    if field == "messages":
        if phone_number_id and not number:
            raise Unparseable("A message without the number it came to (metadata.phone_number_id).")
        yield from _messages(change, value)
    elif field == "user_preferences":
        yield from _preferences(change, value)
    elif field == "user_id_update":
        yield from _new_user_ids(change, value)
    else:
        yield _ignored(change, FIELDS.get(field, f"an event we have no word for: {field[:60] or 'without a name'}"))


def _ignored(about: object, reason: str) -> Ignored:
    return Ignored(provider_key=f"ignored:{_digest(about)}", reason=reason)


def _digest(about: object) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:40]


def _messages(change: Fields, value: Fields) -> Iterator[Inbound]:
    contacts = items(value.get("contacts"))
    messages, statuses = items(value.get("messages")), items(value.get("statuses"))
    for one in messages:
        # What kept Meta from handing over a message stands beside it, or beside all of them.
        yield _message({"errors": value.get("errors"), **one}, contacts, _digits(fields(value.get("metadata")).get("display_phone_number")))
    for one in statuses:
        yield _status(one)
    if not messages and not statuses:
        errors = [explain(word(error.get("code")), clean(error.get("title"))) for error in items(value.get("errors"))]
        yield _ignored(change, f"an error of Meta's without a message: {'; '.join(errors)}" if errors else "a webhook without a message")


# --- who ---


def phone_claim(value: object) -> Claim | None:
    """A number as WhatsApp delivers it: always with its country code, mostly without the plus."""
    found = _NUMBER.fullmatch(word(value).strip())
    return Claim("phone", f"+{found[1]}", Proof.CHANNEL) if found else None


def user_id_claim(value: object) -> Claim | None:
    found = word(value).strip()
    return Claim("wa_user_id", found, Proof.CHANNEL) if USER_ID.fullmatch(found) else None


def _known(*claims: Claim | None) -> tuple[Claim, ...]:
    return tuple(dict.fromkeys(claim for claim in claims if claim is not None))


def _digits(value: object) -> str:
    return re.sub(r"[^0-9]", "", word(value))


def _contact(message: Fields, contacts: Sequence[Fields]) -> Fields:
    """The contact a message comes from: by user id, else by number, else the only one there is."""
    user, number = message.get("from_user_id"), message.get("from")
    for key, mine in (("user_id", user), ("wa_id", number)):
        for one in contacts:
            if mine and one.get(key) == mine:
                return one
    # A number and its wa_id may be spelt differently (Brazil): with one sender there is no doubt.
    senders = {word(one.get("user_id")) or word(one.get("wa_id")) for one in contacts}
    return contacts[0] if len(senders) == 1 and not (user and word(contacts[0].get("user_id"))) else {}


def _claims(message: Fields, contacts: Sequence[Fields]) -> tuple[Claim, ...]:
    """The number, where WhatsApp shows it, and the business-scoped user id; the id alone for somebody who shows none."""
    contact = _contact(message, contacts)
    number = phone_claim(message.get("from")) or phone_claim(contact.get("wa_id"))
    return _known(number, user_id_claim(message.get("from_user_id")) or user_id_claim(contact.get("user_id")))


# --- messages ---


def _message(message: Fields, contacts: Sequence[Fields], own: str) -> Inbound:
    kind = word(message.get("type"))
    message_id = word(message.get("id"))[:400]
    key = f"in:{message_id}" if message_id else f"in:{_digest(message)}"
    if kind == "system":
        return _system(key, message)
    if kind == "request_welcome":
        return Ignored(provider_key=key, reason="somebody opened the chat and has said nothing yet")
    if own and _digits(message.get("from")) == own:
        return Ignored(provider_key=key, reason="an echo of a message sent from this channel's own number")
    claims = _claims(message, contacts)
    if not claims:
        raise Unparseable("A message without a sender: neither a number nor a user id.")
    sent_at = _when(message.get("timestamp"))
    altered = _altered(kind, message)
    if altered is not None:
        what, about, text = altered
        if not about:
            return Ignored(provider_key=key, reason=f"a {what} that names no message")
        return Altered(provider_key=key, claims=claims, about=about, what=what, text=text, sent_at=sent_at)
    text, files = content(message)
    return InboundMessage(
        provider_key=key,
        claims=(*claims, *_shown(message, claims)),
        external_id=message_id,
        text=text,
        sender_name=word(fields(_contact(message, contacts).get("profile")).get("name")),
        attachments=files,
        sent_at=sent_at,
        quoted_id=word(fields(message.get("context")).get("id"))[:400],
    )


def _altered(kind: str, message: Fields) -> tuple[Literal["reaction", "edit", "deletion"], str, str] | None:
    """Edits and deletions: .../webhooks/reference/messages/edit and /revoke; Meta sends them for numbers that the WhatsApp Business app
    uses too, and an `unsupported` message otherwise."""
    said = fields(message.get(kind))
    if kind == "reaction":
        return "reaction", word(said.get("message_id"))[:400], word(said.get("emoji"))
    if kind == "edit":
        new = fields(said.get("message"))
        inner = fields(new.get(word(new.get("type"))))
        return "edit", word(said.get("original_message_id"))[:400], word(inner.get("body")) or word(inner.get("caption"))
    if kind == "revoke":
        return "deletion", word(said.get("original_message_id"))[:400], ""
    return None


def _shown(message: Fields, claims: Sequence[Claim]) -> tuple[Claim, ...]:
    """A number they gave when asked for it by WhatsApp's own button: theirs by their own word."""
    if message.get("origin") != "contact_request" or any(claim.kind == "phone" for claim in claims):
        return ()
    numbers = {phone["phone"] for one in items(message.get("contacts")) for phone in items(one.get("phones")) if word(phone.get("phone"))}
    claimed = phone_claim(re.sub(r"[ ().-]", "", word(numbers.pop()))) if len(numbers) == 1 else None
    return (Claim("phone", claimed.value, Proof.CLAIMED),) if claimed else ()


def _when(value: object) -> int | None:
    """Unix seconds, as text or number, in microseconds; None for anything else."""
    text = word(value)
    return int(text) * 1_000_000 if re.fullmatch(r"[0-9]{1,11}", text, re.ASCII) else None


def _system(key: str, message: Fields) -> Inbound:
    """A change of number or of user id, told by WhatsApp itself (.../webhooks/reference/messages/system)."""
    said = fields(message.get("system"))
    kind = word(said.get("type"))
    body = word(said.get("body"))
    if kind == "user_preference_changed":
        return _consent(said.get("marketing"), message, body, key)
    new_id = user_id_claim(said.get("user_id"))
    old_id = user_id_claim(said.get("previous_user_id"))
    if kind in ("user_changed_number", "customer_changed_number"):
        sender = user_id_claim(message.get("from_user_id"))
        previous = _known(
            phone_claim(message.get("from")) or phone_claim(said.get("customer")), old_id or (sender if sender != new_id else None)
        )
        present = _known(phone_claim(said.get("wa_id")) or phone_claim(said.get("new_wa_id")), new_id)
        present = tuple(claim for claim in present if claim not in previous)
        if previous and present:
            return HolderChanged(provider_key=key, previous=previous, present=present)
    elif kind == "user_changed_user_id":
        told = _FROM_TO.search(body[-500:])
        if old_id is None and told and new_id is not None and told[2] == new_id.value:
            old_id = user_id_claim(told[1])
        if old_id and new_id and old_id != new_id:
            return _new_user_id(old_id, new_id)
        return Ignored(provider_key=key, reason="somebody's WhatsApp user id changed; which it was is told by user_id_update")
    elif kind in ("customer_identity_changed", "user_identity_changed"):
        previous = _known(phone_claim(said.get("customer")) or phone_claim(message.get("from")))
        if previous:
            return HolderChanged(provider_key=key, previous=previous)
    return Ignored(provider_key=key, reason=f"a notice of WhatsApp's: {body[:300] or kind[:60] or 'without words'}")


def _new_user_id(previous: Claim, present: Claim) -> HolderChanged:
    # Told twice, by a system message and by user_id_update: one key for both.
    return HolderChanged(provider_key=f"user_id:{previous.value}:{present.value}", previous=(previous,), present=(present,))


def _new_user_ids(change: Fields, value: Fields) -> Iterator[Inbound]:
    """The webhook `user_id_update`, which ties an old user id to the new one."""
    updates = items(value.get("user_id_update"))
    for one in updates:
        ids = fields(one.get("user_id"))
        previous, present = user_id_claim(ids.get("previous")), user_id_claim(ids.get("current"))
        if previous and present and previous != present:
            yield _new_user_id(previous, present)
        else:
            yield _ignored(one, "somebody's WhatsApp user id changed, and Meta does not say from which to which")
    if not updates:
        yield _ignored(change, "a change of a WhatsApp user id without the ids")


# --- consent ---


def _preferences(change: Fields, value: Fields) -> Iterator[Inbound]:
    """Whether a customer wants marketing (.../webhooks/reference/user_preferences)."""
    told = items(value.get("user_preferences"))
    contacts = items(value.get("contacts"))
    for one in told:
        if one.get("category", "marketing_messages") != "marketing_messages":
            yield _ignored(one, f"a preference other than for marketing: {word(one.get('category'))[:60]}")
            continue
        contact = contacts[0] if len(contacts) == 1 else {}
        sender = {"from": one.get("wa_id") or contact.get("wa_id"), "from_user_id": one.get("user_id") or contact.get("user_id")}
        yield _consent(one.get("value"), sender, word(one.get("detail")), f"consent:{_digest([one, sender])}")
    if not told:
        yield _ignored(change, "a change of preferences without one")


def _consent(preference: object, sender: Fields, words: str, key: str) -> Inbound:
    opts = _PREFERENCES.get(word(preference).lower())
    claims = _known(phone_claim(sender.get("from")), user_id_claim(sender.get("from_user_id")))
    if opts is None or not claims:
        return Ignored(provider_key=key, reason=f"a marketing preference that says nothing of whom or what: {words[:200]}")
    return ConsentChanged(provider_key=key, claims=claims, opts=opts, words=words)


# --- statuses ---


def _status(one: Fields) -> Inbound:
    """What became of a message of ours (.../webhooks/reference/messages/status)."""
    state = word(one.get("status")).lower()
    message_id = word(one.get("id"))[:400]
    who = word(one.get("recipient_participant_user_id")) or word(one.get("recipient_participant_id"))
    key = f"status:{message_id}:{state}" + (f":{who}" if who else "") if message_id else f"status:{_digest(one)}"
    after = STATUSES.get(state)
    if after is None:
        return Ignored(provider_key=key, reason=f"a message status we have no word for: {state[:40]}")
    errors = items(one.get("errors"))
    code = word(errors[0].get("code")) if errors else ""
    failed = after is MessageStatus.FAILED
    ours = _OURS.fullmatch(word(one.get("biz_opaque_callback_data")))
    addressed = (ours[2] or "") if ours else ""
    return DeliveryUpdate(
        provider_key=key,
        status=after,
        delivery_id=int(ours[1]) if ours else None,
        provider_message_id=message_id,
        error=explain(code, _reason(errors)) if failed else "",
        event=_event(code) if failed else EVENTS[state],
        recipient=addressed or _recipient(one),
    )


def _recipient(one: Fields) -> str:
    """Whom a status names; nobody where it names a number and a user id, since the message was addressed to one of them only."""
    number, user = phone_claim(one.get("recipient_id")), word(one.get("recipient_user_id"))
    if number and user:
        return ""
    return number.value if number else user or word(one.get("recipient_id"))


def _event(code: str) -> DeliveryEvent:
    if code == STOPPED_MARKETING:
        return DeliveryEvent.UNSUBSCRIBED
    return DeliveryEvent.BOUNCED if code == UNDELIVERABLE else DeliveryEvent.REJECTED


def _reason(errors: Sequence[Fields]) -> str:
    if not errors:
        return ""
    details: Any = fields(errors[0].get("error_data")).get("details")
    return clean(details) or clean(errors[0].get("message")) or clean(errors[0].get("title"))
