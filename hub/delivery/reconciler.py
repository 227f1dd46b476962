"""Answers of unknown fate, looked for at the provider.

An answer whose sending was cut off may have gone or not. For a quarter of an hour the provider's own list is asked: exactly one
message there that says the same to the same address at that time, and is no other of ours, is that answer. Anything less certain stays
`unknown` and says why; it is never sent again by itself (law 9).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import structlog
from sqlalchemy import select

from hub.contract import Channel, DeliveryUpdate, Finds, Http, OutboundAttachment, OutboundMessage, Refused, TryLater
from hub.delivery.states import report
from hub.policy import SECOND, Policy
from hub.storage.facts import Facts, Needs
from hub.storage.reader import Reader
from hub.storage.tables import metadata
from hub.storage.turns import GiveTurn, TakeTurn
from hub.storage.writer import StorageBusy, Writer

log = structlog.get_logger("hub.reconciler")

# Seconds after an answer became unknown at which it is looked for. Twilio's list shows a message seconds after it was taken.
LOOKS = (10, 30, 60, 120, 300, 600, 900)
CLOCKS_DIFFER = 120  # seconds around the time of sending that are looked at too
POLL = 5.0  # seconds between looks at what has become due
AT_ONCE = 4  # questions under way to one provider
LONGEST_WAIT = 300.0  # seconds until a provider that did not answer is asked again
TURN = 60.0

NOT_FOUND = (
    "It was looked for at the provider and is not there, so most likely it has not gone. Send it again if the customer should have it."
)
AMBIGUOUS = (
    "It was looked for at the provider: several messages there say the same, and nobody can tell which one it is. "
    "Ask the customer, or send it again yourself."
)

_delivery = metadata.tables["delivery"].c
_message = metadata.tables["message"].c
_identifier = metadata.tables["identifier"].c
_attachment = metadata.tables["attachment"].c


class BoundChannel(Protocol):
    connector: Channel


def next_look(noted: int, looked: int | None) -> int | None:
    """When to look next for an answer that became unknown at `noted`; None: the last look is done. Microseconds, pure.

    `looked` is when the latest look was answered, None before the first. Looks that were missed meanwhile are made up for by one.
    """
    since = -1 if looked is None else looked - noted
    return next((noted + after * SECOND for after in LOOKS if after * SECOND > since), None)


def sent_between(created_at: int, lease_until: int, noted: int, policy: Policy) -> tuple[float, float]:
    """Between when and when (unix seconds) an attempt of unknown fate can have reached the provider. Pure.

    It began when its lease did and ended before that ran out. Without a lease (restored from a backup, after which the old hub may have
    sent it) it may have gone at any time.
    """
    leased = lease_until > created_at
    began = max(created_at, lease_until - policy.delivery_lease) if leased else created_at
    ended = max(began, min(noted, lease_until) if leased else noted)
    return began / SECOND - CLOCKS_DIFFER, ended / SECOND + CLOCKS_DIFFER


@dataclass(frozen=True, slots=True)
class Looked:
    """What the provider's list says of one answer of unknown fate, judged with what else is ours. `last`: nobody looks again.

    `said` are the messages there that may be it; `rivals` the deliveries of ours of unknown fate that say the same to the same address.
    """

    delivery_id: int
    said: tuple[DeliveryUpdate, ...]
    rivals: tuple[int, ...]
    last: bool

    def needs(self, needs: Needs) -> None:
        needs.deliveries.update((self.delivery_id, *self.rivals))
        needs.provider_ids.update(one.provider_message_id for one in self.said)

    def decide(self, facts: Facts) -> Literal["found", "missing", "ambiguous", "settled"]:
        """`settled`: it is not unknown any more, by a report or by a person."""
        row = facts.deliveries.get(self.delivery_id)
        message = facts.messages.get(row.subject_id) if row is not None else None
        if row is None or message is None or row.state != "unknown":
            return "settled"
        free = [one for one in self.said if _unclaimed(one.provider_message_id, message.id, facts)]
        contested = any(
            (rival := facts.deliveries.get(other)) is not None and rival.state in ("unknown", "sending") for other in self.rivals
        )
        if len(free) == 1 and not contested:
            report(message, row, free[0], facts)
            return "found"
        if self.last:
            self._give_up(AMBIGUOUS if free else NOT_FOUND, facts)
        return "ambiguous" if free else "missing"

    def _give_up(self, text: str, facts: Facts) -> None:
        row = facts.deliveries[self.delivery_id]
        message = facts.messages[row.subject_id]
        row.done_at = facts.now  # nobody looks for it any more
        row.error = text
        facts.change(row)
        if message.status == "unknown":
            message.error = text
            facts.change(message)
            facts.emit("message.updated", customer_id=message.conversation_id, ticket_id=message.ticket_id, message_id=message.id)


def _unclaimed(provider_id: str, message_id: int, facts: Facts) -> bool:
    # What an earlier unit of this batch claimed stands in its message, not yet in the look-up by provider's id.
    owner = facts.by_provider_id.get(provider_id)
    if owner is not None and owner.id != message_id:
        return False
    return all(other.provider_id != provider_id or other.id == message_id for other in facts.messages.values())


class Reconciler:
    """Looks for answers of unknown fate on every channel whose provider can be asked."""

    def __init__(self, channels: Mapping[str, BoundChannel], reader: Reader, writer: Writer, http: Http, policy: Policy) -> None:
        self._finders: dict[str, Finds] = {name: bound.connector for name, bound in channels.items() if isinstance(bound.connector, Finds)}
        self._reader = reader
        self._writer = writer
        self._http = http
        self._policy = policy
        self._token = secrets.token_hex(8)
        # Delivery -> when its latest look was answered, and when the next one may be at the earliest. A restart forgets it and looks again.
        self._looked: dict[int, int] = {}
        self._not_before: dict[int, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look from now on."""
        if self._finders:
            self._task = asyncio.create_task(self._keep_looking(), name="reconciler")

    async def stop(self) -> None:
        """Stop at once: looking changes nothing at the provider."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _keep_looking(self) -> None:
        while True:
            try:
                await self.look()
            except StorageBusy as error:
                log.warning("nothing looked for; will look again", error=str(error))
            except Exception:
                log.exception("looking for answers of unknown fate failed")
            await asyncio.sleep(POLL)

    async def look(self) -> int:
        """Look for everything that is due; how many were settled. Raises StorageBusy."""
        rows = await self._unknown()
        ids = {row.id for row in rows}
        self._looked = {id_: at for id_, at in self._looked.items() if id_ in ids}
        self._not_before = {id_: at for id_, at in self._not_before.items() if id_ in ids}
        now = self._writer.clock()
        due = [row for row in rows if self._due(row, now)]
        if not due or not await self._writer.run(TakeTurn("reconciler", self._token, TURN)):
            return 0
        try:
            hands = {name: asyncio.Semaphore(AT_ONCE) for name in self._finders}
            return sum(await asyncio.gather(*(self._look_for(row, hands[row.target]) for row in due)))
        finally:
            with contextlib.suppress(StorageBusy):
                await self._writer.run(GiveTurn("reconciler", self._token))

    def _due(self, row: Any, now: int) -> bool:
        if now < self._not_before.get(row.id, 0):
            return False
        at = next_look(self._noted(row), self._looked.get(row.id))
        return at is None or at <= now

    def _noted(self, row: Any) -> int:
        """When it became unknown: its lane is shut for a stated time from then on."""
        return int(row.due_at) - self._policy.unknown_blocks

    async def _unknown(self) -> Sequence[Any]:
        """Answers of unknown fate that are still looked for, with what they say."""
        table = metadata.tables["delivery"]
        return await self._reader.all(
            select(
                *(_delivery.id, _delivery.target, _delivery.subject_id, _delivery.created_at, _delivery.due_at, _delivery.lease_until),
                *(_message.text, _message.identifier_id, _identifier.address),
            )
            .join_from(table, metadata.tables["message"], _message.id == _delivery.subject_id)
            .join(metadata.tables["identifier"], _identifier.id == _message.identifier_id)
            .where(_delivery.kind == "reply", _delivery.state == "unknown", _delivery.done_at.is_(None))
            .where(_delivery.target.in_(list(self._finders)))
            .order_by(_delivery.id)
            .limit(1_000)
        )

    async def _look_for(self, row: Any, hand: asyncio.Semaphore) -> int:
        finder = self._finders[row.target]
        noted = self._noted(row)
        began, ended = sent_between(row.created_at, row.lease_until, noted, self._policy)
        try:
            async with hand:
                files = await self._reader.all(
                    select(_attachment.name, _attachment.content_type, _attachment.size).where(_attachment.message_id == row.subject_id)
                )
                attachments = tuple(OutboundAttachment(one.name, one.content_type, one.size, bytes, "") for one in files)
                asked = OutboundMessage(delivery_id=row.id, to=row.address, text=row.text, attachments=attachments)
                said = await finder.find(asked, began, ended, self._http)
        except (TryLater, Refused) as error:
            wait = min(max(getattr(error, "retry_after", None) or LOOKS[1], LOOKS[0]), LONGEST_WAIT)
            self._not_before[row.id] = self._writer.clock() + int(wait * SECOND)
            log.warning("not looked for at the provider; will try again", delivery=row.id, channel=row.target, error=str(error))
            return 0
        looked = self._writer.clock()
        self._looked[row.id] = looked
        rivals = await self._rivals(row, began, ended)
        last = next_look(noted, looked) is None
        outcome = await self._writer.run(Looked(row.id, tuple(said), rivals, last))
        log.info("looked for an answer of unknown fate", delivery=row.id, channel=row.target, outcome=outcome, last=last)
        return outcome == "found"

    async def _rivals(self, row: Any, began: float, ended: float) -> tuple[int, ...]:
        """Other answers of unknown fate (or just being sent) with the same text to the same address, tried at about that time."""
        others = await self._reader.all(
            select(_delivery.id, _delivery.state, _delivery.created_at, _delivery.due_at, _delivery.lease_until)
            .join_from(metadata.tables["delivery"], metadata.tables["message"], _message.id == _delivery.subject_id)
            .where(_delivery.kind == "reply", _delivery.state.in_(["unknown", "sending"]), _delivery.target == row.target)
            .where(_delivery.id != row.id, _message.identifier_id == row.identifier_id, _message.text == row.text)
        )
        rivals = []
        for other in others:
            noted = self._noted(other) if other.state == "unknown" else self._writer.clock()
            first, last = sent_between(other.created_at, other.lease_until, noted, self._policy)
            if first <= ended and began <= last:
                rivals.append(int(other.id))
        return tuple(rivals)
