"""What providers, bounces and customers tell of messages said before: how they fared, and what was done to them since."""

from __future__ import annotations

from hub.contract import Altered, ConsentChanged, DeliveryEvent, DeliveryUpdate
from hub.customers import opt_outs
from hub.customers.canonical import canonical
from hub.customers.resolution import ASSERTED, PROVEN, Known
from hub.delivery import states
from hub.storage.facts import Facts, Needs
from hub.storage.records import Identifier, Message, MessageChange

COMPLAINT = "They marked one of our mails as spam."


def need(said: DeliveryUpdate, needs: Needs) -> None:
    if said.delivery_id is not None:
        needs.deliveries.add(said.delivery_id)
    if said.provider_message_id:
        needs.provider_ids.add(said.provider_message_id)
    if said.mail_id:
        needs.mail_ids.add(said.mail_id)
    if said.event is DeliveryEvent.UNSUBSCRIBED:
        needs.ways_out = True  # the opt-outs there are already
    for kind in ("email", "phone") if said.recipient and _marks(said) else ():
        value = canonical(kind, said.recipient)
        if value is not None:
            needs.identifiers.update({(kind, "", value, PROVEN), (kind, "", value, ASSERTED)})


def _marks(said: DeliveryUpdate) -> bool:
    return said.permanent or said.event is DeliveryEvent.COMPLAINED


def deliver(said: DeliveryUpdate, channel_id: int, facts: Facts, *, quoting: bool = False) -> bool:
    """Note how a message of this channel fared; whether one was found. `quoting`: anybody may have written the report (a bounce is a
    mail like any other), so it must name a mail of ours and whom that went to, which only those know who had that mail."""
    delivery = facts.deliveries.get(said.delivery_id) if said.delivery_id is not None else None
    if delivery is not None and delivery.kind != "reply":
        return True
    message = facts.messages.get(delivery.subject_id) if delivery is not None else None
    message = message or facts.by_provider_id.get(said.provider_message_id) or facts.by_mail_id.get(said.mail_id)
    # A provider can tell of what was sent through it, and of nothing else.
    if message is not None and (message.direction != "out" or message.channel_id != channel_id):
        message = None
    sent_to = facts.identifiers_by_id.get(message.identifier_id or 0) if message is not None else None
    value = canonical(sent_to.kind, said.recipient) if sent_to is not None and said.recipient else None
    # Of a mail's copy that came back the customer has theirs all the same. Elsewhere one message goes to one person, however named.
    to_them = sent_to is not None and (sent_to.kind != "email" or value is None or value == sent_to.value)
    if quoting and (message is None or value is None or not to_them):
        return False
    if message is not None and to_them:
        states.report(message, delivery, said, facts)
    if _marks(said) and sent_to is not None and to_them:
        _mark(sent_to, said, facts)
    elif _marks(said) and not quoting and said.recipient:
        for identifier in _of(said.recipient, facts):
            _mark(identifier, said, facts)
    if said.event is DeliveryEvent.UNSUBSCRIBED and sent_to is not None and to_them and message is not None:
        own = Known(sent_to.kind, sent_to.site, sent_to.value, sent_to.standing, sent_to.proof, sent_to.address)
        owner = message.conversation_id
        opt_outs.note(True, own, channel_id, message.id, facts, customer_id=owner, words=said.error, scope="marketing")
    return message is not None


def _of(recipient: str, facts: Facts) -> list[Identifier]:
    keys = [(kind, "", canonical(kind, recipient) or "", standing) for kind in ("email", "phone") for standing in (PROVEN, ASSERTED)]
    return [facts.identifiers[key] for key in keys if key in facts.identifiers]


def _mark(identifier: Identifier, said: DeliveryUpdate, facts: Facts) -> None:
    """What is sent to this address comes back: whoever would write there is told first."""
    identifier.bounced_at = facts.now
    identifier.bounce = COMPLAINT if said.event is DeliveryEvent.COMPLAINED else said.error
    facts.change(identifier)


def heard_from(identifier: Identifier, facts: Facts) -> None:
    """They write from it, so it is theirs and works."""
    if identifier.bounced_at is not None:
        identifier.bounced_at, identifier.bounce = None, ""
        facts.change(identifier)


def alter(said: Altered, known: tuple[Known, ...], channel_id: int, facts: Facts) -> bool:
    """Keep a reaction, an edit or a deletion beside the message it is about; whether there is such a message. Only their own words can be
    edited or deleted; react they may to what was said between them and us."""
    message: Message | None = facts.by_provider_id.get(said.about)
    if message is None or message.channel_id != channel_id or (said.what != "reaction" and message.direction != "in"):
        return False
    own = [identifier for claim in known if (identifier := facts.identifiers.get(claim.key)) is not None]
    about = facts.identifiers_by_id.get(message.identifier_id or 0)
    # A user id and the number beside it are one person's, whichever of the two the channel names.
    if about is None or not any(one is about or (one.customer_id is not None and one.customer_id == about.customer_id) for one in own):
        return False
    facts.insert(MessageChange(facts.new_id("message_change"), message.id, said.what, said.text, message.identifier_id, facts.now))
    facts.emit("message.altered", customer_id=message.conversation_id, ticket_id=message.ticket_id, message_id=message.id)
    return True


def consent(said: ConsentChanged, known: tuple[Known, ...], channel_id: int, facts: Facts) -> None:
    """Keep what the customer told the channel about marketing. Of somebody we have never heard of it is kept by their address."""
    claim = known[0]
    identifier = facts.identifiers.get(claim.key)
    customer_id = facts.live_customer(identifier.customer_id).id if identifier is not None and identifier.customer_id is not None else None
    opt_outs.note(said.opts == "out", claim, channel_id, None, facts, customer_id=customer_id, words=said.words, scope="marketing")
