"""All customers with what is known of each, a page at a time: what `hub customers export` writes.

What is proven or on record stands apart from what somebody only claimed: read in again, the first would be on record, and a claim
must never become that by a round trip.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select

from hub.contract import Proof
from hub.customers.recording import NAME
from hub.customers.resolution import PROVEN
from hub.storage.reader import Reader
from hub.storage.tables import metadata

PAGE = 500  # customers read at once

_customer = metadata.tables["customer"]
_identifier = metadata.tables["identifier"]
_evidence = metadata.tables["evidence"]
_attribute = metadata.tables["attribute"]
_opt_out = metadata.tables["opt_out"]
_channel = metadata.tables["channel"]


@dataclass(slots=True)
class Exported:
    """One live customer. `opt_outs` are (channel, kind, value)."""

    id: int
    name: str
    created_at: int
    merged: list[int] = field(default_factory=list)
    accounts: list[tuple[str, str]] = field(default_factory=list)  # (site, id)
    known: dict[str, list[str]] = field(default_factory=dict)  # by kind, proven or on record
    unproven: dict[str, list[str]] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    opt_outs: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Extent:
    """What a file of all customers has columns for."""

    customers: int
    sites: tuple[str, ...]
    attributes: tuple[str, ...]


async def extent(reader: Reader) -> Extent:
    """How many customers there are, at which sites they have accounts, and what is said of them. Raises StorageBusy."""
    live = select(func.count()).select_from(_customer).where(_customer.c.merged_into.is_(None))
    sites = select(_identifier.c.site).where(_identifier.c.kind == "user_id").distinct().order_by(_identifier.c.site)
    names = select(_attribute.c.name).where(_attribute.c.name != NAME).distinct().order_by(_attribute.c.name)
    return Extent(
        await reader.value(live),
        tuple(row[0] for row in await reader.all(sites)),
        tuple(row[0] for row in await reader.all(names)),
    )


async def pages(reader: Reader, size: int = PAGE) -> AsyncIterator[list[Exported]]:
    """All live customers by id. One page is in memory, and each page is as of its own moment. Raises StorageBusy."""
    after = 0
    while True:
        columns = (_customer.c.id, _customer.c.name, _customer.c.created_at)
        rows = await reader.all(
            select(*columns).where(_customer.c.id > after, _customer.c.merged_into.is_(None)).order_by(_customer.c.id).limit(size)
        )
        if not rows:
            return
        after = rows[-1].id
        found = {row.id: Exported(row.id, row.name, row.created_at) for row in rows}
        await _fill(found, reader)
        yield list(found.values())


async def _fill(found: dict[int, Exported], reader: Reader) -> None:
    ids = list(found)
    merged = select(_customer.c.id, _customer.c.merged_into).where(_customer.c.merged_into.in_(ids)).order_by(_customer.c.id)
    live = {id_: id_ for id_ in ids}
    for row in await reader.all(merged):
        live[row.id] = row.merged_into
        found[row.merged_into].merged.append(row.id)
    own = (
        select(_identifier)
        .where(_identifier.c.customer_id.in_(ids), _identifier.c.ended_at.is_(None))
        .order_by(_identifier.c.first_seen, _identifier.c.id)
    )
    addresses: dict[tuple[str, str], set[int]] = defaultdict(set)
    for row in await reader.all(own):
        _keep(found[row.customer_id], row, row.standing == PROVEN)
        addresses[row.kind, row.value].add(row.customer_id)
    speaker = _identifier.alias("speaker")
    noted = (
        select(speaker.c.customer_id.label("owner"), _evidence.c.proof.label("by"), *_identifier.c)
        .select_from(
            _evidence.join(speaker, speaker.c.id == _evidence.c.identifier_id).join(_identifier, _identifier.c.id == _evidence.c.other_id)
        )
        .where(
            speaker.c.customer_id.in_(ids),
            _evidence.c.withdrawn_at.is_(None),
            _evidence.c.proof.in_([Proof.RECORD.value, Proof.CLAIMED.value]),
            _identifier.c.ended_at.is_(None),
        )
        .order_by(_evidence.c.id)
    )
    for row in await reader.all(noted):
        _keep(found[row.owner], row, row.by == Proof.RECORD)
    said = select(_attribute).where(_attribute.c.customer_id.in_(list(live)), _attribute.c.name != NAME)
    for row in await reader.all(said.order_by(_attribute.c.at, _attribute.c.id)):  # the latest word counts
        found[live[row.customer_id]].attributes[row.name] = row.value
    await _opt_outs(found, addresses, reader)


def _keep(customer: Exported, row: Any, sure: bool) -> None:
    if row.kind == "user_id":
        if sure and (row.site, row.value) not in customer.accounts:
            customer.accounts.append((row.site, row.value))
        return
    value = row.value if row.kind == "phone" else row.address
    known = customer.known.setdefault(row.kind, [])
    if value in known:
        return
    target = known if sure else customer.unproven.setdefault(row.kind, [])
    if value not in target:
        target.append(value)
    if sure and value in customer.unproven.get(row.kind, ()):
        customer.unproven[row.kind].remove(value)


async def _opt_outs(found: dict[int, Exported], addresses: dict[tuple[str, str], set[int]], reader: Reader) -> None:
    values: Sequence[str] = [value for _, value in addresses]
    ended = (
        select(_opt_out.c.kind, _opt_out.c.value, _channel.c.name)
        .select_from(_opt_out.join(_channel, _channel.c.id == _opt_out.c.channel_id))
        .where(_opt_out.c.value.in_(values), _opt_out.c.ended_at.is_(None))
        .order_by(_opt_out.c.id)
    )
    for row in await reader.all(ended):
        for customer_id in sorted(addresses.get((row.kind, row.value), ())):
            found[customer_id].opt_outs.append((row.name, row.kind, row.value))
