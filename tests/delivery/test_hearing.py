"""Who keeps customers by id hears that two are one, or one is two: in the transaction of its cause."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub.contract import Identified, Proof
from hub.customers.merging import Merge, TakeOut, Unmerge
from tests.storage import CHAT, ENGINES, MAIL, POLICY, SMS, Store, account, device, email, heard, message, open_store, phone

CUSTOMERS = frozenset({"customer.merged", "customer.unmerged", "customer.split"})
HEARING = replace(
    POLICY, destinations=("crm", "ads", "old"), hears={"crm": CUSTOMERS, "ads": frozenset({"customer.split"}), "old": frozenset()}
)
ADA = "+12025550123"


@pytest.fixture(params=ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with open_store(tmp_path, HEARING, engine=request.param) as opened:
        yield opened


def told(store: Store, target: str = "crm") -> list[tuple[str, str, dict[str, Any]]]:
    """(lane, type, data) of everything owed to a destination, in the order in which it goes."""
    rows = store.rows("SELECT lane, payload FROM delivery WHERE kind = 'hold' AND target = ? ORDER BY id", target)
    found = [(row["lane"], json.loads(row["payload"])) for row in rows]
    return [(lane, said["type"], said["data"]) for lane, said in found]


def customers(store: Store, target: str = "crm") -> list[tuple[str, dict[str, Any]]]:
    return [(type_, data) for _, type_, data in told(store, target) if type_.startswith("customer.")]


async def test_only_who_wants_to_is_told_and_all_are_told_of_the_hold(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    await store.run(Merge(1, 2, "agent:7", 7))
    assert [type_ for type_, _ in customers(store)] == ["customer.merged"]
    assert customers(store, "ads") == customers(store, "old") == []
    assert [type_ for _, type_, _ in told(store, "old")] == [type_ for _, type_, _ in told(store) if type_.startswith("hold.")] != []


async def test_news_of_who_is_who_keeps_its_order_and_never_holds_up_a_hold(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    merged = await store.run(Merge(2, 1, "agent:7", 7))
    await store.run(Unmerge(merged.join_id, 2, 1, "program:crm"))
    lanes: dict[str, list[str]] = {}
    for lane, type_, _ in told(store):
        lanes.setdefault(lane, []).append(type_)
    assert lanes["customer:crm:1"] == ["customer.merged", "customer.unmerged"]
    assert lanes["hold:crm:1"] == ["hold.placed", "hold.renewed", "hold.renewed"]


async def test_an_automatic_join_tells_what_is_known_of_both_when_it_is_decided(store: Store) -> None:
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    await store.run(heard(CHAT, message(device("d1"))))
    await store.run(heard(CHAT, Identified(provider_key="c1", claims=(device("d1"), email("ada@example.com", Proof.OTP)))))
    ((type_, data),) = customers(store)
    assert type_ == "customer.merged"
    assert (data["customer_id"], data["other_id"], data["actor"], data["reason"]) == (1, 2, "hub", "proved together")
    assert data["merged_ids"] == [2]
    assert data["identifiers"] == [{"kind": "email", "value": "ada@example.com", "because": "verified"}], "a browser addresses nobody"
    assert data["join_id"] == store.value("SELECT id FROM join_log")


async def test_merged_ids_name_every_id_that_leads_on(store: Store) -> None:
    for number in range(3):
        await store.run(heard(SMS, message(phone(f"+1202555012{number}"))))
    first = await store.run(Merge(2, 3, "agent:7", 7))
    await store.run(Merge(1, 2, "agent:7", 7))
    assert [(data["customer_id"], data["other_id"], data["merged_ids"]) for _, data in customers(store)] == [(2, 3, [3]), (1, 2, [2, 3])]
    await store.run(Unmerge(first.join_id, 2, 3, "agent:7"))
    type_, data = customers(store)[-1]
    assert (type_, data["customer_id"], data["other_id"], data["merged_ids"], data["other_merged_ids"]) == (
        "customer.unmerged",
        1,
        3,
        [2],
        [],
    )
    assert [one["value"] for one in data["other_identifiers"]] == ["+12025550122"]


async def test_a_split_is_told_whoever_made_it(store: Store) -> None:
    # An address of two accounts is nobody's: here it held mails of its own, which become a customer.
    await store.run(heard(MAIL, message(email("family@example.com"))))
    await store.run(heard(CHAT, message(account("u1"), device("d1"), email("family@example.com", Proof.SIGNED))))
    await store.run(heard(CHAT, message(account("u2"), device("d2"), email("family@example.com", Proof.SIGNED))))
    ((type_, data),) = [(type_, data) for type_, data in customers(store) if type_ != "customer.merged"]
    assert (type_, data["actor"]) == ("customer.split", "hub")
    assert "reason" not in data
    assert customers(store, "ads") == [(type_, data)]
    before = {one["value"] for one in data["identifiers"]} | {one["value"] for one in data["other_identifiers"]}
    assert {"family@example.com", "u1"} <= before
    # And by an agent.
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(heard(CHAT, Identified(provider_key="c9", claims=(account("u9"), phone(ADA, Proof.OTP)))))
    id_ = store.value("SELECT id FROM identifier WHERE kind = 'phone' AND value = ?", ADA)
    owner = store.value("SELECT customer_id FROM identifier WHERE id = ?", id_)
    taken = await store.run(TakeOut(owner, id_, "agent:7", 7))
    type_, data = customers(store)[-1]
    assert (type_, data["actor"], {data["customer_id"], data["other_id"]}) == ("customer.split", "agent:7", {owner, taken})
