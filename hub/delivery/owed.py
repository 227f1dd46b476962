"""What an event makes us owe the outside world: the reactions that add outbox rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from hub.holds.ledger import active_holds, identifiers_of, notice
from hub.holds.marks import LookNow
from hub.storage.facts import Facts, Needs
from hub.storage.reader import Reader
from hub.storage.records import Customer, Delivery, Event, Setting
from hub.storage.tables import metadata
from hub.storage.writer import Writer

CHANGES = ("hold.placed", "hold.renewed", "hold.released")
AT_A_TIME = 200  # customers in one unit of work, so that no one waits long behind it

_hold = metadata.tables["hold"]
_setting = metadata.tables["setting"]
_mark_table = metadata.tables["mark"]


def send_reply(facts: Facts, event: Event) -> None:
    """Reaction: an agent's answer leaves on its channel, after whatever was written before it in that conversation."""
    message = facts.messages[event.message_id or 0]
    rule = facts.policy.channels[message.channel_id or 0]
    _owe(
        facts,
        lane=f"reply:{message.conversation_id}:{rule.id}",
        kind="reply",
        target=rule.name,
        subject_id=message.id,
        idempotent=rule.idempotent,
    )


def show_card(facts: Facts, event: Event) -> None:
    """Reaction: every room shows the ticket as it now stands."""
    _show(facts, event.ticket_id or 0)


def show_cards(facts: Facts, event: Event) -> None:
    """Reaction: a customer turned out to be another one, or two, so the cards of their unresolved tickets bear another name."""
    for customer_id in (event.customer_id or 0, json.loads(event.data).get("other", 0)):
        for ticket in facts.tickets_of.get(customer_id, ()):
            if ticket.status != "resolved":
                _show(facts, ticket.id)


def _show(facts: Facts, ticket_id: int) -> None:
    """One row a room and ticket for ever, brought up to date.

    A first post cannot be repeated safely, an update can. One of unknown fate is not posted again by itself; the next change
    of its ticket is: a second post in the room costs less than a ticket nobody hears of.
    """
    for room in facts.policy.rooms:
        slot = f"card:{room}:{ticket_id}"
        row = facts.slots.get(slot)
        if row is None:
            _owe(facts, lane=slot, kind="card", target=room, subject_id=ticket_id, idempotent=False, slot=slot)
            continue
        row.version += 1
        # One under way is sent again when it finishes, its version being old by then; one that waits for its next try keeps
        # waiting, since the room asked for it.
        if row.state not in ("sending", "queued"):
            row.state = "queued"
            row.due_at = facts.now
            row.attempt = 0
            row.done_at = None
            row.error = ""
        facts.change(row)


def tell_destinations(facts: Facts, event: Event) -> None:
    """Reaction: every destination is told of every change of a customer's hold, in order; the scope in it says whom it binds."""
    for destination in facts.policy.destinations:
        _tell(destination, event.customer_id or 0, {"type": event.type, "at": event.at, "data": json.loads(event.data)}, facts)


def mark_tools(facts: Facts, event: Event) -> None:
    """Reaction: a customer's hold changed, so every marketing tool must show how they stand now. Which of their profiles differ from
    what the tool was told is found out when the row is carried: the last state wins, however many rows wait."""
    data = json.loads(event.data)
    for tool in facts.policy.tools:
        _mark(tool, event.customer_id or 0, {"at": event.at, "data": {"identifiers": data["identifiers"]}}, facts)


def mark_again(facts: Facts, event: Event) -> None:
    """Reaction: a tool shows something else than it was told, and is told again."""
    destination = json.loads(event.data)["destination"]
    if destination in facts.policy.tools:
        _mark(destination, event.customer_id or 0, {"at": event.at, "data": {}}, facts)


def mark_customer(facts: Facts, event: Event) -> None:
    """Reaction: support knows something new that tools are told beside the hold; those that were told of this customer are told."""
    ticket = facts.tickets.get(event.ticket_id or 0)
    if any(e.type in CHANGES and e.customer_id == event.customer_id for e in facts.events):
        return  # they are told anyway, of all that is so when they are
    customer_id = event.customer_id or (ticket.conversation_id if ticket is not None else 0)
    if customer_id in facts.customers and facts.live_customer(customer_id).hold_version:
        for tool in facts.policy.tools:
            _mark(tool, facts.live_customer(customer_id).id, {"at": event.at, "data": {}}, facts)


def _mark(tool: str, customer_id: int, payload: dict[str, Any], facts: Facts) -> None:
    _owe(
        facts,
        lane=f"mark:{tool}:{customer_id}",
        kind="mark",
        target=tool,
        subject_id=customer_id,
        idempotent=True,
        payload=json.dumps(payload),
    )


@dataclass(frozen=True, slots=True)
class MarkAgain:
    """Bring some customers' profiles in a tool to the wanted state once more, whatever it was told."""

    destination: str
    customer_ids: tuple[int, ...]

    def needs(self, needs: Needs) -> None:
        needs.customers.update(self.customer_ids)

    def decide(self, facts: Facts) -> int:
        """How many customers."""
        live = sorted({facts.live_customer(id_).id for id_ in self.customer_ids if id_ in facts.customers} | set(self.customer_ids))
        for customer_id in live:
            customer = facts.customers.get(customer_id)
            named = identifiers_of(customer, facts) if customer is not None else []
            _mark(self.destination, customer_id, {"at": facts.now, "data": {"identifiers": named}}, facts)
        return len(live)


def post_alarm(facts: Facts, event: Event) -> None:
    """Reaction: the team's rooms hear of an alarm when it is raised and when it is over."""
    said = json.loads(event.data)
    for room in facts.policy.rooms:
        _owe(
            facts,
            lane=f"alert:{room}:{said['alarm']}",
            kind="alert",
            target=room,
            subject_id=said["alarm"],
            idempotent=False,
            payload=json.dumps({**{k: said[k] for k in ("title", "text", "url")}, "ended": event.type == "alarm.ended"}),
        )


def tell_opt_out(facts: Facts, event: Event) -> None:
    """Reaction: somebody wants to be written to no more on a channel, or does again. Told as it is: no hold follows, and no consent of
    a tool's own is touched by us."""
    said = json.loads(event.data)
    rule = facts.policy.channels.get(said["channel_id"])
    data = {
        **{"customer_id": event.customer_id, "channel": rule.name if rule is not None else ""},
        **{"identifier": {"kind": said["kind"], "value": said["value"]}, "words": said["words"], "by": said["by"] or "customer"},
    }
    for destination in facts.policy.destinations:
        if event.type in facts.policy.hears.get(destination, ()):
            told = {"type": event.type, "at": event.at, "data": data}
            _tell(destination, event.customer_id or 0, told, facts, lane="optout")


def tell_hearers(facts: Facts, event: Event) -> None:
    """Reaction: two customers are one now, or one is two. Whoever keeps customers by id is told, in an order of its own: a receiver
    that does not know what to make of it must not keep a hold from being told."""
    hearing = [name for name in facts.policy.destinations if event.type in facts.policy.hears.get(name, ())]
    if not hearing:
        return
    said = json.loads(event.data)
    customer, other = facts.live_customer(event.customer_id or 0), facts.customers[said["other"]]
    data = {
        "customer_id": customer.id,
        "other_id": other.id,
        "actor": said.get("actor", ""),
        **{name: said[key] for name, key in (("reason", "rule"), ("join_id", "join")) if key in said},
        "identifiers": identifiers_of(customer, facts),
        "merged_ids": _leading_to(customer, facts),
        # After a merge all is the survivor's.
        "other_identifiers": identifiers_of(other, facts) if other.merged_into is None else [],
        "other_merged_ids": _leading_to(other, facts) if other.merged_into is None else [],
    }
    for destination in hearing:
        _tell(destination, customer.id, {"type": event.type, "at": event.at, "data": data}, facts, lane="customer")


def _leading_to(customer: Customer, facts: Facts) -> list[int]:
    """The ids of merged customers that lead to this one now."""
    return sorted(facts.homes_of.get(customer.id, set()) - {customer.id})


def _tell(destination: str, customer_id: int, told: dict[str, Any], facts: Facts, *, lane: str = "hold") -> None:
    _owe(
        facts,
        lane=f"{lane}:{destination}:{customer_id}",
        kind="hold",
        target=destination,
        subject_id=customer_id,
        idempotent=True,
        payload=json.dumps(told),
    )


@dataclass(frozen=True, slots=True)
class TellHeld:
    """Tell destinations that are new here how some customers' holds stand; their version stays, so that telling twice is harmless."""

    customer_ids: tuple[int, ...]
    destinations: tuple[str, ...]

    def needs(self, needs: Needs) -> None:
        needs.customers.update(self.customer_ids)

    def decide(self, facts: Facts) -> None:
        for customer_id in sorted({facts.live_customer(id_).id for id_ in self.customer_ids}):
            customer = facts.customers[customer_id]
            active = active_holds(customer, facts)
            if not active:
                continue
            told = {"type": "hold.placed", "at": facts.now, "data": notice(customer, active, facts)}
            for destination in self.destinations:
                if destination in facts.policy.tools:
                    _mark(destination, customer.id, told, facts)
                else:
                    _tell(destination, customer.id, told, facts)


TOLD_ALL = "holds.destinations"


@dataclass(frozen=True, slots=True)
class NoteToldAll:
    """Note the destinations configured now, each of which has been told of everybody held."""

    destinations: tuple[str, ...]

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("setting", "key", TOLD_ALL))

    def decide(self, facts: Facts) -> None:
        value = json.dumps(self.destinations)
        known = facts.found[("setting", "key", TOLD_ALL)]
        if known:
            known[0].value = value
            facts.change(known[0])
        else:
            facts.insert(Setting(TOLD_ALL, value))


async def introduce(destinations: Sequence[str], reader: Reader, writer: Writer) -> None:
    """Tell every destination that was not configured before of everybody held now. Raises StorageBusy; done again, it does no harm."""
    noted = await reader.value(select(_setting.c.value).where(_setting.c.key == TOLD_ALL))
    before = json.loads(noted) if noted is not None else []
    if list(destinations) == before:
        return
    new = tuple(name for name in destinations if name not in before)
    last = 0
    while new:
        held = select(_hold.c.customer_id).where(_hold.c.released_at.is_(None), _hold.c.customer_id > last)
        ids = tuple(row[0] for row in await reader.all(held.distinct().order_by(_hold.c.customer_id).limit(AT_A_TIME)))
        if not ids:
            break
        await writer.run(TellHeld(ids, new))
        last = ids[-1]
    await writer.run(NoteToldAll(tuple(destinations)))


async def reconcile(tool: str, reader: Reader, writer: Writer) -> tuple[int, int]:
    """Have a marketing tool brought to the wanted state and read back, all of it, as soon as the hub runs: (customers, identifiers it
    was told of). Raises StorageBusy."""
    customers, last = 0, 0
    while True:
        held = select(_hold.c.customer_id).where(_hold.c.released_at.is_(None), _hold.c.customer_id > last)
        marked = select(_mark_table.c.customer_id).where(_mark_table.c.destination == tool, _mark_table.c.customer_id > last)
        both = held.union(marked).subquery()
        ids = tuple(row[0] for row in await reader.all(select(both.c.customer_id).order_by(both.c.customer_id).limit(AT_A_TIME)))
        if not ids:
            break
        customers += await writer.run(MarkAgain(tool, ids))
        last = ids[-1]
    marks, last = 0, 0
    while True:
        told = select(_mark_table.c.id, _mark_table.c.value).where(
            _mark_table.c.destination == tool, _mark_table.c.id > last, _mark_table.c.accepted_at.is_not(None)
        )
        found = tuple((row.id, row.value) for row in await reader.all(told.order_by(_mark_table.c.id).limit(AT_A_TIME)))
        if not found:
            return customers, marks
        await writer.run(LookNow(found))
        marks += len(found)
        last = found[-1][0]


def fetch_media(facts: Facts, event: Event) -> None:
    """Reaction: a file the provider only announced is fetched after the commit."""
    announced = json.loads(event.data)
    _owe(
        facts,
        lane=f"media:{announced['id']}",
        kind="media",
        target=facts.policy.channels[announced["channel_id"]].name,
        subject_id=event.message_id or 0,
        idempotent=True,
        payload=json.dumps({"attachment": announced["id"]}),
    )


def check_sender(facts: Facts, event: Event) -> None:
    """Reaction: a signature that came with a message, and that nobody has judged, is checked after the commit."""
    _owe(
        facts,
        lane=f"check:{event.message_id}",
        kind="check",
        target=facts.policy.channels[json.loads(event.data)["channel_id"]].name,
        subject_id=event.message_id or 0,
        idempotent=True,
    )


def _owe(
    facts: Facts,
    *,
    lane: str,
    kind: str,
    target: str,
    subject_id: int,
    idempotent: bool,
    slot: str | None = None,
    payload: str = "{}",
) -> None:
    facts.add_delivery(
        Delivery(
            id=facts.new_id("delivery"),
            lane=lane,
            kind=kind,
            target=target,
            subject_id=subject_id,
            payload=payload,
            state="queued",
            idempotent=idempotent,
            created_at=facts.now,
            due_at=facts.now,
            slot=slot,
        )
    )
