"""Suggestions worth an agent's look: found in the background, after the fact, and never joined by themselves.

A worker follows what happens to customers by a watermark. Whoever was touched gets the keys under which people like them are found,
is compared with the few who share one, and who looks like the same person is noted, with the reasons. It works by nodes ("homes"),
not by joined customers: a join or its undoing changes nothing of what was noted, only how it is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Select, case, exists, false, func, or_, select, union

from hub.contract import Proof
from hub.customers import bonds
from hub.customers.matching import Match, Person, compare, keys
from hub.storage.facts import Facts, Needs
from hub.storage.reader import Reader
from hub.storage.records import MatchKey, Setting
from hub.storage.tables import metadata
from hub.storage.turns import GiveTurn, TakeTurn
from hub.storage.writer import StorageBusy, Writer

log = structlog.get_logger("hub.suggestions")

RULE = "similar"
PROOF = "proof"  # the rule of a suggestion that proof made after somebody had said they are two
WATERMARK = "suggestions.watermark"  # the last event whose customer was looked at
# After these a customer may look like somebody they did not look like before.
FOLLOWED = ("customer.created", "customer.identified", "customer.merged", "customer.unmerged", "customer.split")

POLL = 2.0  # seconds between looks at what happened
PAUSE = 0.02  # seconds between two steps while behind: whoever waits for the loop or the writer goes first
STEP = 20  # customers a step
WINDOW = 5_000  # events a step reads past
TOO_COMMON = 50  # holders of a key: more, and sharing it means nothing
MOST_COMPARED = 200  # candidates a home, those who share the most keys first
MOST_ADDRESSES = 10  # of a kind a home is known by
TURN = 60.0  # seconds
LOOKED_AT = 1_000  # suggestions that a page of pairs is made of: of what was rejected and joined there may be any number

_customer = metadata.tables["customer"]
_identifier = metadata.tables["identifier"]
_evidence = metadata.tables["evidence"]
_attribute = metadata.tables["attribute"]
_ticket = metadata.tables["ticket"]
_match_key = metadata.tables["match_key"]
_suggestion = metadata.tables["suggestion"]
_cannot = metadata.tables["cannot_link"]
_event = metadata.tables["event"].c
_setting = metadata.tables["setting"].c


# --- what pages show ---


def _live(table: Any) -> ColumnElement[int]:
    return func.coalesce(table.c.merged_into, table.c.id)


def _pair(left: ColumnElement[int], right: ColumnElement[int]) -> tuple[ColumnElement[int], ColumnElement[int]]:
    return case((left < right, left), else_=right), case((left < right, right), else_=left)


def _pairs(chosen: Select[Any]) -> Select[Any]:
    """Pairs of live customers with what suggests them, but for pairs that are one customer or that somebody parted since.

    Proof that came after the parting shows a pair again: then a human is asked once more. `chosen` are the suggestions to look at.
    """
    left, right = _customer.alias("l"), _customer.alias("r")
    low, high = _pair(_live(left), _live(right))
    rows = select(
        low.label("left_id"),
        high.label("right_id"),
        func.max(_suggestion.c.id).label("newest_id"),
        func.max(_suggestion.c.score).label("score"),
        func.max(_suggestion.c.at).label("at"),
        func.max(case((_suggestion.c.rule == PROOF, _suggestion.c.at))).label("proof_at"),
        func.aggregate_strings(_suggestion.c.reason, "\n").label("reasons"),
    ).select_from(
        _suggestion.join(left, left.c.id == _suggestion.c.left_id).join(right, right.c.id == _suggestion.c.right_id),
    )
    chosen_rows = rows.where(_suggestion.c.id.in_(chosen), _live(left) != _live(right))
    pairs = chosen_rows.group_by(low, high).subquery("pairs")
    # Of each pair shown, through the index: all that was ever parted may be much.
    one, other, home = _customer.alias("one"), _customer.alias("other"), _customer.alias("home")
    of_pair = or_(home.c.id.in_([pairs.c.left_id, pairs.c.right_id]), home.c.merged_into.in_([pairs.c.left_id, pairs.c.right_id]))
    apart_low, apart_high = _pair(_live(one), _live(other))
    parted = (
        select(func.max(_cannot.c.at))
        .select_from(_cannot.join(one, one.c.id == _cannot.c.left_id).join(other, other.c.id == _cannot.c.right_id))
        .where(
            _cannot.c.left_id.in_(select(home.c.id).where(of_pair).correlate(pairs)),
            _cannot.c.ended_at.is_(None),
            apart_low == pairs.c.left_id,
            apart_high == pairs.c.right_id,
        )
        .correlate(pairs)
        .scalar_subquery()
    )
    first, second = _customer.alias("first"), _customer.alias("second")
    return (
        select(*pairs.c, first.c.name.label("left_name"), second.c.name.label("right_name"))
        .select_from(pairs.join(first, first.c.id == pairs.c.left_id).join(second, second.c.id == pairs.c.right_id))
        .where(func.coalesce(parted, -1) < func.coalesce(pairs.c.proof_at, 0))
    )


def for_customer(customer_id: int) -> Select[Any]:
    """Who may be the same person as this live customer, the likeliest first: see `newest` for the columns."""
    homes = select(_customer.c.id).where(or_(_customer.c.id == customer_id, _customer.c.merged_into == customer_id))
    # Two look-ups, each through its own index.
    chosen = union(
        select(_suggestion.c.id).where(_suggestion.c.left_id.in_(homes)),
        select(_suggestion.c.id).where(_suggestion.c.right_id.in_(homes)),
    ).subquery()
    found = _pairs(select(chosen.c.id))
    columns = found.selected_columns
    return found.order_by(columns.score.desc(), columns.newest_id.desc()).limit(50)


def newest(limit: int, after: int | None = None) -> Select[Any]:
    """Pairs of live customers who may be one person, the newest suggestion first, a page after the pair with this `newest_id`.

    Columns: left_id < right_id, left_name, right_name, score (thousandths), newest_id, at, proof_at (None where no proof came after
    a parting), reasons (a line each, see `reasons`).
    """
    chosen = select(_suggestion.c.id).order_by(_suggestion.c.id.desc()).limit(LOOKED_AT)
    if after is not None:
        newer = _suggestion.alias("newer")
        same = (newer.c.left_id == _suggestion.c.left_id, newer.c.right_id == _suggestion.c.right_id, newer.c.id >= after)
        chosen = chosen.where(_suggestion.c.id < after, ~select(newer.c.id).where(*same).exists())  # else an earlier page had the pair
    found = _pairs(select(chosen.subquery().c.id))
    columns = found.selected_columns
    return found.order_by(columns.newest_id.desc()).limit(limit)


def reasons(row: Any) -> tuple[str, ...]:
    """The reasons of a pair as sentences, each once."""
    return tuple(dict.fromkeys(line for line in row.reasons.split("\n") if line))


# --- what is written ---


@dataclass(frozen=True, slots=True)
class ForgetKeys:
    """Take all keys from these homes. They are noted anew right after; in between nobody is found by them."""

    homes: tuple[int, ...]

    def needs(self, needs: Needs) -> None:
        needs.rows |= {("match_key", "customer_id", home) for home in self.homes}

    def decide(self, facts: Facts) -> None:
        for home in self.homes:
            facts.remove("match_key", "customer_id", home)


@dataclass(frozen=True, slots=True)
class NoteKeys:
    """Note under which keys these homes are found; those already noted stay."""

    keys: Mapping[int, frozenset[str]]

    def needs(self, needs: Needs) -> None:
        needs.rows |= {("match_key", "customer_id", home) for home in self.keys}

    def decide(self, facts: Facts) -> None:
        for home, wanted in self.keys.items():
            known = {row.key for row in facts.found[("match_key", "customer_id", home)]}
            for key in sorted(wanted - known):
                facts.insert(MatchKey(key, home))


@dataclass(frozen=True, slots=True)
class Suggest:
    """Note who may be one person, and that events up to `upto` were looked at. Saying the same twice notes it once."""

    matches: tuple[Match, ...]
    upto: int = 0

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("setting", "key", WATERMARK))
        for match in self.matches:
            needs.rows |= {("suggestion", "left_id", match.left_id)}
            needs.rows |= {("cannot_link", "left_id", home) for home in (match.left_id, match.right_id)}

    def decide(self, facts: Facts) -> int:
        """How many are new."""
        new = 0
        for match in self.matches:
            if self._parted(match, facts):
                continue
            score = round(match.score * 1_000)
            pair = [row for row in facts.found[("suggestion", "left_id", match.left_id)] if row.right_id == match.right_id]
            known = [row for row in pair if row.rule == RULE]
            if match.given and any(row.rule == "claimed" for row in pair):
                continue  # ingest asked as soon as it was said
            if not known:
                bonds.suggest(facts, match.left_id, match.right_id, rule=RULE, score=score, reason=match.reason)
                new += 1
            elif (known[0].score, known[0].reason) != (score, match.reason):
                known[0].score, known[0].reason = score, match.reason
                facts.change(known[0])
        self._advance(facts)
        return new

    @staticmethod
    def _parted(match: Match, facts: Facts) -> bool:
        pair = {match.left_id, match.right_id}
        rows = [row for home in pair for row in facts.found[("cannot_link", "left_id", home)]]
        return any(row.ended_at is None and {row.left_id, row.right_id} == pair for row in rows)

    def _advance(self, facts: Facts) -> None:
        rows = facts.found[("setting", "key", WATERMARK)]
        if not rows and self.upto:
            facts.insert(Setting(WATERMARK, str(self.upto)))
        elif rows and int(rows[0].value) < self.upto:
            rows[0].value = str(self.upto)
            facts.change(rows[0])


# --- what is known of a home ---


@dataclass(frozen=True, slots=True)
class Home:
    """A node, and the live customer it is part of now."""

    id: int
    live: int
    name: str


async def homes_of(reader: Reader, customers: Collection[int]) -> list[Home]:
    """Every home of the live customers that these are part of."""
    lives = select(_live(_customer)).where(_customer.c.id.in_(customers)).scalar_subquery()
    of_lives = or_(_customer.c.id.in_(lives), _customer.c.merged_into.in_(lives))
    return _homes(await reader.all(_home_columns().where(of_lives).order_by(_customer.c.id)))


async def homes(reader: Reader, ids: Collection[int]) -> list[Home]:
    """These homes alone."""
    return _homes(await reader.all(_home_columns().where(_customer.c.id.in_(ids)).order_by(_customer.c.id)))


def _home_columns() -> Select[Any]:
    return select(_customer.c.id, _live(_customer).label("live"), _customer.c.name, _customer.c.own_name)


def _homes(rows: Iterable[Any]) -> list[Home]:
    # A live customer's shown name may be another node's; it is this one's where the node was told none of its own.
    return [Home(row.id, row.live, row.own_name or (row.name if row.id == row.live else "")) for row in rows]


async def people(reader: Reader, known: Sequence[Home]) -> dict[int, Person]:
    """What is known of these homes, by home: names, addresses they use or claimed, and what is on record of them."""
    ids, lives = {home.id for home in known}, {home.live for home in known}
    spoke, other = _identifier.alias("spoke"), _identifier.alias("other")

    def home(table: Any) -> ColumnElement[int]:
        return func.coalesce(table.c.home_id, table.c.customer_id).label("home")

    heard = exists().where(_ticket.c.conversation_id == _identifier.c.customer_id, _ticket.c.last_inbound_id.is_not(None))
    own = await reader.all(
        select(home(_identifier), _identifier.c.kind, _identifier.c.value, _identifier.c.standing, _identifier.c.proof)
        .where(_identifier.c.customer_id.in_(lives), _identifier.c.kind.in_(["email", "phone"]))
        # What is two people's, or somebody else's by now, tells nothing of this one.
        .where(_identifier.c.shared_at.is_(None), _identifier.c.ended_at.is_(None))
        # An address nobody proved, all of whose messages turned out to be proven after all, is an empty shell and no second person.
        .where(or_(_identifier.c.standing == "proven", heard))
        .order_by(_identifier.c.id)
    )
    claimed = await reader.all(
        select(home(spoke), other.c.kind, other.c.value)
        .select_from(_evidence.join(spoke, spoke.c.id == _evidence.c.identifier_id).join(other, other.c.id == _evidence.c.other_id))
        .where(spoke.c.customer_id.in_(lives), _evidence.c.proof == Proof.CLAIMED.value, _evidence.c.withdrawn_at.is_(None))
        .where(other.c.kind.in_(["email", "phone"]))
        .order_by(_evidence.c.id.desc())
        .limit(MOST_ADDRESSES * 2 * max(len(known), 1))
    )
    stated = await reader.all(
        select(_attribute.c.customer_id.label("home"), _attribute.c.name, _attribute.c.value)
        .where(_attribute.c.customer_id.in_(ids))
        .order_by(_attribute.c.at, _attribute.c.id)  # the latest word counts
    )
    addresses: dict[tuple[int, str], dict[str, bool]] = {}
    for row in own:
        proven = row.standing == "proven" and row.proof not in (Proof.RECORD, Proof.AGENT)
        addresses.setdefault((row.home, row.kind), {})[row.value] = proven
    for row in claimed:
        addresses.setdefault((row.home, row.kind), {}).setdefault(row.value, False)
    attributes: dict[int, dict[str, str]] = {}
    for row in stated:
        attributes.setdefault(row.home, {})[row.name] = row.value
    found = {}
    for one in known:
        by_kind = {kind: list(addresses.get((one.id, kind), {}).items())[:MOST_ADDRESSES] for kind in ("email", "phone")}
        found[one.id] = Person(
            one.id,
            (one.name,) if one.name else (),
            tuple(value for value, _ in by_kind["email"]),
            tuple(value for value, _ in by_kind["phone"]),
            attributes.get(one.id, {}),
            frozenset(value for kind in by_kind.values() for value, proven in kind if proven),
        )
    return found


def sharing(ids: Collection[int]) -> Select[Any]:
    """Who shares a key with these homes: (home, key, other); no key that too many hold."""
    own, others, holder = _match_key.alias("own"), _match_key.alias("others"), _match_key.alias("holder")
    common = select(holder.c.customer_id).where(holder.c.key == own.c.key).limit(1).offset(TOO_COMMON).exists()
    rare = select(own.c.customer_id.label("home"), own.c.key).where(own.c.customer_id.in_(ids), ~common).cte("rare")
    return (
        select(rare.c.home, rare.c.key, others.c.customer_id.label("other"))
        .select_from(rare.join(others, others.c.key == rare.c.key))
        .where(others.c.customer_id != rare.c.home)
    )


def candidates(rows: Iterable[Any]) -> tuple[list[tuple[int, int]], frozenset[str]]:
    """Whom to compare, each pair once and for each home those first who share the most keys; and the keys that more than two hold."""
    shared: dict[int, Counter[int]] = {}
    holders: Counter[tuple[int, str]] = Counter()
    for row in rows:
        shared.setdefault(row.home, Counter())[row.other] += 1
        holders[row.home, row.key] += 1
    pairs = {
        (min(home, other), max(home, other))
        for home, others in shared.items()
        for other, _ in sorted(others.items(), key=lambda found: (-found[1], found[0]))[:MOST_COMPARED]
    }
    return sorted(pairs), frozenset(key for (_, key), others in holders.items() if others > 1)


def parted(ids: Collection[int]) -> Select[int, int]:
    """Pairs of live customers, one of them a home's among these, that somebody said are two: (left, right)."""
    left, right = _customer.alias("l"), _customer.alias("r")
    return (
        select(_live(left).label("left"), _live(right).label("right"))
        .select_from(_cannot.join(left, left.c.id == _cannot.c.left_id).join(right, right.c.id == _cannot.c.right_id))
        .where(_cannot.c.ended_at.is_(None), or_(_cannot.c.left_id.in_(ids), _cannot.c.right_id.in_(ids)) if ids else false())
    )


# --- the worker ---


class Suggestions:
    """Looks in the background for customers who may be one person."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer
        self._token = secrets.token_hex(8)
        self._seen = 0  # events read past; stored only with work done, or a window later
        self._stored = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look from now on."""
        self._task = asyncio.create_task(self._keep_looking(), name="suggestions")

    async def stop(self) -> None:
        """Stop at once: what was not noted is looked for again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _keep_looking(self) -> None:
        while True:
            more, began = False, time.perf_counter()
            try:
                more = await self.step()
            except StorageBusy as error:
                log.warning("nobody compared; will look again", error=str(error))
            except Exception:
                log.exception("looking for people who may be one failed")
            # While behind, a fifth of the loop at most: nobody waits for a suggestion.
            await asyncio.sleep(max(PAUSE, 4 * (time.perf_counter() - began)) if more else POLL)

    async def catch_up(self) -> None:
        """Look at everything that happened until now. Raises StorageBusy."""
        while await self.step():
            pass

    async def step(self) -> bool:
        """Look at the next few customers something happened to; whether there may be more. Raises StorageBusy."""
        stored = await self._reader.value(select(_setting.value).where(_setting.key == WATERMARK))
        self._stored = int(stored or 0)
        after = max(self._seen, self._stored)
        end = await self._reader.value(select(func.coalesce(func.max(_event.seq), 0)))
        if end <= after:
            return False
        upto = min(end, after + WINDOW)
        rows = await self._reader.all(
            select(_event.seq, _event.customer_id, _event.data)
            .where(_event.seq > after, _event.seq <= upto, _event.type.in_(FOLLOWED))
            .order_by(_event.seq)
            .limit(STEP)
        )
        if len(rows) == STEP:
            upto = rows[-1].seq
        touched = {customer_id for row in rows for customer_id in _named(row)}
        if not touched and upto < self._stored + WINDOW:
            self._seen = upto
            return bool(upto < end)
        # What is done in a turn is harmless when done twice: the turn only saves the work.
        if not await self._writer.run(TakeTurn("suggestions", self._token, TURN)):
            return False
        done = False
        try:
            matches = await self._look_at(touched) if touched else ()
            await self._writer.run(Suggest(matches, upto))
            done = True
        finally:
            if not done or upto >= end:  # while behind, the turn is kept
                with contextlib.suppress(StorageBusy):
                    await self._writer.run(GiveTurn("suggestions", self._token))
        self._seen = upto
        return bool(upto < end)

    async def _look_at(self, touched: set[int]) -> tuple[Match, ...]:
        try:
            return await self.matches(touched)
        except StorageBusy:
            raise
        except Exception:
            if len(touched) == 1:
                # One whose data cannot be read must not keep the others from being found for ever.
                log.exception("not compared with anybody", customer=next(iter(touched)))
                return ()
        return tuple([match for one in sorted(touched) for match in await self._look_at({one})])

    async def matches(self, touched: Collection[int]) -> tuple[Match, ...]:
        """Note the keys of these customers' homes, and find who looks like them. Raises StorageBusy."""
        known = await homes_of(self._reader, touched)
        if not known:
            return ()
        here = {home.id: home for home in known}
        persons = await people(self._reader, known)
        await self._note({home: keys(person) for home, person in persons.items()})
        pairs, common = candidates(await self._reader.all(sharing(here.keys())))
        here |= {home.id: home for home in await homes(self._reader, {id_ for pair in pairs for id_ in pair} - here.keys())}
        persons |= await people(self._reader, [here[id_] for id_ in here.keys() - persons.keys()])
        together = {home.id for home in known}
        apart = {frozenset((row.left, row.right)) for row in await self._reader.all(parted(together))}
        found: list[Match] = []
        for number, (one, other) in enumerate(pairs):
            if number % 100 == 99:
                await asyncio.sleep(0)  # comparing holds the loop
            if (
                one not in persons
                or other not in persons
                or here[one].live == here[other].live
                or frozenset((here[one].live, here[other].live)) in apart
            ):
                continue
            match = compare(persons[one], persons[other], common)
            if match is not None:
                found.append(match)
        return tuple(found)

    async def _note(self, wanted: dict[int, frozenset[str]]) -> None:
        rows = await self._reader.all(select(_match_key.c.key, _match_key.c.customer_id).where(_match_key.c.customer_id.in_(wanted)))
        stale = {row.customer_id for row in rows if row.key not in wanted[row.customer_id]}
        if stale:
            await self._writer.run(ForgetKeys(tuple(sorted(stale))))
        known = {(row.customer_id, row.key) for row in rows if row.customer_id not in stale}
        missing = {home: found for home, found in wanted.items() if any((home, key) not in known for key in found)}
        if missing:
            await self._writer.run(NoteKeys(missing))


def _named(row: Any) -> set[int]:
    """The customers an event names."""
    named = {row.customer_id} if row.customer_id is not None else set()
    other = json.loads(row.data).get("other") if row.data else None
    return named | {other} if isinstance(other, int) else named
