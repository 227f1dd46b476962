"""What the outbox could not deliver, for the people who must see it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import literal_column, select, union_all
from sqlalchemy.sql import Select

from hub.storage.tables import metadata

_delivery = metadata.tables["delivery"]


def undelivered(before: int | None, limit: int) -> Select[Any]:
    """Deliveries that failed or whose fate is unknown, newest first, at most `limit`; those below `before`."""
    d = _delivery.c
    # Spelled out, not bound, and each state apart: only so do the partial indexes on what failed and what is still owed
    # apply. The history may hold millions.
    failed = select(d.id).where(d.state == literal_column("'failed'"))
    unknown = select(d.id).where(
        d.state.in_([literal_column(f"'{state}'") for state in ("queued", "sending", "unknown")]), d.state == literal_column("'unknown'")
    )
    statement = select(d.id, d.kind, d.target, d.subject_id, d.state, d.attempt, d.created_at, d.done_at, d.error).where(
        d.id.in_(union_all(failed, unknown))
    )
    if before is not None:
        statement = statement.where(d.id < before)
    return statement.order_by(d.id.desc()).limit(limit)
