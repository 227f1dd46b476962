"""The loop that asks: surveys whose time has come, one after the other, and the end of those that ran out unanswered.

Each is judged twice: from what is read here, and again in the unit of work, where the ticket and the opt-outs are read under lock.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from datetime import UTC, tzinfo
from typing import Any

from sqlalchemy import Row, Select, exists, func, select

from hub.conversations import wording
from hub.conversations.windows import last_heard
from hub.customers import preview
from hub.policy import Policy
from hub.satisfaction.questions import language, message
from hub.satisfaction.surveys import Ask, Expire, Link, Seen, token
from hub.storage.reader import Reader
from hub.storage.tables import metadata
from hub.storage.turns import GiveTurn, TakeTurn
from hub.storage.writer import StorageBusy, Writer
from hub.survey_policy import SurveyPolicy

AT_A_TIME = 50
TURN = 60.0  # seconds

_survey = metadata.tables["survey"]
_ticket = metadata.tables["ticket"]
_message = metadata.tables["message"]

TIME_ZONE = ("time_zone", "timezone", "tz")  # attributes that tell where a customer lives
LANGUAGE = ("language", "locale", "lang")


def due(now: int, limit: int = AT_A_TIME) -> Select[Any]:
    """The surveys whose time has come, the longest waiting first, each with what decides whether its customer is asked."""
    said = _message.alias("said")
    on_ticket = (said.c.conversation_id == _ticket.c.conversation_id, said.c.ticket_id == _ticket.c.id)
    other, theirs = _survey.alias("other"), _ticket.alias("theirs")
    last_asked = (
        select(func.max(other.c.asked_at))
        .select_from(theirs.join(other, other.c.ticket_id == theirs.c.id))
        .where(theirs.c.conversation_id == _ticket.c.conversation_id)
        .scalar_subquery()
    )
    return (
        select(
            _survey.c.id,
            _survey.c.ticket_id,
            _survey.c.kind,
            _ticket.c.conversation_id,
            exists(
                select(said.c.id).where(*on_ticket, said.c.direction == "out", said.c.agent_id.is_not(None), said.c.automatic == "")
            ).label("answered"),
            exists(select(said.c.id).where(*on_ticket, said.c.direction == "in", said.c.automatic == "")).label("by_person"),
            exists(select(said.c.id).where(*on_ticket, said.c.direction == "in", said.c.doubt != "")).label("doubtful"),
            last_asked.label("last_asked_at"),
            last_heard(_ticket.c.conversation_id, _ticket.c.channel_id, _ticket.c.identifier_id).label("heard_at"),
        )
        .select_from(_survey.join(_ticket, _ticket.c.id == _survey.c.ticket_id))
        .where(_survey.c.state == "waiting", _survey.c.due_at <= now)
        .order_by(_survey.c.due_at, _survey.c.id)
        .limit(limit)
    )


def ended(now: int, limit: int = AT_A_TIME) -> Select[Any]:
    """The surveys that ran out without an answer and are not noted so yet."""
    over = (_survey.c.state == "asked", _survey.c.expires_at <= now)
    return select(_survey.c.id).where(*over).order_by(_survey.c.id).limit(limit)


def zone_of(attributes: Sequence[Any], rules: SurveyPolicy) -> tzinfo:
    """Where a customer lives, as far as is on record (newest first), else the policy's time zone. Pure."""
    for row in attributes:
        if row.name.lower() in TIME_ZONE:
            zone = wording.zone(row.value)
            if zone is not UTC or row.value.upper() == "UTC":
                return zone
    return wording.zone(rules.time_zone)


def language_of(attributes: Sequence[Any], rules: SurveyPolicy) -> str:
    """The language to ask a customer in. Pure."""
    return language(next((row.value for row in attributes if row.name.lower() in LANGUAGE), ""), rules)


class Asking:
    """Asks those whose time has come."""

    def __init__(self, reader: Reader, writer: Writer, policy: Policy, secret: bytes, public_url: str) -> None:
        self._reader = reader
        self._writer = writer
        self._policy = policy
        self._secret = secret
        self._public_url = public_url
        self._token = secrets.token_hex(8)

    async def ask_due(self) -> int:
        """Deal with the surveys that are due, and with those that ran out, AT_A_TIME of each; how many were asked. Raises StorageBusy."""
        now, asked = self._writer.clock(), 0
        rows = await self._reader.all(due(now))
        over = await self._reader.all(ended(now))
        # Two hubs at once could ask one customer about two tickets; what is done in a turn is harmless when done twice otherwise.
        if not (rows or over) or not await self._writer.run(TakeTurn("surveys", self._token, TURN)):
            return 0
        try:
            for row in rows:
                asked += await self._ask(row) == "ask"
            if over:
                await self._writer.run(Expire(tuple(row.id for row in over)))
        finally:
            with contextlib.suppress(StorageBusy):
                await self._writer.run(GiveTurn("surveys", self._token))
        return asked

    async def _ask(self, row: Row[Any]) -> str:
        # Read again for each: the one before may have been the same customer's.
        fresh = await self._reader.first(due(self._writer.clock(), 1).where(_survey.c.id == row.id))
        if fresh is None:
            return ""
        known = await self._reader.all(preview.attributes([fresh.conversation_id]))
        rules = self._policy.survey
        seen = Seen(
            answered=bool(fresh.answered),
            by_person=bool(fresh.by_person),
            doubtful=bool(fresh.doubtful),
            last_asked_at=fresh.last_asked_at,
            heard_at=fresh.heard_at,
            zone=zone_of(known, rules),
        )
        speaks = language_of(known, rules)
        address = f"{self._public_url}/s/{token(self._secret, Link(fresh.id, fresh.ticket_id, speaks))}"
        return await self._writer.run(Ask(fresh.id, fresh.ticket_id, message(fresh.kind, speaks, address, rules), seen))
