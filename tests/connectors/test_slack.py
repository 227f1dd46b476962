"""The agents' room in Slack: Slack's own SDK and Bolt against a loopback stand-in, and the calls against the API's description."""

import asyncio
import functools
import json
import logging
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from openapi_core import Config, OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest
from pydantic import ValidationError
from slack_sdk.signature import SignatureVerifier

from connectors.shared.slack_blocks import blocks, fallback, plain
from connectors.slack import Slack, SlackSettings
from hub.contract import Answer, Refused, Request, TryLater, Unknown
from hub.team_rooms import Alert, TicketCard
from tests.shared_data import shared

TOKEN = "xoxb-1-very-secret"
SIGNING_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
CHANNEL = "C0123456789"

CARD = TicketCard(
    ticket_id=42,
    version=3,
    status="open",
    customer="Ada Lovelace",
    channel="WhatsApp",
    subject="",
    preview="Where is my order?",
    assignee="",
    held=True,
    url="https://hub.example/tickets/42",
)


# --- the stand-in for Slack ------------------------------------------------------------------------------------------


@dataclass
class Seen:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def call(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


Scripted = dict[str, Any] | Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class SlackApi:
    """Answers the Web API's methods: what was scripted for a method, in order, else success."""

    requests: list[Seen] = field(default_factory=list)
    scripted: dict[str, list[Scripted]] = field(default_factory=dict)
    posts: int = 0
    base_url: str = ""
    person: dict[str, Any] = field(default_factory=lambda: {"id": "U1", "profile": {"email": "grace@example.org"}})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        seen = Seen(request.method, request.path, dict(request.query), dict(request.headers), await request.read())
        self.requests.append(seen)
        if self.scripted.get(seen.call):
            scripted = self.scripted[seen.call].pop(0)
            return web.json_response(scripted) if isinstance(scripted, dict) else await scripted(request)
        return web.json_response(self.success(seen))

    def success(self, seen: Seen) -> dict[str, Any]:
        match seen.call:
            case "chat.postMessage":
                self.posts += 1
                return {"ok": True, "channel": CHANNEL, "ts": f"1700000000.00000{self.posts}", "message": {}}
            case "chat.update":
                return {"ok": True, "channel": CHANNEL, "ts": seen.json["ts"]}
            case "chat.postEphemeral":
                return {"ok": True, "message_ts": "1700000001.000001"}
            case "users.info":
                return {"ok": True, "user": self.person}
            case "auth.test":
                return {"ok": True, "team_id": "T1", "team": "Ours", "user_id": "UBOT", "bot_id": "B1"}
        return {"ok": False, "error": "unknown_method"}

    @property
    def calls(self) -> list[str]:
        return [seen.call for seen in self.requests]

    @property
    def told(self) -> list[str]:
        return [seen.json["text"] for seen in self.requests if seen.call == "chat.postEphemeral"]


@pytest.fixture
async def api() -> AsyncIterator[SlackApi]:
    stand_in = SlackApi()
    app = web.Application()
    app.router.add_route("*", "/api/{method}", stand_in.answer)
    async with TestServer(app) as server:
        stand_in.base_url = f"http://127.0.0.1:{server.port}/api"
        yield stand_in


ROOMS: list[Slack] = []


@pytest.fixture(autouse=True)
async def rooms_are_closed() -> AsyncIterator[None]:
    yield
    while ROOMS:
        await ROOMS.pop().close()


def room(base_url: str, **changed: Any) -> Slack:
    given = {"type": "slack", "bot_token": TOKEN, "signing_secret": SIGNING_SECRET, "channel": CHANNEL, "base_url": base_url}
    ROOMS.append(Slack(SlackSettings.model_validate(given | changed), "support-room"))
    return ROOMS[-1]


@pytest.fixture
async def slack(api: SlackApi) -> AsyncIterator[Slack]:
    built = room(api.base_url)
    yield built
    await built.close()


@functools.cache
def description() -> OpenAPI:
    config = Config(spec_validator_cls=None)  # the description has faults of its own; requests are what is validated
    return OpenAPI.from_dict(json.loads(shared("specs_slack", "slack_web.patched.oas3.json").read_text()), config=config)


def check_against_description(seen: Seen, **changed: Any) -> None:
    """Raises OpenAPIError where Slack's own description of its API refuses the call."""
    sent = replace(seen, **changed)
    description().validate_request(
        MockRequest(
            "https://slack.com",
            sent.method.lower(),
            sent.path,
            args=sent.query,
            headers=sent.headers,
            data=sent.body,
            content_type=sent.headers.get("Content-Type", "application/x-www-form-urlencoded"),
        )
    )


# --- the post --------------------------------------------------------------------------------------------------------


async def test_a_ticket_is_posted_once_and_then_updated(slack: Slack, api: SlackApi) -> None:
    ref = await slack.show(CARD, "")
    assert ref == f"{CHANNEL}:1700000000.000001"
    assert await slack.show(replace(CARD, status="resolved", version=4), ref) == ref
    assert api.calls == ["chat.postMessage", "chat.update"]
    posted, updated = api.requests
    assert posted.json["channel"] == CHANNEL
    assert (updated.json["channel"], updated.json["ts"]) == (CHANNEL, "1700000000.000001")
    assert posted.headers["Authorization"] == f"Bearer {TOKEN}"
    assert posted.json["unfurl_links"] is posted.json["unfurl_media"] is False


@pytest.mark.parametrize(
    ("changed", "buttons"),
    [
        ({}, ["claim", "resolve", "open"]),
        ({"assignee": "Grace"}, ["resolve", "open"]),
        ({"status": "pending"}, ["resolve", "open"]),
        ({"status": "snoozed"}, ["resolve", "open"]),
        ({"status": "resolved"}, ["open"]),
        ({"status": "resolved", "assignee": "Grace"}, ["open"]),
    ],
)
def test_the_buttons_are_those_that_make_sense(changed: dict[str, Any], buttons: list[str]) -> None:
    elements = blocks(replace(CARD, **changed))[-1]["elements"]
    assert [element["action_id"] for element in elements] == buttons
    assert {element["value"] for element in elements} == {"42"}
    assert elements[-1]["url"] == CARD.url


def test_the_card_says_what_the_team_needs() -> None:
    shown = json.dumps(blocks(replace(CARD, subject="Order 7", assignee="Grace")), ensure_ascii=False)
    for words in (
        "Ada Lovelace · ticket 42",
        "Open",
        "via WhatsApp",
        "Order 7",
        "Where is my order?",
        "Assigned to Grace",
        "Marketing held",
    ):
        assert words in shown
    assert "Marketing held" not in json.dumps(blocks(replace(CARD, held=False)))
    assert "Nobody has claimed it" in json.dumps(blocks(CARD))
    assert fallback(CARD) == "Open: Ada Lovelace (WhatsApp): Where is my order?"


def texts(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        found = [value] if value.get("type") in {"plain_text", "mrkdwn"} else []
        return found + [text for part in value.values() for text in texts(part)]
    return [text for part in value for text in texts(part)] if isinstance(value, list) else []


@pytest.mark.parametrize(
    "hostile", ["<!channel> <@U1> <https://evil.example|click>", "&" * 5000, "<" * 200, "*_~`>\n" * 900, "\u202e\x00\x07", ""]
)
def test_what_a_customer_writes_is_shown_literally_and_fits(hostile: str) -> None:
    card = replace(CARD, customer=hostile, subject=hostile, preview=hostile, channel=hostile, assignee=hostile)
    shown = blocks(card)
    for text in texts(shown):
        assert text["type"] == "plain_text"
        assert 1 <= len(text["text"]) <= 3000
        assert "<" not in text["text"]
        assert "\u202e" not in text["text"]
        assert "\x00" not in text["text"]
    assert len(shown[0]["text"]["text"]) <= 150
    assert "<" not in fallback(card)
    assert len(fallback(card)) <= 300


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("R&D <b>", 50, "R&amp;D &lt;b&gt;"),
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("ab &&&", 9, "ab &amp;…"),  # an entity is never cut in two
        ("a\tb\u00a0c", 9, "a b c"),
        ("👩\u200d🚀", 9, "👩\u200d🚀"),
        ("  \n ", 9, ""),
    ],
)
def test_plain_text(text: str, limit: int, shown: str) -> None:
    assert plain(text, limit) == shown


# --- outgoing calls against Slack's description of its API -----------------------------------------------------------


async def every_call(slack: Slack, api: SlackApi) -> dict[str, Seen]:
    ref = await slack.show(CARD, "")
    await slack.show(replace(CARD, assignee="Grace"), ref)
    await press(slack, Desk(), "claim")
    await slack.close()
    return {seen.call: seen for seen in api.requests}


async def test_an_alert_says_what_is_wrong_and_where_it_is_mended_and_later_that_it_is_over(slack: Slack, api: SlackApi) -> None:
    alert = Alert(title="Klaviyo refuses <us>", text="The key & all.", url="https://hub.example/holds/tools/klaviyo")
    await slack.alert(alert, "")
    await slack.alert(replace(alert, ended=True), "")
    raised, over = (seen.json["blocks"] for seen in api.requests)
    assert [block["type"] for block in raised] == ["header", "section", "actions"]
    assert raised[0]["text"]["text"] == "Klaviyo refuses &lt;us&gt;"
    assert raised[-1]["elements"][0]["url"] == alert.url
    assert [block["text"]["text"] for block in over] == ["Over: Klaviyo refuses &lt;us&gt;"]
    for seen in api.requests:
        check_against_description(seen)


async def test_every_call_is_as_slack_describes_it(slack: Slack, api: SlackApi) -> None:
    made = await every_call(slack, api)
    assert set(made) == {"chat.postMessage", "chat.update", "chat.postEphemeral", "users.info", "auth.test"}
    for seen in made.values():
        check_against_description(seen)


@pytest.mark.parametrize(
    ("call", "dropped"),
    [("chat.postMessage", "channel"), ("chat.update", "channel"), ("chat.update", "ts"), ("chat.postEphemeral", "user")],
)
async def test_the_description_refuses_a_call_without_what_it_requires(call: str, dropped: str, slack: Slack, api: SlackApi) -> None:
    """Negative twin: a validator that takes everything would otherwise go unnoticed."""
    seen = (await every_call(slack, api))[call]
    short = {name: value for name, value in seen.json.items() if name != dropped}
    assert len(short) == len(seen.json) - 1
    with pytest.raises(OpenAPIError):
        check_against_description(seen, body=json.dumps(short).encode())


@pytest.mark.parametrize("call", ["chat.postMessage", "chat.update", "chat.postEphemeral", "users.info", "auth.test"])
async def test_the_description_refuses_a_call_without_a_token_or_of_another_name(call: str, slack: Slack, api: SlackApi) -> None:
    """Negative twin."""
    seen = (await every_call(slack, api))[call]
    with pytest.raises(OpenAPIError):
        check_against_description(seen, headers={k: v for k, v in seen.headers.items() if k != "Authorization"})
    with pytest.raises(OpenAPIError):
        check_against_description(seen, path=seen.path + "s")


# --- how a post can end ----------------------------------------------------------------------------------------------


def answering(status: int, body: str = "", content_type: str = "text/html", **headers: str) -> Scripted:
    async def answer(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=body, content_type=content_type, headers=named)

    return answer


async def hanging_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def resetting(request: web.Request) -> web.StreamResponse:
    """Closes with a TCP reset, which the client's system reports as an OSError like a refused connection."""
    assert request.transport is not None
    request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()


LIMITED = answering(429, '{"ok": false, "error": "ratelimited"}', "application/json", Retry_After="30")

OUTCOMES: list[tuple[str, Scripted, type[Exception], type[Exception]]] = [
    # what Slack does, and how a first post and an update end
    ("rate limit", LIMITED, TryLater, TryLater),
    ("rate limit without a body", answering(429, "", Retry_After="30"), TryLater, TryLater),
    ("not available, by name", {"ok": False, "error": "service_unavailable"}, TryLater, TryLater),
    ("not available, by status", answering(503, "<html>"), TryLater, TryLater),
    ("internal error: may have succeeded", {"ok": False, "error": "internal_error"}, Unknown, TryLater),
    ("fatal error: may have succeeded", {"ok": False, "error": "fatal_error"}, Unknown, TryLater),
    ("gateway error", answering(502, "<html>"), Unknown, TryLater),
    ("success that is not JSON", answering(200, "<html>"), Unknown, TryLater),
    ("success in plain text", answering(200, "ok", "text/plain"), Unknown, TryLater),
    ("success that is a list", answering(200, "[1]", "application/json"), Unknown, TryLater),
    ("broken JSON", answering(200, '{"ok": tr', "application/json"), Unknown, TryLater),
    ("connection lost after the request", hanging_up, Unknown, TryLater),
    ("connection reset after the request", resetting, Unknown, TryLater),
    ("bad token", {"ok": False, "error": "invalid_auth"}, Refused, Refused),
    ("token revoked", {"ok": False, "error": "token_revoked"}, Refused, Refused),
    ("bot not in the channel", {"ok": False, "error": "not_in_channel"}, Refused, Refused),
    ("missing scope", {"ok": False, "error": "missing_scope"}, Refused, Refused),
    ("an error nobody has heard of", {"ok": False, "error": "brand_new_error"}, Refused, Refused),
]


@pytest.mark.parametrize(("scripted", "raised"), [(row[1], row[2]) for row in OUTCOMES], ids=[row[0] for row in OUTCOMES])
async def test_how_a_first_post_ends(scripted: Scripted, raised: type[Exception], slack: Slack, api: SlackApi) -> None:
    api.scripted["chat.postMessage"] = [scripted]
    with pytest.raises(raised) as caught:
        await slack.show(CARD, "")
    assert api.calls == ["chat.postMessage"]  # the SDK does not send it again by itself
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(("scripted", "raised"), [(row[1], row[3]) for row in OUTCOMES], ids=[row[0] for row in OUTCOMES])
async def test_how_an_update_ends(scripted: Scripted, raised: type[Exception], slack: Slack, api: SlackApi) -> None:
    api.scripted["chat.update"] = [scripted]
    with pytest.raises(raised):
        await slack.show(CARD, f"{CHANNEL}:1.2")
    assert api.calls == ["chat.update"]


@pytest.mark.parametrize("ref", ["", f"{CHANNEL}:1.2"])
async def test_a_rate_limit_says_how_long(ref: str, slack: Slack, api: SlackApi) -> None:
    api.scripted = {"chat.postMessage": [LIMITED], "chat.update": [LIMITED]}
    with pytest.raises(TryLater) as caught:
        await slack.show(CARD, ref)
    assert caught.value.retry_after == 30.0


@pytest.mark.parametrize("ref", ["", f"{CHANNEL}:1.2"])
async def test_what_never_left_is_tried_again(ref: str) -> None:
    with pytest.raises(TryLater, match="could not be reached"):
        await room(f"http://127.0.0.1:{unused_port()}/api/").show(CARD, ref)


@pytest.mark.parametrize("error", ["message_not_found", "channel_not_found", "is_archived", "cant_update_message"])
async def test_a_post_that_is_gone_is_posted_anew(error: str, slack: Slack, api: SlackApi) -> None:
    api.scripted["chat.update"] = [{"ok": False, "error": error}]
    assert await slack.show(CARD, "C0OLD000000:1.2") == f"{CHANNEL}:1700000000.000001"
    assert api.calls == ["chat.update", "chat.postMessage"]


@pytest.mark.parametrize(
    ("error", "setting"),
    [("invalid_auth", "bot_token"), ("channel_not_found", "check channel"), ("not_in_channel", "/invite"), ("missing_scope", "chat:write")],
)
async def test_a_refusal_names_what_to_mend(error: str, setting: str, slack: Slack, api: SlackApi) -> None:
    api.scripted["chat.postMessage"] = [{"ok": False, "error": error}]
    with pytest.raises(Refused, match=setting):
        await slack.show(CARD, "")


async def test_a_success_without_a_reference_is_unknown(slack: Slack, api: SlackApi) -> None:
    api.scripted["chat.postMessage"] = [{"ok": True}]
    with pytest.raises(Unknown):
        await slack.show(CARD, "")


async def test_proxy_settings_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch, api: SlackApi) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port()}")
    await room(api.base_url).show(CARD, "")
    assert api.calls == ["chat.postMessage"]


async def test_one_session_serves_every_call_and_no_connection_is_kept(api: SlackApi) -> None:
    place = room(api.base_url)
    first = await place.show(CARD, "")
    session = place._client().session
    assert await place.show(CARD, first) == first
    assert place._client().session is session is not None
    assert {seen.headers.get("Connection") for seen in api.requests} == {"close"}, "one that Slack closed would leave a post in doubt"
    await place.close()
    assert session.closed
    assert await place.show(CARD, first) == first, "what is still under way then goes all the same"


# --- buttons ---------------------------------------------------------------------------------------------------------


class Desk:
    """The hub's side of the buttons: knows one agent by e-mail and records what was done as whom."""

    def __init__(self, failing: Exception | None = None) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.done: list[tuple[str, int, int]] = []
        self.failing = failing
        self.gate = asyncio.Event()
        self.gate.set()

    async def agent_for(self, room: str, user: str, email: str) -> int | None:
        self.asked.append((room, user, email))
        await self.gate.wait()
        return 5 if email == "grace@example.org" else None

    async def claim(self, ticket_id: int, agent_id: int) -> str:
        if self.failing:
            raise self.failing
        self.done.append(("claim", ticket_id, agent_id))
        return "The ticket is yours."

    async def resolve(self, ticket_id: int, agent_id: int) -> str:
        self.done.append(("resolve", ticket_id, agent_id))
        return "Resolved <it> & released the hold."


def click(action: str, **changed: Any) -> dict[str, Any]:
    """A block_actions payload as documented: https://docs.slack.dev/reference/interaction-payloads/block_actions-payload."""
    payload: dict[str, Any] = {
        "type": "block_actions",
        "team": {"id": "T1", "domain": "ours"},
        "user": {"id": "U1", "username": "grace", "name": "grace", "team_id": "T1"},
        "api_app_id": "A1",
        "token": "legacy",
        "container": {"type": "message", "message_ts": "1.2", "channel_id": CHANNEL, "is_ephemeral": False},
        "trigger_id": "1.2.3",
        "channel": {"id": CHANNEL, "name": "support"},
        "message": {"type": "message", "ts": "1.2", "text": "x"},
        "response_url": "https://hooks.slack.com/actions/T1/1/x",
        "actions": [{"action_id": action, "block_id": "b", "type": "button", "value": "42", "action_ts": "1.3"}],
    }
    return payload | changed


def signed(body: bytes, *, age: int = 0, secret: str = SIGNING_SECRET, content_type: str = "application/x-www-form-urlencoded") -> Request:
    timestamp = str(int(time.time()) - age)
    signature = SignatureVerifier(secret).generate_signature(timestamp=timestamp, body=body)
    headers = {"content-type": content_type, "x-slack-request-timestamp": timestamp, "x-slack-signature": signature or ""}
    return Request("POST", "https://hub.example/in/support-room", headers, body)


def form(payload: dict[str, Any]) -> bytes:
    return urlencode({"payload": json.dumps(payload)}).encode()


async def press(slack: Slack, desk: Desk, action: str, **changed: Any) -> Answer:
    return await slack.handle(signed(form(click(action, **changed))), desk)


@pytest.mark.parametrize(
    ("action", "told"), [("claim", "The ticket is yours."), ("resolve", "Resolved &lt;it&gt; &amp; released the hold.")]
)
async def test_a_button_acts_as_the_agent_with_that_address(action: str, told: str, slack: Slack, api: SlackApi) -> None:
    desk = Desk()
    assert await press(slack, desk, action) == Answer(200, "", "text/plain")
    await slack.close()
    assert desk.asked == [("support-room", "U1", "grace@example.org")]
    assert desk.done == [(action, 42, 5)]
    assert api.told == [told]
    assert (api.requests[-1].json["channel"], api.requests[-1].json["user"]) == (CHANNEL, "U1")


async def test_an_address_in_the_settings_comes_before_slacks(api: SlackApi) -> None:
    slack, desk = room(api.base_url, agents={"U1": "grace@example.org"}), Desk()
    api.person["profile"]["email"] = "other@example.org"
    await press(slack, desk, "claim")
    await slack.close()
    assert desk.done == [("claim", 42, 5)]
    assert api.calls == ["chat.postEphemeral"]


async def test_somebody_who_is_no_agent_is_told_how_to_become_one(slack: Slack, api: SlackApi) -> None:
    desk = Desk()
    api.person["profile"]["email"] = "stranger@example.org"
    assert (await press(slack, desk, "claim")).status == 200
    await slack.close()
    assert desk.done == []
    assert "hub agents add stranger@example.org" in api.told[0]


@pytest.mark.parametrize(
    "person",
    [
        {"id": "U1", "profile": {}},  # no users:read.email scope
        {"id": "U1", "is_bot": True, "profile": {"email": "grace@example.org"}},
        {"id": "U1", "deleted": True, "profile": {"email": "grace@example.org"}},
        {"id": "U1", "is_stranger": True, "profile": {"email": "grace@example.org"}},
    ],
)
async def test_without_an_address_of_our_workspace_nothing_is_done(person: dict[str, Any], slack: Slack, api: SlackApi) -> None:
    api.person, desk = person, Desk()
    await press(slack, desk, "claim")
    await slack.close()
    assert desk.done == []
    assert "users:read.email" in api.told[0]


@pytest.mark.parametrize("team", ["T2", None])
async def test_somebody_of_another_workspace_does_nothing(team: str | None, slack: Slack, api: SlackApi) -> None:
    """In a shared channel the other workspace decides which e-mail address its members show."""
    desk = Desk()
    await press(slack, desk, "resolve", user={"id": "U1", "team_id": team})
    await slack.close()
    assert (desk.asked, desk.done) == ([], [])
    assert "another Slack workspace" in api.told[0]


async def test_a_button_in_a_channel_that_is_not_the_room_does_nothing(slack: Slack, api: SlackApi) -> None:
    desk = Desk()
    await press(slack, desk, "claim", channel={"id": "C0999999999", "name": "elsewhere"})
    await slack.close()
    assert desk.done == []
    assert "not the support room" in api.told[0]


async def test_a_channel_given_by_name_takes_buttons(api: SlackApi) -> None:
    slack, desk = room(api.base_url, channel="#support"), Desk()
    await press(slack, desk, "claim")
    await slack.close()
    assert desk.done == [("claim", 42, 5)]


async def test_the_acknowledgement_waits_for_nothing_and_close_waits_for_the_work(slack: Slack, api: SlackApi) -> None:
    desk = Desk()
    desk.gate.clear()
    async with asyncio.timeout(3):  # what Slack gives us
        assert (await press(slack, desk, "claim")).status == 200
    assert desk.done == []
    closing = asyncio.create_task(slack.close())
    await asyncio.sleep(0)
    assert not closing.done()
    assert (await press(slack, desk, "claim")).status == 503
    desk.gate.set()
    await closing
    assert desk.done == [("claim", 42, 5)]
    assert api.told == ["The ticket is yours."]


async def test_the_acknowledgement_makes_no_call_to_slack(slack: Slack, api: SlackApi) -> None:
    assert (await press(slack, Desk(), "open")).status == 200
    await slack.close()
    assert api.calls == []


async def test_our_workspace_is_asked_for_once(slack: Slack, api: SlackApi) -> None:
    for _ in range(3):
        await press(slack, Desk(), "claim")
        await asyncio.gather(*slack._work)
    assert api.calls.count("auth.test") == 1


async def test_a_failure_is_told_and_logged_without_secrets(slack: Slack, api: SlackApi, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(failing=RuntimeError(f"with {TOKEN} and the customer's words"))
    await press(slack, desk, "claim")
    await slack.close()
    assert "Something went wrong" in api.told[0]
    assert "claim of ticket 42 failed: RuntimeError" in caplog.text
    assert TOKEN not in caplog.text
    assert "customer's words" not in caplog.text


async def test_a_slack_that_cannot_tell_us_the_address_is_a_failure_not_a_permission(slack: Slack, api: SlackApi) -> None:
    api.scripted["users.info"] = [{"ok": False, "error": "missing_scope"}]
    desk = Desk()
    await press(slack, desk, "claim")
    await slack.close()
    assert desk.done == []
    assert "Something went wrong" in api.told[0]


async def test_the_work_stands_even_when_the_person_cannot_be_told(slack: Slack, api: SlackApi, caplog: pytest.LogCaptureFixture) -> None:
    api.scripted["chat.postEphemeral"] = [{"ok": False, "error": "user_not_in_channel"}]
    desk = Desk()
    await press(slack, desk, "claim")
    await slack.close()
    assert desk.done == [("claim", 42, 5)]
    assert "could not be told" in caplog.text


@pytest.mark.parametrize("value", ["", "42; DROP TABLE ticket", None, "nine"])
async def test_a_button_without_a_ticket_does_nothing(
    value: str | None, slack: Slack, api: SlackApi, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    actions = [{"action_id": "claim", "block_id": "b", "type": "button", "value": value, "action_ts": "1.3"}]
    assert (await press(slack, desk, "claim", actions=actions)).status == 200
    await slack.close()
    assert (desk.asked, desk.done, api.calls) == ([], [], [])
    assert "was not understood" in caplog.text


# --- who may speak ---------------------------------------------------------------------------------------------------


def changed_headers(request: Request, **changed: str | None) -> Request:
    headers = {**request.headers, **{name.replace("_", "-"): value for name, value in changed.items()}}
    return replace(request, headers={name: value for name, value in headers.items() if value is not None})


GOOD = form(click("claim"))

FORGED: list[tuple[str, Callable[[], Request]]] = [
    ("another secret", lambda: signed(GOOD, secret="another")),
    ("older than five minutes", lambda: signed(GOOD, age=301)),
    ("earlier than five minutes", lambda: signed(GOOD, age=-310)),
    ("another body", lambda: replace(signed(GOOD), body=GOOD + b"&x=1")),
    ("no signature", lambda: changed_headers(signed(GOOD), x_slack_signature=None)),
    ("empty signature", lambda: changed_headers(signed(GOOD), x_slack_signature="")),
    ("no timestamp", lambda: changed_headers(signed(GOOD), x_slack_request_timestamp=None)),
    ("another timestamp", lambda: changed_headers(signed(GOOD), x_slack_request_timestamp=str(int(time.time()) - 1))),
    ("timestamp not a number", lambda: changed_headers(signed(GOOD), x_slack_request_timestamp="now")),
    ("timestamp in other digits", lambda: changed_headers(signed(GOOD), x_slack_request_timestamp="\u0661\u0667")),
    ("signature not ASCII", lambda: changed_headers(signed(GOOD), x_slack_signature="v0=ü")),
    ("no headers at all", lambda: Request("POST", "https://hub.example/in/support-room", {}, GOOD)),
    ("a header of Bolt's own", lambda: changed_headers(signed(GOOD, secret="x"), x_slack_bolt_lazy_only="1")),
]


@pytest.mark.parametrize("make", [row[1] for row in FORGED], ids=[row[0] for row in FORGED])
async def test_a_forged_or_stale_request_is_401_and_does_nothing(
    make: Callable[[], Request], slack: Slack, api: SlackApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    desk = Desk()
    assert (await slack.handle(make(), desk)).status == 401
    await slack.close()
    assert (desk.asked, desk.done, api.calls) == ([], [], [])
    assert "block_actions" not in caplog.text  # Bolt would log the whole body of a forged request


async def test_a_signature_of_nearly_five_minutes_is_good(slack: Slack) -> None:
    """Negative twin."""
    desk = Desk()
    assert (await slack.handle(signed(GOOD, age=290), desk)).status == 200
    await slack.close()
    assert desk.done == [("claim", 42, 5)]


async def test_bolts_own_headers_do_not_steer_it(slack: Slack) -> None:
    desk = Desk()
    request = changed_headers(signed(GOOD), x_slack_bolt_lazy_only="1", x_slack_bolt_lazy_function_name="on_button")
    assert (await slack.handle(request, desk)).status == 200
    await slack.close()
    assert desk.done == [("claim", 42, 5)]


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe", b"payload=", b"payload=[]", b"payload=7", b"payload={", b"payload=" + b"[" * 100_000, b"[]", b"x" * 10_000],
)
@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "application/json", ""])
async def test_no_body_makes_it_fall_over(body: bytes, content_type: str, slack: Slack, api: SlackApi) -> None:
    desk = Desk()
    unsigned = Request("POST", "https://hub.example/in/support-room", {"content-type": content_type}, body)
    assert (await slack.handle(unsigned, desk)).status in {400, 401}
    if body != b"\xff\xfe":  # Slack's bodies are UTF-8; the SDK's signer cannot sign this one
        assert (await slack.handle(signed(body, content_type=content_type), desk)).status in {400, 404}
    await slack.close()
    assert (desk.asked, desk.done, api.calls) == ([], [], [])


async def test_slacks_check_of_the_address_is_answered(slack: Slack) -> None:
    body = json.dumps({"type": "url_verification", "challenge": "3eZbrw1aB", "token": "legacy"}).encode()
    answer = await slack.handle(signed(body, content_type="application/json"), Desk())
    assert (answer.status, json.loads(answer.body)) == (200, {"challenge": "3eZbrw1aB"})
    assert (await slack.handle(signed(body, content_type="application/json", secret="x"), Desk())).status == 401


async def test_slacks_check_of_the_certificate_is_answered(slack: Slack, api: SlackApi) -> None:
    answer = await slack.handle(signed(b"ssl_check=1&token=legacy"), Desk())
    assert (answer.status, api.calls) == (200, [])


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"bot_token": ""}, "bot_token"),
        ({"signing_secret": " "}, "signing_secret"),
        ({"channel": ""}, "channel"),
        ({"base_url": "http://slack.example/api/"}, "base_url"),
        ({"base_url": "slack.com/api"}, "base_url"),
        ({"chanel": "x"}, "chanel"),
    ],
)
def test_a_wrong_setting_is_named(changed: dict[str, str], key: str) -> None:
    good = {"type": "slack", "bot_token": TOKEN, "signing_secret": SIGNING_SECRET, "channel": CHANNEL}
    assert SlackSettings.model_validate(good).base_url == "https://slack.com/api/"
    with pytest.raises(ValidationError) as caught:
        SlackSettings.model_validate(good | changed)
    assert [error["loc"] for error in caught.value.errors()] == [(key,)]
    assert TOKEN not in str(caught.value)


def test_secrets_are_in_no_repr() -> None:
    settings = SlackSettings.model_validate({"type": "slack", "bot_token": TOKEN, "signing_secret": SIGNING_SECRET, "channel": CHANNEL})
    written = repr(settings) + settings.model_dump_json() + repr(vars(Slack(settings, "support-room")))
    assert TOKEN not in written
    assert SIGNING_SECRET not in written


@pytest.mark.parametrize(
    ("url", "sandbox"),
    [("http://127.0.0.1:9/api/", True), ("http://localhost:9/", True), ("http://[::1]:9/", True), ("https://slack.com/api/", False)],
)
def test_sandbox_is_a_slack_on_this_machine(url: str, sandbox: bool) -> None:
    assert room(url).is_sandbox() is sandbox


async def test_an_unused_room_costs_nothing_and_closes() -> None:
    slack = room("https://slack.com/api/")
    await slack.close()
    assert (slack._built_client, slack._built_app) == (None, None)
