"""Who is who on the agents' pages: what is shown before an agent decides is what then happens, and each decision can be taken back."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event

from hub.contract import Proof
from hub.conversations import history, queries, timeline, wording
from hub.conversations.commands import Reply
from hub.conversations.ways import why_stop
from hub.customers import preview
from hub.customers.merging import Merge, MoveMessage, MoveTicket, Reject, TakeOut, Unmerge
from hub.policy import Refusal
from hub.storage.reader import Reader
from hub.storage.records import Attribute, Customer, Evidence, Identifier, JoinLog, Message, OptOut, Suggestion, Ticket
from tests.storage import CHAT, ENGINES, MAIL, SMS, WHATSAPP, Store, account, device, email, heard, message, open_store, phone
from tests.web import Insert
from tests.web.test_inbox import XSS, Shape, Site, site
from tests.web.test_inbox import people as furnished

ADA, BEN = "+12025550123", "+12025550199"
ADA_MAIL, BEN_MAIL = "ada@mail.example", "ben@mail.example"
NOW = 1_800_000_000_000_000
BY = ("agent:1", 1)


@pytest.fixture(params=ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Ada by SMS (customer 1, ticket 1, message 1), somebody by mail (2, 2, 2)."""
    async with open_store(tmp_path, engine=request.param) as opened:
        await opened.run(heard(SMS, message(phone(ADA), sender_name="Ada Okafor")))
        await opened.run(heard(MAIL, message(email(ADA_MAIL), sender_name="A. Okafor", subject="Invoice")))
        yield opened


@pytest.fixture
async def reader(store: Store) -> AsyncIterator[Reader]:
    built = store.reader()
    yield built
    await built.close()


# --- before an answer leaves another way ---


def address(id_: int, value: str = "", **more: Any) -> Any:
    values = {"kind": "email", "standing": "proven", "proof": "dmarc", "home_id": id_, "customer_id": 1, "shared_at": None}
    return SimpleNamespace(id=id_, address=value or f"{id_}@x.example", **{**values, **more})


LAST = address(1)


@pytest.mark.parametrize(
    ("last", "to", "together", "words"),
    [
        (LAST, LAST, [], ""),
        (address(1, standing="asserted"), address(1, standing="asserted"), [], ""),  # back to whoever it is
        (LAST, address(2), [(1, 2)], ""),  # proved together
        (LAST, address(2), [(2, 1)], ""),
        (LAST, address(2), [(1, 3), (3, 2)], ""),  # by way of a third
        (LAST, address(2, home_id=1), [], ""),  # of one record from the start
        (LAST, address(2), [], "An agent merged 1@x.example and 2@x.example"),
        (LAST, address(2), [(3, 2)], "An agent merged"),
        (LAST, address(2, standing="asserted"), [(1, 2)], "Nobody has proved"),
        (LAST, address(2, proof="claimed"), [(1, 2)], "Nobody has proved"),
        (LAST, address(2, home_id=1, shared_at=5), [(1, 2)], "is shared"),
        (address(1, standing="asserted"), address(2, home_id=1), [], "An agent merged"),  # unproven, it stands in no record
        (None, address(2), [], "came from another customer's address"),
        (LAST, address(2, "d" * 32, kind="device"), [], "and the chat;"),  # a browser's key is nobody's to see
    ],
)
def test_an_answer_waits_only_where_nothing_proves_that_it_goes_to_the_same_person(
    last: Any, to: Any, together: list[tuple[int, int]], words: str
) -> None:
    own = [one for one in (last, to, address(3)) if one is not None]
    found = why_stop(last, to, own, together)
    assert (words in found) if words else not found


async def test_a_merge_alone_sends_no_history_to_the_other_address(store: Store) -> None:
    """Attack A18: an agent answers on another channel, with the history in the answer."""
    await store.run(Merge(1, 2, *BY))
    with pytest.raises(Refusal, match="An agent merged"):
        await store.run(Reply(1, 1, "As you wrote by SMS ...", "d1", channel_id=MAIL))
    assert not store.rows("SELECT 1 FROM message WHERE direction = 'out'")
    await store.run(Reply(1, 1, "By SMS.", "d2"))  # the way they wrote is never asked about
    await store.run(Reply(2, 1, "By mail.", "d3"))
    await store.run(Reply(1, 1, "It may go there.", "d4", channel_id=MAIL, confirmed_way=True))
    assert store.value("SELECT count(*) FROM message WHERE direction = 'out'") == 3


async def test_what_was_proved_together_needs_no_asking(store: Store) -> None:
    await store.run(heard(CHAT, message(account("u1"), email(ADA_MAIL, Proof.SIGNED), phone(ADA, Proof.SIGNED))))
    assert store.value("SELECT count(*) FROM customer WHERE merged_into IS NULL") == 1
    for number, channel in enumerate((SMS, MAIL, CHAT, WHATSAPP)):
        await store.run(Reply(1, 1, "Hello.", f"d{number}", channel_id=channel))
    assert store.value("SELECT count(*) FROM message WHERE direction = 'out'") == 4


async def test_a_ticket_given_to_somebody_else_is_not_answered_to_them_unasked(store: Store) -> None:
    await store.run(MoveTicket(1, 2, 1))
    with pytest.raises(Refusal, match="another customer's address"):
        await store.run(Reply(1, 1, "Your parcel ...", "d1", channel_id=MAIL))
    await store.run(Reply(1, 1, "Your parcel ...", "d1", channel_id=MAIL, confirmed_way=True))


# --- what counts of what is on record ---


def said(value: str, home: int, source: str = "record:import", at: int = 1, id_: int = 0) -> Any:
    return SimpleNamespace(id=id_, name="city", value=value, home=home, live=home, source=source, at=at)


@pytest.mark.parametrize(
    ("rows", "wanted", "others"),
    [
        ([said("old", 1, at=1), said("new", 1, at=2)], "new", ["old"]),
        ([said("own", 1, at=1), said("theirs", 2, "agent:1", at=9)], "own", ["theirs"]),  # the survivor's own comes first
        ([said("record", 2, at=9), said("agent", 2, "agent:1", at=1)], "agent", ["record"]),
        ([said("signed", 2, "signed:shop", at=9), said("record", 3, at=1)], "record", ["signed"]),
        ([said("claimed", 2, "claimed", at=9), said("signed", 3, "signed:shop", at=1)], "signed", ["claimed"]),
        ([said("program", 2, "program:crm", at=1), said("signed", 3, "signed:shop", at=2)], "program", ["signed"]),
        ([said("same", 1), said("same", 2), said("same", 3)], "same", []),  # said thrice, listed once
        ([said("first", 1, id_=1), said("second", 1, id_=2)], "second", ["first"]),  # at one instant, the later row
    ],
)
def test_the_value_that_counts_and_what_else_is_said(rows: list[Any], wanted: str, others: list[str]) -> None:
    for order in (rows, rows[::-1]):
        (field,) = preview.fields(order, 1)
        assert field.value.value == wanted
        assert [row.value for row in field.others] == others


# --- warnings ---


def head(id_: int, **more: Any) -> Any:
    return SimpleNamespace(**{"id": id_, "name": f"P{id_}", "messages": 1, "tickets": 1, "unresolved": 1, "created_at": 1, **more})


def owned(customer: int, kind: str, value: str, site: str = "", standing: str = "proven", shared_at: int | None = None) -> Any:
    known = {"kind": kind, "site": site, "value": value, "address": value, "standing": standing, "shared_at": shared_at}
    return SimpleNamespace(id=1, customer_id=customer, home_id=customer, **known)


@pytest.mark.parametrize(
    ("identifiers", "parted", "warning"),
    [
        ([owned(1, "user_id", "a", "shop"), owned(2, "user_id", "b", "shop")], (), "two accounts on shop (a and b)"),
        ([owned(1, "user_id", "a", "shop"), owned(2, "user_id", "b", "outlet")], (), ""),  # two sites: one person may have both
        ([owned(1, "user_id", "a", "shop"), owned(2, "email", "b@x.example")], (), ""),
        ([], (SimpleNamespace(actor="agent:1", at=7),), "Maria said on day 7 that they are two people"),
        ([], (SimpleNamespace(actor="program:crm", at=7),), "Somebody said on day 7"),
        ([], (), ""),
        ([owned(1, "email", "a@x.example", shared_at=5)], (), "a@x.example was proved by two people"),
        ([owned(1, "phone", "+1"), owned(2, "phone", "+1")], (), "+1 passed from one to the other"),
        ([owned(1, "email", "e"), owned(2, "email", "e", standing="asserted")], (), "Only one of them has proved e"),
        ([owned(1, "email", "e"), owned(2, "email", "f")], (), ""),
    ],
)
def test_what_speaks_against_a_merge_is_said_before_it(identifiers: list[Any], parted: Any, warning: str) -> None:
    told = preview.merging([head(2), head(1)], identifiers, (), (), (), parted, names={1: "Maria"}, day=lambda at: f"day {at}")
    assert (told.survivor.id, told.other.id) == (1, 2), "the older number stays"
    assert len(told.warnings) == bool(warning)
    assert warning in "".join(told.warnings)


# --- the looks, on both engines, against what then happens ---


async def looked(reader: Reader, live: int, join_id: int, now: int) -> preview.PartPreview:
    ties = [JoinLog(*row) for row in await reader.all(preview.ties(live))]
    read = [
        await reader.all(statement)
        for statement in (
            preview.homes(live),
            preview.identifiers([live]),
            preview.spread(live),
            preview.tickets([live]),
            preview.holds([live], now),
        )
    ]
    homes, identifiers, spread, tickets, holds = read
    return preview.parting(join_id, homes, ties, identifiers, spread, tickets, holds)


def lie(store: Store, customer_id: int) -> tuple[int, list[int], list[str], list[str]]:
    """How things lie with a customer: messages, tickets, addresses, held tickets."""

    def listed(sql: str) -> list[Any]:
        return [row[0] for row in store.rows(sql, customer_id)]

    return (
        store.value("SELECT count(*) FROM message WHERE conversation_id = ?", customer_id),
        listed("SELECT id FROM ticket WHERE conversation_id = ? ORDER BY id"),
        listed("SELECT value FROM identifier WHERE customer_id = ? ORDER BY value"),
        listed("SELECT source FROM hold WHERE customer_id = ? AND released_at IS NULL ORDER BY source"),
    )


def shown(part: preview.Part) -> tuple[int, list[int], list[str], list[str]]:
    return (
        part.messages,
        sorted(row.id for row in part.tickets),
        sorted(row.value for row in part.identifiers),
        sorted(row.source for row in part.holds),
    )


async def test_an_undo_does_what_its_preview_said(store: Store, reader: Reader) -> None:
    made = await store.run(Merge(1, 2, *BY))
    # What came since stands on whichever ticket was the latest: three messages and an answer cross over.
    await store.run(heard(MAIL, message(email(ADA_MAIL), text="More by mail")))
    await store.run(heard(SMS, message(phone(ADA), text="More by SMS")))
    await store.run(heard(SMS, message(phone(ADA), text="And more")))
    await store.run(Reply(1, 1, "By SMS.", "d1"))
    told = await looked(reader, 1, made.join_id, store.clock())
    assert [part.id for part in told.parts] == [1, 2]
    assert [part.name for part in told.parts] == ["Ada Okafor", "A. Okafor"]
    assert sum(part.messages for part in told.parts) == store.value("SELECT count(*) FROM message WHERE conversation_id = 1") == 6
    crossed = [part.strays for part in told.parts]
    await store.run(Unmerge(made.join_id, 1, 2, *BY))
    for part in told.parts:
        messages, tickets, addresses, _ = lie(store, part.id)
        assert (messages, addresses) == (shown(part)[0], shown(part)[2])
        assert set(shown(part)[1]) <= set(tickets), "and a new ticket for those that stood on the other's, if none was open"
    assert sum(crossed) > 0, "the case proves nothing unless something crosses"
    with pytest.raises(Refusal, match="not there any more"):
        await looked(reader, 1, made.join_id, store.clock())


async def test_a_merge_and_its_undo_leave_no_trace_in_what_is_shown(store: Store, reader: Reader) -> None:
    before = [lie(store, one) for one in (1, 2)]
    made = await store.run(Merge(1, 2, *BY))
    told = await looked(reader, 1, made.join_id, store.clock())
    assert [shown(part) for part in told.parts] == before
    assert [part.strays for part in told.parts] == [0, 0]
    await store.run(Unmerge(made.join_id, 1, 2, *BY))
    assert [lie(store, one) for one in (1, 2)] == before


async def test_who_is_tied_in_another_way_is_told_by_which(store: Store, reader: Reader) -> None:
    await store.run(heard(WHATSAPP, message(phone(BEN))))  # customer 3
    first, second = [(await store.run(Merge(*pair, *BY))).join_id for pair in ((1, 2), (2, 3))]
    told = await looked(reader, 1, first, store.clock())
    assert ([part.id for part in told.parts], told.ties) == ([1, 2], ())
    await store.run(Insert((JoinLog(77, "join", 2, 3, "[]", "proved together", "hub", store.clock()),)))  # closes the ring
    told = await looked(reader, 1, first, store.clock())
    assert (told.parts, {tie.id for tie in told.ties}) == ((), {second, 77})
    parted = await store.run(Unmerge(first, 1, 2, *BY))
    assert parted.left_id == parted.right_id == 1, "until another tie of the ring is taken back too"
    told = await looked(reader, 1, second, store.clock())
    assert ([part.id for part in told.parts], told.ties) == ([1, 2], ())


async def test_a_look_at_two_customers_counts_what_is_theirs_alone(store: Store, reader: Reader) -> None:
    await store.run(heard(WHATSAPP, message(phone(BEN), sender_name="Ben")))
    await store.run(Reject(1, 2, *BY))
    heads = await reader.all(preview.heads([1, 2]))
    assert [(row.id, row.name, row.messages, row.tickets, row.unresolved, row.joined) for row in heads] == [
        (1, "Ada Okafor", 1, 1, 1, 0),
        (2, "A. Okafor", 1, 1, 1, 0),
    ]
    assert [row.actor for row in await reader.all(preview.parted(2, 1))] == ["agent:1"]
    assert not await reader.all(preview.parted(1, 3))
    assert [(row.id, row.kind, row.address) for row in await reader.all(preview.called([3, 1]))] == [(1, "phone", ADA), (3, "phone", BEN)]
    await store.run(Merge(2, 3, *BY))
    assert [row.actor for row in await reader.all(preview.parted(1, 2))] == ["agent:1"]
    assert (await reader.first(preview.heads([2]))).joined == 1  # type: ignore[union-attr]


async def test_what_is_on_record_is_read_of_all_homes(store: Store, reader: Reader) -> None:
    rows = [
        Attribute(901, 1, "city", "Lagos", "import", 5),
        Attribute(902, 2, "city", "Abuja", "import", 9),
        Attribute(903, 2, "tier", "Gold", "agent:1", 1),
    ]
    await store.run(Insert(tuple(rows)))
    assert [row.value for row in await reader.all(preview.attributes([1]))] == ["Lagos"]
    await store.run(Merge(1, 2, *BY))
    fields = preview.fields(await reader.all(preview.attributes([1])), 1)
    assert [(field.name, field.value.value, [row.value for row in field.others]) for field in fields] == [
        ("city", "Lagos", ["Abuja"]),
        ("tier", "Gold", []),
    ]


async def test_opt_outs_are_shown_of_each_address_that_has_one(store: Store, reader: Reader) -> None:
    await store.run(heard(SMS, message(phone(ADA), text="STOP", opts="out")))
    await store.run(Insert((OptOut(901, MAIL, "email", ADA_MAIL, 5, None, 6), OptOut(902, SMS, "phone", BEN, 5))))
    found = [(row.customer_id, row.channel_id, row.value) for row in await reader.all(history.opt_outs([1, 2]))]
    assert found == [(1, SMS, ADA)], "not what has ended, not somebody else's"
    assert not await reader.all(history.opt_outs([2]))


async def test_claims_are_shown_whoever_the_address_belongs_to_and_proofs_are_not_claims(store: Store, reader: Reader) -> None:
    await store.run(heard(CHAT, message(device("d1"), email("new@mail.example", Proof.CLAIMED))))
    await store.run(heard(MAIL, message(email("weak@mail.example", Proof.CLAIMED))))  # writes without proof: owns its asserted row
    await store.run(heard(CHAT, message(device("d1"), email("weak@mail.example", Proof.CLAIMED))))
    (chat,) = [row["customer_id"] for row in store.rows("SELECT customer_id FROM identifier WHERE kind = 'device'")]
    found = {row.value: bool(row.own) for row in await reader.all(history.identifiers(chat))}
    assert found == {"d1": True, "new@mail.example": False, "weak@mail.example": False}
    # What proof tied and an agent took out again is the other's alone.
    await store.run(heard(CHAT, message(account("u1"), email("signed@mail.example", Proof.SIGNED))))
    owner = store.value("SELECT customer_id FROM identifier WHERE kind = 'user_id'")
    mail = store.value("SELECT id FROM identifier WHERE value = 'signed@mail.example'")
    assert {(row.identifier_id, row.other_id) for row in await reader.all(history.proofs(owner))}
    await store.run(heard(MAIL, message(email("signed@mail.example"))))
    await store.run(TakeOut(owner, mail, *BY))
    assert [row.value for row in await reader.all(history.identifiers(owner))] == ["u1"]
    assert not await reader.all(history.proofs(owner))


@pytest.mark.parametrize(
    ("number", "values", "name", "wanted"),
    [
        (1, (), "", [1]),
        (3, (), "", [2]),  # merged: leads on to the survivor
        (99, (), "", []),
        (None, (ADA,), "", [1]),
        (None, ("third@mail.example",), "", [2]),
        (None, (), "okafor", [2, 1]),
        (None, (), "ada OK", [1]),
        (None, (), "100%", []),  # a wildcard is a letter like any other
        (None, (), "_", []),
        (1, (ADA,), "ada", [1]),  # found three ways, listed once
    ],
)
async def test_a_customer_is_found_by_number_address_or_a_part_of_the_name(
    number: int | None, values: tuple[str, ...], name: str, wanted: list[int], store: Store, reader: Reader
) -> None:
    await store.run(heard(MAIL, message(email("third@mail.example"))))
    await store.run(Merge(2, 3, *BY))
    assert [row.id for row in await reader.all(queries.find(number, values, name))] == wanted


async def test_a_join_is_shown_as_undone_only_once_it_is(store: Store, reader: Reader) -> None:
    made = await store.run(Merge(1, 2, *BY))
    row = await reader.first(history.join(made.join_id))
    assert (row.left_id, row.right_id, row.undone) == (1, 2, None)  # type: ignore[union-attr]
    await store.run(Unmerge(made.join_id, 1, 2, *BY))
    assert (await reader.first(history.join(made.join_id))).undone is not None  # type: ignore[union-attr]
    ends = store.value("SELECT id FROM join_log WHERE undoes IS NOT NULL")
    assert await reader.first(history.join(ends)) is None, "an end of a join is none"


# --- pages ---


async def merged_site(built: Site) -> None:
    await built.customer_writes("k1", "Where is my parcel?", name="Ada Okafor")
    await built.customer_mails("k2", "My invoice, please", ADA_MAIL)


def inner(page: str, id_: str) -> str:
    """What stands behind the element of this id."""
    return page[page.index(f'id="{id_}"') :]


async def test_a_merge_by_preview_leads_on_and_back(tmp_path: Path) -> None:
    async with site(tmp_path) as built:
        await merged_site(built)
        look = await built.page("/customers/2/merge/1")
        for words in (
            "Keeps its number: customer 1",
            "Links to customer 2 will lead to customer 1",
            "#1 Where is my parcel?",
            "#2 My invoice",
        ):
            assert words in look
        assert "Look twice" not in look
        before = await built.page("/conversations/2")
        done = await built.post("/customers/2/merge/1", script=False)
        assert (done.status, done.headers["Location"]) == (303, "/conversations/1?joined=1")
        page = await built.page("/conversations/1?joined=1")
        assert "Merged: customer 2 is part of this conversation now." in page
        assert 'href="/joins/1"' in page
        assert "Customer 2 was merged in by Maria" in page
        assert "Marketing hold released" not in page, "what came with her is held on"
        async with built.client.get("/conversations/2", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"], answer.headers["Cache-Control"]) == (307, "/conversations/1", "no-store")
        async with built.client.get("/customers/2/merge?q=ada", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (307, "/customers/1/merge?q=ada")

        look = await built.page("/joins/1")
        assert "Take these two apart again?" in look
        done = await built.post("/joins/1/undo", script=False)
        assert (done.status, done.headers["Location"]) == (303, "/joins/1")
        page = await built.page("/joins/1")
        assert "They are two customers again" in page
        assert 'href="/conversations/1"' in page
        assert 'href="/conversations/2"' in page
        after = await built.page("/conversations/2")
        assert re.findall(r'id="message-\d+"', after) == re.findall(r'id="message-\d+"', before)
        assert "Merged: customer" not in await built.page("/conversations/1?joined=1"), "its notice ends with it"
        again = await built.post("/joins/1/undo", script=False)
        assert (again.status, "somebody undid it" in await again.text()) == (409, True)


async def test_a_merge_somebody_once_refused_says_so_first(tmp_path: Path) -> None:
    async with site(tmp_path) as built:
        await merged_site(built)
        await built.hub.writer.run(Insert((Suggestion(1, 1, 2, "similar", 900, "Same name & postcode.", NOW),)))
        for path in ("/customers/suggestions", "/inbox/all?ticket=1", "/inbox/all?ticket=2", "/customers/1/merge", "/customers/1/merge/2"):
            assert "Same name &amp; postcode." in await built.page(path), path
        done = await built.post("/customers/1/reject/2")
        assert done.status == 204
        for path in ("/customers/suggestions", "/inbox/all?ticket=1", "/customers/1/merge"):
            assert "Same name &amp; postcode." not in await built.page(path), path
        assert "Maria said on" in await built.page("/customers/1/merge/2")
        assert "Maria said that customer 2 is another person" in await built.page("/conversations/1")


async def test_the_pages_of_suggestions_show_each_pair_once(tmp_path: Path) -> None:
    rows: list[Any] = [Customer(n, f"Person {n}", NOW) for n in range(1, 132)]
    rows += [Suggestion(n, 1, n + 1, "similar", 500 + n, f"reason {n}", NOW + n) for n in range(1, 131)]
    async with site(tmp_path, rows) as built:
        seen: list[int] = []
        path: str | None = "/customers/suggestions"
        reads = []
        while path:
            statements: list[str] = []
            engine = built.hub.reader._engine.sync_engine

            def note(_c: Any, _cursor: Any, sql: str, *_: Any, seen: list[str] = statements) -> None:
                seen.append(sql)

            event.listen(engine, "before_cursor_execute", note)
            page = await built.page(path)
            event.remove(engine, "before_cursor_execute", note)
            reads.append(len(statements))
            seen += [int(n) for n in re.findall(r'id="pair-1-(\d+)"', page)]
            following = re.search(r'href="(/customers/suggestions\?after=\d+)"', page)
            path = following and following[1]
        assert seen == list(range(131, 1, -1))
        assert max(reads) <= 3, "the session's, the pairs, and what they are called"


async def test_an_address_is_withdrawn_or_taken_out_by_its_button(tmp_path: Path) -> None:
    claimed = Identifier(50, "email", "", "claimed@x.example", "asserted", 0, None, "claimed", "claimed@x.example", NOW, NOW)
    second = Identifier(51, "email", "", "second@x.example", "proven", 0, 1, "dmarc", "second@x.example", NOW, NOW, 1)
    stray = Message(70, 1, 1, "in", "received", "by mail", NOW + 9, 2, 51, proof="dmarc")
    async with site(tmp_path, [*furnished(1), claimed, second, stray, Evidence(50, 1, 50, "claimed", "message:1", NOW)]) as built:
        page = await built.page("/inbox/all?ticket=1")
        assert "/customers/1/identifiers/50/dismiss" in page
        assert "/customers/1/identifiers/51/take-out" in page
        assert "/customers/1/identifiers/51/dismiss" not in page, "what is theirs is not dismissed"
        assert "ask-code" not in page, "no chat to type one in"
        assert (await built.post("/customers/1/identifiers/50/dismiss")).status == 204
        assert "claimed@x.example" not in await built.page("/inbox/all?ticket=1")
        again = await built.post("/customers/1/identifiers/50/dismiss")
        assert (again.status, "Nothing is claimed" in await again.text()) == (409, True)
        assert (await built.post("/customers/1/identifiers/51/take-out")).status == 204
        page = await built.page("/inbox/all?ticket=1")
        assert "second@x.example" not in inner(page, "reach")
        assert "by mail" in await built.page("/conversations/2")


async def test_an_address_tells_what_is_known_of_it(tmp_path: Path) -> None:
    values: list[dict[str, Any]] = [{"shared_at": NOW}, {"ended_at": NOW}, {}]
    rows = [
        Identifier(50 + n, "email", "", f"{n}@x.example", "proven", 0, 1, "dmarc", f"{n}@x.example", NOW, NOW, 1, **more)
        for n, more in enumerate(values)
    ]
    async with site(tmp_path, [*furnished(1), *rows, OptOut(1, 1, "phone", "+491500000001", NOW)]) as built:
        page = await built.page("/inbox/all?ticket=1")
        lines = {n: inner(page, f"identifier-{n}").split("</li>")[0] for n in (1, 50, 51, 52)}
        assert ["Shared: two people" in lines[n] for n in (50, 51, 52)] == [True, False, False]
        assert ["Passed on: somebody else" in lines[n] for n in (50, 51, 52)] == [False, True, False]
        assert ["Sent STOP to SMS on" in lines[n] for n in (1, 52)] == [True, False]
        # Nothing may be written there: not offered, and the reason beside it.
        option = re.search(r'<option value="1:1"[^>]*>', page)
        assert option is not None
        assert "disabled" in option[0]
        assert "sent STOP to SMS on" in page
        refused = await built.post("/tickets/1/reply", text="Hello", to="1:1", draft_key="d" * 20)
        assert (refused.status, "stop word" in await refused.text()) == (409, True)


async def test_a_ticket_and_a_message_are_moved_after_a_look(tmp_path: Path) -> None:
    async with site(tmp_path) as built:
        await merged_site(built)
        found = await built.page("/tickets/1/move?q=" + ADA_MAIL)
        assert 'href="/tickets/1/move?q=ada%40mail.example&amp;to=2"' in found or "to=2" in found
        assert "Move it" not in found
        assert "Move it" in await built.page("/tickets/1/move?q=x&to=2")
        assert "Move it" not in await built.page("/tickets/1/move?q=x&to=1"), "whose it is already"
        assert (await built.post("/tickets/1/move", to="2")).status == 204
        page = await built.page("/inbox/all?ticket=1")
        assert 'data-customer="2"' in page
        assert "Ticket #1 moved here from customer 1 by Maria" in page
        option = re.search(r'<option value="2:2"[^>]*>', page)
        assert option is not None
        assert "another customer" in option[0]
        for form, status in (({}, 409), ({"confirmed_way": "1"}, 204)):
            assert (await built.post("/tickets/1/reply", text="Hi", to="2:2", draft_key="d" * 20, **form)).status == status
        done = await built.post("/messages/1/move", script=False, to="1")
        goal = done.headers["Location"]
        assert (done.status, goal) == (303, "/inbox/all?ticket=3&m=1")
        page = await built.page(goal)
        assert "A message was moved here from customer 2 by Maria" in page
        for path in ("/tickets/1/move", "/messages/1/move"):
            refused = await built.post(path, to="99")
            assert (refused.status, "There is no customer 99." in await refused.text()) == (409, True)


async def test_the_way_a_message_came_stands_beside_it_once_there_are_two(tmp_path: Path) -> None:
    async with site(tmp_path) as built:
        await merged_site(built)
        assert "SMS · " not in inner(await built.page("/inbox/all?ticket=1"), "timeline").split("composer")[0]
        await built.post("/customers/1/merge/2")
        page = inner(await built.page("/inbox/all?ticket=1"), "timeline").split("composer")[0]
        assert "SMS · +49 15012 345678" in page
        assert f"E-mail · {ADA_MAIL}" in page


async def test_why_is_told_with_a_way_back(tmp_path: Path) -> None:
    async with site(tmp_path) as built:
        await merged_site(built)
        assert "/customers/1/why" not in await built.page("/inbox/all?ticket=1"), "one address needs no reason"
        await built.post("/customers/1/merge/2")
        assert 'data-lazy="/customers/1/why"' in await built.page("/inbox/all?ticket=1")
        told = await built.page("/customers/2/why")
        assert "<html" not in told
        assert "Maria merged" in told
        assert 'href="/joins/1"' in told


@pytest.mark.parametrize("payload", XSS)
async def test_no_text_of_anybody_changes_the_elements_of_these_pages(tmp_path: Path, payload: str) -> None:
    shapes = []
    for name, text in (("plain", "plain word"), ("hostile", payload)):
        (tmp_path / name).mkdir()
        rows: list[Any] = furnished(2, text)
        rows += [
            Attribute(1, 1, text, text, text, NOW),
            Attribute(2, 2, text, text + "2", text, NOW),
            Suggestion(1, 1, 2, text, 900, text, NOW),
            Identifier(50, "email", "", text, "proven", 0, 1, "dmarc", text, NOW, NOW, 1, NOW, NOW),
            Customer(3, text, NOW, 0, 1, text),
            JoinLog(1, "merge", 1, 3, "[]", text, "agent:1", NOW),
            Ticket(7, 2, "open", text, "default", 1, 2, NOW, NOW, text, home_id=2),
        ]
        async with site(tmp_path / name, rows) as built:
            found = []
            for path in (
                *("/customers/suggestions", "/customers/1/merge", "/customers/1/merge/2", "/customers/1/why"),
                *("/joins/1", "/tickets/1/move?to=2", "/messages/1/move?to=2", "/inbox/all?ticket=1&parts=customer"),
            ):
                shape = Shape(await built.page(path))
                assert not [url for url in shape.links if not url.startswith(("/", "#"))]
                found.append(shape.found)
        shapes.append(found)
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("payload", XSS)
async def test_whatever_is_searched_for_is_text(tmp_path: Path, payload: str) -> None:
    async with site(tmp_path, furnished(1, payload)) as built:
        for path in ("/customers/1/merge", "/tickets/1/move"):
            async with built.client.get(path, params={"q": payload}) as answer:
                assert answer.status == 200
                shape = Shape(await answer.text())
                assert not [tag for tag, _ in shape.found if tag in ("img", "iframe", "b", "x")]


@pytest.mark.parametrize("path", ["/customers/suggestions", "/customers/1/merge", "/customers/1/merge/2", "/customers/1/why", "/joins/1"])
async def test_nobody_sees_who_is_who_without_a_session(tmp_path: Path, path: str) -> None:
    async with site(tmp_path, furnished(2)) as built:
        built.client.session.cookie_jar.clear()
        async with built.client.get(path, allow_redirects=False) as answer:
            assert answer.status in (303, 401)
            assert "hello" not in await answer.text()


# --- in the timeline ---


def happened(type_: str, data: dict[str, Any], agent_id: int | None = None) -> Any:
    return SimpleNamespace(seq=1, at=NOW, type=type_, message_id=None, ticket_id=4, agent_id=agent_id, data=json.dumps(data))


@pytest.mark.parametrize(
    ("type_", "data", "agent", "words"),
    [
        ("customer.merged", {"other": 7, "rule": "an agent merged them", "actor": "agent:1"}, 1, "Customer 7 was merged in by Maria"),
        ("customer.merged", {"other": 7, "rule": "proved together", "actor": "hub"}, None, "the same person (proved together)"),
        ("customer.merged", {"other": 7, "actor": "program:crm"}, None, "merged in by the program crm"),
        ("customer.unmerged", {"other": 7}, 1, "Customer 7 was taken apart again by Maria"),
        ("customer.split", {"other": 7}, None, "somebody else: customer 7"),
        ("ticket.moved", {"other": 7}, 1, "Ticket #4 moved here from customer 7 by Maria"),
        ("message.moved", {"other": 7, "ticket": 2}, 1, "A message was moved here from customer 7 by Maria"),
        ("suggestion.rejected", {"other": 7}, 1, "Maria said that customer 7 is another person"),
        ("ticket.moved", {}, None, "from another customer"),
    ],
)
def test_who_is_who_is_told_in_words(type_: str, data: dict[str, Any], agent: int | None, words: str) -> None:
    (_day, line) = timeline.arrange(
        [], [happened(type_, data, agent)], [], customer="Ada", agents={1: "Maria"}, now=NOW, zone=wording.zone("UTC")
    )
    assert isinstance(line, timeline.Happening)
    assert words in line.text
    assert type_ in history.TOLD
    assert line.icon != "dot"


def test_a_hold_that_went_on_with_a_joined_record_is_not_told_as_let_go() -> None:
    def lines(data: dict[str, Any]) -> int:
        rows = [happened("hold.released", data)]
        return len(timeline.arrange([], rows, [], customer="Ada", agents={}, now=NOW, zone=wording.zone("UTC")))

    assert lines({"joined_into": 1}) == 0
    assert lines({}) == 2, "a day, and the line"


@pytest.mark.parametrize(
    ("proof", "unproven"),
    [("claimed", True), ("seen", True), ("channel", False), ("dmarc", False), ("signed", False), ("otp", False), ("", False)],
)
async def test_a_message_nobody_proved_is_marked(tmp_path: Path, proof: str, unproven: bool) -> None:
    rows = [
        *furnished(1)[:3],
        Message(1, 1, 1, "in", "received", "Hi", NOW, 1, 1, proof=proof),
        Message(2, 1, 1, "out", "sent", "Ho", NOW, 1, 1, 1),
    ]
    async with site(tmp_path, rows) as built:
        page = inner(await built.page("/inbox/all?ticket=1"), "timeline").split("composer")[0]
        assert ("Not verified" in page) == unproven


async def test_a_message_moved_by_hand_and_the_ticket_it_left_keep_their_words(store: Store, reader: Reader) -> None:
    await store.run(MoveMessage(1, 1, 2, 1))
    row = await reader.first(history.said(1))
    assert (row.conversation_id, row.direction, row.text) == (2, "in", "Where is my parcel?")  # type: ignore[union-attr]
    assert await reader.value(history.identifier_kind(1)) == "phone"
    assert await reader.value(history.identifier_kind(99)) is None
