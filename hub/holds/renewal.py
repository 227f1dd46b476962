"""Leases: renewed while their reason lives, let go of when it is gone or has held for long enough."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hub.holds.ledger import OPEN_TICKET, active_holds, lease, note, source_of
from hub.holds.reasons import holds
from hub.storage.facts import Facts, Needs
from hub.storage.records import Customer, Hold


@dataclass(frozen=True, slots=True)
class RenewLeases:
    """Extend the leases that end soon while their reason lives; let go of those whose reason is gone, or whose time is up."""

    before: int  # leases that end before this time, in microseconds

    def needs(self, needs: Needs) -> None:
        needs.leases_below = max(needs.leases_below, self.before)

    def decide(self, facts: Facts) -> int:
        """The number of leases settled: while it is not 0 there may be more."""
        # However the two settings stand to each other, what was just renewed is not renewed again.
        before = min(self.before, facts.now + facts.policy.hold_lease // 2)
        by_customer: dict[int, list[Hold]] = {}
        for hold in facts.expiring:
            if hold.released_at is None and hold.lease_until < before:
                by_customer.setdefault(hold.customer_id, []).append(hold)
        settled = 0
        for customer_id, ending in by_customer.items():
            customer = facts.live_customer(customer_id)
            # A lease that ran out while the hub was away counts as held: its ticket is open, and it is held again now.
            held_before = bool(active_holds(customer, facts))
            ops: list[tuple[str, Hold]] = []
            for hold in ending:
                if hold.reason == OPEN_TICKET and hold.ends_at is None:  # placed before tickets' holds had an end
                    hold.ends_at = hold.placed_at + facts.policy.hold.longest
                if not _lives(hold, customer, facts):
                    hold.released_at = facts.now
                    ops.append(("released", hold))
                elif lease(hold, facts) > hold.lease_until:
                    hold.lease_until = lease(hold, facts)
                    ops.append(("renewed", hold))
                else:
                    continue  # it ends for good soon, and by itself
                facts.change(hold)
            if ops:
                settled += len(ops)
                # Told of a release, a tool must be told even if the lease had let go of the customer already.
                note(customer, ops, held_before=held_before or any(op == "released" for op, _ in ops), facts=facts)
        return settled


def _lives(hold: Hold, customer: Customer, facts: Facts) -> bool:
    over = hold.ends_at is not None and hold.ends_at <= facts.now
    if hold.reason != OPEN_TICKET:
        return not over
    ticket = next((t for t in facts.tickets_of.get(customer.id, ()) if source_of(t.id) == hold.source), None)
    if ticket is None or not holds(ticket, facts.policy.hold):
        return False
    if over:
        # Held for as long as a ticket may: whoever left it lying for weeks is told, and the customer is free.
        ticket.hold_ended_at = facts.now
        facts.change(ticket)
        days = (facts.now - hold.placed_at) // 86_400_000_000
        facts.emit("ticket.hold_overdue", customer_id=customer.id, ticket_id=ticket.id, data=json.dumps({"days": days}))
    return not over
