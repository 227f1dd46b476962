"""F21: whatever order a provider's reports come in, a message ends in the state they all together mean, and never goes back."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations, permutations

import pytest

from hub.contract import DeliveryUpdate, MessageStatus
from hub.delivery.states import LADDER, SETTLES, advance, report
from hub.delivery.works import Finish
from hub.storage.records import Delivery, Message
from tests.delivery import TOKEN, delivery, facts, message

REPORTS = ("queued", "sent", "delivered", "read", "failed")
SETS = [set_ for size in range(1, len(REPORTS) + 1) for set_ in combinations(REPORTS, size)]
ORDERS = list(chain.from_iterable(permutations(set_) for set_ in SETS))


def update(word: str) -> DeliveryUpdate:
    return DeliveryUpdate(
        provider_key=f"SM1:{word}",
        status=MessageStatus(word),
        delivery_id=3,
        provider_message_id="SM1",
        error="Unreachable (30003)" if word == "failed" else "",
    )


def meaning(words: tuple[str, ...]) -> str:
    """What the customer has, in words: read beats delivered beats a failure beats having been taken."""
    return next(word for word in ("read", "delivered", "failed", "sent") if word in (*words, "sent"))


def test_the_table_of_orders_is_whole() -> None:
    assert len(ORDERS) == 5 + 20 + 60 + 120 + 120


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_reports_in_any_order_end_in_the_state_they_mean_and_never_go_back(order: tuple[str, ...]) -> None:
    sent, row = message(status="sent"), delivery(state="done")
    seen = [sent.status]
    for word in order:
        report(sent, row, update(word), facts())
        seen.append(sent.status)
    assert sent.status == meaning(order)
    assert seen == sorted(seen, key=LADDER.__getitem__), "never back down"
    assert row.state == ("failed" if sent.status == "failed" else "done"), "a message given up is listed and can be tried again"
    assert sent.error == ("Unreachable (30003)" if sent.status == "failed" else "")


FINISHES = {
    "done": Finish(3, TOKEN, 1, "done", provider_id="SM1"),
    "unknown": Finish(3, TOKEN, 1, "unknown", error="The answer was lost."),
}


@pytest.mark.parametrize("outcome", FINISHES)
@pytest.mark.parametrize("order", [order for order in ORDERS if len(order) <= 3], ids="-".join)
def test_reports_may_overtake_the_answer_to_our_own_request(order: tuple[str, ...], outcome: str) -> None:
    for at in range(len(order) + 1):
        sent, row = message(), delivery()
        known = facts()
        known.messages[sent.id], known.deliveries[row.id] = sent, row
        for word in (*order[:at], outcome, *order[at:]):
            if word == outcome:
                FINISHES[outcome].decide(known)
            else:
                report(sent, row, update(word), known)
        assert sent.status == meaning(order), f"our own answer came after {at} reports"
        assert row.state == ("failed" if sent.status == "failed" else "done"), "any report settles a send of unknown fate"
        assert row.lease_token == ""
        assert sent.provider_id == "SM1"


# before, news, after
ADVANCES = [
    ("queued", "sending", "sending"),
    ("sending", "unknown", "unknown"),
    ("unknown", "sending", "unknown"),
    ("unknown", "sent", "sent"),
    ("sent", "unknown", "sent"),  # a lost answer takes nothing back
    ("sent", "failed", "failed"),
    ("failed", "sent", "failed"),
    ("failed", "delivered", "delivered"),  # given up, and delivered after all
    ("read", "delivered", "read"),
    ("sent", "enqueued", "sent"),  # no word of ours
    ("sent", "", "sent"),
]


@pytest.mark.parametrize(("before", "news", "after"), ADVANCES)
def test_the_higher_of_two_states_stands(before: str, news: str, after: str) -> None:
    assert advance(before, news) == after


def test_the_ladder_has_a_rung_for_every_state_of_a_message() -> None:
    assert set(LADDER) == {status.value for status in MessageStatus}
    assert len(set(LADDER.values())) == len(LADDER), "two on one rung would depend on the order"
    assert {word for _, word in SETTLES} | set(SETTLES.values()) <= set(LADDER) | {"done"}


def tried_again() -> tuple[Message, Delivery]:
    """An answer whose first try failed; a person has queued it again."""
    return message(status="queued", provider_id="SM1"), delivery(state="queued", lease_token="", attempt=0)


@pytest.mark.parametrize("word", ["queued", "sent", "failed"])
def test_old_news_of_the_first_try_does_not_touch_the_second(word: str) -> None:
    sent, row = tried_again()
    known = facts()
    report(sent, row, update(word), known)
    assert (sent.status, row.state, known.events) == ("queued", "queued", [])


@pytest.mark.parametrize("word", ["delivered", "read"])
def test_a_second_try_is_dropped_when_the_first_one_arrived(word: str) -> None:
    sent, row = tried_again()
    report(sent, row, update(word), facts())
    assert (sent.status, row.state) == (word, "done")


def test_the_failure_of_an_earlier_try_does_not_undo_a_later_one() -> None:
    sent, row = message(status="sent", provider_id="SM2"), delivery(state="done", lease_token="")
    report(sent, row, replace(update("failed"), provider_message_id="SM1"), facts())
    assert (sent.status, row.state) == ("sent", "done")
    report(sent, row, replace(update("delivered"), provider_message_id="SM1"), facts())
    assert sent.status == "delivered", "that the first one arrived after all is news"
    sent, row = message(status="sent", provider_id="SM2"), delivery(state="done", lease_token="")
    report(sent, row, replace(update("failed"), provider_message_id="SM2"), facts())
    assert (sent.status, row.state) == ("failed", "failed")


def test_news_is_told_once_and_no_news_is_not_told() -> None:
    sent, row, known = message(), delivery(), facts()
    report(sent, row, update("sent"), known)
    report(sent, row, update("sent"), known)
    report(sent, row, update("queued"), known)
    assert [event.type for event in known.events] == ["message.updated"]


def test_a_report_that_names_no_row_of_ours_still_tells_of_its_message() -> None:
    sent = message(status="sent", provider_id="<1@shop.example>")
    report(sent, None, update("delivered"), facts())
    assert (sent.status, sent.provider_id) == ("delivered", "<1@shop.example>")
