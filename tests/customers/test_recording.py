"""The business's own records: they tie what belongs to one person, and open, hold and take away nothing (issue 4, lines 1, 8 and 11)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from hub.contract import Identified, Proof
from hub.conversations.commands import Resolve
from hub.customers.disclosure import ProvedKey, readable, visible_messages
from hub.customers.merging import Merge, Reject, TakeOut, Unmerge
from hub.customers.recording import BadRecord, Given, Record, RecordCustomer, Recorded, check_source, read, write
from hub.storage.writer import StorageBusy
from tests.customers.test_resolution import conversations, people
from tests.storage import CHAT, MAIL, RULE_ENGINES, SMS, WHATSAPP, Store, account, device, email, heard, message, open_store, phone

ADA = "+12025550123"
SITES = {"shop", "outlet"}


@pytest.fixture(params=RULE_ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with open_store(tmp_path, engine=request.param) as opened:
        yield opened


def row(
    id_: str | None = None,
    *,
    mail: str | None = None,
    tel: str | None = None,
    wa: str | None = None,
    name: str | None = None,
    site: str = "shop",
    **attributes: str,
) -> Record:
    """A record; several values of a kind are parted by a space. What is not given is not told of; an empty text is told to be none."""

    def several(value: str | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(value.split(" "))

    accounts = None if id_ is None else ((site, id_),)
    return read(Given(accounts, several(wa), several(mail), several(tel), name, tuple(attributes.items())), "US", SITES)


async def record(store: Store, *records: Record, source: str = "crm") -> list[Recorded]:
    return await write(records, source, store.writer)


async def once(store: Store, one: Record, source: str = "crm") -> Recorded:
    (done,) = await record(store, one, source=source)
    return done


def owned(store: Store) -> dict[str, Any]:
    """Whose each proven identifier is, and by what."""
    rows = store.rows("SELECT value, customer_id, proof FROM identifier WHERE standing = 'proven' AND ended_at IS NULL ORDER BY id")
    return {row["value"]: (row["customer_id"], row["proof"]) for row in rows}


def on_record(store: Store) -> list[tuple[str, str]]:
    rows = store.rows(
        "SELECT s.value, o.value AS other FROM evidence e JOIN identifier s ON s.id = e.identifier_id "
        "JOIN identifier o ON o.id = e.other_id WHERE e.proof = 'record' AND e.withdrawn_at IS NULL ORDER BY e.id"
    )
    return [(row["value"], row["other"]) for row in rows]


def attributes(store: Store) -> dict[tuple[str, str], str]:
    return {(row["source"], row["name"]): row["value"] for row in store.rows("SELECT source, name, value FROM attribute")}


def everything(store: Store) -> list[Any]:
    tables = (
        "customer",
        "identifier",
        "evidence",
        "join_log",
        "attribute",
        "suggestion",
        "event",
        "cannot_link",
        "ticket",
        "hold",
        "delivery",
    )
    key = {"event": "seq"}
    return [[tuple(one) for one in store.rows(f"SELECT * FROM {table} ORDER BY {key.get(table, 'id')}")] for table in tables]


# --- reading a row: pure ---

READ: dict[str, tuple[Given, list[str]]] = {
    "all that names a person, the strongest first": (
        Given((("shop", "u1"),), ("US.1",), ("A@Example.com",), ("(202) 555-0123",)),
        ["user_id:u1", "wa_user_id:US.1", "email:a@example.com", f"phone:{ADA}"],
    ),
    "several of a kind, and one twice": (
        Given(emails=("a@example.com", "b@example.com", "A@example.com")),
        ["email:a@example.com", "email:b@example.com"],
    ),
    "spaces around": (Given(emails=(" a@example.com ",)), ["email:a@example.com"]),
    "what software writes where it knows nothing": (
        Given((("shop", "null"),), ("undefined",), ("N/A", "a@example.com"), ("0000", "-", "")),
        ["email:a@example.com"],
    ),
    "a role mailbox is kept": (Given(emails=("info@example.com",)), ["email:info@example.com"]),
    "an extension is part of the number": (Given(phones=("+1 202 555 0123 ext. 5",)), [f"phone:{ADA};ext=5"]),
    "from abroad": (Given(phones=("+44 20 7946 0000",)), ["phone:+442079460000"]),
    "accounts of two sites": (Given((("shop", "1"), ("outlet", "1"))), ["user_id:1", "user_id:1"]),
}


@pytest.mark.parametrize("case", READ)
def test_a_row_is_read(case: str) -> None:
    told, known = READ[case]
    made = read(told, "US", SITES)
    assert [f"{one.kind}:{one.value}" for one in made.known] == known
    assert {one.proof for one in made.known} == {"record"}
    assert {one.standing for one in made.known} == {"proven"}


BAD: dict[str, tuple[Given, str, list[str]]] = {
    "nobody": (Given(name="Ada"), "US", ["Nothing to know this person by"]),
    "only placeholders": (Given(emails=("null",), phones=("0",)), "US", ["Nothing to know this person by"]),
    "no address": (Given(emails=("ada at example",)), "US", ["email: 'ada at example' is no e-mail address."]),
    "no number": (Given(phones=("12",)), "US", ["phone: '12' is no possible phone number."]),
    "no country": (Given(phones=("2025550123",)), "", ["has no country code", "identity.default_region"]),
    "rounded by a spreadsheet": (Given(phones=("1.20256E+10",)), "US", ["rounded by a spreadsheet"]),
    "a site there is not": (Given((("shp", "u1"),)), "US", ["there is no site 'shp'. Known: outlet, shop."]),
    "no site": (Given((("", "u1"),)), "US", ["say of which site"]),
    "two accounts of one site": (Given((("shop", "u1"), ("shop", "u2"))), "US", ["two accounts of shop ('u1', 'u2')"]),
    "everything that is wrong, not the first of it": (
        Given((("shp", "u1"),), None, ("x",), ("12",)),
        "US",
        ["no site 'shp'", "email: 'x'", "phone: '12'"],
    ),
    "a crowd": (Given(emails=tuple(f"a{n}@example.com" for n in range(21))), "US", ["21 identifiers"]),
    "a control character": (Given(emails=("a@example.com",), attributes=(("plan", "a\x00b"),)), "US", ["plan: holds control characters"]),
    "half a character": (Given(emails=("a@example.com",), name="\ud800"), "US", ["name: holds control characters"]),
    "an attribute twice": (Given(emails=("a@example.com",), attributes=(("plan", "a"), ("plan ", "b"))), "US", ["plan: given twice"]),
    "an attribute without a name": (Given(emails=("a@example.com",), attributes=(("", "a"),)), "US", ["cannot be named"]),
    "too long": (Given(emails=("a@example.com",), attributes=(("plan", "a" * 10_001),)), "US", ["plan: longer than 10,000"]),
    "an id that is too long": (Given((("shop", "u" * 513),)), "US", ["cannot be an id"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_row_that_says_nothing_usable_is_refused_in_words(case: str) -> None:
    told, region, texts = BAD[case]
    with pytest.raises(BadRecord) as caught:
        read(told, region, SITES)
    assert len(caught.value.faults) == max(1, len(texts)) or case == "no country"
    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb", "\ud800"])
def test_a_source_has_a_name(name: str) -> None:
    with pytest.raises(BadRecord):
        check_source(name)
    assert check_source(" crm.csv ") == "crm.csv"


# --- who it is ---


async def test_a_question_from_an_imported_customers_number_lands_with_that_customer(store: Store) -> None:
    done = await once(store, row("u1", mail="ada@example.com", tel="(202)555-0123", name="Ada", plan="gold"))
    assert done == Recorded("created", 1)
    await store.run(heard(WHATSAPP, message(phone("12025550123"), sender_name="~ada~")))
    await store.run(heard(MAIL, message(email("ADA@example.com"))))
    await store.run(heard(CHAT, message(account("u1"), device("d1"))))
    assert people(store) == [1]
    assert conversations(store) == [1, 1, 1]
    assert store.value("SELECT name FROM customer") == "Ada", "the name on record stands"
    assert attributes(store) == {("crm shop/u1", "plan"): "gold", ("crm shop/u1", "name"): "Ada"}


async def test_what_spoke_is_no_longer_on_record_alone(store: Store) -> None:
    await once(store, row("u1", mail="Ada@Example.com", tel="202-555-0123"))
    assert owned(store)[ADA] == (1, "record")
    assert store.value("SELECT address FROM identifier WHERE kind = 'phone'") == ADA, "a number is written to as anybody dials it"
    assert store.value("SELECT address FROM identifier WHERE kind = 'email'") == "Ada@Example.com"
    await store.run(heard(SMS, message(phone(ADA))))
    assert owned(store)[ADA] == (1, "channel")
    assert owned(store)["ada@example.com"] == (1, "record")
    assert (await once(store, row("u1", mail="ADA@Example.com", tel="202-555-0123"))).status == "unchanged"
    assert owned(store)[ADA] == (1, "channel"), "and a record makes it no less again"


async def test_a_record_finds_who_wrote_before_and_joins_their_channels(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    assert people(store) == [1, 2]
    done = await once(store, row("u1", mail="ada@example.com", tel=ADA))
    assert (done.status, done.customer_id, done.joined) == ("updated", 1, 1)
    assert people(store) == [1]
    assert set(conversations(store)) == {1}
    joined = store.rows("SELECT op, actor, left_identifier, right_identifier FROM join_log")
    assert {row["actor"] for row in joined} == {"record:crm"}


async def test_a_join_by_record_can_be_taken_back_and_the_same_record_does_not_make_it_again(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    await once(store, row("u1", mail="ada@example.com", tel=ADA))
    tie = store.rows("SELECT id, left_id, right_id FROM join_log WHERE left_id <> right_id AND 2 IN (left_id, right_id)")[0]
    await store.run(Unmerge(tie["id"], tie["left_id"], tie["right_id"], "agent:1", 1))
    assert people(store) == [1, 2]
    assert conversations(store) == [1, 2]
    again = await once(store, row("u1", mail="ada@example.com", tel=ADA))
    assert again.joined == 0
    assert people(store) == [1, 2]


async def test_said_again_a_record_changes_nothing_at_all(store: Store) -> None:
    records = [
        row("u1", mail="ada@example.com info@example.com", tel=f"{ADA} +18005550100", wa="US.1", name="Ada", plan="gold", city=""),
        row("u2", mail="ada@example.com", plan="tin"),  # an address of two accounts
        row(None, mail="noreply@example.com", name="Robot"),
        row(None, mail="a@example.com b@example.com"),
        row("u9", mail="a@example.com", site="outlet", plan="brass"),
        row("u8", wa="US.2", tel=ADA),
    ]
    first = await record(store, *records)
    assert [one.status for one in first] == ["created", "created", "created", "created", "updated", "created"]
    before = everything(store)
    again = await record(store, *records)
    assert [one.status for one in again] == ["unchanged"] * len(records)
    assert [one.customer_id for one in again] == [one.customer_id for one in first]
    assert everything(store) == before


async def test_records_of_one_batch_find_each_other(store: Store) -> None:
    works = [RecordCustomer(row(None, mail=f"a{n}@example.com a{n + 1}@example.com"), "crm") for n in range(4)]
    done = await asyncio.gather(*map(store.run, works))
    assert len({one.customer_id for one in done}) == 1
    assert people(store) == [1]


async def test_two_accounts_of_one_site_never_join_by_record(store: Store) -> None:
    await once(store, row("u1", mail="family@example.com"))
    done = await once(store, row("u2", mail="family@example.com", tel=ADA))
    assert (done.status, done.suggested) == ("created", 1)
    assert people(store) == [1, 2]
    assert owned(store)["family@example.com"] == (None, "record"), "an address of two accounts is nobody's"
    assert store.value("SELECT reason FROM suggestion") == "On record both have family@example.com, and two accounts of one site."
    await store.run(heard(MAIL, message(email("family@example.com"))))
    assert people(store) == [1, 2, 3], "whoever writes from it may be either"


async def test_a_record_takes_no_address_away_from_whoever_wrote_from_it(store: Store) -> None:
    """One file with the ids of another system would tear every conversation apart."""
    await store.run(heard(CHAT, message(account("u1"), device("d1"), email("ada@example.com", Proof.SIGNED))))
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    before = conversations(store)
    done = await once(store, row("crm-77", mail="ada@example.com"))
    assert (done.status, done.customer_id, done.suggested) == ("created", 2, 1)
    assert owned(store)["ada@example.com"][0] == 1
    assert store.value("SELECT count(*) FROM identifier WHERE shared_at IS NOT NULL") == 0
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    assert conversations(store) == [*before, 1]
    assert (await once(store, row("crm-77", mail="ada@example.com"))) == Recorded("unchanged", 2), "and asks once"


BLOCKED = {
    "a role mailbox": ("info@example.com", email, MAIL),
    "a placeholder": ("noemail@example.com", email, MAIL),
    "a toll-free number": ("+18005550100", phone, SMS),
}


@pytest.mark.parametrize("case", BLOCKED)
async def test_what_may_not_bridge_is_kept_as_evidence_and_ties_nobody(case: str, store: Store) -> None:
    value, claim, channel = BLOCKED[case]
    told = {"mail": value} if "@" in value else {"tel": value}
    await record(store, row("u1", **told), row("u2", **told))
    assert people(store) == [1, 2]
    assert owned(store)[value] == (None, "record")
    assert on_record(store) == [("u1", value), ("u2", value)]
    await store.run(heard(channel, message(claim(value))))
    assert people(store) == [1, 2, 3]
    assert store.value("SELECT count(*) FROM suggestion") == 0


@pytest.mark.parametrize("case", BLOCKED)
async def test_a_record_of_nothing_that_may_bridge_is_a_customer_of_its_own(case: str, store: Store) -> None:
    value, claim, channel = BLOCKED[case]
    told = {"mail": value} if "@" in value else {"tel": value}
    await once(store, row(None, **told, name="Front desk"))
    assert owned(store)[value] == (1, "record")
    assert (await once(store, row(None, **told, name="Front desk"))).status == "unchanged"
    await store.run(heard(channel, message(claim(value))))
    assert people(store) == [1]


async def test_two_that_may_not_bridge_are_not_one_by_standing_in_one_row(store: Store) -> None:
    await once(store, row(None, mail="info@example.com sales@example.com"))
    await store.run(heard(MAIL, message(email("sales@example.com"))))
    await store.run(heard(MAIL, message(email("info@example.com"))))
    assert conversations(store) == [2, 1]


async def test_what_somebody_parted_no_record_joins(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    await store.run(Reject(1, 2, "agent:1", 1))
    done = await once(store, row(None, mail="ada@example.com", tel=ADA))
    assert people(store) == [1, 2]
    assert done.suggested == 1
    assert (await once(store, row(None, mail="ada@example.com", tel=ADA))).suggested == 0


async def test_a_record_of_yesterday_gives_no_number_back_that_has_a_new_holder(store: Store) -> None:
    await once(store, row("u1", wa="US.1", tel=ADA))
    await store.run(heard(WHATSAPP, message(phone(ADA), wa_id("US.1"))))
    await store.run(heard(WHATSAPP, message(phone(ADA), wa_id("US.2"))))  # a new account on the number: a new holder
    assert people(store) == [1, 2]
    before = owned(store)
    again = await once(store, row("u1", wa="US.1", tel=ADA))
    assert again.suggested == 0
    assert owned(store) == before
    assert people(store) == [1, 2]
    await store.run(heard(SMS, message(phone(ADA))))
    assert conversations(store)[-1] == 2


async def test_a_record_puts_no_other_account_on_a_number_that_one_speaks_from(store: Store) -> None:
    await store.run(heard(WHATSAPP, message(phone(ADA), wa_id("US.1"))))
    done = await once(store, row("u1", wa="US.2", tel=ADA))
    assert (done.status, done.customer_id, done.suggested) == ("created", 2, 1)
    assert owned(store)[ADA] == (1, "channel")


def wa_id(value: str) -> Any:
    from hub.contract import Claim

    return Claim("wa_user_id", value, Proof.CHANNEL)


# --- what the file no longer says ---


async def test_a_number_the_record_no_longer_has_is_let_go_of(store: Store) -> None:
    await once(store, row("u1", mail="ada@example.com", tel=ADA))
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    assert held(store) == {"ada@example.com": "verified", "u1": "record", ADA: "record"}
    done = await once(store, row("u1", mail="ada@example.com", tel=""))
    assert done == Recorded("updated", 1, withdrawn=1)
    assert held(store) == {"ada@example.com": "verified", "u1": "record"}
    assert (await once(store, row("u1", mail="ada@example.com", tel=""))).status == "unchanged"
    await store.run(heard(SMS, message(phone(ADA))))
    assert people(store) == [1, 2], "whoever has it now is somebody else"
    back = await once(store, row("u1", mail="ada@example.com", tel=ADA))
    assert (back.joined, people(store)) == (1, [1]), "until the record says otherwise again"


async def test_a_file_without_the_column_says_nothing_of_numbers(store: Store) -> None:
    await once(store, row("u1", mail="ada@example.com", tel=ADA, plan="gold", city="Oslo"))
    done = await once(store, row("u1", mail="ada@example.com", plan="tin"))
    assert (done.withdrawn, owned(store)[ADA][0]) == (0, 1)
    assert attributes(store) == {("crm shop/u1", "plan"): "tin", ("crm shop/u1", "city"): "Oslo"}


async def test_what_spoke_stays_though_the_record_lets_go_of_it(store: Store) -> None:
    await once(store, row("u1", tel=ADA))
    await store.run(heard(SMS, message(phone(ADA))))
    done = await once(store, row("u1", tel="+12025550199"))
    assert (done.withdrawn, done.kept) == (1, 1)
    assert owned(store)[ADA][0] == 1
    await store.run(heard(SMS, message(phone(ADA))))
    assert conversations(store) == [1, 1], "nobody is parted from their own words by a file"


async def test_a_record_that_changes_parts_nobody_it_joined(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(heard(CHAT, message(account("u1"), device("d1"))))
    await once(store, row("u1", tel=ADA))
    assert people(store) == [1]
    done = await once(store, row("u1", tel=""))
    assert (done.withdrawn, done.kept) == (1, 1)
    assert people(store) == [1]
    tie = store.rows("SELECT id, left_id, right_id FROM join_log")[0]
    await store.run(Unmerge(tie["id"], tie["left_id"], tie["right_id"], "agent:1", 1))
    assert people(store) == [1, 2], "an agent can"


async def test_one_source_lets_go_of_nothing_that_another_holds(store: Store) -> None:
    await once(store, row("u1", tel=ADA, plan="gold"), source="crm")
    await once(store, row("u1", tel=ADA, plan="tin"), source="mail tool")
    done = await once(store, row("u1", tel="", plan=""), source="crm")
    assert (done.withdrawn, done.kept) == (1, 1)
    assert owned(store)[ADA][0] == 1
    assert attributes(store) == {("mail tool shop/u1", "plan"): "tin"}
    done = await once(store, row("u1", tel=""), source="mail tool")
    assert (done.withdrawn, done.kept) == (1, 0)
    assert owned(store)[ADA][0] is None


async def test_a_role_mailbox_is_let_go_of_too(store: Store) -> None:
    await once(store, row("u1", mail="info@example.com", tel=ADA))
    await store.run(heard(SMS, message(phone(ADA))))
    assert held(store)["info@example.com"] == "record", "holding needs less proof than joining"
    await once(store, row("u1", mail="", tel=ADA))
    assert "info@example.com" not in held(store)


async def test_a_name_follows_its_record_and_never_takes_the_place_of_ones_own(store: Store) -> None:
    await once(store, row("u1", tel=ADA, name="Ada"))
    await once(store, row("u1", tel=ADA, name="Ada Okafor"))
    assert store.value("SELECT name FROM customer") == "Ada Okafor"
    await store.run(heard(MAIL, message(email("ben@example.com"), sender_name="Benny")))
    await once(store, row("u2", mail="ben@example.com", name="Benjamin"))
    await once(store, row("u2", mail="ben@example.com", name="Benjamin O."))
    assert store.value("SELECT name FROM customer WHERE id = 2") == "Benny"
    assert attributes(store)["crm shop/u2", "name"] == "Benjamin O."


async def test_a_name_is_followed_in_a_home_that_was_joined_since(store: Store) -> None:
    await record(store, row("u1", name="Ada"), row("u2", name="Countess", city="London"))
    await store.run(Merge(1, 2, "agent:1", 1))
    before = everything(store)
    assert (await once(store, row("u2", name="Countess", city="London"))).status == "unchanged"
    assert everything(store) == before
    done = await once(store, row("u2", name="Countess Lovelace", city="Ockham"))
    assert (done.status, done.customer_id) == ("updated", 1)
    assert [row["name"] for row in store.rows("SELECT name FROM customer WHERE id = 1")] == ["Ada"]
    tie = store.rows("SELECT id, left_id, right_id FROM join_log")[0]
    await store.run(Unmerge(tie["id"], tie["left_id"], tie["right_id"], "agent:1", 1))
    assert [row["name"] for row in store.rows("SELECT name FROM customer ORDER BY id")] == ["Ada", "Countess Lovelace"]
    assert [row["customer_id"] for row in store.rows("SELECT customer_id FROM attribute ORDER BY id")] == [1, 2, 2]


# --- holds and disclosure ---


def held(store: Store) -> dict[str, str]:
    """What the last word to destinations covers."""
    import json

    told = [event for event in store.events() if event.type.startswith("hold.")]
    return {one["value"]: one["because"] for one in json.loads(told[-1].data)["identifiers"]} if told else {}


async def test_an_import_holds_nobody_sends_nothing_and_opens_nothing(store: Store) -> None:
    await record(store, row("u1", mail="ada@example.com", tel=ADA, name="Ada", plan="gold"), row("u2", mail="ada@example.com"))
    for table in ("hold", "hold_ledger", "ticket", "message", "delivery"):
        assert store.value(f"SELECT count(*) FROM {table}") == 0
    assert {event.type for event in store.events()} <= {"customer.created", "customer.identified", "suggestion.added", "customer.split"}


async def test_of_a_customer_who_is_held_destinations_learn_what_is_recorded(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    assert held(store) == {ADA: "verified"}
    await once(store, row("u1", mail="ada@example.com", tel=ADA))
    assert store.events()[-1].type == "hold.renewed"
    assert held(store) == {ADA: "verified", "u1": "record", "ada@example.com": "record"}
    version = store.value("SELECT hold_version FROM customer")
    await once(store, row("u1", mail="ada@example.com", tel=ADA))
    assert store.value("SELECT hold_version FROM customer") == version, "and nothing twice"
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    assert held(store)["ada@example.com"] == "verified"
    await store.run(Resolve(1, 7))


async def seen(store: Store, *keys: ProvedKey) -> list[str]:
    reader = store.reader()
    try:
        return [row.text for row in await reader.all(visible_messages(keys, [SMS, WHATSAPP, MAIL, CHAT]))]
    finally:
        await reader.close()


async def test_a_record_shows_nobody_anything(store: Store) -> None:
    """The file says u1 has this number; whoever signs in as u1 has not proved the number, and whoever holds the number is not u1."""
    await store.run(heard(SMS, message(phone(ADA), text="My card was stolen")))
    await once(store, row("u1", mail="mallory@example.com", tel=ADA))
    await store.run(heard(CHAT, message(account("u1"), device("d1"), text="Hi")))
    await store.run(heard(MAIL, message(email("mallory@example.com"), text="Send me my history")))
    assert people(store) == [1], "one customer, for agents"
    assert await seen(store, ProvedKey("user_id", "shop", "u1"), ProvedKey("device", "", "d1")) == ["Hi"]
    assert await seen(store, ProvedKey("email", "", "mallory@example.com")) == ["Send me my history"]
    assert await seen(store, ProvedKey("phone", "", ADA)) == ["My card was stolen"]
    reader = store.reader()
    try:
        for value, count in (("u1", 1), ("mallory@example.com", 1), (ADA, 1)):
            ids = [row[0] for row in store.rows("SELECT id FROM identifier WHERE value = ?", value)]
            assert len(await reader.all(readable(ids))) == count
    finally:
        await reader.close()


async def test_an_unproved_sender_gains_nothing_by_a_record(store: Store) -> None:
    await once(store, row("u1", mail="ada@example.com"))
    await store.run(heard(MAIL, message(email("ada@example.com", Proof.CLAIMED))))
    await store.run(heard(CHAT, message(device("d1"), email("ada@example.com", Proof.CLAIMED))))
    assert people(store) == [1, 2, 3]


async def test_no_message_can_bring_a_record(store: Store) -> None:
    await once(store, row("u1", mail="ada@example.com"))
    await store.run(heard(CHAT, Identified(provider_key="i1", claims=(device("d1"), email("ada@example.com", Proof.RECORD)))))
    assert people(store) == [1, 2]


# --- writing many ---


async def test_a_database_that_is_behind_is_tried_again_and_nobody_is_recorded_twice(store: Store) -> None:
    class Behind:
        """The real writer, which refuses every third unit of work at first."""

        def __init__(self) -> None:
            self.count = 0
            self.clock, self.policy = store.writer.clock, store.writer.policy

        async def run(self, work: Any) -> Any:
            self.count += 1
            if self.count % 3 == 0 and self.count < 40:
                raise StorageBusy("behind")
            return await store.writer.run(work)

        async def close(self) -> None: ...

    records = [row(f"u{n}", mail=f"a{n}@example.com") for n in range(40)]
    with pytest.raises(StorageBusy):
        await write(records, "crm", Behind())
    done = await write(records, "crm", Behind(), patience=30)
    assert len(done) == 40
    assert [one.status for one in done[20:]] == ["created"] * 20
    assert len(people(store)) == 40


async def test_sixty_programs_that_record_one_person_at_once_make_one_customer(store: Store) -> None:
    records = [row("u1", mail=f"a{n % 7}@example.com", tel=ADA if n % 2 else None) for n in range(60)]
    done = await asyncio.gather(*(store.run(RecordCustomer(one, f"program {n}")) for n, one in enumerate(records)))
    assert {one.customer_id for one in done} == {1}
    assert len(people(store)) == 1


async def test_an_agent_decides_more_than_a_file(store: Store) -> None:
    await record(store, row("u1", mail="ada@example.com"), row("u2", mail="ben@example.com"))
    await store.run(Merge(1, 2, "agent:1", 1))
    assert [one.customer_id for one in await record(store, row("u1", mail="ada@example.com"), row("u2", mail="ben@example.com"))] == [1, 1]
    address = store.value("SELECT id FROM identifier WHERE value = 'ada@example.com'")
    await store.run(TakeOut(1, address, "agent:1", 1))
    again = await once(store, row("u1", mail="ada@example.com"))
    assert again.customer_id == 1


@drawn(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30), st.sampled_from(["", "US", "DE", "BR"]))
def test_whatever_stands_in_a_row_is_read_or_refused(mail: str, tel: str, id_: str, region: str) -> None:
    try:
        made = read(Given((("shop", id_),), (id_,), (mail,), (tel,), mail, (("plan", tel),)), region, SITES)
    except BadRecord:
        return
    assert made.known
    assert made.key
