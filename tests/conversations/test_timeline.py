"""One timeline: messages and events in one order, in people's words."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from hub.contract import MessageStatus, Proof
from hub.conversations import history, timeline, wording

NOW = 1_800_000_000_000_000
MINUTE = 60_000_000


def said(id: int, at: int, **more: Any) -> Any:
    values: dict[str, Any] = {
        "direction": "in", "status": "received", "text": "hi", "cut": False, "has_html": False, "channel_id": 1, "identifier_id": 1,
        "agent_id": None, "subject": "", "sender_name": "", "automatic": "", "doubt": "", "error": "",
        "proof": "", "kind": "phone", "address": "", "reply_text": None, "provider_id": None,
        "quoted_id": "", "template": "", "mail_id": None,
    }  # fmt: skip
    return SimpleNamespace(id=id, created_at=NOW + at, **{**values, **more})


def happened(seq: int, at: int, type: str = "ticket.opened", message_id: int | None = None, **more: Any) -> Any:
    values: dict[str, Any] = {"ticket_id": 7, "agent_id": None, "data": "{}"}
    return SimpleNamespace(seq=seq, at=NOW + at, type=type, message_id=message_id, **{**values, **more})


def keys(messages: list[Any], events: list[Any]) -> str:
    return " ".join(f"{kind[0]}{row.id if kind == 'message' else row.seq}" for kind, row in timeline.order(messages, events))


@pytest.mark.parametrize(
    ("messages", "events", "wanted"),
    [
        ([said(1, 0)], [happened(1, 0, message_id=1)], "e1 m1"),  # what a message caused stands before it, at the same instant
        ([said(1, 0)], [happened(1, 0)], "m1 e1"),  # what merely happened with it, after it
        ([said(1, 0), said(2, 10)], [happened(1, 5)], "m1 e1 m2"),
        ([said(1, 0), said(2, 10)], [happened(1, 3), happened(2, 10, message_id=2), happened(3, 10)], "m1 e1 e2 m2 e3"),
        ([said(1, 10), said(2, 5)], [happened(1, 7)], "e1 m1 m2"),  # the clock went back: messages keep their sequence
        ([said(1, 0)], [happened(1, 9), happened(2, 3)], "m1 e1 e2"),  # ... and so do events
        ([], [happened(1, 0)], "e1"),
        ([said(1, 0)], [], "m1"),
    ],
)
def test_messages_and_events_keep_their_sequences(messages: list[Any], events: list[Any], wanted: str) -> None:
    assert keys(messages, events) == wanted


def arranged(messages: list[Any], **more: Any) -> list[Any]:
    values: dict[str, Any] = {"customer": "Ada Byron", "agents": {1: "Maria"}, "now": NOW, "zone": UTC}
    return [line for line in timeline.arrange(messages, [], [], **{**values, **more}) if isinstance(line, timeline.Said)]


@pytest.mark.parametrize(
    ("second", "joined"),
    [
        (said(2, MINUTE), True),
        (said(2, 4 * MINUTE), False),  # too late
        (said(2, MINUTE, channel_id=2), False),  # another channel
        (said(2, MINUTE, direction="out", agent_id=1), False),
        (said(2, MINUTE, subject="New"), False),  # a mail of its own
        (said(2, -MINUTE), False),
    ],
)
def test_messages_of_one_breath_share_a_heading(second: Any, joined: bool) -> None:
    assert [line.joined for line in arranged([said(1, 0), second])] == [False, joined]
    assert arranged([second], above=said(1, 0))[0].joined is joined, "the same at the top of a page"


def test_a_subject_is_shown_when_it_is_new() -> None:
    mails = [said(n, n, subject=s) for n, s in enumerate(["Order 5", "Re: Order 5", "AW: RE: order 5", "", "Invoice", "Order 5"])]
    assert [line.subject for line in arranged(mails)] == ["Order 5", "", "", "", "Invoice", "Order 5"]


@pytest.mark.parametrize(
    ("sender", "shown"), [("", "Ada Byron"), ("ada", "Ada Byron"), ("Ada  BYRON", "Ada Byron"), ("Front Desk", "Front Desk")]
)
def test_a_sender_is_the_customer_unless_the_channel_says_otherwise(sender: str, shown: str) -> None:
    assert arranged([said(1, 0, sender_name=sender)])[0].author == shown


def test_the_day_is_the_agents_own() -> None:
    late = int(datetime(2027, 1, 14, 23, 30, tzinfo=UTC).timestamp()) * 1_000_000 - NOW
    for zone, label in ((UTC, "Yesterday"), (ZoneInfo("Europe/Berlin"), "Today")):
        lines = timeline.arrange([said(1, late)], [], [], customer="A", agents={}, now=NOW, zone=zone)
        assert isinstance(lines[0], timeline.Day)
        assert lines[0].label == label


# --- words ---


def test_every_status_and_proof_has_plain_words() -> None:
    assert set(MessageStatus) <= set(wording.MESSAGE_STATUS)
    assert set(Proof) == set(wording.PROOF)
    assert all(words for words, _ in (wording.MESSAGE_STATUS[status] for status in MessageStatus))


@pytest.mark.parametrize("type", history.TOLD)
def test_every_event_told_has_an_icon_and_a_sentence_of_its_own(type: str) -> None:
    sentence = wording.describe(type, "{}", "", 7, {}, UTC)
    assert sentence != wording.plain(type)
    assert type in wording.EVENT_ICON


@pytest.mark.parametrize(
    ("type", "data", "actor", "words"),
    [
        ("ticket.assigned", '{"assignee_id": 1}', "Maria", "Maria took the ticket"),
        ("ticket.assigned", '{"assignee_id": 2}', "Maria", "Maria assigned Jonas"),
        ("ticket.assigned", '{"assignee_id": null}', "Maria", "Maria unassigned the ticket"),
        ("ticket.assigned", '{"assignee_id": 99}', "", "The ticket was assigned"),  # an agent long gone
        ("ticket.resolved", "{}", "Maria", "Ticket #7 resolved by Maria"),
        ("ticket.reopened", "{}", "", "Ticket #7 reopened by a new message"),
        ("ticket.snoozed", '{"until": 1800000000000000}', "Maria", "Ticket #7 snoozed by Maria until Fri 15 Jan, 08:00"),
        ("hold.placed", '{"reasons": ["open_ticket"]}', "", "Marketing held: open ticket"),
        ("hold.released", "{}", "", "Marketing hold released"),
        ("ticket.opened", "not json", "", "Ticket #7 opened"),
        ("ticket.opened", "[1]", "", "Ticket #7 opened"),
        ("something.new_here", "{}", "", "Something new here"),  # unknown: plain, never an error
    ],
)
def test_an_event_reads_as_a_sentence(type: str, data: str, actor: str, words: str) -> None:
    assert wording.describe(type, data, actor, 7, {1: "Maria", 2: "Jonas"}, UTC) == words


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("see https://a.example/x.", [("see ", False), ("https://a.example/x", True), (".", False)]),
        ("(https://a.example/x_(y))", [("(", False), ("https://a.example/x_(y)", True), (")", False)]),
        ("javascript:alert(1)", [("javascript:alert(1)", False)]),
        ("data:text/html,<b>", [("data:text/html,<b>", False)]),
        ('https://a.example/"onx=', [("https://a.example/", True), ('"onx=', False)]),
        ("https://", [("https://", False)]),
        ("", []),
    ],
)
def test_only_web_addresses_become_links_and_no_letter_is_lost(text: str, pieces: list[tuple[str, bool]]) -> None:
    assert wording.pieces(text) == pieces
    assert "".join(piece for piece, _ in wording.pieces(text)) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Yes.\n\nOn Monday Shop wrote:\n> old\n> older\n", "Yes.\n\n"),
        ("Yes.\n> old", "Yes.\n"),
        ("> only a quote", ""),
        ("a > b", "a > b"),
        ("> quoted\nanswer below", "> quoted\nanswer below"),  # answered underneath: nothing is hidden
        ("ends with colon:\n", "ends with colon:\n"),
        ("", ""),
    ],
)
def test_only_trailing_quotes_are_folded_away(text: str, shown: str) -> None:
    assert text[: wording.quoted_from(text)] == shown


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("now", "how", "until"),
    [
        (datetime(2026, 11, 22, 16, 0, tzinfo=BERLIN), "hour", datetime(2026, 11, 22, 17, 0, tzinfo=BERLIN)),
        (datetime(2026, 11, 22, 16, 0, tzinfo=BERLIN), "tomorrow", datetime(2026, 11, 23, 9, 0, tzinfo=BERLIN)),
        (datetime(2026, 11, 22, 16, 0, tzinfo=BERLIN), "week", datetime(2026, 11, 30, 9, 0, tzinfo=BERLIN)),  # a Sunday: not tomorrow
        (datetime(2026, 11, 23, 8, 0, tzinfo=BERLIN), "week", datetime(2026, 11, 30, 9, 0, tzinfo=BERLIN)),  # a Monday
        (datetime(2027, 3, 27, 12, 0, tzinfo=BERLIN), "tomorrow", datetime(2027, 3, 28, 9, 0, tzinfo=BERLIN)),  # clocks go forward
        (datetime(2026, 12, 31, 23, 0, tzinfo=BERLIN), "tomorrow", datetime(2027, 1, 1, 9, 0, tzinfo=BERLIN)),
        (datetime(2026, 11, 22, 16, 0, tzinfo=BERLIN), "forever", None),
    ],
)
def test_a_snooze_ends_at_nine_on_the_agents_own_clock(now: datetime, how: str, until: datetime | None) -> None:
    got = wording.snooze_until(how, int(now.timestamp() * 1_000_000), BERLIN)
    assert got == (None if until is None else int(until.timestamp() * 1_000_000))


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "/etc/passwd", "Mars/Olympus", "Europe/Berlin\x00", "a" * 300, "Europe"])
def test_a_time_zone_nobody_knows_is_utc(name: str) -> None:
    assert wording.zone(name) is UTC


def test_a_file_name_shows_the_marks_that_turn_letters() -> None:
    assert wording.file_name("invoice\u202egpj.exe") == "invoice\ufffdgpj.exe"
    assert wording.file_name("") == "file"


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1_500, "1.5 KB"),
        (182_400, "182 KB"),
        (25_000_000, "25 MB"),
        (3_200_000_000, "3.2 GB"),
    ],
)
def test_sizes_read_as_people_write_them(count: int, words: str) -> None:
    assert wording.size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "now"),
        (-5, "now"),
        (59, "now"),
        (60, "1m"),
        (3_599, "59m"),
        (3_600, "1h"),
        (86_400, "1d"),
        (7 * 86_400, "8 Jan"),
        (60 * 86_400, "Nov 2026"),
    ],
)
def test_a_list_says_how_long_ago_as_short_as_it_can(seconds: int, words: str) -> None:
    assert wording.ago(NOW - seconds * 1_000_000, NOW, UTC) == words


def lines(messages: list[Any], changes: list[Any] = []) -> list[Any]:  # noqa: B006 (never altered)
    found = timeline.arrange(messages, [], [], customer="Ada", agents={}, now=NOW, zone=UTC, changes=changes)
    return [line for line in found if isinstance(line, timeline.Said)]


def test_what_they_wrote_this_time_is_shown_and_the_whole_mail_is_one_click_away() -> None:
    [line] = lines([said(1, 0, text="Yes\n\n> Shall we?", reply_text="Yes")])
    assert (line.text, line.quoted) == ((("Yes", False),), "Yes\n\n> Shall we?")
    [line] = lines([said(1, 0, text="Yes")])
    assert (line.text, line.quoted) == ((("Yes", False),), "")


def test_a_message_bears_what_was_done_to_it_and_keeps_what_it_said() -> None:
    def change(what: str, text: str = "", who: int = 1) -> Any:
        return SimpleNamespace(message_id=1, what=what, text=text, identifier_id=who, at=NOW)

    changes = [
        change("reaction", "👍"),
        change("reaction", "🎉"),
        change("reaction", "👎", 2),
        change("reaction", "", 2),
        change("edit", "Once"),
    ]
    [line] = lines([said(1, 0, text="One")], changes)
    assert (line.reactions, line.edited, line.deleted) == (("🎉",), (("Once", False),), False)
    assert line.text == (("One", False),)
    [line] = lines([said(1, 0, text="One")], [change("deletion")])
    assert line.deleted
    assert line.text == (("One", False),)


def test_an_answer_names_what_it_answers() -> None:
    first, second = lines([said(1, 0, text="Where is it?", provider_id="wamid.1"), said(2, 1, text="That one", quoted_id="wamid.1")])
    assert (first.answers, second.answers) == ("", "Where is it?")
