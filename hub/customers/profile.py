"""What programs and commands read of a customer besides its conversation: who answers to an address, which ids lead to whom.

Statements only, each bounded; `hub.storage.reader` runs them. Times are microseconds UTC.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, and_, func, or_, select

from hub.contract import Proof
from hub.storage.tables import metadata

MOST = 200  # rows of a kind

_customer = metadata.tables["customer"].c
_identifier = metadata.tables["identifier"].c
_evidence = metadata.tables["evidence"].c
_attribute = metadata.tables["attribute"].c
_opt_out = metadata.tables["opt_out"].c
_channel = metadata.tables["channel"].c
_join_log = metadata.tables["join_log"].c


def customers(ids: Collection[int]) -> Select[Any]:
    """These customers as they stand: id, name, created_at, and merged_into (whom the id leads to, None of a live one)."""
    return select(_customer.id, _customer.name, _customer.created_at, _customer.merged_into).where(_customer.id.in_(sorted(ids)))


def merged(customer_id: int) -> Select[Any]:
    """The ids that lead to this live customer now."""
    return select(_customer.id).where(_customer.merged_into == customer_id).order_by(_customer.id).limit(MOST)


def holders(kind: str, value: str, site: str = "") -> Select[Any]:
    """The live customers whose address this is now, whoever proved it first: id, name, and what is noted of the identifier.

    A canonical value. Without a `site` any site's account counts. Whose it was before it passed on, and who merely claimed it, are not
    among them.
    """
    found = (
        select(
            _customer.id.label("customer_id"),
            _customer.name,
            _identifier.id.label("identifier_id"),
            *(_identifier[name] for name in ("kind", "site", "value", "standing", "proof", "shared_at")),
        )
        .join_from(metadata.tables["identifier"], metadata.tables["customer"], _customer.id == _identifier.customer_id)
        .where(_identifier.value == value, _identifier.kind == kind, _identifier.ended_at.is_(None))
    )
    if site:
        found = found.where(_identifier.site == site)
    return found.order_by(_identifier.standing.desc(), _identifier.id).limit(50)  # `proven` before `asserted`


_NAMED = tuple(_identifier[name] for name in ("id", "kind", "site", "value"))


def identifiers(customer_id: int) -> Select[Any]:
    """The addresses and accounts of a live customer, with their proof. Browsers are not among them: they address nobody."""
    known = tuple(_identifier[name] for name in ("standing", "proof", "first_seen", "last_proof_at", "shared_at", "ended_at"))
    return (
        select(*_NAMED, *known)
        .where(_identifier.customer_id == customer_id, _identifier.kind != "device")
        .order_by(_identifier.id)
        .limit(MOST)
    )


def claimed(customer_id: int) -> Select[Any]:
    """What a live customer merely said or bore of other addresses, and nobody withdrew: proof `claimed` or `seen`, since when."""
    spoke = metadata.tables["identifier"].alias("spoke")
    said = metadata.tables["identifier"].join(metadata.tables["evidence"], _evidence.other_id == _identifier.id)
    return (
        select(*_NAMED, _evidence.proof, func.min(_evidence.at).label("at"))
        .select_from(said.join(spoke, spoke.c.id == _evidence.identifier_id))
        .where(
            spoke.c.customer_id == customer_id,
            _evidence.proof.in_([Proof.CLAIMED.value, Proof.SEEN.value]),
            _evidence.withdrawn_at.is_(None),
            func.coalesce(_identifier.customer_id, 0) != customer_id,
        )
        .group_by(*_NAMED, _evidence.proof)
        .order_by(_identifier.id, _evidence.proof)
        .limit(MOST)
    )


def attributes(customer_id: int) -> Select[Any]:
    """What records and sites say of a live customer, the latest word on each name first, with who said it of which node."""
    homes = select(_customer.id).where(or_(_customer.id == customer_id, _customer.merged_into == customer_id))
    return (
        select(_attribute.name, _attribute.value, _attribute.source, _attribute.at, _attribute.customer_id.label("home_id"))
        .where(_attribute.customer_id.in_(homes))
        .order_by(_attribute.name, _attribute.at.desc(), _attribute.id.desc())
        .limit(MOST)
    )


def opt_outs(customer_id: int) -> Select[Any]:
    """The addresses of a live customer that must not be written to, each with its channel: kind, value, channel, at."""
    own = and_(_identifier.kind == _opt_out.kind, _identifier.value == _opt_out.value, _identifier.customer_id == customer_id)
    return (
        select(_opt_out.kind, _opt_out.value, _channel.name.label("channel"), _opt_out.at)
        .join_from(metadata.tables["opt_out"], metadata.tables["identifier"], own)
        .outerjoin(metadata.tables["channel"], _channel.id == _opt_out.channel_id)
        .where(_opt_out.ended_at.is_(None))
        .distinct()
        .order_by(_opt_out.kind, _opt_out.value, _channel.name)
        .limit(MOST)
    )


def tie(join_id: int) -> Select[Any]:
    """The two nodes that a join or merge tied."""
    j = _join_log
    return select(j.id, j.left_id, j.right_id).where(j.id == join_id, j.op.in_(["join", "merge"]))


MANY_REPLY_TO = 10


def many_reply_to() -> Select[Any]:
    """Mail addresses that wrote with more than MANY_REPLY_TO different Reply-To addresses, and how `many`: at most ten of them."""
    speaker, said = metadata.tables["identifier"], metadata.tables["evidence"]
    many = func.count(said.c.other_id.distinct()).label("many")
    return (
        select(speaker.c.address, many)
        .select_from(said.join(speaker, speaker.c.id == said.c.identifier_id))
        .where(said.c.proof == "seen", said.c.other_id.is_not(None), speaker.c.kind == "email")
        .group_by(speaker.c.id, speaker.c.address)
        .having(many > MANY_REPLY_TO)
        .order_by(many.desc())
        .limit(10)
    )
