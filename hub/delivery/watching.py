"""What goes on in marketing tools: campaigns that are coming, messages that were sent, and what is wrong with holds. Reads only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from sqlalchemy import and_, case, func, or_, select

from hub.contract import Http, NoAnswer, NotSent, Refused, TryLater
from hub.conversations.wording import LEAK
from hub.delivery.marking import Tools
from hub.holds import campaigns
from hub.holds.alarms import Concern, SetAlarms, ToolFigures, concerns
from hub.holds.campaigns import Held, NoteCampaigns, concern, customers_in, reached
from hub.holds.sends import NoteSends, recognise
from hub.marketing import Campaign, KnowsAudiences, ReportsSends, SendSeen, WatchesCampaigns
from hub.policy import DAY, SECOND
from hub.storage.facts import Facts, Needs
from hub.storage.reader import Reader
from hub.storage.records import Setting
from hub.storage.tables import metadata
from hub.storage.turns import GiveTurn, TakeTurn
from hub.storage.writer import StorageBusy, Writer

log = structlog.get_logger("hub.watching")

CAMPAIGNS_EVERY = 300.0  # seconds
SENDS_EVERY = 60.0
ALARMS_EVERY = 30.0
TURN = 120.0
OVERLAP = 300.0  # seconds that are asked for again: what a tool notes late is not missed, what comes twice is noted once
BACK = 3_600.0  # how far back the first question goes
PAGE = 1_000  # a full page: there is more
ASKED_AUDIENCES = 100  # profiles whose lists and segments are asked for one campaign at the most
COUNTED_EVERY = 600 * SECOND  # microseconds
LEAKS_SHOWN = DAY  # how long a leak stays an alarm
FOUGHT = 3  # times a mark drifted before it is called fought over

_mark = metadata.tables["mark"].c
_customer = metadata.tables["customer"].c
_hold = metadata.tables["hold"].c
_alarm = metadata.tables["alarm"].c
_seen = metadata.tables["campaign_seen"].c
_send = metadata.tables["send_seen"].c
_setting = metadata.tables["setting"].c


class Watch:
    """Looks at every tool that can be asked, one process at a time."""

    def __init__(self, tools: Tools, reader: Reader, writer: Writer, http: Http, *, share: float, minutes: float) -> None:
        self._tools = tools
        self._reader = reader
        self._writer = writer
        self._http = http
        self._share = share
        self._minutes = minutes
        self._token = secrets.token_hex(8)
        self._tasks: list[asyncio.Task[None]] = []
        self._counted: tuple[int, int] | None = None

    async def start(self) -> None:
        """Look from now on."""
        looks: list[tuple[str, float, Callable[[], Coroutine[Any, Any, Any]]]] = [("alarms", ALARMS_EVERY, self.look_for_alarms)]
        if list(self._tools):
            looks += [("campaigns", CAMPAIGNS_EVERY, self.look_at_campaigns), ("sends", SENDS_EVERY, self.look_at_sends)]
        self._tasks = [asyncio.create_task(self._keep(name, every, look), name=f"watching {name}") for name, every, look in looks]

    async def stop(self) -> None:
        """Stop at once: looking changes nothing anywhere."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _keep(self, name: str, every: float, look: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        while True:
            try:
                if await self._writer.run(TakeTurn(f"watching {name}", self._token, TURN)):
                    try:
                        await look()
                    finally:
                        with contextlib.suppress(StorageBusy):
                            await self._writer.run(GiveTurn(f"watching {name}", self._token))
            except StorageBusy as error:
                log.warning("not looked; will look again", at=name, error=str(error))
            except Exception:
                log.exception("watching marketing tools failed", at=name)
            await asyncio.sleep(every)

    # --- campaigns ---

    async def look_at_campaigns(self) -> None:
        """Note what every tool says is coming, and whom it would reach. Raises StorageBusy."""
        for name in self._tools:
            tool: Any = self._tools.get(name)
            if not isinstance(tool, WatchesCampaigns):
                continue
            now = self._writer.clock() / SECOND
            try:
                coming = await tool.campaigns(self._http, now)
            except (Refused, TryLater, NotSent, NoAnswer) as error:
                log.warning("a tool's campaigns could not be read; will look again", tool=name, error=str(error))
                continue
            except Exception:
                log.exception("a tool's campaigns could not be read", tool=name)
                continue
            held = await self._held(name)
            seen = [(one, customers_in(await self._in_audience(tool, one, reached(one, held, now)))) for one in coming]
            await self._writer.run(NoteCampaigns(name, tuple(seen)))

    async def _held(self, name: str) -> list[Held]:
        # Those whom it took late, or not yet, first: they are the ones in danger.
        shown = func.coalesce(_mark.effective_at, _mark.confirmed_at)
        untold = and_(_mark.state.in_(["pending", "failed"]), _mark.accepted_at.is_(None))
        rows = await self._reader.all(
            select(_mark.customer_id, _mark.profile, _mark.effective_at, _mark.confirmed_at)
            .where(_mark.destination == name, or_(_mark.held, untold))
            .order_by(shown.is_not(None), shown.desc(), _mark.id.desc())
            .limit(campaigns.NAMED * 10)
        )
        return [Held(row.customer_id, row.profile, row.effective_at or row.confirmed_at) for row in rows]

    async def _in_audience(self, tool: Any, campaign: Campaign, held: list[Held]) -> list[Held]:
        """Those of them that the campaign goes to. Where the tool cannot say, or there are too many to ask about, all of them."""
        if not held or not campaign.audiences or len(held) > ASKED_AUDIENCES or not isinstance(tool, KnowsAudiences):
            return held
        wanted = set(campaign.audiences)
        try:
            return [one for one in held if not one.profile or wanted & await tool.audiences(one.profile, self._http)]
        except (Refused, TryLater, NotSent, NoAnswer):
            return held

    # --- sends ---

    async def look_at_sends(self) -> None:
        """Note what tools say they sent since they were asked last. Raises StorageBusy."""
        for name in self._tools:
            tool: Any = self._tools.get(name)
            if not isinstance(tool, ReportsSends):
                continue
            try:
                await self._read_sends(name, tool)
            except (Refused, TryLater, NotSent, NoAnswer) as error:
                log.warning("what a tool sent could not be read; will look again", tool=name, error=str(error))
            except StorageBusy:
                raise
            except Exception:
                log.exception("what a tool sent could not be read", tool=name)

    async def _read_sends(self, name: str, tool: ReportsSends) -> None:
        now = self._writer.clock() / SECOND
        noted = await self._reader.value(select(_setting.value).where(_setting.key == _since(name)))
        since = float(noted) if noted is not None else now - BACK
        start = since - OVERLAP
        while True:
            sends = await tool.sends(start, self._http, now)
            await self.note(name, sends)
            if len(sends) < PAGE:
                await self._writer.run(NoteSince(name, now))
                return
            newest = max(send.at for send in sends)
            if newest <= start:
                log.error("a tool reports more messages of one moment than can be read; some of them are not noted", tool=name)
                newest = start + 1.0
            start = newest
            await self._writer.run(NoteSince(name, max(start, since)))

    async def note(self, name: str, sends: Any) -> int:
        """Note messages a tool reported, by whichever way; how many were new. Raises StorageBusy."""
        done, some = 0, list[SendSeen](sends)
        for start in range(0, len(some), 100):
            known = await recognise(name, some[start : start + 100], self._reader)
            done += await self._writer.run(NoteSends(name, tuple(known)))
        return done

    # --- alarms ---

    async def look_for_alarms(self) -> None:
        """Raise and end alarms. Raises StorageBusy."""
        now = self._writer.clock()
        held = select(func.count(_hold.customer_id.distinct())).where(_hold.released_at.is_(None), _hold.lease_until > now)
        tools = {name: await self._figures(name, now) for name in self._tools}
        wanted = concerns(
            int(await self._reader.value(held) or 0),
            await self._everybody(now),
            self._share,
            self._minutes,
            tools,
            await self._of_campaigns(now) | await self._of_leaks(now),
        )
        known = tuple(row.key for row in await self._reader.all(select(_alarm.key).where(_alarm.ended_at.is_(None))))
        if wanted or known:
            await self._writer.run(SetAlarms(tuple(wanted.items()), known))

    async def _everybody(self, now: int) -> int:
        """How many customers there are; counted anew every few minutes, since all of them are."""
        if self._counted is None or now - self._counted[1] > COUNTED_EVERY:
            everybody = select(func.count()).select_from(metadata.tables["customer"]).where(_customer.merged_into.is_(None))
            self._counted = (int(await self._reader.value(everybody) or 0), now)
        return self._counted[0]

    async def _figures(self, name: str, now: int) -> ToolFigures:
        waiting = _mark.state.in_(["pending", "accepted"])
        tool = self._tools.get(name)
        late = and_(waiting, _mark.asked_at < now - int(self._minutes * 60 * SECOND), _mark.confirmed_at.is_(None))
        if tool is not None and not tool.reads_back:
            late = and_(_mark.state == "pending", late)
        row: Any = await self._reader.first(
            select(
                func.sum(case((late, 1), else_=0)).label("late"),
                func.sum(case((_mark.state == "failed", 1), else_=0)).label("refused"),
                func.sum(case((and_(_mark.state == "drifted", _mark.drifts >= FOUGHT), 1), else_=0)).label("fought"),
                func.max(case((_mark.state.in_(["pending", "failed"]), _mark.error), else_="")).label("error"),
            ).where(_mark.destination == name, _mark.state.in_(["pending", "accepted", "failed", "drifted"]))
        )
        label = tool.label if tool is not None else name
        return ToolFigures(label, int(row.late or 0), int(row.refused or 0), int(row.fought or 0), row.error or "")

    async def _of_campaigns(self, now: int) -> dict[str, Concern]:
        rows = await self._reader.all(
            select(*metadata.tables["campaign_seen"].c).where(
                _seen.gone_at.is_(None), _seen.endangered != "[]", _seen.status.in_(campaigns.COMING)
            )
        )
        found: dict[str, Concern] = {}
        for row in rows:
            tool = self._tools.get(row.destination)
            if tool is None:
                continue
            campaign = Campaign(
                id=row.campaign_id,
                name=row.name,
                channel=row.channel,
                status=row.status,
                send_at=row.send_at / SECOND if row.send_at is not None else None,
                frozen_at=row.frozen_at / SECOND if row.frozen_at is not None else None,
                excludes_hold={"yes": True, "no": False}.get(row.excludes_hold),
                mend=row.mend,
            )
            one = concern(tool.label, campaign, len(json.loads(row.endangered)))
            if one is not None:
                found[f"campaign.{row.destination}.{row.campaign_id}"] = one
        return found

    async def _of_leaks(self, now: int) -> dict[str, Concern]:
        rows = await self._reader.all(
            select(_send.destination, _send.campaign_id, _send.campaign, _send.cause, func.count().label("many"))
            .where(_send.leak, _send.seen_at > now - LEAKS_SHOWN)
            .group_by(_send.destination, _send.campaign_id, _send.campaign, _send.cause)
        )
        found: dict[str, Concern] = {}
        for row in rows:
            people = f"{row.many:,} message{'s' if row.many != 1 else ''}"
            found[f"leak.{row.destination}.{row.campaign_id}.{row.cause}"] = Concern(
                "critical",
                f"“{row.campaign or row.campaign_id or 'A message'}” reached customers on hold",
                f"{people}: {LEAK.get(row.cause, row.cause)}. Their conversations show it before you answer.",
                "/holds/leaks",
            )
        return found


def _since(name: str) -> str:
    return f"watching.{name}.since"


class NoteSince:
    """Note until when a tool has told what it sent (unix seconds)."""

    def __init__(self, name: str, since: float) -> None:
        self.key, self.value = _since(name), f"{since:.3f}"

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("setting", "key", self.key))

    def decide(self, facts: Facts) -> None:
        found = facts.found[("setting", "key", self.key)]
        if not found:
            facts.insert(Setting(self.key, self.value))
            return
        found[0].value = self.value
        facts.change(found[0])
