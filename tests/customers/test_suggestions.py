"""Suggestions: found in the background, shown to agents, never a join; a person's word that two are two outranks them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hub.customers import suggestions
from hub.customers.matching import Match
from hub.customers.suggestions import TOO_COMMON, ForgetKeys, NoteKeys, Suggest, Suggestions, for_customer, newest, reasons
from hub.storage.facts import Facts, Needs
from hub.storage.reader import Reader
from hub.storage.records import Attribute, CannotLink, Customer, Evidence, Identifier, MatchKey
from hub.storage.records import Suggestion as Row
from hub.storage.turns import TakeTurn
from tests.storage import ENGINES, Store, open_store


@dataclass(frozen=True)
class Put:
    """Rows as they are, and events about customers."""

    rows: tuple[Any, ...]
    events: tuple[tuple[str, int], ...] = ()

    def needs(self, needs: Needs) -> None:
        pass

    def decide(self, facts: Facts) -> None:
        for row in self.rows:
            facts.insert(row)
        for type_, customer_id in self.events:
            facts.emit(type_, customer_id=customer_id)


@dataclass
class House:
    """A store with customers in it, and what an agent would be shown."""

    store: Store
    reader: Reader
    worker: Suggestions
    next_id: int = field(default=1)

    async def add(
        self,
        id_: int,
        name: str = "",
        *,
        emails: Iterable[str] = (),
        phones: Iterable[str] = (),
        record: dict[str, str] | None = None,
        merged_into: int | None = None,
        proof: str = "channel",
        **more: Any,
    ) -> None:
        """A customer with what it goes by, as ingest and import leave it behind."""
        now = self.store.clock()
        live = merged_into or id_
        rows: list[Any] = [Customer(id_, name, now, merged_into=merged_into, own_name=name)]
        for kind, values in (("email", emails), ("phone", phones)):
            for value in values:
                rows.append(Identifier(self._id(), kind, "", value, "proven", 0, live, proof, value, now, now, home_id=id_, **more))
        rows += [Attribute(self._id(), id_, key, value, "import", now) for key, value in (record or {}).items()]
        await self.store.run(Put(tuple(rows), (("customer.created", live),)))

    async def claim(self, speaker: str, value: str, proof: str = "claimed", **more: Any) -> None:
        """The one who goes by `speaker` said of an address nobody owns that it is theirs."""
        spoke = self.store.value("SELECT id FROM identifier WHERE value = ?", speaker)
        owner = self.store.value("SELECT customer_id FROM identifier WHERE value = ?", speaker)
        now, other = self.store.clock(), self._id()
        claimed = Identifier(other, "email", "", value, "proven", 0, None, "", value, now, now)
        evidence = Evidence(self._id(), spoke, other, proof, "", now, **more)
        await self.store.run(Put((claimed, evidence), (("customer.identified", owner),)))

    async def part(self, left: int, right: int, ended_at: int | None = None) -> None:
        await self.store.run(Put((CannotLink(self._id(), left, right, "agent:1", self.store.clock(), ended_at),)))

    async def shown(self, customer_id: int | None = None) -> list[tuple[int, int]]:
        await self.worker.catch_up()
        rows = await self.reader.all(newest(50) if customer_id is None else for_customer(customer_id))
        return [(row.left_id, row.right_id) for row in rows]

    def _id(self) -> int:
        self.next_id += 1
        return 1_000 + self.next_id


@pytest.fixture(params=ENGINES)
async def house(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[House]:
    # What a hold or a card makes of these events is shown elsewhere.
    async with open_store(tmp_path, react=lambda _facts, _event: None, engine=request.param) as store:
        reader = store.reader()
        try:
            yield House(store, reader, Suggestions(reader, store.writer))
        finally:
            await reader.close()


async def twins(house: House, one: int = 1, other: int = 2) -> None:
    """Two customers who look like one."""
    await house.add(one, "Maria Silva", emails=["jk.petrov84@mail.example"])
    await house.add(other, "Maria Silva", emails=["jk.petrov84@other.example"])


async def test_two_who_look_like_one_are_suggested_with_reasons_and_never_joined(house: House) -> None:
    await twins(house)
    await house.add(3, "Maria Silva", phones=["+5511987650001"])  # a name alone
    assert await house.shown() == [(1, 2)]
    (row,) = await house.reader.all(newest(50))
    assert reasons(row) == ("The part before the @ is the same; same name, Maria Silva.",)
    assert row.left_name == row.right_name == "Maria Silva"
    assert 500 <= row.score <= 990
    assert await house.shown(1) == await house.shown(2) == [(1, 2)]
    assert await house.shown(3) == []
    assert house.store.value("SELECT count(*) FROM customer WHERE merged_into IS NOT NULL") == 0
    assert [(e.customer_id, e.data) for e in house.store.events() if e.type == "suggestion.added"] == [(1, '{"other": 2}')]


async def test_looking_again_says_nothing_twice(house: House) -> None:
    await twins(house)
    await house.shown()
    await house.store.run(Put((), (("customer.identified", 1), ("customer.identified", 2))))
    await house.shown()
    assert house.store.value("SELECT count(*) FROM suggestion") == 1
    # Another process that begins at the beginning does no harm either.
    other = Suggestions(house.reader, house.store.writer)
    house.store.execute("UPDATE setting SET value = '0' WHERE key = 'suggestions.watermark'")
    house.store.clock.advance(suggestions.TURN + 1)
    await other.catch_up()
    assert house.store.value("SELECT count(*) FROM suggestion") == 1
    keys = [tuple(row) for row in house.store.rows("SELECT key, customer_id FROM match_key")]
    assert len(keys) == len(set(keys)) > 4


async def test_only_who_was_touched_is_looked_at(house: House) -> None:
    await twins(house)
    await house.shown()
    asked: list[Any] = []

    async def matches(touched: Any) -> tuple[Match, ...]:
        asked.append(set(touched))
        return ()

    house.worker.matches = matches  # type: ignore[method-assign]
    await house.store.run(Put((), (("ticket.opened", 1), ("message.received", 1), ("agent.created", 1))))
    await house.worker.catch_up()
    assert asked == []
    await house.store.run(Put((), (("ticket.opened", 1), ("customer.identified", 2))))
    await house.worker.catch_up()
    assert asked == [{2}]


async def test_a_turn_taken_by_another_process_leaves_the_work_to_it(house: House) -> None:
    await twins(house)
    assert await house.store.run(TakeTurn("suggestions", "another process", 60.0))
    assert not await house.worker.step()
    assert house.store.value("SELECT count(*) FROM match_key") == 0
    house.store.clock.advance(61)
    assert await house.shown() == [(1, 2)]


async def test_what_is_learnt_later_changes_the_keys_and_the_suggestion(house: House) -> None:
    await house.add(1, "Maria Silva", record={"date_of_birth": "1984-02-11", "city": "Lisboa"})
    await house.add(2, "Maria Silva", record={"date_of_birth": "1984-02-12", "city": "Lisboa"})
    await house.shown()
    before = house.store.value("SELECT score FROM suggestion")
    house.store.execute("UPDATE attribute SET value = '1984-02-11' WHERE customer_id = 2 AND name = 'date_of_birth'")
    house.store.execute("UPDATE attribute SET value = 'Porto' WHERE name = 'city'")
    await house.store.run(Put((), (("customer.identified", 2),)))
    assert await house.shown() == [(1, 2)]
    assert house.store.value("SELECT count(*) FROM suggestion") == 1
    assert house.store.value("SELECT score FROM suggestion") > before
    keys = {row[0] for row in house.store.rows("SELECT key FROM match_key WHERE customer_id = 2")}
    assert "born:19840211" in keys
    assert not {key for key in keys if "0212" in key or "lisb" in key}, "a key that no longer holds must go"


async def test_one_customer_is_never_suggested_to_itself(house: House) -> None:
    await house.add(1, "Maria Silva", emails=["jk.petrov84@mail.example"])
    await house.add(2, "Maria Silva", emails=["jk.petrov84@other.example"], merged_into=1)
    assert await house.shown() == []
    assert house.store.value("SELECT count(*) FROM suggestion") == 0


async def test_a_join_hides_what_was_suggested_and_its_undoing_shows_it_again(house: House) -> None:
    await twins(house, 1, 2)
    await house.add(3, "Jo Kim", emails=["joan@mail.example"])
    assert await house.shown() == [(1, 2)]
    house.store.execute("UPDATE customer SET merged_into = 1 WHERE id = 2")
    house.store.execute("UPDATE identifier SET customer_id = 1 WHERE customer_id = 2")
    assert await house.shown() == await house.shown(1) == []
    house.store.execute("UPDATE customer SET merged_into = NULL WHERE id = 2")
    house.store.execute("UPDATE identifier SET customer_id = 2 WHERE home_id = 2")
    assert await house.shown(2) == [(1, 2)]


async def test_a_suggestion_follows_its_home_through_joins(house: House) -> None:
    """The survivor is shown what was noted of the one joined into it."""
    await house.add(1, "Ana")
    await twins(house, 2, 3)
    await house.shown()
    house.store.execute("UPDATE customer SET merged_into = 1 WHERE id = 3")
    house.store.execute("UPDATE identifier SET customer_id = 1 WHERE home_id = 3")
    assert await house.shown() == await house.shown(1) == await house.shown(2) == [(1, 2)]
    # And who was joined before is found all the same.
    await house.add(4, "Maria Silva", emails=["jk.petrov84@third.example"])
    assert set(await house.shown(1)) == {(1, 2), (1, 4)}


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
async def test_who_was_said_to_be_two_is_not_suggested(house: House, order: tuple[int, int]) -> None:
    await house.add(1, "Maria Silva", emails=["jk.petrov84@mail.example"])
    await house.part(*order)
    await house.add(2, "Maria Silva", emails=["jk.petrov84@other.example"])
    assert await house.shown() == []
    assert house.store.value("SELECT count(*) FROM suggestion") == 0


async def test_a_word_taken_back_parts_nobody(house: House) -> None:
    await house.part(1, 2, ended_at=house.store.clock())
    await twins(house)
    assert await house.shown() == [(1, 2)]


async def test_whoever_is_joined_with_a_parted_home_is_parted_too(house: House) -> None:
    await twins(house, 2, 3)
    assert await house.shown() == [(2, 3)]
    await house.add(1, "Ana")
    house.store.execute("UPDATE customer SET merged_into = 1 WHERE id = 2")
    assert await house.shown() == [(1, 3)]
    house.store.clock.advance(1)
    await house.part(3, 1)
    assert await house.shown() == await house.shown(3) == []
    # Nothing is noted either: the whole customer was parted, not only the home.
    house.store.execute("DELETE FROM suggestion")
    await house.store.run(Put((), (("customer.identified", 3),)))
    await house.shown()
    assert house.store.value("SELECT count(*) FROM suggestion") == 0


async def test_proof_after_the_parting_asks_a_human_again(house: House) -> None:
    await twins(house)
    await house.shown()
    await house.part(1, 2)
    now = house.store.clock()
    await house.store.run(Put((Row(77, 1, 2, "proof", 1_000, "Both proved +351 912 345 678.", now),)))
    assert await house.shown() == [], "proof of the same moment is no later proof"
    house.store.clock.advance(1)
    await house.store.run(Put((Row(78, 1, 2, "claimed", 400, "Claimed.", house.store.clock()),)))
    assert await house.shown() == [], "only proof outranks a person's word"
    await house.store.run(Put((Row(79, 1, 2, "proof", 1_000, "Both proved +351 912 345 678.", house.store.clock()),)))
    assert await house.shown() == [(1, 2)]
    (row,) = await house.reader.all(for_customer(2))
    assert row.score == 1_000
    assert len(reasons(row)) == 3, "each reason once"
    house.store.clock.advance(1)
    await house.part(2, 1)
    assert await house.shown() == [], "and the human may say no again"


async def test_pairs_come_newest_first_in_pages(house: House) -> None:
    for id_ in range(1, 8):
        await house.add(id_)
    rows = [Row(20 + n, 1, n, "claimed", 100 * n, f"Reason {n}.", 5) for n in range(2, 8)]
    await house.store.run(Put((*rows, Row(90, 1, 3, "proof", 1_000, "Late.", 6))))
    seen: list[int] = []
    after = None
    while page := await house.reader.all(newest(2, after)):
        seen += [row.right_id for row in page]
        after = page[-1].newest_id
    assert seen == [3, 7, 6, 5, 4, 2]
    assert [row.right_id for row in await house.reader.all(for_customer(1))] == [3, 7, 6, 5, 4, 2]


async def test_a_key_that_too_many_hold_finds_nobody(house: House) -> None:
    """Else the cost of a new customer would grow with the number of those who share a common word."""
    crowd = tuple(MatchKey("local:jkpetrov84", 10_000 + n) for n in range(TOO_COMMON - 2))
    await house.store.run(Put(crowd))
    await twins(house)
    assert await house.shown() == [(1, 2)], "fifty share it: still rare enough"
    await house.store.run(Put((MatchKey("local:jkpetrov84", 20_000),)))
    house.store.execute("DELETE FROM suggestion")
    await house.store.run(Put((), (("customer.identified", 1),)))
    assert await house.shown() == []


async def test_a_name_and_an_address_made_of_it_are_worth_a_look_only_while_few_have_them(house: House) -> None:
    await house.add(1, "Maria Silva", emails=["maria.silva@gmail.com"])
    await house.add(2, "Maria Silva", emails=["mariasilva@hotmail.com"])
    assert await house.shown() == [(1, 2)]
    await house.add(3, "Maria Silva", emails=["maria.silva@work.example"])
    await house.add(4, "Maria Silva", emails=["maria.silva@yahoo.com"], record={"date_of_birth": "1984-02-11"})
    await house.add(5, "Maria Silva", emails=["maria.silva@mail.example"], record={"date_of_birth": "1984-02-11"})
    assert set(await house.shown()) == {(1, 2), (4, 5)}


async def test_a_claimed_address_counts_and_one_merely_seen_does_not(house: House) -> None:
    await house.add(1, "Maria Silva", emails=["jk.petrov84@mail.example"])
    await house.add(2, "Maria Silva", phones=["+5511987650001"])
    await house.claim("+5511987650001", "jk.petrov84@other.example", proof="seen")
    assert await house.shown() == []
    await house.claim("+5511987650001", "jk.petrov84@third.example", withdrawn_at=5)
    assert await house.shown() == []
    await house.claim("+5511987650001", "jk.petrov84@fourth.example")
    assert await house.shown() == [(1, 2)]


@pytest.mark.parametrize("gone", [{"shared_at": 5}, {"ended_at": 5}], ids=["two people's", "somebody else's by now"])
async def test_an_identifier_that_says_nothing_any_more_suggests_nobody(house: House, gone: dict[str, int]) -> None:
    await house.add(1, "Maria Silva", emails=["jk.petrov84@mail.example"], **gone)
    await house.add(2, "Maria Silva", emails=["jk.petrov84@other.example"])
    assert await house.shown() == []


async def test_numbers_that_both_wrote_are_no_slip_and_recorded_ones_may_be(house: House) -> None:
    await house.add(1, "Maria Silva", phones=["+5511987650001"])
    await house.add(2, "Maria Silva", phones=["+5511987650002"])
    assert await house.shown() == []
    await house.add(3, "Maria Silva", phones=["+5511987650005"], proof="record")
    assert set(await house.shown()) == {(1, 3), (2, 3)}


async def test_who_cannot_be_compared_keeps_nobody_else_from_being_found(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    real = suggestions.keys

    def keys(person: Any) -> frozenset[str]:
        if person.customer_id == 3:
            raise ValueError("unreadable")
        return real(person)

    monkeypatch.setattr(suggestions, "keys", keys)
    await twins(house)
    await house.add(3, "Maria Silva", emails=["jk.petrov84@third.example"])
    assert await house.shown() == [(1, 2)]
    assert int(house.store.value("SELECT value FROM setting WHERE key = 'suggestions.watermark'")) >= 3


async def test_many_are_looked_at_in_small_steps(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suggestions, "STEP", 3)
    monkeypatch.setattr(suggestions, "WINDOW", 5)
    for number in range(10):
        await house.add(number * 2 + 1, "Maria Silva", emails=[f"jk.petrov{number}4@mail.example"])
        await house.add(number * 2 + 2, "Maria Silva", emails=[f"jk.petrov{number}4@other.example"])
    steps = 0
    while await house.worker.step():
        steps += 1
        assert house.store.value("SELECT count(*) FROM match_key") > 0
    assert steps >= 6
    assert set(await house.shown()) >= {(n * 2 + 1, n * 2 + 2) for n in range(10)}


async def test_decisions_hold_what_the_reader_could_not_know(house: House) -> None:
    """Between reading and deciding somebody may have said they are two, or another process noted the same."""
    await house.add(1)
    await house.add(2)
    match = Match(1, 2, 0.9, ("same name",))
    assert [await house.store.run(Suggest((match,))) for _ in range(2)] == [1, 0]
    await house.part(2, 1)
    house.store.execute("DELETE FROM suggestion")
    assert await house.store.run(Suggest((match,))) == 0
    await house.store.run(NoteKeys({1: frozenset({"a", "b"})}))
    await house.store.run(NoteKeys({1: frozenset({"b", "c"})}))
    assert [row[0] for row in house.store.rows("SELECT key FROM match_key WHERE customer_id = 1 ORDER BY key")] == ["a", "b", "c"]
    await house.store.run(ForgetKeys((1,)))
    assert house.store.rows("SELECT key FROM match_key WHERE customer_id = 1") == []


async def test_the_worker_starts_looks_and_stops(house: House) -> None:
    await twins(house)
    await house.worker.start()
    while not house.store.rows("SELECT id FROM suggestion"):
        await house.store.run(Put(()))  # gives way to the worker; bounded by the test's own time limit
    await house.worker.stop()
    assert await house.shown() == [(1, 2)]
