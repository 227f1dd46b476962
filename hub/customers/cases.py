"""Identity cases: recorded streams of messages, logins and notices, in the words of the schema `identity-cases/1`, put into ours. Pure.

A file says what reached a business over its channels; what it expects to become of it is never read here. Every word of the file has a
row in a table below, or the file is refused: a word that was silently skipped would make a wrong answer look right.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from hub.contract import PROVING, Claim, HolderChanged, Identified, InboundMessage, Proof
from hub.customers.canonical import canonical
from hub.customers.visitors import Identity, next_session
from hub.policy import SECOND, ChannelRule, Policy

SCHEMA = "identity-cases/1"
SITE = "shop"  # whose accounts the `user_id`s of a file are
WEB = "web"
ENDLESS = 1 << 40  # unix seconds: a session of a file ends when the file says so

# The channels a file may name, as the policy knows them. Copies of an answer go by mail alone.
CHANNELS: dict[str, ChannelRule] = {
    rule.name: rule
    for rule in (
        ChannelRule(1, "whatsapp", "WhatsApp", "default", ("phone", "wa_user_id"), idempotent=False, mails=False),
        ChannelRule(2, "sms", "SMS", "default", ("phone", "sender_word"), idempotent=False, mails=False),
        ChannelRule(3, WEB, "Web chat", "default", ("device", "user_id"), idempotent=True, mails=False, site=SITE),
        ChannelRule(4, "email", "E-mail", "default", ("email",), idempotent=False, mails=True),
    )
}

# A type of the file -> our kind; None: it identifies nobody. A username changes hands, a cookie proves nothing beside our own session.
KINDS: dict[str, str | None] = {
    "phone": "phone",
    "email": "email",
    "user_id": "user_id",
    "wa_user_id": "wa_user_id",
    "short_code": "sender_word",
    "alnum_sender": "sender_word",
    "device": None,
    "wa_username": None,
    "name": None,
}
# A proof of the file -> ours; None: it was tried and failed, and says nothing.
PROOFS: dict[str, Proof | None] = {
    "channel": Proof.CHANNEL,
    "dmarc_pass": Proof.DMARC,
    "signed": Proof.SIGNED,
    "otp": Proof.OTP,
    "dmarc_none": Proof.CLAIMED,
    "typed": Proof.CLAIMED,
    "dmarc_fail": Proof.CLAIMED,  # with a doubt: see `message`
    "cookie": None,
    "seen": Proof.SEEN,
    "signed_invalid": None,
    "otp_failed": None,
}
DOUBT = "The mail fails the checks of the domain it says it comes from (DMARC): anybody may have written it."
EVENTS = frozenset({"message", "identify", "verify", "logout", "reply", "notice", "operator"})
ACTIONS = frozenset({"merge", "unmerge", "reject"})


class BadCases(Exception):
    """The file is none of this schema; the text says where and why."""


# --- reading ---


@dataclass(frozen=True, slots=True)
class Workspace:
    """One business: nothing of one is ever seen by another."""

    id: str
    region: str
    own_domains: frozenset[str]
    own_addresses: frozenset[str]

    @property
    def policy(self) -> Policy:
        """The rules its hub follows."""
        return Policy(
            channels={rule.id: rule for rule in CHANNELS.values()},
            region=self.region,
            own_domains=self.own_domains,
            own_addresses=self.own_addresses,
        )


@dataclass(frozen=True, slots=True)
class Stated:
    """One line of an event's `from`, as it stands there."""

    type: str
    value: str
    proof: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happened. `at` is microseconds UTC; of the fields below `stated` only those of its kind are filled."""

    id: str
    at: int
    ws: str
    kind: str
    channel: str = ""
    stated: tuple[Stated, ...] = ()
    session: str = ""
    delivery_id: str = ""
    opt_out: bool = False
    message_id: str = ""
    in_reply_to: str = ""
    references: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    reply_to_header: str = ""
    automatic: str = ""
    subject: str = ""
    reply_to: str = ""  # of our answer: the message it answers
    notice: str = ""
    previous: tuple[tuple[str, str], ...] = ()  # of a notice: (kind, value) until now
    present: tuple[tuple[str, str], ...] = ()  # ... and from now on
    action: str = ""
    pair: tuple[str, ...] = ()

    @property
    def visit(self) -> str:
        """The web session it belongs to: one of its own where it names none."""
        return self.session or f"of {self.id}"

    @property
    def delivery(self) -> tuple[str, str, str]:
        """What tells one delivery from another."""
        return (self.ws, self.channel, self.delivery_id or f"event {self.id}")


@dataclass(frozen=True, slots=True)
class Case:
    id: str
    any_order: bool
    workspaces: tuple[Workspace, ...]
    events: tuple[Step, ...]


def read(text: str) -> tuple[Case, ...]:
    """The cases of a file. Raises BadCases."""
    try:
        whole = json.loads(text)
    except ValueError as error:
        raise BadCases(f"it is not JSON ({error})") from error
    if not isinstance(whole, dict) or whole.get("schema") != SCHEMA or not isinstance(whole.get("cases"), list):
        raise BadCases(f'it must be an object with "schema": "{SCHEMA}" and a list of "cases"')
    cases = []
    for number, raw in enumerate(whole["cases"], 1):
        at = raw.get("id", f"case {number}") if isinstance(raw, dict) else f"case {number}"
        try:
            cases.append(_case(raw))
        except BadCases as error:
            raise BadCases(f"{at}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadCases(f"{at}: {type(error).__name__}: {error}") from None
    if len({case.id for case in cases}) < len(cases):
        raise BadCases("two cases have the same id")
    return tuple(cases)


def _case(raw: Mapping[str, Any]) -> Case:
    workspaces = tuple(
        Workspace(
            one["id"],
            one.get("default_region") or "",
            frozenset(domain.lower().lstrip("@") for domain in one.get("own_domains", ())),
            frozenset(found for address in one.get("own_addresses", ()) if (found := canonical("email", address)) is not None),
        )
        for one in raw["workspaces"]
    )
    events = tuple(_event(one) for one in raw["events"])
    known = {one.id for one in workspaces}
    named = {event.id for event in events}
    if len(named) < len(events):
        raise BadCases("two events have the same id")
    for event in events:
        if event.ws not in known:
            raise BadCases(f"{event.id}: there is no workspace {event.ws!r}")
        if unknown := {one for one in (event.reply_to, *event.pair) if one} - named:
            raise BadCases(f"{event.id}: there is no event {unknown.pop()!r}")
    return Case(raw["id"], bool(raw.get("any_order")), workspaces, events)


def _event(raw: Mapping[str, Any]) -> Step:
    id_, kind = raw["id"], raw["kind"]
    stated = tuple(Stated(one["type"], str(one["value"]), one["proof"]) for one in raw.get("from", ()))
    channel = raw.get("channel") or (WEB if raw.get("session") else "")  # only the web has sessions
    words: list[tuple[str, str, Iterable[str]]] = [("kind", kind, EVENTS)]
    words += [("type", one.type, KINDS) for one in stated] + [("proof", one.proof, PROOFS) for one in stated]
    if kind not in ("reply", "operator"):
        words.append(("channel", channel, CHANNELS))
    if kind == "operator":
        words.append(("action", raw["action"], ACTIONS))
    if kind == "notice":
        words.append(("notice", raw["notice"], NOTICES))
    for word, value, table in words:
        if value not in table:
            raise BadCases(f"{id_}: the {word} {value!r} is unknown; one of {', '.join(sorted(table))}")
    at = datetime.fromisoformat(raw["at"])
    if at.tzinfo is None:
        raise BadCases(f"{id_}: `at` names no time zone")
    references = raw.get("references") or ()
    previous, present = NOTICES[raw["notice"]] if kind == "notice" else ((), ())
    pair = tuple(raw["pair"]) if kind == "operator" else ()
    if kind == "operator" and len(pair) != 2:
        raise BadCases(f"{id_}: `pair` must name two messages")
    return Step(
        id=id_,
        at=round(at.timestamp() * SECOND),
        ws=raw["ws"],
        kind=kind,
        channel=channel,
        stated=stated,
        session=raw.get("session", ""),
        delivery_id=raw.get("delivery_id", ""),
        opt_out=bool(raw.get("opt_out")),
        message_id=raw.get("message_id", ""),
        in_reply_to=raw.get("in_reply_to", ""),
        references=(references,) if isinstance(references, str) else tuple(references),
        cc=tuple(raw.get("cc") or ()),
        reply_to_header=raw.get("reply_to_header", ""),
        automatic=_automatic(raw),
        subject=raw.get("subject", ""),
        reply_to=raw["reply_to"] if kind == "reply" else "",
        notice=raw.get("notice", ""),
        previous=tuple((kind_, raw[name]) for kind_, name in previous if raw.get(name)),
        present=tuple((kind_, raw[name]) for kind_, name in present if raw.get(name)),
        action=raw.get("action", ""),
        pair=pair,
    )


def _automatic(raw: Mapping[str, Any]) -> str:
    """What machine wrote a mail, in the order the mail connectors judge it in."""
    if raw.get("bounce"):
        return "bounce"
    if raw.get("auto_submitted") not in (None, False, "", "no"):
        return "auto-reply"
    return "list" if raw.get("list_id") else ""


# A notice -> what it takes away and what it gives, as (our kind, the field that holds the value), the strongest name first.
NOTICES: dict[str, tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]] = {
    "number_disconnected": ((("phone", "phone"),), ()),
    "user_changed_number": (
        (("wa_user_id", "previous_wa_user_id"), ("phone", "previous_phone")),
        (("wa_user_id", "wa_user_id"), ("phone", "phone")),
    ),
    "user_changed_user_id": (
        (("wa_user_id", "previous_wa_user_id"), ("phone", "previous_phone")),
        (("wa_user_id", "wa_user_id"), ("phone", "phone")),
    ),
}


# --- the order of things ---


def waits_for(events: Sequence[Step]) -> dict[str, frozenset[str]]:
    """What must have happened before each event can, in whatever order a file's events are delivered: the answered before the answer,
    what an agent judges before the judgement, an answer before whoever refers to it, and a logout between what lies around it."""
    by_mail_id = {event.message_id: event.id for event in events if event.kind == "reply" and event.message_id}
    waits: dict[str, set[str]] = {event.id: {one for one in (event.reply_to, *event.pair) if one} for event in events}
    for number, event in enumerate(events):
        waits[event.id] |= {by_mail_id[one] for one in (event.in_reply_to, *event.references) if one in by_mail_id}
        for earlier in events[:number]:
            same_visit = bool(event.session) and (earlier.ws, earlier.session) == (event.ws, event.session)
            if (same_visit and "logout" in (event.kind, earlier.kind)) or event.kind == earlier.kind == "operator":
                waits[event.id].add(earlier.id)
    return {id_: frozenset(before - {id_}) for id_, before in waits.items()}


def arranged(events: Sequence[Step], order: Sequence[int]) -> tuple[Step, ...]:
    """The events in this order of their positions, each put off until what it waits for is there. The clock still runs forward: the
    first delivered bears the earliest time."""
    waits = waits_for(events)
    left = [events[number] for number in order]
    done: dict[str, Step] = {}
    while left:
        ready = next((event for event in left if waits[event.id] <= done.keys()), left[0])
        left.remove(ready)
        done[ready.id] = ready
    times = sorted(event.at for event in events)
    return tuple(replace(event, at=at) for event, at in zip(done.values(), times, strict=True))


def orders(count: int, rounds: int, seed: int) -> Iterator[tuple[int, ...]]:
    """So many shuffled orders of `count` things, the same for the same seed; every order there is where there are no more than that."""
    every = 1
    for number in range(2, count + 1):
        every *= number
        if every > rounds:
            break
    if every <= rounds:
        yield from itertools.permutations(range(count))
        return
    shuffled = random.Random(seed)
    for _ in range(rounds):
        yield tuple(shuffled.sample(range(count), count))


# --- in our words ---


def claims(event: Step, proofs: Iterable[Proof] = tuple(Proof)) -> tuple[Claim, ...]:
    """The identifiers an event carries with one of these proofs, in the file's order: the sender's own address stands first."""
    found = []
    for one in event.stated:
        kind, proof = KINDS[one.type], PROOFS[one.proof]
        if kind is not None and proof is not None and proof in tuple(proofs):
            found.append(Claim(kind, one.value, proof, SITE if kind == "user_id" else ""))
    diverted = Claim("email", event.reply_to_header, Proof.SEEN)
    if event.reply_to_header and Proof.SEEN in tuple(proofs) and all(claim.value != diverted.value for claim in found):
        found.append(diverted)
    return tuple(found)


def name(event: Step) -> str:
    """What the sender calls himself."""
    return next((one.value for one in event.stated if one.type == "name"), "")


def message(event: Step, carried: tuple[Claim, ...], text: str, answered: Mapping[str, str]) -> InboundMessage:
    """What a connector hands over. `carried` are its claims, `answered` the Message-ID our answers bear by the one the file gave them."""
    return InboundMessage(
        provider_key=event.delivery_id or f"event {event.id}",
        claims=carried,
        text=text,
        subject=event.subject,
        sender_name=name(event),
        sent_at=event.at,
        message_id=event.message_id,
        in_reply_to=answered.get(event.in_reply_to, event.in_reply_to),
        references=tuple(answered.get(one, one) for one in event.references),
        cc=event.cc,
        automatic=event.automatic,
        doubt=DOUBT if any(one.proof == "dmarc_fail" for one in event.stated) else "",
        opts="out" if event.opt_out else "",
    )


def changed(event: Step) -> HolderChanged:
    """A notice of the channel or the carrier."""
    return HolderChanged(
        provider_key=f"event {event.id}",
        previous=tuple(Claim(kind, value, Proof.CHANNEL) for kind, value in event.previous),
        present=tuple(Claim(kind, value, Proof.CHANNEL) for kind, value in event.present),
    )


@dataclass(frozen=True, slots=True)
class Visit:
    """A web session as a visitor's token tells it (`visitors.VisitorSession`). It begins anonymous, in a browser of its own."""

    device: str
    site: str = SITE
    expires_at: int = ENDLESS
    user_id: str = ""
    email: str = ""
    phone: str = ""
    name: str = ""
    proofs: tuple[tuple[str, str], ...] = ()  # (kind, canonical value) whose one-time code came back

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What it proves, as the chat's own connector says it: the person, else the browser, stands first."""
        device = Claim("device", self.device, Proof.CHANNEL)
        codes = tuple(Claim(kind, value, Proof.OTP) for kind, value in self.proofs)
        signed = tuple(Claim(kind, value, Proof.SIGNED) for kind, value in (("email", self.email), ("phone", self.phone)) if value)
        person = (Claim("user_id", self.user_id, Proof.SIGNED, self.site),) if self.user_id else ()
        return (*person, device, *signed, *codes)

    def proved(self, kind: str, value: str) -> Visit:
        """The session after a code that was sent there came back."""
        return replace(self, proofs=tuple(dict.fromkeys((*self.proofs, (kind, value)))))


def tries_to_identify(event: Step) -> bool:
    """Whether a site's token comes with it, good or bad."""
    return any(one.proof in ("signed", "signed_invalid") for one in event.stated)


def identity(event: Step) -> Identity | None:
    """Who the site's token says the visitor is; None where it proves nobody. The site's word for addresses is trusted here."""
    said: dict[str, str] = {}
    for claim in claims(event, (Proof.SIGNED,)):
        # A number of a country without its code would be read as somebody else's, in another country.
        if canonical(claim.kind, claim.value) is not None and (claim.kind != "phone" or claim.value.strip().startswith("+")):
            said.setdefault(claim.kind, claim.value.strip())
    if not said or ("user_id" not in said and any(one.type == "user_id" and one.proof == "signed" for one in event.stated)):
        return None
    return Identity(said.get("user_id", ""), said.get("email", ""), name(event), said.get("phone", ""))


def identified(visit: Visit, event: Step, fresh: str) -> tuple[Visit, Identified | None]:
    """The session after a site's token, and what the hub is told of it, if it is news; `fresh` names the browser of a new session.

    By the rules of the chat itself: another account, or a token that proves nothing at a browser that was somebody's, begins anew.
    """
    who = identity(event)
    if who is not None and not who.user_id:  # a token without an account: it names the address of whoever is there
        who = replace(who, user_id=visit.user_id)
    if who is not None and who.user_id == visit.user_id:
        who = replace(who, email=who.email or visit.email, phone=who.phone or visit.phone, name=who.name or visit.name)
    after = Visit(fresh) if next_session(visit, True, who, SITE, 0).fresh else visit
    if who is None:
        return after, None
    # What a code proved goes with the browser and the person: whoever signs in at a browser has proved nothing there yet.
    proofs = after.proofs if after.user_id == who.user_id else ()
    after = replace(after, user_id=who.user_id, email=who.email, phone=who.phone, name=who.name, proofs=proofs)
    if (after.device, after.user_id, after.email, after.phone) == (visit.device, visit.user_id, visit.email, visit.phone):
        return after, None
    return after, Identified(provider_key=f"identify {event.id}", claims=after.claims, sender_name=after.name)


def proving(carried: Iterable[Claim]) -> tuple[Claim, ...]:
    """Those claims that prove something."""
    return tuple(claim for claim in carried if claim.proof in PROVING)
