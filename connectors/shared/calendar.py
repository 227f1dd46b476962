"""A calendar invitation as a few lines people can read (RFC 5545, RFC 5546). The `.ics` itself is kept as a file.

One pass over the lines of its first event; repetitions are named and not computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from connectors.shared.mail_headers import clean, decode_text, quoted_end

MOST_BYTES = 200_000
MOST_PROPERTIES = 500
MOST_ATTENDEES = 10

_METHODS = {
    "REQUEST": "Invitation",
    "PUBLISH": "Event",
    "ADD": "Another date for",
    "CANCEL": "Cancelled",
    "REPLY": "Answer to the invitation",
    "COUNTER": "Another time proposed for",
    "DECLINECOUNTER": "The other time was declined for",
    "REFRESH": "Asks for the latest state of",
}
_ANSWERS = {
    "ACCEPTED": "accepts",
    "DECLINED": "declines",
    "TENTATIVE": "accepts tentatively",
    "DELEGATED": "has passed it on",
    "NEEDS-ACTION": "has not answered",
}
_EVERY = {"DAILY": "every day", "WEEKLY": "every week", "MONTHLY": "every month", "YEARLY": "every year"}

Property = tuple[str, dict[str, str], str]  # its name, its parameters, its value; its name in small letters, its parameters' in capitals


def summary(data: bytes) -> str:
    """What an iCalendar file says of its first event, in plain lines; empty where it has none. Never raises."""
    method, event = "", dict[str, tuple[dict[str, str], str]]()
    attendees: list[tuple[dict[str, str], str]] = []
    inside: list[str] = []
    for name, parameters, value in _properties(decode_text(data[:MOST_BYTES], "utf-8")):
        if name == "begin":
            inside.append(value.strip().upper())
        elif name == "end":
            closed = inside.pop() if inside else ""
            if closed == "VEVENT":
                break
        elif inside[-1:] == ["VCALENDAR"] and name == "method":
            method = value.strip().upper()
        elif inside[-1:] == ["VEVENT"] and name == "attendee":
            attendees += [(parameters, value)] if len(attendees) < MOST_ATTENDEES else []
        elif inside[-1:] == ["VEVENT"]:
            event.setdefault(name, (parameters, value))
    if not event:
        return ""
    if event.get("status", ({}, ""))[1].strip().upper() == "CANCELLED":
        method = "CANCEL"
    lines = [f"{_METHODS.get(method, 'Event')}: {_words(event, 'summary', 300) or '(no title)'}"]
    lines += [f"When: {when}"] if (when := _when(event)) else []
    lines += [f"Where: {where}"] if (where := _words(event, "location", 300)) else []
    if "organizer" in event:
        lines.append(f"Organiser: {_person(*event['organizer'])}")
    if method in ("REPLY", "COUNTER"):
        for parameters, value in attendees:
            lines.append(f"{_person(parameters, value)} {_ANSWERS.get(parameters.get('PARTSTAT', '').upper(), 'has not answered')}.")
    said = _words(event, "comment", 1_000)
    lines += [said] if said else []
    description = _unescaped(event.get("description", ({}, ""))[1])[:4_000].strip()
    return "\n".join(lines) + (f"\n\n{description}" if description else "")


def _properties(text: str) -> Iterator[Property]:
    """The content lines, unfolded (RFC 5545 section 3.1)."""
    held: list[str] = []
    count = 0
    for line in [*text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), ""]:
        if line[:1] in (" ", "\t"):
            held.append(line[1:])
            continue
        if held and (found := _property("".join(held))) is not None:
            yield found
            count += 1
            if count >= MOST_PROPERTIES:
                return
        held = [line] if line else []


def _property(line: str) -> Property | None:
    """`NAME;PARAM=value;PARAM="value":the value`; None where it is not that."""
    words: list[str] = [""]
    at = 0
    while at < len(line) and at < 10_000:
        char = line[at]
        if char == '"':
            at, inner = quoted_end(line, at)
            words[-1] += inner
            continue
        if char == ":":
            name, *rest = words
            pairs = [word.partition("=") for word in rest]
            return name.strip().lower(), {key.strip().upper(): value for key, _, value in pairs}, line[at + 1 :]
        if char == ";":
            words.append("")
        else:
            words[-1] += char
        at += 1
    return None


def _unescaped(value: str) -> str:
    """A TEXT value as written by people (RFC 5545 section 3.3.11)."""
    out: list[str] = []
    at = 0
    while at < len(value):
        escaped = value[at] == "\\" and at + 1 < len(value)
        char = value[at + 1] if escaped else value[at]
        out.append("\n" if escaped and char in "nN" else char)
        at += 2 if escaped else 1
    return "".join(char for char in "".join(out) if char == "\n" or char.isprintable())


def _words(event: dict[str, tuple[dict[str, str], str]], name: str, limit: int) -> str:
    return clean(_unescaped(event.get(name, ({}, ""))[1][:10_000]), limit)


def _person(parameters: dict[str, str], value: str) -> str:
    name, address = clean(parameters.get("CN", ""), 100), value.strip()
    address = clean(address[7:] if address.lower().startswith("mailto:") else address, 200)
    return f"{name} <{address}>" if name and name != address else address


def _when(event: dict[str, tuple[dict[str, str], str]]) -> str:
    start = _moment(*event["dtstart"]) if "dtstart" in event else None
    if start is None:
        return ""
    moment, whole_day, zone = start
    end = _moment(*event["dtend"]) if "dtend" in event else None
    said = _date(moment) if whole_day else f"{_date(moment)}, {moment:%H:%M}"
    if end is not None and whole_day:
        last = end[0] - timedelta(days=1) if end[0].year > 1 else end[0]  # the end of whole days is the day after (RFC 5545 section 3.6.1)
        said += f" to {_date(last)}" if last > moment else ""
    elif end is not None:
        other_zone = f" ({end[2]})" if end[2] != zone else ""
        said += f" to {end[0]:%H:%M}{other_zone}" if end[0].date() == moment.date() else f" to {_date(end[0])}, {end[0]:%H:%M}{other_zone}"
    said += "" if whole_day else f" ({zone})"
    rule = dict(pair.partition("=")[::2] for pair in event.get("rrule", ({}, ""))[1][:500].upper().split(";"))
    every = _EVERY.get(rule.get("FREQ", ""), "")
    return said + (f", repeated {every}" if every and rule.get("INTERVAL", "1") == "1" else ", repeated" if rule.get("FREQ") else "")


_MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def _date(moment: datetime) -> str:
    return f"{_DAYS[moment.weekday()]}, {moment.day} {_MONTHS[moment.month - 1]} {moment.year}"


def _moment(parameters: dict[str, str], value: str) -> tuple[datetime, bool, str] | None:
    """A DATE or DATE-TIME with the words for its zone; the zone is named as the file names it, never converted."""
    text = value.strip()
    for pattern, whole_day in (("%Y%m%dT%H%M%S", False), ("%Y%m%d", True)):
        try:
            moment = datetime.strptime(text.rstrip("Zz")[:20], pattern)  # noqa: DTZ007  (a wall clock, shown with the name of its zone)
        except ValueError:
            continue
        named = clean(parameters.get("TZID", ""), 60)
        return moment, whole_day, "UTC" if text[-1:] in "Zz" else named or "their local time"
    return None
