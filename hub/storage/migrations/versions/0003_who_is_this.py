"""Identity that can be undone: homes, ties between them, what parts them, suggestions, opt-outs, one-time codes, mail copies."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _id() -> sa.Column[Any]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True)


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=False)


def _big(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _add(table: str, *columns: sa.Column[Any]) -> None:
    # Without rebuilding the table: of messages there may be millions.
    for column in columns:
        op.add_column(table, column)


def upgrade() -> None:
    _add("customer", sa.Column("own_name", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.execute("UPDATE customer SET own_name = name")
    _add("identifier", _big("home_id", nullable=True), _big("shared_at", nullable=True), _big("ended_at", nullable=True))
    op.execute("UPDATE identifier SET home_id = customer_id")
    _add("evidence", _big("withdrawn_at", nullable=True))
    _add("ticket", _big("home_id", nullable=True))
    op.execute("UPDATE ticket SET home_id = conversation_id")
    _add("hold", _big("home_id", nullable=True))
    op.execute("UPDATE hold SET home_id = customer_id")
    _add("message", sa.Column("placed", sa.Boolean(), nullable=False, server_default=sa.false()))
    placed = sa.text("placed")
    op.create_index("ix_message_placed", "message", ["identifier_id"], sqlite_where=placed, postgresql_where=placed)
    op.execute("UPDATE event SET type = 'customer.merged' WHERE type = 'customer.joined'")

    op.drop_index("ix_join_log_survivor_id", table_name="join_log")
    op.drop_index("ix_join_log_other_id", table_name="join_log")
    with op.batch_alter_table("join_log") as batch:
        batch.alter_column("survivor_id", new_column_name="left_id")
        batch.alter_column("other_id", new_column_name="right_id")
        batch.add_column(_big("left_identifier", nullable=True))
        batch.add_column(_big("right_identifier", nullable=True))
    op.create_index("ix_join_log_left_id", "join_log", ["left_id"])
    op.create_index("ix_join_log_right_id", "join_log", ["right_id"])
    # What older joins made one bears one home by now: nothing is left that could be told apart again.
    op.execute("UPDATE join_log SET op = 'settled' WHERE op = 'join'")

    op.create_table(
        "cannot_link", _id(), _big("left_id"), _big("right_id"), _text("actor"), _big("at"), _big("ended_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cannot_link")),
    )  # fmt: skip
    op.create_index("ix_cannot_link_left_id", "cannot_link", ["left_id"])
    op.create_index("ix_cannot_link_right_id", "cannot_link", ["right_id"])

    op.create_table(
        "suggestion", _id(), _big("left_id"), _big("right_id"), _text("rule"), sa.Column("score", sa.Integer(), nullable=False),
        _text("reason"), _big("at"), sa.PrimaryKeyConstraint("id", name=op.f("pk_suggestion")),
    )  # fmt: skip
    op.create_index("ix_suggestion_left_id", "suggestion", ["left_id"])
    op.create_index("ix_suggestion_right_id", "suggestion", ["right_id"])

    op.create_table(
        "match_key", _text("key"), _big("customer_id"), sa.PrimaryKeyConstraint("key", "customer_id", name=op.f("pk_match_key")),
        sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_index("ix_match_key_customer_id", "match_key", ["customer_id"])

    op.create_table(
        "attribute", _id(), _big("customer_id"), _text("name"), _text("value"), _text("source"), _big("at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attribute")),
    )  # fmt: skip
    op.create_index("ix_attribute_customer_id", "attribute", ["customer_id"])

    op.create_table(
        "opt_out", _id(), sa.Column("channel_id", sa.Integer(), nullable=False), _text("kind"), _text("value"), _big("at"),
        _big("message_id", nullable=True), _big("ended_at", nullable=True), sa.PrimaryKeyConstraint("id", name=op.f("pk_opt_out")),
    )  # fmt: skip
    op.create_index("ix_opt_out_value", "opt_out", ["value", "kind"])

    op.create_table(
        "one_time_code", _text("id"), sa.Column("channel_id", sa.Integer(), nullable=False), _text("device"), _text("kind"), _text("value"),
        _text("address"), _text("state"), _big("created_at"), _big("expires_at"),
        sa.Column("tries", sa.Integer(), nullable=False), sa.Column("asked_by", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_one_time_code")),
    )  # fmt: skip
    op.create_index("ix_one_time_code_value", "one_time_code", ["value"])
    op.create_index("ix_one_time_code_device", "one_time_code", ["device"])

    op.create_table(
        "message_copy", _big("message_id"), _text("value"), _text("address"),
        sa.PrimaryKeyConstraint("message_id", "value", name=op.f("pk_message_copy")), sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_index("ix_message_copy_value", "message_copy", ["value"])
