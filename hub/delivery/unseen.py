"""An answer in the chat that nobody saw is mailed, once, to the address the visitor gave: that answer alone, with a link to go on.

A typed address proves nothing, and whoever owns it may never have been here. So what is mailed is only what was meant for whoever typed it,
at most three times a day to one address, and never to one that said STOP; the link is good once and for a day, its token follows from a
random id by a key of its own and lies in no row, and it opens the chat without making the two browsers one (`hub/web/chat_continue.py`).
Signed-in visitors find their answers on each of their devices; theirs are not mailed, since a link would open an account.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from sqlalchemy import Select, or_, select
from sqlalchemy.exc import SQLAlchemyError

from hub.contract import Channel, Http, OutboundMessage, Refused, TryLater
from hub.customers.codes import linked, typed, wait_for, way
from hub.delivery.attempt import preparing
from hub.delivery.works import Finish, finish
from hub.keys import derive, signed, unsigned
from hub.policy import DAY, SECOND, ChannelRule, Policy
from hub.storage.facts import Facts, Needs
from hub.storage.reader import Reader
from hub.storage.records import Delivery, Event, MailedAnswer, OneTimeCode
from hub.storage.tables import metadata
from hub.storage.writer import StorageBusy, Writer

LIFE = DAY  # of a link
PER_ADDRESS = ((3, DAY),)  # mails of this kind that anybody on the internet may cause us to send to one address
AT_A_TIME = 100
KEPT = 7 * DAY  # longer than any limit counts and any link lives
OVER = ("read", "failed")

_mailed = metadata.tables["mailed_answer"].c
_message = metadata.tables["message"].c
_identifier = metadata.tables["identifier"].c
_evidence = metadata.tables["evidence"].c
_code = metadata.tables["one_time_code"].c


# --- links ---


def link_token(secret: bytes, code_id: str) -> str:
    """What stands behind the `#` of a link: the id of its code, signed."""
    return signed(derive(secret, "chat link"), code_id)


def link_names(secret: bytes, token: str) -> str | None:
    """The code a link's token names, or None if we did not sign it."""
    return unsigned(derive(secret, "chat link"), token)


# --- which chats mail ---


@runtime_checkable
class MailsUnseen(Protocol):
    """A chat whose unseen answers may be mailed: after so many seconds (0: never), by a mail channel (empty: the one codes go by)."""

    @property
    def public_name(self) -> str: ...
    @property
    def mail_after(self) -> int: ...
    @property
    def mail_channel(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Mailing:
    """How one chat mails what nobody saw: after `after` microseconds, by this channel."""

    chat: ChannelRule
    by: ChannelRule
    after: int
    name: str


class BoundChannel(Protocol):
    rule: ChannelRule
    connector: Channel


def mailings(channels: Iterable[BoundChannel], policy: Policy) -> dict[int, Mailing]:
    """The chats that mail, by channel id. Raises ValueError where a `mail_channel` is no mail channel."""
    found = {}
    for bound in channels:
        desk, rule = bound.connector, bound.rule
        if not isinstance(desk, MailsUnseen) or not desk.mail_after:
            continue
        named = next((one for one in policy.channels.values() if one.name == desk.mail_channel), None)
        if desk.mail_channel and (named is None or not named.mails):
            raise ValueError(f"channels.{rule.name}.mail_channel: {desk.mail_channel} is no mail channel. Name one that is, or none.")
        by = named or way(rule, "email", policy)
        if by is not None and by.mails:
            found[rule.id] = Mailing(rule, by, desk.mail_after * SECOND, desk.public_name)
    return found


# --- what becomes of an answer ---


def on_answer(facts: Facts, event: Event) -> None:
    """Reaction to `message.queued`: an answer to a chat's anonymous browser is looked at again. Who gave which address is found then."""
    message = facts.messages.get(event.message_id or 0)
    rule = facts.policy.channels.get(message.channel_id or 0) if message is not None else None
    to = facts.identifiers_by_id.get(message.identifier_id or 0) if message is not None else None
    if message is None or rule is None or "device" not in rule.reaches or to is None or to.kind != "device":
        return
    facts.insert(MailedAnswer(message_id=message.id, value="", address="", state="due", due_at=facts.now))


@dataclass(frozen=True, slots=True)
class MailAnswer:
    """Mail one answer if it is still unseen. `value` and `address` are what the visitor gave (empty: nothing); `id` is random."""

    message_id: int
    device: str
    value: str
    address: str
    id: str
    mailing: Mailing

    def needs(self, needs: Needs) -> None:
        needs.messages.add(self.message_id)
        needs.rows.add(("mailed_answer", "message_id", self.message_id))
        needs.rows.add(("mailed_answer", "value", self.value))
        needs.opt_outs.add(("email", self.value))

    def decide(self, facts: Facts) -> str:
        """The state it is in now."""
        row = next(iter(facts.found[("mailed_answer", "message_id", self.message_id)]), None)
        message = facts.messages.get(self.message_id)
        if row is None or row.state != "due":
            return row.state if row is not None else "skipped"
        if message is None or message.status in OVER:
            return self._end(row, "seen" if message is not None and message.status == "read" else "skipped", facts)
        before = [one.at for one in facts.found[("mailed_answer", "value", self.value)] if one.state == "mailed" and one.at is not None]
        by = self.mailing.by
        said = facts.opt_outs.get(("email", self.value), ())
        stopped = any(out.channel_id == by.id and out.ended_at is None and out.scope != "marketing" for out in said)
        if not self.value or stopped or wait_for(before, PER_ADDRESS, facts.now):
            return self._end(row, "skipped", facts)
        row.value, row.address, row.code = self.value, self.address, self.id
        self._end(row, "mailed", facts)
        facts.insert(
            OneTimeCode(
                id=self.id,
                channel_id=self.mailing.chat.id,
                device=linked(self.device),
                kind="email",
                value=self.value,
                address=self.address,
                state="asked",
                created_at=facts.now,
                expires_at=facts.now + LIFE,
            )
        )
        facts.add_delivery(
            Delivery(
                id=facts.new_id("delivery"),
                lane=f"unseen:{self.message_id}",
                kind="unseen",
                target=by.name,
                subject_id=self.message_id,
                payload=json.dumps({"code": self.id, "name": self.mailing.name, "chat": self.mailing.chat.name}),
                state="queued",
                idempotent=by.idempotent,
                created_at=facts.now,
                due_at=facts.now,
            )
        )
        return "mailed"

    def _end(self, row: MailedAnswer, state: str, facts: Facts) -> str:
        row.state = state
        row.at = facts.now
        facts.change(row)
        return state


def due(now: int, mailing: Mailing) -> Select[Any]:
    """A chat's answers that were left for so long, oldest first, as (message_id, device, identifier_id)."""
    return (
        select(_mailed.message_id, _identifier.value.label("device"), _identifier.id.label("identifier_id"))
        .join_from(metadata.tables["mailed_answer"], metadata.tables["message"], _message.id == _mailed.message_id)
        .join(metadata.tables["identifier"], _identifier.id == _message.identifier_id)
        .where(_mailed.state == "due", _mailed.due_at <= now - mailing.after, _message.channel_id == mailing.chat.id)
        # One still on its way is no answer yet.
        .where(or_(_message.status.not_in(("queued", "sending")), _mailed.due_at <= now - DAY))
        .order_by(_mailed.due_at)
        .limit(AT_A_TIME)
    )


def given(identifier_id: int) -> Select[tuple[str, str]]:
    """The e-mail address a browser's visitor named last, as (value, address)."""
    return (
        select(_identifier.value, _identifier.address)
        .join_from(metadata.tables["evidence"], metadata.tables["identifier"], _identifier.id == _evidence.other_id)
        .where(_evidence.identifier_id == identifier_id, _evidence.withdrawn_at.is_(None), _identifier.kind == "email")
        .order_by(_evidence.at.desc(), _evidence.id.desc())
        .limit(1)
    )


async def sweep_unseen(chats: Mapping[int, Mailing], reader: Reader, writer: Writer, now: int) -> int:
    """Mail what nobody saw, at most AT_A_TIME a chat; how many. For a round every 15 seconds or so. Raises StorageBusy."""
    mailed = 0
    for mailing in chats.values():
        rows: Sequence[Any] = await reader.all(due(now, mailing))
        for row in rows:
            address = await reader.first(given(row.identifier_id))
            found = typed("email", address.address or address.value) if address is not None else None
            value, written = found or ("", "")
            state = await writer.run(MailAnswer(row.message_id, row.device, value, written, secrets.token_hex(16), mailing))
            mailed += state == "mailed"
    return mailed


@dataclass(frozen=True, slots=True)
class ForgetAnswers:
    """Delete what is known of answers long past: it holds addresses that strangers typed."""

    message_ids: tuple[int, ...]

    def needs(self, needs: Needs) -> None:
        pass  # nothing about them changes any more

    def decide(self, facts: Facts) -> None:
        for id_ in self.message_ids:
            facts.remove("mailed_answer", "message_id", id_)


async def forget_unseen(reader: Reader, writer: Writer, now: int) -> int:
    """Forget answers older than any limit counts, at most 500; how many. For the hub's hourly round. Raises StorageBusy."""
    rows = await reader.all(select(_mailed.message_id).where(_mailed.due_at < now - KEPT).limit(500))
    if rows:
        await writer.run(ForgetAnswers(tuple(row[0] for row in rows)))
    return len(rows)


# --- the mail ---


class UnseenCarrier:
    """An unseen answer, by mail. Its link exists from here to the provider and nowhere else."""

    def __init__(
        self, channels: Mapping[str, BoundChannel], reader: Reader, http: Http, token_of: Callable[[str], str], public_url: str, domain: str
    ) -> None:
        """`token_of` is `link_token` with the hub's secret; `domain` stands in the mail's Message-ID."""
        self._channels = channels
        self._reader = reader
        self._http = http
        self._token_of = token_of
        self._public_url = public_url
        self._domain = domain

    async def carry(self, delivery: Delivery) -> Finish:
        with preparing():
            bound = self._channels.get(delivery.target)
            if bound is None:
                raise Refused(f"The channel {delivery.target} is no longer configured. The answer stands in the chat and was not mailed.")
            told = json.loads(delivery.payload)
            try:
                said = await self._reader.first(select(_message.text, _message.status).where(_message.id == delivery.subject_id))
                row = await self._reader.first(select(_code.address, _code.state).where(_code.id == told["code"]))
            except (StorageBusy, SQLAlchemyError) as error:
                raise TryLater("The answer could not be read from the database. Nothing was mailed yet.") from error
            if said is None or row is None:
                raise Refused("The answer is gone (erased), or its link has run out. Nothing was mailed.")
        if said.status == "read":  # meanwhile
            return finish(delivery)
        await bound.connector.send(self._written(delivery, told, row.address, said.text), self._http)
        return finish(delivery)

    def _written(self, delivery: Delivery, told: Mapping[str, str], address: str, text: str) -> OutboundMessage:
        url = f"{self._public_url}/chat/{told['chat']}/continue#{self._token_of(told['code'])}"
        unique = hashlib.sha256(told["code"].encode()).hexdigest()[:20]  # the same on every try, and telling nothing of the id
        return OutboundMessage(
            delivery_id=delivery.id,
            to=address,
            subject=f"An answer from {told['name']}",
            text=(
                f"{text or 'We answered with a file. Open the chat to see it.'}\n\n"
                f"Go on with the chat (this link works once, within 24 hours):\n{url}\n\n"
                f"Somebody gave this address in the chat of {told['name']}. If it was not you, ignore this message."
            ),
            message_id=f"<unseen.{unique}@{self._domain}>",
            automatic=True,
        )
