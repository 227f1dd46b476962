"""Tickets: the literal table of steps, which ticket a message belongs to, and what is only a thank-you."""

from __future__ import annotations

from itertools import product

import pytest

from hub.conversations.tickets import REFUSED, TRANSITIONS, UNRESOLVED, choose, is_bare_thanks, is_unresolved, latest, move
from hub.policy import DAY, Policy, Refusal
from hub.storage.records import Ticket

STATES = ("open", "pending", "snoozed", "resolved")
HAPPENINGS = ("customer wrote", "agent answered", "resolve", "reopen", "snooze", "wake")

# Every state x every happening: the next state, or None where it is refused with words for the agent.
STEPS: dict[str, tuple[str | None, ...]] = {
    # happening:        open        pending     snoozed     resolved
    "customer wrote": ("open", "open", "open", "open"),
    "agent answered": ("open", "pending", "snoozed", "resolved"),
    "resolve": ("resolved", "resolved", "resolved", None),
    "reopen": (None, "open", "open", "open"),
    "snooze": ("snoozed", "snoozed", "snoozed", None),
    "wake": (None, None, "open", None),
}


def ticket(number: int, status: str, last_at: int = 0, resolved_at: int | None = None) -> Ticket:
    return Ticket(number, 1, status, "", "default", 1, 1, 0, last_at, "", resolved_at=resolved_at)


@pytest.mark.parametrize(("state", "happening"), list(product(STATES, HAPPENINGS)))
def test_every_step_is_in_the_table_or_refused_with_words(state: str, happening: str) -> None:
    expected = STEPS[happening][STATES.index(state)]
    if expected is None:
        with pytest.raises(Refusal, match=r"^[A-Z].*\.$"):
            move(ticket(1, state), happening)
    else:
        assert move(ticket(1, state), happening) == expected


def test_the_table_knows_no_other_step_and_every_refusal_has_its_words() -> None:
    assert set(TRANSITIONS) == {(s, h) for s, h in product(STATES, HAPPENINGS) if STEPS[h][STATES.index(s)] is not None}
    assert set(REFUSED) == {h for h, steps in STEPS.items() if None in steps}
    assert set(TRANSITIONS.values()) <= set(STATES)


def test_an_unknown_happening_is_refused() -> None:
    with pytest.raises(Refusal, match="cannot explode"):
        move(ticket(1, "open"), "explode")


def test_resolved_alone_is_resolved() -> None:
    assert [s for s in STATES if not is_unresolved(ticket(1, s))] == ["resolved"]
    assert set(UNRESOLVED) | {"resolved"} == set(STATES)


NOW = 100 * DAY
POLICY = Policy(reopen_within=7 * DAY)
OPEN = ticket(1, "open", 5)
PENDING = ticket(2, "pending", 9)
SNOOZED = ticket(3, "snoozed", 7)
FRESH = ticket(4, "resolved", 8, NOW - DAY)  # resolved yesterday
EDGE = ticket(5, "resolved", 3, NOW - 7 * DAY)  # exactly at the end of the window
PAST = ticket(6, "resolved", 4, NOW - 7 * DAY - 1)  # a microsecond later

CHOICES = [
    ("nothing yet: a new one", [], None, None),
    ("the one that is open", [OPEN], None, OPEN),
    ("the latest active of several", [OPEN, PENDING, SNOOZED], None, PENDING),
    ("an unresolved one before a younger resolved one", [OPEN, FRESH], None, OPEN),
    ("a snoozed one is unresolved", [SNOOZED, FRESH], None, SNOOZED),
    ("resolved within the window reopens", [FRESH], None, FRESH),
    ("at the very end of the window it still reopens", [EDGE], None, EDGE),
    ("later: a new one", [PAST], None, None),
    ("the latest that may reopen", [EDGE, FRESH, PAST], None, FRESH),
    ("the one that is answered, not the latest", [OPEN, PENDING], OPEN, OPEN),
    ("the answered one reopens although another is open", [OPEN, FRESH], FRESH, FRESH),
    ("the answered one is too old: the open one", [OPEN, PAST], PAST, OPEN),
    ("the answered one is too old and nothing else: a new one", [PAST], PAST, None),
]


@pytest.mark.parametrize(("own", "preferred", "expected"), [row[1:] for row in CHOICES], ids=[row[0] for row in CHOICES])
def test_the_ticket_a_message_belongs_to(own: list[Ticket], preferred: Ticket | None, expected: Ticket | None) -> None:
    assert choose(own, preferred, NOW, POLICY) is expected
    assert choose(list(reversed(own)), preferred, NOW, POLICY) is expected, "whatever order they were read in"


def test_of_two_equally_active_the_younger_is_chosen() -> None:
    twins = [ticket(1, "open", 5), ticket(2, "open", 5)]
    assert choose(twins, None, NOW, POLICY) is twins[1]
    assert latest(twins) is twins[1]
    assert latest([]) is None


THANKS = [
    "Thanks",
    "thanks!",
    "Thank you",
    "Thank you!!",
    "thank you so much",
    "Thank you very much.",
    "Many thanks",
    "thanks a lot",
    "Thanks 🙏",
    "🙏 thank you 🙏🏽",
    "Thx",
    "thx :)",
    "ty",
    "tysm ❤️",
    "Cheers",
    "Great, thanks",
    "ok thanks",
    "Perfect, thank you!",
    "Got it, thanks",
    "👍 thanks",
    "Danke",
    "Danke schön!",
    "dankeschön",
    "Vielen Dank 😊",
    "Alles klar, danke",
    "Merci",
    "Merci beaucoup !",
    "D\u2019accord, merci",
    "Gracias",
    "¡Muchas gracias!",
    "mil gracias",
    "Obrigada 💛",
    "muito obrigado",
    "Grazie mille",
    "Bedankt!",
    "Dank je wel",
    "Tack så mycket",
    "Tusen takk",
    "Mange tak",
    "Dziękuję bardzo",
    "Teşekkür ederim",
    "спасибо",
    "Большое спасибо!",
    "дякую",
    "ありがとうございます。",
    "谢谢。",
    "감사합니다",
    "شكرا",
    "धन्यवाद",
    "THANKS",
    "  thanks\n\n",
]

NO_THANKS = [
    "",
    "   ",
    "👍",  # may answer "shall we refund you?"
    "🙏",
    "ok",
    "Okay",
    "great",
    "Perfect",
    "Alles klar",
    "genial",
    "vale",
    "yes",
    "no thanks",  # an answer
    "No, thank you",
    "Nein danke",
    "non merci",
    "no gracias",
    "Thanks, but it is still broken",
    "thanks, where is it",
    "Thanks?",
    "¿gracias",
    "شكرا؟",
    "thanks 👎",
    "Thank you so much 😡",
    "thank you for nothing",
    "Thanks in advance",
    "Thanks, order 4711",
    "thank you, please call me",
    "thanks 12025550123",
    "Thanks https://example.com/photo",
    "Danke, aber es fehlt ein Teil",
    "Merci de me rappeler",
    "Gracias, pero no funciona",
    "Grazie, quando arriva",
    "спасибо, но не пришло",
    "谢谢你们的包裹还没到",
    "cancel",
    "stop",
    "STOP thanks",
    "refund",
    "hello",
    "you",
    "a lot",
    "thanks " * 20,  # too long to be that simple
    "Thank you\n\n--\nAda Okafor\nHead of Everything",
]


@pytest.mark.parametrize("text", THANKS, ids=range(len(THANKS)))
def test_this_is_only_a_thank_you(text: str) -> None:
    assert is_bare_thanks(text), text


@pytest.mark.parametrize("text", NO_THANKS, ids=range(len(NO_THANKS)))
def test_this_asks_for_something_or_may(text: str) -> None:
    assert not is_bare_thanks(text), text


def test_both_tables_are_of_some_size() -> None:
    assert len(THANKS) >= 30 <= len(NO_THANKS)
