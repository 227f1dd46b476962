"""One-time codes: whoever types in what was sent to an address can read it. What may be sent and what an answer proves. Pure.

The code itself is stored nowhere and travels in no row: it follows from the row's random id by a key of its own
(`hub.delivery.tokens.one_time_code`), where it is sent and where an answer is compared. Asking looks nobody up, so that it
tells nobody whether an address is known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import phonenumbers
from phonenumbers import PhoneNumberType
from sqlalchemy import Select, select

from hub.customers.canonical import canonical
from hub.customers.visitors import VisitorChannel, VisitorSession
from hub.policy import DAY, SECOND, ChannelRule, Policy
from hub.storage.facts import Facts, Needs, Work
from hub.storage.reader import Reader
from hub.storage.records import Delivery, OneTimeCode
from hub.storage.tables import metadata
from hub.storage.writer import Writer

HOUR = 3_600 * SECOND
LIFE = 600 * SECOND
TRIES = 5
RESEND = 30 * SECOND
# (so many, within so long): what anybody on the internet may cause us to send to one address, and for one browser.
PER_ADDRESS = ((1, RESEND), (3, HOUR), (5, DAY))
PER_DEVICE = ((5, HOUR),)
KEPT = 2 * DAY  # longer than any limit counts
KINDS = ("email", "phone")
ADDRESSES = frozenset({*KINDS, "sender_word"})

# What HTML calls a valid address (https://html.spec.whatwg.org/multipage/input.html#email-state-(type=email)), with a dot in its domain:
# no quoted local parts, no address literals, nothing a mail server would have to interpret.
_MAIL = re.compile(r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9][a-z0-9-]{0,61}[a-z0-9]")

_code = metadata.tables["one_time_code"].c


class ProvingSession(VisitorSession, Protocol):
    """A visitor's session that may have proved addresses by code. `good_until` (unix seconds) is when its token must be renewed."""

    @property
    def phone(self) -> str: ...
    @property
    def proofs(self) -> tuple[tuple[str, str, int], ...]: ...  # kind, canonical value, until
    @property
    def good_until(self) -> int: ...


@runtime_checkable
class ProvingChannel(VisitorChannel, Protocol):
    """A visitors' channel whose tokens can carry what a code proved."""

    @property
    def public_name(self) -> str: ...
    @property
    def codes_per_hour(self) -> int: ...

    def session(self, token: str) -> ProvingSession | None: ...

    def issue(
        self,
        device: str,
        now: float,
        *,
        user_id: str = "",
        email: str = "",
        phone: str = "",
        name: str = "",
        proofs: Iterable[tuple[str, str] | tuple[str, str, int]] = (),
        until: int | None = None,
    ) -> str:
        """A token for this browser session."""
        ...


# --- addresses ---


def typed(kind: str, value: str, region: str = "") -> tuple[str, str] | None:
    """What a person typed, as (canonical value, address to write to); None for what no code can be sent to.

    A number without its country's code is read as one of `region` (ISO 3166), or not at all: as an international number it would
    be somebody else's.
    """
    value = value.strip()
    if not value.isprintable() or len(value) > 254:  # RFC 5321, errata 1690: the longest address there is
        return None
    if kind == "email":
        mail = canonical("email", value)
        return (mail, value if value.isascii() else mail) if mail is not None and _MAIL.fullmatch(mail) else None
    if kind != "phone" or not (region or value.startswith(("+", "00"))):
        return None
    phone = canonical("phone", value if region or value.startswith("+") else "+" + value[2:], region)
    if phone is None or ";" in phone or phonenumbers.number_type(phonenumbers.parse(phone)) in _NOBODY_READS:
        return None
    return phone, phone


# Texting those reaches nobody, and some of them earn by being texted.
_NOBODY_READS = (PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST, PhoneNumberType.TOLL_FREE)


def masked(kind: str, value: str) -> str:
    """An address as it is shown to whoever says it is theirs: enough to see which one, too little to learn it."""
    if kind == "email":
        local, _, domain = value.rpartition("@")
        return f"{local[:1]}•••@{domain}"
    return f"•••{value[-2:]}"


def way(chat: ChannelRule, kind: str, policy: Policy) -> ChannelRule | None:
    """The channel a code goes by: one that reaches this kind and knows people by addresses alone, of the chat's brand if there is one.

    One that knows them by ids of its own as well (a messenger) takes no message they did not ask for there.
    """
    fitting = [rule for rule in policy.channels.values() if kind in rule.reaches and ADDRESSES.issuperset(rule.reaches)]
    return min(fitting, key=lambda rule: (rule.brand != chat.brand, rule.id), default=None)


def holders(session: VisitorSession) -> tuple[str, ...]:
    """Who a session may answer codes as: its browser, and for codes an agent asked for, its account."""
    return (session.device, account(session.user_id)) if session.user_id else (session.device,)


def account(user_id: str) -> str:
    """Who may answer a code an agent asked of a signed-in visitor: any browser of the account."""
    return f"user_id:{user_id}"  # no browser's name has a colon


def wait_for(times: Sequence[int], limits: Iterable[tuple[int, int]], now: int) -> int:
    """Microseconds until one more is within the limits; 0: it is now. A time ahead of now was noted by a clock that was set back."""
    longest = 0
    for many, within in limits:
        recent = sorted(at for at in times if 0 <= now - at < within)
        if len(recent) >= many:
            longest = max(longest, recent[-many] + within - now)
    return longest


# --- asking ---


@dataclass(frozen=True, slots=True)
class Asked:
    """A code is on its way."""

    id: str


@dataclass(frozen=True, slots=True)
class NotAsked:
    """Nothing is sent, and why, in words for whoever asked; `wait` in seconds where asking later may help."""

    problem: str
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class AskCode:
    """A visitor asks for a code to an address they typed. `name` is the site as its visitors know it; `id` is random."""

    id: str
    channel_id: int
    device: str
    kind: str
    value: str
    address: str
    name: str
    asked_by: int | None = None

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("one_time_code", "value", self.value))
        needs.rows.add(("one_time_code", "device", self.device))
        needs.opt_outs.add((self.kind, self.value))

    def decide(self, facts: Facts) -> Asked | NotAsked:
        chat = facts.policy.channels[self.channel_id]
        by = way(chat, self.kind, facts.policy)
        if by is None:
            return NotAsked("No code can be sent to such an address here.")
        to_address = [row.created_at for row in facts.found[("one_time_code", "value", self.value)] if row.kind == self.kind]
        for_device = [row.created_at for row in facts.found[("one_time_code", "device", self.device)]]
        wait = max(wait_for(to_address, PER_ADDRESS, facts.now), wait_for(for_device, PER_DEVICE, facts.now))
        if wait:
            return NotAsked("Too many codes were asked for. Wait a little, then ask again.", wait / SECOND)
        stopped = any(out.channel_id == by.id and out.ended_at is None for out in facts.opt_outs.get((self.kind, self.value), ()))
        if stopped and self.asked_by is not None:
            return NotAsked(f"This address asked not to be written to by {by.label}. No code was sent.")
        facts.insert(
            OneTimeCode(
                id=self.id,
                channel_id=self.channel_id,
                device=self.device,
                kind=self.kind,
                value=self.value,
                address=self.address,
                state="asked",
                created_at=facts.now,
                expires_at=facts.now + LIFE,
                asked_by=self.asked_by,
            )
        )
        if not stopped:  # a stranger is not told that somebody said STOP
            self._owe(by, facts)
        return Asked(self.id)

    def _owe(self, by: ChannelRule, facts: Facts) -> None:
        number = facts.new_id("delivery")
        facts.add_delivery(
            Delivery(
                id=number,
                lane=f"code:{self.id}",
                kind="code",
                target=by.name,
                subject_id=number,  # it is about nobody
                payload=json.dumps({"code": self.id, "name": self.name}),
                state="queued",
                idempotent=by.idempotent,
                created_at=facts.now,
                due_at=facts.now,
            )
        )


@dataclass(frozen=True, slots=True)
class RequestCode:
    """An agent asks a chat's visitor to prove an address that was named in this chat. `ask.device` is found out here."""

    ticket_id: int
    identifier_id: int
    ask: AskCode

    def needs(self, needs: Needs) -> None:
        self.ask.needs(needs)
        needs.tickets.add(self.ticket_id)
        # Until the ticket is read nobody knows whose browser it is; the limit for each is counted where the rows are known.

    def decide(self, facts: Facts) -> Asked | NotAsked:
        ticket = facts.tickets.get(self.ticket_id)
        if ticket is None:
            return NotAsked("There is no such ticket.")
        rule = facts.policy.channels.get(ticket.channel_id)
        sender = facts.identifiers_by_id.get(ticket.identifier_id)
        if rule is None or sender is None or ticket.channel_id != self.ask.channel_id or sender.kind not in ("device", "user_id"):
            return NotAsked("The customer did not write last by chat, so there is nowhere to type a code in.")
        device = sender.value if sender.kind == "device" else account(sender.value)
        if device != self.ask.device:
            return NotAsked("The customer wrote from elsewhere meanwhile. Look at the ticket again.")
        customer = facts.live_customer(ticket.conversation_id)
        # A code is only offered for what this visitor named: its masked address must tell them nothing they did not say themselves.
        said = (
            entry for own in facts.identifiers_of[customer.id] if own.kind in rule.reaches for entry in facts.evidence_of.get(own.id, ())
        )
        if not any(entry.other_id == self.identifier_id and entry.withdrawn_at is None for entry in said):
            return NotAsked("Nobody named this address in the chat. A code goes only to an address the visitor gave.")
        outcome = self.ask.decide(facts)
        if isinstance(outcome, Asked):
            told = json.dumps({"to": masked(self.ask.kind, self.ask.value)})
            facts.emit("code.asked", customer_id=customer.id, ticket_id=ticket.id, agent_id=self.ask.asked_by, data=told)
        return outcome


# --- answering ---


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of an answer. `over`: used, spent or expired before. `unknown`: no code of this visitor."""

    outcome: Literal["right", "wrong", "over", "unknown"]
    tries_left: int = 0


@dataclass(frozen=True, slots=True)
class AnswerCode:
    """A visitor typed in a code. `right` is what a constant-time comparison said; `then` is what a right one proves, in one transaction."""

    id: str
    devices: tuple[str, ...]
    channel_ids: tuple[int, ...]
    right: bool
    then: Work[Any] | None = None

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("one_time_code", "id", self.id))
        if self.then is not None:
            self.then.needs(needs)

    def decide(self, facts: Facts) -> Answered:
        row = next(iter(facts.found[("one_time_code", "id", self.id)]), None)
        if row is None or row.device not in self.devices or row.channel_id not in self.channel_ids:
            return Answered("unknown")
        if row.state != "asked" or facts.now >= row.expires_at:
            return Answered("over")
        row.tries += 1
        facts.change(row)
        if not self.right:
            if row.tries >= TRIES:
                row.state = "spent"
            return Answered("wrong", TRIES - row.tries)
        row.state = "used"
        if self.then is not None:
            self.then.decide(facts)
        return Answered("right")


# --- what is read, and forgotten ---


def newest(devices: Sequence[str], channel_ids: Sequence[int]) -> Select[tuple[str, str, str, str, int]]:
    """The last code these devices were asked for, as (id, kind, value, state, expires_at): once it is answered, none before it is
    waited for any more."""
    return (
        select(_code.id, _code.kind, _code.value, _code.state, _code.expires_at)
        .where(_code.device.in_(devices), _code.channel_id.in_(channel_ids))
        .order_by(_code.created_at.desc(), _code.id)
        .limit(1)
    )


def one(id: str, devices: Sequence[str], channel_ids: Sequence[int]) -> Select[tuple[str, str, str, str, int | None]]:
    """A code of these devices, whatever its state, as (device, kind, value, address, asked_by)."""
    return select(_code.device, _code.kind, _code.value, _code.address, _code.asked_by).where(
        _code.id == id, _code.device.in_(devices), _code.channel_id.in_(channel_ids)
    )


def linked(device: str) -> str:
    """Who may answer a code that is a link in a mail, to the chat of this browser: nobody by typing, whoever follows the link."""
    return f"link:{device}"  # no browser's name has a colon


def link(id: str, channel_id: int) -> Select[tuple[str, str, str]]:
    """A link of this channel, whatever its state, as (device, value, address)."""
    return select(_code.device, _code.value, _code.address).where(
        _code.id == id, _code.channel_id == channel_id, _code.device.startswith("link:", autoescape=True)
    )


@dataclass(frozen=True, slots=True)
class ForgetCodes:
    """Delete codes whose time has long passed: they hold addresses that strangers typed."""

    ids: tuple[str, ...]

    def needs(self, needs: Needs) -> None:
        pass  # nothing about them changes any more

    def decide(self, facts: Facts) -> None:
        for id_ in self.ids:
            facts.remove("one_time_code", "id", id_)


async def sweep_codes(reader: Reader, writer: Writer, now: int) -> int:
    """Forget codes older than any limit counts, at most 500; how many. For the hub's hourly round. Raises StorageBusy."""
    rows = await reader.all(select(_code.id).where(_code.created_at < now - KEPT).limit(500))
    if rows:
        await writer.run(ForgetCodes(tuple(row[0] for row in rows)))
    return len(rows)
