"""Identity cases played against the real hub: the real writer with its reactions, the real ingest and agents' commands, on throw-away
databases, one for each case and workspace. Nothing leaves: what is owed to providers stays in the outbox.

Every message bears a text of its own, so that what became of each is read from the database alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import false, or_, select

from hub import reactions
from hub.contract import Claim, Identified, Inbound, Proof
from hub.conversations.commands import Reply
from hub.conversations.ingest import Ingest, Outcome
from hub.conversations.intake import prepare
from hub.customers import bridging, cases, joining, merging, suggestions
from hub.customers.cases import CHANNELS, SITE, WEB, BadCases, Case, Step, Visit, Workspace
from hub.customers.codes import AnswerCode, AskCode, NotAsked, holders, typed
from hub.customers.disclosure import readable
from hub.customers.resolution import PROVEN, Known, NoSender, weigh
from hub.policy import SECOND, Refusal
from hub.storage import migrate, postgres
from hub.storage.blobs import Blobs
from hub.storage.engines import Engine, PostgresEngine, SqliteEngine
from hub.storage.records import JoinLog
from hub.storage.tables import metadata

AGENT = 1  # who answers and judges in a case
PAGE = 1_000

_message = metadata.tables["message"].c
_identifier = metadata.tables["identifier"].c
_customer = metadata.tables["customer"].c
_opt_out = metadata.tables["opt_out"].c
_join_log = metadata.tables["join_log"].c

Answer = dict[str, Any]
Fresh = Callable[[], AbstractAsyncContextManager[Engine]]


# --- databases to throw away ---


@asynccontextmanager
async def sqlite_databases(directory: Path) -> AsyncIterator[Fresh]:
    """Empty SQLite databases under a directory, migrated once and copied since."""
    template = directory / "template.db"
    await asyncio.to_thread(migrate.migrate, template)

    @asynccontextmanager
    async def fresh() -> AsyncIterator[Engine]:
        place = directory / secrets.token_hex(8)
        place.mkdir()
        shutil.copyfile(template, place / "hub.db")
        try:
            yield SqliteEngine(place / "hub.db")
        finally:
            shutil.rmtree(place)

    yield fresh


@asynccontextmanager
async def postgres_databases(url: str) -> AsyncIterator[Fresh]:
    """Empty databases on a PostgreSQL server, migrated once and copied since; none is left behind. Raises DatabaseUnreadable.

    `url` names any database of an account that may create others; nothing in that one is touched.
    """
    admin = await postgres.reach(url)
    prefix = f"hub_replay_{secrets.token_hex(6)}"

    def at(name: str) -> str:
        return urlsplit(url)._replace(path=f"/{name}").geturl()

    async def drop(name: str) -> None:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", timeout=60)

    @asynccontextmanager
    async def fresh() -> AsyncIterator[Engine]:
        name = f"{prefix}_{secrets.token_hex(6)}"
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {prefix}", timeout=60)
        try:
            yield PostgresEngine(at(name))
        finally:
            await drop(name)

    try:
        await admin.execute(f"CREATE DATABASE {prefix} TEMPLATE template0", timeout=60)
        await postgres.migrate(at(prefix))
        yield fresh
    finally:
        await drop(prefix)
        await admin.close()


# --- one workspace's hub ---


class Stage:
    """A hub of one workspace, and what of a case is still to be known beside its database: the web sessions and the code of time."""

    def __init__(self, workspace: Workspace, engine: Engine, events: Sequence[Step]) -> None:
        self.workspace = workspace
        self._policy = workspace.policy
        self._engine = engine
        self._events = {event.id: event for event in events if event.ws == workspace.id}
        self._now = 0
        self._visits: dict[str, Visit] = {}  # by device: as each was last
        self._device: dict[str, str] = {}  # of each web session now
        self._devices = 0
        self._carried: dict[str, tuple[tuple[Claim, ...], str]] = {}  # what a message proved, and the browser it came from
        self._mail_ids: dict[str, str] = {}  # of our answers: the one the file gave it -> ours
        # What a message brings is text alone: no file is ever put here.
        self._blobs = Blobs(Path("/nonexistent"))

    async def open(self) -> None:
        await self._engine.prepare()
        await self._engine.open(reactions.react, lambda: self._now, lambda error: None)
        self._engine.follow_rules(self._policy)
        self._suggestions = suggestions.Suggestions(self._engine.reader, self._engine.writer)

    async def close(self) -> None:
        await self._engine.close()

    def at(self, now: int) -> None:
        """Let time run to here (microseconds UTC); never back."""
        self._now = max(self._now, now)

    async def play(self, event: Step) -> None:
        """Let one event happen."""
        await _PLAYED[event.kind](self, event)

    async def _told(self, channel: str, said: Inbound) -> Outcome:
        entry = await prepare(said, trusted=True, policy=self._policy, blobs=self._blobs, token_names=lambda _: None)
        return await self._engine.writer.run(Ingest(CHANNELS[channel].id, (entry,), None))

    # --- what customers do ---

    async def _message(self, event: Step) -> None:
        device = ""
        carried = cases.claims(event)
        if event.channel == WEB:
            visit = await self._visit(event)
            device = visit.device
            # What a token or a code proved, the session says by itself from now on.
            said = [claim for claim in carried if claim.proof not in (Proof.SIGNED, Proof.OTP)]
            carried = (*visit.claims, *said)
        self._carried[event.id] = (carried, device)
        # From ourselves, or from nobody who could be answered: kept aside, and no message. A bounce is no customer either.
        with contextlib.suppress(NoSender):
            await self._told(event.channel, cases.message(event, carried, said_by(event), self._mail_ids))

    async def _visit(self, event: Step) -> Visit:
        """The session as it is after what this event says of it."""
        visit = self._current(event)
        if cases.tries_to_identify(event):
            visit, news = cases.identified(visit, event, self._new_device())
            self._keep(event, visit)
            if news is not None:
                await self._told(event.channel, news)
        for claim in cases.claims(event, (Proof.OTP,)):
            await self._answer_code(event, claim, right=True)
        return self._current(event)

    def _new_device(self) -> str:
        self._devices += 1
        return f"device-{self._devices:08}"

    def _current(self, event: Step) -> Visit:
        if event.visit not in self._device:
            self._keep(event, Visit(self._new_device()))
        return self._visits[self._device[event.visit]]

    def _keep(self, event: Step, visit: Visit) -> None:
        self._visits[visit.device] = visit
        self._device[event.visit] = visit.device

    async def _identify(self, event: Step) -> None:
        await self._visit(event)

    async def _verify(self, event: Step) -> None:
        for one in event.stated:
            kind = cases.KINDS[one.type]
            if kind is not None and one.proof in ("otp", "otp_failed"):
                await self._answer_code(event, Claim(kind, one.value, Proof.OTP), right=one.proof == "otp")

    async def _answer_code(self, event: Step, claim: Claim, *, right: bool) -> None:
        """Ask for a code and type it in, well or badly, as the chat does."""
        found = typed(claim.kind, claim.value, self._policy.region)
        if found is None or (claim.kind, found[0]) in self._current(event).proofs:
            return  # no code can be sent there, or it was answered already
        value, address = found
        channel, asked = CHANNELS[event.channel], secrets.token_hex(16)
        visit = self._current(event)
        ask = AskCode(asked, channel.id, visit.device, claim.kind, value, address, SITE)
        while isinstance(answer := await self._engine.writer.run(ask), NotAsked) and answer.wait:
            self.at(self._now + round(answer.wait * SECOND))  # the file says that a code came: then it was waited for
        if isinstance(answer, NotAsked):
            raise BadCases(f"{event.id}: {answer.problem}")
        then = None
        if right:
            told = Identified(provider_key=f"code:{asked}", claims=(*visit.claims, Claim(claim.kind, value, Proof.OTP)))
            entry = await prepare(told, trusted=True, policy=self._policy, blobs=self._blobs, token_names=lambda _: None)
            then = Ingest(channel.id, (entry,), None)
        done = await self._engine.writer.run(AnswerCode(asked, holders(visit), (channel.id,), right, then))
        if done.outcome == "right":
            self._keep(event, self._current(event).proved(claim.kind, value))

    async def _logout(self, event: Step) -> None:
        self._device.pop(event.visit, None)  # whoever comes next at this browser is a new visitor

    async def _notice(self, event: Step) -> None:
        if event.previous:
            await self._told(event.channel, cases.changed(event))

    # --- what agents do ---

    async def _row(self, event_id: str) -> Any:
        """A message as stored: also the first of two deliveries of one, whichever of them was that."""
        text = said_by(self._events[event_id])
        return await self._engine.reader.first(
            select(_message.ticket_id, _message.channel_id, _message.conversation_id, _message.identifier_id)
            .where(_message.text == text)
            .order_by(_message.id)
            .limit(1)
        )

    async def _reply(self, event: Step) -> None:
        row = await self._row(event.reply_to)
        if row is None:
            return  # what became no message cannot be answered
        answer = Reply(
            row.ticket_id,
            AGENT,
            said_by(event),
            f"draft {event.id}",
            channel_id=row.channel_id,
            identifier_id=row.identifier_id,
            cc=event.cc if self._policy.channels[row.channel_id].mails else (),
            confirmed_way=True,
        )
        with contextlib.suppress(Refusal):  # the address asked not to be written to, or passed on: then nothing was said
            replied = await self._engine.writer.run(answer)
            sent = await self._engine.reader.value(select(_message.mail_id).where(_message.id == replied.message_id))
            if event.message_id and sent:
                self._mail_ids[event.message_id] = sent

    async def _operator(self, event: Step) -> None:
        left, right = [await self._row(one) for one in event.pair]
        if left is None or right is None:
            raise BadCases(f"{event.id}: one of {', '.join(event.pair)} became no message, so it has no customer")
        one, other, actor = left.conversation_id, right.conversation_id, merging.agent(AGENT)
        work: merging.Merge | merging.Unmerge | merging.Reject | None
        if event.action == "merge":
            work = merging.Merge(one, other, actor, AGENT)
        elif event.action == "reject":
            work = merging.Reject(one, other, actor, AGENT)
        else:
            tie = await self._tie(left.identifier_id, right.identifier_id)
            work = merging.Unmerge(tie.id, tie.left_id, tie.right_id, actor, AGENT) if tie is not None else None
        if work is not None:
            with contextlib.suppress(Refusal):  # one customer already, or two, or tied in another way too: nothing changes
                await self._engine.writer.run(work)

    async def _tie(self, left: int, right: int) -> JoinLog | None:
        """The newest merge, else the newest join, that makes these two identifiers' homes one customer."""
        reader = self._engine.reader
        homes = {row.id: row.home_id for row in await reader.all(select(_identifier.id, _identifier.home_id))}
        every = [row.id for row in await reader.all(select(_customer.id))]
        ties = joining.live(
            [JoinLog(**row._asdict()) for row in await reader.all(select(metadata.tables["join_log"]).order_by(_join_log.id))]
        )

        def tied(by: Sequence[JoinLog]) -> bool:
            return any({homes[left], homes[right]} <= side for side in joining.components(every, by))

        if not tied(ties):
            return None
        cuts = [tie for tie in ties if not tied([one for one in ties if {one.left_id, one.right_id} != {tie.left_id, tie.right_id}])]
        return max(cuts, key=lambda tie: (tie.op == "merge", tie.id), default=None)

    # --- what became of it ---

    async def state(self) -> Answer:
        """The customers now, by the events that are their messages, and who is suggested to be one person."""
        groups = await self._groups()
        await self._suggestions.catch_up()
        first = {customer: ids[0] for customer, ids in groups.items()}
        pairs = []
        after: int | None = None
        while rows := await self._engine.reader.all(suggestions.newest(PAGE, after)):
            pairs += [[first[row.left_id], first[row.right_id]] for row in rows if row.left_id in first and row.right_id in first]
            after = rows[-1].newest_id
        return {"groups": sorted(groups.values()), "suggestions": sorted(map(sorted, pairs))}

    async def _groups(self) -> dict[int, list[str]]:
        groups: dict[int, list[str]] = {}
        kept = await self._kept()
        for event_id in self._events:
            if event_id in kept:
                groups.setdefault(kept[event_id].conversation_id, []).append(event_id)
        return groups

    async def _kept(self) -> dict[str, Any]:
        """The events that are messages of customers, with their rows; of two deliveries of one, the one that stands first in the file."""
        rows = await self._engine.reader.all(
            select(_message.id, _message.text, _message.conversation_id, _message.identifier_id).where(_message.direction == "in")
        )
        by_text = {row.text: row for row in rows}
        kept: dict[str, Any] = {}
        for event in self._events.values():
            row = by_text.pop(said_by(event), None) if event.kind == "message" else None
            if row is not None:
                kept[event.id] = row
        return kept

    async def end(self) -> Answer:
        """The whole answer for this workspace, at the end of its case."""
        kept = await self._kept()
        came = [event.id for event in self._events.values() if event.kind == "message" and event.id in self._carried]
        stops = await self._engine.reader.all(select(_opt_out.channel_id, _opt_out.value).where(_opt_out.ended_at.is_(None)))
        return await self.state() | {
            "dropped": [event_id for event_id in came if event_id not in kept],
            "visible": {event_id: await self._visible(event_id, row) for event_id, row in kept.items()},
            "suppressed": sorted([self.workspace.id, self._policy.channels[row.channel_id].name, row.value] for row in stops),
        }

    async def _visible(self, event_id: str, row: Any) -> list[str]:
        """What the party that sent a message may be shown: by what it proved in that message, or in that session as it was last."""
        carried, device = self._carried[event_id]
        proved = cases.proving(self._visits[device].claims if device else carried)
        # A role mailbox threads with itself: proving it in another session opens nothing of it.
        known = [one for one in _canonical(proved, self._policy.region) if not bridging.why_not(one.kind, one.value)]
        same = [(_identifier.kind == one.kind) & (_identifier.site == one.site) & (_identifier.value == one.value) for one in known]
        theirs = select(_identifier.id).where(
            or_(false(), *same),
            _identifier.standing == PROVEN,
            _identifier.ended_at.is_(None),
            _identifier.shared_at.is_(None),
            _identifier.customer_id == row.conversation_id,
        )
        ids = {row.identifier_id} | {one.id for one in await self._engine.reader.all(theirs)}
        shown = {one[0] for one in await self._engine.reader.all(readable(sorted(ids)))}
        texts = await self._engine.reader.all(select(_message.text).where(_message.id.in_(shown)))
        told = {one.text for one in texts}
        kept = await self._kept()
        return [id_ for id_, event in self._events.items() if said_by(event) in told and (event.kind == "reply" or id_ in kept)]


_PLAYED: Mapping[str, Callable[[Stage, Step], Any]] = {
    "message": Stage._message,
    "identify": Stage._identify,
    "verify": Stage._verify,
    "logout": Stage._logout,
    "notice": Stage._notice,
    "reply": Stage._reply,
    "operator": Stage._operator,
}


def _canonical(proved: tuple[Claim, ...], region: str) -> tuple[Known, ...]:
    try:
        return weigh(proved, trusted=True, region=region)
    except NoSender:
        return ()  # it proved nothing, or nothing that could be anybody's


def said_by(event: Step) -> str:
    """The text that names what an event said, in the database: two deliveries of one message have the same."""
    return json.dumps(["reply", event.id] if event.kind == "reply" else list(event.delivery[1:]))


# --- a case ---


@asynccontextmanager
async def _stages(case: Case, fresh: Fresh) -> AsyncIterator[dict[str, Stage]]:
    async with AsyncExitStack() as stack:
        stages = {}
        for workspace in case.workspaces:
            stage = Stage(workspace, await stack.enter_async_context(fresh()), case.events)
            stack.push_async_callback(stage.close)
            await stage.open()
            stages[workspace.id] = stage
        yield stages


async def play(case: Case, events: Sequence[Step], fresh: Fresh, *, checkpoints: bool) -> Answer:
    """Play these events one after the other on databases of their own; with the state after each, if asked for."""
    async with _stages(case, fresh) as stages:
        after = {}
        for event in events:
            stage = stages[event.ws]
            stage.at(event.at)
            await stage.play(event)
            if checkpoints:
                after[event.id] = await _all([await one.state() for one in stages.values()])
        answer = await _all([await stage.end() for stage in stages.values()])
        return answer | ({"checkpoints": after} if checkpoints else {})


async def play_at_once(case: Case, events: Sequence[Step], fresh: Fresh) -> Answer:
    """Play these events all at the same moment, each only after what it waits for."""
    waits = cases.waits_for(case.events)
    done = {event.id: asyncio.Event() for event in events}
    async with _stages(case, fresh) as stages:
        for stage in stages.values():
            stage.at(max(event.at for event in events))

        async def one(event: Step) -> None:
            for earlier in waits[event.id]:
                await done[earlier].wait()
            await stages[event.ws].play(event)
            done[event.id].set()

        async with asyncio.TaskGroup() as tasks:
            for event in events:
                tasks.create_task(one(event))
        return await _all([await stage.end() for stage in stages.values()])


async def _all(answers: Sequence[Answer]) -> Answer:
    """The answer of all workspaces together."""
    whole: Answer = {}
    for answer in answers:
        for key, value in answer.items():
            if key not in whole:
                whole[key] = value
            else:
                whole[key] = whole[key] | value if isinstance(value, dict) else whole[key] + value
    return whole


class Disagreement(Exception):
    """A case that must come out the same in any order did not; the text names the order and what differs."""


async def answer(case: Case, fresh: Fresh, *, rounds: int, seed: int) -> Answer:
    """The answer to a case. One that may come in any order is played in the file's, then `rounds` times shuffled and half as often all
    at once. Raises Disagreement, BadCases or StorageBusy."""
    first = await play(case, case.events, fresh, checkpoints=True)
    if not case.any_order:
        return first
    wanted = {key: value for key, value in first.items() if key != "checkpoints"}
    for number, order in enumerate(cases.orders(len(case.events), rounds, seed)):
        events = cases.arranged(case.events, order)
        names = ", ".join(event.id for event in events)
        _compare(wanted, await play(case, events, fresh, checkpoints=False), f"{case.id} in the order {names}")
        if number % 2:
            _compare(wanted, await play_at_once(case, events, fresh), f"{case.id} all at once, begun in the order {names}")
    return first


def _compare(wanted: Answer, got: Answer, where: str) -> None:
    for key, value in wanted.items():
        if got[key] != value:
            raise Disagreement(f"{where}: {key} came out as {json.dumps(got[key])}, and as {json.dumps(value)} in the order of the file.")
