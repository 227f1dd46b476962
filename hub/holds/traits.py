"""What marketing learns of support beyond the hold: states, counts, times and scores, never a word anybody wrote."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import and_, case, func, or_, select

from hub.holds.ledger import NAMES, iso
from hub.holds.marks import Key
from hub.marketing import Trait
from hub.storage.reader import Reader
from hub.storage.tables import metadata

_identifier = metadata.tables["identifier"].c
_ticket = metadata.tables["ticket"].c
_survey = metadata.tables["survey"].c
_opt_out = metadata.tables["opt_out"].c
_channel = metadata.tables["channel"].c
KINDS = {name: kind for kind, name in NAMES.items()}


async def traits_of(keys: Collection[Key], reader: Reader) -> dict[Key, dict[str, Trait]]:
    """The traits of each identifier that its owner proved or your records name; none for what is merely claimed, since whoever claims
    an address need not be the person marketing knows by it."""
    if not keys:
        return {}
    wanted = or_(*(and_(_identifier.kind == KINDS[kind], _identifier.value == value) for kind, value, _ in keys))
    owned = await reader.all(
        select(_identifier.kind, _identifier.value, _identifier.site, _identifier.customer_id)
        .where(wanted, _identifier.ended_at.is_(None), _identifier.customer_id.is_not(None))
        .where(or_(_identifier.standing == "proven", _identifier.proof == "record"))
    )
    about = {customer_id: await _traits(customer_id, reader) for customer_id in sorted({row.customer_id for row in owned})}
    found: dict[Key, dict[str, Trait]] = {}
    for row in sorted(owned, key=lambda one: one.site):  # one of no site is its own before it stands for any
        for site in {row.site, ""}:
            found.setdefault((NAMES[row.kind], row.value, site), about[row.customer_id])
    return found


async def _traits(customer_id: int, reader: Reader) -> dict[str, Trait]:
    counts: Any = await reader.first(
        select(
            func.count().label("all"),
            func.sum(case((_ticket.status != "resolved", 1), else_=0)).label("open"),
            func.max(_ticket.resolved_at).label("resolved_at"),
        ).where(_ticket.conversation_id == customer_id, _ticket.spam_at.is_(None))
    )
    score: Any = await reader.first(
        select(_survey.kind, _survey.score)
        .join_from(metadata.tables["survey"], metadata.tables["ticket"], _ticket.id == _survey.ticket_id)
        .where(_ticket.conversation_id == customer_id, _survey.state == "answered")
        .order_by(_survey.answered_at.desc())
        .limit(1)
    )
    stopped = await reader.all(
        select(_channel.name)
        .distinct()
        .join_from(metadata.tables["opt_out"], metadata.tables["channel"], _channel.id == _opt_out.channel_id)
        .join(metadata.tables["identifier"], and_(_identifier.kind == _opt_out.kind, _identifier.value == _opt_out.value))
        .where(_identifier.customer_id == customer_id, _opt_out.ended_at.is_(None))
        .order_by(_channel.name)
    )
    still_open = int(counts.open or 0)
    return {
        "support_status": "open" if still_open else "resolved",
        "support_resolved_at": None if still_open or counts.resolved_at is None else iso(counts.resolved_at),
        "support_open_tickets": still_open,
        "support_tickets": int(counts.all),
        "support_satisfaction": f"{score.kind} {score.score}" if score is not None else None,
        "support_optouts": ",".join(row.name for row in stopped) or None,
    }
