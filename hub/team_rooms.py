"""The contract with a team's room in a chat tool: what it shows, and what may be done for agents from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from pydantic import BaseModel

from hub.contract import Answer, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something a team should look at, for its room. `ended`: it is over."""

    title: str
    text: str
    url: str
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketCard:
    """What a team's room shows of a ticket; rebuilt from the present state on every update."""

    ticket_id: int
    version: int
    status: str  # open | pending | snoozed | resolved
    customer: str
    channel: str  # label of the channel last written on
    subject: str
    preview: str
    assignee: str  # empty: nobody
    held: bool
    url: str


class Desk(Protocol):
    """What may act for agents from outside the web inbox (Slack) through. Each call is checked and recorded as that agent's."""

    async def agent_for(self, room: str, user: str, email: str) -> int | None:
        """The agent behind a room's user, or None."""
        ...

    async def claim(self, ticket_id: int, agent_id: int) -> str:
        """Assign the ticket to the agent; returns what happened, in plain words."""
        ...

    async def resolve(self, ticket_id: int, agent_id: int) -> str:
        """Resolve the ticket; returns what happened, in plain words."""
        ...


class Room(Protocol):
    """The agents' room in a chat tool: one post a ticket, kept up to date, with buttons."""

    Settings: ClassVar[type[BaseModel]]

    async def show(self, card: TicketCard, ref: str) -> str:
        """Post the card, or update the post named by `ref`; returns the post's reference. Raises Refused, TryLater, Unknown."""
        ...

    async def alert(self, alert: Alert, ref: str) -> str:
        """Post an alert, or update the post named by `ref`; returns the post's reference. Raises Refused, TryLater, Unknown."""
        ...

    async def handle(self, request: Request, desk: Desk) -> Answer:
        """Answer an interaction (verified by the room itself)."""
        ...

    async def close(self) -> None: ...

    def is_sandbox(self) -> bool: ...
