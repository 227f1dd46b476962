"""Rows as the write path holds them, of what is between us and marketing tools: `records` beside them is the rest, in the same manner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(slots=True)
class Mark:
    """How one identifier stands in one marketing tool, as far as we know: what it was last told, and what reading it back showed.

    `state` is `pending` (not told yet, or being told), `absent` (the tool knows nobody by it), `accepted`, `confirmed` (read back and
    right), `effective` (the tool's own segment shows it), `drifted` or `failed`. `said` is the JSON of what it was told. `asked_at` is
    when the change it answers was decided; `check_at` when it is looked at next, after `looks` looks since it was told.
    """

    table: ClassVar[str] = "mark"
    id: int
    destination: str
    kind: str
    value: str
    site: str
    customer_id: int
    profile: str
    state: str
    held: bool
    version: int
    said: str
    asked_at: int
    until: int | None = None
    accepted_at: int | None = None
    confirmed_at: int | None = None
    effective_at: int | None = None
    checked_at: int | None = None
    check_at: int | None = None
    looks: int = 0
    drifts: int = 0
    error: str = ""


@dataclass(slots=True)
class Alarm:
    """Something a person should look at, one row for each `key` for ever: raised, and ended when it is over."""

    table: ClassVar[str] = "alarm"
    id: int
    key: str
    level: str
    title: str
    text: str
    url: str
    raised_at: int
    ended_at: int | None = None


@dataclass(slots=True)
class CampaignSeen:
    """A campaign of a marketing tool, as last seen there. `endangered` is a JSON list of the held customers it would reach."""

    table: ClassVar[str] = "campaign_seen"
    id: int
    destination: str
    campaign_id: str
    name: str
    channel: str
    status: str
    seen_at: int
    send_at: int | None
    frozen_at: int | None
    excludes_hold: str  # yes | no | unknown
    audiences: str
    mend: str
    url: str
    revertable: bool
    endangered: str
    risk: str = ""
    gone_at: int | None = None


@dataclass(slots=True)
class SendSeenRow:
    """A marketing message a tool says it sent, or skipped (`prevented`). `leak`: its recipient was held then; `cause` says why it went."""

    table: ClassVar[str] = "send_seen"
    id: int
    destination: str
    provider_key: str
    at: int
    seen_at: int
    kind: str
    value: str
    profile: str
    channel: str
    campaign_id: str
    campaign: str
    prevented: bool
    customer_id: int | None = None
    leak: bool = False
    cause: str = ""


@dataclass(slots=True)
class Survey:
    """The one question about one ticket. `kind` is `csat`, `nps` or `effort`; `state` is `waiting`, `asked`, `answered`, `expired` or
    `skipped` (`why` says for what reason)."""

    table: ClassVar[str] = "survey"
    id: int
    ticket_id: int
    channel_id: int
    identifier_id: int
    kind: str
    state: str
    due_at: int
    why: str = ""
    asked_at: int | None = None
    expires_at: int | None = None
    answered_at: int | None = None
    score: int | None = None
    comment: str = ""
    message_id: int | None = None


@dataclass(slots=True)
class FollowUp:
    """What an agent promised to tell a customer when something happens (`key`). `state` is `waiting`, `sent`, `refused`, `cancelled`
    or `expired`."""

    table: ClassVar[str] = "follow_up"
    id: int
    key: str
    ticket_id: int
    text: str
    state: str
    agent_id: int
    created_at: int
    channel_id: int | None = None
    identifier_id: int | None = None
    expires_at: int | None = None
    fired_at: int | None = None
    fired_by: str = ""
    message_id: int | None = None
    error: str = ""


@dataclass(slots=True)
class ProofRow:
    """One link of the chain of proof: a fact about holds, and the SHA-256 over it and the link before. Appended, never changed."""

    table: ClassVar[str] = "proof"
    seq: int
    event_seq: int
    type: str
    at: int
    customer_id: int | None
    destination: str
    data: str
    hash: str
