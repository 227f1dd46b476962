"""The tables, for SQLAlchemy and Alembic: SQLModel classes that are tables and only that.

`records` holds the same columns as plain objects for the write path. Order of columns is the order on disk.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Text, false
from sqlmodel import Field, SQLModel

from hub.storage import marketing_tables  # noqa: F401 (its tables join the same metadata)
from hub.storage.column_types import SEQUENCE, big, defaulted, number, octets, words


class Customer(SQLModel, table=True):
    __tablename__ = "customer"
    __table_args__ = (SEQUENCE,)
    id: int = Field(sa_column=number())
    name: str = Field(sa_column=words())
    created_at: int = Field(sa_column=big())
    hold_version: int = Field(sa_column=big())
    merged_into: int | None = Field(sa_column=big(nullable=True))
    own_name: str = Field(sa_column=defaulted("''"))


_customer = Customer.__table__  # type: ignore[attr-defined]
Index(
    "ix_customer_merged_into",
    _customer.c.merged_into,
    sqlite_where=_customer.c.merged_into.is_not(None),
    postgresql_where=_customer.c.merged_into.is_not(None),
)


class Identifier(SQLModel, table=True):
    __tablename__ = "identifier"
    __table_args__ = (
        # The value first: kind, site and standing tell few rows apart.
        Index("uq_identifier_key", "value", "kind", "site", "standing", "epoch", unique=True),
        Index("ix_identifier_customer_id", "customer_id"),
    )
    id: int = Field(sa_column=number())
    kind: str = Field(sa_column=words())
    site: str = Field(sa_column=words())
    value: str = Field(sa_column=words())
    standing: str = Field(sa_column=words())
    epoch: int
    customer_id: int | None = Field(sa_column=big(nullable=True))
    proof: str = Field(sa_column=words())
    address: str = Field(sa_column=words())
    first_seen: int = Field(sa_column=big())
    last_proof_at: int = Field(sa_column=big())
    home_id: int | None = Field(sa_column=big(nullable=True))
    shared_at: int | None = Field(sa_column=big(nullable=True))
    ended_at: int | None = Field(sa_column=big(nullable=True))
    bounced_at: int | None = Field(sa_column=big(nullable=True))
    bounce: str = Field(sa_column=defaulted("''"))


class Evidence(SQLModel, table=True):
    __tablename__ = "evidence"
    __table_args__ = (Index("ix_evidence_identifier_id", "identifier_id"), Index("ix_evidence_other_id", "other_id"))
    id: int = Field(sa_column=number())
    identifier_id: int = Field(sa_column=big())
    other_id: int | None = Field(sa_column=big(nullable=True))
    proof: str = Field(sa_column=words())
    source: str = Field(sa_column=words())
    at: int = Field(sa_column=big())
    withdrawn_at: int | None = Field(sa_column=big(nullable=True))


class JoinLog(SQLModel, table=True):
    __tablename__ = "join_log"
    __table_args__ = (Index("ix_join_log_left_id", "left_id"), Index("ix_join_log_right_id", "right_id"))
    id: int = Field(sa_column=number())
    op: str = Field(sa_column=words())
    left_id: int = Field(sa_column=big())
    right_id: int = Field(sa_column=big())
    evidence_ids: str = Field(sa_column=words())
    rule: str = Field(sa_column=words())
    actor: str = Field(sa_column=words())
    at: int = Field(sa_column=big())
    undoes: int | None = Field(sa_column=big(nullable=True))
    left_identifier: int | None = Field(sa_column=big(nullable=True))
    right_identifier: int | None = Field(sa_column=big(nullable=True))


class CannotLink(SQLModel, table=True):
    __tablename__ = "cannot_link"
    __table_args__ = (Index("ix_cannot_link_left_id", "left_id"), Index("ix_cannot_link_right_id", "right_id"))
    id: int = Field(sa_column=number())
    left_id: int = Field(sa_column=big())
    right_id: int = Field(sa_column=big())
    actor: str = Field(sa_column=words())
    at: int = Field(sa_column=big())
    ended_at: int | None = Field(sa_column=big(nullable=True))


class Suggestion(SQLModel, table=True):
    __tablename__ = "suggestion"
    __table_args__ = (Index("ix_suggestion_left_id", "left_id"), Index("ix_suggestion_right_id", "right_id"))
    id: int = Field(sa_column=number())
    left_id: int = Field(sa_column=big())
    right_id: int = Field(sa_column=big())
    rule: str = Field(sa_column=words())
    score: int
    reason: str = Field(sa_column=words())
    at: int = Field(sa_column=big())


class MatchKey(SQLModel, table=True):
    __tablename__ = "match_key"
    __table_args__ = (Index("ix_match_key_customer_id", "customer_id"), {"sqlite_with_rowid": False})
    key: str = Field(sa_column=Column(Text(), primary_key=True))
    customer_id: int = Field(sa_column=Column(BigInteger(), primary_key=True))


class Attribute(SQLModel, table=True):
    __tablename__ = "attribute"
    __table_args__ = (Index("ix_attribute_customer_id", "customer_id"),)
    id: int = Field(sa_column=number())
    customer_id: int = Field(sa_column=big())
    name: str = Field(sa_column=words())
    value: str = Field(sa_column=words())
    source: str = Field(sa_column=words())
    at: int = Field(sa_column=big())


class OptOut(SQLModel, table=True):
    __tablename__ = "opt_out"
    __table_args__ = (Index("ix_opt_out_value", "value", "kind"),)
    id: int = Field(sa_column=number())
    channel_id: int
    kind: str = Field(sa_column=words())
    value: str = Field(sa_column=words())
    at: int = Field(sa_column=big())
    message_id: int | None = Field(sa_column=big(nullable=True))
    ended_at: int | None = Field(sa_column=big(nullable=True))
    words: str = Field(sa_column=defaulted("''"))
    actor: str = Field(sa_column=defaulted("''"))
    scope: str = Field(sa_column=defaulted("'all'"))


class OneTimeCode(SQLModel, table=True):
    __tablename__ = "one_time_code"
    __table_args__ = (Index("ix_one_time_code_value", "value"), Index("ix_one_time_code_device", "device"))
    id: str = Field(sa_column=Column(Text(), primary_key=True))
    channel_id: int
    device: str = Field(sa_column=words())
    kind: str = Field(sa_column=words())
    value: str = Field(sa_column=words())
    address: str = Field(sa_column=words())
    state: str = Field(sa_column=words())
    created_at: int = Field(sa_column=big())
    expires_at: int = Field(sa_column=big())
    tries: int
    asked_by: int | None


class MessageCopy(SQLModel, table=True):
    __tablename__ = "message_copy"
    __table_args__ = (Index("ix_message_copy_value", "value"), {"sqlite_with_rowid": False})
    message_id: int = Field(sa_column=Column(BigInteger(), primary_key=True))
    value: str = Field(sa_column=Column(Text(), primary_key=True))
    address: str = Field(sa_column=words())


class Ticket(SQLModel, table=True):
    __tablename__ = "ticket"
    __table_args__ = (
        Index("ix_ticket_conversation_id", "conversation_id"),
        # The inbox reads a status newest first; id makes the order total for keyset pages.
        Index("ix_ticket_status_last_at", "status", "last_at", "id"),
        # "Mine" and "Unassigned": else a view that holds little is found by reading every open ticket (115 ms at 20,000).
        Index("ix_ticket_assignee_id", "assignee_id", "status", "last_at", "id"),
        SEQUENCE,
    )
    id: int = Field(sa_column=number())
    conversation_id: int = Field(sa_column=big())
    status: str = Field(sa_column=words())
    subject: str = Field(sa_column=words())
    brand: str = Field(sa_column=words())
    channel_id: int
    identifier_id: int = Field(sa_column=big())
    opened_at: int = Field(sa_column=big())
    last_at: int = Field(sa_column=big())
    preview: str = Field(sa_column=words())
    version: int
    assignee_id: int | None
    resolved_at: int | None = Field(sa_column=big(nullable=True))
    snoozed_until: int | None = Field(sa_column=big(nullable=True))
    waiting_since: int | None = Field(sa_column=big(nullable=True))
    last_inbound_id: int | None = Field(sa_column=big(nullable=True))
    home_id: int | None = Field(sa_column=big(nullable=True))
    priority: str = Field(sa_column=defaulted("'normal'"))
    tags: str = Field(sa_column=defaulted("'[]'"))
    spam_at: int | None = Field(sa_column=big(nullable=True))
    hold_ended_at: int | None = Field(sa_column=big(nullable=True))
    review: str = Field(sa_column=defaulted("''"))
    review_of: int | None = Field(sa_column=big(nullable=True))
    reviewed_at: int | None = Field(sa_column=big(nullable=True))


_ticket = Ticket.__table__  # type: ignore[attr-defined]
Index("ix_ticket_review", _ticket.c.last_at, _ticket.c.id, sqlite_where=_ticket.c.review != "", postgresql_where=_ticket.c.review != "")


class Participant(SQLModel, table=True):
    __tablename__ = "participant"
    __table_args__ = (Index("ix_participant_value", "value"), {"sqlite_with_rowid": False})
    ticket_id: int = Field(sa_column=Column(BigInteger(), primary_key=True))
    value: str = Field(sa_column=Column(Text(), primary_key=True))
    address: str = Field(sa_column=words())
    agent_id: int
    at: int = Field(sa_column=big())
    ended_at: int | None = Field(sa_column=big(nullable=True))


class MessageChange(SQLModel, table=True):
    __tablename__ = "message_change"
    __table_args__ = (Index("ix_message_change_message_id", "message_id"),)
    id: int = Field(sa_column=number())
    message_id: int = Field(sa_column=big())
    what: str = Field(sa_column=words())
    text: str = Field(sa_column=words())
    identifier_id: int | None = Field(sa_column=big(nullable=True))
    at: int = Field(sa_column=big())


class Bookmark(SQLModel, table=True):
    __tablename__ = "bookmark"
    channel_id: int = Field(sa_column=Column(Integer(), primary_key=True, autoincrement=False))
    value: str = Field(sa_column=words())


class MailedAnswer(SQLModel, table=True):
    __tablename__ = "mailed_answer"
    __table_args__ = (Index("ix_mailed_answer_value", "value", "at"), Index("ix_mailed_answer_due", "state", "due_at"))
    message_id: int = Field(sa_column=Column(BigInteger(), primary_key=True, autoincrement=False))
    value: str = Field(sa_column=words())
    address: str = Field(sa_column=words())
    state: str = Field(sa_column=words())
    due_at: int = Field(sa_column=big())
    at: int | None = Field(sa_column=big(nullable=True))
    code: str = Field(sa_column=defaulted("''"))


class Message(SQLModel, table=True):
    __tablename__ = "message"
    __table_args__ = (
        # A timeline is read newest first. (SQLite has the row's id in every index; PostgreSQL has it where it is named.)
        Index("ix_message_conversation_id", "conversation_id", "id"),
        SEQUENCE,
    )
    id: int = Field(sa_column=number())
    conversation_id: int = Field(sa_column=big())
    ticket_id: int | None = Field(sa_column=big(nullable=True))
    direction: str = Field(sa_column=words())
    status: str = Field(sa_column=words())
    text: str = Field(sa_column=words())
    created_at: int = Field(sa_column=big())
    channel_id: int | None
    identifier_id: int | None = Field(sa_column=big(nullable=True))
    agent_id: int | None
    proof: str = Field(sa_column=words())
    subject: str = Field(sa_column=words())
    html: str | None = Field(sa_column=words(nullable=True))
    sender_name: str = Field(sa_column=words())
    automatic: str = Field(sa_column=words())
    doubt: str = Field(sa_column=words())
    error: str = Field(sa_column=words())
    sent_at: int | None = Field(sa_column=big(nullable=True))
    mail_id: str | None = Field(sa_column=words(nullable=True))
    in_reply_to: str = Field(sa_column=words())
    provider_id: str | None = Field(sa_column=words(nullable=True))
    draft_key: str | None = Field(sa_column=words(nullable=True))
    raw_id: int | None = Field(sa_column=big(nullable=True))
    placed: bool = Field(sa_column=Column(Boolean(), nullable=False, server_default=false()))
    reply_text: str | None = Field(sa_column=words(nullable=True))
    quoted_id: str = Field(sa_column=defaulted("''"))
    template: str = Field(sa_column=defaulted("''"))
    spam: str = Field(sa_column=defaulted("''"))


# Partial: a text message has neither, and pays nothing for these.
_message = Message.__table__  # type: ignore[attr-defined]
Index(
    "ix_message_mail_id", _message.c.mail_id, sqlite_where=_message.c.mail_id.is_not(None), postgresql_where=_message.c.mail_id.is_not(None)
)
Index(
    "ix_message_provider_id",
    _message.c.provider_id,
    sqlite_where=_message.c.provider_id.is_not(None),
    postgresql_where=_message.c.provider_id.is_not(None),
)
# What an agent gave to another customer: its sender still sees it, wherever it stands.
Index("ix_message_placed", _message.c.identifier_id, sqlite_where=_message.c.placed, postgresql_where=_message.c.placed)
Index(
    "uq_message_draft_key",
    _message.c.draft_key,
    unique=True,
    sqlite_where=_message.c.draft_key.is_not(None),
    postgresql_where=_message.c.draft_key.is_not(None),
)


class Attachment(SQLModel, table=True):
    __tablename__ = "attachment"
    __table_args__ = (Index("ix_attachment_message_id", "message_id"),)
    id: str = Field(sa_column=Column(Text(), primary_key=True))
    message_id: int = Field(sa_column=big())
    name: str = Field(sa_column=words())
    content_type: str = Field(sa_column=words())
    size: int = Field(sa_column=big())
    sha256: str = Field(sa_column=words())
    content_id: str = Field(sa_column=words())
    inline: bool
    state: str = Field(sa_column=words())
    source_url: str = Field(sa_column=words())
    error: str = Field(sa_column=words())
    position: int
    thumbnail: str = Field(sa_column=defaulted("''"))
    scan: str = Field(sa_column=defaulted("''"))


class RawRequest(SQLModel, table=True):
    __tablename__ = "raw_request"
    id: int = Field(sa_column=number())
    channel_id: int
    received_at: int = Field(sa_column=big())
    verdict: str = Field(sa_column=words())
    method: str = Field(sa_column=words())
    url: str = Field(sa_column=words())
    headers: str = Field(sa_column=words())
    body: bytes | None = Field(sa_column=octets())
    body_sha256: str = Field(sa_column=words())


class Dedupe(SQLModel, table=True):
    __tablename__ = "dedupe"
    __table_args__ = ({"sqlite_with_rowid": False},)
    channel_id: int = Field(primary_key=True)
    provider_key: str = Field(sa_column=Column(Text(), primary_key=True))
    at: int = Field(sa_column=big())


class Quarantine(SQLModel, table=True):
    __tablename__ = "quarantine"
    __table_args__ = (
        Index("ix_quarantine_state", "state", "id"),
        Index("uq_quarantine_digest", "digest", "channel_id", unique=True),
        Index("ix_quarantine_channel_id", "channel_id", "kind", "id"),
    )
    id: int = Field(sa_column=number())
    channel_id: int
    kind: str = Field(sa_column=words())
    reason: str = Field(sa_column=words())
    state: str = Field(sa_column=words())
    received_at: int = Field(sa_column=big())
    method: str = Field(sa_column=words())
    url: str = Field(sa_column=words())
    headers: str = Field(sa_column=words())
    body: bytes | None = Field(sa_column=octets())
    body_sha256: str = Field(sa_column=words())
    digest: str = Field(sa_column=words())


class Delivery(SQLModel, table=True):
    __tablename__ = "delivery"
    __table_args__ = (SEQUENCE,)
    id: int = Field(sa_column=number())
    lane: str = Field(sa_column=words())
    kind: str = Field(sa_column=words())
    target: str = Field(sa_column=words())
    subject_id: int = Field(sa_column=big())
    payload: str = Field(sa_column=words())
    state: str = Field(sa_column=words())
    idempotent: bool
    created_at: int = Field(sa_column=big())
    due_at: int = Field(sa_column=big())
    attempt: int
    version: int
    slot: str | None = Field(sa_column=words(nullable=True))
    ref: str = Field(sa_column=words())
    lease_token: str = Field(sa_column=words())
    lease_until: int = Field(sa_column=big())
    done_at: int | None = Field(sa_column=big(nullable=True))
    error: str = Field(sa_column=words())


_delivery = Delivery.__table__  # type: ignore[attr-defined]
_live = _delivery.c.state.in_(["queued", "sending", "unknown"])
# Only what is still owed is indexed: the history may grow for ever without slowing the claim.
Index("ix_delivery_lane", _delivery.c.lane, _delivery.c.id, sqlite_where=_live, postgresql_where=_live)
_queued = _delivery.c.state == "queued"
Index(
    "ix_delivery_due",
    *(_delivery.c.kind, _delivery.c.target, _delivery.c.due_at, _delivery.c.id),
    sqlite_where=_queued,
    postgresql_where=_queued,
)
_sending = _delivery.c.state == "sending"
Index("ix_delivery_sending", _delivery.c.id, sqlite_where=_sending, postgresql_where=_sending)
_shown = _delivery.c.state.in_(["failed", "unknown"])
Index("ix_delivery_shown", _delivery.c.id, sqlite_where=_shown, postgresql_where=_shown)
Index(
    "uq_delivery_slot",
    _delivery.c.slot,
    unique=True,
    sqlite_where=_delivery.c.slot.is_not(None),
    postgresql_where=_delivery.c.slot.is_not(None),
)
Index(
    "ix_delivery_card",
    _delivery.c.subject_id,
    sqlite_where=_delivery.c.slot.is_not(None),
    postgresql_where=_delivery.c.slot.is_not(None),
)


class Event(SQLModel, table=True):
    __tablename__ = "event"
    __table_args__ = (SEQUENCE,)
    seq: int = Field(sa_column=number())
    type: str = Field(sa_column=words())
    at: int = Field(sa_column=big())
    customer_id: int | None = Field(sa_column=big(nullable=True))
    ticket_id: int | None = Field(sa_column=big(nullable=True))
    message_id: int | None = Field(sa_column=big(nullable=True))
    agent_id: int | None
    data: str = Field(sa_column=words())


_event = Event.__table__  # type: ignore[attr-defined]
# A ticket's own history (assigned, resolved, held ...) is read with its timeline; messages are not looked up this way.
_history = _event.c.type.not_in(["message.received", "message.queued", "message.updated"])
Index("ix_event_customer_id", _event.c.customer_id, sqlite_where=_history, postgresql_where=_history)
# Whoever polls for changes of holds reads these few among all the rest.
_of_holds = _event.c.type.in_(["hold.placed", "hold.renewed", "hold.released"])
Index("ix_event_hold", _event.c.seq, sqlite_where=_of_holds, postgresql_where=_of_holds)


class Hold(SQLModel, table=True):
    __tablename__ = "hold"
    id: int = Field(sa_column=number())
    customer_id: int = Field(sa_column=big())
    reason: str = Field(sa_column=words())
    source: str = Field(sa_column=words())
    scope: str = Field(sa_column=words())
    placed_at: int = Field(sa_column=big())
    lease_until: int = Field(sa_column=big())
    released_at: int | None = Field(sa_column=big(nullable=True))
    home_id: int | None = Field(sa_column=big(nullable=True))
    ends_at: int | None = Field(sa_column=big(nullable=True))
    note: str = Field(sa_column=defaulted("''"))
    actor: str = Field(sa_column=defaulted("''"))


_hold = Hold.__table__  # type: ignore[attr-defined]
Index(
    "ix_hold_customer_id", _hold.c.customer_id, sqlite_where=_hold.c.released_at.is_(None), postgresql_where=_hold.c.released_at.is_(None)
)
Index(
    "ix_hold_lease_until", _hold.c.lease_until, sqlite_where=_hold.c.released_at.is_(None), postgresql_where=_hold.c.released_at.is_(None)
)


class HoldLedger(SQLModel, table=True):
    __tablename__ = "hold_ledger"
    __table_args__ = (Index("ix_hold_ledger_customer_id", "customer_id"), SEQUENCE)
    id: int = Field(sa_column=number())
    customer_id: int = Field(sa_column=big())
    hold_id: int = Field(sa_column=big())
    op: str = Field(sa_column=words())
    reason: str = Field(sa_column=words())
    source: str = Field(sa_column=words())
    version: int = Field(sa_column=big())
    at: int = Field(sa_column=big())
    lease_until: int = Field(sa_column=big())


class Agent(SQLModel, table=True):
    __tablename__ = "agent"
    id: int = Field(sa_column=number())
    email: str = Field(sa_column=Column(Text(), nullable=False, unique=True))
    name: str = Field(sa_column=words())
    password_hash: str = Field(sa_column=words())
    role: str = Field(sa_column=words())
    created_at: int = Field(sa_column=big())
    disabled_at: int | None = Field(sa_column=big(nullable=True))


class AgentSession(SQLModel, table=True):
    __tablename__ = "agent_session"
    __table_args__ = (Index("ix_agent_session_agent_id", "agent_id"),)
    token_hash: str = Field(sa_column=Column(Text(), primary_key=True))
    agent_id: int
    csrf: str = Field(sa_column=words())
    created_at: int = Field(sa_column=big())
    seen_at: int = Field(sa_column=big())
    expires_at: int = Field(sa_column=big())


class LoginAttempt(SQLModel, table=True):
    __tablename__ = "login_attempt"
    key: str = Field(sa_column=Column(Text(), primary_key=True))
    since: int = Field(sa_column=big())
    count: int


class ApiToken(SQLModel, table=True):
    __tablename__ = "api_token"
    id: int = Field(sa_column=number())
    name: str = Field(sa_column=words())
    token_hash: str = Field(sa_column=Column(Text(), nullable=False, unique=True))
    created_at: int = Field(sa_column=big())
    revoked_at: int | None = Field(sa_column=big(nullable=True))


class ChannelState(SQLModel, table=True):
    __tablename__ = "channel"
    id: int = Field(sa_column=number())
    name: str = Field(sa_column=Column(Text(), nullable=False, unique=True))
    verified_at: int | None = Field(sa_column=big(nullable=True))
    key_digest: str = Field(sa_column=words())


class ReadMarker(SQLModel, table=True):
    __tablename__ = "read_marker"
    ticket_id: int = Field(sa_column=Column(BigInteger(), primary_key=True))
    agent_id: int = Field(sa_column=Column(Integer(), primary_key=True))
    message_id: int = Field(sa_column=big())


class Setting(SQLModel, table=True):
    __tablename__ = "setting"
    key: str = Field(sa_column=Column(Text(), primary_key=True))
    value: str = Field(sa_column=words())


metadata = SQLModel.metadata
