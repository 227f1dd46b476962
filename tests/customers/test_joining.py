"""May these two be one person: the rule as a table (law 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from hub.customers import joining
from hub.customers.joining import (
    ASSERTED,
    MOST_ADDRESSES,
    MOST_JOINS,
    MOST_PEOPLE,
    PROVEN,
    YEAR,
    Verdict,
    components,
    live,
    parted,
    verdict,
)
from hub.storage.records import CannotLink, Identifier, JoinLog

NOW = 1_800_000_000_000_000


def one(kind: str, value: str, *, site: str = "", standing: str = PROVEN, seen: int = NOW) -> Identifier:
    return Identifier(1, kind, site, value, standing, 0, 1, "channel", value, seen, seen, 1)


def user(value: str, site: str = "shop", standing: str = PROVEN) -> Identifier:
    return one("user_id", value, site=site, standing=standing)


def mails(many: int, start: int = 0, **how: Any) -> list[Identifier]:
    return [one("email", f"{n}@example.com", **how) for n in range(start, start + many)]


def tie(id_: int, left: int = 1, right: int = 2, *, op: str = "join", undoes: int | None = None) -> JoinLog:
    return JoinLog(id_, op, left, right, "[]", "proved together", "hub", NOW, undoes)


PHONE, MAIL, BROWSER, ACCOUNT = one("phone", "+12025550123"), one("email", "a@example.com"), one("device", "d"), user("u1")
MANY_TIES = [tie(n) for n in range(MOST_JOINS)]

# (why, bridge, left, right, and what else is known) -> verdict
TABLE: list[tuple[str, Identifier, list[Identifier], list[Identifier], dict[str, Any], Verdict]] = [
    ("proven on both sides", PHONE, [MAIL], [PHONE], {}, Verdict.JOIN),
    ("nothing known of the speaker yet", PHONE, [], [PHONE], {}, Verdict.JOIN),
    ("two accounts of one site, by an address", MAIL, [ACCOUNT], [user("u2"), MAIL], {}, Verdict.SHARED),
    ("two accounts of one site, by a number", PHONE, [ACCOUNT], [user("u2"), PHONE], {}, Verdict.SHARED),
    ("two accounts of one site, by a browser", BROWSER, [ACCOUNT], [user("u2"), BROWSER], {}, Verdict.APART),
    ("the account is only now told", MAIL, [], [user("u2"), MAIL], {"speaking": [ACCOUNT]}, Verdict.SHARED),
    ("the same account on both", MAIL, [ACCOUNT], [user("u1"), MAIL], {}, Verdict.JOIN),
    ("accounts of two sites", MAIL, [ACCOUNT], [user("u2", "outlet"), MAIL], {}, Verdict.JOIN),
    ("an account nobody proved", MAIL, [ACCOUNT], [user("u2", standing=ASSERTED), MAIL], {}, Verdict.JOIN),
    ("somebody said they are two", PHONE, [MAIL], [PHONE], {"parted": True}, Verdict.PARTED),
    ("two accounts outweigh what somebody said", MAIL, [ACCOUNT], [user("u2"), MAIL], {"parted": True}, Verdict.SHARED),
    ("tied a few already", PHONE, [MAIL], [PHONE], {"tied_by_bridge": MOST_PEOPLE - 1}, Verdict.JOIN),
    ("ties more than a person has", PHONE, [MAIL], [PHONE], {"tied_by_bridge": MOST_PEOPLE}, Verdict.SHARED),
    ("an account may tie any number", ACCOUNT, [MAIL], [ACCOUNT], {"tied_by_bridge": MOST_PEOPLE}, Verdict.JOIN),
    ("what somebody said comes before counting", PHONE, [MAIL], [PHONE], {"parted": True, "tied_by_bridge": 9}, Verdict.PARTED),
    ("one tie short of the most", PHONE, [MAIL], [PHONE], {"ties": MANY_TIES[1:]}, Verdict.JOIN),
    ("as many ties as a person looks at", PHONE, [MAIL], [PHONE], {"ties": MANY_TIES}, Verdict.MANY),
    ("as many addresses as are plausible", MAIL, mails(3), mails(MOST_ADDRESSES - 3, 3), {}, Verdict.JOIN),
    ("one address more", MAIL, mails(3), mails(MOST_ADDRESSES - 2, 3), {}, Verdict.MANY),
    ("one more, but the same on both sides", MAIL, mails(3), mails(MOST_ADDRESSES - 2, 2), {}, Verdict.JOIN),
    ("one more, but older than a year", MAIL, mails(3, seen=NOW - YEAR - 1), mails(MOST_ADDRESSES - 2, 3), {}, Verdict.JOIN),
    ("one more, but unproven", MAIL, mails(3, standing=ASSERTED), mails(MOST_ADDRESSES - 2, 3), {}, Verdict.JOIN),
    ("browsers are no addresses", BROWSER, [one("device", str(n)) for n in range(9)], [BROWSER], {}, Verdict.JOIN),
]


@pytest.mark.parametrize(("bridge", "left", "right", "more", "wanted"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_two_customers_over_an_identifier_proven_on_both_sides(
    bridge: Identifier, left: list[Identifier], right: list[Identifier], more: dict[str, Any], wanted: Verdict
) -> None:
    assert verdict(bridge, left, right, now=NOW, **more) is wanted


def test_the_table_has_every_verdict() -> None:
    assert {row[-1] for row in TABLE} == set(Verdict)


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([], []),
        ([tie(1), tie(2, op="merge")], [1, 2]),
        ([tie(1), tie(2, op="unmerge", undoes=1)], []),
        ([tie(2, op="split", undoes=1), tie(1)], []),  # in whatever order they come
        ([tie(1), tie(2), tie(3, op="share", undoes=1)], [2]),
        ([tie(1, op="merge"), tie(2, op="unmerge", undoes=1), tie(3, op="merge")], [3]),  # merged again
    ],
    ids=["none", "a join and a merge", "undone", "undone before it is read", "one of two", "merged again"],
)
def test_a_tie_lives_until_a_row_undoes_it(rows: list[JoinLog], kept: list[int]) -> None:
    assert [row.id for row in live(rows)] == kept


def said(left: int, right: int, ended: int | None = None) -> CannotLink:
    return CannotLink(left * 10 + right, left, right, "agent:7", NOW, ended)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (said(1, 3), True),
        (said(3, 1), True),  # whichever was named first
        (said(2, 4), True),  # by any of their homes
        (said(1, 2), False),  # within one of them
        (said(1, 5), False),  # from somebody else
        (said(1, 3, ended=NOW), False),  # an agent merged them since
    ],
)
def test_what_somebody_said_parts_these_homes_from_those(row: CannotLink, parts: bool) -> None:
    assert bool(parted({1, 2}, {3, 4}, [row])) is parts


@pytest.mark.parametrize(
    ("homes", "pairs", "wanted"),
    [
        ([1, 2, 3], [], [{1}, {2}, {3}]),
        ([3, 1, 2], [(2, 3)], [{1}, {2, 3}]),
        ([1, 2, 3, 4], [(1, 2), (3, 4), (2, 3)], [{1, 2, 3, 4}]),
        ([1, 2, 3], [(1, 2), (1, 2), (2, 1)], [{1, 2}, {3}]),
        ([1, 2], [(1, 9), (9, 2)], [{1}, {2}]),  # a home that is not asked about ties nobody
        ([5, 4, 3, 2, 1], [(5, 4), (4, 3), (3, 2), (2, 1)], [{1, 2, 3, 4, 5}]),
    ],
)
def test_ties_make_components_the_oldest_first(homes: Sequence[int], pairs: list[tuple[int, int]], wanted: list[set[int]]) -> None:
    assert components(homes, [tie(n, *pair) for n, pair in enumerate(pairs)]) == wanted


def test_accounts_are_told_apart_by_their_site() -> None:
    assert joining.accounts([ACCOUNT, user("u1", "outlet"), user("u9", standing=ASSERTED), MAIL]) == {("shop", "u1"), ("outlet", "u1")}
