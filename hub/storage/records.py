"""Rows as the write path holds them: plain slotted objects, one class a table, column for column.

The SQLModel classes in `tables` describe the same columns to SQLAlchemy and Alembic; a test holds the two equal. They are
apart because an ORM object on the hot path costs thirteen times a plain one. Times are microseconds UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hub.storage.marketing_records import Alarm, CampaignSeen, FollowUp, Mark, ProofRow, SendSeenRow, Survey


@dataclass(slots=True)
class Customer:
    """A person, as far as proof has told them apart: a node ("home") to which identifiers and tickets belong for ever.

    Joined nodes are one live customer, the one with the lowest id; the others' `merged_into` names it, in one hop. The conversation
    is the live customer's one timeline and bears the same id: it has no row of its own. `own_name` is what this node was told,
    `name` what is shown.
    """

    table: ClassVar[str] = "customer"
    id: int
    name: str
    created_at: int
    hold_version: int = 0
    merged_into: int | None = None
    own_name: str = ""


@dataclass(slots=True)
class Identifier:
    """One canonical (kind, site, value). `standing` is `proven`, or `asserted` for an address nobody proved: the two never meet.

    `home_id` is the node it belongs to and the truth; `customer_id` is that node's live customer, cached. Both are empty for a value
    that was only ever claimed. `epoch` counts the holders of a value that passed on (a recycled number). `shared_at`: proved by two
    people, and no bridge between anybody since. `address` is the value as the channel last delivered it. `bounced_at`: what was sent
    there came back for good, and why (`bounce`); over as soon as they write from it.
    """

    table: ClassVar[str] = "identifier"
    id: int
    kind: str
    site: str
    value: str
    standing: str
    epoch: int
    customer_id: int | None
    proof: str
    address: str
    first_seen: int
    last_proof_at: int
    home_id: int | None = None
    shared_at: int | None = None
    ended_at: int | None = None
    bounced_at: int | None = None
    bounce: str = ""


@dataclass(slots=True)
class Evidence:
    """One observed fact: that an identifier spoke, or that it stood beside or claimed another one. Appended; a claim an agent
    dismissed or a record that no longer says so bears the time it was withdrawn."""

    table: ClassVar[str] = "evidence"
    id: int
    identifier_id: int
    other_id: int | None
    proof: str
    source: str
    at: int
    withdrawn_at: int | None = None


@dataclass(slots=True)
class JoinLog:
    """One tie between two nodes (`op` join: by proof; merge: by an agent), or the end of one (`undoes`). Appended, never changed.

    A tie is live until a later row undoes it; the nodes it ties are one customer. `left_identifier` and `right_identifier` are the
    two that were proved together, where proof made it.
    """

    table: ClassVar[str] = "join_log"
    id: int
    op: str
    left_id: int
    right_id: int
    evidence_ids: str
    rule: str
    actor: str
    at: int
    undoes: int | None = None
    left_identifier: int | None = None
    right_identifier: int | None = None


@dataclass(slots=True)
class CannotLink:
    """Somebody said these two nodes are two people: no later proof joins them by itself, until an agent does (`ended_at`)."""

    table: ClassVar[str] = "cannot_link"
    id: int
    left_id: int
    right_id: int
    actor: str
    at: int
    ended_at: int | None = None


@dataclass(slots=True)
class Suggestion:
    """A hint that two nodes may be one person: why, and how likely in thousandths. Several a pair; joins nobody."""

    table: ClassVar[str] = "suggestion"
    id: int
    left_id: int
    right_id: int
    rule: str
    score: int
    reason: str
    at: int


@dataclass(slots=True)
class MatchKey:
    """A node stands in this block of people who may be alike: only they are compared."""

    table: ClassVar[str] = "match_key"
    key: str
    customer_id: int


@dataclass(slots=True)
class Attribute:
    """Something the business's record or a site says of a node: a view over them is the customer's, none overwrites another's."""

    table: ClassVar[str] = "attribute"
    id: int
    customer_id: int
    name: str
    value: str
    source: str
    at: int


@dataclass(slots=True)
class OptOut:
    """This address must not be written to on this channel (a STOP). It belongs to the address, whoever holds it: joins do not move it.
    `words` is what was said, `actor` the agent who understood it so, where the channel did not. `scope` is `all`, or `marketing`: then
    support may go on writing."""

    table: ClassVar[str] = "opt_out"
    id: int
    channel_id: int
    kind: str
    value: str
    at: int
    message_id: int | None = None
    ended_at: int | None = None
    words: str = ""
    actor: str = ""
    scope: str = "all"


@dataclass(slots=True)
class OneTimeCode:
    """A code sent to an address that a chat visitor says is theirs. The code itself is kept nowhere: it follows from the id and a key.
    `state` is `asked`, `used` or `spent`."""

    table: ClassVar[str] = "one_time_code"
    id: str
    channel_id: int
    device: str
    kind: str
    value: str
    address: str
    state: str
    created_at: int
    expires_at: int
    tries: int = 0
    asked_by: int | None = None


@dataclass(slots=True)
class MessageCopy:
    """An address (canonical, and as it was given) a mail was copied to, beside ours and its sender's: it may be shown that mail, and
    proves nothing."""

    table: ClassVar[str] = "message_copy"
    message_id: int
    value: str
    address: str


@dataclass(slots=True)
class Spread:
    """How a conversation's messages lie: what one identifier said or was told on one ticket, apart from what an agent `placed` there.
    No table: read to part two people."""

    ticket_id: int
    identifier_id: int
    placed: bool
    last_id: int
    last_in_id: int | None


@dataclass(slots=True)
class Ticket:
    """One episode of work, of one node for ever (`home_id`). `channel_id` and `identifier_id` are where the customer last wrote from:
    the default way back. `tags` is a JSON list of words. `hold_ended_at`: it holds nobody any more until it is reopened, since it
    did so for longer than allowed or an agent ended it. `review` says why an agent must first decide whose mail this is, empty where
    nobody must; `review_of` is the ticket it claims to belong to; `reviewed_at`: an agent let its sender stand here."""

    table: ClassVar[str] = "ticket"
    id: int
    conversation_id: int
    status: str
    subject: str
    brand: str
    channel_id: int
    identifier_id: int
    opened_at: int
    last_at: int
    preview: str
    version: int = 1
    assignee_id: int | None = None
    resolved_at: int | None = None
    snoozed_until: int | None = None
    waiting_since: int | None = None
    last_inbound_id: int | None = None
    home_id: int | None = None
    priority: str = "normal"
    tags: str = "[]"
    spam_at: int | None = None
    hold_ended_at: int | None = None
    review: str = ""
    review_of: int | None = None
    reviewed_at: int | None = None


@dataclass(slots=True)
class Participant:
    """Somebody an agent admitted to a ticket's mails, by their canonical e-mail address (and as it was given): their mails of its thread
    stand on it, answers may be copied to them. Proves nothing."""

    table: ClassVar[str] = "participant"
    ticket_id: int
    value: str
    address: str
    agent_id: int
    at: int
    ended_at: int | None = None


@dataclass(slots=True)
class MessageChange:
    """What was done to a message after it was said (`reaction`, `edit`, `deletion`), by the one who wrote from `identifier_id`. The
    message itself stays as it was; the latest of a kind and person counts."""

    table: ClassVar[str] = "message_change"
    id: int
    message_id: int
    what: str
    text: str
    identifier_id: int | None
    at: int


@dataclass(slots=True)
class Bookmark:
    """Where a channel that fetches its messages has come to, in its own words."""

    table: ClassVar[str] = "bookmark"
    channel_id: int
    value: str


@dataclass(slots=True)
class MailedAnswer:
    """An answer in the chat that nobody saw and that was mailed, once, to the address the visitor had given (canonical, and as given).
    `state` is `due`, `mailed`, `seen` (before it was mailed) or `skipped` (too many that day, or no address). `code` is a one-time code's
    id, for the link in that mail."""

    table: ClassVar[str] = "mailed_answer"
    message_id: int
    value: str
    address: str
    state: str
    due_at: int
    at: int | None = None
    code: str = ""


@dataclass(slots=True)
class Message:
    """One thing said. `direction` is `in`, `out` or `note`; a note never leaves. `identifier_id` is whom it came from or
    goes to and is the truth; `conversation_id` is derived from it and cached. A note follows its ticket, and so does a message
    an agent `placed` there. `reply_text` is what of `text` was written this time, None where that is all of it. `quoted_id` is the
    provider's id of the message this one answers. `template` is the approved template it was sent as (JSON), `spam` what a filter made
    of it (JSON)."""

    table: ClassVar[str] = "message"
    id: int
    conversation_id: int
    ticket_id: int | None
    direction: str
    status: str
    text: str
    created_at: int
    channel_id: int | None = None
    identifier_id: int | None = None
    agent_id: int | None = None
    proof: str = ""
    subject: str = ""
    html: str | None = None
    sender_name: str = ""
    automatic: str = ""
    doubt: str = ""
    error: str = ""
    sent_at: int | None = None
    mail_id: str | None = None
    in_reply_to: str = ""
    provider_id: str | None = None
    draft_key: str | None = None
    raw_id: int | None = None
    placed: bool = False
    reply_text: str | None = None
    quoted_id: str = ""
    template: str = ""
    spam: str = ""


@dataclass(slots=True)
class Attachment:
    """A file of a message, the `position`th of it. `state` is `stored`, `pending` (to be fetched from the provider) or `failed`.
    `thumbnail` is the digest of a small picture made of it, `-` where none can be; `scan` is `clean`, the name of what a scanner found,
    or empty where nobody looked."""

    table: ClassVar[str] = "attachment"
    id: str
    message_id: int
    name: str
    content_type: str
    size: int
    sha256: str
    content_id: str
    inline: bool
    state: str
    source_url: str = ""
    error: str = ""
    position: int = 0
    thumbnail: str = ""
    scan: str = ""


@dataclass(slots=True)
class RawRequest:
    """A webhook as it came. A large body lies in the blob store under `body_sha256` instead."""

    table: ClassVar[str] = "raw_request"
    id: int
    channel_id: int
    received_at: int
    verdict: str
    method: str
    url: str
    headers: str
    body: bytes | None
    body_sha256: str = ""


@dataclass(slots=True)
class Dedupe:
    """A delivery the channel has made. Kept for ever, erasure included: it is the tombstone too."""

    table: ClassVar[str] = "dedupe"
    channel_id: int
    provider_key: str
    at: int


@dataclass(slots=True)
class Quarantine:
    """A request we could not use. `kind` is `unparseable` (it had verified), `signature` (it had not) or `oversize` (not read);
    `state` is `waiting`, `replayed` or `dismissed`."""

    table: ClassVar[str] = "quarantine"
    id: int
    channel_id: int
    kind: str
    reason: str
    state: str
    received_at: int
    method: str
    url: str
    headers: str
    body: bytes | None
    body_sha256: str
    digest: str


@dataclass(slots=True)
class Delivery:
    """Something owed to the outside world: one outbox row.

    `lane` orders: only its oldest live row may be claimed. `kind` is `reply`, `card`, `hold`, `mark`, `alert`, `media`, `code`,
    `check` or `unseen`; `target` names the channel, room or destination. A row with a `slot` is level-triggered: one for ever, brought
    up to `version`.
    """

    table: ClassVar[str] = "delivery"
    id: int
    lane: str
    kind: str
    target: str
    subject_id: int
    payload: str
    state: str
    idempotent: bool
    created_at: int
    due_at: int
    attempt: int = 0
    version: int = 1
    slot: str | None = None
    ref: str = ""
    lease_token: str = ""
    lease_until: int = 0
    done_at: int | None = None
    error: str = ""


@dataclass(slots=True)
class Event:
    """A past-tense fact. Numbered by storage, last of all, in commit order."""

    table: ClassVar[str] = "event"
    seq: int
    type: str
    at: int
    customer_id: int | None = None
    ticket_id: int | None = None
    message_id: int | None = None
    agent_id: int | None = None
    data: str = "{}"


@dataclass(slots=True)
class Hold:
    """One reason not to market to a customer now. The customer is held while any is active and its lease runs. `home_id` is the node
    it is about, and goes with. `ends_at`: it is not renewed past this. `note` and `actor`: who decided it and why."""

    table: ClassVar[str] = "hold"
    id: int
    customer_id: int
    reason: str
    source: str
    scope: str
    placed_at: int
    lease_until: int
    released_at: int | None = None
    home_id: int | None = None
    ends_at: int | None = None
    note: str = ""
    actor: str = ""


@dataclass(slots=True)
class HoldLedger:
    """What was done to a hold, when, and which version the customer's hold had afterwards. Appended, never changed."""

    table: ClassVar[str] = "hold_ledger"
    id: int
    customer_id: int
    hold_id: int
    op: str
    reason: str
    source: str
    version: int
    at: int
    lease_until: int


@dataclass(slots=True)
class Agent:
    table: ClassVar[str] = "agent"
    id: int
    email: str
    name: str
    password_hash: str
    role: str
    created_at: int
    disabled_at: int | None = None


@dataclass(slots=True)
class AgentSession:
    """A login. Only the SHA-256 of its token is kept."""

    table: ClassVar[str] = "agent_session"
    token_hash: str
    agent_id: int
    csrf: str
    created_at: int
    seen_at: int
    expires_at: int


@dataclass(slots=True)
class LoginAttempt:
    """Failed logins of one key (an account or an address) in the window that began at `since`."""

    table: ClassVar[str] = "login_attempt"
    key: str
    since: int
    count: int


@dataclass(slots=True)
class ApiToken:
    table: ClassVar[str] = "api_token"
    id: int
    name: str
    token_hash: str
    created_at: int
    revoked_at: int | None = None


@dataclass(slots=True)
class ChannelState:
    """A configured channel's number, and when a delivery first verified under its present key."""

    table: ClassVar[str] = "channel"
    id: int
    name: str
    verified_at: int | None = None
    key_digest: str = ""


@dataclass(slots=True)
class ReadMarker:
    """How far an agent has read a ticket."""

    table: ClassVar[str] = "read_marker"
    ticket_id: int
    agent_id: int
    message_id: int


@dataclass(slots=True)
class Setting:
    table: ClassVar[str] = "setting"
    key: str
    value: str


RECORDS: tuple[type, ...] = (
    Customer,
    Identifier,
    Evidence,
    JoinLog,
    CannotLink,
    Suggestion,
    MatchKey,
    Attribute,
    OptOut,
    OneTimeCode,
    MessageCopy,
    Ticket,
    Participant,
    Message,
    MessageChange,
    Bookmark,
    MailedAnswer,
    Attachment,
    RawRequest,
    Dedupe,
    Quarantine,
    Delivery,
    Event,
    Hold,
    HoldLedger,
    Mark,
    Alarm,
    CampaignSeen,
    SendSeenRow,
    Survey,
    FollowUp,
    ProofRow,
    Agent,
    AgentSession,
    LoginAttempt,
    ApiToken,
    ChannelState,
    ReadMarker,
    Setting,
)
