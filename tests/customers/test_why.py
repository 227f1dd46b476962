"""Why are these one person? Told in sentences with dates, from what is noted (issue 4, line 7)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from hub.agents import CreateAgent
from hub.contract import Claim, HolderChanged, Identified, Proof
from hub.customers.merging import Merge, Reject, TakeOut, Unmerge
from hub.customers.why import Explanation, Rows, explain, path, tell
from hub.storage.reader import Reader
from hub.storage.records import CannotLink, Customer, Evidence, Identifier, JoinLog
from tests.storage import CHAT, ENGINES, MAIL, SMS, WHATSAPP, Store, account, device, email, heard, message, open_store, phone

LABELS = {SMS: "SMS", WHATSAPP: "WhatsApp", MAIL: "E-mail", CHAT: "Web chat"}
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = 86_400
ADA, SHOWN = "+12125550142", "+1 212-555-0142"


def at(day: int, month: int = 3) -> int:
    return int(datetime(2026, month, day, 12, tzinfo=UTC).timestamp() * 1_000_000)


# --- the sentences, from tables of rows ------------------------------------------------------------------------------


def identifier(id_: int, kind: str, value: str, *, home: int = 1, **more: Any) -> Identifier:
    standing = more.pop("standing", "proven")
    proof = more.pop("proof", "channel")
    site = more.pop("site", "")
    return Identifier(id_, kind, site, value, standing, 0, more.pop("customer", 1), proof, value, at(1), at(1), home, **more)


PHONE = identifier(1, "phone", ADA)
MAILBOX = identifier(2, "email", "ada@example.com", proof="dmarc")
U77 = identifier(3, "user_id", "u77", site="shop", proof="signed")
BROWSER = identifier(4, "device", "5f0e3a3d9c1b4f63", proof="channel")
UNPROVEN = identifier(5, "email", "ada@work.example", standing="asserted", proof="claimed")

# identifier, proof, source, who wrote that message on which channel -> the sentence
CAME: dict[str, tuple[Identifier, str, str, tuple[int, int] | None, str]] = {
    "by its channel": (PHONE, "channel", "message:9", (WHATSAPP, 1), f"WhatsApp {SHOWN} wrote first on 3 March 2026."),
    "on an unknown channel": (PHONE, "channel", "message:9", (99, 1), f"{SHOWN} wrote first on 3 March 2026."),
    "beside the sender": (
        PHONE,
        "channel",
        "message:9",
        (WHATSAPP, 8),
        f"{SHOWN} came with it on 3 March 2026: the channel itself said so.",
    ),
    "a message that is gone": (PHONE, "channel", "message:9", None, f"{SHOWN} wrote first on 3 March 2026."),
    "a mail": (
        MAILBOX,
        "dmarc",
        "message:9",
        (MAIL, 2),
        "ada@example.com wrote first on 3 March 2026; its mail domain vouched for the mail.",
    ),
    "a signed account": (U77, "signed", "identified:4", None, "They first signed in on shop as u77 on 3 March 2026."),
    "an address in a token": (
        MAILBOX,
        "signed",
        "identified:4",
        None,
        "ada@example.com stood in your site's signed token on 3 March 2026.",
    ),
    "a code": (MAILBOX, "otp", "identified:4", None, "A one-time code sent to ada@example.com came back on 3 March 2026."),
    "a visitor": (BROWSER, "channel", "message:9", (CHAT, 4), "The chat visitor wrote first on 3 March 2026."),
    "a silent visitor": (BROWSER, "channel", "identified:4", None, "The chat visitor first came on 3 March 2026."),
    "a record": (PHONE, "record", "import", None, f"Your own record has named {SHOWN} since 3 March 2026."),
    "a record with a name": (PHONE, "record", "record:CRM", None, f"Your own record (CRM) has named {SHOWN} since 3 March 2026."),
    "an agent's word": (PHONE, "agent", "agent:7", None, f"An agent noted {SHOWN} on 3 March 2026."),
    "no proof": (
        UNPROVEN,
        "claimed",
        "message:9",
        (MAIL, 5),
        "ada@work.example wrote first on 3 March 2026, without proof of who sent it.",
    ),
    "a word we do not know": (PHONE, "hearsay", "", None, f"{SHOWN} came on 3 March 2026, unproven."),
}


@pytest.mark.parametrize("case", CAME)
def test_how_an_identifier_came_to_be_theirs(case: str) -> None:
    one, proof, source, wrote, sentence = CAME[case]
    rows = Rows(
        Customer(1, "Ada", at(1)),
        own=[one],
        evidence=[Evidence(1, one.id, None, proof, source, at(3))],
        spoke={9: wrote} if wrote else {},
        labels=LABELS,
    )
    told = tell(rows)
    assert [(line.at, line.text, line.about) for line in told.lines] == [(at(3), sentence, "came")]
    assert not told.ties


# speaker, other, proof, source -> the sentence of a tie, and of two at one home
TOGETHER: dict[str, tuple[Identifier, Identifier, str, str, str]] = {
    "a code in a chat": (
        *(BROWSER, MAILBOX, "otp", "identified:4"),
        "On 3 March 2026 a one-time code sent to ada@example.com was answered in the chat of the chat visitor: so they are one person's.",
    ),
    "a code of somebody signed in": (
        *(U77, PHONE, "otp", "identified:4"),
        f"On 3 March 2026 a one-time code sent to {SHOWN} was answered by customer number u77 on shop: so they are one person's.",
    ),
    "a sign-in": (
        *(BROWSER, U77, "signed", "identified:4"),
        "On 3 March 2026 the chat visitor signed in on shop as u77: so they are one person's.",
    ),
    "a sign-in, noted from the account": (
        *(U77, BROWSER, "signed", "identified:4"),
        "On 3 March 2026 the chat visitor signed in on shop as u77: so they are one person's.",
    ),
    "a signed address": (
        *(U77, MAILBOX, "signed", "identified:4"),
        "On 3 March 2026 they signed in on shop as u77 with ada@example.com: so they are one person's.",
    ),
    "the channel's word": (
        *(identifier(6, "wa_user_id", "US.1349120865"), PHONE, "channel", "message:9"),
        f"On 3 March 2026 the channel itself named WhatsApp user US.1349120865 and {SHOWN} as one sender: so they are one person's.",
    ),
    "a change of number": (
        *(PHONE, identifier(7, "phone", "+12125550177"), "channel", "notice:2"),
        f"On 3 March 2026 the channel told of a change of account or number, from {SHOWN} to +1 212-555-0177: so they are one person's.",
    ),
    "a record": (
        *(PHONE, MAILBOX, "record", "import"),
        f"On 3 March 2026 your own record named {SHOWN} and ada@example.com as one person's.",
    ),
    "an agent": (
        *(PHONE, MAILBOX, "agent", "agent:7"),
        f"On 3 March 2026 an agent confirmed that {SHOWN} and ada@example.com belong together.",
    ),
}


@pytest.mark.parametrize("joined", [True, False], ids=["two homes", "one home"])
@pytest.mark.parametrize("case", TOGETHER)
def test_what_was_proved_together(case: str, joined: bool) -> None:
    left, right, proof, source, sentence = TOGETHER[case]
    other = Identifier(**{name: getattr(right, name) for name in Identifier.__slots__} | {"home_id": 2 if joined else 1})  # type: ignore[attr-defined]
    rows = Rows(
        Customer(1, "Ada", at(1)),
        homes=[Customer(1, "Ada", at(1)), *([Customer(2, "", at(2), merged_into=1)] if joined else [])],
        own=[left, other],
        evidence=[Evidence(5, left.id, other.id, proof, source, at(3))],
        ties=[JoinLog(3, "join", 1, 2, "[5]", "proved together", "hub", at(3), None, left.id, other.id)] if joined else [],
        labels=LABELS,
    )
    told = tell(rows)
    assert [tie.text for tie in told.ties] == ([sentence] if joined else [])
    assert [line.text for line in told.lines if line.about == "together"] == ([] if joined else [sentence])
    assert [line.text for line in path(told, left.id, other.id) or ()] == [sentence]
    assert BROWSER.value not in str(told), "a browser's key is nobody's to see"


# what else is known -> about, and the sentence
def facts(**more: Any) -> Rows:
    return Rows(Customer(1, "Ada", at(1)), homes=[Customer(1, "Ada", at(1))], own=[PHONE], people={9: (9, "Bo")}, agents={7: "Ana"}, **more)


OTHER = identifier(8, "email", "bo@example.com", standing="asserted", customer=None)
ALSO: dict[str, tuple[Rows, str, str]] = {
    "claimed": (
        facts(others=[OTHER], evidence=[Evidence(1, 1, 8, "claimed", "message:1", at(3))]),
        "claimed",
        f"{SHOWN} gave bo@example.com on 3 March 2026: claimed, not proved, so it joins nobody.",
    ),
    "dismissed": (
        facts(others=[OTHER], evidence=[Evidence(1, 1, 8, "claimed", "message:1", at(3), at(5))]),
        "claimed",
        f"{SHOWN} gave bo@example.com on 3 March 2026: claimed, not proved, so it joins nobody. It was withdrawn on 5 March 2026.",
    ),
    "merely named": (
        facts(others=[OTHER], evidence=[Evidence(1, 1, 8, "seen", "message:1", at(3))]),
        "claimed",
        f"{SHOWN} merely named bo@example.com on 3 March 2026: it proves nothing.",
    ),
    "a desk": (
        facts(others=[identifier(8, "email", "info@example.com", customer=9)], evidence=[Evidence(1, 1, 8, "otp", "identified:4", at(3))]),
        "claimed",
        f"{SHOWN} came with info@example.com on 3 March 2026, which ties nobody: "
        "it is a role mailbox (info@): more than one person may read it.",
    ),
    "shared by others": (
        facts(
            others=[identifier(8, "email", "family@example.com", customer=9, shared_at=at(2))],
            evidence=[Evidence(1, 1, 8, "signed", "identified:4", at(3))],
        ),
        "claimed",
        f"{SHOWN} proved family@example.com too, on 3 March 2026; it is more than one person's and ties nobody.",
    ),
    "parted by an agent": (
        facts(cannot=[CannotLink(1, 1, 9, "agent:7", at(3))]),
        "parted",
        f"On 3 March 2026 the agent Ana said that #1 ({SHOWN}) and #9 (Bo) are two people: later proof asks an agent and joins nobody.",
    ),
    "parted for a time": (
        facts(cannot=[CannotLink(1, 9, 1, "command line", at(3), at(5))]),
        "parted",
        f"On 3 March 2026 somebody at the command line said that #1 ({SHOWN}) and #9 (Bo) are two people; that held until 5 March 2026.",
    ),
    "undone": (
        facts(
            ties=[
                JoinLog(1, "merge", 1, 9, "[]", "same mug", "agent:7", at(3)),
                JoinLog(2, "unmerge", 1, 9, "[]", "an agent took it back", "program:crm", at(5), 1),
            ]
        ),
        "undone",
        f"On 5 March 2026 the program crm took back the join of #1 ({SHOWN}) and #9 (Bo) made on 3 March 2026.",
    ),
    "undone, being shared": (
        facts(
            others=[OTHER],
            ties=[
                JoinLog(1, "join", 1, 9, "[]", "proved together", "hub", at(3), None, 1, 8),
                JoinLog(2, "share", 1, 9, "[]", "proved by two people", "hub", at(5), 1, 1, 8),
            ],
        ),
        "undone",
        f"On 5 March 2026 an address turned out to be two people's, which ended "
        f"the join of {SHOWN} and bo@example.com made on 3 March 2026.",
    ),
}


@pytest.mark.parametrize("case", ALSO)
def test_what_else_is_told(case: str) -> None:
    rows, about, sentence = ALSO[case]
    told = tell(rows)
    assert [(line.text, line.about) for line in told.lines if line.about != "came"] == [(sentence, about)]
    assert not told.ties


def test_what_is_shared_or_has_passed_on_is_told() -> None:
    rows = Rows(
        Customer(1, "", at(1)), own=[identifier(1, "phone", ADA, shared_at=at(3)), identifier(2, "phone", "+12125550177", ended_at=at(4))]
    )
    assert [line.text for line in tell(rows).lines if line.about in ("shared", "passed on")] == [
        f"{SHOWN} turned out to be two people's on 3 March 2026: it ties nobody since.",
        "+1 212-555-0177 passed out of their hands on 4 March 2026: what came by it before stays here, what comes later does not.",
    ]


def test_dates_are_those_of_the_zone_and_browsers_are_numbered() -> None:
    late = int(datetime(2026, 3, 3, 23, 30, tzinfo=UTC).timestamp() * 1_000_000)
    browsers = [identifier(n, "device", f"key-{n}") for n in (1, 2)]
    rows = Rows(Customer(1, "", at(1)), own=browsers, evidence=[Evidence(n, n, None, "channel", "", late) for n in (1, 2)])
    assert [line.text for line in tell(rows, ZoneInfo("Europe/Berlin")).lines] == [
        f"Chat visitor {n} first came on 4 March 2026." for n in (1, 2)
    ]
    assert tell(rows).name == "Chat visitor"
    assert "key-" not in str(tell(rows))


# the live ties (left home, right home) -> which of them parts somebody when it is taken back
UNDOABLE: dict[str, tuple[list[tuple[int, int]], list[bool]]] = {
    "one": ([(1, 2)], [True]),
    "a chain": ([(1, 2), (2, 3)], [True, True]),
    "the same two twice: both are taken back": ([(1, 2), (2, 1)], [True, True]),
    "a triangle": ([(1, 2), (2, 3), (3, 1)], [False, False, False]),
    "a triangle and a tail": ([(1, 2), (2, 3), (3, 1), (3, 4)], [False, False, False, True]),
}


@pytest.mark.parametrize("case", UNDOABLE)
def test_a_tie_that_alone_parts_nobody_is_not_offered_for_undoing(case: str) -> None:
    pairs, wanted = UNDOABLE[case]
    ties = [JoinLog(n, "merge", left, right, "[]", "", "agent:7", at(1) + n) for n, (left, right) in enumerate(pairs, 1)]
    told = tell(Rows(Customer(1, "", at(1)), homes=[Customer(n, "", at(1)) for n in (1, 2, 3, 4)], ties=ties))
    assert [tie.undoable for tie in told.ties] == wanted


def test_the_path_is_the_shortest_and_prefers_proof() -> None:
    """1 and 4 are one step apart by a merge of homes, and three by proofs: the merge says less, but is shorter than four of them."""
    own = [identifier(n, "phone", f"+1212555014{n}", home=n) for n in (1, 2, 3, 4)]
    evidence = [Evidence(n, n, n + 1, "record", "import", at(n)) for n in (1, 2, 3)]
    ties = [JoinLog(n, "join", n, n + 1, json.dumps([n]), "", "hub", at(n), None, n, n + 1) for n in (1, 2, 3)]
    rows = Rows(Customer(1, "", at(1)), homes=[Customer(n, "", at(1)) for n in (1, 2, 3, 4)], own=own, evidence=evidence, ties=ties)
    way = path(tell(rows), 1, 4)
    assert way is not None
    assert [line.text.partition(" your")[0] for line in way] == ["On 1 March 2026", "On 2 March 2026", "On 3 March 2026"]
    back = path(tell(rows), 4, 1)
    assert back is not None
    assert [line.text for line in back] == [line.text for line in reversed(way)]
    assert path(tell(rows), 1, 1) == ()
    assert path(tell(rows), 1, 99) is None
    # With the second tie undone they are nobody's one person any more.
    undone = [*ties, JoinLog(9, "unmerge", 2, 3, "[]", "", "agent:7", at(9), 2)]
    assert path(tell(Rows(rows.customer, homes=rows.homes, own=own, evidence=evidence, ties=undone)), 1, 4) is None


def test_two_of_one_record_without_proof_between_them_are_told_so() -> None:
    rows = Rows(
        Customer(1, "", at(1)), own=[PHONE, MAILBOX, identifier(6, "email", "b@example.com", home=2)], homes=[Customer(2, "", at(1))]
    )
    told = tell(rows)
    assert [line.text for line in path(told, 1, 2) or ()] == [
        f"{SHOWN} and ada@example.com have belonged to one record (#1) from the start."
    ]
    assert path(told, 1, 6) is None


# --- through the real write path -------------------------------------------------------------------------------------


@pytest.fixture(params=ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with open_store(tmp_path, engine=request.param) as opened:
        opened.clock.at = int(START.timestamp() * 1_000_000)
        yield opened


@pytest.fixture
async def reader(store: Store) -> AsyncIterator[Reader]:
    opened = store.reader()
    yield opened
    await opened.close()


def found(told: Explanation | None, kind: str) -> int:
    assert told is not None
    return next(one.id for one in told.identifiers if one.kind == kind)


async def test_the_whole_story_of_a_chain_of_proofs(store: Store, reader: Reader) -> None:
    await store.run(heard(WHATSAPP, message(phone(ADA))))
    store.clock.advance(DAY)
    await store.run(heard(CHAT, message(device("d" * 32), email("ada@example.com", Proof.CLAIMED))))
    store.clock.advance(DAY)
    await store.run(heard(CHAT, Identified(provider_key="c1", claims=(device("d" * 32), phone(ADA, Proof.OTP)))))
    store.clock.advance(DAY)
    await store.run(heard(CHAT, Identified(provider_key="i1", claims=(account("u77"), device("d" * 32)))))
    told = await explain(2, reader, LABELS)
    assert told is not None
    assert (told.customer_id, told.name, told.cut) == (1, SHOWN, False)
    assert [line.text for line in told.story] == [
        f"WhatsApp {SHOWN} wrote first on 1 March 2026.",
        "The chat visitor wrote first on 2 March 2026.",
        "The chat visitor gave ada@example.com on 2 March 2026: claimed, not proved, so it joins nobody.",
        f"On 3 March 2026 a one-time code sent to {SHOWN} was answered in the chat of the chat visitor: so they are one person's.",
        "They first signed in on shop as u77 on 4 March 2026.",
        "On 4 March 2026 the chat visitor signed in on shop as u77: so they are one person's.",
    ]
    (tie,) = told.ties
    assert tie.undoable
    way = path(told, found(told, "user_id"), found(told, "phone"))
    assert way is not None
    assert [line.text.partition(": so")[0] for line in way] == [
        "On 4 March 2026 the chat visitor signed in on shop as u77",
        f"On 3 March 2026 a one-time code sent to {SHOWN} was answered in the chat of the chat visitor",
    ]
    assert "d" * 32 not in str(told)


async def test_a_merge_its_undoing_and_a_rejection_are_told_with_who_and_why(store: Store, reader: Reader) -> None:
    await store.run(CreateAgent("ana@shop.example", "Ana", "agent", "hash"))
    await store.run(heard(SMS, message(phone(ADA), sender_name="Ada")))
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    merged = await store.run(Merge(1, 2, "agent:1", 1, "she told me on the phone"))
    store.clock.advance(DAY)
    told = await explain(1, reader, LABELS)
    assert told is not None
    assert [tie.text for tie in told.ties] == [
        f"On 1 March 2026 the agent Ana merged #1 (Ada, {SHOWN}) and #2 (ada@example.com): she told me on the phone."
    ]
    assert told.ties[0].join_id == merged.join_id
    assert [line.text for line in path(told, found(told, "phone"), found(told, "email")) or ()] == [told.ties[0].text]
    await store.run(Unmerge(merged.join_id, 1, 2, "command line"))
    told = await explain(1, reader, LABELS)
    assert told is not None
    assert told.ties == ()
    assert [line.text for line in told.lines if line.about in ("undone", "parted")] == [
        f"On 2 March 2026 somebody at the command line took back the join of #1 (Ada, {SHOWN}) and #2 made on 1 March 2026.",
        f"On 2 March 2026 somebody at the command line said that #1 (Ada, {SHOWN}) and #2 are two people: "
        "later proof asks an agent and joins nobody.",
    ]
    await store.run(heard(SMS, message(phone("+12125550199"), sender_name="Cy")))
    await store.run(Reject(1, 3, "program:crm"))
    told = await explain(3, reader, LABELS)
    assert told is not None
    assert [line.text for line in told.lines if line.about == "parted"] == [
        "On 2 March 2026 the program crm said that #3 (Cy, +1 212-555-0199) and #1 (Ada) are two people: "
        "later proof asks an agent and joins nobody."
    ]


async def test_a_family_address_and_a_recycled_number_are_told(store: Store, reader: Reader) -> None:
    for name in ("u1", "u2"):
        await store.run(heard(CHAT, message(account(name), device(name), email("family@example.com", Proof.SIGNED))))
    told = await explain(2, reader, LABELS)
    assert told is not None
    assert "it is more than one person's and ties nobody" in " ".join(line.text for line in told.lines)
    await store.run(heard(WHATSAPP, message(phone(ADA))))
    store.clock.advance(DAY)
    await store.run(heard(WHATSAPP, HolderChanged(provider_key="n1", previous=(phone(ADA),))))
    told = await explain(3, reader, LABELS)
    assert told is not None
    assert told.lines[-1].text.startswith(f"{SHOWN} passed out of their hands on 2 March 2026")


async def test_a_change_of_number_and_a_split_are_told(store: Store, reader: Reader) -> None:
    wa_user = Claim("wa_user_id", "US.1", Proof.CHANNEL)
    await store.run(heard(WHATSAPP, message(wa_user, phone(ADA))))
    notice = HolderChanged(provider_key="n1", previous=(wa_user, phone(ADA)), present=(wa_user, phone("+12125550177")))
    await store.run(heard(WHATSAPP, notice))
    told = await explain(1, reader, LABELS)
    assert told is not None
    assert any(
        line.text.startswith(
            "On 1 March 2026 the channel told of a change of account or number, from WhatsApp user US.1 to +1 212-555-0177"
        )
        for line in told.lines
    )
    await store.run(TakeOut(1, next(one.id for one in told.identifiers if one.value == "+12125550177"), "agent:9"))
    told = await explain(1, reader, LABELS)
    assert told is not None
    assert "+12125550177" not in {one.value for one in told.identifiers}


async def test_nobody_is_explained_where_there_is_nobody(reader: Reader) -> None:
    assert await explain(1, reader) is None


async def test_what_is_read_stays_bounded(store: Store, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.customers.why.MOST", 3)
    for n in range(6):
        await store.run(heard(CHAT, message(account("u1"), device(f"d{n}"))))
    told = await explain(1, reader)
    assert told is not None
    assert told.cut
    assert 3 <= len(told.identifiers) <= 4
