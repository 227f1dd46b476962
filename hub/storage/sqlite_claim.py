"""What of the outbox may be claimed now, on SQLite: a bounded look, whatever waits.

The head of a lane is its oldest row still owed; one of unknown fate keeps the lane shut until its `due_at`. Each target is looked
at by itself through an index, so that what waits for one that is shut costs the others nothing; of each target only the first
rows due are looked at. Where those are all behind their lanes' heads, some lanes are looked at instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from hub.storage.columns import listed
from hub.storage.facts import FURTHEST

Execute = Callable[..., Any]

LOOK_AHEAD = 128  # rows of a target, and lanes
EVER = 2**62
STRIDES = (2_654_435_761, 2_246_822_519)  # large primes: from one microsecond to the next they lead anywhere

# Every pair of kind and target that has something queued, by leaping through the index.
TARGETS = (
    "WITH RECURSIVE t(kind, target) AS ("
    "SELECT * FROM (SELECT kind, target FROM delivery WHERE state = 'queued' ORDER BY kind, target LIMIT 1) "
    "UNION ALL SELECT n.kind, n.target FROM t JOIN delivery n ON n.id = coalesce("  # two leaps: the index takes no pair in one
    "(SELECT d.id FROM delivery d WHERE d.state = 'queued' AND d.kind = t.kind AND d.target > t.target ORDER BY d.target LIMIT 1), "
    "(SELECT d.id FROM delivery d WHERE d.state = 'queued' AND d.kind > t.kind ORDER BY d.kind, d.target LIMIT 1))) "
    "SELECT kind, target FROM t"
)
_HEAD = (
    "NOT EXISTS (SELECT 1 FROM delivery e WHERE e.lane = d.lane AND e.id < d.id "  # noqa: S608
    f"AND e.state IN ('queued','sending','unknown') AND (e.state <> 'unknown' OR (e.due_at > ?1 AND e.due_at <= ?1 + {FURTHEST})))"
)
DUE = (
    f"SELECT {listed('delivery', 'd')} FROM (SELECT id AS near FROM delivery WHERE state = 'queued' AND kind = ?2 AND target = ?3 "  # noqa: S608
    f"AND due_at > ?4 AND due_at <= ?5 ORDER BY due_at, id LIMIT {LOOK_AHEAD}) CROSS JOIN delivery d ON d.id = near WHERE {_HEAD} LIMIT ?6"
)
MORE = f"SELECT 1 FROM delivery WHERE state = 'queued' AND kind = ?1 AND target = ?2 AND due_at <= ?3 LIMIT 1 OFFSET {LOOK_AHEAD}"  # noqa: S608
# The first and the last queued row of a target, in the order of `ix_delivery_due`.
ENDS = tuple(
    f"SELECT due_at, id FROM delivery WHERE state = 'queued' AND kind = ?1 AND target = ?2 ORDER BY due_at {way}, id {way} LIMIT 1"  # noqa: S608
    for way in ("ASC", "DESC")
)
# Heads that are due, of the lanes that follow (by name) the lane of one queued row.
LANES = (
    "WITH RECURSIVE l(lane) AS (SELECT lane FROM delivery WHERE id = coalesce("  # noqa: S608
    "(SELECT id FROM delivery WHERE state = 'queued' AND kind = ?2 AND target = ?3 AND due_at = ?5 AND id >= ?6 ORDER BY id LIMIT 1), "
    "(SELECT id FROM delivery WHERE state = 'queued' AND kind = ?2 AND target = ?3 AND due_at > ?5 ORDER BY due_at, id LIMIT 1)) "
    "UNION ALL SELECT n.lane FROM l JOIN delivery n ON n.id = (SELECT e.id FROM delivery e WHERE e.lane > l.lane "
    f"AND e.state IN ('queued','sending','unknown') ORDER BY e.lane, e.id LIMIT 1) LIMIT {LOOK_AHEAD}) "
    f"SELECT {listed('delivery', 'd')} FROM l CROSS JOIN delivery d ON d.id = (SELECT e.id FROM delivery e WHERE e.lane = l.lane "
    "AND e.state IN ('queued','sending','unknown') AND (e.state <> 'unknown' OR (e.due_at > ?1 AND e.due_at <= ?1 + {furthest})) "
    "ORDER BY e.id LIMIT 1) WHERE d.state = 'queued' AND d.kind = ?2 AND d.target = ?3 AND d.due_at <= ?1 LIMIT ?4"
).replace("{furthest}", str(FURTHEST))
# Few at any time: what is under way.
ABANDONED = f"SELECT {listed('delivery', 'd')} FROM delivery d WHERE d.state = 'sending' AND d.lease_until <= ?1 AND {_HEAD}"  # noqa: S608


def claimable(execute: Execute, now: int, each: int, without: Collection[tuple[str, str]]) -> list[tuple[Any, ...]]:
    """Rows of deliveries that are due and head their lane: at most `each` to one target, none to those named; the oldest first."""
    rows: list[tuple[Any, ...]] = execute(ABANDONED, (now,)).fetchall()
    for target in execute(TARGETS).fetchall():
        if target in without:
            continue
        # What is due further ahead than anything is put off was noted by a clock that has been set back.
        found = execute(DUE, (now, *target, now + FURTHEST, EVER, each)).fetchall()
        found += execute(DUE, (now, *target, -EVER, now, each)).fetchall()
        if len(found) < each and execute(MORE, (*target, now)).fetchone() is not None:
            found += _of_other_lanes(execute, now, target, each, {row[0] for row in found})
        rows += found[:each]
    return rows


def _of_other_lanes(execute: Execute, now: int, target: tuple[str, str], each: int, known: set[int]) -> list[tuple[Any, ...]]:
    # Every look begins elsewhere, so that each lane's turn comes.
    first, last = (execute(sql, target).fetchone() for sql in ENDS)
    start = (
        low + now * stride % (high - low + 1)
        for low, high, stride in zip(map(min, first, last), map(max, first, last), STRIDES, strict=True)
    )
    rows = execute(LANES, (now, *target, each, *start)).fetchall()
    return [row for row in rows if row[0] not in known]
