"""May these two be one person? The rule, apart from doing it: pure, over what is known of both.

Proof joins (law 6), within bounds that proof alone does not see: nobody has two accounts of one site, what a person said apart stays
apart, and what ties more people than a person has ties nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from enum import Enum
from typing import Protocol

from hub.policy import DAY
from hub.storage.records import CannotLink, Identifier, JoinLog

PROVEN = "proven"
ASSERTED = "asserted"

YEAR = 365 * DAY
MOST_ADDRESSES = 5  # of one kind that a customer proves within a year; Segment's start value
MOST_JOINS = 25  # ties of one customer before a person looks
MOST_PEOPLE = 3  # that one identifier ties together before it counts as shared
ADDRESSES = frozenset({"phone", "email"})


class Verdict(Enum):
    """What follows where proof says two customers are one."""

    JOIN = "join"
    SHARED = "shared"  # the identifier is two people's: it ties nobody from now on
    APART = "apart"  # two people, and nothing wrong with the identifier: a browser somebody else used before
    PARTED = "parted"  # a person said they are two: ask again, and join nothing
    MANY = "many"  # over a limit: a person should look


class Named(Protocol):
    """The part of an identifier, or of a claim, that the rule reads."""

    @property
    def kind(self) -> str: ...
    @property
    def site(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def standing(self) -> str: ...


def accounts(of: Iterable[Named]) -> set[tuple[str, str]]:
    """The sites' accounts among these identifiers: (site, id)."""
    return {(one.site, one.value) for one in of if one.kind == "user_id" and one.standing == PROVEN}


def two_accounts(left: Iterable[Named], right: Iterable[Named]) -> bool:
    """Whether one person would have two accounts of one site: then they are two."""
    own, other = accounts(left), accounts(right)
    return any(site == site2 and value != value2 for site, value in own for site2, value2 in other)


def verdict(
    bridge: Named,
    left: Sequence[Identifier],
    right: Sequence[Identifier],
    *,
    speaking: Iterable[Named] = (),
    parted: bool = False,
    ties: Collection[JoinLog] = (),
    tied_by_bridge: int = 0,
    now: int = 0,
) -> Verdict:
    """Whether two customers may be joined over an identifier that is proven on both sides.

    `speaking` is what the event itself proves of the left one, `ties` the live ties of both, `tied_by_bridge` how many others the
    identifier has joined already.
    """
    if two_accounts([*left, *speaking], right):
        return Verdict.SHARED if bridge.kind in ADDRESSES else Verdict.APART
    if parted:
        return Verdict.PARTED
    if bridge.kind in ADDRESSES and tied_by_bridge >= MOST_PEOPLE:
        return Verdict.SHARED
    if len(ties) >= MOST_JOINS or any(_many(kind, left, right, now) for kind in ADDRESSES):
        return Verdict.MANY
    return Verdict.JOIN


def _many(kind: str, left: Sequence[Identifier], right: Sequence[Identifier], now: int) -> bool:
    values = {i.value for i in (*left, *right) if (i.kind, i.standing) == (kind, PROVEN) and now - i.first_seen <= YEAR}
    return len(values) > MOST_ADDRESSES


def live(rows: Iterable[JoinLog]) -> list[JoinLog]:
    """The ties that no later row undid."""
    kept = {row.id: row for row in rows if row.op in ("join", "merge")}
    for row in rows:
        if row.undoes is not None:
            kept.pop(row.undoes, None)
    return list(kept.values())


def parted(left: Collection[int], right: Collection[int], rows: Iterable[CannotLink]) -> list[CannotLink]:
    """What somebody said that parts these homes from those, if it still holds."""
    return [
        row
        for row in rows
        if row.ended_at is None and ((row.left_id in left and row.right_id in right) or (row.left_id in right and row.right_id in left))
    ]


def components(homes: Iterable[int], ties: Iterable[JoinLog]) -> list[set[int]]:
    """Which homes are one customer by these ties, the one with the lowest id first."""
    group = {home: {home} for home in homes}
    for tie in ties:
        left, right = group.get(tie.left_id), group.get(tie.right_id)
        if left is None or right is None or left is right:
            continue
        left |= right
        for home in right:
            group[home] = left
    return sorted({id(one): one for one in group.values()}.values(), key=min)
