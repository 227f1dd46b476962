"""A wish to be written to no more, in a customer's own words: flagged for an agent, who alone makes an opt-out of it.

Exact words (STOP and its kin) are the channel's own affair and heeded at once. Free text is another matter: "please stop sending me
e-mails" is one, "stop by the shop" is not, and the law counts any reasonable means (FCC, 47 CFR 64.1200(a)(10)).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, select

from hub.customers import opt_outs
from hub.customers.resolution import Known
from hub.policy import Refusal
from hub.storage.facts import Facts, Needs
from hub.storage.tables import metadata

_message = metadata.tables["message"].c
_identifier = metadata.tables["identifier"].c
_opt_out = metadata.tables["opt_out"].c

LONGEST = 2_000  # characters that are looked at

_THINGS = (
    r"(?:texts?|text(?:ing| messages?)|messages?|messaging|sms|e-?mails?|e-?mailing|mails?|newsletters?|ads?|offers?|promotions?"
    r"|marketing|spam|campaigns?|whatsapps?)"
)
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(?:stop|quit|cease)\s+(?:\w+\s+){0,2}?(?:sending|texting|messaging|e-?mailing|contacting|spamming|writing|bothering)\b",
        rf"\b(?:stop|no more|enough)\s+(?:with\s+)?(?:the|your|these|those|all|of your)?\s*{_THINGS}\b",
        r"\bunsubscribe\b",
        r"\bopt(?:ed)?[- ]?(?:me\s+)?out\b",
        r"\b(?:take|remove|delete|get)\s+me\s+(?:off|from)\b.{0,40}\b(?:lists?|mailings?|newsletters?)\b",
        r"\b(?:do not|don'?t|never)\s+(?:\w+\s+)?(?:text|message|e-?mail|contact|write(?:\s+to)?|call|send)\s+(?:to\s+)?(?:me|us)\b"
        r"(?!.{0,30}\buntil\b)",
        r"\bdon'?t\s+want\s+(?:any\s+)?(?:more\s+)?(?:your\s+|to\s+(?:get|receive)\s+(?:any\s+)?)?(?:more\s+)?"
        rf"{_THINGS}\b",
        # German
        r"\b(?:newsletter|werbung|e-?mails?|sms|nachrichten)\b.{0,30}\b(?:abbestellen|abmelden|abbestelle|stoppen)\b",
        r"\b(?:keine|nie wieder|nicht mehr)\b.{0,25}\b(?:werbung|newsletter|e-?mails?|sms|nachrichten|anschreiben|kontaktieren)\b",
        r"\b(?:abmelden|austragen|streichen)\b.{0,30}\b(?:verteiler|liste|newsletter)\b",
        r"\baus\s+(?:dem|ihrem|eurem)\s+verteiler\b",
        # French
        r"\b(?:me\s+)?d[ée]s(?:abonner|inscrire|abonnez|inscrivez)\b|\bd[ée]sabonnement\b",
        r"\b(?:ne\s+)?(?:m['’]envoyez|me\s+contactez|m['’][ée]crivez)\s+plus\b",  # noqa: RUF001
        # Spanish, Portuguese
        r"\b(?:dar(?:me)?|den(?:me)?)\s+de\s+baja\b",
        r"\bno\s+(?:me\s+)?(?:env[ií]en|manden|escriban|contacten)\b.{0,15}\bm[áa]s\b",
        r"\b(?:descadastr\w+|cancelar\s+(?:a\s+)?(?:inscri[çc][ãa]o|assinatura\s+da\s+newsletter))\b",
        r"\b(?:parem|pare)\s+de\s+(?:me\s+)?(?:enviar|mandar|escrever)\b|\bn[ãa]o\s+(?:me\s+)?(?:enviem|mandem)\s+mais\b",
        # Italian, Dutch, Turkish
        r"\b(?:disiscriv\w+|cancella(?:te)?mi\s+dalla)\b|\bnon\s+(?:mi\s+)?(?:scrivete|mandate|inviate)\w*\s+pi[ùu]\b",
        r"\b(?:afmelden|uitschrijven)\b|\bgeen\s+(?:reclame|nieuwsbrieven|e-?mails?|berichten)\s+meer\b",
        r"\b(?:listeden\s+[çc][ıi]k\w*|abonelikten\s+[çc][ıi]k\w*)\b|\b(?:mesaj|mail|sms)\s+(?:atmay[ıi]n|g[öo]ndermeyin)\b",  # noqa: RUF001
    )
)


def wants_no_more(text: str) -> bool:
    """Whether a message sounds like a wish to be written to no more. A hint for an agent, never a decision. Pure."""
    return any(pattern.search(text[:LONGEST]) for pattern in _PATTERNS)


@dataclass(frozen=True, slots=True)
class ConfirmStop:
    """An agent read a message as a wish to be written to no more on its channel: an opt-out of its sender's address, with their words."""

    message_id: int
    sender: tuple[str, str]  # (kind, value) of its sender's address: see `sender_of`
    agent_id: int

    def needs(self, needs: Needs) -> None:
        needs.messages.add(self.message_id)
        needs.opt_outs.add(self.sender)

    def decide(self, facts: Facts) -> bool:
        """Whether it is new. Raises Refusal."""
        message = facts.messages.get(self.message_id)
        if message is None or message.direction != "in" or message.channel_id is None:
            raise Refusal("Only what a customer wrote can be read as a wish to be written to no more.")
        kind, value = self.sender
        return opt_outs.note(
            True,
            Known(kind, "", value, "asserted", message.proof, value),
            message.channel_id,
            message.id,
            facts,
            customer_id=facts.live_customer(message.conversation_id).id,
            words=message.text,
            actor=f"agent:{self.agent_id}",
        )


def opt_out_of(opt_out_id: int, customer_id: int) -> Select[Any]:
    """An opt-out, if it is of one of this customer's addresses."""
    same = and_(_identifier.kind == _opt_out.kind, _identifier.value == _opt_out.value, _identifier.customer_id == customer_id)
    return select(_opt_out.id).join_from(metadata.tables["opt_out"], metadata.tables["identifier"], same).where(_opt_out.id == opt_out_id)


def sender_of(message_id: int) -> Select[Any]:
    """The kind and value of the address a message came from."""
    return (
        select(_identifier.kind, _identifier.value)
        .join_from(metadata.tables["message"], metadata.tables["identifier"], _identifier.id == _message.identifier_id)
        .where(_message.id == message_id)
    )


@dataclass(frozen=True, slots=True)
class TakeBackStop:
    """An agent's reading was wrong: the opt-out they made of a message ends. What a customer said by the channel's own word no agent
    takes back: nobody is subscribed again by us."""

    customer_id: int
    opt_out_id: int
    agent_id: int

    def needs(self, needs: Needs) -> None:
        needs.customers.add(self.customer_id)
        needs.rows.add(("opt_out", "id", self.opt_out_id))

    def decide(self, facts: Facts) -> None:
        """Raises Refusal."""
        [row] = facts.found[("opt_out", "id", self.opt_out_id)] or [None]
        if row is None or row.ended_at is not None:
            raise Refusal("There is no such opt-out any more. Reload and look again.")
        if not row.actor:
            raise Refusal("The customer said this by the channel's own word. Only they can take it back.")
        row.ended_at = facts.now
        facts.change(row)
        kind, by = opt_outs.NAMED.get(row.kind, row.kind), f"agent:{self.agent_id}"
        data = {"kind": kind, "value": row.value, "channel_id": row.channel_id, "words": row.words, "by": by}
        facts.emit(
            "optout.withdrawn", customer_id=self.customer_id, message_id=row.message_id, agent_id=self.agent_id, data=json.dumps(data)
        )
