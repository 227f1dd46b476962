"""What every connector of a marketing tool must keep, whichever the tool: inherited by each tool's test and driven against its
stand-in over real loopback HTTP, with a clock that is set by hand.

    class TestKlaviyoConforms(ToolConformance):
        tool = "klaviyo"

Where a tool cannot do something, its class says so in words (`orders = "identify answers nothing to read first"`); the test then
skips with them. A tool that cannot be asked (`reads_back` False) is judged by what its stand-in was told.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr, ValidationError

from connectors import DESTINATIONS, load
from connectors.sandbox import tools
from connectors.sandbox.tools.stand_in import Profile, StandIn
from hub.contract import Http, HttpResponse, NoAnswer, Refused, TryLater
from hub.http import GuardedHttp
from hub.marketing import Fate, Marked, MarketingTool, ReadBack, Wish

NOW = 1_764_000_000.0
NAME = "crm"  # what the configuration under test calls the destination
DAY = 86_400.0
HELD_WORD = re.compile(r"support.?hold", re.IGNORECASE)
CONSENT = re.compile(r"subscri|suppress|forget|gdpr|regulation|opt.?out|communication-preferences", re.IGNORECASE)
PATIENCE = 0.25  # seconds: the client's timeout where a test waits for it to run out

Able = bool | str  # True, or in words why not


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def is_true(value: Any) -> bool:
    """Whether an attribute says yes, as a flag or in the words of a tool that keeps text."""
    return value is True or str(value).lower() == "true"


def wish(kind: str, value: str, held: bool = True, version: int = 1, **more: Any) -> Wish:
    defaults: dict[str, Any] = {"until": iso(NOW + 7 * DAY), "reasons": ("open_ticket",)} if held else {}
    return Wish(kind=kind, value=value, held=held, version=version, **(defaults | more))


class Clock:
    """Unix seconds, set by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Line:
    """The network under test: the guarded client, its timeouts shortened, noting every call, losing the answers it is told to."""

    http: Http
    patience: float | None = None
    lose: int = 0  # the answer of this call (counted from 1, from the last `restart`) is lost after it was carried out
    seen: list[tuple[str, str, int]] = field(default_factory=list)  # (method, path, status)
    count: int = 0

    def restart(self, lose: int = 0) -> None:
        self.count, self.lose = 0, lose

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float = 15.0,
        max_bytes: int = 1_000_000,
    ) -> HttpResponse:
        timeout = min(timeout, self.patience) if self.patience else timeout
        self.count += 1
        mine = self.count
        response = await self.http.request(method, url, headers=headers, body=body, timeout=timeout, max_bytes=max_bytes)
        self.seen.append((method, urlsplit(url).path, response.status))
        if mine == self.lose:
            raise NoAnswer("the answer was lost. The request may have been carried out.")
        return response


@dataclass
class Bench:
    """A connector, its stand-in, the line between them and the clock of both."""

    clock: Clock
    stand_in: StandIn
    line: Line
    tool: MarketingTool
    url: str
    detail: bool = True  # the tool keeps more than the hold itself

    def build(self, **settings: Any) -> MarketingTool:
        """The connector anew, with other settings."""
        cls = type(self.tool)
        given = {"type": self.stand_in.name, "base_url": self.url, **self.stand_in.credentials} | settings
        built: MarketingTool = cls(cls.Settings.model_validate(given), NAME)  # type: ignore[call-arg]
        return built

    async def mark(self, *wishes: Wish, tool: MarketingTool | None = None) -> Sequence[Marked]:
        answers = await (tool or self.tool).mark(wishes, self.line, self.clock())
        assert len(answers) == len(wishes), "one answer a wish"
        return answers

    async def read(self, *wishes: Wish) -> Sequence[ReadBack]:
        answers = await self.tool.read(wishes, self.line, self.clock())
        assert len(answers) == len(wishes), "one answer a wish"
        return answers

    def state(self, profile: Profile) -> dict[str, Any]:
        """The attributes as they truly are, whatever reading shows."""
        return self.stand_in.shown(profile, lag=0)

    def person(self, number: int = 1, kind: str = "") -> tuple[Profile, str, str]:
        """Somebody the tool knows by one identifier: (profile, kind, value)."""
        kind = kind or self.tool.kinds[0]
        value = {"email": f"ann{number}@example.org", "phone": f"+1415555{number:04}", "external_id": f"c_{number}"}[kind]
        return self.stand_in.add_profile(**{kind: value}), kind, value

    async def confirm(self, profile: Profile, asked: Wish) -> None:
        """The profile stands as wished, in truth and (where the tool can be asked) read back."""
        shown = self.state(profile)
        assert is_true(shown.get("support_hold")) is asked.held, shown
        if not self.detail:
            [back] = await self.read(asked)
            assert (back.present, back.held, back.until) == (True, asked.held, ""), back
            return
        if asked.held:
            assert instant(str(shown["support_hold_until"])) == instant(asked.until), shown
            assert shown["support_hold_reason"] == ", ".join(asked.reasons), shown
        else:
            assert not shown.get("support_hold_until"), "clearing unsets the time"
            assert not shown.get("support_hold_reason"), "clearing unsets the reason"
        assert int(shown["support_hold_version"]) == asked.version, shown
        if not self.tool.reads_back:
            with pytest.raises(Refused):
                await self.read(asked)
            return
        [back] = await self.read(asked)
        assert (back.present, back.held) == (True, asked.held), back
        assert back.profile
        if asked.held:
            assert instant(back.until) == instant(asked.until), back
        else:
            assert back.until == "", back


class ToolConformance:
    """Inherited by every tool's test. The attributes below are True, or say in words why the tool cannot."""

    tool: ClassVar[str]
    orders: ClassVar[Able] = True  # an older version arriving late changes nothing (the tool lets one see the version first)
    spares_writes: ClassVar[Able] = True  # the same state a second time is not written
    looks_up: ClassVar[Able] = True  # it can tell a profile it does not know, and two identifiers of one
    refuses_items: ClassVar[Able] = True  # it can refuse one profile and take the others
    names_wait: ClassVar[Able] = True  # its 429 says how long to wait
    tells_revoked: ClassVar[Able] = True  # it refuses credentials that are not accepted any more
    keeps_detail: ClassVar[Able] = True  # it keeps until when, why, which version, and traits, beside the hold itself
    writes_each: ClassVar[int] = 1  # calls that change one profile
    settings: ClassVar[dict[str, Any]] = {}  # further settings of the connector under test

    def needs(self, able: Able) -> None:
        assert able is not False, "say in words why the tool cannot"
        if able is not True:
            pytest.skip(str(able))

    @pytest.fixture
    async def bench(self) -> AsyncIterator[Bench]:
        clock = Clock()
        stand_in = tools.load(self.tool)(clock)
        url = await stand_in.start()
        client = GuardedHttp(["127.0.0.1"])
        line = Line(client)
        cls = load(DESTINATIONS[self.tool])
        given = {"type": self.tool, "base_url": url, **stand_in.credentials, **self.settings}
        bench = Bench(clock, stand_in, line, cls(cls.Settings.model_validate(given), NAME), url, self.keeps_detail is True)
        try:
            await bench.tool.prepare(line, clock())
            line.seen.clear()
            stand_in.calls.clear()
            yield bench
        finally:
            await client.close()
            await stand_in.stop()
        # Whatever the test did: nothing was deleted and no call touched consent.
        assert not [call for call in line.seen if call[0] == "DELETE" or (call[0] != "GET" and CONSENT.search(call[1]))]

    # --- set, clear, and in any order ---

    async def test_a_hold_is_set_and_read_back(self, bench: Bench) -> None:
        assert isinstance(bench.tool, MarketingTool)
        profile, kind, value = bench.person()
        asked = wish(kind, value, version=7)
        [marked] = await bench.mark(asked)
        assert marked.fate is Fate.ACCEPTED
        assert marked.error == ""
        assert marked.profile
        bench.clock.now += bench.tool.settles
        await bench.confirm(profile, asked)

    async def test_a_hold_of_each_kind_of_identifier_reaches_its_profile(self, bench: Bench) -> None:
        for number, kind in enumerate(bench.tool.kinds, 1):
            profile, _, value = bench.person(number, kind)
            asked = wish(kind, value)
            [marked] = await bench.mark(asked)
            assert marked.fate is Fate.ACCEPTED, (kind, marked)
            await bench.confirm(profile, asked)

    async def test_clearing_unsets_until_and_reason(self, bench: Bench) -> None:
        profile, kind, value = bench.person()
        for asked in (wish(kind, value, version=1), wish(kind, value, held=False, version=2)):
            [marked] = await bench.mark(asked)
            assert marked.fate is Fate.ACCEPTED
            await bench.confirm(profile, asked)

    async def test_setting_twice_is_one_state(self, bench: Bench) -> None:
        profile, kind, value = bench.person()
        asked = wish(kind, value, version=3)
        first = await bench.mark(asked)
        once = bench.state(profile)
        assert await bench.mark(asked) == first
        assert bench.state(profile) == once
        await bench.confirm(profile, asked)

    async def test_setting_twice_is_one_write(self, bench: Bench) -> None:
        self.needs(self.spares_writes)
        _, kind, value = bench.person()
        for held, version in ((True, 3), (False, 4)):
            bench.stand_in.writes.clear()
            for _ in range(2):
                await bench.mark(wish(kind, value, held=held, version=version))
            assert len(bench.stand_in.writes) == self.writes_each

    async def test_the_same_twice_in_one_call_is_one_write(self, bench: Bench) -> None:
        _, kind, value = bench.person()
        one, two = await bench.mark(wish(kind, value), wish(kind, value))
        assert one == two
        assert len(bench.stand_in.writes) == self.writes_each

    @pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 1, 2), (1, 3, 2), (2, 1, 3)])
    async def test_set_clear_and_set_end_at_the_highest_version(self, bench: Bench, order: tuple[int, ...]) -> None:
        if order != (1, 2, 3):
            self.needs(self.orders)
        profile, kind, value = bench.person()
        for version in order:
            [marked] = await bench.mark(wish(kind, value, held=version != 2, version=version))
            assert marked.fate is Fate.ACCEPTED
        await bench.confirm(profile, wish(kind, value, version=3))

    async def test_a_look_up_that_lags_swallows_no_write(self, bench: Bench) -> None:
        """The state before the set is all that reading shows when the clear comes."""
        profile, kind, value = bench.person()
        bench.stand_in.quirks.read_lag = 60.0
        bench.clock.now += 120.0
        await bench.mark(wish(kind, value, version=1))
        await bench.mark(wish(kind, value, held=False, version=2))
        bench.clock.now += 120.0
        await bench.confirm(profile, wish(kind, value, held=False, version=2))

    async def test_a_renewed_lease_moves_the_time(self, bench: Bench) -> None:
        profile, kind, value = bench.person()
        await bench.mark(wish(kind, value, version=1))
        asked = wish(kind, value, version=2, until=iso(NOW + 9 * DAY), reasons=("open_ticket", "complaint"))
        await bench.mark(asked)
        await bench.confirm(profile, asked)

    async def test_traits_are_written_and_unset(self, bench: Bench) -> None:
        self.needs(self.keeps_detail)
        profile, kind, value = bench.person()
        traits = {"support_status": "open", "support_open_tickets": 2, "support_satisfaction": 4}
        await bench.mark(wish(kind, value, version=1, traits=traits))
        shown = bench.state(profile)
        assert {name: str(shown.get(name)) for name in traits} == {name: str(said) for name, said in traits.items()}
        resolved = iso(NOW)
        later = {"support_status": "resolved", "support_resolved_at": resolved, "support_open_tickets": 0, "support_satisfaction": None}
        asked = wish(kind, value, held=False, version=2, traits=later)
        await bench.mark(asked)
        shown = bench.state(profile)
        assert shown["support_status"] == "resolved"
        assert instant(str(shown["support_resolved_at"])) == NOW
        assert str(shown["support_open_tickets"]) == "0"
        assert not shown.get("support_satisfaction"), "a trait that is None is unset"
        await bench.confirm(profile, asked)

    # --- who is who ---

    async def test_a_missing_profile_is_absent_and_none_is_created(self, bench: Bench) -> None:
        self.needs(self.looks_up)
        asked = [wish(kind, bench.person(number, kind)[2]) for number, kind in enumerate(bench.tool.kinds, 1)]
        bench.stand_in.profiles.clear()
        assert [marked.fate for marked in await bench.mark(*asked)] == [Fate.ABSENT] * len(asked)
        assert bench.stand_in.profiles == []
        assert bench.stand_in.writes == []
        assert [back.present for back in await bench.read(*asked)] == [False] * len(asked)

    async def test_create_profiles_creates_one_that_consents_to_nothing(self, bench: Bench) -> None:
        kind = bench.tool.kinds[0]
        value = bench.person(1, kind)[2]
        bench.stand_in.profiles.clear()
        [marked] = await bench.mark(wish(kind, value), tool=bench.build(**{**self.settings, "create_profiles": True}))
        assert marked.fate is Fate.ACCEPTED, marked
        created = bench.stand_in.find(kind, value)
        assert created is not None
        assert len(bench.stand_in.profiles) == 1
        assert "subscribed" not in created.consent.values()
        await bench.confirm(created, wish(kind, value))

    @pytest.mark.parametrize("local", ["ann+news", "o'brien", "a/b?c#d", "100%25", "a&b=c", "ann+a+b"])
    async def test_an_address_with_a_plus_or_a_percent_reaches_its_own_profile(self, bench: Bench, local: str) -> None:
        if "email" not in bench.tool.kinds:
            pytest.skip("the tool knows nobody by e-mail address")
        others = [bench.stand_in.add_profile(email=f"{decoy}@example.org") for decoy in ("ann", "ann news", "a", "100%")]
        profile = bench.stand_in.add_profile(email=f"{local}@example.org")
        asked = wish("email", f"{local}@example.org")
        [marked] = await bench.mark(asked)
        assert marked.fate is Fate.ACCEPTED
        await bench.confirm(profile, asked)
        assert not [other for other in others if bench.state(other)]

    @pytest.mark.parametrize("value", ["c/1", "c+1&x=2", "100%25", "c 1"])
    async def test_an_id_with_odd_characters_reaches_its_own_profile(self, bench: Bench, value: str) -> None:
        if "external_id" not in bench.tool.kinds:
            pytest.skip("the tool knows nobody by the business's own id")
        profile = bench.stand_in.add_profile(external_id=value)
        asked = wish("external_id", value)
        [marked] = await bench.mark(asked)
        assert marked.fate is Fate.ACCEPTED
        await bench.confirm(profile, asked)

    async def test_two_addresses_and_a_phone_of_three_profiles_fan_out(self, bench: Bench) -> None:
        wanted = [kind for kind in ("email", "email", "phone") if kind in bench.tool.kinds] or list(bench.tool.kinds) * 2
        people = [bench.person(number, kind) for number, kind in enumerate(wanted, 1)]
        asked = [wish(kind, value) for _, kind, value in people]
        answers = await bench.mark(*asked)
        assert [marked.fate for marked in answers] == [Fate.ACCEPTED] * len(people)
        assert len({marked.profile for marked in answers}) == len(people)
        assert len(bench.stand_in.writes) == len(people) * self.writes_each
        for (profile, _, _), one in zip(people, asked, strict=True):
            await bench.confirm(profile, one)

    async def test_two_identifiers_of_one_profile_are_one_write(self, bench: Bench) -> None:
        self.needs(self.looks_up)
        kinds = bench.tool.kinds[:2]
        values = {"email": "ann@example.org", "phone": "+14155550001", "external_id": "c_1"}
        profile = bench.stand_in.add_profile(**{kind: values[kind] for kind in kinds})
        asked = [wish(kind, values[kind]) for kind in kinds]
        if len(asked) == 1:  # a tool with one kind: the same address in two spellings
            assert kinds == ("email",), "a tool that knows people by one kind only, and not by address, must say how two are one"
            asked.append(wish("email", "Ann@Example.ORG"))
        one, two = await bench.mark(*asked)
        assert one == two
        assert one.fate is Fate.ACCEPTED
        assert len(bench.stand_in.writes) == self.writes_each
        for each in asked:
            await bench.confirm(profile, each)

    async def test_a_profile_id_that_is_gone_is_looked_up_anew(self, bench: Bench) -> None:
        """Tools merge and delete profiles; an id from an earlier time is a hint."""
        self.needs(self.looks_up)
        old, kind, value = bench.person()
        [marked] = await bench.mark(wish(kind, value, version=1))
        bench.stand_in.profiles.remove(old)
        new, _, _ = bench.person()
        new.id = bench.stand_in.new_id(999)
        asked = wish(kind, value, version=2, profile=marked.profile)
        [marked] = await bench.mark(asked)
        assert marked.fate is Fate.ACCEPTED
        assert bench.stand_in.profiles == [new]
        await bench.confirm(new, asked)

    async def test_every_wish_of_fifty_is_answered_in_order(self, bench: Bench) -> None:
        known = [number for number in range(50) if number % 3] if self.looks_up is True else list(range(50))
        kinds = [bench.tool.kinds[number % len(bench.tool.kinds)] for number in range(50)]
        people = [bench.person(number, kinds[number]) for number in range(50)]
        bench.stand_in.profiles[:] = [people[number][0] for number in known]
        asked = [wish(kind, value, version=number + 1) for number, (_, kind, value) in enumerate(people)]
        answers = await bench.mark(*asked)
        assert [marked.fate for marked in answers] == [Fate.ACCEPTED if number in known else Fate.ABSENT for number in range(50)]
        for number in known if bench.detail else ():
            assert int(bench.state(people[number][0])["support_hold_version"]) == number + 1
        if bench.tool.reads_back:
            backs = await bench.read(*asked)
            assert [back.present for back in backs] == [number in known for number in range(50)]
            assert [backs[number].profile for number in known] == [answers[number].profile for number in known]

    # --- consent ---

    async def test_an_unsubscribe_between_set_and_clear_survives(self, bench: Bench) -> None:
        profile, kind, value = bench.person()
        before = dict(profile.consent)
        await bench.mark(wish(kind, value, version=1))
        assert profile.consent == before, "a hold is no unsubscribe"
        profile.consent["email"] = "unsubscribed"
        for version in (2, 3):
            await bench.mark(wish(kind, value, held=version == 3, version=version))
            assert profile.consent == before | {"email": "unsubscribed"}, "clearing a hold subscribes nobody"

    # --- faults ---

    async def test_a_429_is_tried_later_after_the_wait_it_names(self, bench: Bench) -> None:
        profile, kind, value = bench.person()
        bench.stand_in.quirks.status, bench.stand_in.quirks.retry_after = 429, "30"
        with pytest.raises(TryLater) as caught:
            await bench.mark(wish(kind, value))
        assert self.names_wait is not False, "say in words why the tool cannot"
        if self.names_wait is True:
            assert caught.value.retry_after == pytest.approx(30.0, abs=1.0)
        else:
            assert caught.value.retry_after is None or 0 < caught.value.retry_after <= 3_600
        bench.stand_in.quirks.status = 0
        assert bench.stand_in.writes == []
        await bench.mark(wish(kind, value))
        await bench.confirm(profile, wish(kind, value))

    @pytest.mark.parametrize("status", [500, 502, 503])
    async def test_a_failing_tool_is_tried_later(self, bench: Bench, status: int) -> None:
        profile, kind, value = bench.person()
        bench.stand_in.quirks.status = status
        with pytest.raises(TryLater):
            await bench.mark(wish(kind, value))
        if bench.tool.reads_back:
            with pytest.raises(TryLater):
                await bench.read(wish(kind, value))
        bench.stand_in.quirks.status = 0
        await bench.mark(wish(kind, value))
        await bench.confirm(profile, wish(kind, value))

    async def test_a_tool_that_hangs_is_tried_later(self, bench: Bench) -> None:
        """A server that takes the request and never answers."""
        _, kind, value = bench.person()
        over = asyncio.Event()

        async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await over.wait()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        tool = bench.build(**self.settings, base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        bench.line.patience = PATIENCE
        try:
            with pytest.raises(TryLater):
                await bench.mark(wish(kind, value), tool=tool)
        finally:
            over.set()
            server.close()
            await server.wait_closed()

    async def test_a_tool_that_is_down_is_tried_later(self, bench: Bench) -> None:
        _, kind, value = bench.person()
        await bench.stand_in.stop()
        with pytest.raises(TryLater):
            await bench.mark(wish(kind, value))

    async def test_a_lost_answer_done_again_ends_right(self, bench: Bench) -> None:
        """Whichever of the calls it was: also a crash between the write and our noting it."""
        number = 1
        while True:
            profile, kind, value = bench.person(number)
            asked = wish(kind, value, version=number, traits={"support_open_tickets": 1})
            bench.line.restart(lose=number)
            try:
                await bench.mark(asked)
            except TryLater:
                bench.line.restart()
                [marked] = await bench.mark(asked)
                assert marked.fate is Fate.ACCEPTED
                await bench.confirm(profile, asked)
                number += 1
                continue
            assert number > 1, "no answer was lost"
            assert bench.line.count < number
            return

    async def test_a_connection_cut_before_the_answer_is_tried_later(self, bench: Bench) -> None:
        profile, kind, value = bench.person()
        bench.stand_in.quirks.lose_answers = 2  # aiohttp itself asks a second time where the method is idempotent (GET, PUT)
        with pytest.raises(TryLater):
            await bench.mark(wish(kind, value))
        bench.stand_in.quirks.lose_answers = 0
        await bench.mark(wish(kind, value))
        await bench.confirm(profile, wish(kind, value))

    async def test_one_refused_inside_a_success_is_refused_alone(self, bench: Bench) -> None:
        self.needs(self.refuses_items)
        people = [bench.person(number) for number in range(1, 4)]
        _, kind, bad = people[1]
        bench.stand_in.quirks.refused.add(bad)
        answers = await bench.mark(*(wish(kind, value) for _, kind, value in people))
        assert [marked.fate for marked in answers] == [Fate.ACCEPTED, Fate.REFUSED, Fate.ACCEPTED]
        assert answers[1].error
        assert not is_true(bench.state(people[1][0]).get("support_hold"))
        for number in (0, 2):
            await bench.confirm(people[number][0], wish(kind, people[number][2]))

    async def test_revoked_credentials_name_the_setting_and_no_secret(self, bench: Bench) -> None:
        profile, kind, value = bench.person()
        asked = wish(kind, value)
        bench.stand_in.quirks.revoked = True
        if self.tells_revoked is not True:
            assert not bench.tool.reads_back, f"{self.tells_revoked}: then reading back must be known not to work"
            assert [marked.fate for marked in await bench.mark(asked)] == [Fate.ACCEPTED]
            assert bench.stand_in.writes == []
            return
        calls = [bench.mark, bench.read] if bench.tool.reads_back else [bench.mark]
        texts = []
        for call in calls:
            with pytest.raises(Refused) as caught:
                await call(asked)
            texts.append(str(caught.value))
        checks = await bench.tool.test(bench.line, bench.clock())
        assert not all(check.ok for check in checks), "testing tells of it and does not raise"
        assert bench.stand_in.writes == []
        for text in texts:
            assert any(f"destinations.{NAME}.{setting}" in text for setting in bench.stand_in.credentials), text
        said = " ".join([*texts, *(check.text for check in checks)])
        assert not [name for name, secret in self.secrets(bench).items() if secret in said]
        bench.stand_in.quirks.revoked = False
        await bench.mark(asked)
        await bench.confirm(profile, asked)

    def secrets(self, bench: Bench) -> dict[str, str]:
        given = bench.stand_in.credentials | self.settings
        settings = type(bench.tool).Settings.model_validate({"type": self.tool, "base_url": bench.url, **given})
        found = {name: value.get_secret_value() for name, value in settings if isinstance(value, SecretStr)}
        assert found, "a tool without a secret?"
        return {name: secret for name, secret in found.items() if secret}

    async def test_secrets_are_in_no_repr_and_a_wrong_setting_is_named(self, bench: Bench) -> None:
        cls = type(bench.tool).Settings
        given = {"type": self.tool, **bench.stand_in.credentials, **self.settings}
        settings = cls.model_validate(given)
        for secret in self.secrets(bench).values():
            assert secret not in repr(settings) + str(settings.model_dump_json()) + repr(bench.tool)
        with pytest.raises(ValidationError, match="sceret") as caught:
            cls.model_validate(given | {"sceret": "hunter2"})
        assert "hunter2" not in str(caught.value)

    # --- what reading shows ---

    async def test_a_foreign_change_is_seen_and_mended(self, bench: Bench) -> None:
        profile, kind, value = bench.person()
        asked = wish(kind, value, version=5)
        await bench.mark(asked)
        bench.stand_in.meddle(profile, {"support_hold": False})
        if not bench.tool.reads_back:  # nobody sees it; the next version mends it
            asked = wish(kind, value, version=6)
        else:
            [back] = await bench.read(asked)
            assert (back.present, back.held) == (True, False)
        await bench.mark(asked)
        await bench.confirm(profile, asked)

    async def test_reading_that_lags_is_told_as_it_is(self, bench: Bench) -> None:
        if not bench.tool.reads_back:
            with pytest.raises(Refused, match=r"cannot|no way"):
                await bench.read(wish(bench.tool.kinds[0], bench.person()[2]))
            return
        profile, kind, value = bench.person()
        bench.stand_in.quirks.read_lag = bench.stand_in.quirks.segment_lag = 60.0
        bench.clock.now += 120.0
        asked = wish(kind, value)
        [marked] = await bench.mark(asked)
        assert marked.fate is Fate.ACCEPTED
        [back] = await bench.read(asked)
        assert (back.present, back.held) == (True, False), "accepted is not confirmed"
        bench.clock.now += 61.0
        await bench.confirm(profile, asked)

    async def test_effective_is_what_the_tools_own_segment_shows(self, bench: Bench) -> None:
        if not bench.tool.reads_back:
            pytest.skip("it cannot be asked")
        profile, kind, value = bench.person()
        bench.stand_in.quirks.segment_lag = 60.0
        bench.clock.now += 120.0
        asked = wish(kind, value)
        await bench.mark(asked)
        for shown in (False, True):
            [back] = await bench.read(asked)
            assert back.held
            assert bench.stand_in.in_segment(profile) is shown
            assert back.effective in (None, shown), "None: it cannot say"
            bench.clock.now += 61.0

    # --- setting it up ---

    async def test_testing_and_preparing_twice_is_the_same(self, bench: Bench) -> None:
        bench.person()
        for ask in (bench.tool.test, bench.tool.prepare):
            first = await ask(bench.line, bench.clock())
            assert await ask(bench.line, bench.clock()) == first
            assert first
            assert first[0].ok, first
            assert all(check.name and check.text for check in first)
        assert bench.stand_in.writes == [], "no profile is touched"

    async def test_the_steps_and_the_lapse_name_the_hold(self, bench: Bench) -> None:
        steps = bench.tool.steps()
        assert steps
        assert all(step.text for step in steps)
        assert HELD_WORD.search(" ".join(f"{step.text} {step.paste}" for step in steps))
        assert bench.tool.lapse.endswith(".")
        assert len(bench.tool.lapse.split()) > 5
        assert bench.tool.settles >= 0
        assert bench.tool.label

    async def test_sandbox_is_a_stand_in_on_this_machine(self, bench: Bench) -> None:
        assert bench.tool.is_sandbox()
        assert not bench.build(**self.settings, base_url="").is_sandbox()
