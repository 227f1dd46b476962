"""Carriers: how each kind of delivery reaches its target. They read what is to be said and hand it to a connector."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sqlalchemy import BindParameter, bindparam, func, select
from sqlalchemy.exc import SQLAlchemyError

from hub.contract import Channel, Http, OutboundAttachment, OutboundMessage, Place, Refused, TemplateUse, TryLater
from hub.conversations.wording import customer_name
from hub.delivery.attempt import preparing
from hub.delivery.works import Finish, finish
from hub.holds.ledger import iso
from hub.marketing import Destination, HoldNotice
from hub.policy import ChannelRule
from hub.storage.blobs import Blobs
from hub.storage.reader import Reader
from hub.storage.records import Delivery
from hub.storage.tables import metadata
from hub.storage.writer import StorageBusy
from hub.team_rooms import Room, TicketCard

message = metadata.tables["message"].c
identifier = metadata.tables["identifier"].c
agent = metadata.tables["agent"].c
ticket = metadata.tables["ticket"].c
message_copy = metadata.tables["message_copy"].c
attachment = metadata.tables["attachment"].c
customer = metadata.tables["customer"].c
hold = metadata.tables["hold"].c
code = metadata.tables["one_time_code"].c

MAILS = 50  # earlier mails looked at for an answer
LONGEST_CHAIN = 10  # of them named in its References


# Built once: making a statement costs more than running it.
_ID: BindParameter[Any] = bindparam("id")
REPLY = (
    select(
        message.text,
        message.ticket_id,
        message.identifier_id,
        message.mail_id,
        message.conversation_id,
        message.automatic,
        message.subject,
        message.template,
        message.quoted_id,
        identifier.address,
        agent.name.label("agent_name"),
        select(attachment.message_id).where(attachment.message_id == message.id).limit(1).scalar_subquery().label("has_files"),
    )
    .join_from(metadata.tables["message"], metadata.tables["identifier"], message.identifier_id == identifier.id)
    .outerjoin(metadata.tables["agent"], message.agent_id == agent.id)
    .where(message.id == _ID)
)
FILES = (
    select(attachment.id, attachment.name, attachment.content_type, attachment.size, attachment.sha256)
    .where(attachment.message_id == _ID)
    .order_by(attachment.id)
)
COPIES = select(message_copy.address, message_copy.value).where(message_copy.message_id == _ID).order_by(message_copy.value)
# Who got the mail that is answered.
SAW = (
    select(message_copy.value)
    .join_from(metadata.tables["message"], metadata.tables["message_copy"], message_copy.message_id == message.id)
    .where(message.mail_id == bindparam("mail_id"), message.conversation_id == bindparam("conversation_id"))
)
EARLIER_MAILS = (
    select(message.mail_id, message.subject, message.direction, func.coalesce(message.reply_text, message.text).label("text"))
    .where(
        message.conversation_id == bindparam("conversation_id"),
        message.ticket_id == bindparam("ticket_id"),
        message.identifier_id == bindparam("identifier_id"),
        message.mail_id.is_not(None),
        message.id < _ID,
    )
    .order_by(message.id.desc())
    .limit(MAILS)
)
_HELD = (
    select(hold.id)
    .where(hold.customer_id == ticket.conversation_id, hold.released_at.is_(None))
    .limit(1)
    .correlate(metadata.tables["ticket"])
    .scalar_subquery()
)
CARD = (
    select(
        ticket.id,
        ticket.status,
        ticket.subject,
        ticket.preview,
        ticket.channel_id,
        customer.name,
        identifier.kind,
        identifier.value,
        agent.name.label("assignee"),
        _HELD.label("held"),
    )
    .join_from(metadata.tables["ticket"], metadata.tables["customer"], ticket.conversation_id == customer.id)
    .join(metadata.tables["identifier"], ticket.identifier_id == identifier.id)
    .outerjoin(metadata.tables["agent"], ticket.assignee_id == agent.id)
    .where(ticket.id == _ID)
)
SOURCE = select(attachment.source_url).where(attachment.id == _ID)
CODE = select(code.address, code.state, code.expires_at).where(code.id == _ID)


class BoundChannel(Protocol):
    rule: ChannelRule
    place: Place
    connector: Channel


@dataclass(frozen=True, slots=True)
class Thread:
    """Mail headers of an answer: what it answers, and the chain that leads there."""

    subject: str
    in_reply_to: str
    references: tuple[str, ...]
    quoted: str


def thread(earlier: Sequence[tuple[str, str, str, str]]) -> Thread:
    """From the ticket's earlier mails with this address, oldest first, as (mail id, subject, direction, text). Pure.

    The answer is to the customer's last mail, in its subject. References is the chain up to that mail, which stands last (RFC
    5322 section 3.6.4), kept short by leaving out its middle. A subject that is not known is empty.
    """
    inbound = [row for row in earlier if row[2] == "in"]
    answered = inbound[-1] if inbound else (earlier[-1] if earlier else None)
    if answered is None:
        return Thread("", "", (), "")
    subject = next((row[1] for row in reversed(inbound) if row[1]), "")
    while subject[:3].lower() == "re:":
        subject = subject[3:].lstrip()
    before = dict.fromkeys(mail_id for mail_id, *_ in earlier[: earlier.index(answered)] if mail_id != answered[0])
    chain = (*before, answered[0])
    if len(chain) > LONGEST_CHAIN:
        chain = (chain[0], *chain[-(LONGEST_CHAIN - 1) :])
    if inbound:
        return Thread(f"Re: {subject}" if subject else "Re: your message", answered[0], chain, answered[3])
    return Thread("", answered[0], chain, "")


class ReplyCarrier:
    """An agent's answer, to the customer's channel."""

    def __init__(
        self,
        channels: Mapping[str, BoundChannel],
        reader: Reader,
        blobs: Blobs,
        http: Http,
        reply_token: Callable[[int, int], str],
        file_url: Callable[[str], str],
        dressed: Callable[[str, OutboundMessage], OutboundMessage] = lambda name, mail: mail,
    ) -> None:
        """`dressed` gives a mail of a channel its HTML and its footer."""
        self._channels = channels
        self._reader = reader
        self._blobs = blobs
        self._http = http
        self._reply_token = reply_token
        self._file_url = file_url
        self._dressed = dressed

    async def carry(self, delivery: Delivery) -> Finish:
        with preparing():
            bound = self._channels.get(delivery.target)
            if bound is None:
                raise Refused(f"The channel {delivery.target} is no longer configured. Nothing was sent; answer on another channel.")
            try:
                outgoing = await self._compose(delivery, bound)
            except (StorageBusy, SQLAlchemyError) as error:
                raise TryLater("The message could not be read from the database. Nothing was sent yet.") from error
        sent = await bound.connector.send(outgoing, self._http)
        return finish(delivery, status=sent.status, provider_id=sent.provider_message_id)

    async def _compose(self, delivery: Delivery, bound: BoundChannel) -> OutboundMessage:
        row = await self._reader.first(REPLY, {"id": delivery.subject_id})
        if row is None:
            raise Refused("The message is gone (erased). Nothing was sent.")
        files = await self._reader.all(FILES, {"id": delivery.subject_id}) if row.has_files is not None else ()
        outgoing = OutboundMessage(
            delivery_id=delivery.id,
            to=row.address,
            text=row.text,
            attachments=tuple(
                OutboundAttachment(f.name, f.content_type, f.size, _read(self._blobs, f.sha256), self._file_url(f.id)) for f in files
            ),
            callback_url=f"{bound.place.inbound_url}?delivery={delivery.id}",
            sender_name=row.agent_name or "",
            automatic=bool(row.automatic),
            quoted_id=row.quoted_id,
            template=TemplateUse(**json.loads(row.template)) if row.template else None,
        )
        if not bound.rule.mails:
            return outgoing
        if row.ticket_id is None:  # a notice nobody asked for: it answers nothing
            subject = row.subject or "A message for you"
            return self._dressed(bound.rule.name, replace(outgoing, subject=subject, message_id=row.mail_id or ""))
        asked = {"id": delivery.subject_id, "conversation_id": row.conversation_id, "ticket_id": row.ticket_id}
        earlier = await self._reader.all(EARLIER_MAILS, asked | {"identifier_id": row.identifier_id})
        copies = await self._reader.all(COPIES, {"id": delivery.subject_id})
        answered = thread([(e.mail_id, e.subject, e.direction, e.text) for e in reversed(earlier)])
        # What the customer wrote is quoted to whoever had it from them already, and to nobody new.
        quoted = answered.quoted
        if copies and quoted:
            saw = await self._reader.all(SAW, {"mail_id": answered.in_reply_to, "conversation_id": row.conversation_id})
            quoted = quoted if {copy.value for copy in copies} <= {one.value for one in saw} else ""
        mail = replace(
            outgoing,
            subject=answered.subject or f"Your request #{row.ticket_id}",
            message_id=row.mail_id or "",
            in_reply_to=answered.in_reply_to,
            references=answered.references,
            quoted=quoted,
            cc=tuple(copy.address for copy in copies),
            reply_token=self._reply_token(row.ticket_id, row.identifier_id),
        )
        return self._dressed(bound.rule.name, mail)


def _read(blobs: Blobs, sha256: str) -> Callable[[], bytes]:
    return lambda: blobs.get(sha256)


class CardCarrier:
    """A ticket's card in a team's room, built from how the ticket stands now."""

    def __init__(self, rooms: Mapping[str, Room], reader: Reader, labels: Mapping[int, str], public_url: str) -> None:
        self._rooms = rooms
        self._reader = reader
        self._labels = labels
        self._public_url = public_url

    async def carry(self, delivery: Delivery) -> Finish:
        with preparing():
            room = self._rooms.get(delivery.target)
            if room is None:
                raise Refused(f"The room {delivery.target} is no longer configured.")
            try:
                card = await self._card(delivery)
            except (StorageBusy, SQLAlchemyError) as error:
                raise TryLater("The ticket could not be read from the database. Nothing was posted yet.") from error
        return finish(delivery, ref=await room.show(card, delivery.ref))

    async def _card(self, delivery: Delivery) -> TicketCard:
        row = await self._reader.first(CARD, {"id": delivery.subject_id})
        if row is None:
            raise Refused("The ticket is gone (erased).")
        return TicketCard(
            ticket_id=row.id,
            version=delivery.version,
            status=row.status,
            customer=customer_name(row.name, row.kind, row.value),
            channel=self._labels.get(row.channel_id, ""),
            subject=row.subject,
            preview=row.preview,
            assignee=row.assignee or "",
            held=row.held is not None,
            url=f"{self._public_url}/inbox/all?ticket={row.id}",
        )


class HoldCarrier:
    """A change of a hold, or of who a customer is, to one destination."""

    def __init__(self, destinations: Mapping[str, Destination], http: Http, clock: Callable[[], int]) -> None:
        self._destinations = destinations
        self._http = http
        self._clock = clock

    async def carry(self, delivery: Delivery) -> Finish:
        with preparing():
            destination = self._destinations.get(delivery.target)
            if destination is None:
                raise Refused(f"The destination {delivery.target} is no longer configured.")
            told = json.loads(delivery.payload)
            # The same on every retry, and not used again when a restored database counts its rows anew.
            id_ = f"{told['type'].partition('.')[0]}-{delivery.id}-{delivery.created_at}"
            notice = HoldNotice(id=id_, type=told["type"], time=iso(told["at"]), data=told["data"])
        await destination.tell(notice, self._http, self._clock() / 1_000_000)
        return finish(delivery)


class MediaCarrier:
    """A file the provider only announced, fetched into the blob store."""

    def __init__(self, channels: Mapping[str, BoundChannel], reader: Reader, blobs: Blobs, http: Http) -> None:
        self._channels = channels
        self._reader = reader
        self._blobs = blobs
        self._http = http

    async def carry(self, delivery: Delivery) -> Finish:
        with preparing():
            bound = self._channels.get(delivery.target)
            if bound is None:
                raise Refused(f"The channel {delivery.target} is no longer configured: its file cannot be fetched.")
            try:
                url = await self._reader.value(SOURCE, {"id": json.loads(delivery.payload)["attachment"]})
            except (StorageBusy, SQLAlchemyError) as error:
                raise TryLater("The file could not be looked up in the database. Nothing was fetched yet.") from error
            if url is None:
                raise Refused("The file's message is gone (erased).")
        file = await bound.connector.fetch(url, self._http)
        data = file.data or b""
        sha256 = await asyncio.to_thread(self._blobs.put, data)
        return finish(delivery, sha256=sha256, size=len(data), content_type=file.content_type)


class CodeCarrier:
    """A one-time code, by mail or text. It exists from here to the provider and nowhere else."""

    def __init__(
        self,
        channels: Mapping[str, BoundChannel],
        reader: Reader,
        http: Http,
        code_of: Callable[[str], str],
        clock: Callable[[], int],
        mail_domain: str,
    ) -> None:
        self._channels = channels
        self._reader = reader
        self._http = http
        self._code_of = code_of
        self._clock = clock
        self._mail_domain = mail_domain

    async def carry(self, delivery: Delivery) -> Finish:
        with preparing():
            bound = self._channels.get(delivery.target)
            if bound is None:
                raise Refused(f"The channel {delivery.target} is no longer configured. The code was not sent.")
            told = json.loads(delivery.payload)
            try:
                row = await self._reader.first(CODE, {"id": told["code"]})
            except (StorageBusy, SQLAlchemyError) as error:
                raise TryLater("The code could not be looked up in the database. Nothing was sent yet.") from error
            if row is None or row.state != "asked" or self._clock() >= row.expires_at:
                raise Refused("The code had run out before it could be sent. Nothing was sent; the visitor can ask for another.")
        await bound.connector.send(self._written(delivery, told, row.address, bound.rule.mails), self._http)
        return finish(delivery)

    def _written(self, delivery: Delivery, told: Mapping[str, str], address: str, mails: bool) -> OutboundMessage:
        number, name = self._code_of(told["code"]), told["name"]
        # The same on every try, and telling nothing of the id that answers the code.
        unique = hashlib.sha256(told["code"].encode()).hexdigest()[:20]
        return OutboundMessage(
            delivery_id=delivery.id,
            to=address,
            subject=f"{number} is your code for {name}" if mails else "",
            text=f"{number} is your code for {name}. It is good for 10 minutes. If you did not ask for it, ignore this message.",
            message_id=f"<code.{unique}@{self._mail_domain}>" if mails else "",
            automatic=True,
        )
