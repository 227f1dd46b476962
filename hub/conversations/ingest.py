"""The one doorway in: what a verified request becomes, decided from the facts read for it.

Top to bottom: dedupe -> raw request kept -> who is this? -> which ticket? -> message -> events. What follows from the events
(cards, holds, media to fetch) is decided by `hub.reactions`, in the same transaction.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from hub.contract import Altered, ConsentChanged, DeliveryUpdate, HolderChanged, Identified, Ignored, Inbound, InboundMessage
from hub.conversations import reports, threading, tickets
from hub.customers import opt_outs
from hub.customers.bonds import home_of
from hub.customers.canonical import canonical
from hub.customers.resolution import Known, NoSender, Sender, need, reassign, resolve, weigh
from hub.policy import Policy
from hub.storage.facts import Facts, Needs
from hub.storage.records import Attachment, Dedupe, Message, MessageCopy, RawRequest, Ticket

PREVIEW = 140


@dataclass(frozen=True, slots=True)
class Raw:
    """The request as it came: kept beside what was made of it. A large body is named by its digest in the blob store."""

    received_at: int
    verdict: str
    method: str
    url: str
    headers: str
    body: bytes | None
    body_sha256: str = ""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An attachment whose bytes are already on disk, or (`source_url`) are to be fetched after the commit."""

    id: str
    name: str
    content_type: str
    size: int
    sha256: str
    content_id: str
    inline: bool
    source_url: str


@dataclass(frozen=True, slots=True)
class Item:
    """One thing a request said, with its claims weighed, its files stored and its reply token checked."""

    said: Inbound
    known: tuple[Known, ...] = ()
    present: tuple[Known, ...] = ()  # of a change of holder: who they are from now on
    copies: tuple[tuple[str, str], ...] = ()  # (canonical, as given) addresses a mail went to beside ours
    files: tuple[StoredFile, ...] = ()
    answers: tuple[int, int] | None = None  # the ticket a valid reply token names, and the identifier it was given to
    trusted: bool = True  # False where the signature was only observed: such a request proves nothing


@dataclass(frozen=True, slots=True)
class Outcome:
    stored: int  # messages new to us
    duplicates: int
    aside: tuple[str, ...] = ()  # why something in it belongs nowhere, and is kept for an administrator to see


def item(
    said: Inbound,
    trusted: bool,
    files: tuple[StoredFile, ...] = (),
    token: tuple[int, int] | None = None,
    policy: Policy = Policy(),  # noqa: B008  (frozen)
) -> Item:
    """Prepare what a connector parsed; `trusted` is False where the signature was only observed. Raises NoSender."""
    if isinstance(said, HolderChanged):
        return Item(said, weigh(said.previous, trusted), weigh(said.present, trusted) if said.present else (), trusted=trusted)
    if isinstance(said, DeliveryUpdate | Ignored) or (isinstance(said, InboundMessage) and said.automatic in REPORTING and said.reports):
        return Item(said, trusted=trusted)
    if not said.claims:
        raise NoSender("It names no sender: nobody could be answered.")
    known = weigh(said.claims, trusted, policy.region)
    if not isinstance(said, InboundMessage):
        return Item(said, known, trusted=trusted)
    if said.automatic in REPORTING:
        raise NoSender("It is a notice about a mail that was not delivered or not wanted, and does not say which: no customer wrote it.")
    if known[0].kind == "email" and is_own(known[0].value, policy):
        raise NoSender(f"{known[0].value} is one of our own addresses: what we write to ourselves is no customer's message.")
    copies = {value: given for given in reversed(said.recipients) if (value := canonical("email", given)) is not None}
    foreign = sorted((value, given) for value, given in copies.items() if value != known[0].value and not is_own(value, policy))
    return Item(said, known, (), tuple(foreign[:MOST_COPIES]), files, token, trusted)


REPORTING = ("bounce", "complaint")  # kinds of machine mail of which only the report is used
MOST_COPIES = 50  # of a mail to a crowd, nobody is kept as a participant of it all


def is_own(address: str, policy: Policy) -> bool:
    """Whether a canonical e-mail address is the business's: one of its mailboxes, or at a domain only its people write from."""
    return address in policy.own_addresses or address.rpartition("@")[2] in policy.own_domains


@dataclass(frozen=True, slots=True)
class Ingest:
    """One request of one channel: all of it commits, or none."""

    channel_id: int
    items: tuple[Item, ...]
    raw: Raw | None

    def needs(self, needs: Needs) -> None:
        for entry in self.items:
            said = entry.said
            needs.dedupe.add((self.channel_id, said.provider_key))
            need(entry.known, needs)
            if isinstance(said, HolderChanged):
                need(entry.present, needs)
                needs.together.add(tuple(claim.key for claim in (*entry.known, *entry.present)))
            elif isinstance(said, InboundMessage):
                self._message_needs(entry, said, needs)
            elif isinstance(said, DeliveryUpdate):
                reports.need(said, needs)
            elif isinstance(said, Altered):
                needs.provider_ids.add(said.about)
            elif isinstance(said, ConsentChanged):
                needs.opt_outs.add((entry.known[0].kind, entry.known[0].value))

    @staticmethod
    def _message_needs(entry: Item, said: InboundMessage, needs: Needs) -> None:
        for report in said.reports:
            reports.need(report, needs)
        if not entry.known:
            return
        if said.opts:
            needs.opt_outs.add((entry.known[0].kind, entry.known[0].value))
        if entry.answers is not None:
            needs.tickets.add(entry.answers[0])
        needs.mail_ids.update(mail_id for mail_id in (said.message_id, said.in_reply_to, *said.references[-10:]) if mail_id)
        if said.quoted_id:
            needs.provider_ids.add(said.quoted_id)
        if entry.answers is not None or said.in_reply_to or said.references:
            needs.rows.add(("participant", "value", entry.known[0].value))

    def decide(self, facts: Facts) -> Outcome:
        fresh = [
            entry
            for entry in self.items
            if (self.channel_id, entry.said.provider_key) not in facts.dedupe
            # Whoever is not proved to be the provider may speak for himself, but neither vouch for anybody nor report on our sends.
            and (entry.trusted or isinstance(entry.said, InboundMessage))
        ]
        if not fresh:
            return Outcome(0, len(self.items))
        raw_id = self._keep_raw(facts)
        stored = again = 0
        aside: list[str] = []
        for entry in fresh:
            said = entry.said
            key = (self.channel_id, said.provider_key)
            if key in facts.dedupe:  # twice within one request
                continue
            facts.dedupe.add(key)
            facts.insert(Dedupe(self.channel_id, said.provider_key, facts.now))
            if isinstance(said, InboundMessage) and not entry.known:
                about = [reports.deliver(report, self.channel_id, facts, quoting=True) for report in said.reports]
                if not any(about):
                    aside.append("It is a notice about a mail, and none that we sent to that address.")
            elif isinstance(said, InboundMessage) and self._is_second_copy(entry, said, facts):
                again += 1
            elif isinstance(said, InboundMessage):
                stored += 1
                self._message(entry, said, raw_id, facts)
            elif isinstance(said, Identified):
                resolve(entry.known, said.sender_name, f"identified:{self.channel_id}", facts)
            elif isinstance(said, HolderChanged):
                reassign(entry.known, entry.present, f"notice:{self.channel_id}", facts)
            elif isinstance(said, DeliveryUpdate):
                reports.deliver(said, self.channel_id, facts)
            elif isinstance(said, Altered):
                if not reports.alter(said, entry.known, self.channel_id, facts):
                    aside.append("It is a reaction to a message, or a change of one, that is not here.")
            elif isinstance(said, ConsentChanged):
                reports.consent(said, entry.known, self.channel_id, facts)
            else:
                assert isinstance(said, Ignored)
        return Outcome(stored, len(self.items) - len(fresh) + again, tuple(aside))

    def _is_second_copy(self, entry: Item, said: InboundMessage, facts: Facts) -> bool:
        """Whether this mail has come to another of our mailboxes already. A Message-ID alone does not say so: some use one again."""
        first = facts.by_mail_id.get(said.message_id) if said.message_id else None
        own = facts.identifiers.get(entry.known[0].key)
        return (
            first is not None
            and own is not None
            and (first.direction, first.identifier_id) == ("in", own.id)
            and first.channel_id != self.channel_id
            and (first.subject, first.sent_at) == (said.subject, said.sent_at)
            and said.sent_at is not None
            and " ".join(first.text.split()) == " ".join(said.text.split())
        )

    def _keep_raw(self, facts: Facts) -> int | None:
        raw = self.raw
        if raw is None:
            return None
        row = RawRequest(
            facts.new_id("raw_request"),
            self.channel_id,
            raw.received_at,
            raw.verdict,
            raw.method,
            raw.url,
            raw.headers,
            raw.body,
            raw.body_sha256,
        )
        facts.insert(row)
        return row.id

    def _message(self, entry: Item, said: InboundMessage, raw_id: int | None, facts: Facts) -> None:
        message_id = facts.new_id("message")
        sender = resolve(entry.known, said.sender_name, f"message:{message_id}", facts)
        reports.heard_from(sender.identifier, facts)
        ticket, opens = self._ticket(entry, said, sender, facts)
        owner = facts.live_customer(ticket.conversation_id)
        message = Message(
            id=message_id,
            conversation_id=owner.id,
            ticket_id=ticket.id,
            direction="in",
            status="received",
            text=said.text,
            created_at=facts.now,
            channel_id=self.channel_id,
            identifier_id=sender.identifier.id,
            proof=entry.known[0].proof,
            subject=said.subject,
            html=said.html or None,
            sender_name=said.sender_name,
            automatic=said.automatic,
            doubt=said.doubt,
            sent_at=said.sent_at,
            mail_id=said.message_id or None,
            in_reply_to=said.in_reply_to,
            provider_id=said.external_id or None,
            raw_id=raw_id,
            placed=owner is not sender.customer,
            reply_text=said.reply_text,
            quoted_id=said.quoted_id,
            spam=json.dumps(dict(said.spam)) if said.spam else "",
        )
        facts.add_message(message)
        for value, given in entry.copies:
            facts.insert(MessageCopy(message_id, value, given))
        if said.opts:
            customer_id = sender.customer.id
            opt_outs.note(said.opts == "out", entry.known[0], self.channel_id, message_id, facts, customer_id=customer_id, words=said.text)
        for position, file in enumerate(entry.files):
            state = "stored" if file.sha256 else "pending"
            facts.insert(
                Attachment(
                    file.id,
                    message_id,
                    file.name,
                    file.content_type,
                    file.size,
                    file.sha256,
                    file.content_id,
                    file.inline,
                    state,
                    file.source_url,
                    position=position,
                )
            )
            if state == "pending":
                facts.emit(
                    "attachment.announced",
                    customer_id=owner.id,
                    message_id=message_id,
                    data=json.dumps({"id": file.id, "channel_id": self.channel_id}),
                )
        if said.unchecked:
            told = json.dumps({"channel_id": self.channel_id})
            facts.emit("message.unchecked", customer_id=owner.id, ticket_id=ticket.id, message_id=message_id, data=told)
        self._touch(ticket, message, said, sender, opens, facts)
        facts.emit(
            "message.received",
            customer_id=owner.id,
            ticket_id=message.ticket_id,
            message_id=message_id,
        )

    def _ticket(self, entry: Item, said: InboundMessage, sender: Sender, facts: Facts) -> tuple[Ticket, str]:
        """The message's ticket and what happens to it: `opens`, `moves` (it may reopen) or `rests`."""
        every = facts.tickets_of[sender.customer.id]
        standing = threading.stand(said, entry.known[0], sender.customer, threading.pointers(said, entry.answers, facts), facts)
        preferred = standing.ticket
        # What needs no review never joins what waits for it: an agent decides about that alone.
        own = [ticket for ticket in every if not ticket.review or ticket is preferred]
        if said.automatic:
            # A machine's mail never opens or reopens anything. From a stranger it stands on a ticket that is over already: it holds
            # nobody and calls nobody, and still is found in a view (some contact forms mark what people wrote as automatic).
            return preferred or tickets.latest(own) or self._new_ticket(said, sender, "resolved", facts), "rests"
        if standing.review:
            return self._for_review(said, sender, standing, facts)
        if preferred is None and facts.policy.channels[self.channel_id].mails:
            preferred = threading.by_subject(said, own)
        chosen = tickets.choose(own, preferred, facts.now, facts.policy)
        if opt_outs.matters(said.opts, entry.known[0], self.channel_id, facts):  # a stop word asks for nothing but to be heeded
            return chosen or preferred or tickets.latest(own) or self._new_ticket(said, sender, "resolved", facts), "rests"
        if tickets.is_bare_thanks(words_of(said)) and not said.attachments:
            thanked = chosen or preferred or tickets.latest(own)
            if thanked is not None and not tickets.is_unresolved(thanked):
                return thanked, "rests"
        if chosen is not None:
            return chosen, "moves"
        return self._new_ticket(said, sender, "open", facts), "opens"

    def _for_review(self, said: InboundMessage, sender: Sender, standing: threading.Standing, facts: Facts) -> tuple[Ticket, str]:
        """A ticket of its own, where an agent decides; more of the same goes there too. What they judged once is not asked again."""
        of = standing.review_of.id if standing.review_of is not None else None
        own = [ticket for ticket in facts.tickets_of[sender.customer.id] if tickets.is_unresolved(ticket)]
        for ticket in own:
            if ticket.review_of == of and (ticket.review or ticket.reviewed_at is not None):
                return ticket, "moves"
        ticket = self._new_ticket(said, sender, "open", facts)
        ticket.review, ticket.review_of = standing.review, of
        return ticket, "opens"

    def _new_ticket(self, said: InboundMessage, sender: Sender, status: tickets.Status, facts: Facts) -> Ticket:
        ticket = Ticket(
            id=facts.new_id("ticket"),
            conversation_id=sender.customer.id,
            status=status,
            subject=said.subject,
            brand=facts.policy.channels[self.channel_id].brand,
            channel_id=self.channel_id,
            identifier_id=sender.identifier.id,
            opened_at=facts.now,
            last_at=facts.now,
            preview="",
            resolved_at=facts.now if status == "resolved" else None,
            home_id=home_of(sender.identifier),
        )
        facts.add_ticket(ticket)
        return ticket

    def _touch(self, ticket: Ticket, message: Message, said: InboundMessage, sender: Sender, opens: str, facts: Facts) -> None:
        ticket.last_at = facts.now
        ticket.preview = preview(words_of(said), said.subject, len(said.attachments))
        ticket.last_inbound_id = message.id
        ticket.version += 1
        # Whoever says stop here is not answered here; who was admitted to somebody's ticket does not become the one it is answered to.
        if not said.automatic and said.opts != "out" and not message.placed and (not ticket.review or opens == "opens"):
            ticket.channel_id = self.channel_id
            ticket.identifier_id = sender.identifier.id

        def state(event: str) -> None:
            facts.emit(event, customer_id=message.conversation_id, ticket_id=ticket.id, message_id=message.id)

        if opens == "opens":
            ticket.waiting_since = facts.now
            state("ticket.opened")
            return
        if opens == "moves":
            before = ticket.status
            ticket.status = tickets.move(ticket, "customer wrote")
            ticket.resolved_at = None
            ticket.snoozed_until = None
            if ticket.waiting_since is None:
                ticket.waiting_since = facts.now
            if before == "resolved":
                state("ticket.reopened")
            elif before != ticket.status:
                state("ticket.woken")
        facts.change(ticket)


def words_of(said: InboundMessage) -> str:
    """What they wrote this time."""
    return said.text if said.reply_text is None else said.reply_text


def preview(text: str, subject: str = "", files: int = 0) -> str:
    """One line for the list: the text, else the subject, else what came instead."""
    line = " ".join((text or subject).split())
    if not line and files:
        return "Attachment" if files == 1 else f"{files} attachments"
    return line if len(line) <= PREVIEW else line[: PREVIEW - 1] + "…"
