"""What agents do. Each is a unit of work: plain data, decided against the facts, refused with words for the agent.

`Reply` is the one doorway out: nothing else creates a message that leaves.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Protocol

from hub.contract import TemplateUse
from hub.conversations import tickets, ways
from hub.conversations.ingest import preview
from hub.conversations.text import storable
from hub.conversations.windows import is_open, why_shut
from hub.customers.canonical import canonical
from hub.customers.opt_outs import opted_out
from hub.customers.resolution import PROVEN, TYING
from hub.policy import ChannelRule, Refusal
from hub.storage.facts import Facts, Needs
from hub.storage.records import Attachment, Identifier, Message, MessageCopy, ReadMarker, Ticket


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file an agent attached; its bytes are already in the blob store."""

    name: str
    content_type: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Replied:
    message_id: int
    duplicate: bool


def _ticket(ticket_id: int, facts: Facts) -> Ticket:
    ticket = facts.tickets.get(ticket_id)
    if ticket is None:
        raise Refusal(f"There is no ticket {ticket_id}.")
    return ticket


def _same(message: Message, ticket_id: int, direction: str) -> int:
    """The id of what this draft has become already. Raises Refusal where it became something else: that must not pass for sent."""
    if (message.ticket_id, message.direction) != (ticket_id, direction):
        raise Refusal("This draft was used already for something else. Copy its text, reload and send it again.")
    return message.id


class Reached(Protocol):
    """The part of an identifier that decides whether a channel can write to it: a record, or a row of a page."""

    @property
    def kind(self) -> str: ...

    @property
    def site(self) -> str: ...

    @property
    def ended_at(self) -> int | None: ...


def reachable(rule: ChannelRule, identifier: Reached) -> bool:
    """Whether a channel can write to an identifier: not to another site's account, nor to a number that is somebody else's by now."""
    return identifier.kind in rule.reaches and (not rule.site or identifier.site in ("", rule.site)) and identifier.ended_at is None


MOST_COPIES = 20
WORDS_QUOTED = 160  # characters of what the customer wrote elsewhere


def continued(text: str, label: str, words: str) -> str:
    """An answer led in for another channel than the customer wrote on: that it goes on here, and after which words of theirs."""
    line = " ".join(words.split())
    line = line if len(line) <= WORDS_QUOTED else line[: WORDS_QUOTED - 1] + "\u2026"
    came = f" You wrote by {label}" if label else " You wrote"
    return f"We continue here.{came}: \u201c{line}\u201d\n\n{text}" if line else f"We continue here.\n\n{text}"


@dataclass(frozen=True, slots=True)
class Reply:
    """An agent's answer: the message and what carries it commit together. The same `draft_key` again sends nothing twice."""

    ticket_id: int
    agent_id: int | None  # None: nobody in particular, which only what is automatic may be
    text: str
    draft_key: str
    channel_id: int | None = None  # None: the channel the customer last wrote on
    identifier_id: int | None = None  # None: the address they wrote from, or the best one on that channel
    attachments: tuple[NewFile, ...] = ()
    cc: tuple[str, ...] = ()  # mail only: who else gets it, by the agent's choice
    seen_message_id: int | None = None  # the last customer message the agent saw; refused when there is a newer one
    confirmed_way: bool = False  # the agent was asked whether it may leave by an address that nothing proves to be the same person's
    automatic: str = ""  # what sends it where no agent does just now (`survey`, `follow-up`): the ticket stays as it is
    template: TemplateUse | None = None  # an approved template; `text` is how it reads
    quoted_message_id: int | None = None  # which of the customer's messages it answers, for channels that show quotes
    continues: bool = False  # the customer wrote elsewhere last: say so, with their last words

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket_id)
        needs.drafts.add(self.draft_key)
        needs.ways_out = True
        if self.quoted_message_id is not None:
            needs.messages.add(self.quoted_message_id)
        if self.continues:
            needs.newest_in.add(self.ticket_id)

    def decide(self, facts: Facts) -> Replied:
        sent = facts.by_draft.get(self.draft_key)
        if sent is not None:
            return Replied(_same(sent, self.ticket_id, "out"), duplicate=True)
        ticket = _ticket(self.ticket_id, facts)
        if not self.text.strip() and not self.attachments:
            raise Refusal("Write something first.")
        if self.seen_message_id is not None and (ticket.last_inbound_id or 0) > self.seen_message_id:
            raise Refusal("The customer wrote again while you were answering. Read it, then send.")
        rule, identifier = self.way(ticket, facts)
        message = Message(
            id=facts.new_id("message"),
            conversation_id=ticket.conversation_id,
            ticket_id=ticket.id,
            direction="out",
            status="queued",
            text=storable(self._words(ticket, rule, identifier, facts)),
            created_at=facts.now,
            channel_id=rule.id,
            identifier_id=identifier.id,
            agent_id=self.agent_id,
            draft_key=self.draft_key,
            automatic=self.automatic,
            template=json.dumps(asdict(self.template)) if self.template is not None else "",
            quoted_id=self._quoted(rule, identifier, facts),
        )
        copies = self._copies(rule, identifier)
        if rule.mails:
            unique = hashlib.sha256(self.draft_key.encode()).hexdigest()[:20]
            message.mail_id = f"<{message.id}.{unique}@{facts.policy.mail_domain}>"
        facts.add_message(message)
        for value, given in copies.items():
            facts.insert(MessageCopy(message.id, value, given))
        for number, file in enumerate(self.attachments):
            id_ = hashlib.sha256(f"{self.draft_key}:{number}:{file.sha256}".encode()).hexdigest()[:32]
            facts.insert(
                Attachment(
                    id_, message.id, file.name, file.content_type, file.size, file.sha256, "", inline=False, state="stored", position=number
                )
            )
        if not self.automatic:
            ticket.status = tickets.move(ticket, "agent answered")
            ticket.last_at = facts.now
            ticket.preview = preview(self.text, files=len(self.attachments))
            ticket.waiting_since = None
            ticket.version += 1
            facts.change(ticket)
        facts.emit(
            "message.queued",
            customer_id=ticket.conversation_id,
            ticket_id=ticket.id,
            message_id=message.id,
            agent_id=self.agent_id,
        )
        if self.agent_id is not None and not self.automatic and ticket.assignee_id is None and ticket.status != "resolved":
            _assign(ticket, self.agent_id, self.agent_id, facts)
        return Replied(message.id, duplicate=False)

    def way(self, ticket: Ticket, facts: Facts) -> tuple[ChannelRule, Identifier]:
        """By which channel and to which address it would leave now. Raises Refusal where it may not."""
        rule, identifier = self._way_out(ticket, facts)
        if opted_out(identifier, rule.id, facts) is not None:
            raise Refusal(
                f"{identifier.address} sent a stop word to {rule.label}: nothing may be written there until they send START. "
                "Answer on another channel."
            )
        if self.template is None and not is_open(rule, facts.heard.get((rule.id, identifier.id)), facts.now):
            raise Refusal(f"{why_shut(rule)} Send an approved template, or answer on another channel.")
        if not self.confirmed_way and identifier.bounced_at is not None:
            raise Refusal(
                f"What was sent to {identifier.address} came back: {identifier.bounce} Confirm to try once more, or choose another way."
            )
        if not self.confirmed_way and (doubt := self._doubt(ticket, identifier, facts)):
            raise Refusal(f"{doubt} Confirm that your answer may go there, then send it.")
        return rule, identifier

    def _quoted(self, rule: ChannelRule, identifier: Identifier, facts: Facts) -> str:
        """What the provider calls the message that is answered, where it went between the same two."""
        message = facts.messages.get(self.quoted_message_id or 0)
        if message is None or (message.channel_id, message.identifier_id) != (rule.id, identifier.id):
            return ""
        return message.provider_id or ""

    def _words(self, ticket: Ticket, rule: ChannelRule, identifier: Identifier, facts: Facts) -> str:
        """The text, led in where it goes on elsewhere than the customer wrote last: only to an address that may read what they wrote."""
        last = facts.messages.get(ticket.last_inbound_id or 0)
        if not self.continues or last is None or (last.channel_id, last.identifier_id) == (rule.id, identifier.id):
            return self.text
        before = facts.policy.channels.get(last.channel_id or 0)
        return continued(self.text, before.label if before is not None else "", last.text if last.reply_text is None else last.reply_text)

    def _doubt(self, ticket: Ticket, to: Identifier, facts: Facts) -> str:
        own = facts.identifiers_of[facts.live_customer(ticket.conversation_id).id]
        last = next((one for one in own if one.id == ticket.identifier_id), None)
        said = (e for one in own for e in facts.evidence_of.get(one.id, ()))
        together = [(e.identifier_id, e.other_id) for e in said if e.other_id is not None and e.proof in TYING and e.withdrawn_at is None]
        return ways.why_stop(last, to, own, together)

    def _copies(self, rule: ChannelRule, identifier: Identifier) -> dict[str, str]:
        if self.cc and not rule.mails:
            raise Refusal(f"{rule.label} knows no copies. Leave Cc empty, or answer by mail.")
        if len(self.cc) > MOST_COPIES:
            raise Refusal(f"Copies go to {MOST_COPIES} addresses at most.")
        copies = {address: canonical("email", address) for address in self.cc}
        wrong = [address for address, value in copies.items() if value is None]
        if wrong:
            raise Refusal(f"{wrong[0]} is no mail address. Nothing was sent.")
        return {value: address for address, value in copies.items() if value is not None and value != identifier.value}

    def _way_out(self, ticket: Ticket, facts: Facts) -> tuple[ChannelRule, Identifier]:
        rule = facts.policy.channels.get(self.channel_id if self.channel_id is not None else ticket.channel_id)
        if rule is None:
            raise Refusal("That channel is no longer configured. Choose another one.")
        own = [i for i in facts.identifiers_of[facts.live_customer(ticket.conversation_id).id] if reachable(rule, i)]
        wanted = self.identifier_id if self.identifier_id is not None else ticket.identifier_id
        for identifier in own:
            if identifier.id == wanted:
                return rule, identifier
        if self.identifier_id is not None or not own:
            raise Refusal(f"This customer cannot be reached by {rule.label}: no such address is known of them.")
        best = max(own, key=lambda i: (i.standing == PROVEN, i.last_proof_at))
        return rule, best


@dataclass(frozen=True, slots=True)
class AddNote:
    """An internal note. It has no channel and no recipient: it cannot leave."""

    ticket_id: int
    agent_id: int
    text: str
    draft_key: str

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket_id)
        needs.drafts.add(self.draft_key)

    def decide(self, facts: Facts) -> int:
        written = facts.by_draft.get(self.draft_key)
        if written is not None:
            return _same(written, self.ticket_id, "note")
        ticket = _ticket(self.ticket_id, facts)
        if not self.text.strip():
            raise Refusal("Write something first.")
        note = Message(
            id=facts.new_id("message"),
            conversation_id=ticket.conversation_id,
            ticket_id=ticket.id,
            direction="note",
            status="noted",
            text=storable(self.text),
            created_at=facts.now,
            agent_id=self.agent_id,
            draft_key=self.draft_key,
        )
        facts.add_message(note)
        facts.emit("note.added", customer_id=ticket.conversation_id, ticket_id=ticket.id, message_id=note.id, agent_id=self.agent_id)
        return note.id


@dataclass(frozen=True, slots=True)
class Assign:
    """Give a ticket to an agent, or to nobody."""

    ticket_id: int
    agent_id: int
    assignee_id: int | None
    only_if_free: bool = False  # two people pressing Claim at once: the first one has it

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket_id)
        if self.assignee_id is not None:
            needs.rows.add(("agent", "id", self.assignee_id))

    def decide(self, facts: Facts) -> None:
        ticket = _ticket(self.ticket_id, facts)
        if self.assignee_id is not None:
            agents = facts.found[("agent", "id", self.assignee_id)]
            if not agents or agents[0].disabled_at is not None:
                raise Refusal("There is no such agent.")
        if self.only_if_free and ticket.assignee_id not in (None, self.assignee_id):
            raise Refusal(f"Somebody else has ticket #{ticket.id} already.")
        if ticket.assignee_id != self.assignee_id:
            _assign(ticket, self.assignee_id, self.agent_id, facts)


def _assign(ticket: Ticket, assignee_id: int | None, by: int, facts: Facts) -> None:
    ticket.assignee_id = assignee_id
    ticket.version += 1
    facts.change(ticket)
    facts.emit(
        "ticket.assigned",
        customer_id=ticket.conversation_id,
        ticket_id=ticket.id,
        agent_id=by,
        data=json.dumps({"assignee_id": assignee_id}),
    )


def _step(ticket: Ticket, what: str, event: str, agent_id: int | None, facts: Facts, data: str = "{}") -> None:
    ticket.status = tickets.move(ticket, what)
    ticket.version += 1
    facts.change(ticket)
    facts.emit(event, customer_id=ticket.conversation_id, ticket_id=ticket.id, agent_id=agent_id, data=data)


@dataclass(frozen=True, slots=True)
class Snooze:
    """Put a ticket aside until a time (microseconds UTC) or until the customer writes. It stays unresolved: the hold stays."""

    ticket_id: int
    agent_id: int
    until: int

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket_id)

    def decide(self, facts: Facts) -> None:
        ticket = _ticket(self.ticket_id, facts)
        if self.until <= facts.now:
            raise Refusal("That time has passed. Choose a later one.")
        ticket.snoozed_until = self.until
        _step(ticket, "snooze", "ticket.snoozed", self.agent_id, facts, json.dumps({"until": self.until}))


@dataclass(frozen=True, slots=True)
class WakeSnoozed:
    """Reopen the snoozed tickets whose time has come."""

    now: int

    def needs(self, needs: Needs) -> None:
        needs.asleep_until = max(needs.asleep_until, self.now)

    def decide(self, facts: Facts) -> int:
        # By the time of the decision, too: where many hubs share a database, it is the database's and no hub's own.
        now = min(self.now, facts.now)
        due = [t for t in facts.asleep if t.status == "snoozed" and t.snoozed_until is not None and t.snoozed_until <= now]
        for ticket in due:
            ticket.snoozed_until = None
            ticket.last_at = facts.now
            _step(ticket, "wake", "ticket.woken", None, facts)
        return len(due)


@dataclass(frozen=True, slots=True)
class Resolve:
    ticket_id: int
    agent_id: int

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket_id)
        needs.rows.add(("survey", "ticket_id", self.ticket_id))

    def decide(self, facts: Facts) -> None:
        ticket = _ticket(self.ticket_id, facts)
        _step(ticket, "resolve", "ticket.resolved", self.agent_id, facts)
        ticket.resolved_at = facts.now
        ticket.snoozed_until = None
        ticket.waiting_since = None


@dataclass(frozen=True, slots=True)
class Reopen:
    """Open a ticket again by hand: after a resolve, or to end a snooze early."""

    ticket_id: int
    agent_id: int

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket_id)

    def decide(self, facts: Facts) -> None:
        ticket = _ticket(self.ticket_id, facts)
        event = "ticket.reopened" if ticket.status == "resolved" else "ticket.woken"
        _step(ticket, "reopen", event, self.agent_id, facts)
        ticket.resolved_at = None
        ticket.snoozed_until = None


@dataclass(frozen=True, slots=True)
class MarkRead:
    """Note how far an agent has read a ticket; never backwards."""

    agent_id: int
    ticket_id: int
    message_id: int

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("read_marker", "ticket_id", self.ticket_id))

    def decide(self, facts: Facts) -> None:
        markers = facts.found[("read_marker", "ticket_id", self.ticket_id)]
        marker = next((m for m in markers if m.agent_id == self.agent_id), None)
        if marker is None:
            marker = ReadMarker(ticket_id=self.ticket_id, agent_id=self.agent_id, message_id=self.message_id)
            facts.insert(marker)
        elif marker.message_id < self.message_id:
            marker.message_id = self.message_id
            facts.change(marker)
