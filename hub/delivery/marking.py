"""Marketing tools brought to the wanted state, and read back until they show it.

One delivery carries one customer to one tool. What is wanted is read when it is carried, so a crash, a lost answer or a week's outage
needs nothing but that it be carried again. A loop looks at what was told: soon after, then every few hours, for drift.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import groupby
from typing import Any

import structlog
from sqlalchemy import Select, func, select, union
from sqlalchemy.exc import SQLAlchemyError

from hub.contract import Http, NoAnswer, NotSent, Refused, TryLater
from hub.delivery.attempt import preparing
from hub.delivery.owed import MarkAgain
from hub.delivery.works import Finish, finish
from hub.holds.gate import Standing, ask, hits_of, judge, look_up, together
from hub.holds.marks import Key, LetGo, NoteLooked, NoteMarked, NoteWaiting, PutOff, as_wish, key_of, keys_in, which, wish_for
from hub.holds.traits import traits_of
from hub.marketing import MarketingTool, ToolSettings, Wish
from hub.policy import SECOND
from hub.storage.hot import HotReads
from hub.storage.marketing_records import Mark
from hub.storage.reader import Reader
from hub.storage.records import Delivery
from hub.storage.tables import metadata
from hub.storage.turns import GiveTurn, TakeTurn
from hub.storage.writer import StorageBusy, Writer

log = structlog.get_logger("hub.marking")

AT_ONCE = 50  # wishes of one call
REFUSED_WAIT = 300.0  # seconds until a tool that refuses our key is asked again
POLL = 1.0
TURN = 30.0
LOOKS_AT_ONCE = 200  # marks read back in one round, of one tool

_mark = metadata.tables["mark"].c
_columns = [metadata.tables["mark"].c[field.name] for field in fields(Mark)]


def _row(row: Any) -> Mark:
    return Mark(*row)


def _elsewhere(destination: str, found_by: Any) -> Select[Any]:
    """Marks in one tool, found by something else than the tool: bare, an engine would read all that it was ever told."""
    return select(*_columns).where(found_by, func.coalesce(_mark.destination, "") == destination)


class Tools:
    """The configured marketing tools, with the settings that say what of a hold concerns each."""

    def __init__(self, tools: Mapping[str, tuple[MarketingTool, ToolSettings]]) -> None:
        self._tools = tools

    def __iter__(self) -> Any:
        return iter(self._tools)

    def get(self, name: str) -> MarketingTool | None:
        found = self._tools.get(name)
        return found[0] if found is not None else None

    def settings(self, name: str) -> ToolSettings:
        return self._tools[name][1]


async def standings(keys: Sequence[Key], settings: ToolSettings, hot: HotReads, now: int) -> dict[Key, Standing]:
    """How identifiers stand now, by the gate's own judgement, as far as it concerns a tool. Raises StorageBusy."""
    asked = {key: ask(*key) for key in keys}
    hits = await look_up(list(asked.values()), hot)
    brands = settings.brands or ("",)
    return {
        key: together([judge(hits_of(one, hits), now, brand=brand, channel=settings.channel) for brand in brands])
        for key, one in asked.items()
    }


class MarkCarrier:
    """Carries one customer's state to one marketing tool."""

    def __init__(self, tools: Tools, reader: Reader, hot: HotReads, writer: Writer, http: Http) -> None:
        self._tools = tools
        self._reader = reader
        self._hot = hot
        self._writer = writer
        self._http = http

    async def carry(self, delivery: Delivery) -> Finish:
        with preparing():
            tool = self._tools.get(delivery.target)
            if tool is None:
                raise Refused(f"The marketing tool {delivery.target} is no longer configured.")
            payload = json.loads(delivery.payload)
            try:
                wishes = await self._wishes(tool, delivery, keys_in(payload, tool.kinds))
            except (StorageBusy, SQLAlchemyError) as error:
                raise TryLater("How the customer stands could not be read in the database. Nothing was told yet.") from error
        for start in range(0, len(wishes), AT_ONCE):
            await self._tell(tool, delivery, wishes[start : start + AT_ONCE], payload["at"])
        return finish(delivery)

    async def _wishes(self, tool: MarketingTool, delivery: Delivery, named: Sequence[Key]) -> list[Wish]:
        marks = await self._marks(
            _elsewhere(delivery.target, _mark.customer_id == delivery.subject_id),
            select(*_columns).where(_mark.destination == delivery.target, _mark.value.in_([value for _, value, _ in named])),
        )
        # Several identifiers may be one profile there, of two customers even: it is held while any of them is.
        profiles = {mark.profile for mark in marks.values() if mark.profile}
        if profiles:
            marks |= await self._marks(_elsewhere(delivery.target, _mark.profile.in_(sorted(profiles))))
        keys = sorted(
            set(named) | {key for key, mark in marks.items() if mark.customer_id == delivery.subject_id or mark.profile in profiles}
        )
        now = self._writer.clock()
        wanted = await standings(keys, self._tools.settings(delivery.target), self._hot, now)
        for profile in profiles:
            those = [key for key in keys if key in marks and marks[key].profile == profile]
            wanted |= dict.fromkeys(those, together([wanted[key] for key in those]))
        over = tuple(
            which(m) for key, m in marks.items() if key in wanted and not wanted[key].held and m.accepted_at is None and m.check_at
        )
        if over:
            await self._writer.run(LetGo(over))
        traits = await traits_of([key for key in keys if wanted[key].held or key in marks], self._reader)
        wishes = [wish_for(key, wanted[key], traits.get(key, {}), marks.get(key)) for key in keys]
        # Later is newer, whichever customer it is about and whatever backup was restored: what is wanted was read at this moment.
        return [replace(wish, version=now // 1_000) for wish in wishes if wish is not None]

    async def _marks(self, *asked: Select[Any]) -> dict[Key, Mark]:
        # A question each, so that each is looked up by its own index.
        rows = await self._reader.all(union(*asked) if len(asked) > 1 else asked[0])
        return {key_of(mark): mark for mark in (_row(row) for row in rows)}

    async def _tell(self, tool: MarketingTool, delivery: Delivery, wishes: Sequence[Wish], asked_at: int) -> None:
        told = (delivery.target, delivery.subject_id, asked_at)
        # Should this process die once the tool has taken it, the release must still be told.
        first = tuple(wish for wish in wishes if wish.held and not wish.profile)
        if first:
            await self._writer.run(NoteWaiting(*told, first, perhaps=True))
        try:
            results = await tool.mark(wishes, self._http, self._writer.clock() / SECOND)
        except Refused as error:
            # The tool refuses our key, most likely: mended by a person, and not a reason to forget whom it must be told of.
            await self._writer.run(NoteWaiting(*told, tuple(wishes), str(error), failed=True))
            raise TryLater(str(error), REFUSED_WAIT) from error
        except (TryLater, NotSent, NoAnswer) as error:
            await self._writer.run(NoteWaiting(*told, tuple(wishes), str(error)))
            raise
        settles = int(tool.settles * SECOND) if tool.reads_back else None
        await self._writer.run(NoteMarked(*told, tuple(zip(wishes, results, strict=True)), settles))


class ReadingBack:
    """Looks at what tools were told when that is due: confirmed, effective, drifted, or to be told once more."""

    def __init__(self, tools: Tools, reader: Reader, writer: Writer, http: Http) -> None:
        self._tools = tools
        self._reader = reader
        self._writer = writer
        self._http = http
        self._token = secrets.token_hex(8)
        self._not_before: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look from now on, where there is a tool."""
        if list(self._tools):
            self._task = asyncio.create_task(self._keep_looking(), name="reading back")

    async def stop(self) -> None:
        """Stop at once: looking changes nothing in a tool."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _keep_looking(self) -> None:
        while True:
            try:
                await self.look()
            except StorageBusy as error:
                log.warning("nothing read back; will look again", error=str(error))
            except Exception:
                log.exception("reading marketing tools back failed")
            await asyncio.sleep(POLL)

    async def look(self) -> int:
        """Look at everything that is due; how many marks. Raises StorageBusy."""
        now = self._writer.clock()
        names = [name for name in self._tools if self._not_before.get(name, 0) <= now]
        rows = await self._reader.all(
            select(*_columns)
            # Not by the index of destinations, where everybody stands: by what is due.
            .where(_mark.check_at <= now, func.coalesce(_mark.destination, "").in_(names))
            .order_by(_mark.check_at)
            .limit(LOOKS_AT_ONCE)
        )
        if not rows or not await self._writer.run(TakeTurn("reading back", self._token, TURN)):
            return 0
        try:
            marks = sorted((_row(row) for row in rows), key=lambda mark: mark.destination)
            looks = [self._look(name, list(due)) for name, due in groupby(marks, key=lambda mark: mark.destination)]
            return sum(await asyncio.gather(*looks))
        finally:
            await self._writer.run(GiveTurn("reading back", self._token))

    async def _look(self, name: str, marks: list[Mark]) -> int:
        tool = self._tools.get(name)
        if tool is None:
            return 0
        to_tell = [mark for mark in marks if mark.state in ("pending", "failed", "absent")]
        if to_tell:
            await self._writer.run(PutOff(tuple(which(mark) for mark in to_tell)))
            await self._writer.run(MarkAgain(name, tuple(sorted({mark.customer_id for mark in to_tell}))))
        to_read = [mark for mark in marks if mark not in to_tell]
        done = len(to_tell)
        for start in range(0, len(to_read), AT_ONCE):
            some = to_read[start : start + AT_ONCE]
            try:
                seen = await tool.read([as_wish(mark) for mark in some], self._http, self._writer.clock() / SECOND)
            except (Refused, TryLater, NotSent, NoAnswer) as error:
                wait = getattr(error, "retry_after", None) or (REFUSED_WAIT if isinstance(error, Refused) else 30.0)
                self._not_before[name] = self._writer.clock() + int(wait * SECOND)
                log.warning("a marketing tool could not be read back; will look again", tool=name, error=str(error))
                return done
            except Exception:
                # An answer nobody expected must not keep us from looking at the others, nor have the same marks read every second.
                self._not_before[name] = self._writer.clock() + int(REFUSED_WAIT * SECOND)
                log.exception("a marketing tool could not be read back", tool=name)
                return done
            await self._writer.run(NoteLooked(tuple((which(mark), mark.said, one) for mark, one in zip(some, seen, strict=True))))
            done += len(some)
        return done
