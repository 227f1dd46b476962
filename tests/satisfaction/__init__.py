"""What the tests of the survey share: a store whose policy asks, and the loop that does it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hub import reactions
from hub.agents import CreateAgent
from hub.conversations.commands import Reply, Resolve
from hub.policy import ChannelRule, Policy
from hub.satisfaction.asking import Asking
from hub.satisfaction.surveys import on_resolved_survey
from hub.storage.reader import Reader
from hub.survey_policy import SurveyPolicy
from tests.storage import POLICY, SMS, WHATSAPP, Store, heard, message, open_store, phone

ADA, BEN = "+12025550123", "+12025550199"
AGENT = 1
SECRET = b"s" * 32
MINUTE, HOUR, DAY = 60, 3_600, 86_400  # seconds
NOON = 1_800_014_400_000_000  # 2027-01-15 12:00 UTC, a Friday


def policy(**rules: Any) -> Policy:
    """The tests' policy with a survey, and a channel that takes what we write for a day after the customer wrote."""
    whatsapp = ChannelRule(WHATSAPP, "whatsapp", "WhatsApp", "default", ("phone",), False, False, window=DAY * 1_000_000)
    return replace(POLICY, channels={**POLICY.channels, WHATSAPP: whatsapp}, survey=SurveyPolicy(**{"kind": "csat", **rules}))


def react(facts: Any, event: Any) -> None:
    reactions.react(facts, event)
    if event.type == "ticket.resolved" and on_resolved_survey not in reactions.REACTIONS["ticket.resolved"]:
        on_resolved_survey(facts, event)


class Asked:
    """A store, the loop over it, and what both came to."""

    def __init__(self, store: Store, reader: Reader, rules: Policy) -> None:
        self.store = store
        self.loop = Asking(reader, store.writer, rules, SECRET, "https://hub.example")

    async def solved(self, value: str = ADA, channel: int = SMS, text: str = "Where is my parcel?") -> int:
        """Somebody asked, an agent answered and resolved it: the ticket's number."""
        await self.store.run(heard(channel, message(phone(value), text=text)))
        ticket_id = int(self.store.value("SELECT max(id) FROM ticket"))
        await self.store.run(Reply(ticket_id, AGENT, "It comes tomorrow.", f"answer-{ticket_id}-{self.store.clock.at}"))
        await self.store.run(Resolve(ticket_id, AGENT))
        return ticket_id

    async def after(self, seconds: float) -> int:
        """Let time pass and the loop look; how many it asked."""
        self.store.clock.advance(seconds)
        return await self.loop.ask_due()

    def rows(self) -> list[Any]:
        return self.store.rows("SELECT * FROM survey ORDER BY id")

    def stands(self) -> list[tuple[str, str]]:
        return [(row["state"], row["why"]) for row in self.rows()]

    def said(self) -> list[str]:
        return [row["text"] for row in self.store.rows("SELECT text FROM message WHERE automatic = 'survey' ORDER BY id")]


@asynccontextmanager
async def asking(directory: Path, engine: str = "sqlite", at: int = NOON, **rules: Any) -> AsyncIterator[Asked]:
    own = policy(**rules)
    async with open_store(directory, own, react, engine=engine) as store:
        store.clock.at = at
        await store.run(CreateAgent("one@shop.example", "One", "admin", "x"))
        reader = store.reader()
        try:
            yield Asked(store, reader, own)
        finally:
            await reader.close()
