"""Statuses, proofs, events and times in people's words.

Vendor- or table-like words never reach a page: each of ours has a literal entry here and an unknown one a plain default.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

MINUTE = 60
HOUR = 3_600
DAY = 86_400

# message.status -> (what people read, how it is meant: calm, good, wait, bad)
MESSAGE_STATUS: dict[str, tuple[str, str]] = {
    "received": ("", "calm"),
    "note": ("", "calm"),
    "queued": ("Waiting to be sent", "wait"),
    "sending": ("Sending", "wait"),
    "sent": ("Sent", "calm"),
    "delivered": ("Delivered", "good"),
    "read": ("Read", "good"),
    "failed": ("Not delivered", "bad"),
    "unknown": ("Not known whether it arrived", "bad"),
}
STATUS_HELP = {
    "unknown": "The provider's answer was lost. It is not sent again by itself, since it may have arrived.",
    "failed": "The customer did not get this message.",
}

TICKET_STATUS: dict[str, str] = {"open": "Open", "pending": "Pending", "snoozed": "Snoozed", "resolved": "Resolved"}

# identifier.proof -> how we know, in plain words
PROOF: dict[str, str] = {
    "channel": "Verified: they wrote from it",
    "dmarc": "Verified by the sender's mail domain",
    "signed": "Verified: signed in on your site",
    "otp": "Verified by a one-time code",
    "agent": "Confirmed by an agent",
    "record": "From your own records",
    "claimed": "Claimed, not verified",
    "seen": "Seen in a message, not verified",
}
UNPROVEN = frozenset({"claimed", "seen"})

IDENTIFIER_KIND: dict[str, str] = {
    "email": "E-mail",
    "phone": "Phone",
    "wa_user_id": "WhatsApp user",
    "user_id": "Your customer number",
    "device": "Chat visitor",
}

HOLD_REASON: dict[str, str] = {
    "open_ticket": "Open ticket",
    "complaint": "Complaint",
    "cool_down": "Quiet time after a ticket",
    "low_satisfaction": "Unhappy with us",
    "agent": "Decided by an agent",
    "api": "Decided by a program of yours",
}
LEDGER: dict[str, str] = {"placed": "Placed", "renewed": "Renewed", "released": "Released", "expired": "Ran out"}

AUTOMATIC: dict[str, str] = {
    "auto-reply": "Automatic reply",
    "bounce": "Delivery failure notice",
    "list": "Mailing list",
    "survey": "Survey",
    "follow-up": "As promised",
}
PROMISE: dict[str, str] = {"waiting": "Waiting", "sent": "Sent", "refused": "Not sent", "cancelled": "Cancelled", "expired": "Ran out"}

EVENT_ICON: dict[str, str] = {
    "ticket.opened": "inbox",
    "ticket.reopened": "rotate",
    "ticket.resolved": "check",
    "ticket.assigned": "user",
    "ticket.snoozed": "clock",
    "ticket.woken": "bell",
    "ticket.moved": "move",
    "message.moved": "move",
    "customer.merged": "merge",
    "customer.unmerged": "split",
    "customer.split": "split",
    "suggestion.rejected": "user-x",
    "hold.placed": "pause",
    "hold.released": "play",
    "ticket.tagged": "tag",
    "ticket.prioritised": "flag",
    "ticket.spam": "user-x",
    "ticket.hold_overdue": "clock",
    "customer.hold_ended": "play",
    "survey.answered": "check",
    "follow_up.added": "bell",
    "follow_up.sent": "bell",
    "follow_up.refused": "alert",
    "follow_up.cancelled": "bell",
    "follow_up.expired": "clock",
    "optout.recorded": "stop",
    "optout.withdrawn": "play",
    "send.seen": "mail",
    "participant.admitted": "user",
    "participant.dismissed": "user-x",
    "ticket.reviewed": "check",
}


def plain(word: str) -> str:
    """A word of ours as a person would write it: `open_ticket` -> `Open ticket`."""
    return word.replace("_", " ").replace("-", " ").replace(".", " ").strip().capitalize()


def told(data: str) -> dict[str, Any]:
    """What an event's data says; nothing where it cannot be read."""
    try:
        found = json.loads(data or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def describe(type: str, data: str, actor: str, ticket_id: int | None, names: Mapping[int, str], zone: tzinfo) -> str:
    """One line for an event in the timeline; `actor` is empty where nobody in particular did it."""
    said = told(data)
    number = f"Ticket #{ticket_id}" if ticket_id is not None else "Ticket"
    actor = actor or program(str(said.get("actor") or ""))
    by = f" by {actor}" if actor else ""
    if type == "ticket.assigned":
        return _assigned(said, actor, names)
    if type == "ticket.snoozed":
        until = said.get("until", said.get("until_us", said.get("snoozed_until")))
        return f"{number} snoozed{by}" + (f" until {clock(until, zone)}" if isinstance(until, int) else "")
    if type in ("hold.placed", "hold.released"):
        reasons = said.get("reasons") or said.get("reason") or []
        listed = ", ".join(hold_reason(str(r)).lower() for r in (reasons if isinstance(reasons, list) else [reasons]))
        if type == "hold.placed":
            return "Marketing held" + (f": {listed}" if listed else "")
        return "Marketing hold released"
    if type == "send.seen":
        return _sent(said)
    if type in ("optout.recorded", "optout.withdrawn"):
        wants = "wants no more messages here" if type == "optout.recorded" else "may be written to again"
        return f"{said.get('value', 'The customer')} {wants}" + (f" (as an agent{by} read it)" if said.get("by") else "")
    if type == "ticket.woken":
        return f"{number} taken out of snooze{by}" if actor else f"{number} is back from its snooze"
    other = f"customer {said['other']}" if isinstance(said.get("other"), int) else "another customer"
    return {
        "ticket.opened": f"{number} opened{by}",
        "ticket.reopened": f"{number} reopened" + (by or " by a new message"),
        "ticket.resolved": f"{number} resolved{by}",
        "ticket.moved": f"{number} moved here from {other}{by}",
        "message.moved": f"A message was moved here from {other}{by}",
        "customer.merged": f"{other[0].upper()}{other[1:]} was merged in{by}" if actor else _merged(said, other),
        "customer.unmerged": f"{other[0].upper()}{other[1:]} was taken apart again{by}",
        "customer.split": f"Part of this record turned out to be somebody else: {other}" + (f" (taken out{by})" if by else ""),
        "ticket.tagged": f"{number} tagged{by}: {', '.join(json.loads(said.get('tags', '[]'))) or 'no tags'}",
        "ticket.prioritised": f"{number} is {said.get('priority', '')} now{by}",
        "ticket.spam": f"{number} marked as spam{by}",
        "ticket.hold_overdue": f"{number} held marketing for {said.get('days', 'many')} days and holds it no more, though it is unresolved",
        "customer.hold_ended": f"Marketing hold ended by hand{by}: "
        f"{hold_reason(str(said.get('reason', '')), str(said.get('source', ''))).lower()}",
        "survey.answered": f"The customer answered the survey: {scored(str(said.get('kind', '')), said.get('score'))}",
        "follow_up.added": f"{actor or 'Somebody'} promised to follow up when {said.get('key', '')}",
        "follow_up.sent": f"Followed up as promised: {said.get('key', '')}{by}",
        "follow_up.refused": f"{said.get('key', '')} happened, but the customer was not told: {said.get('why', '')}",
        "follow_up.cancelled": f"The promise to follow up when {said.get('key', '')} was taken back{by}",
        "follow_up.expired": f"{said.get('key', '')} did not happen in time: the customer was promised to be told",
        "participant.admitted": f"A mail that waited for review was admitted to {number[0].lower()}{number[1:]}{by}",
        "participant.dismissed": f"Somebody may write to {number[0].lower()}{number[1:]} no more{by}",
        "ticket.reviewed": f"{number} was reviewed{by}: it stands on its own",
        "suggestion.rejected": f"{actor or 'Somebody'} said that {other} is another person",
    }.get(type, plain(type))


# Why a marketing message reached somebody on hold.
LEAK: dict[str, str] = {
    "our_delay": "we had not told the tool yet",
    "lag": "the tool did not show the hold yet",
    "frozen_list": "its recipients had been fixed before the hold",
    "missing_filter": "it does not leave out customers on hold",
    "unexplained": "the tool showed the hold and sent all the same",
}


BY: dict[str, str] = {"sms": "SMS", "email": "e-mail", "whatsapp": "WhatsApp", "push": "push"}


def _sent(said: dict[str, Any]) -> str:
    campaign = f"“{said['campaign']}”" if said.get("campaign") else "A marketing message"
    how = f" by {BY.get(str(said['channel']), plain(str(said['channel'])).lower())}" if said.get("channel") else ""
    if said.get("prevented"):
        return f"{campaign} was not sent, since marketing is held"
    if said.get("leak"):
        return f"{campaign} reached this customer{how} although marketing is held: {LEAK.get(str(said.get('cause')), 'nobody knows why')}"
    return f"{campaign} was sent{how} by marketing"


SCORED: dict[str, str] = {"csat": "{} of 5", "nps": "{} of 10", "effort": "{} of 7 for ease"}


def scored(kind: str, score: Any) -> str:
    """An answer to a survey: `4 of 5`."""
    return SCORED.get(kind, "{}").format(score)


def program(actor: str) -> str:
    """Who did it, where it was no agent: a program of the business, or somebody at the command line."""
    kind, _, name = actor.partition(":")
    return {"program": f"the program {name}" if name else "a program", "command line": "somebody at the command line"}.get(kind, "")


def _merged(said: dict[str, Any], other: str) -> str:
    how = f" ({said['rule']})" if said.get("rule") else ""
    return f"{other[0].upper()}{other[1:]} turned out to be the same person{how}"


def _assigned(told: dict[str, Any], actor: str, names: Mapping[int, str]) -> str:
    assignee = next((told[key] for key in ("assignee_id", "assignee", "to") if key in told), None)
    name = names.get(assignee, "") if isinstance(assignee, int) else ""
    if assignee is None:
        return f"{actor} unassigned the ticket" if actor else "The ticket is nobody's now"
    if not name:
        return "The ticket was assigned" + (f" by {actor}" if actor else "")
    if actor == name:
        return f"{actor} took the ticket"
    return f"{actor} assigned {name}" if actor else f"Assigned to {name}"


def hold_reason(reason: str, source: str = "") -> str:
    """Why somebody is held; with the ticket's number where a ticket (`ticket:12`) is the source."""
    words = HOLD_REASON.get(reason, plain(reason))
    number = source.removeprefix("ticket:")
    return f"{words} #{number}" if number.isdigit() else words


def tags(text: str) -> list[str]:
    """A ticket's tags, as it keeps them."""
    return [str(tag) for tag in json.loads(text)]


def proof(word: str) -> str:
    return PROOF.get(word, plain(word) or "Not verified")


def likely(score: int) -> str:
    """How likely two customers are one person, of a score in thousandths."""
    return "Very likely" if score >= 850 else "Likely" if score >= 700 else "Possibly"


def source(word: str) -> str:
    """Where an attribute comes from: `record:import`, `agent:7`, `signed:shop`, `claimed`."""
    kind, _, name = word.partition(":")
    known = {
        "agent": "noted by an agent",
        "signed": "signed by your site",
        "site": "signed by your site",
        "claimed": "said by the customer",
        "program": f"from the program {name}" if name else "from a program",
    }
    return known.get(kind, "from your own records")


# --- names and addresses ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=4_096)
def address(kind: str, value: str) -> str:
    """An identifier as people write it; a phone number in groups, a visitor's random key not at all."""
    if kind == "device":
        return "Chat visitor"
    bare = value.removeprefix("whatsapp:")
    if kind == "phone":
        import phonenumbers

        try:
            number = phonenumbers.parse(bare, None)
        except phonenumbers.NumberParseException:
            return bare
        return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL))
    return bare


def customer_name(name: str | None, kind: str | None, value: str | None) -> str:
    """A customer's name, or what they can be called by while nobody knows it."""
    called = " ".join((name or "").split())
    if called:
        return called
    return address(kind, value) if kind and value else "Unknown person"


def initials(name: str) -> str:
    """One or two letters; a mark for names without letters (phone numbers)."""
    words = [word for word in re.split(r"[\s.@_-]+", name) if word and unicodedata.category(word[0])[0] == "L"]
    if not words:
        return "#"
    return (words[0][0] + (words[-1][0] if len(words) > 1 else "")).upper()


def hue(name: str) -> int:
    """Which of the eight avatar colours a name gets; the same in every process."""
    return sum(index * ord(letter) for index, letter in enumerate(name[:24], 1)) % 8


def size(count: int) -> str:
    """Bytes as people read them."""
    if count < 1_000:
        return f"{count} bytes" if count != 1 else "1 byte"
    for unit, scale in (("KB", 1_000), ("MB", 1_000_000)):
        if count < scale * 999.5:
            return f"{count / scale:.0f} {unit}" if count >= scale * 9.95 else f"{count / scale:.1f} {unit}"
    return f"{count / 1e9:.1f} GB"


_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u200b-\u200d\ufeff\x00-\x1f\x7f]")


def file_name(name: str) -> str:
    """A sender's file name as it may be shown: marks that turn or hide letters become visible (`exe.gpj` tricks)."""
    return _BIDI.sub("\ufffd", name)[:255] or "file"


_LINK = re.compile(r"https?://[^\s<>\"'\u2028\u2029]{1,2000}")


def pieces(text: str) -> list[tuple[str, bool]]:
    """Text cut into (piece, is a web address); closing punctuation stays outside the address."""
    cut: list[tuple[str, bool]] = []
    at = 0
    for match in _LINK.finditer(text):
        url = match.group().rstrip(".,;:!?*_")
        while url.endswith(")") and url.count("(") < url.count(")"):
            url = url[:-1]
        if len(url) <= len("https://"):
            continue
        if match.start() > at:
            cut.append((text[at : match.start()], False))
        cut.append((url, True))
        at = match.start() + len(url)
    if at < len(text):
        cut.append((text[at:], False))
    return cut


def quoted_from(text: str) -> int:
    """Where the quoted history at the end of a mail begins (`> ` lines), or the text's length."""
    lines = text.splitlines(keepends=True)
    end = len(lines)
    while end and (not lines[end - 1].strip() or lines[end - 1].startswith(">")):
        end -= 1
    if end and end < len(lines) and lines[end - 1].rstrip().endswith(":") and any(line.startswith(">") for line in lines[end:]):
        end -= 1  # "On Tuesday Maria wrote:"
    if not any(line.startswith(">") for line in lines[end:]):
        return len(text)
    return sum(len(line) for line in lines[:end])


def found_pieces(snippet: str, begin: str, end: str) -> list[tuple[str, bool]]:
    """A search snippet cut into (piece, is a word found)."""
    cut: list[tuple[str, bool]] = []
    for index, part in enumerate(snippet.split(begin)):
        word, mark, rest = part.partition(end)
        if index and mark:
            cut += [(word, True), (rest, False)]
        else:
            cut.append((part.replace(end, ""), False))
    return [(piece, marked) for piece, marked in cut if piece]


# --- times -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def zone(name: str) -> tzinfo:
    """The time zone a browser named, or UTC for a name we do not know."""
    if not re.fullmatch(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}", name):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return UTC


def moment(at: int, where: tzinfo) -> datetime:
    return datetime.fromtimestamp(at / 1_000_000, where)


def iso(at: int) -> str:
    """RFC 3339 in UTC, to the second: what a `<time>` carries."""
    return moment(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(at: int, now: int, where: tzinfo) -> str:
    """How long ago, as short as a list wants it; the browser keeps it fresh by the same rule."""
    seconds = max(0, (now - at) // 1_000_000)
    if seconds < MINUTE:
        return "now"
    if seconds < HOUR:
        return f"{seconds // MINUTE}m"
    if seconds < DAY:
        return f"{seconds // HOUR}h"
    if seconds < 7 * DAY:
        return f"{seconds // DAY}d"
    then, today = moment(at, where), moment(now, where)
    return f"{then.day} {then:%b}" if then.year == today.year else f"{then:%b %Y}"


def clock(at: int, where: tzinfo) -> str:
    """A whole time: `Mon 23 Nov, 09:00`."""
    then = moment(at, where)
    return f"{then:%a} {then.day} {then:%b}, {then:%H:%M}"


def on(at: int, now: int, where: tzinfo) -> str:
    """A day within a sentence: `3 May`, with its year where that is another one."""
    then = moment(at, where)
    return f"{then.day} {then:%B}" + ("" if then.year == moment(now, where).year else f" {then.year}")


def time_of_day(at: int, where: tzinfo) -> str:
    return f"{moment(at, where):%H:%M}"


def day(at: int, now: int, where: tzinfo) -> str:
    """The heading of a day in the timeline."""
    then, today = moment(at, where), moment(now, where)
    if then.date() == today.date():
        return "Today"
    if then.date() == (today - timedelta(days=1)).date():
        return "Yesterday"
    year = "" if then.year == today.year else f" {then.year}"
    return f"{then:%A} {then.day} {then:%B}{year}"


def snooze_until(how: str, now: int, where: tzinfo) -> int | None:
    """When a snooze ends: after an `hour`, `tomorrow` at nine, or next Monday at nine (`week`), in the agent's own zone.

    None for any other word.
    """
    if how == "hour":
        return now + HOUR * 1_000_000
    today = moment(now, where)
    monday = 7 - today.weekday()
    # On a Sunday the next Monday is tomorrow: whoever says next week means the one after.
    ahead = {"tomorrow": 1, "week": monday if monday > 1 else 8}.get(how)
    if ahead is None:
        return None
    nine = (today + timedelta(days=ahead)).replace(hour=9, minute=0, second=0, microsecond=0)
    return int(nine.timestamp()) * 1_000_000


_ANSWER = re.compile(r"^(?:\s*(?:re|fwd?|aw|wg|sv|antw|tr|rif)\s*(?:\[\d{1,3}\])?\s*:)+", re.IGNORECASE)


def bare_subject(subject: str) -> str:
    """A subject without its `Re:`s and case: whether two mails have the same one."""
    return _ANSWER.sub("", subject[:998]).strip().casefold()
