"""What the widget is told of its channel: checked where it is configured, the same for every page that may embed it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from connectors.webchat import WebChat, WebChatSettings
from hub.contract import Place
from hub.web import visitors
from hub.web.chat_config import configuration
from tests.web.test_chat import SHOP, Stand, stand  # noqa: F401

HOURS = {"week": {"mon": ["09:00-17:00"]}, "time_zone": "Europe/Berlin", "holidays": ["2026-12-21"], "text": {"de": "Zu.", "en": "Shut."}}


def chat(**settings: Any) -> WebChat:
    return WebChat(WebChatSettings(type="webchat", site="shop", **settings), Place("chat", "http://hub.example/in/chat", b"k" * 32))


def micros(written: str) -> int:
    return int(datetime.fromisoformat(written).replace(tzinfo=UTC).timestamp()) * 1_000_000


def test_without_any_settings_it_is_open_and_asks_nothing() -> None:
    told = configuration(chat(), 0)
    assert (told["hours"], told["greeting"], told["prechat"], told["privacy"], told["position"], told["accent"]) == (
        None,
        None,
        [],
        None,
        "",
        "",
    )
    assert (told["max_file_bytes"], told["language"], told["languages"], told["file_types"]) == (5_000_000, "en", ["en"], "")


def test_everything_that_is_configured_is_told() -> None:
    told = configuration(
        chat(
            title={"en": "Talk", "de": "Reden"},
            greeting={"text": "Lost?", "after_seconds": 3},
            prechat=[
                {"name": "email", "required": True},
                {"name": "topic", "type": "select", "label": "Topic", "options": ["Order", "Other"]},
            ],
            privacy={"text": "Read this", "url": "https://shop.example/privacy"},
            accent="#0b6b4f",
            hours=HOURS,
        ),
        micros("2026-12-14T16:30"),
    )
    assert told["title"] == {"en": "Talk", "de": "Reden"}
    assert told["greeting"] == {"text": "Lost?", "after_seconds": 3}
    assert told["prechat"] == [
        {"name": "email", "label": "", "type": "email", "options": [], "required": True},
        {"name": "topic", "label": "Topic", "type": "select", "options": ["Order", "Other"], "required": False},
    ]
    assert told["privacy"] == {"text": "Read this", "url": "https://shop.example/privacy"}
    # The Monday after is a holiday.
    assert told["hours"] == {"open": False, "opens_at": "2026-12-28T08:00:00.000Z", "text": {"de": "Zu.", "en": "Shut."}}
    assert configuration(chat(hours=HOURS), micros("2026-12-14T15:59"))["hours"]["open"] is True


WRONG = [
    ("a colour by name", {"accent": "green"}, "accent"),
    ("a side", {"position": "top"}, "position"),
    ("a language", {"welcome": {"English!": "Hi"}}, "is no language"),
    ("no text", {"welcome": " "}, "1 to 500 characters"),
    ("no language at all", {"title": {}}, "at least one language"),
    ("a select of nothing", {"prechat": [{"name": "topic", "type": "select"}]}, "needs some"),
    ("options of a text", {"prechat": [{"name": "topic", "options": ["a"]}]}, "options"),
    ("a name twice", {"prechat": [{"name": "a"}, {"name": "a"}]}, "name of its own"),
    ("a zone", {"hours": HOURS | {"time_zone": "Berlin"}}, "is no time zone"),
    ("an end before its beginning", {"hours": HOURS | {"week": {"mon": ["17:00-09:00"]}}}, "must end after it begins"),
    ("a time", {"hours": HOURS | {"week": {"mon": ["9-17"]}}}, "mon"),
    ("a day", {"hours": HOURS | {"week": {"monday": ["09:00-17:00"]}}}, "monday"),
    ("a link that runs", {"privacy": {"url": "javascript:alert(1)"}}, "privacy"),
    ("files the hub does not take", {"max_file_bytes": 50_000_000}, "max_file_bytes"),
    ("types a browser does not know", {"file_types": "pictures"}, "file_types"),
    ("a setting nobody knows", {"colour": "#000000"}, "colour"),
]


@pytest.mark.parametrize(("settings", "named"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_is_wrong_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as refused:
        chat(**settings)
    assert named in str(refused.value)


async def test_any_page_that_may_embed_it_may_read_it_without_a_session(stand: Stand) -> None:  # noqa: F811
    answer = await stand.client.get("/chat/chat/config", headers={"Origin": SHOP})
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"], answer.headers["Cache-Control"]) == (
        200,
        SHOP,
        "public, max-age=60",
    )
    assert (await answer.json())["welcome"] == "Hello there"
    assert "Origin" in answer.headers["Vary"]
    assert (await stand.client.get("/chat/chat/config", headers={"Origin": "https://evil.example"})).status == 403
    assert (await stand.client.get("/chat/mail/config", headers={"Origin": SHOP})).status == 404


# --- spam ---


async def test_the_same_words_again_and_again_are_put_off_and_a_repeat_of_one_message_is_not(stand: Stand) -> None:  # noqa: F811
    visitor = await stand.visitor()
    for number in range(3):
        await visitor.says("Hello?", f"client-uuid-{number}")
    again = await visitor.post({"id": "client-uuid-9", "text": " hello? "})
    assert (again.status, "already" in (await again.json())["error"]) == (429, True)
    assert 1 <= int(again.headers["Retry-After"]) <= 60
    await visitor.says("Hello?", "client-uuid-2")  # its answer was lost on the way
    await visitor.says("Hello there?")
    assert await visitor.sees() == ["Hello?"] * 3 + ["Hello there?"]


def test_links_are_counted_over_a_minute() -> None:
    spam = visitors.Spam()
    many = "https://a.example " * 6
    assert spam.wait("ana", "1", many, 0.0) == (0.0, "")
    wait, why = spam.wait("ana", "2", many + "!", 1.0)
    assert (wait, "links" in why) == (59.0, True)
    assert spam.wait("ben", "2", many, 1.0) == (0.0, "")
    assert spam.wait("ana", "3", "no link", 1.0) == (0.0, "")
    assert spam.wait("ana", "4", "https://a.example " * 100, 61.5) == (0.0, "")
    assert spam.wait("ana", "5", "www.a.example", 62.0)[0] > 0
