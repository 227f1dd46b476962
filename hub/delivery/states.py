"""The state of a message on its way out: a ladder that news may climb and never descend, whatever order it comes in."""

from __future__ import annotations

from hub.contract import DeliveryEvent, DeliveryUpdate
from hub.storage.facts import Facts
from hub.storage.records import Delivery, Message

# One line from bottom to top, so that any order of the same reports ends on the same rung. Any news settles an `unknown`;
# a failure is final unless the customer has the message all the same.
LADDER = {"queued": 0, "sending": 1, "unknown": 2, "sent": 3, "failed": 4, "delivered": 5, "read": 6}

# A provider that has the message in its own queue has taken it over from us: that is what `sent` means here.
_TAKEN = {"queued": "sent", "sending": "sent"}

# (the outbox row, what is now known of its message) -> the row from then on. What is not here leaves the row alone.
SETTLES: dict[tuple[str, str], str] = {
    ("sending", "sent"): "done",  # the report was faster than the answer to our request
    ("sending", "failed"): "failed",
    ("sending", "delivered"): "done",
    ("sending", "read"): "done",
    ("unknown", "sent"): "done",
    ("unknown", "failed"): "failed",
    ("unknown", "delivered"): "done",
    ("unknown", "read"): "done",
    ("done", "failed"): "failed",  # taken, then given up over there: listed, and a person may try it again
    ("failed", "delivered"): "done",
    ("failed", "read"): "done",
    ("queued", "delivered"): "done",  # about to be sent a second time, but the first one arrived
    ("queued", "read"): "done",
}


def advance(current: str, reported: str) -> str:
    """The higher of the two rungs; a word that is none changes nothing."""
    return reported if LADDER.get(reported, -1) > LADDER.get(current, -1) else current


def report(message: Message, delivery: Delivery | None, said: DeliveryUpdate, facts: Facts) -> None:
    """Note what a provider tells of a message, and settle its outbox row where there is one."""
    word = said.status.value
    after = advance(message.status, _TAKEN.get(word, word))
    if delivery is not None:
        settled = SETTLES.get((delivery.state, after))
        if delivery.state == "queued" and settled is None:
            # A row waiting to be sent (again) has nothing to hear but that it arrived: the rest is old news of an earlier try.
            return
        taken, named = message.provider_id, said.provider_message_id
        if delivery.state == "done" and after == "failed" and taken and named and named != taken:
            return  # an earlier try's failure, told after a later one was taken
        if settled is not None:
            delivery.state = settled
            delivery.done_at = facts.now
            delivery.lease_token = ""
            delivery.error = said.error if settled == "failed" else ""
            facts.change(delivery)
    if said.provider_message_id and message.provider_id is None:
        message.provider_id = said.provider_message_id
        facts.change(message)
    # A mail on its way may be delayed, one that arrived be called spam: said beside the state it is in.
    aside = said.event in (DeliveryEvent.DEFERRED, DeliveryEvent.COMPLAINED) and after in ("sent", "delivered", "read")
    if after == message.status and not (aside and said.error != message.error):
        return
    message.status = after
    message.error = said.error if after == "failed" or aside else ""
    facts.change(message)
    facts.emit("message.updated", customer_id=message.conversation_id, ticket_id=message.ticket_id, message_id=message.id)
