"""A ticket's card as Slack shows it (Block Kit), and text from strangers as Slack shows it literally."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub.team_rooms import Alert, TicketCard

_STATUS: Mapping[str, str] = {"open": "Open", "pending": "Pending", "snoozed": "Snoozed", "resolved": "Resolved"}

# Limits of Block Kit (https://docs.slack.dev/reference/block-kit/blocks): header 150 characters, section 3,000.
_HEADER, SECTION, _LINE, _FALLBACK = 140, 2_900, 200, 300


def plain(text: str, limit: int) -> str:
    """Text as Slack shows it literally: `&`, `<` and `>` escaped, control characters dropped, at most `limit` characters long.

    Escaping comes before counting, so that a name of ampersands cannot push a block over Slack's limit.
    https://docs.slack.dev/messaging/formatting-message-text, "Escaping text".
    """
    # Of what cannot be printed, line ends stay, and the joiner that makes one emoji of several.
    spaced = (" " if char.isspace() and char != "\n" else char for char in text.strip())
    escaped = [_ESCAPED.get(char, char) for char in spaced if char in "\n\u200d" or char.isprintable()]
    if sum(map(len, escaped)) <= limit:
        return "".join(escaped)
    kept, length = [], 1
    for piece in escaped:
        length += len(piece)
        if length > limit:
            break
        kept.append(piece)
    return "".join(kept).rstrip() + "…"


_ESCAPED: Mapping[str, str] = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def _line(text: str, limit: int) -> str:
    return plain(" ".join(text.split()), limit)


def _text(text: str) -> dict[str, Any]:
    # plain_text throughout: what customers write is never read as formatting, as a link or as a mention.
    return {"type": "plain_text", "text": text, "emoji": False}


def fallback(card: TicketCard) -> str:
    """The card in one line, for notifications and screen readers."""
    return _line(f"{_STATUS.get(card.status, card.status)}: {card.customer} ({card.channel}): {card.preview}", _FALLBACK)


def blocks(card: TicketCard) -> list[dict[str, Any]]:
    """The card as Block Kit blocks. Button values are the ticket's id."""
    customer = _line(card.customer, _HEADER - 30) or "Customer"
    words = [plain(part, SECTION // 3) for part in (card.subject, card.preview) if part.strip()]
    facts = [
        _STATUS.get(card.status, _line(card.status, _LINE)),
        f"via {_line(card.channel, _LINE)}",
        f"Assigned to {_line(card.assignee, _LINE)}" if card.assignee else "Nobody has claimed it",
    ]
    if card.held:
        facts.append("Marketing held")
    buttons: list[dict[str, Any]] = []
    if card.status == "open" and not card.assignee:
        buttons.append(_button("Claim", "claim", card.ticket_id) | {"style": "primary"})
    if card.status != "resolved":
        buttons.append(_button("Resolve", "resolve", card.ticket_id))
    buttons.append(_button("Open", "open", card.ticket_id) | {"url": card.url})
    return [
        {"type": "header", "text": _text(f"{customer} · ticket {card.ticket_id}")},
        {"type": "section", "text": _text("\n".join(words) or "(no text)")},
        {"type": "context", "elements": [_text(fact) for fact in facts]},
        {"type": "actions", "elements": buttons},
    ]


def _button(label: str, action: str, ticket_id: int) -> dict[str, Any]:
    return {"type": "button", "text": _text(label), "action_id": action, "value": str(ticket_id)}


def alert_line(alert: Alert) -> str:
    """An alert in one line."""
    return _line(f"{'Over: ' if alert.ended else ''}{alert.title}", _FALLBACK)


def alert_blocks(alert: Alert) -> list[dict[str, Any]]:
    """An alert: what is wrong (or is over), why it matters, and where it is mended."""
    shown: list[dict[str, Any]] = [{"type": "header", "text": _text(_line(f"{'Over: ' if alert.ended else ''}{alert.title}", _HEADER))}]
    if alert.ended:
        return shown
    shown.append({"type": "section", "text": _text(plain(alert.text, SECTION))})
    link = {"type": "button", "text": _text("Look at it"), "url": alert.url, "action_id": "open"}
    return [*shown, {"type": "actions", "elements": [link]}]
