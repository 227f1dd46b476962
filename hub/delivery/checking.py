"""A message's own signature, checked after the commit: what nobody else has judged, the hub looks up itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy import BindParameter, bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from hub.contract import Checked, Checks, Lookup, Request, TryLater, Unparseable
from hub.delivery.attempt import preparing
from hub.delivery.carriers import BoundChannel
from hub.delivery.retry import SCHEDULES
from hub.delivery.works import Finish, finish
from hub.storage.blobs import Blobs
from hub.storage.reader import Reader
from hub.storage.records import Delivery
from hub.storage.tables import metadata
from hub.storage.writer import StorageBusy

_message = metadata.tables["message"]
_raw = metadata.tables["raw_request"]
_ID: BindParameter[Any] = bindparam("id")
RAW = (
    select(
        *(_message.c.mail_id, _message.c.created_at),
        *(_raw.c.method, _raw.c.url, _raw.c.headers, _raw.c.body, _raw.c.body_sha256),
    )
    .join_from(_message, _raw, _message.c.raw_id == _raw.c.id)
    .where(_message.c.id == _ID)
)

Prove = Callable[[int, Checked], Awaitable[None]]


class CheckCarrier:
    """Has a message's signature checked by its channel, and proves its sender where the signature holds. What was found stands in the
    delivery's `ref`.

    Nothing leaves but questions to the DNS, so a try that failed or was cut off is simply made again, and doing it twice changes
    nothing. A key that cannot be looked up is asked for again for half a day to a day; then the message stays unproven.
    """

    def __init__(self, channels: Mapping[str, BoundChannel], reader: Reader, blobs: Blobs, lookup: Lookup, prove: Prove) -> None:
        """`prove` is told a message's id and what proves its sender; it may raise TryLater or StorageBusy."""
        self._channels = channels
        self._reader = reader
        self._blobs = blobs
        self._lookup = lookup
        self._prove = prove

    async def carry(self, delivery: Delivery) -> Finish:
        with preparing():
            try:
                found = await self._check(delivery)
            except (StorageBusy, SQLAlchemyError) as error:
                raise TryLater("The message could not be read or changed in the database. It is checked again.") from error
            except TryLater as error:
                if delivery.attempt < SCHEDULES["check"].attempts:
                    raise
                found = f"{error} Given up after {delivery.attempt} tries: the message stays unproven."
        return finish(delivery, ref=found)

    async def _check(self, delivery: Delivery) -> str:
        bound = self._channels.get(delivery.target)
        if bound is None or not isinstance(bound.connector, Checks):
            return f"The channel {delivery.target} is no longer configured, or checks nothing any more. Not checked."
        row = await self._reader.first(RAW, {"id": delivery.subject_id})
        if row is None:
            return "The message, or the request it came with, is gone (erased). Not checked."
        try:
            body = row.body if row.body is not None else await asyncio.to_thread(self._blobs.get, row.body_sha256)
        except (OSError, ValueError):
            return "The request it came with is gone from the file store. Not checked."
        request = Request(row.method, row.url, json.loads(row.headers), body)
        try:
            checked = await bound.connector.check(request, row.created_at / 1_000_000, self._lookup)
        except Unparseable as error:
            return f"The request it came with can no longer be understood ({error}). Not checked."
        found = next((one for one in checked if (one.said.message_id or None) == row.mail_id), None)
        if found is None:
            return "The request it came with no longer says this. Not checked."
        if found.proved is not None:
            await self._prove(delivery.subject_id, found)
        return found.why
