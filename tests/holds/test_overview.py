"""What the pages about holds show: the same rows on every engine, and figures that are right at their edges."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from hub.holds import overview
from hub.holds.ledger import iso
from hub.holds.overview import Delay
from hub.holds.reverted import NoteReverted
from hub.storage.marketing_records import Alarm, CampaignSeen, Mark, ProofRow, SendSeenRow
from hub.storage.reader import Reader
from hub.storage.records import Customer, Delivery, Hold, HoldLedger, Identifier
from tests.storage import ENGINES, Store, open_store
from tests.web import Insert

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
ANY, DEFAULT, MAIL = '{"channels": ["*"]}', '{"brand": "default", "channels": ["*"]}', '{"channels": ["email"]}'


@pytest.fixture(params=ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with open_store(tmp_path, engine=request.param) as opened:
        yield opened


@pytest.fixture
async def reader(store: Store) -> AsyncIterator[Reader]:
    built = store.reader()
    yield built
    await built.close()


def hold(id_: int, customer: int, placed: int, reason: str = "open_ticket", scope: str = ANY, until: int = 5 * DAY, **more: Any) -> Hold:
    """Placed so long ago, its lease running for so long from now."""
    return Hold(id_, customer, reason, f"ticket:{id_}", scope, NOW - placed, NOW + until, **more)


HELD = (
    *(Customer(n, f"Customer {n}", NOW) for n in (1, 2, 3, 4, 5)),
    Customer(6, "Merged", NOW, 0, 1),
    hold(1, 1, 9 * DAY),
    hold(2, 1, 1 * DAY, "complaint", DEFAULT),
    hold(3, 2, 5 * DAY, scope=MAIL),
    hold(4, 3, 9 * DAY, released_at=NOW - 8 * DAY),  # let go
    hold(5, 4, 9 * DAY, until=-6 * DAY),  # its lease ran out by itself
    hold(6, 5, 5 * DAY, "complaint", DEFAULT),
)


async def ids(reader: Reader, **asked: Any) -> list[int]:
    return [row.customer_id for row in await reader.all(overview.held(NOW, **{"limit": 10, **asked}))]


async def test_only_whoever_is_held_now_is_listed_the_oldest_first(store: Store, reader: Reader) -> None:
    await store.run(Insert(HELD))
    assert await ids(reader) == [1, 2, 5]
    assert await ids(reader, newest=True) == [2, 5, 1]
    assert await ids(reader, reason="complaint") == [5, 1]  # since when, is then since when for that reason
    assert await ids(reader, scopes=[DEFAULT]) == [5, 1]
    assert await ids(reader, scopes=[]) == []
    assert await reader.value(overview.held_count(NOW)) == 3
    assert await reader.value(overview.customer_count()) == 5
    assert {row.reason: row.n for row in await reader.all(overview.reason_counts(NOW))} == {"open_ticket": 2, "complaint": 2}
    assert {row.scope for row in await reader.all(overview.scopes(NOW))} == {ANY, DEFAULT, MAIL}
    assert [row.id for row in await reader.all(overview.holding([1, 3], NOW))] == [1, 2]


@pytest.mark.parametrize("newest", [False, True])
async def test_turning_pages_misses_nobody_and_shows_nobody_twice(store: Store, reader: Reader, newest: bool) -> None:
    # Three were placed at one moment: the time alone does not tell where a page ended.
    placed = [5, 5, 5, 9, 1, 7]
    await store.run(Insert(tuple(hold(n, n, days * DAY) for n, days in enumerate(placed, 1))))
    seen: list[int] = []
    after = None
    while True:
        rows = await reader.all(overview.held(NOW, newest=newest, after=after, limit=2))
        if not rows:
            break
        seen += [row.customer_id for row in rows]
        after = (rows[-1].since, rows[-1].customer_id)
    assert seen == ([5, 1, 2, 3, 6, 4] if newest else [4, 6, 1, 2, 3, 5])


async def test_what_holds_remember_tells_how_many_were_held_then(store: Store, reader: Reader) -> None:
    await store.run(Insert(HELD))
    moments = [NOW - days * DAY for days in (10, 9, 8, 7, 6, 5, 2)]
    # 1, 3 and 4 from nine days ago on; 3 was let go eight days ago, 4's lease ended after three; 2 and 5 came five days ago.
    assert list(await reader.first(overview.held_at(moments)) or ()) == [0, 3, 2, 2, 1, 3, 3]


async def test_one_customers_history_is_theirs_and_their_former_selves(store: Store, reader: Reader) -> None:
    lines = [HoldLedger(n, customer, 1, "placed", "open_ticket", "ticket:1", n, NOW, NOW) for n, customer in ((1, 1), (2, 6), (3, 2))]
    await store.run(Insert((*HELD, *lines, mark(1, 1), mark(2, 6), mark(3, 2))))
    assert [row.id for row in await reader.all(overview.history(1, None, 10))] == [2, 1]
    assert [row.id for row in await reader.all(overview.history(1, 2, 10))] == [1]
    assert [row.id for row in await reader.all(overview.marks_of(1))] == [1, 2]


def mark(id_: int, customer: int, state: str = "confirmed", destination: str = "crm", **more: Any) -> Mark:
    value = f"customer{id_}@mail.example"
    return Mark(id_, destination, "email", value, "", customer, "p", state, True, 1, "[]", NOW - id_ * HOUR, **more)


async def test_marks_are_counted_by_tool_and_the_one_that_waits_longest_stands_first(store: Store, reader: Reader) -> None:
    await store.run(Insert((mark(1, 1), mark(2, 2, "drifted"), mark(3, 3, "drifted"), mark(4, 1, "drifted", "letters"))))
    counted = {(row.destination, row.state): row.n for row in await reader.all(overview.state_counts())}
    assert counted == {("crm", "confirmed"): 1, ("crm", "drifted"): 2, ("letters", "drifted"): 1}
    assert [row.id for row in await reader.all(overview.marks_in("crm", ["drifted", "failed"]))] == [3, 2]


async def test_what_is_owed_is_counted_apart_from_what_was_given_up(store: Store, reader: Reader) -> None:
    states = ["queued", "queued", "sending", "unknown", "failed", "done", "discarded"]
    rows = [Delivery(n, f"mark:crm:{n}", "mark", "crm", n, "{}", state, True, NOW - n, NOW + DAY) for n, state in enumerate(states, 1)]
    other = Delivery(20, "reply:1:1", "reply", "sms", 1, "{}", "queued", True, NOW, NOW + DAY)
    await store.run(Insert((*rows, other)))
    owed = {(row.kind, row.target, row.state): (row.n, row.oldest) for row in await reader.all(overview.backlog())}
    assert owed == {
        ("mark", "crm", "queued"): (2, NOW - 2),
        ("mark", "crm", "sending"): (1, NOW - 3),
        ("mark", "crm", "unknown"): (1, NOW - 4),
    }
    assert [tuple(row) for row in await reader.all(overview.given_up())] == [("mark", "crm", 1)]


def step(seq: int, type_: str, ago: int, destination: str = "crm", held: bool = True, **said: Any) -> ProofRow:
    data = json.dumps({"destination": destination, "held": held, "asked_at": iso(NOW - ago - 4 * SECOND), **said})
    return ProofRow(seq, seq, type_, NOW - ago, 1, destination, data, f"{seq}")


async def test_speed_is_of_holds_of_that_tool_in_those_days(store: Store, reader: Reader) -> None:
    rows = (
        step(1, "mark.accepted", HOUR),  # it says no time by itself: four seconds since it was asked
        step(2, "mark.confirmed", HOUR, took_ms=9_000),
        step(3, "mark.confirmed", 2 * HOUR, took_ms=30_000),
        step(4, "mark.effective", HOUR, took_ms=600_000),
        step(5, "mark.confirmed", HOUR, held=False, took_ms=1),  # a release: nobody is reached by mistake for that
        step(6, "mark.confirmed", HOUR, "letters", took_ms=2),
        step(7, "mark.confirmed", 8 * DAY, took_ms=3),
        step(8, "mark.drifted", HOUR),
    )
    await store.run(Insert(rows))
    found = overview.speed(await reader.all(overview.timings("crm", NOW - 7 * DAY)))
    assert (found.accepted, found.confirmed, found.effective) == (
        Delay(1, 4_000, 4_000),
        Delay(2, 9_000, 30_000),
        Delay(1, 600_000, 600_000),
    )
    assert found.took == ((NOW - HOUR, 9_000), (NOW - 2 * HOUR, 30_000))


async def test_campaigns_that_come_stand_before_those_that_are_gone(store: Store, reader: Reader) -> None:
    def seen(id_: int, send_at: int | None, gone_at: int | None = None) -> CampaignSeen:
        words: tuple[Any, ...] = (id_, "crm", f"c{id_}", f"Campaign {id_}", "email", "scheduled", NOW, send_at, None, "no", "[]", "", "")
        return CampaignSeen(*words, True, "[1, 2]", "no_filter", gone_at)

    await store.run(Insert((seen(1, NOW, NOW - 5), seen(2, NOW + DAY), seen(3, NOW + HOUR), seen(4, NOW, NOW - 1))))
    assert [row.id for row in await reader.all(overview.campaigns())] == [3, 2, 4, 1]


def sent(id_: int, cause: str = "", campaign: str = "c1", at: int = NOW, destination: str = "crm") -> SendSeenRow:
    words = (id_, destination, f"e{id_}", at, at, "email", "ada@mail.example", "p", "email", campaign, f"Campaign {campaign}")
    return SendSeenRow(*words, False, 1, bool(cause), cause)


async def test_leaks_are_told_from_sends_and_counted_by_cause_and_campaign(store: Store, reader: Reader) -> None:
    await store.run(Insert((sent(1, "lag"), sent(2), sent(3, "lag", "c2"), sent(4, "our_delay", "c2"), sent(5, "lag", at=NOW - 40 * DAY))))

    async def ids(**asked: Any) -> list[int]:
        return [row.id for row in await reader.all(overview.sends(**{"leaks": False, "limit": 10, **asked}))]

    assert await ids() == [4, 3, 2, 1, 5]
    assert await ids(leaks=True) == [4, 3, 1, 5]
    assert await ids(leaks=True, cause="lag", campaign="c2", tool="crm") == [3]
    assert await ids(before=(NOW, 3)) == [2, 1, 5]
    assert await ids(before=(NOW, 3), limit=1) == [2]
    causes, campaigns = overview.leaky(await reader.all(overview.leak_counts(NOW - 30 * DAY)))
    assert causes == {"lag": 2, "our_delay": 1}
    assert [(one.name, one.n, dict(one.causes)) for one in campaigns] == [
        ("Campaign c2", 2, {"lag": 1, "our_delay": 1}),
        ("Campaign c1", 1, {"lag": 1}),
    ]


async def test_sends_to_one_customer_are_found_by_what_they_are_known_by(store: Store, reader: Reader) -> None:
    known = Identifier(1, "email", "", "ada@mail.example", "proven", 0, 1, "dmarc", "ada@mail.example", NOW, NOW, home_id=1)
    browser = Identifier(2, "device", "", "d" * 32, "proven", 0, 1, "channel", "d" * 32, NOW, NOW, home_id=1)
    await store.run(Insert((Customer(1, "Ada", NOW), known, browser, sent(1), sent(2, "lag"))))
    found = [(row.kind, row.value) for row in await reader.all(overview.addresses(1))]
    assert found == [("email", "ada@mail.example")]
    assert [row.id for row in await reader.all(overview.sends_to(found, 10))] == [2, 1]


async def test_the_gravest_alarm_stands_first_and_none_that_is_over(store: Store, reader: Reader) -> None:
    raised = [(1, "warning", None), (2, "critical", NOW), (3, "critical", None)]
    await store.run(Insert(tuple(Alarm(n, f"k{n}", level, "t", "x", "/holds", NOW - n, ended) for n, level, ended in raised)))
    assert [row.id for row in await reader.all(overview.raised())] == [3, 1]


async def test_a_campaign_put_back_is_a_draft_at_once_and_who_did_it_is_stated(store: Store, reader: Reader) -> None:
    words: tuple[Any, ...] = (7, "crm", "c7", "Sale", "email", "scheduled", NOW, NOW + DAY, None, "no", "[]", "", "")
    await store.run(Insert((CampaignSeen(*words, True, "[1, 2]", "no_filter"),)))
    await store.run(NoteReverted(7, "It is a draft now.", 3))
    row: Any = await reader.first(overview.campaign(7))
    assert (row.status, row.endangered, row.risk, row.revertable) == ("draft", "[]", "", False)
    [event] = [event for event in store.events() if event.type == "campaign.reverted"]
    assert event.agent_id == 3
    said = {"destination": "crm", "campaign_id": "c7", "campaign": "Sale", "said": "It is a draft now."}
    assert json.loads(event.data) == said


# --- figures ---


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [
        ([], 0.5, None),
        ([7], 0.5, 7),
        ([7], 0.95, 7),
        ([1, 2], 0.5, 1),
        ([1, 2, 3], 0.5, 2),
        (list(range(1, 101)), 0.95, 95),
        (list(range(1, 21)), 0.95, 19),
        (list(range(1, 22)), 0.95, 20),
        ([1, 2], 0.0, 1),  # no rank is below the first
        ([1, 2], 1.0, 2),
    ],
)
def test_a_percentile_is_one_of_the_values(values: list[int], share: float, found: int | None) -> None:
    assert overview.percentile(values, share) == found


def test_delays_need_no_order() -> None:
    assert Delay.of([30, 10, 20]) == Delay(3, 20, 30)
    assert Delay.of([]) == Delay(0, None, None)


def test_each_delay_falls_into_one_bar() -> None:
    bins = overview.histogram([0, 1_000, 1_001, 5_000, 3_600_000, 3_600_001, 10**9])
    assert sum(one.n for one in bins) == 7
    assert {one.label: one.n for one in bins if one.n} == {"up to 1 s": 2, "up to 5 s": 2, "up to 1 h": 1, "longer": 2}


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (None, "not yet"),
        (0, "0 ms"),
        (99, "99 ms"),
        (100, "0.1 s"),
        (9_940, "9.9 s"),
        (9_950, "10 s"),
        (119_000, "119 s"),
        (120_000, "2 min"),
        (7_140_000, "119 min"),
        (7_200_000, "2 h"),
        (172_800_000, "2 days"),
    ],
)
def test_a_length_of_time_is_told_in_one_unit(ms: int | None, words: str) -> None:
    assert overview.lasted(ms) == words


@pytest.mark.parametrize(
    ("asked", "done", "found"),
    [(NOW, None, None), (NOW, NOW - 1, None), (NOW, NOW + 1_500, 1), (NOW, NOW, 0)],  # done before it was asked: of an earlier change
)
def test_what_was_confirmed_before_it_was_asked_is_no_delay(asked: int, done: int | None, found: int | None) -> None:
    assert overview.took_until(asked, done) == found


def test_midnights_are_the_clocks_own_when_a_day_is_short() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    after = int(datetime(2027, 3, 29, 12, tzinfo=UTC).timestamp()) * SECOND  # the clocks went forward on the 28th
    found = [datetime.fromtimestamp(at / SECOND, berlin).strftime("%d %H:%M") for at in overview.midnights(after, berlin, 3)]
    assert found == ["27 00:00", "28 00:00", "29 00:00"]


def test_days_have_the_delays_that_fell_into_them() -> None:
    starts = [NOW - 2 * DAY, NOW - DAY, NOW]
    took = [(NOW + 1, 10), (NOW, 30), (NOW - DAY, 7), (NOW - 3 * DAY, 1_000)]  # the last is before the first day
    assert overview.by_day(took, starts) == [Delay(0, None, None), Delay(1, 7, 7), Delay(2, 10, 30)]


@pytest.mark.parametrize(
    ("scope", "binds", "words"),
    [
        ("{}", True, ""),
        (ANY, True, ""),
        (MAIL, True, "email"),
        ('{"brand": "default", "channels": ["email", "sms"]}', True, "default, email, sms"),
        ('{"brand": "other", "channels": ["*"]}', False, "other"),
    ],
)
def test_a_hold_binds_the_brands_its_scope_does_not_leave_out(scope: str, binds: bool, words: str) -> None:
    assert overview.binds(scope, "default") is binds
    assert overview.confined(scope) == words


def test_a_campaign_without_a_name_is_called_by_its_id() -> None:
    _, [one] = overview.leaky([SimpleNamespace(destination="crm", campaign_id="c9", campaign="", cause="lag", n=2)])
    assert one.name == "c9"
