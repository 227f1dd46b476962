"""Why are these one person? The path of evidence behind a customer, in words a person understands, with dates.

Reading and telling are apart: `explain` runs a few bounded statements, `tell` turns their rows into sentences and is pure. What is told
is for agents and for the business's own programs; nothing of it is ever shown to a customer. A browser's key is never shown at all.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Table, func, or_, select

from hub.conversations.wording import customer_name, iso
from hub.customers import joining, telling
from hub.customers.bonds import home_of
from hub.customers.resolution import PROVEN
from hub.customers.telling import Line, Rows
from hub.storage.reader import Reader
from hub.storage.records import CannotLink, Customer, Evidence, Identifier, JoinLog
from hub.storage.tables import metadata

__all__ = ["Explanation", "Line", "Link", "Rows", "Spelled", "Tie", "explain", "path", "read", "shown", "tell"]

MOST = 1_000  # rows of a kind that are read: more, and the oldest are told of
FAR = 10  # what a step over "they are at one home" costs: evidence between two identifiers tells more

_customer = metadata.tables["customer"]
_identifier = metadata.tables["identifier"]
_evidence = metadata.tables["evidence"]
_join_log = metadata.tables["join_log"]
_cannot = metadata.tables["cannot_link"]
_message = metadata.tables["message"]
_agent = metadata.tables["agent"]
_channel = metadata.tables["channel"]

Node = tuple[str, int]  # ("identifier", its id) or ("home", a customer row's id)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Tie:
    """A live join of two homes. `undoable` is false where the two would stay one customer by another tie."""

    join_id: int
    left_id: int
    right_id: int
    at: int
    text: str
    undoable: bool


@dataclass(frozen=True, slots=True)
class Spelled:
    """An identifier of the customer as people read it; `value` is empty for a browser, whose key is nobody's to see."""

    id: int
    kind: str
    site: str
    value: str
    text: str
    home_id: int
    proven: bool


@dataclass(frozen=True, slots=True)
class Link:
    """A step from one node of the evidence to another, with the sentence that makes it (none where they merely share a home)."""

    left: Node
    right: Node
    at: int
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a live customer is one person. `lines` tell all but the live joins, which `ties` tell, the oldest first each. `cut`: there is
    more than was read. Identifiers and links are what `path` walks."""

    customer_id: int
    name: str
    lines: tuple[Line, ...]
    ties: tuple[Tie, ...]
    identifiers: tuple[Spelled, ...] = ()
    links: tuple[Link, ...] = ()
    cut: bool = False

    @property
    def story(self) -> tuple[Line, ...]:
        """Lines and ties together, the oldest first."""
        return tuple(sorted((*self.lines, *(Line(tie.at, tie.text, "joined") for tie in self.ties)), key=lambda line: line.at))


# --- telling ---------------------------------------------------------------------------------------------------------


def tell(rows: Rows, zone: tzinfo = UTC) -> Explanation:
    """The rows as sentences, dates in `zone`. Pure."""
    words = telling.Words(rows, zone)
    homes = {one.id for one in rows.homes} | {rows.customer.id}
    live = joining.live(rows.ties)
    evidence = {one.id: one for one in rows.evidence}
    lines = [
        *telling.came(words),
        *telling.together(words),
        *telling.claimed(words),
        *telling.states(words),
        *telling.undone(words),
        *telling.parted(words, homes),
    ]
    ties = []
    links = [Link(("identifier", one.id), ("home", home_of(one)), one.first_seen, "") for one in rows.own]
    for row in sorted(live, key=lambda row: (row.at, row.id)):
        text = telling.tied(row, evidence, words)
        ties.append(Tie(row.id, row.left_id, row.right_id, row.at, text, telling.undoable(row, homes, live)))
        if {row.left_identifier, row.right_identifier} <= words.own:
            links.append(Link(("identifier", row.left_identifier or 0), ("identifier", row.right_identifier or 0), row.at, text))
        else:
            links.append(Link(("home", row.left_id), ("home", row.right_id), row.at, text))
    for one, other in telling.at_one_home(words):
        links.append(Link(("identifier", one.identifier_id), ("identifier", other.id), one.at, telling.proved_together(one, words)))
    spelled = tuple(
        Spelled(
            *(one.id, one.kind, one.site, "" if one.kind == "device" else one.value, words.called(one.id, first=True)),
            home_of(one),
            one.standing == PROVEN,
        )
        for one in sorted(rows.own, key=lambda one: (one.first_seen, one.id))
    )
    first = next((one for one in spelled if one.kind != "device"), spelled[0] if spelled else None)
    name = (
        customer_name(rows.customer.name, first.kind, first.value or first.kind) if first else customer_name(rows.customer.name, None, None)
    )
    return Explanation(rows.customer.id, name, tuple(sorted(lines, key=lambda line: line.at)), tuple(ties), spelled, tuple(links), rows.cut)


def shown(told: Explanation) -> dict[str, Any]:
    """An explanation as plain data, for a program: times as RFC 3339."""
    return {
        "customer_id": told.customer_id,
        "name": told.name,
        "story": [{"at": iso(line.at), "about": line.about, "text": line.text} for line in told.story],
        "joins": [
            {
                "join_id": tie.join_id,
                "left_id": tie.left_id,
                "right_id": tie.right_id,
                "at": iso(tie.at),
                "text": tie.text,
                "undoable": tie.undoable,
            }
            for tie in told.ties
        ],
        "complete": not told.cut,
    }


# --- the path between two identifiers --------------------------------------------------------------------------------


def path(explanation: Explanation, from_identifier: int, to_identifier: int) -> tuple[Line, ...] | None:
    """Why two identifiers of one customer are one person's: the shortest way through proofs and live joins, a sentence a step.

    None where one of them is not this customer's; empty for an identifier and itself.
    """
    steps: dict[Node, list[tuple[Node, Link]]] = {}
    for link in explanation.links:
        steps.setdefault(link.left, []).append((link.right, link))
        steps.setdefault(link.right, []).append((link.left, link))
    start, goal = ("identifier", from_identifier), ("identifier", to_identifier)
    if start not in steps or goal not in steps:
        return None
    reached: dict[Node, tuple[Node, Link] | None] = {}
    turn = itertools.count()  # of two ways that cost the same, the one found first
    waiting: list[tuple[int, int, Node, Node | None, Link | None]] = [(0, next(turn), start, None, None)]
    while waiting:
        cost, _, node, before, by = heapq.heappop(waiting)
        if node in reached:
            continue
        reached[node] = (before, by) if before is not None and by is not None else None
        if node == goal:
            return _steps(reached, goal, {one.id: one for one in explanation.identifiers})
        for following, link in steps[node]:
            if following not in reached:
                heapq.heappush(waiting, (cost + (1 if link.text else FAR), next(turn), following, node, link))
    return None


def _steps(reached: Mapping[Node, tuple[Node, Link] | None], goal: Node, known: Mapping[int, Spelled]) -> tuple[Line, ...]:
    way: list[tuple[Node, Link]] = []  # (the node come from, by which link), from the start on
    node = goal
    while (last := reached[node]) is not None:
        way.append(last)
        node = last[0]
    way.reverse()
    nodes = [before for before, _ in way] + [goal]
    told: list[Line] = []
    for index, (_, link) in enumerate(way):
        if link.text:
            told.append(Line(link.at, link.text, "joined"))
        elif nodes[index][0] == "home" and index and not way[index - 1][1].text:
            # Identifier, home, identifier: nothing was noted but that both belong to the same record.
            left, right = known[nodes[index - 1][1]], known[nodes[index + 1][1]]
            at = max(link.at, way[index - 1][1].at)
            told.append(Line(at, f"{left.text} and {right.text} have belonged to one record (#{left.home_id}) from the start.", "together"))
    return tuple(told)


# --- reading ---------------------------------------------------------------------------------------------------------


async def explain(customer_id: int, reader: Reader, labels: Mapping[int, str] | None = None, zone: tzinfo = UTC) -> Explanation | None:
    """Why a customer is one person; of a merged id, why its survivor is. None where there is no such customer.

    `labels` are the channels by id as people read them (else their configured names), `zone` is where dates are counted.
    Raises StorageBusy.
    """
    rows = await read(customer_id, reader, labels)
    return tell(rows, zone) if rows is not None else None


async def read(customer_id: int, reader: Reader, labels: Mapping[int, str] | None = None) -> Rows | None:
    """What `tell` is told: a bounded number of rows in a bounded number of statements, however much is known. Raises StorageBusy."""
    c = _customer.c
    live = await reader.value(select(func.coalesce(c.merged_into, c.id)).where(c.id == customer_id))
    if live is None:
        return None
    homes = await _all(Customer, _customer, or_(c.id == live, c.merged_into == live), reader)
    customer = next((one for one in homes if one.id == live), None)
    if customer is None:
        return None  # joined into somebody else between two reads; whoever asks again is told of the survivor
    ids = [one.id for one in homes]
    own = await _all(Identifier, _identifier, _identifier.c.customer_id == live, reader)
    spoke = [one.id for one in own]
    evidence = await _all(Evidence, _evidence, _evidence.c.identifier_id.in_(spoke), reader)
    j, n = _join_log.c, _cannot.c
    ties = await _all(JoinLog, _join_log, or_(j.left_id.in_(ids), j.right_id.in_(ids)), reader)
    cannot = await _all(CannotLink, _cannot, or_(n.left_id.in_(ids), n.right_id.in_(ids)), reader)
    cut = any(len(found) > MOST for found in (homes, own, evidence, ties, cannot))
    named = {id_ for row in ties for id_ in telling.ids_in(row.evidence_ids)} - {one.id for one in evidence}
    if named:
        evidence += await _all(Evidence, _evidence, _evidence.c.id.in_(sorted(named)[:MOST]), reader)
        evidence.sort(key=lambda one: one.id)
    seen = {id_ for one in evidence for id_ in (one.identifier_id, one.other_id)}
    seen |= {id_ for row in ties for id_ in (row.left_identifier, row.right_identifier)}
    foreign = sorted({id_ for id_ in seen if id_ is not None} - set(spoke))[:MOST]
    others = await _all(Identifier, _identifier, _identifier.c.id.in_(foreign), reader) if foreign else []
    ends = {id_ for row in ties for id_ in (row.left_id, row.right_id)} | {id_ for row in cannot for id_ in (row.left_id, row.right_id)}
    return Rows(
        customer,
        homes,
        own,
        others,
        evidence,
        ties,
        cannot,
        await _agents({row.actor for row in ties} | {row.actor for row in cannot}, reader),
        await _wrote(evidence, reader),
        {row.id: row.name for row in await reader.all(select(_channel.c.id, _channel.c.name).limit(MOST))} | dict(labels or {}),
        await _people(ends - set(ids), reader),
        cut,
    )


async def _all(record: Callable[..., R], table: Table, where: ColumnElement[bool], reader: Reader) -> list[R]:
    """Rows as records, oldest first; one more than is told of, to know that there are more."""
    return [record(*row) for row in await reader.all(select(*table.c).where(where).order_by(table.c.id).limit(MOST + 1))]


async def _agents(actors: Iterable[str], reader: Reader) -> dict[int, str]:
    numbers = {actor.removeprefix("agent:") for actor in actors if actor.startswith("agent:")}
    ids = sorted(int(number) for number in numbers if number.isdigit())
    if not ids:
        return {}
    return {row.id: row.name for row in await reader.all(select(_agent.c.id, _agent.c.name).where(_agent.c.id.in_(ids)))}


async def _wrote(evidence: Iterable[Evidence], reader: Reader) -> dict[int, tuple[int | None, int | None]]:
    """Who wrote the messages in which identifiers first appeared, and on which channel."""
    numbers = {one.source.removeprefix("message:") for one in evidence if one.other_id is None and one.source.startswith("message:")}
    ids = sorted(int(number) for number in numbers if number.isdigit())
    if not ids:
        return {}
    m = _message.c
    rows = await reader.all(select(m.id, m.channel_id, m.identifier_id).where(m.id.in_(ids)))
    return {row.id: (row.channel_id, row.identifier_id) for row in rows}


async def _people(homes: Collection[int], reader: Reader) -> dict[int, tuple[int, str]]:
    """The live customers that other homes are part of: home -> (id, name)."""
    if not homes:
        return {}
    one, live = _customer.alias("one"), _customer.alias("live")
    rows = await reader.all(
        select(one.c.id.label("home"), live.c.id, live.c.name)
        .select_from(one.join(live, live.c.id == func.coalesce(one.c.merged_into, one.c.id)))
        .where(one.c.id.in_(sorted(homes)[:MOST]))
    )
    return {row.home: (row.id, row.name) for row in rows}
