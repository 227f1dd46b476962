"""The sealer: what was stated about holds, appended to the chain of proof within a second, in the order of commits.

The events are the source. What is sealed of each is named here field by field, so that nothing personal can slip in later: addresses
become digests, and words somebody wrote stay out. A chain once begun is never rewritten; a restored database says so in a link of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from sqlalchemy import func, select

from hub.holds.proof import BEGUN, DAMAGED, RESTORED, Broken, Head, Link, begins, canonical, chained, digest_of, genesis
from hub.holds.report import micros
from hub.storage.engines import EPOCH
from hub.storage.facts import Facts, Needs
from hub.storage.marketing_records import ProofRow
from hub.storage.reader import Reader
from hub.storage.records import Setting
from hub.storage.tables import metadata
from hub.storage.turns import GiveTurn, TakeTurn
from hub.storage.writer import StorageBusy, Writer

log = structlog.get_logger("hub.sealer")

EVERY = 1.0  # seconds
TURN = 20.0
MOST = 500  # links of one commit ...
MOST_BYTES = 1_000_000  # ... and characters of their data
SPAN = 20_000  # events looked through by one query
NOTE_EVERY = 100_000  # events looked through in vain until that is noted: a restart looks through them again
KEY = "proof.sealed"

_HOLD = ("customer_id", "identifiers", "reasons", "scope", "until", "version", "joined_into")
_MARK = ("destination", "kind", "value", "held", "version", "until", "asked_at", "took_ms", "error")
_JOIN = ("other",)

# What is proved: event -> the fields of its data that are sealed.
PROVED: dict[str, tuple[str, ...]] = {
    "hold.placed": _HOLD,
    "hold.renewed": _HOLD,
    "hold.released": _HOLD,
    "mark.accepted": _MARK,
    "mark.confirmed": _MARK,
    "mark.effective": _MARK,
    "mark.drifted": _MARK,
    "mark.failed": _MARK,
    "gate.answered": ("campaign", "brand", "class", "channel", "asked", "held", "degraded", "since", "until", "receipts"),
    "send.seen": ("destination", "campaign", "campaign_id", "channel", "at", "leak", "prevented", "cause", "kind", "value"),
    "optout.recorded": ("kind", "value", "channel_id", "by"),
    "optout.withdrawn": ("kind", "value", "channel_id", "by"),
    "campaign.warned": ("destination", "campaign", "campaign_id", "risk", "endangered"),
    "campaign.reverted": ("destination", "campaign", "campaign_id", "said"),
    "customer.merged": _JOIN,
    "customer.unmerged": _JOIN,
    "customer.split": _JOIN,
}

_HELD: dict[str, Any] = {"identifiers": list, "reasons": list, "until": micros, "version": int}
_TOOK: dict[str, Any] = {"destination": str, "held": bool, "asked_at": micros}

# What a report reads of each (a type, or how it is read): a link without it would break every report that shows it.
NEEDED: dict[str, dict[str, Any]] = {
    "hold.placed": _HELD,
    "hold.renewed": _HELD,
    "mark.accepted": _TOOK,
    "mark.confirmed": _TOOK,
    "mark.effective": _TOOK,
    "gate.answered": {**dict.fromkeys(("campaign", "brand", "class", "channel"), str), **dict.fromkeys(("asked", "held", "degraded"), int)},
    "send.seen": {
        **dict.fromkeys(("destination", "campaign", "campaign_id", "channel", "cause"), str),
        **{"at": micros, "leak": bool, "prevented": bool},
    },
    "campaign.warned": {"destination": str, "campaign": str, "campaign_id": str, "risk": str, "endangered": list},
    "customer.merged": {"other": int},
    "customer.unmerged": {"other": int},
    "customer.split": {"other": int},
}

_event = metadata.tables["event"].c
_proof = metadata.tables["proof"].c
_setting = metadata.tables["setting"].c


class Stated(NamedTuple):
    """An event as it was stored."""

    seq: int
    type: str
    at: int
    customer_id: int | None
    data: str


def sealed(event: Stated, key: bytes) -> Link:
    """An event as a link, not yet numbered. Pure. One that cannot be read is sealed by its hash: it was stated, whatever it said."""
    try:
        said = json.loads(event.data)
        data = {name: said[name] for name in PROVED[event.type] if name in said}
        for name, shape in NEEDED.get(event.type, {}).items():
            if not isinstance(shape, type):
                shape(data[name])
            elif not isinstance(data[name], shape):
                raise TypeError(name)
        if "identifiers" in data:
            data["identifiers"] = [
                {"kind": one["kind"], "value": digest_of(key, one["kind"], one["value"]), "because": one["because"]}
                | ({"site": one["site"]} if "site" in one else {})
                for one in data["identifiers"]
            ]
        if "value" in data:
            value, data["value"] = data["value"], digest_of(key, data["kind"], data["value"])
            if "error" in data:  # a tool's own words, which may quote whom they are about
                data["error"] = data["error"].replace(value, "[identifier]")
        destination, text = str(data.get("destination", "")), canonical(data)
    except (ValueError, TypeError, KeyError, AttributeError):
        log.error("an event could not be read; its hash is sealed", number=event.seq, type=event.type)
        destination, text = "", canonical({"unreadable": hashlib.sha256(event.data.encode("utf-8", "surrogatepass")).hexdigest()})
    return Link(0, event.seq, event.type, event.at, event.customer_id, destination, text)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far sealing has come, as it is noted beside the chain: the chain's name, the newest link, and the last event looked at in
    which life (epoch) of the database."""

    chain: str
    head: Head
    epoch: str
    after: int

    def text(self) -> str:
        return canonical([self.chain, self.head.seq, self.head.hash, self.epoch, self.after])


def progress_in(text: str) -> Progress:
    """The reverse of `Progress.text`."""
    chain, seq, hash_, epoch, after = json.loads(text)
    return Progress(chain, Head(seq, hash_), epoch, after)


@dataclass(frozen=True, slots=True)
class Seal:
    """Append links that follow on `head`, and note how far sealing has come. False: another process was first; look again.

    Where two commit at once, the number of the link is the key of its row, so one fails and finds the other's when it is done again.
    """

    before: str  # the progress this one was made from, as it is noted; empty: none is
    links: tuple[Link, ...]
    progress: Progress
    head: Head

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("setting", "key", KEY))
        needs.rows.update(("proof", "seq", seq) for seq in (self.head.seq, self.head.seq + 1))

    def decide(self, facts: Facts) -> bool:
        noted = facts.found[("setting", "key", KEY)]
        newest = facts.found[("proof", "seq", self.head.seq)]
        if (noted[0].value if noted else "") != self.before or facts.found[("proof", "seq", self.head.seq + 1)]:
            return False
        if self.head.seq and [row.hash for row in newest] != [self.head.hash]:
            return False
        for link in self.links:
            facts.insert(ProofRow(*link))
        if noted:
            noted[0].value = self.progress.text()
            facts.change(noted[0])
        else:
            facts.insert(Setting(KEY, self.progress.text()))
        return True


class Sealer:
    """Keeps the chain up with the events. `start` it with the hub, on every process: one of them does it at a time."""

    def __init__(self, reader: Reader, writer: Writer, key: bytes) -> None:
        """`key` is what identifiers are digested with: `keys.derive(secret, "proof identifiers")`."""
        self._reader = reader
        self._writer = writer
        self._key = key
        self._token = secrets.token_hex(8)
        self._looked = -1  # the newest event there was when all was sealed
        self._passed = ("", 0)  # the last event looked at, and the note it goes beyond
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin the chain where there is none yet, and seal from now on."""
        with contextlib.suppress(StorageBusy):
            await self._step(0)
        self._task = asyncio.create_task(self._keep_sealing(), name="sealer")

    async def stop(self) -> None:
        """Stop at once: what is not sealed yet is sealed at the next start, from the same events."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        with contextlib.suppress(StorageBusy):
            await self._writer.run(GiveTurn("proof", self._token))

    async def _keep_sealing(self) -> None:
        while True:
            try:
                await self.seal()
            except StorageBusy as error:
                log.warning("nothing sealed; will try again", error=str(error))
            except Exception:
                log.exception("sealing failed")
            await asyncio.sleep(EVERY)

    async def seal(self) -> int:
        """Seal everything stated so far, if it is our turn; how many links were added. Raises StorageBusy."""
        newest = await self._reader.value(select(func.max(_event.seq))) or 0
        if newest == self._looked:
            return 0
        if not await self._writer.run(TakeTurn("proof", self._token, TURN)):
            return 0
        added = 0
        while True:
            some, after = await self._step(newest)
            added += some
            if after >= newest:
                self._looked = newest
                return added
            if some:  # a long way to go, after an upgrade: keep the turn
                await self._writer.run(TakeTurn("proof", self._token, TURN))

    async def _step(self, newest: int) -> tuple[int, int]:
        """(links added, last event looked at)."""
        rows = {
            row.key: row.value for row in await self._reader.all(select(_setting.key, _setting.value).where(_setting.key.in_([KEY, EPOCH])))
        }
        before, epoch = rows.get(KEY, ""), rows.get(EPOCH, "")
        last = await self._reader.first(select(_proof.seq, _proof.hash).order_by(_proof.seq.desc()).limit(1))
        head, progress, links = await self._standing(before, epoch, Head(last.seq, last.hash) if last is not None else None)
        since = max(progress.after, self._passed[1] if self._passed[0] == before else 0)
        found, after = await self._found(since, newest)
        links += [sealed(event, self._key) for event in found]
        if not links and after - progress.after < NOTE_EVERY:
            self._passed = (before, after)
            return 0, after
        made = chained(head, links)
        end = Head(made[-1].seq, made[-1].hash) if made else head
        if not await self._writer.run(Seal(before, tuple(made), Progress(progress.chain, end, epoch, after), head)):
            return 0, since  # another process was first
        return len(made), after

    async def _standing(self, before: str, epoch: str, last: Head | None) -> tuple[Head, Progress, list[Link]]:
        """(what the next link follows on, how far sealing has come, what the chain must say of itself first)."""
        now = self._writer.clock()
        noted = progress_in(before) if before else None
        if last is None:
            chain = secrets.token_hex(16)
            said: dict[str, Any] = {"chain": chain, "epoch": epoch}
            if noted is not None:  # all of it was taken out
                log.error("the chain of proof is gone; another one begins", chain=noted.chain, links=noted.head.seq)
                said["instead_of"] = [noted.chain, noted.head.seq, noted.head.hash]
            head, after = Head(0, genesis(chain)), noted.after if noted is not None else 0
            return head, Progress(chain, head, epoch, after), [Link(0, after, BEGUN, now, None, "", canonical(said))]
        if noted is None:  # what was noted beside the chain is gone: its name stands in its first link, its end in its last
            after = await self._reader.value(select(func.max(_proof.event_seq)))
            noted = Progress(await chain_of(self._reader), Head(0, ""), epoch, after)
        links = []
        if noted.head != last:
            # Never silently: a chain that was cut goes on, and says that it was.
            log.error("the chain of proof does not end where it was noted to", noted=noted.head.seq, found=last.seq)
            found = {"noted": [noted.head.seq, noted.head.hash], "found": [last.seq, last.hash]}
            links.append(Link(0, noted.after, DAMAGED, now, None, "", canonical(found)))
        if noted.epoch != epoch:
            links.append(Link(0, noted.after, RESTORED, now, None, "", canonical({"was": noted.epoch, "is": epoch})))
        return last, noted, links

    async def _found(self, after: int, newest: int) -> tuple[Sequence[Stated], int]:
        """The next events to seal, and the last number that was looked at for them."""
        upto = max(after, min(newest, after + SPAN))
        statement = (
            select(_event.seq, _event.type, _event.at, _event.customer_id, _event.data)
            .where(_event.seq > after, _event.seq <= upto, _event.type.in_(list(PROVED)))
            .order_by(_event.seq)
            .limit(MOST)
        )
        rows = [Stated._make(row) for row in await self._reader.all(statement)]
        size = 0
        taken: list[Stated] = []
        for row in rows:
            size += len(row.data)
            if taken and size > MOST_BYTES:
                break
            taken.append(row)
        whole = len(taken) == len(rows) < MOST
        return taken, upto if whole else taken[-1].seq


async def chain_of(reader: Reader) -> str:
    """The name of the chain, as its first link states it; empty where it states none."""
    first = await reader.first(select(metadata.tables["proof"]).where(_proof.seq == 1))
    with contextlib.suppress(Broken):
        return begins(Link._make(first)) if first is not None else ""
    return ""


def unsealed(after: int) -> Any:
    """How many facts stand behind event number `after` and in no link yet."""
    return select(func.count()).where(_event.seq > after, _event.type.in_(list(PROVED)))
