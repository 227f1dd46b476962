"""The tables of what is between us and marketing tools, in the manner of `tables`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, text
from sqlmodel import Field, SQLModel

from hub.storage.column_types import big, number, words


class Mark(SQLModel, table=True):
    __tablename__ = "mark"
    __table_args__ = (
        Index("uq_mark_key", "destination", "value", "kind", "site", unique=True),
        Index("ix_mark_customer_id", "customer_id"),
        Index("ix_mark_check_at", "check_at"),
        Index("ix_mark_profile", "profile"),
        Index("ix_mark_state", "destination", "state"),
    )
    id: int = Field(sa_column=number())
    destination: str = Field(sa_column=words())
    kind: str = Field(sa_column=words())
    value: str = Field(sa_column=words())
    site: str = Field(sa_column=words())
    customer_id: int = Field(sa_column=big())
    profile: str = Field(sa_column=words())
    state: str = Field(sa_column=words())
    held: bool
    version: int = Field(sa_column=big())
    said: str = Field(sa_column=words())
    asked_at: int = Field(sa_column=big())
    until: int | None = Field(sa_column=big(nullable=True))
    accepted_at: int | None = Field(sa_column=big(nullable=True))
    confirmed_at: int | None = Field(sa_column=big(nullable=True))
    effective_at: int | None = Field(sa_column=big(nullable=True))
    checked_at: int | None = Field(sa_column=big(nullable=True))
    check_at: int | None = Field(sa_column=big(nullable=True))
    looks: int
    drifts: int
    error: str = Field(sa_column=words())


# The conditions as each engine spells them in a question, or the index is not used.
_mark = Mark.__table__  # type: ignore[attr-defined]
Index("ix_mark_held", _mark.c.destination, _mark.c.id, sqlite_where=text("held = 1"), postgresql_where=text("held"))


class Alarm(SQLModel, table=True):
    __tablename__ = "alarm"
    __table_args__ = (Index("uq_alarm_key", "key", unique=True),)
    id: int = Field(sa_column=number())
    key: str = Field(sa_column=words())
    level: str = Field(sa_column=words())
    title: str = Field(sa_column=words())
    text: str = Field(sa_column=words())
    url: str = Field(sa_column=words())
    raised_at: int = Field(sa_column=big())
    ended_at: int | None = Field(sa_column=big(nullable=True))


class CampaignSeen(SQLModel, table=True):
    __tablename__ = "campaign_seen"
    __table_args__ = (Index("uq_campaign_seen_key", "destination", "campaign_id", unique=True),)
    id: int = Field(sa_column=number())
    destination: str = Field(sa_column=words())
    campaign_id: str = Field(sa_column=words())
    name: str = Field(sa_column=words())
    channel: str = Field(sa_column=words())
    status: str = Field(sa_column=words())
    seen_at: int = Field(sa_column=big())
    send_at: int | None = Field(sa_column=big(nullable=True))
    frozen_at: int | None = Field(sa_column=big(nullable=True))
    excludes_hold: str = Field(sa_column=words())
    audiences: str = Field(sa_column=words())
    mend: str = Field(sa_column=words())
    url: str = Field(sa_column=words())
    revertable: bool
    endangered: str = Field(sa_column=words())
    risk: str = Field(sa_column=words())
    gone_at: int | None = Field(sa_column=big(nullable=True))


class SendSeenRow(SQLModel, table=True):
    __tablename__ = "send_seen"
    __table_args__ = (
        Index("uq_send_seen_key", "destination", "provider_key", unique=True),
        Index("ix_send_seen_value", "value", "kind"),
        Index("ix_send_seen_at", "at"),
        Index("ix_send_seen_customer_id", "customer_id"),
    )
    id: int = Field(sa_column=number())
    destination: str = Field(sa_column=words())
    provider_key: str = Field(sa_column=words())
    at: int = Field(sa_column=big())
    seen_at: int = Field(sa_column=big())
    kind: str = Field(sa_column=words())
    value: str = Field(sa_column=words())
    profile: str = Field(sa_column=words())
    channel: str = Field(sa_column=words())
    campaign_id: str = Field(sa_column=words())
    campaign: str = Field(sa_column=words())
    prevented: bool
    customer_id: int | None = Field(sa_column=big(nullable=True))
    leak: bool
    cause: str = Field(sa_column=words())


_send_seen = SendSeenRow.__table__  # type: ignore[attr-defined]
# Leaks are few among all that is sent.
Index("ix_send_seen_leak", _send_seen.c.at, sqlite_where=text("leak = 1"), postgresql_where=text("leak"))


class Survey(SQLModel, table=True):
    __tablename__ = "survey"
    __table_args__ = (
        Index("uq_survey_ticket_id", "ticket_id", unique=True),
        Index("ix_survey_due_at", "state", "due_at"),
        Index("ix_survey_answered_at", "answered_at"),
    )
    id: int = Field(sa_column=number())
    ticket_id: int = Field(sa_column=big())
    channel_id: int
    identifier_id: int = Field(sa_column=big())
    kind: str = Field(sa_column=words())
    state: str = Field(sa_column=words())
    due_at: int = Field(sa_column=big())
    why: str = Field(sa_column=words())
    asked_at: int | None = Field(sa_column=big(nullable=True))
    expires_at: int | None = Field(sa_column=big(nullable=True))
    answered_at: int | None = Field(sa_column=big(nullable=True))
    score: int | None
    comment: str = Field(sa_column=words())
    message_id: int | None = Field(sa_column=big(nullable=True))


class FollowUp(SQLModel, table=True):
    __tablename__ = "follow_up"
    __table_args__ = (
        Index("ix_follow_up_key", "key"),
        Index("ix_follow_up_ticket_id", "ticket_id"),
    )
    id: int = Field(sa_column=number())
    key: str = Field(sa_column=words())
    ticket_id: int = Field(sa_column=big())
    text: str = Field(sa_column=words())
    state: str = Field(sa_column=words())
    agent_id: int
    created_at: int = Field(sa_column=big())
    channel_id: int | None
    identifier_id: int | None = Field(sa_column=big(nullable=True))
    expires_at: int | None = Field(sa_column=big(nullable=True))
    fired_at: int | None = Field(sa_column=big(nullable=True))
    fired_by: str = Field(sa_column=words())
    message_id: int | None = Field(sa_column=big(nullable=True))
    error: str = Field(sa_column=words())


class ProofRow(SQLModel, table=True):
    __tablename__ = "proof"
    __table_args__ = (
        Index("ix_proof_customer_id", "customer_id"),
        Index("ix_proof_type", "type", "at"),
    )
    seq: int = Field(sa_column=Column(BigInteger(), primary_key=True, autoincrement=False))
    event_seq: int = Field(sa_column=big())
    type: str = Field(sa_column=words())
    at: int = Field(sa_column=big())
    customer_id: int | None = Field(sa_column=big(nullable=True))
    destination: str = Field(sa_column=words())
    data: str = Field(sa_column=words())
    hash: str = Field(sa_column=words())
