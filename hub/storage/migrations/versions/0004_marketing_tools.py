"""Holds that can be proved: marks in marketing tools, campaigns and sends seen, alarms, surveys, follow-ups, the chain of proof."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _id() -> sa.Column[Any]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True)


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=False)


def _defaulted(name: str, value: str = "''") -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=False, server_default=sa.text(value))


def _big(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def upgrade() -> None:
    for table, columns in {
        "opt_out": (_defaulted("words"), _defaulted("actor")),
        "ticket": (
            _defaulted("priority", "'normal'"),
            _defaulted("tags", "'[]'"),
            _big("spam_at", nullable=True),
            _big("hold_ended_at", nullable=True),
        ),
        "hold": (_big("ends_at", nullable=True), _defaulted("note"), _defaulted("actor")),
    }.items():
        for column in columns:
            op.add_column(table, column)
    of_holds = sa.text("type IN ('hold.placed', 'hold.renewed', 'hold.released')")
    op.create_index("ix_event_hold", "event", ["seq"], sqlite_where=of_holds, postgresql_where=of_holds)

    op.create_table(
        "mark",
        _id(),
        _text("destination"),
        _text("kind"),
        _text("value"),
        _text("site"),
        _big("customer_id"),
        _text("profile"),
        _text("state"),
        sa.Column("held", sa.Boolean(), nullable=False),
        _big("version"),
        _text("said"),
        _big("asked_at"),
        _big("until", nullable=True),
        _big("accepted_at", nullable=True),
        _big("confirmed_at", nullable=True),
        _big("effective_at", nullable=True),
        _big("checked_at", nullable=True),
        _big("check_at", nullable=True),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.Column("drifts", sa.Integer(), nullable=False),
        _text("error"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mark")),
    )
    op.create_index("uq_mark_key", "mark", ["destination", "value", "kind", "site"], unique=True)
    op.create_index("ix_mark_customer_id", "mark", ["customer_id"])
    op.create_index("ix_mark_check_at", "mark", ["check_at"])
    op.create_index("ix_mark_profile", "mark", ["profile"])
    op.create_index("ix_mark_held", "mark", ["destination", "id"], sqlite_where=sa.text("held = 1"), postgresql_where=sa.text("held"))
    op.create_index("ix_mark_state", "mark", ["destination", "state"])

    op.create_table(
        "alarm",
        _id(),
        _text("key"),
        _text("level"),
        _text("title"),
        _text("text"),
        _text("url"),
        _big("raised_at"),
        _big("ended_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarm")),
    )
    op.create_index("uq_alarm_key", "alarm", ["key"], unique=True)

    op.create_table(
        "campaign_seen",
        _id(),
        _text("destination"),
        _text("campaign_id"),
        _text("name"),
        _text("channel"),
        _text("status"),
        _big("seen_at"),
        _big("send_at", nullable=True),
        _big("frozen_at", nullable=True),
        _text("excludes_hold"),
        _text("audiences"),
        _text("mend"),
        _text("url"),
        sa.Column("revertable", sa.Boolean(), nullable=False),
        _text("endangered"),
        _text("risk"),
        _big("gone_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaign_seen")),
    )
    op.create_index("uq_campaign_seen_key", "campaign_seen", ["destination", "campaign_id"], unique=True)

    op.create_table(
        "send_seen",
        _id(),
        _text("destination"),
        _text("provider_key"),
        _big("at"),
        _big("seen_at"),
        _text("kind"),
        _text("value"),
        _text("profile"),
        _text("channel"),
        _text("campaign_id"),
        _text("campaign"),
        sa.Column("prevented", sa.Boolean(), nullable=False),
        _big("customer_id", nullable=True),
        sa.Column("leak", sa.Boolean(), nullable=False),
        _text("cause"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_send_seen")),
    )
    op.create_index("uq_send_seen_key", "send_seen", ["destination", "provider_key"], unique=True)
    op.create_index("ix_send_seen_value", "send_seen", ["value", "kind"])
    op.create_index("ix_send_seen_at", "send_seen", ["at"])
    op.create_index("ix_send_seen_customer_id", "send_seen", ["customer_id"])
    op.create_index("ix_send_seen_leak", "send_seen", ["at"], sqlite_where=sa.text("leak = 1"), postgresql_where=sa.text("leak"))

    op.create_table(
        "survey",
        _id(),
        _big("ticket_id"),
        sa.Column("channel_id", sa.Integer(), nullable=False),
        _big("identifier_id"),
        _text("kind"),
        _text("state"),
        _big("due_at"),
        _text("why"),
        _big("asked_at", nullable=True),
        _big("expires_at", nullable=True),
        _big("answered_at", nullable=True),
        sa.Column("score", sa.Integer(), nullable=True),
        _text("comment"),
        _big("message_id", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_survey")),
    )
    op.create_index("uq_survey_ticket_id", "survey", ["ticket_id"], unique=True)
    op.create_index("ix_survey_due_at", "survey", ["state", "due_at"])
    op.create_index("ix_survey_answered_at", "survey", ["answered_at"])

    op.create_table(
        "follow_up",
        _id(),
        _text("key"),
        _big("ticket_id"),
        _text("text"),
        _text("state"),
        sa.Column("agent_id", sa.Integer(), nullable=False),
        _big("created_at"),
        sa.Column("channel_id", sa.Integer(), nullable=True),
        _big("identifier_id", nullable=True),
        _big("expires_at", nullable=True),
        _big("fired_at", nullable=True),
        _text("fired_by"),
        _big("message_id", nullable=True),
        _text("error"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_follow_up")),
    )
    op.create_index("ix_follow_up_key", "follow_up", ["key"])
    op.create_index("ix_follow_up_ticket_id", "follow_up", ["ticket_id"])

    op.create_table(
        "proof",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        _big("event_seq"),
        _text("type"),
        _big("at"),
        _big("customer_id", nullable=True),
        _text("destination"),
        _text("data"),
        _text("hash"),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_proof")),
    )
    op.create_index("ix_proof_customer_id", "proof", ["customer_id"])
    op.create_index("ix_proof_type", "proof", ["type", "at"])
