"""Indexes that claims by target, the list of what failed, and an agent's own tickets read."""

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
