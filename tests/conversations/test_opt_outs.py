"""A STOP belongs to the address on its channel: it forbids writing there, is no hold, and stays where it is whoever the address is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.conversations.commands import Reply, Resolve
from hub.customers.merging import Merge, Unmerge
from hub.policy import Refusal
from tests.storage import CHAT, ENGINES, MAIL, SMS, WHATSAPP, Store, device, email, heard, message, open_store, phone

ADA = "+12025550123"


@pytest.fixture(params=ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with open_store(tmp_path, engine=request.param) as opened:
        yield opened


def standing(store: Store) -> list[tuple[int, str]]:
    return [(row[0], row[1]) for row in store.rows("SELECT channel_id, value FROM opt_out WHERE ended_at IS NULL ORDER BY id")]


async def stops(store: Store, channel: int = SMS) -> None:
    await store.run(heard(channel, message(phone(ADA), text="STOP", opts="out")))


async def test_nothing_is_written_to_an_address_that_sent_stop_and_start_takes_it_back(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    await stops(store)
    await stops(store)
    assert standing(store) == [(SMS, ADA)], "said twice it is one"
    with pytest.raises(Refusal, match="stop word"):
        await store.run(Reply(1, 1, "But wait", "d1"))
    await store.run(heard(SMS, message(phone(ADA), text="START", opts="in")))
    assert standing(store) == []
    assert not (await store.run(Reply(1, 1, "Welcome back", "d2"))).duplicate


async def test_a_stop_on_one_channel_stops_no_other(store: Store) -> None:
    await store.run(heard(WHATSAPP, message(phone(ADA))))
    await stops(store, SMS)
    assert not (await store.run(Reply(1, 1, "By WhatsApp", "d1"))).duplicate
    with pytest.raises(Refusal, match="stop word"):
        await store.run(Reply(1, 1, "By SMS", "d2", channel_id=SMS))


async def test_a_stop_opens_no_ticket_and_holds_nobody(store: Store) -> None:
    await stops(store)
    assert [row[0] for row in store.rows("SELECT status FROM ticket")] == ["resolved"]
    assert store.rows("SELECT 1 FROM hold") == []


async def test_a_stop_moves_no_hold_and_a_resolve_no_stop(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    await stops(store)
    assert len(store.rows("SELECT 1 FROM hold WHERE released_at IS NULL")) == 1
    await store.run(Resolve(1, 1))
    assert standing(store) == [(SMS, ADA)]


async def test_yes_is_an_answer_to_whoever_had_not_stopped_anything(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(Resolve(1, 1))
    await store.run(heard(SMS, message(phone(ADA), text="YES", opts="in")))
    assert store.value("SELECT status FROM ticket WHERE id = 1") == "open"


async def test_nobody_takes_a_stop_back_for_somebody_else(store: Store) -> None:
    await stops(store)
    await store.run(heard(SMS, message(phone(ADA), text="START", opts="in"), trusted=False))
    assert standing(store) == [(SMS, ADA)], "an unsigned START proves nothing"
    await store.run(heard(SMS, message(phone("+12025550199"), text="STOP", opts="out"), trusted=False))
    assert len(standing(store)) == 2, "a stop is believed of anybody: the most restrictive word holds"


async def test_a_stop_stays_where_it_is_through_merge_and_unmerge(store: Store) -> None:
    await store.run(heard(MAIL, message(email("lee@x.example"))))
    await store.run(heard(SMS, message(phone(ADA))))
    await stops(store)
    done = await store.run(Merge(1, 2, "agent:1", 1))
    assert standing(store) == [(SMS, ADA)]
    assert not (await store.run(Reply(1, 1, "By mail", "d1", channel_id=MAIL))).duplicate, "it did not spread to their other address"
    await store.run(Unmerge(done.join_id, 1, 2, "agent:1", 1))
    assert standing(store) == [(SMS, ADA)]


async def test_an_answer_by_mail_may_go_to_others_by_the_agents_choice(store: Store) -> None:
    await store.run(heard(MAIL, message(email("alice@a.example"))))
    sent = await store.run(Reply(1, 1, "Hello both", "d1", cc=("Bob@B.example", "alice@a.example")))
    assert [tuple(row) for row in store.rows("SELECT message_id, value, address FROM message_copy")] == [
        (sent.message_id, "bob@b.example", "Bob@B.example")
    ], "whoever it is addressed to gets no second copy"
    with pytest.raises(Refusal, match="no mail address"):
        await store.run(Reply(1, 1, "x", "d2", cc=("nobody",)))
    await store.run(heard(CHAT, message(device("d1"))))
    with pytest.raises(Refusal, match="no copies"):
        await store.run(Reply(2, 1, "x", "d3", cc=("bob@b.example",)))
