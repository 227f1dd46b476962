"""What the pages about holds show: who is held, how marketing tools stand, what is coming and what was sent.

Statements first, the same on every engine, then pure functions over their rows. Nothing here changes anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, case, func, literal_column, or_, select

from hub.holds.ledger import NAMES
from hub.policy import DAY, SECOND
from hub.storage.tables import metadata

MOST_TIMINGS = 5_000  # of the newest confirmations that figures are made of
MOST_NAMED = 50  # marks listed of one state
MOST_LEAKS = 20  # campaigns that the plot of leaks names
MOST_ALARMS = 50
MOST_ADDRESSES = 200  # of one customer
STATES = ("effective", "confirmed", "accepted", "pending", "drifted", "failed", "absent")
TIMED = ("mark.accepted", "mark.confirmed", "mark.effective")

_customer = metadata.tables["customer"]
_hold = metadata.tables["hold"]
_ledger = metadata.tables["hold_ledger"]
_mark = metadata.tables["mark"]
_alarm = metadata.tables["alarm"]
_proof = metadata.tables["proof"]
_seen = metadata.tables["campaign_seen"]
_send = metadata.tables["send_seen"]
_delivery = metadata.tables["delivery"]
_identifier = metadata.tables["identifier"]

Cursor = tuple[int, int]  # (time, number): what was shown last

# --- statements: who is held -------------------------------------------------------------------------------------------


def active(now: int) -> ColumnElement[bool]:
    """Whether a hold holds now."""
    return and_(_hold.c.released_at.is_(None), _hold.c.lease_until > now)


def held_count(now: int) -> Select[Any]:
    """How many customers are held."""
    return select(func.count(_hold.c.customer_id.distinct())).where(active(now))


def customer_count() -> Select[Any]:
    """How many customers there are."""
    return select(func.count()).select_from(_customer).where(_customer.c.merged_into.is_(None))


def reason_counts(now: int) -> Select[Any]:
    """(reason, n): how many customers each reason holds."""
    return select(_hold.c.reason, func.count(_hold.c.customer_id.distinct()).label("n")).where(active(now)).group_by(_hold.c.reason)


def scopes(now: int) -> Select[Any]:
    """The different scopes of the holds there are: few."""
    return select(_hold.c.scope).distinct().where(active(now))


def held(
    now: int, *, reason: str = "", scopes: Collection[str] | None = None, newest: bool = False, after: Cursor | None = None, limit: int
) -> Select[Any]:
    """(customer_id, since) of the customers held now, those held longest first, or last; `after` is the last one shown."""
    since = func.min(_hold.c.placed_at)
    statement = select(_hold.c.customer_id, since.label("since")).where(active(now)).group_by(_hold.c.customer_id)
    if reason:
        statement = statement.where(_hold.c.reason == reason)
    if scopes is not None:
        statement = statement.where(_hold.c.scope.in_(list(scopes)))
    if after is not None:
        at, id_ = after
        further = since < at if newest else since > at
        statement = statement.having(or_(further, and_(since == at, _hold.c.customer_id > id_)))
    return statement.order_by(since.desc() if newest else since, _hold.c.customer_id).limit(limit)


def holding(customer_ids: Collection[int], now: int) -> Select[Any]:
    """Every hold of these customers that holds now."""
    return select(_hold).where(_hold.c.customer_id.in_(customer_ids), active(now)).order_by(_hold.c.placed_at, _hold.c.id)


def held_at(moments: Sequence[int]) -> Select[Any]:
    """How many customers were held at each of these moments, as the holds remember; one row of so many numbers."""
    over = func.coalesce(_hold.c.released_at, _hold.c.lease_until)
    columns: list[Any] = []
    for number, at in enumerate(moments):
        then = and_(_hold.c.placed_at <= at, over > at, _hold.c.lease_until > at)
        columns.append(func.count(case((then, _hold.c.customer_id)).distinct()).label(f"n{number}"))
    return select(*columns).where(or_(_hold.c.released_at.is_(None), _hold.c.released_at > min(moments)))


def raised() -> Select[Any]:
    """The alarms that are raised, the gravest first."""
    grave = case((_alarm.c.level == "critical", 0), else_=1)
    return select(_alarm).where(_alarm.c.ended_at.is_(None)).order_by(grave, _alarm.c.raised_at.desc(), _alarm.c.id).limit(MOST_ALARMS + 1)


# --- statements: one customer ------------------------------------------------------------------------------------------


def _homes(customer_id: int) -> Select[Any]:
    return select(_customer.c.id).where(or_(_customer.c.id == customer_id, _customer.c.merged_into == customer_id))


def history(customer_id: int, before: int | None, limit: int) -> Select[Any]:
    """What was done to a customer's holds, newest first; entries below `before`."""
    columns = (_hold.c.actor, _hold.c.note, _hold.c.ends_at)
    statement = (
        select(_ledger, *columns)
        .select_from(_ledger.outerjoin(_hold, _hold.c.id == _ledger.c.hold_id))
        .where(_ledger.c.customer_id.in_(_homes(customer_id)))
    )
    if before is not None:
        statement = statement.where(_ledger.c.id < before)
    return statement.order_by(_ledger.c.id.desc()).limit(limit)


def marks_of(customer_id: int) -> Select[Any]:
    """How a customer's identifiers stand in every tool."""
    order = (_mark.c.destination, _mark.c.kind, _mark.c.value)
    return select(_mark).where(_mark.c.customer_id.in_(_homes(customer_id))).order_by(*order).limit(MOST_ADDRESSES)


def addresses(customer_id: int) -> Select[Any]:
    """(kind, value) a customer is known by: what was sent is looked up by these."""
    here = select(_identifier.c.kind, _identifier.c.value).where(_identifier.c.customer_id == customer_id)
    return here.where(_identifier.c.kind.in_(list(NAMES)), _identifier.c.ended_at.is_(None)).limit(MOST_ADDRESSES)


def sends_to(found: Collection[tuple[str, str]], limit: int) -> Select[Any]:
    """Marketing messages sent to any of these (kind as `addresses` tells it, value), newest first."""
    named = or_(*(and_(_send.c.value == value, _send.c.kind == NAMES[kind]) for kind, value in found))
    return select(_send).where(named, _send.c.customer_id.is_not(None)).order_by(_send.c.at.desc(), _send.c.id.desc()).limit(limit)


# --- statements: tools -------------------------------------------------------------------------------------------------


def state_counts() -> Select[Any]:
    """(destination, state, n): how many identifiers stand how."""
    columns = (_mark.c.destination, _mark.c.state)
    return select(*columns, func.count().label("n")).group_by(*columns)


def marks_in(destination: str, states: Collection[str], limit: int = MOST_NAMED) -> Select[Any]:
    """The marks of a tool in these states, the one that waits longest first."""
    return (
        select(_mark)
        .where(_mark.c.destination == destination, _mark.c.state.in_(list(states)))
        .order_by(_mark.c.asked_at, _mark.c.id)
        .limit(limit)
    )


def timings(destination: str, since: int) -> Select[Any]:
    """(type, at, data) of the newest steps of this tool's marks since then, as the chain of proof has them (it finds them by time)."""
    return (
        select(_proof.c.type, _proof.c.at, _proof.c.data)
        .where(_proof.c.type.in_(TIMED), _proof.c.at >= since, _proof.c.destination == destination)
        .order_by(_proof.c.at.desc())
        .limit(MOST_TIMINGS)
    )


def backlog() -> Select[Any]:
    """(kind, target, state, n, oldest) of what destinations are still owed."""
    d = _delivery.c
    # Spelled out as the index has it: only so does a partial index apply.
    owed = d.state.in_([literal_column(f"'{state}'") for state in ("queued", "sending", "unknown")])
    columns = (d.kind, d.target, d.state)
    return (
        select(*columns, func.count().label("n"), func.min(d.created_at).label("oldest"))
        .where(owed, d.kind.in_(("mark", "hold")))
        .group_by(*columns)
    )


def given_up() -> Select[Any]:
    """(kind, target, n) of what destinations were owed and did not get."""
    d = _delivery.c
    shown = d.state.in_([literal_column(f"'{state}'") for state in ("failed", "unknown")])
    return (
        select(d.kind, d.target, func.count().label("n"))
        .where(shown, d.state == "failed", d.kind.in_(("mark", "hold")))
        .group_by(d.kind, d.target)
    )


# --- statements: campaigns and sends -----------------------------------------------------------------------------------


def campaigns(limit: int = 100) -> Select[Any]:
    """Campaigns that are coming, the next first, then those that are gone, the last first."""
    gone = _seen.c.gone_at.is_not(None)
    order = (case((gone, 1), else_=0), case((gone, -_seen.c.gone_at), else_=func.coalesce(_seen.c.send_at, 0)), _seen.c.id)
    return select(_seen).order_by(*order).limit(limit)


def campaign(id_: int) -> Select[Any]:
    """One campaign that was seen."""
    return select(_seen).where(_seen.c.id == id_)


def sends(*, leaks: bool, tool: str = "", cause: str = "", campaign: str = "", before: Cursor | None = None, limit: int) -> Select[Any]:
    """Marketing messages tools reported, newest first: leaks, or all of them."""
    s = _send.c
    statement = select(_send)
    if leaks:
        statement = statement.where(s.leak)
    for column, value in ((s.destination, tool), (s.cause, cause), (s.campaign_id, campaign)):
        if value:
            statement = statement.where(column == value)
    if before is not None:
        statement = statement.where(or_(s.at < before[0], and_(s.at == before[0], s.id < before[1])))
    return statement.order_by(s.at.desc(), s.id.desc()).limit(limit)


def leak_counts(since: int) -> Select[Any]:
    """(destination, campaign_id, campaign, cause, n) of the leaks since then."""
    s = _send.c
    columns = (s.destination, s.campaign_id, s.cause)
    counted = select(*columns, func.max(s.campaign).label("campaign"), func.count().label("n"))
    return counted.where(s.leak, s.at >= since).group_by(*columns)


# --- figures -----------------------------------------------------------------------------------------------------------


def binds(scope: str, brand: str) -> bool:
    """Whether a hold of this scope keeps messages of this brand back. Pure."""
    return str(json.loads(scope).get("brand", brand)) == brand


def confined(scope: str) -> str:
    """What a hold is confined to, in words; empty where it holds everything. Pure."""
    said = json.loads(scope)
    channels = said.get("channels", ["*"])
    parts = [str(said["brand"])] if said.get("brand") else []
    return ", ".join([*parts, *(str(name) for name in channels if name != "*")])


def midnights(now: int, zone: tzinfo, days: int) -> list[int]:
    """The last so many midnights of a time zone, oldest first, in microseconds UTC. Pure."""
    today = datetime.fromtimestamp(now / SECOND, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    # By the wall clock: where a day has 23 hours its midnight is still a midnight.
    return [int((today - timedelta(days=ago)).timestamp()) * SECOND for ago in reversed(range(days))]


def percentile(values: Sequence[int], share: float) -> int | None:
    """The value that this share of the values (sorted, ascending) does not exceed: the nearest rank. None of nothing. Pure."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else None


class Delay(NamedTuple):
    """How long a step took, in milliseconds."""

    n: int
    p50: int | None
    p95: int | None

    @classmethod
    def of(cls, took: Iterable[int]) -> Delay:
        ordered = sorted(took)
        return cls(len(ordered), percentile(ordered, 0.5), percentile(ordered, 0.95))


# Upper ends of the bars of a histogram, in milliseconds, and what each bar is called; the last has no end.
BINS: tuple[tuple[int, str], ...] = (
    *((1_000, "1 s"), (5_000, "5 s"), (15_000, "15 s"), (30_000, "30 s"), (60_000, "1 min"), (120_000, "2 min")),
    *((300_000, "5 min"), (900_000, "15 min"), (3_600_000, "1 h")),
)
LONGER = "longer"


class Bin(NamedTuple):
    label: str
    n: int


def histogram(took: Iterable[int]) -> list[Bin]:
    """How many of these (milliseconds) were no longer than each end of BINS, and not than the one before. Pure."""
    counts = [0] * (len(BINS) + 1)
    for one in took:
        counts[next((at for at, (end, _) in enumerate(BINS) if one <= end), len(BINS))] += 1
    labels = [*(f"up to {name}" for _, name in BINS), LONGER]
    return [Bin(label, count) for label, count in zip(labels, counts, strict=True)]


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a tool shows holds, of the steps of the last days: `took` is milliseconds from asked to confirmed, with when."""

    accepted: Delay
    confirmed: Delay
    effective: Delay
    took: tuple[tuple[int, int], ...]  # (at, milliseconds), newest first
    cut: bool  # there were more than could be looked at


def speed(rows: Sequence[Any]) -> Speed:
    """Figures of what `timings` found. Pure. Releases do not count: nobody is reached by mistake for being let go late."""
    times: dict[str, list[tuple[int, int]]] = {type_: [] for type_ in TIMED}
    for row in rows:
        said = json.loads(row.data)
        if not said.get("held"):
            continue
        took = said.get("took_ms")
        if took is None and "asked_at" in said:
            took = row.at // 1_000 - round(datetime.fromisoformat(said["asked_at"]).timestamp() * 1_000)
        if took is not None:
            times[row.type].append((row.at, max(0, int(took))))
    accepted, confirmed, effective = (Delay.of(ms for _, ms in times[type_]) for type_ in TIMED)
    return Speed(accepted, confirmed, effective, tuple(times["mark.confirmed"]), len(rows) >= MOST_TIMINGS)


def by_day(took: Iterable[tuple[int, int]], starts: Sequence[int]) -> list[Delay]:
    """The delays of each day; `starts` are the days' beginnings, oldest first, the last day is today. Pure."""
    days: list[list[int]] = [[] for _ in starts]
    for at, ms in took:
        day = sum(start <= at for start in starts) - 1
        if day >= 0:
            days[day].append(ms)
    return [Delay.of(day) for day in days]


def lasted(ms: int | None) -> str:
    """A length of time as people read it. Pure."""
    if ms is None:
        return "not yet"
    if ms < 100:
        return f"{ms} ms"
    if ms < 9_950:
        return f"{ms / 1_000:.1f} s"
    seconds = round(ms / 1_000)
    for size, unit, under in ((1, "s", 120), (60, "min", 120 * 60), (3_600, "h", 48 * 3_600)):
        if seconds < under:
            return f"{round(seconds / size)} {unit}"
    return f"{round(seconds / (DAY // SECOND))} days"


def took_until(asked_at: int, done_at: int | None) -> int | None:
    """Milliseconds from asked to done, or None: not done since it was asked last. Pure."""
    return None if done_at is None or done_at < asked_at else (done_at - asked_at) // 1_000


class LeakyCampaign(NamedTuple):
    """A campaign that reached customers on hold, and why how often."""

    destination: str
    campaign_id: str
    name: str
    n: int
    causes: Mapping[str, int]


def leaky(rows: Iterable[Any]) -> tuple[dict[str, int], list[LeakyCampaign]]:
    """What `leak_counts` found, (by cause, by campaign), the worst first. Pure."""
    causes: dict[str, int] = {}
    campaigns: dict[tuple[str, str], tuple[str, dict[str, int]]] = {}
    for row in rows:
        causes[row.cause] = causes.get(row.cause, 0) + row.n
        _, of = campaigns.setdefault((row.destination, row.campaign_id), (row.campaign or row.campaign_id, {}))
        of[row.cause] = of.get(row.cause, 0) + row.n
    worst = [LeakyCampaign(*key, name, sum(of.values()), of) for key, (name, of) in campaigns.items()]
    worst.sort(key=lambda one: (-one.n, one.destination, one.name))
    return dict(sorted(causes.items(), key=lambda item: (-item[1], item[0]))), worst[:MOST_LEAKS]
