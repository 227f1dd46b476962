"""What customers wrote while nobody answered the webhooks: listed at the provider and taken in by the one doorway.

Some providers never repeat what was not delivered. So at start, and every few minutes after that, their own list is read from where it
was read last, some overlap included, and what is missing is ingested. What came by webhook has the same key and is stored once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from sqlalchemy import select

from hub.contract import Channel, Http, InboundMessage, Place, Recovers, Refused, TryLater
from hub.conversations.ingest import Ingest, Outcome, Raw
from hub.conversations.intake import TokenNames, prepare
from hub.conversations.quarantine import UNPARSEABLE, Keep
from hub.customers.resolution import NoSender
from hub.policy import SECOND, ChannelRule
from hub.storage.blobs import Blobs
from hub.storage.facts import Facts, Needs
from hub.storage.reader import Reader
from hub.storage.records import Setting
from hub.storage.tables import metadata
from hub.storage.turns import GiveTurn, TakeTurn
from hub.storage.writer import StorageBusy, Writer

log = structlog.get_logger("hub.recovery")

EVERY = 300.0  # seconds from one look to the next
OVERLAP = 600  # seconds looked at again: what the provider listed late, and clocks that differ
AT_ONCE = 50  # messages handed to the writer together
LISTED = "listed"  # a raw request that no webhook brought
LOOK_BACK = 7 * 86_400  # seconds: who was away for longer asks for more by hand (`hub channels recover`)
TURN = 120.0  # seconds one page may take to be read and stored, before another process may think that this one is gone
FIRST_RETRY, LONGEST_RETRY = 10.0, EVERY  # seconds after a failure, doubling
ANOTHERS = 30.0  # seconds until asking again where another process looks, or has just looked

_setting = metadata.tables["setting"].c
_dedupe = metadata.tables["dedupe"].c
_message = metadata.tables["message"].c


class BoundChannel(Protocol):
    rule: ChannelRule
    place: Place
    connector: Channel


@dataclass(frozen=True, slots=True)
class Recovered:
    """What one look at a provider's list found."""

    listed: int
    stored: int  # of them new to us


@dataclass(frozen=True, slots=True)
class NoteRecovered:
    """All that a provider received up to this time (unix seconds) is stored."""

    channel: str
    until: int

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("setting", "key", watermark_key(self.channel)))

    def decide(self, facts: Facts) -> None:
        known = facts.found[("setting", "key", watermark_key(self.channel))]
        if known:
            known[0].value = str(self.until)
            facts.change(known[0])
        else:
            facts.insert(Setting(watermark_key(self.channel), str(self.until)))


def watermark_key(channel: str) -> str:
    """The setting that holds up to when a channel's list has been read, in unix seconds."""
    return f"recovery.{channel}"


def begin(watermark: int | None, newest: int | None, now: int) -> int | None:
    """From when on to ask (unix seconds), or None: not at all, since what came before the hub is none of its business. Pure.

    `newest` is when the channel last received anything, for a hub that received before it kept watermarks. A watermark of the
    future tells nothing (a clock ran ahead): then everything within the limit is looked at again.
    """
    last = watermark if watermark is not None else newest
    if last is None:
        return None
    return max(last - OVERLAP, now - LOOK_BACK) if last <= now + OVERLAP else now - LOOK_BACK


class Recovery:
    """Reads the lists of all channels whose provider keeps one."""

    def __init__(
        self,
        channels: Mapping[str, BoundChannel],
        reader: Reader,
        writer: Writer,
        blobs: Blobs,
        http: Http,
        token_names: TokenNames,
    ) -> None:
        self._channels = channels
        self._reader = reader
        self._writer = writer
        self._blobs = blobs
        self._http = http
        self._token_names = token_names
        self._token = secrets.token_hex(8)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Look now and every five minutes, each channel on its own: one provider's trouble delays no other."""
        self._tasks = [
            asyncio.create_task(self._keep_looking(name), name=f"recovery-{name}")
            for name, bound in self._channels.items()
            if isinstance(bound.connector, Recovers)
        ]

    async def stop(self) -> None:
        """Stop at once: what is not noted as read is read again by the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _keep_looking(self, name: str) -> None:
        retry, fresh = FIRST_RETRY, 0.0  # at start we look in any case: until now nobody may have answered
        while True:
            wait = EVERY
            try:
                found = await self.look(name, fresh)
                retry, fresh = FIRST_RETRY, EVERY - ANOTHERS
                if found is None:
                    wait = ANOTHERS
                elif found.stored:
                    log.info("messages recovered that no webhook brought", channel=name, stored=found.stored, listed=found.listed)
            except TryLater as error:
                wait, retry = min(max(retry, error.retry_after or 0), LONGEST_RETRY), min(retry * 2, LONGEST_RETRY)
                log.warning("missed messages not looked for; will try again", channel=name, error=str(error), seconds=wait)
            except Refused as error:
                log.error("missed messages cannot be looked for", channel=name, error=str(error))
            except (StorageBusy, OSError) as error:
                wait, retry = retry, min(retry * 2, LONGEST_RETRY)
                log.warning("missed messages not stored; will try again", channel=name, error=str(error))
            except Exception:
                log.exception("looking for missed messages failed", channel=name)
            await asyncio.sleep(wait)

    async def look(self, name: str, fresh: float = 0) -> Recovered | None:
        """Take in what one channel has missed since it was looked at last.

        None where that was less than `fresh` seconds ago, where nothing is to be asked, or where it is another process's turn.
        Raises TryLater, Refused, StorageBusy or OSError.
        """
        now = self._now()
        watermark = await self._reader.value(select(_setting.value).where(_setting.key == watermark_key(name)))
        if watermark is not None and 0 <= now - int(watermark) < fresh:
            return None
        newest = None if watermark is not None else await self._newest(self._channels[name].rule.id)
        since = begin(None if watermark is None else int(watermark), newest, now)
        if since is None:
            await self._writer.run(NoteRecovered(name, now))
            return None
        if watermark is not None and int(watermark) < now - LOOK_BACK:
            log.warning("away for longer than is looked back; `hub channels recover` takes an earlier time", channel=name)
        return await self.recover(name, since, now, note=True)

    async def recover(self, name: str, since: int, until: int, *, note: bool = False) -> Recovered | None:
        """Take in what one channel received between two times (unix seconds); `note` that all up to `until` is read, once it is stored.

        None where it is another process's turn. Raises TryLater, Refused, StorageBusy or OSError.
        """
        bound = self._channels.get(name)
        if bound is None:
            raise Refused(f"There is no channel {name}. One of: {', '.join(sorted(self._channels))}.")
        if not isinstance(bound.connector, Recovers):
            raise Refused(f"{name} has no provider that lists what was written. `hub check` says how long it may be away.")
        turn = f"recovery.{name}"
        if not await self._writer.run(TakeTurn(turn, self._token, TURN)):
            return None
        listed = stored = 0
        try:
            async for page in bound.connector.received(since, until + OVERLAP, self._http):
                listed += len(page)
                stored += await self._take_in(bound, page)
                await self._writer.run(TakeTurn(turn, self._token, TURN))
            if note:
                await self._writer.run(NoteRecovered(name, until))
        finally:
            with contextlib.suppress(StorageBusy):
                await self._writer.run(GiveTurn(turn, self._token))
        return Recovered(listed, stored)

    async def _take_in(self, bound: BoundChannel, page: Sequence[InboundMessage]) -> int:
        """Store what is missing of one page, in its order; each message by itself, so that one that cannot be stored keeps no other
        from it."""
        keys = [said.provider_key for said in page]
        rows = await self._reader.all(
            select(_dedupe.provider_key).where(_dedupe.channel_id == bound.rule.id, _dedupe.provider_key.in_(keys))
        )
        known = {row.provider_key for row in rows}
        missing = [said for said in page if said.provider_key not in known]
        stored = 0
        for at in range(0, len(missing), AT_ONCE):
            # Handed over together they commit together, and in this order.
            together = missing[at : at + AT_ONCE]
            outcomes = await asyncio.gather(*(self._store(bound, said) for said in together), return_exceptions=True)
            for said, outcome in zip(together, outcomes, strict=True):
                if isinstance(outcome, Outcome):
                    stored += outcome.stored
                elif isinstance(outcome, (StorageBusy, OSError)) or not isinstance(outcome, Exception):
                    raise outcome
                else:
                    await self._set_aside(bound, said, outcome)
        return stored

    async def _store(self, bound: BoundChannel, said: InboundMessage) -> Outcome:
        entry = await prepare(said, True, self._writer.policy, self._blobs, self._token_names)
        raw = Raw(self._writer.clock(), LISTED, "POST", _url(bound), "{}", said.original)
        return await self._writer.run(Ingest(bound.rule.id, (entry,), raw))

    async def _set_aside(self, bound: BoundChannel, said: InboundMessage, error: Exception) -> None:
        """Kept like a webhook that could not be used: shown, and replayable after a fix."""
        if isinstance(error, NoSender):
            reason = str(error)
        else:
            log.error("a listed message could not be stored", channel=bound.rule.name, error=type(error).__name__)
            reason = f"Our own code failed ({type(error).__name__}). Replay after a fix."
        digest = hashlib.sha256(f"{LISTED}:{said.provider_key}".encode()).hexdigest()
        kept = Keep(bound.rule.id, UNPARSEABLE, f"Listed by the provider. {reason}", "POST", _url(bound), "{}", said.original, "", digest)
        await self._writer.run(kept)

    async def _newest(self, channel_id: int) -> int | None:
        last = select(_message.created_at).where(_message.channel_id == channel_id, _message.direction == "in")
        at = await self._reader.value(last.order_by(_message.id.desc()).limit(1))
        return None if at is None else int(at) // SECOND

    def _now(self) -> int:
        return self._writer.clock() // SECOND


def _url(bound: BoundChannel) -> str:
    return bound.place.inbound_url
