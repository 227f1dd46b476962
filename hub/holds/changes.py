"""Holds as a tool reads them that polls: every change in the order of commits, and everybody held now to begin from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select, text

from hub.holds.ledger import active_holds, notice
from hub.storage.facts import Facts, Needs
from hub.storage.tables import metadata

CHANGES = ("hold.placed", "hold.renewed", "hold.released")  # the events of index ix_event_hold

_event = metadata.tables["event"].c
_hold = metadata.tables["hold"].c
# Word for word as the partial index has it: with bound values neither engine would see that it fits.
OF_HOLDS = text("type IN ('hold.placed', 'hold.renewed', 'hold.released')")


def changes_after(seq: int, limit: int) -> Select[Any]:
    """(seq, type, at, data) of the changes after event number `seq`, oldest first. Numbers are given in the order of commits, so reading on
    from the last one misses none."""
    return select(_event.seq, _event.type, _event.at, _event.data).where(_event.seq > seq, OF_HOLDS).order_by(_event.seq).limit(limit)


def held_after(customer_id: int, now: int, limit: int) -> Select[Any]:
    """Ids of the customers held at `now` (microseconds UTC) that follow this one."""
    held = (_hold.released_at.is_(None), _hold.lease_until > now, _hold.customer_id > customer_id)
    return select(_hold.customer_id).where(*held).distinct().order_by(_hold.customer_id).limit(limit)


@dataclass(frozen=True, slots=True)
class TellStanding:
    """How some customers stand now, as a change of their hold would tell it; those who are free meanwhile are left out. Writes nothing."""

    customer_ids: Collection[int]

    def needs(self, needs: Needs) -> None:
        needs.customers.update(self.customer_ids)

    def decide(self, facts: Facts) -> list[dict[str, Any]]:
        told = []
        for customer_id in self.customer_ids:
            if customer_id not in facts.customers or facts.customers[customer_id].merged_into is not None:
                continue
            customer = facts.customers[customer_id]
            active = active_holds(customer, facts)
            if active:
                told.append(notice(customer, active, facts))
        return told
