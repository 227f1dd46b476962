"""One literal table: past-tense fact -> what follows from it, decided in the transaction that states the fact."""

from __future__ import annotations

from hub.delivery.owed import (
    check_sender,
    fetch_media,
    mark_again,
    mark_customer,
    mark_tools,
    post_alarm,
    send_reply,
    show_card,
    show_cards,
    tell_destinations,
    tell_hearers,
    tell_opt_out,
)
from hub.delivery.unseen import on_answer
from hub.holds.ledger import on_identity, on_joined, on_parted
from hub.holds.reasons import on_score, on_ticket
from hub.satisfaction.surveys import on_resolved_survey
from hub.storage.facts import Facts, React
from hub.storage.records import Event

REACTIONS: dict[str, tuple[React, ...]] = {
    "message.queued": (send_reply, on_answer),
    "attachment.announced": (fetch_media,),
    "message.unchecked": (check_sender,),
    "ticket.opened": (on_ticket, show_card),
    "ticket.reopened": (on_ticket, show_card),
    "ticket.resolved": (on_ticket, show_card, on_resolved_survey, mark_customer),
    "ticket.assigned": (show_card,),
    "ticket.snoozed": (on_ticket, show_card),
    "ticket.woken": (on_ticket, show_card),
    "ticket.tagged": (on_ticket, show_card),
    "ticket.prioritised": (on_ticket, show_card),
    "ticket.spam": (on_ticket, show_card, mark_customer),
    "survey.answered": (on_score, mark_customer),
    "mark.drifted": (mark_again,),
    "optout.recorded": (tell_opt_out, mark_customer),
    "optout.withdrawn": (tell_opt_out, mark_customer),
    "alarm.raised": (post_alarm,),
    "alarm.ended": (post_alarm,),
    "customer.identified": (on_identity,),
    "customer.merged": (tell_hearers, on_joined, show_cards),
    "customer.unmerged": (tell_hearers, on_parted, show_cards),
    "customer.split": (tell_hearers, on_parted, show_cards),
    "ticket.moved": (on_parted, show_cards),
    "hold.placed": (tell_destinations, mark_tools),
    "hold.renewed": (tell_destinations, mark_tools),
    "hold.released": (tell_destinations, mark_tools),
}


def react(facts: Facts, event: Event) -> None:
    """Decide everything that follows from one event."""
    for reaction in REACTIONS.get(event.type, ()):
        reaction(facts, event)
