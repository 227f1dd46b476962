"""Who wrote this: people are joined on proof alone, and a join carries everything along (laws 6 and 7)."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hub.contract import Claim, Identified, Proof
from hub.conversations.commands import Resolve
from hub.customers.resolution import NoSender, weigh
from tests.storage import CHAT, ENGINES, MAIL, SMS, WHATSAPP, Store, account, device, email, heard, message, open_store, phone
from tests.storage.test_writer import held, queued

ADA = "+12025550123"


@pytest.fixture(params=ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with open_store(tmp_path, engine=request.param) as opened:
        yield opened


def people(store: Store) -> list[int]:
    """The customers that live: not joined into another one."""
    return [row["id"] for row in store.rows("SELECT id FROM customer WHERE merged_into IS NULL ORDER BY id")]


def owners(store: Store) -> dict[str, int | None]:
    rows = store.rows("SELECT kind, value, standing, customer_id FROM identifier")
    return {f"{row['kind']}:{row['value']}:{row['standing']}": row["customer_id"] for row in rows}


def conversations(store: Store) -> list[int]:
    return [row[0] for row in store.rows("SELECT conversation_id FROM message ORDER BY id")]


async def test_the_same_proven_phone_on_two_channels_is_one_customer(store: Store) -> None:
    await store.run(heard(WHATSAPP, message(phone("12025550123"))))
    await store.run(heard(SMS, message(phone("+1 202 555 0123"))))
    assert people(store) == [1]
    assert conversations(store) == [1, 1]
    assert store.value("SELECT count(*) FROM ticket") == 1


async def test_two_numbers_are_two_people_whatever_their_names(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA), sender_name="Ada Okafor")))
    await store.run(heard(SMS, message(phone("+12025550124"), sender_name="Ada Okafor")))
    assert people(store) == [1, 2]


@pytest.mark.parametrize("proof", [Proof.CLAIMED, Proof.SEEN], ids=["typed", "merely seen"])
async def test_an_address_that_was_only_claimed_joins_nobody(proof: Proof, store: Store) -> None:
    await store.run(heard(MAIL, message(email("victim@example.com"))))
    await store.run(heard(CHAT, message(device("d1"), email("victim@example.com", proof))))
    assert people(store) == [1, 2]
    assert owners(store)["email:victim@example.com:proven"] == 1
    assert owners(store)["email:victim@example.com:asserted"] is None, "noted, and nobody's"
    evidence = store.rows("SELECT e.proof FROM evidence e JOIN identifier i ON i.id = e.other_id WHERE i.value = 'victim@example.com'")
    assert [row["proof"] for row in evidence] == [proof.value]


async def test_what_was_claimed_first_does_not_join_whoever_proves_it_later(store: Store) -> None:
    await store.run(heard(CHAT, message(device("d1"), email("ada@example.com", Proof.CLAIMED))))
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    assert people(store) == [1, 2]
    assert conversations(store) == [1, 2]


async def test_mail_that_proves_nothing_threads_with_itself_alone(store: Store) -> None:
    await store.run(heard(MAIL, message(email("ada@example.com", Proof.DMARC))))
    await store.run(heard(MAIL, message(email("ada@example.com", Proof.CLAIMED))))
    await store.run(heard(MAIL, message(email("ada@example.com", Proof.CLAIMED))))
    await store.run(heard(MAIL, message(email("ADA@example.com", Proof.DMARC))))
    assert conversations(store) == [1, 2, 2, 1]


async def test_an_anonymous_device_joins_its_signed_account(store: Store) -> None:
    await store.run(heard(CHAT, message(device("d1"))))
    await store.run(heard(CHAT, Identified(provider_key="i1", claims=(account("u1"), device("d1")), sender_name="Ada")))
    await store.run(heard(CHAT, message(account("u1"), device("d1"))))
    assert people(store) == [1]
    assert conversations(store) == [1, 1]
    assert store.value("SELECT name FROM customer") == "Ada"
    # And from another device of the same account.
    await store.run(heard(CHAT, message(account("u1"), device("d2"))))
    assert conversations(store) == [1, 1, 1]


async def test_an_anonymous_conversation_is_joined_into_the_account_that_signs_in(store: Store) -> None:
    await store.run(heard(CHAT, message(account("u1"), device("home"))))
    await store.run(heard(CHAT, message(device("phone"))))
    assert people(store) == [1, 2]
    await store.run(heard(CHAT, Identified(provider_key="i1", claims=(account("u1"), device("phone")))))
    assert people(store) == [1]
    assert conversations(store) == [1, 1]


@pytest.mark.parametrize("known", [True, False], ids=["both accounts known", "the second account new"])
async def test_two_accounts_on_one_device_never_join(known: bool, store: Store) -> None:
    if known:
        await store.run(heard(CHAT, message(account("u2"), device("elsewhere"))))
    await store.run(heard(CHAT, message(account("u1"), device("shared"))))
    await store.run(heard(CHAT, message(account("u2"), device("shared"))))
    assert len(people(store)) == 2
    assert len(set(conversations(store))) == 2
    assert owners(store)["user_id:u1:proven"] != owners(store)["user_id:u2:proven"]
    # The answer to the second goes to the account, never to the browser the first one still reads.
    told = store.rows("SELECT i.kind, i.value FROM message m JOIN identifier i ON i.id = m.identifier_id ORDER BY m.id DESC LIMIT 1")[0]
    assert (told["kind"], told["value"]) == ("user_id", "u2")
    # The device alone still speaks for whoever had it first.
    await store.run(heard(CHAT, message(device("shared"))))
    assert conversations(store)[-1] == owners(store)["user_id:u1:proven"]


async def test_two_accounts_behind_one_proven_address_never_join(store: Store) -> None:
    await store.run(heard(CHAT, message(account("u1"), device("d1"), email("family@example.com", Proof.SIGNED))))
    await store.run(heard(CHAT, message(account("u2"), device("d2"), email("family@example.com", Proof.SIGNED))))
    assert len(people(store)) == 2
    assert owners(store)["user_id:u1:proven"] != owners(store)["user_id:u2:proven"]
    assert owners(store)["email:family@example.com:proven"] is None, "an address that is two people's is nobody's"
    await store.run(heard(MAIL, message(email("family@example.com"))))
    assert people(store) == [1, 2, 3], "who writes from it is either of them: a conversation of its own"


async def test_accounts_of_two_sites_may_be_one_person(store: Store) -> None:
    await store.run(heard(CHAT, message(account("u1", "shop"), device("d1"), email("ada@example.com", Proof.SIGNED))))
    await store.run(heard(CHAT, message(account("u1", "outlet"), device("d2"), email("ada@example.com", Proof.SIGNED))))
    assert people(store) == [1]


async def test_the_same_id_at_two_sites_is_two_people(store: Store) -> None:
    await store.run(heard(CHAT, message(account("42", "shop"))))
    await store.run(heard(CHAT, message(account("42", "outlet"))))
    assert people(store) == [1, 2]


async def test_a_customer_that_has_two_accounts_all_the_same_is_still_found(store: Store) -> None:
    """An agent may join what no rule would; the next message must not make a third person."""
    await store.run(heard(CHAT, message(account("u1"), device("d1"))))
    await store.run(heard(CHAT, message(account("u2"), device("d2"))))
    store.execute("UPDATE identifier SET customer_id = 1")
    for claims in ((account("u1"), device("d1")), (account("u2"), device("d2")), (device("d2"),), (account("u1"), device("d2"))):
        await store.run(heard(CHAT, message(*claims)))
    assert conversations(store)[2:] == [1, 1, 1, 1]
    assert store.value("SELECT count(*) FROM customer") == 2


async def test_an_observed_signature_proves_nothing(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(heard(SMS, message(phone(ADA)), trusted=False))
    await store.run(heard(SMS, message(phone(ADA)), trusted=False))
    assert conversations(store) == [1, 2, 2], "an unproved sender threads with itself alone"
    assert owners(store) == {f"phone:{ADA}:proven": 1, f"phone:{ADA}:asserted": 2}
    await store.run(heard(CHAT, Identified(provider_key="forged", claims=(account("u1"), phone(ADA))), trusted=False))
    assert "user_id:u1:asserted" not in owners(store), "and vouches for nobody"


@pytest.mark.parametrize("proof", list(Proof))
def test_no_proof_survives_an_untrusted_request(proof: Proof) -> None:
    (known,) = weigh([phone(ADA, proof)], trusted=False)
    assert known.standing == "asserted"
    assert known.proof in ("claimed", "seen", "record")
    (known,) = weigh([phone(ADA, proof)], trusted=True)
    assert known.standing == ("asserted" if proof in (Proof.CLAIMED, Proof.SEEN, Proof.RECORD) else "proven")


def test_what_stands_second_never_takes_the_place_of_an_unusable_sender() -> None:
    """A Reply-To behind a From that is no address would have got the answers, and its owner's conversation."""
    with pytest.raises(NoSender):
        weigh([Claim("email", "not an address", Proof.DMARC), email("victim@example.com", Proof.SEEN)], trusted=True)
    with pytest.raises(NoSender):
        weigh([], trusted=True)
    known = weigh([phone(ADA), email("not an address", Proof.CLAIMED), email("b@example.com", Proof.CLAIMED)], trusted=True)
    assert [one.value for one in known] == [ADA, "b@example.com"], "elsewhere an unusable value drops out"


async def joined(store: Store) -> None:
    """Customer 1 by mail, customer 2 by SMS, both with open tickets and holds; then one event proves both addresses."""
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    await store.run(heard(SMS, message(phone(ADA), sender_name="Ada")))
    await store.run(Resolve(2, 7))
    await store.run(heard(SMS, message(phone(ADA), text="Still not here")))
    await store.run(heard(CHAT, Identified(provider_key="otp", claims=(email("ada@example.com", Proof.OTP), phone(ADA, Proof.OTP)))))


async def test_a_join_relabels_everything_and_the_old_id_leads_on(store: Store) -> None:
    await joined(store)
    assert people(store) == [1]
    assert store.value("SELECT merged_into FROM customer WHERE id = 2") == 1
    assert store.value("SELECT name FROM customer WHERE id = 1") == "Ada"
    assert conversations(store) == [1, 1, 1]
    assert [row[0] for row in store.rows("SELECT conversation_id FROM ticket")] == [1, 1]
    assert set(owners(store).values()) == {1}
    assert [row[0] for row in store.rows("SELECT customer_id FROM hold WHERE released_at IS NULL")] == [1, 1]
    log = store.rows("SELECT * FROM join_log")
    assert [(row["op"], row["left_id"], row["right_id"], row["actor"]) for row in log] == [("join", 1, 2, "hub")]
    assert log[0]["evidence_ids"] not in ("", "[]"), "every join names what proves it"
    # Both unresolved tickets stay; each releases its own hold, and the customer is held while one is open.
    await store.run(Resolve(1, 7))
    assert len(store.rows("SELECT 1 FROM hold WHERE released_at IS NULL")) == 1
    await store.run(Resolve(2, 7))
    assert not store.rows("SELECT 1 FROM hold WHERE released_at IS NULL")


async def test_after_a_join_both_addresses_reach_the_one_conversation(store: Store) -> None:
    await joined(store)
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    assert set(conversations(store)) == {1}
    assert people(store) == [1]


async def test_a_chain_of_joins_stays_one_hop_long(store: Store) -> None:
    addresses = [email(f"a{n}@example.com", Proof.OTP) for n in range(5)]
    for one in addresses:
        await store.run(heard(MAIL, message(one)))
    # Joined from the youngest pair to the oldest: each survivor is itself joined next.
    for left, right in ((3, 4), (2, 3), (1, 2), (0, 1)):
        await store.run(heard(CHAT, Identified(provider_key=f"o{left}", claims=(addresses[left], addresses[right]))))
    assert people(store) == [1]
    assert {row["merged_into"] for row in store.rows("SELECT merged_into FROM customer WHERE id > 1")} == {1}
    assert set(conversations(store)) == {1}


async def test_joins_in_one_batch_end_as_they_would_one_by_one(store: Store) -> None:
    addresses = [email(f"a{n}@example.com", Proof.OTP) for n in range(4)]
    async with held(store) as release:
        works = [heard(MAIL, message(one)) for one in addresses]
        works += [
            heard(CHAT, Identified(provider_key=f"o{a}{b}", claims=(addresses[a], addresses[b]))) for a, b in ((2, 3), (1, 2), (0, 3))
        ]
        works += [heard(MAIL, message(addresses[3]))]
        tasks = await queued(store, *works)
        release()
        await asyncio.gather(*tasks)
    assert people(store) == [1]
    assert {row["merged_into"] for row in store.rows("SELECT merged_into FROM customer WHERE id > 1")} == {1}
    assert set(conversations(store)) == {1}
    assert {row[0] for row in store.rows("SELECT conversation_id FROM ticket")} == {1}
    assert set(owners(store).values()) == {1}


def versions(store: Store) -> dict[str, list[int]]:
    """Of every identifier, the hold versions destinations were told, in the order they were told."""
    import json

    told: dict[str, list[int]] = {}
    for row in store.rows("SELECT data FROM event WHERE type LIKE 'hold.%' ORDER BY seq"):
        data = json.loads(row["data"])
        for one in data["identifiers"]:
            told.setdefault(one["value"], []).append(data["version"])
    return told


async def test_versions_of_holds_only_grow_for_every_identifier_through_joins(store: Store) -> None:
    # The younger customer has been held and released often: its versions stand higher than the survivor's.
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    await store.run(heard(SMS, message(phone(ADA))))
    for _ in range(4):
        await store.run(Resolve(2, 7))
        await store.run(heard(SMS, message(phone(ADA))))
    await store.run(heard(CHAT, Identified(provider_key="otp", claims=(email("ada@example.com", Proof.OTP), phone(ADA, Proof.OTP)))))
    await store.run(Resolve(1, 7))
    await store.run(Resolve(2, 7))
    told = versions(store)
    assert set(told) == {ADA, "ada@example.com"}
    for identifier, numbers in told.items():
        assert numbers == sorted(set(numbers)), identifier
    assert told[ADA][-1] == told["ada@example.com"][-1] > 9


async def test_many_messages_of_one_new_person_in_one_batch_make_one_customer(store: Store) -> None:
    async with held(store) as release:
        works = [heard(SMS if n % 2 else WHATSAPP, message(phone(ADA), text=f"part {n}")) for n in range(40)]
        tasks = await queued(store, *works)
        release()
        await asyncio.gather(*tasks)
    assert people(store) == [1]
    assert store.value("SELECT count(*) FROM ticket") == 1
    assert store.value("SELECT count(*) FROM identifier") == 1
    assert store.value("SELECT count(*) FROM evidence") == 1
    assert conversations(store) == [1] * 40


async def test_sixteen_at_once_with_overlapping_identifiers_make_as_many_customers_as_there_are_people(store: Store) -> None:
    """Select-then-insert made 612 customers of 60 people, UNIQUE alone 73; the database's order decides here."""
    numbers = random.Random(7)
    work: list[Any] = []
    for person in range(60):
        everything = [account(f"u{person}"), email(f"p{person}@example.com", Proof.SIGNED), device(f"d{person}")]
        # Overlapping and different: no single message names them all, together they do.
        for number, pair in enumerate(itertools.permutations(everything, 2)):
            work += [heard(CHAT, message(*pair, key=f"{person}:{number}"))] * 2  # each delivered twice
    numbers.shuffle(work)

    async def worker() -> None:
        while work:
            await store.run(work.pop())

    await asyncio.gather(*(worker() for _ in range(16)))
    assert len(people(store)) == 60
    assert len(conversations(store)) == 360
    assert len(set(conversations(store))) == 60
    for row in store.rows("SELECT customer_id, count(DISTINCT kind) AS kinds, count(*) AS n FROM identifier GROUP BY customer_id"):
        assert (row["kinds"], row["n"]) == (3, 3)
    merged = store.rows("SELECT c.id FROM customer c JOIN customer s ON s.id = c.merged_into WHERE s.merged_into IS NOT NULL")
    assert not merged


async def test_when_an_identifier_last_spoke_is_kept_to_the_day(store: Store) -> None:
    def last() -> int:
        return int(store.value("SELECT last_proof_at FROM identifier"))

    await store.run(heard(SMS, message(phone(ADA))))
    first = last()
    store.clock.advance(3_600)
    await store.run(heard(SMS, message(phone(ADA))))
    assert last() == first
    store.clock.advance(86_400)
    await store.run(heard(SMS, message(phone(ADA))))
    assert last() == store.clock()


async def test_an_answer_goes_to_the_address_as_the_channel_last_spelled_it(store: Store) -> None:
    await store.run(heard(MAIL, message(email("Ada.Okafor@Example.com"))))
    await store.run(heard(MAIL, message(email("ada.okafor@example.com"))))
    assert [tuple(row) for row in store.rows("SELECT value, address FROM identifier")] == [
        ("ada.okafor@example.com", "ada.okafor@example.com")
    ]
