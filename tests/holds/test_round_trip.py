"""A live round trip: what it says of a tool that is quick, slow, silent or gone, and that it never lets a held customer go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from connectors.klaviyo import Klaviyo
from connectors.sandbox.tools.klaviyo import KlaviyoStandIn
from hub.contract import Http, NoAnswer
from hub.holds import round_trip
from hub.holds.round_trip import DONE, FAILED, RUNNING, NoteTrip, RoundTrip, Trip, chosen, trip_in
from hub.http import GuardedHttp
from hub.marketing import Fate, Marked, Wish
from hub.policy import Refusal
from hub.storage.records import Customer, Hold, Identifier
from hub.storage.sqlite_hot import SqliteHot
from tests.storage import Store, open_store
from tests.web import Insert

TEST, ADA = "test@shop.example", "ada@mail.example"
SECOND = 1_000_000


@dataclass
class Ground:
    """A store, Klaviyo on loopback, and one clock for both that sleeping moves."""

    store: Store
    account: KlaviyoStandIn
    http: Http
    hot: SqliteHot
    tool: Klaviyo
    noted: list[Trip] = field(default_factory=list)
    slept: float = 0.0

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.store.clock.advance(seconds)

    async def note(self, trip: Trip) -> None:
        self.noted.append(trip)

    async def go(self, value: str = TEST, tool: Any = None) -> Trip:
        asked = await chosen(tool or self.tool, "email", value, self.hot, self.store.clock())
        return await RoundTrip(tool or self.tool, asked, self.http, self.hot, self.store.clock, self.note, self.sleep).run()

    async def hold(self, value: str, customer: int = 1) -> None:
        now = self.store.clock()
        known = Identifier(customer, "email", "", value, "proven", 0, customer, "dmarc", value, now, now, home_id=customer)
        holding = Hold(customer, customer, "open_ticket", "ticket:1", '{"channels": ["*"]}', now, now + 3_600 * SECOND)
        await self.store.run(Insert((Customer(customer, "Ada", now), known, holding)))


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with open_store(tmp_path) as store:
        account = KlaviyoStandIn(lambda: store.clock() / SECOND)
        http, hot = GuardedHttp(["127.0.0.1"]), SqliteHot(tmp_path / "hub.db")
        settings = {"type": "klaviyo", "base_url": await account.start(), **account.credentials}
        tool = Klaviyo(Klaviyo.Settings.model_validate(settings), "crm")  # type: ignore[arg-type]
        await tool.prepare(http, store.clock() / SECOND)
        yield Ground(store, account, http, hot, tool)
        await hot.close()
        await http.close()
        await account.stop()


def told(trip: Trip) -> list[tuple[str, bool, int]]:
    return [(leg.text.removesuffix("."), leg.ok, leg.took_ms) for leg in trip.legs]


async def test_a_tool_that_follows_at_once_is_held_let_go_and_left_as_it_was(ground: Ground) -> None:
    profile = ground.account.add_profile(email=TEST)
    before = dict(profile.consent)
    trip = await ground.go()
    assert (trip.state, trip.error) == (DONE, "")
    assert told(trip) == [
        ("The tool took the hold", True, 0),
        ("Reading it back shows the hold", True, 0),
        ("The tool's own segment has it", True, 0),
        ("The tool took the release", True, 0),
        ("Reading it back shows the profile free", True, 0),
        ("The tool's own segment has let it go", True, 0),
    ]
    assert [write["attributes"]["support_hold"] for write in ground.account.writes] == [True, False]
    assert ground.account.writes[0]["attributes"]["support_hold_reason"] == "round_trip"
    assert profile.consent == before
    assert [one.state for one in ground.noted] == [RUNNING] * (len(ground.noted) - 1) + [DONE]


async def test_how_long_a_slow_tool_takes_is_told_step_by_step(ground: Ground) -> None:
    ground.account.add_profile(email=TEST)
    ground.account.quirks.read_lag, ground.account.quirks.segment_lag = 3.0, 20.0
    trip = await ground.go()
    assert trip.state == DONE
    assert [ms for _, _, ms in told(trip)] == [0, 3_000, 20_000, 0, 3_000, 20_000]


async def test_a_tool_that_never_shows_it_fails_and_is_let_go_all_the_same(ground: Ground) -> None:
    profile = ground.account.add_profile(email=TEST)
    ground.account.quirks.read_lag = 10**6
    trip = await ground.go()
    assert trip.state == FAILED
    assert told(trip)[1] == ("Reading it back does not show it after 60 s", False, 60_000)
    assert ground.account.shown(profile, lag=0)["support_hold"] is False
    assert ground.slept <= 130


async def test_a_segment_that_lags_is_told_and_is_no_failure(ground: Ground) -> None:
    ground.account.add_profile(email=TEST)
    ground.account.quirks.segment_lag = 600.0
    trip = await ground.go()
    assert trip.state == DONE
    assert "own segment does not follow yet after 60 s" in trip.legs[2].text


async def test_nobody_is_created_for_a_round_trip(ground: Ground) -> None:
    trip = await ground.go()
    assert trip.state == FAILED
    assert "knows nobody by this identifier" in trip.error
    assert ground.account.profiles == []


async def test_a_held_customer_is_no_test_profile(ground: Ground) -> None:
    ground.account.add_profile(email=ADA)
    await ground.hold(ADA)
    before = len(ground.account.calls)
    with pytest.raises(Refusal, match="held now"):
        await ground.go(f" {ADA.upper()} ")
    assert len(ground.account.calls) == before


@pytest.mark.parametrize(("kind", "value", "why"), [("wa_user_id", "1", "knows profiles by email"), ("phone", "0123", "cannot be read")])
async def test_what_the_tool_knows_nobody_by_is_refused(ground: Ground, kind: str, value: str, why: str) -> None:
    with pytest.raises(Refusal, match=why):
        await chosen(ground.tool, kind, value, ground.hot, ground.store.clock())


async def test_a_customer_who_comes_on_hold_meanwhile_stays_held(ground: Ground) -> None:
    profile = ground.account.add_profile(email=TEST)
    ground.account.quirks.read_lag = 3.0
    step = ground.sleep

    async def sleep(seconds: float) -> None:
        await step(seconds)
        if ground.slept == 1:
            await ground.hold(TEST)

    ground.sleep = sleep  # type: ignore[method-assign]
    trip = await ground.go()
    assert trip.state == FAILED
    assert "came on hold meanwhile" in trip.error
    assert ground.account.shown(profile, lag=0)["support_hold"] is True


class Falling:
    """The tool, until it stops answering."""

    def __init__(self, tool: Klaviyo, after: int) -> None:
        self._tool = tool
        self._marks_left = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)

    async def mark(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[Marked]:
        if not self._marks_left:
            raise NoAnswer("No answer came.")
        self._marks_left -= 1
        return await self._tool.mark(wishes, http, now)

    async def read(self, wishes: Sequence[Wish], http: Http, now: float) -> Any:
        raise NoAnswer("No answer came.")


@pytest.mark.parametrize(("marks", "words", "held"), [(2, "was let go again", False), (1, "may stay held there for up to an hour", True)])
async def test_after_a_fault_the_profile_is_let_go_if_it_can_be(ground: Ground, marks: int, words: str, held: bool) -> None:
    profile = ground.account.add_profile(email=TEST)
    trip = await ground.go(tool=Falling(ground.tool, marks))
    assert (trip.state, held) == (FAILED, ground.account.shown(profile, lag=0)["support_hold"])
    assert trip.error.startswith("No answer came.")
    assert words in trip.error


async def test_what_the_tool_refuses_is_told_in_its_own_words(ground: Ground) -> None:
    class Refusing(Falling):
        async def mark(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[Marked]:
            return [Marked(fate=Fate.REFUSED, error="It does not like this one.")]

    assert (await ground.go(tool=Refusing(ground.tool, 1))).error == "It does not like this one."


async def test_one_round_trip_at_a_time_and_a_broken_one_bars_nobody(ground: Ground) -> None:
    run, now = ground.store.run, ground.store.clock()
    trip = Trip("email", TEST, RUNNING, now, now)
    await run(NoteTrip("crm", trip, begins=True))
    with pytest.raises(Refusal, match="going on already"):
        await run(NoteTrip("crm", trip, begins=True))
    await run(NoteTrip("letters", trip, begins=True))  # another tool's
    ground.store.clock.advance(round_trip.BROKEN_AFTER / SECOND + 1)
    await run(NoteTrip("crm", trip, begins=True))
    kept = ground.store.value("SELECT value FROM setting WHERE key = 'tool.crm.round_trip'")
    assert trip_in(kept) == trip
