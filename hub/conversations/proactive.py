"""A message nobody asked for, by a program (a parcel is on its way): into the customer's one conversation, or not at all.

It is refused where the channel's window is shut and no approved template is named, where the address opted out, came back, or is
nobody's. It opens no ticket and holds nobody; an answer to it is a message like any other.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from hub.contract import TemplateUse
from hub.conversations.text import storable
from hub.conversations.windows import is_open, why_shut
from hub.customers.opt_outs import opted_out
from hub.customers.resolution import ASSERTED, PROVEN
from hub.policy import Refusal
from hub.storage.facts import Facts, Needs
from hub.storage.records import Identifier, Message


@dataclass(frozen=True, slots=True)
class Sent:
    message_id: int
    customer_id: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Write:
    """Write to one address (canonical) on one channel. The same `key` again sends nothing twice. `marketing`: it is advertising, so a
    refusal of marketing and a hold forbid it too."""

    channel_id: int
    kind: str
    value: str
    text: str
    key: str
    subject: str = ""
    site: str = ""
    template: TemplateUse | None = None
    marketing: bool = False

    def _keys(self) -> list[tuple[str, str, str, str]]:
        return [(self.kind, self.site, self.value, standing) for standing in (PROVEN, ASSERTED)]

    @property
    def draft_key(self) -> str:
        return f"api-{hashlib.sha256(self.key.encode()).hexdigest()[:40]}"

    def needs(self, needs: Needs) -> None:
        needs.drafts.add(self.draft_key)
        needs.identifiers.update(self._keys())
        needs.ways_out = True

    def decide(self, facts: Facts) -> Sent:
        """Raises Refusal."""
        written = facts.by_draft.get(self.draft_key)
        if written is not None:
            return Sent(written.id, written.conversation_id, duplicate=True)
        rule = facts.policy.channels.get(self.channel_id)
        if rule is None or self.kind not in rule.reaches:
            raise Refusal(f"This channel does not reach a {self.kind}.")
        identifier = self._identifier(facts)
        if not self.text.strip():
            raise Refusal("Write something first.")
        stopped = opted_out(identifier, rule.id, facts)
        if stopped is None and self.marketing:
            rows = facts.opt_outs.get((identifier.kind, identifier.value), ())
            stopped = next((row for row in rows if row.channel_id == rule.id and row.ended_at is None), None)
        if stopped is not None:
            raise Refusal(f"{identifier.address} opted out of {rule.label}. Nothing may be written there.")
        if identifier.bounced_at is not None:
            raise Refusal(f"What was sent to {identifier.address} came back: {identifier.bounce}")
        customer = facts.live_customer(identifier.customer_id or 0)
        owners = [facts.identifiers[key].customer_id for key in self._keys() if key in facts.identifiers]
        holds = [hold for id_ in owners if id_ is not None for hold in facts.holds_of.get(facts.live_customer(id_).id, ())]
        if self.marketing and any(hold.released_at is None for hold in holds):  # of whoever it is taken for, as at the gate
            raise Refusal("This customer is on hold: no marketing may be sent to them now.")
        if self.template is None and not is_open(rule, facts.heard.get((rule.id, identifier.id)), facts.now):
            raise Refusal(f"{why_shut(rule)} Name an approved template.")
        message = Message(
            id=facts.new_id("message"),
            conversation_id=customer.id,
            ticket_id=None,
            direction="out",
            status="queued",
            text=storable(self.text),
            created_at=facts.now,
            channel_id=rule.id,
            identifier_id=identifier.id,
            draft_key=self.draft_key,
            automatic="notice",
            subject=storable(self.subject),
            template=json.dumps(asdict(self.template)) if self.template is not None else "",
        )
        if rule.mails:
            message.mail_id = f"<{message.id}.{self.draft_key[4:24]}@{facts.policy.mail_domain}>"
        facts.add_message(message)
        facts.emit("message.queued", customer_id=customer.id, message_id=message.id)
        return Sent(message.id, customer.id, duplicate=False)

    def _identifier(self, facts: Facts) -> Identifier:
        for key in self._keys():
            identifier = facts.identifiers.get(key)
            if identifier is not None and identifier.customer_id is not None and identifier.ended_at is None:
                return identifier
        raise Refusal("Nobody is known by this address. Import them first, or let them write to you.")
