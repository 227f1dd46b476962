"""Indexes that claims by target, the list of what failed and an agent's own tickets read; the order of a message's files."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _delivery(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "delivery", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def upgrade() -> None:
    op.drop_index("ix_delivery_due", table_name="delivery")
    op.drop_index("ix_delivery_failed", table_name="delivery")
    _delivery("ix_delivery_due", ["kind", "target", "due_at", "id"], "state = 'queued'")
    _delivery("ix_delivery_sending", ["id"], "state = 'sending'")
    _delivery("ix_delivery_shown", ["id"], "state IN ('failed', 'unknown')")
    op.create_index("ix_ticket_assignee_id", "ticket", ["assignee_id", "status", "last_at", "id"])
    op.drop_index("ix_message_conversation_id", table_name="message")
    op.create_index("ix_message_conversation_id", "message", ["conversation_id", "id"])
    with op.batch_alter_table("attachment") as batch:
        batch.add_column(sa.Column("position", sa.Integer(), nullable=False, server_default="0"))
    if op.get_bind().dialect.name == "sqlite":  # a hub on PostgreSQL began with this step
        op.execute("UPDATE attachment SET position = rowid")
    with op.batch_alter_table("attachment") as batch:
        batch.alter_column("position", server_default=None)
