"""What acts for agents from outside the web inbox goes through here (`contract.Desk`): checked, and recorded as that agent's."""

from __future__ import annotations

from sqlalchemy import select

from hub.conversations.commands import Assign, Resolve
from hub.policy import Refusal
from hub.storage.facts import Work
from hub.storage.reader import Reader
from hub.storage.tables import metadata
from hub.storage.writer import StorageBusy, Writer

_agent = metadata.tables["agent"].c


class AgentDesk:
    """`contract.Desk` over the writer and the reader."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def agent_for(self, room: str, user: str, email: str) -> int | None:
        """The active agent with this address. The room vouches for its user's address (law 6 is about customers)."""
        if not email:
            return None
        found = await self._reader.value(select(_agent.id).where(_agent.email == email.strip().lower(), _agent.disabled_at.is_(None)))
        return int(found) if found is not None else None

    async def claim(self, ticket_id: int, agent_id: int) -> str:
        return await self._do(Assign(ticket_id, agent_id, agent_id, only_if_free=True), f"Ticket #{ticket_id} is yours.")

    async def resolve(self, ticket_id: int, agent_id: int) -> str:
        return await self._do(Resolve(ticket_id, agent_id), f"Ticket #{ticket_id} is resolved.")

    async def _do(self, work: Work[None], done: str) -> str:
        try:
            await self._writer.run(work)
        except Refusal as error:
            return str(error)
        except StorageBusy:
            return "The hub is busy; nothing was changed. Try again in a moment."
        return done
