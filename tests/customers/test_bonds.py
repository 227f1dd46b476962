"""Two made one, and one made two again: everything goes along, and everything goes back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hub.contract import Identified, Proof
from hub.conversations.commands import AddNote, Reopen, Reply, Resolve
from hub.customers import merging
from hub.customers.merging import Merge, Unmerge
from hub.storage.channels import RegisterChannels
from tests.customers.identity_laws import check
from tests.storage import CHAT, ENGINES, MAIL, POLICY, SMS, WHATSAPP, Store, account, device, email, heard, message, open_store, phone

ADA, BEN, CYD = phone("+12025550101"), phone("+12025550102"), email("cyd@example.com")
ME = 7
BY = merging.agent(ME)


@pytest.fixture(params=ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with open_store(tmp_path, engine=request.param) as opened:
        await opened.run(RegisterChannels(tuple((POLICY.channels[n].name, "") for n in (SMS, WHATSAPP, MAIL, CHAT))))
        yield opened
        check(opened.rows)


async def says(store: Store, claim: Any, text: str, channel: int = SMS, **more: Any) -> None:
    store.clock.advance(1)
    await store.run(heard(channel, message(claim, text=text, key=text, **more)))


async def two(store: Store) -> None:
    """Customer 1 is Ada, customer 2 Ben; each has an open ticket with the same number."""
    await says(store, ADA, "I am Ada", sender_name="Ada")
    await says(store, BEN, "I am Ben", sender_name="Ben")


async def merge(store: Store, left: int = 1, right: int = 2) -> Any:
    merged = await store.run(Merge(left, right, BY, ME))
    return lambda: store.run(Unmerge(merged.join_id, left, right, BY, ME))


def lies(store: Store) -> dict[str, tuple[int, int]]:
    """Of each message the conversation and the ticket."""
    return {row[0]: (row[1], row[2]) for row in store.rows("SELECT text, conversation_id, ticket_id FROM message")}


def ticket(store: Store, id_: int) -> Any:
    return store.rows(f"SELECT * FROM ticket WHERE id = {id_}")[0]


def told(store: Store, customer: int) -> list[tuple[str, int, list[str]]]:
    """What tools were told of a customer's hold: (type, version, identifiers)."""
    rows = store.rows(f"SELECT type, data FROM event WHERE type LIKE 'hold.%' AND customer_id = {customer} ORDER BY seq")
    data = [(row[0], json.loads(row[1])) for row in rows]
    return [(type_, one["version"], [i["value"] for i in one["identifiers"]]) for type_, one in data]


async def test_what_came_in_between_goes_to_whose_address_it_came_by(store: Store) -> None:
    await two(store)
    undo = await merge(store)
    await says(store, ADA, "Ada again")
    await says(store, BEN, "Ben again")
    shared = set(lies(store).values())
    assert {conversation for conversation, _ in shared} == {1}
    await undo()
    assert {text: where[0] for text, where in lies(store).items()} == {"I am Ada": 1, "I am Ben": 2, "Ada again": 1, "Ben again": 2}
    assert lies(store)["Ben again"] == lies(store)["I am Ben"]


async def test_an_answer_written_in_between_goes_with_the_address_it_went_to_and_keeps_its_turn(store: Store) -> None:
    await two(store)
    undo = await merge(store)
    ben = store.value("SELECT id FROM identifier WHERE value = '+12025550102'")
    # On Ada's ticket, to Ben's number: the agent took them for one person.
    await store.run(Reply(1, ME, "To Ben", "d1", channel_id=SMS, identifier_id=ben, confirmed_way=True))
    assert store.value("SELECT lane FROM delivery WHERE kind = 'reply'") == f"reply:1:{SMS}"
    await undo()
    assert lies(store)["To Ben"] == (2, 2)
    assert store.value("SELECT lane FROM delivery WHERE kind = 'reply'") == f"reply:2:{SMS}"


async def test_a_note_stays_with_its_ticket(store: Store) -> None:
    await two(store)
    undo = await merge(store)
    await store.run(AddNote(2, ME, "Ben is angry", "n1"))
    assert lies(store)["Ben is angry"] == (1, 2)
    await undo()
    assert lies(store)["Ben is angry"] == (2, 2)


async def test_messages_on_the_others_only_ticket_get_one_of_their_own_that_bears_none_of_the_others_words(store: Store) -> None:
    await says(store, email("ada@example.com"), "The divorce papers", MAIL, subject="My divorce", sender_name="Ada")
    await says(store, BEN, "I am Ben")
    await store.run(Resolve(2, ME))
    undo = await merge(store)
    await says(store, BEN, "Where is my parcel?")
    assert lies(store)["Where is my parcel?"] == (1, 1)
    await undo()
    conversation, made = lies(store)["Where is my parcel?"]
    assert conversation == 2
    assert made not in (1, 2)
    new, left = ticket(store, made), ticket(store, 1)
    assert (new["subject"], new["preview"], new["status"]) == ("", "Where is my parcel?", "open")
    assert (left["subject"], left["preview"]) == ("My divorce", "The divorce papers")
    assert new["waiting_since"] is not None
    assert left["identifier_id"] == store.value("SELECT id FROM identifier WHERE value = 'ada@example.com'"), "the way back is Ada's again"


async def test_two_tickets_that_swap_messages_tell_of_what_they_have_then(store: Store) -> None:
    await two(store)
    undo = await merge(store)
    await store.run(Resolve(1, ME))
    await says(store, ADA, "Ada on Ben's")
    await store.run(Resolve(2, ME))
    await store.run(Reopen(1, ME))
    await says(store, BEN, "Ben on Ada's")
    await store.run(Reopen(2, ME))
    assert lies(store)["Ada on Ben's"] == (1, 2)
    assert lies(store)["Ben on Ada's"] == (1, 1)
    await undo()
    assert lies(store)["Ada on Ben's"] == (1, 1)
    assert lies(store)["Ben on Ada's"] == (2, 2)
    assert [ticket(store, id_)["preview"] for id_ in (1, 2)] == ["Ada on Ben's", "Ben on Ada's"]


async def test_names_are_what_they_were(store: Store) -> None:
    await two(store)
    await says(store, CYD, "no name", MAIL)
    names = "SELECT id, name FROM customer ORDER BY id"
    before = [tuple(row) for row in store.rows(names)]
    undo_ben, undo_cyd = await merge(store, 1, 2), await merge(store, 1, 3)
    assert store.value("SELECT name FROM customer WHERE id = 1") == "Ada"
    await undo_ben()
    await undo_cyd()
    assert [tuple(row) for row in store.rows(names)] == before


async def test_the_survivor_takes_a_name_only_where_it_has_none(store: Store) -> None:
    await says(store, CYD, "no name", MAIL)
    await says(store, BEN, "I am Ben", sender_name="Ben")
    undo = await merge(store)
    assert store.value("SELECT name FROM customer WHERE id = 1") == "Ben"
    await undo()
    assert [row[0] for row in store.rows("SELECT name FROM customer ORDER BY id")] == ["", "Ben"]


async def test_a_name_told_while_two_were_one_belongs_to_whoever_told_it(store: Store) -> None:
    await says(store, CYD, "no name", MAIL)
    await says(store, BEN, "no name either")
    undo = await merge(store)
    await says(store, BEN, "I am Ben", sender_name="Ben")
    assert store.value("SELECT name FROM customer WHERE id = 1") == "Ben"
    await undo()
    assert [row[0] for row in store.rows("SELECT name FROM customer ORDER BY id")] == ["", "Ben"]


async def test_tools_are_told_of_both_again_with_their_own_identifiers_and_higher_versions(store: Store) -> None:
    await two(store)
    before = max(version for customer in (1, 2) for _, version, _ in told(store, customer))
    undo = await merge(store)
    assert told(store, 1)[-1][2] == ["+12025550101", "+12025550102"]
    type_, version, identifiers = told(store, 2)[-1]
    assert (type_, identifiers) == ("hold.released", [])
    assert version > before, "whoever keeps holds by customer lets go of the number that leads on now"
    both = max(told(store, 1)[-1][1], version)
    await undo()
    for customer, number in ((1, "+12025550101"), (2, "+12025550102")):
        type_, version, identifiers = told(store, customer)[-1]
        assert (type_, identifiers) == ("hold.renewed", [number])
        assert version > both


async def test_versions_of_an_address_grow_whoever_it_is_found_to_be(store: Store) -> None:
    """A tool that keeps holds by address believes the highest version: it must be the last."""
    await two(store)

    async def handle(times: int) -> None:
        for number in range(times):
            await store.run(Resolve(store.value("SELECT ticket_id FROM message ORDER BY id DESC LIMIT 1"), ME))
            await says(store, BEN, f"Ben {number} {store.clock()}")

    await handle(4)  # the younger one's stands higher by now
    undo = await merge(store)
    await handle(4)  # and now the survivor's
    await undo()
    await handle(1)
    versions: dict[str, list[int]] = {}
    for (data,) in store.rows("SELECT data FROM event WHERE type LIKE 'hold.%' ORDER BY seq"):
        for one in json.loads(data)["identifiers"]:
            versions.setdefault(one["value"], []).append(json.loads(data)["version"])
    assert versions.keys() == {"+12025550101", "+12025550102"}
    for value, told_of_it in versions.items():
        assert told_of_it == sorted(set(told_of_it)), value


async def test_holds_follow_their_tickets(store: Store) -> None:
    await two(store)
    undo = await merge(store)
    held = "SELECT customer_id FROM hold WHERE released_at IS NULL ORDER BY id"
    assert [row[0] for row in store.rows(held)] == [1, 1]
    await store.run(Resolve(1, ME))
    await undo()
    assert [row[0] for row in store.rows(held)] == [2]
    assert told(store, 1)[-1][0] == "hold.released"
    assert told(store, 2)[-1][0] == "hold.renewed"


async def test_three_that_were_made_one_come_apart_in_any_order(store: Store) -> None:
    await two(store)
    await says(store, CYD, "I am Cyd", MAIL)
    merged = [await store.run(Merge(2, 3, BY, ME)), await store.run(Merge(1, 2, BY, ME))]
    assert {row[0] for row in store.rows("SELECT conversation_id FROM message")} == {1}
    # The first of them is taken back first: Cyd alone goes, Ben stays with Ada.
    await store.run(Unmerge(merged[0].join_id, 2, 3, BY, ME))
    assert {text: where[0] for text, where in lies(store).items()} == {"I am Ada": 1, "I am Ben": 1, "I am Cyd": 3}
    await store.run(Unmerge(merged[1].join_id, 1, 2, BY, ME))
    assert {text: where[0] for text, where in lies(store).items()} == {"I am Ada": 1, "I am Ben": 2, "I am Cyd": 3}
    assert not store.rows("SELECT id FROM customer WHERE merged_into IS NOT NULL")


async def test_whoever_was_tied_to_the_one_that_goes_goes_along(store: Store) -> None:
    await two(store)
    await says(store, CYD, "I am Cyd", MAIL)
    undo = await merge(store, 1, 2)
    await store.run(Merge(2, 3, BY, ME))  # 2 leads on to 1 by now
    tie = store.rows("SELECT left_id, right_id FROM join_log ORDER BY id")[-1]
    assert sorted(tie) == [1, 3], "the tie is between those who live"
    await undo()
    assert {text: where[0] for text, where in lies(store).items()} == {"I am Ada": 1, "I am Ben": 2, "I am Cyd": 1}


async def test_an_address_two_accounts_prove_ties_nobody_and_keeps_its_own_mail(store: Store) -> None:
    family = email("family@example.com", Proof.SIGNED)
    await says(store, email("family@example.com"), "from the family", MAIL)
    await store.run(heard(CHAT, Identified(provider_key="u1", claims=(account("u1"), device("d1"), family))))
    await says(store, account("u1"), "I am one", CHAT)
    assert len({where[0] for where in lies(store).values()}) == 1
    await store.run(heard(CHAT, Identified(provider_key="u2", claims=(account("u2"), device("d2"), family))))
    await says(store, account("u2"), "I am the other", CHAT)
    where = lies(store)
    assert len({conversation for conversation, _ in where.values()}) == 3
    assert store.value("SELECT shared_at FROM identifier WHERE value = 'family@example.com'") is not None
    await says(store, email("family@example.com"), "from the family again", MAIL)
    assert lies(store)["from the family again"][0] == where["from the family"][0]


async def test_the_end_of_a_tie_is_appended_and_names_what_it_ends(store: Store) -> None:
    await two(store)
    undo = await merge(store)
    await undo()
    log = [tuple(row) for row in store.rows("SELECT op, left_id, right_id, actor, undoes FROM join_log ORDER BY id")]
    join_id = store.value("SELECT id FROM join_log WHERE undoes IS NULL")
    assert log == [("merge", 1, 2, "agent:7", None), ("unmerge", 1, 2, "agent:7", join_id)]
    assert [tuple(row) for row in store.rows("SELECT left_id, right_id, ended_at FROM cannot_link")] == [(1, 2, None)]
    kinds = [row[0] for row in store.rows("SELECT type FROM event WHERE type LIKE 'customer.%m%erged' ORDER BY seq")]
    assert kinds == ["customer.merged", "customer.unmerged"]


async def test_opt_outs_stay_with_their_address_through_it_all(store: Store) -> None:
    await two(store)
    await says(store, BEN, "STOP", opts="out")
    rows = "SELECT channel_id, value, ended_at FROM opt_out"
    before = [tuple(row) for row in store.rows(rows)]
    undo = await merge(store)
    assert [tuple(row) for row in store.rows(rows)] == before == [(SMS, "+12025550102", None)]
    await undo()
    assert [tuple(row) for row in store.rows(rows)] == before
