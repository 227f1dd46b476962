"""One timeline out of a conversation's messages and its tickets' events, in their order, ready to be shown.

Pure: rows in, lines out. Messages keep the order of their ids and events that of their sequence; between the two an event
stands before the message that caused it, else by its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Any

from hub.conversations import wording
from hub.conversations.stopping import wants_no_more

ANSWERED = 120  # characters shown of a message that is quoted
TOGETHER = 180 * 1_000_000  # messages of one person within so many microseconds share one heading


@dataclass(frozen=True, slots=True)
class Day:
    key: str
    label: str


@dataclass(frozen=True, slots=True)
class Happening:
    """A line about a ticket or a hold."""

    key: str
    icon: str
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class File:
    id: str
    name: str
    size: str
    inline: bool  # stands inside a mail's HTML: a logo as often as a screenshot
    picture: bool  # one of the types the attachment route shows inline; it still looks at the bytes itself
    state: str
    error: str


@dataclass(frozen=True, slots=True)
class Said:
    """A message or note as it is shown."""

    key: str
    id: int
    direction: str
    author: str
    at: int
    channel_id: int | None
    subject: str
    text: tuple[tuple[str, bool], ...]
    quoted: str
    cut: bool
    has_html: bool
    status: str
    tone: str
    status_help: str
    error: str
    doubt: str
    unproven: bool  # nothing proves that the sender is whose message this is taken for
    address: str  # by which of the customer's addresses it came or went, as people write it
    automatic: str
    files: tuple[File, ...]
    retry: str  # `failed` or `unknown` where a person may send it again, else empty
    joined: bool  # continues what stands above it: no heading of its own
    stops: bool = False  # sounds like a wish to be written to no more
    reactions: tuple[str, ...] = ()
    edited: tuple[tuple[str, bool], ...] = ()  # the latest wording, where they changed it
    deleted: bool = False  # they took it back; it is kept
    answers: str = ""  # the beginning of the message it quotes
    template: bool = False
    mailed: bool = False  # a mail that came in: its original can be had


Line = Day | Happening | Said

PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


def order(messages: Sequence[Any], events: Sequence[Any]) -> list[tuple[str, Any]]:
    """Merge messages and events (each oldest first) into one sequence of ("message" | "event", row)."""
    merged: list[tuple[str, Any]] = []
    at = 0
    for message in messages:
        cause = next((i for i in range(at, len(events)) if events[i].message_id == message.id), None)
        while at < len(events) and (events[at].at < message.created_at or (cause is not None and at <= cause)):
            merged.append(("event", events[at]))
            at += 1
        merged.append(("message", message))
    merged += [("event", event) for event in events[at:]]
    return merged


def arrange(
    messages: Sequence[Any],
    events: Sequence[Any],
    files: Iterable[Any],
    *,
    customer: str,
    agents: Mapping[int, str],
    now: int,
    zone: tzinfo,
    above: Any = None,
    changes: Iterable[Any] = (),
) -> list[Line]:
    """The lines of a timeline, oldest first; `above` is the message before the first one, if there is one."""
    of: dict[int, list[File]] = {}
    for row in files:
        picture = row.content_type in PICTURES and row.size > 0
        shown = File(
            row.id, wording.file_name(row.name), wording.size(row.size), bool(row.inline or row.content_id), picture, row.state, row.error
        )
        of.setdefault(row.message_id, []).append(shown)
    done: dict[int, list[Any]] = {}
    for change in changes:
        done.setdefault(change.message_id, []).append(change)
    said = {row.provider_id: row.text if row.reply_text is None else row.reply_text for row in messages if row.provider_id}
    lines: list[Line] = []
    # What came with a joined record was not let go: its holds go on here.
    events = [row for row in events if not (row.type == "hold.released" and "joined_into" in wording.told(row.data))]
    last, subject = above, above.subject if above is not None else ""
    today = wording.day(above.created_at, now, zone) if above is not None else ""
    for kind, row in order(messages, events):
        at = row.created_at if kind == "message" else row.at
        heading = wording.day(at, now, zone)
        if heading != today:
            today = heading
            lines.append(Day(f"day-{wording.moment(at, zone):%Y-%m-%d}", heading))
            last = None
        if kind == "event":
            actor = agents.get(row.agent_id, "") if row.agent_id is not None else ""
            text = wording.describe(row.type, row.data, actor, row.ticket_id, agents, zone)
            lines.append(Happening(f"event-{row.seq}", wording.EVENT_ICON.get(row.type, "dot"), text, row.at))
            last = None
        else:
            line = _said(row, last, subject, tuple(of.get(row.id, ())), customer, agents)
            lines.append(replace(line, answers=_line(said.get(row.quoted_id, "")), **_changed(done.get(row.id, ()))))
            last, subject = row, row.subject or subject
    return lines


def _changed(changes: Sequence[Any]) -> dict[str, Any]:
    """What was done to a message, as it stands: the latest of a kind and person counts."""
    reactions = {change.identifier_id: change.text for change in changes if change.what == "reaction"}
    edits = [change.text for change in changes if change.what == "edit"]
    return {
        "reactions": tuple(text for text in reactions.values() if text),
        "edited": tuple(wording.pieces(edits[-1])) if edits else (),
        "deleted": any(change.what == "deletion" for change in changes),
    }


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= ANSWERED else line[: ANSWERED - 1] + "\u2026"


def _shown(row: Any) -> tuple[str, str]:
    """What a message says this time, and what of it is folded away: the whole mail, where it quotes or is signed."""
    if row.direction != "in":
        return row.text, ""
    if row.reply_text is not None:
        return row.reply_text, row.text
    end = wording.quoted_from(row.text)
    return row.text[:end].rstrip(), row.text[end:].strip("\r\n")


def _said(row: Any, last: Any, subject: str, files: tuple[File, ...], customer: str, agents: Mapping[int, str]) -> Said:
    nobody = "Sent by itself" if row.automatic else "An agent"
    author = agents.get(row.agent_id, nobody) if row.direction != "in" else _sender(row.sender_name, customer)
    status, tone = wording.MESSAGE_STATUS.get(row.status, ("", "calm"))
    own, folded = _shown(row)
    joined = (
        last is not None
        and (last.direction, last.agent_id, last.channel_id, last.identifier_id, last.proof, last.automatic)
        == (row.direction, row.agent_id, row.channel_id, row.identifier_id, row.proof, row.automatic)
        and 0 <= row.created_at - last.created_at <= TOGETHER
        and not row.subject
    )
    return Said(
        key=f"message-{row.id}",
        id=row.id,
        direction=row.direction,
        author=author,
        at=row.created_at,
        channel_id=row.channel_id,
        # A mail thread repeats its subject with every answer: shown when it is new.
        subject=row.subject if wording.bare_subject(row.subject) != wording.bare_subject(subject) else "",
        text=tuple(wording.pieces(own)),
        quoted=folded,
        cut=bool(row.cut),
        has_html=bool(row.has_html),
        status=status,
        tone=tone,
        status_help=wording.STATUS_HELP.get(row.status, ""),
        error=row.error,
        doubt=row.doubt,
        unproven=row.direction == "in" and row.proof in wording.UNPROVEN,
        address=wording.address(row.kind, row.address) if row.direction != "note" and row.kind and row.kind != "device" else "",
        automatic=wording.AUTOMATIC.get(row.automatic, wording.plain(row.automatic)) if row.automatic else "",
        files=files,
        retry=row.status if row.direction == "out" and row.status in ("failed", "unknown") else "",
        joined=joined,
        stops=row.direction == "in" and not row.automatic and wants_no_more(own),
        template=bool(row.template),
        mailed=row.direction == "in" and row.mail_id is not None,
    )


def _sender(name: str, customer: str) -> str:
    """Who wrote: the customer's name, unless the channel named somebody else (a shared mailbox)."""
    words = name.split()
    known = customer.casefold().split()
    return customer if all(word.casefold() in known for word in words) else " ".join(words)
