"""Channels in depth: what was written apart from what was quoted, mail for review, changes to messages, bounced addresses."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=False)


def _defaulted(name: str, value: str = "''") -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=False, server_default=sa.text(value))


def _big(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def upgrade() -> None:
    for table, columns in {
        "identifier": (_big("bounced_at", nullable=True), _defaulted("bounce")),
        "opt_out": (_defaulted("scope", "'all'"),),
        "ticket": (_defaulted("review"), _big("review_of", nullable=True), _big("reviewed_at", nullable=True)),
        "message": (sa.Column("reply_text", sa.Text(), nullable=True), _defaulted("quoted_id"), _defaulted("template"), _defaulted("spam")),
        "attachment": (_defaulted("thumbnail"), _defaulted("scan")),
    }.items():
        for column in columns:
            op.add_column(table, column)
    in_review = sa.text("review != ''")
    op.create_index("ix_ticket_review", "ticket", ["last_at", "id"], sqlite_where=in_review, postgresql_where=in_review)

    op.create_table(
        "participant",
        _big("ticket_id"),
        _text("value"),
        _text("address"),
        sa.Column("agent_id", sa.Integer(), nullable=False),
        _big("at"),
        _big("ended_at", nullable=True),
        sa.PrimaryKeyConstraint("ticket_id", "value", name=op.f("pk_participant")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_participant_value", "participant", ["value"])
    op.create_table(
        "message_change",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        _big("message_id"),
        _text("what"),
        _text("text"),
        _big("identifier_id", nullable=True),
        _big("at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message_change")),
    )
    op.create_index("ix_message_change_message_id", "message_change", ["message_id"])
    op.create_table(
        "bookmark",
        sa.Column("channel_id", sa.Integer(), nullable=False, autoincrement=False),
        _text("value"),
        sa.PrimaryKeyConstraint("channel_id", name=op.f("pk_bookmark")),
    )
    op.create_table(
        "mailed_answer",
        sa.Column("message_id", sa.BigInteger(), nullable=False, autoincrement=False),
        _text("value"),
        _text("address"),
        _text("state"),
        _big("due_at"),
        _big("at", nullable=True),
        _defaulted("code"),
        sa.PrimaryKeyConstraint("message_id", name=op.f("pk_mailed_answer")),
    )
    op.create_index("ix_mailed_answer_value", "mailed_answer", ["value", "at"])
    op.create_index("ix_mailed_answer_due", "mailed_answer", ["state", "due_at"])
