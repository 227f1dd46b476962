"""What agents decide about who is who: merge, take a merge back, say that two are two, take an address or a message out.

Each is a unit of work, refused with words for the agent. Nothing is destroyed by any of them, so each can be undone at any later time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from hub.customers import bonds, joining
from hub.policy import Refusal
from hub.storage.facts import Facts, Needs
from hub.storage.records import Customer, Message, Ticket


def agent(agent_id: int) -> str:
    """An agent as the join log and a cannot-link name who did it."""
    return f"agent:{agent_id}"


def _live(customer_id: int, facts: Facts) -> Customer:
    if customer_id not in facts.customers:
        raise Refusal(f"There is no customer {customer_id}.")
    return facts.live_customer(customer_id)


@dataclass(frozen=True, slots=True)
class Merged:
    """Which customer both are now, and the tie that made them one: what an undo names."""

    customer_id: int
    join_id: int


@dataclass(frozen=True, slots=True)
class Merge:
    """Make two customers one because an agent says so; an earlier "these are two people" ends."""

    left_id: int
    right_id: int
    actor: str
    agent_id: int | None = None
    reason: str = "an agent merged them"

    def needs(self, needs: Needs) -> None:
        needs.bonds |= {self.left_id, self.right_id}

    def decide(self, facts: Facts) -> Merged:
        left, right = _live(self.left_id, facts), _live(self.right_id, facts)
        if left is right:
            raise Refusal("They are one customer already.")
        for said in joining.parted(facts.homes_of[left.id], facts.homes_of[right.id], facts.cannot_of[left.id]):
            said.ended_at = facts.now
            facts.change(said)
        row = bonds.tie(facts, left.id, right.id, op="merge", rule=self.reason, actor=self.actor)
        one = bonds.join(facts, left, right, rule=self.reason, actor=self.actor, join_id=row.id, agent_id=self.agent_id)
        return Merged(one.id, row.id)


@dataclass(frozen=True, slots=True)
class Unmerged:
    """The two customers they are again; one and the same where something else ties them too."""

    left_id: int
    right_id: int


@dataclass(frozen=True, slots=True)
class Unmerge:
    """Take a merge or an automatic join back. `left_id` and `right_id` are the two homes the tie names.

    Where other ties hold them together they stay one customer until those are taken back too. Each can be: were it refused, nobody
    could ever open a ring of three.
    """

    join_id: int
    left_id: int
    right_id: int
    actor: str
    agent_id: int | None = None

    def needs(self, needs: Needs) -> None:
        needs.bonds |= {self.left_id, self.right_id}

    def decide(self, facts: Facts) -> Unmerged:
        one = _live(self.left_id, facts)
        ties = joining.live(facts.ties_of[one.id])
        if not any(row.id == self.join_id and (row.left_id, row.right_id) == (self.left_id, self.right_id) for row in ties):
            raise Refusal("That merge is not there any more: somebody undid it.")
        ends = {self.left_id, self.right_id}
        cut = [row for row in ties if {row.left_id, row.right_id} == ends]
        for row in cut:
            bonds.undo(facts, row, op="unmerge", rule="an agent took it back", actor=self.actor)
        rest = [row for row in ties if row not in cut]
        if any(ends <= side for side in joining.components(facts.homes_of[one.id], rest)):
            return Unmerged(one.id, one.id)
        bonds.forbid(facts, self.left_id, self.right_id, self.actor)
        bonds.part(facts, one, event="customer.unmerged", actor=self.actor, agent_id=self.agent_id)
        return Unmerged(facts.live_customer(self.left_id).id, facts.live_customer(self.right_id).id)


@dataclass(frozen=True, slots=True)
class Reject:
    """Two customers are two people: they are suggested no more, and no later proof joins them by itself."""

    left_id: int
    right_id: int
    actor: str
    agent_id: int | None = None

    def needs(self, needs: Needs) -> None:
        needs.bonds |= {self.left_id, self.right_id}

    def decide(self, facts: Facts) -> None:
        left, right = _live(self.left_id, facts), _live(self.right_id, facts)
        if left is right:
            raise Refusal("They are one customer already. Take the merge back instead.")
        # Said again, it counts from now on: what has come up since the first time is answered too.
        for row in joining.parted(facts.homes_of[left.id], facts.homes_of[right.id], facts.cannot_of[left.id]):
            row.ended_at = facts.now
            facts.change(row)
        bonds.forbid(facts, left.id, right.id, self.actor)
        facts.emit("suggestion.rejected", customer_id=left.id, agent_id=self.agent_id, data=json.dumps({"other": right.id}))


@dataclass(frozen=True, slots=True)
class TakeOut:
    """An identifier is not this customer's: it becomes a customer of its own, with the messages that came by it."""

    customer_id: int
    identifier_id: int
    actor: str
    agent_id: int | None = None

    def needs(self, needs: Needs) -> None:
        needs.bonds.add(self.customer_id)

    def decide(self, facts: Facts) -> int | None:
        """The customer it is now; None where nothing ever came by it."""
        one = _live(self.customer_id, facts)
        own = facts.identifiers_of[one.id]
        identifier = next((i for i in own if i.id == self.identifier_id), None)
        if identifier is None:
            raise Refusal("That address is not this customer's any more. Reload the page.")
        if len(own) == 1:
            raise Refusal("It is all that is known of this customer: there is nothing to take it out of.")
        rest = [i for i in own if i is not identifier]
        bonds.set_apart(
            facts, identifier, op="split", rule="an agent took it out", actor=self.actor, event="customer.split", agent_id=self.agent_id
        )
        if identifier.home_id is None:
            facts.emit("customer.identified", customer_id=one.id, agent_id=self.agent_id)
            return None
        if any(i.customer_id == identifier.customer_id for i in rest):
            raise Refusal("An agent merged it in with everything it came with. Take that merge back instead.")
        for other_id in sorted({i.customer_id for i in rest if i.customer_id is not None}):
            bonds.forbid(facts, other_id, identifier.home_id, self.actor)
        return identifier.customer_id


@dataclass(frozen=True, slots=True)
class Dismiss:
    """What a customer claimed of an address is withdrawn: their hold covers it no more."""

    customer_id: int
    identifier_id: int
    agent_id: int | None = None

    def needs(self, needs: Needs) -> None:
        needs.customers.add(self.customer_id)

    def decide(self, facts: Facts) -> None:
        one = _live(self.customer_id, facts)
        said = [e for i in facts.identifiers_of[one.id] for e in facts.evidence_of.get(i.id, ()) if e.other_id == self.identifier_id]
        found = [e for e in said if e.withdrawn_at is None]
        if not found:
            raise Refusal("Nothing is claimed of that address any more. Reload the page.")
        for evidence in found:
            evidence.withdrawn_at = facts.now
            facts.change(evidence)
        facts.emit("customer.identified", customer_id=one.id, agent_id=self.agent_id)


@dataclass(frozen=True, slots=True)
class MoveTicket:
    """Give a ticket, with all its messages, to another customer."""

    ticket_id: int
    to_id: int
    agent_id: int | None = None

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket_id)
        needs.customers.add(self.to_id)

    def decide(self, facts: Facts) -> int:
        """The customer it belongs to now."""
        ticket = facts.tickets.get(self.ticket_id)
        if ticket is None:
            raise Refusal(f"There is no ticket {self.ticket_id}.")
        before, to = facts.live_customer(ticket.conversation_id), _live(self.to_id, facts)
        if before is to:
            raise Refusal("The ticket is that customer's already.")
        facts.relabel("place ticket", to.id, before.id, ticket.id, to.id)
        facts.tickets_of[before.id] = [t for t in facts.tickets_of[before.id] if t is not ticket]
        facts.tickets_of[to.id].append(ticket)
        ticket.conversation_id = ticket.home_id = to.id
        for hold in [h for h in facts.holds_of[before.id] if h.source == f"ticket:{ticket.id}" and h.released_at is None]:
            facts.holds_of[before.id].remove(hold)
            facts.holds_of[to.id].append(hold)
            hold.customer_id = hold.home_id = to.id
        ticket.version += 1
        facts.change(ticket)
        facts.emit("ticket.moved", customer_id=to.id, ticket_id=ticket.id, agent_id=self.agent_id, data=json.dumps({"other": before.id}))
        return to.id


@dataclass(frozen=True, slots=True)
class MoveMessage:
    """Give one message to another customer: onto their open ticket, or a new one."""

    message_id: int
    from_id: int
    to_id: int
    agent_id: int | None = None

    def needs(self, needs: Needs) -> None:
        needs.messages.add(self.message_id)
        needs.beside.add(self.message_id)
        needs.bonds |= {self.from_id, self.to_id}

    def decide(self, facts: Facts) -> int:
        """The ticket it stands on now."""
        message = facts.messages.get(self.message_id)
        if message is None or message.ticket_id is None:
            raise Refusal(f"There is no message {self.message_id}.")
        if message.direction == "note":
            raise Refusal("A note stays with its ticket. Move the ticket.")
        before, to = facts.live_customer(message.conversation_id), _live(self.to_id, facts)
        if before is to:
            raise Refusal("The message is that customer's already.")
        left = facts.tickets[message.ticket_id]
        target = self._ticket(message, left, to, facts)
        facts.relabel("place message", to.id, before.id, message.id, target.id)
        message.conversation_id, message.ticket_id, message.placed = to.id, target.id, True
        facts.emit(
            "message.moved",
            customer_id=to.id,
            ticket_id=target.id,
            message_id=message.id,
            agent_id=self.agent_id,
            data=json.dumps({"other": before.id, "ticket": left.id}),
        )
        if message.created_at >= target.last_at or not target.preview:
            target.last_at, target.preview = message.created_at, bonds.line(message.text or message.subject)
        if message.direction == "in":
            target.last_inbound_id = max(target.last_inbound_id or 0, message.id)
        self._retell(left, message, target, facts)
        for ticket in (target, left):
            ticket.version += 1
            facts.change(ticket)
            facts.emit("ticket.updated", customer_id=ticket.conversation_id, ticket_id=ticket.id, agent_id=self.agent_id)
        return target.id

    def _ticket(self, message: Message, left: Ticket, to: Customer, facts: Facts) -> Ticket:
        own = [t for t in facts.tickets_of[to.id] if t.status != "resolved"]
        if own:
            return max(own, key=lambda t: (t.last_at, t.id))
        made = Ticket(
            id=facts.new_id("ticket"),
            conversation_id=to.id,
            status="resolved" if left.status == "resolved" else "open",
            subject=message.subject,  # not the other's
            brand=left.brand,
            channel_id=message.channel_id if message.channel_id is not None else left.channel_id,
            identifier_id=message.identifier_id if message.identifier_id is not None else left.identifier_id,
            opened_at=facts.now,
            last_at=message.created_at,
            preview="",
            resolved_at=facts.now if left.status == "resolved" else None,
            home_id=to.id,
        )
        facts.add_ticket(made)
        if made.status == "open":
            made.waiting_since = facts.now if message.direction == "in" else None
            facts.emit("ticket.opened", customer_id=to.id, ticket_id=made.id, message_id=message.id, agent_id=self.agent_id)
        return made

    def _retell(self, left: Ticket, moved: Message, target: Ticket, facts: Facts) -> None:
        """What the ticket left tells of its last messages now: else it would show what is another's, and wait for its answer."""
        stay = [m for m in facts.messages.values() if m.ticket_id == left.id and m.direction != "note"]
        newest = max(stay, key=lambda m: m.id, default=None)
        if newest is None:
            left.preview = f"Its message stands on #{target.id} now."
        elif newest.id < moved.id:
            left.last_at, left.preview = newest.created_at, bonds.line(newest.text or newest.subject)
        if left.last_inbound_id == moved.id:
            left.last_inbound_id = max((m.id for m in stay if m.direction == "in"), default=None)
