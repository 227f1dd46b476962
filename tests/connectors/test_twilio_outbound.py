"""Law: what Twilio is asked is what its own API description allows; in doubt we say so; credentials never leave Twilio's hosts.

The real connector and the official SDK speak to a loopback server. Official description: ../shared/fixtures/specs_twilio.
"""

import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from openapi_core import Config, OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest, MockResponse
from pydantic import ValidationError

from connectors.shared.twilio import RETRIES, TwilioMessaging
from connectors.twilio_sms import TwilioSms
from connectors.twilio_whatsapp import TwilioWhatsApp
from hub.contract import HttpResponse, NoAnswer, NotSent, OutboundAttachment, OutboundMessage, Place, Refused, Sent, TryLater, Unknown
from tests.shared_data import shared

SID = "AC" + "a" * 32
TOKEN = "f0" * 16
SERVICE = "MG" + "b" * 32
PATH = f"/2010-04-01/Accounts/{SID}/Messages.json"
LOGIN = "Basic " + base64.b64encode(f"{SID}:{TOKEN}".encode()).decode()
CALLBACK = "https://hub.example/in/sms?delivery=7"


# --- A stand-in for Twilio, and the way to it ---


@dataclass
class Seen:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> list[tuple[str, str]]:
        return parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True)


@dataclass
class StandIn:
    """Records each request and gives the answers laid ready, the last one again and again."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)

    def will(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers.append((status, {name.replace("_", "-"): value for name, value in headers.items()}, data))

    async def answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.method, request.path, dict(request.query), headers, await request.read()))
        status, sent, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, headers=sent, body=body)


class Direct:
    """The contract's Http over a plain session: no redirects, and the two ways to fail told apart."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float = 15.0,
        max_bytes: int = 1_000_000,
    ) -> HttpResponse:
        try:
            async with self.session.request(method, url, headers=headers, data=body, allow_redirects=False) as response:
                data = await response.read()
                if len(data) > max_bytes:
                    raise NoAnswer(f"more than {max_bytes} bytes")
                return HttpResponse(response.status, {name.lower(): value for name, value in response.headers.items()}, data)
        except aiohttp.ClientConnectorError as error:
            raise NotSent(str(error)) from error
        except aiohttp.ClientError as error:
            raise NoAnswer(str(error)) from error


@dataclass
class Scripted:
    """An Http that connects to nothing: answers by URL, and keeps what it was asked with which headers."""

    answers: dict[str, HttpResponse] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    async def request(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, **_: Any) -> HttpResponse:
        self.asked.append((url, dict(headers or {})))
        return self.answers[url]


@pytest.fixture
async def twilio() -> AsyncIterator[StandIn]:
    stand_in = StandIn()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stand_in.answer)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    stand_in.url = str(server.make_url("/")).rstrip("/")
    yield stand_in
    await server.close()


@pytest.fixture
async def http() -> AsyncIterator[Direct]:
    async with aiohttp.ClientSession() as session:
        yield Direct(session)


def channel(kind: type[TwilioMessaging], base_url: str = "https://api.twilio.com", **settings: Any) -> TwilioMessaging:
    chosen = {"type": "twilio", "address": "+15555550100", "account_sid": SID, "base_url": base_url, "auth_token": TOKEN} | settings
    return kind(kind.Settings(**chosen), Place("main", "https://hub.example/in/sms", b"k"))  # type: ignore[arg-type]


def file(name: str = "a.jpg", content_type: str = "image/jpeg", size: int = 1_000, url: str = "") -> OutboundAttachment:
    return OutboundAttachment(name, content_type, size, bytes, url or f"https://hub.example/files/{name}")


def message(**fields: Any) -> OutboundMessage:
    return OutboundMessage(**({"delivery_id": 7, "to": "+15555550101", "text": "Hello", "callback_url": CALLBACK} | fields))


@cache
def description() -> OpenAPI:
    # Providers' descriptions have faults of their own: requests are validated, not the description.
    config = Config(spec_validator_cls=None)  # type: ignore[arg-type]
    return OpenAPI.from_dict(json.loads(shared("specs_twilio", "twilio_api_v2010.json").read_text()), config=config)


def described(seen: Seen) -> MockRequest:
    return MockRequest(
        "https://api.twilio.com",
        seen.method.lower(),
        seen.path,
        args=seen.query,
        headers=seen.headers,
        data=seen.body,
        content_type=seen.headers.get("content-type", ""),
    )


def created(**fields: Any) -> dict[str, Any]:
    """The answer to a message taken, as the official description's example has it."""
    return {
        "account_sid": SID,
        "api_version": "2010-04-01",
        "body": "Hello",
        "date_created": "Thu, 24 Aug 2023 05:01:45 +0000",
        "date_sent": None,
        "date_updated": "Thu, 24 Aug 2023 05:01:45 +0000",
        "direction": "outbound-api",
        "error_code": None,
        "error_message": None,
        "from": "+15555550100",
        "messaging_service_sid": None,
        "num_media": "0",
        "num_segments": "1",
        "price": None,
        "price_unit": None,
        "sid": "SM" + "c" * 32,
        "status": "queued",
        "subresource_uris": {},
        "to": "+15555550101",
        "uri": PATH,
    } | fields


# --- Sending ---

TO, FROM, WA_TO, WA_FROM = (
    ("To", "+15555550101"),
    ("From", "+15555550100"),
    ("To", "whatsapp:+15555550101"),
    ("From", "whatsapp:+15555550100"),
)
STATUS, BODY = ("StatusCallback", CALLBACK + RETRIES), ("Body", "Hello")
SENDS: dict[str, tuple[type[TwilioMessaging], dict[str, Any], dict[str, Any], list[tuple[str, str]]]] = {
    "SMS": (TwilioSms, {}, {}, [TO, STATUS, FROM, BODY]),
    "any characters": (TwilioSms, {}, {"text": "a&b=c + ü 🙂\n€"}, [TO, STATUS, FROM, ("Body", "a&b=c + ü 🙂\n€")]),
    "no callback": (TwilioSms, {}, {"callback_url": ""}, [TO, FROM, BODY]),
    "Messaging Service": (TwilioSms, {"messaging_service_sid": SERVICE}, {}, [TO, STATUS, ("MessagingServiceSid", SERVICE), BODY]),
    "Messaging Service alone": (
        TwilioSms,
        {"messaging_service_sid": SERVICE, "address": ""},
        {},
        [TO, STATUS, ("MessagingServiceSid", SERVICE), BODY],
    ),
    "two files": (
        TwilioSms,
        {},
        {"attachments": (file("a.jpg"), file("b.pdf", "application/pdf"))},
        [TO, STATUS, FROM, BODY, ("MediaUrl", "https://hub.example/files/a.jpg"), ("MediaUrl", "https://hub.example/files/b.pdf")],
    ),
    "a sender's name": (TwilioSms, {"address": "ACME Shop"}, {}, [TO, STATUS, ("From", "ACME Shop"), BODY]),
    "WhatsApp": (TwilioWhatsApp, {}, {}, [WA_TO, STATUS, WA_FROM, BODY]),
    "WhatsApp, prefixes already there": (
        TwilioWhatsApp,
        {"address": "whatsapp:+15555550100"},
        {"to": "whatsapp:+15555550101"},
        [WA_TO, STATUS, WA_FROM, BODY],
    ),
    "WhatsApp user id": (
        TwilioWhatsApp,
        {},
        {"to": "US.13491208655302741918"},
        [("To", "whatsapp:US.13491208655302741918"), STATUS, WA_FROM, BODY],
    ),
    "WhatsApp document without words": (
        TwilioWhatsApp,
        {},
        {"text": "", "attachments": (file("b.pdf", "application/pdf"),)},
        [WA_TO, STATUS, WA_FROM, ("MediaUrl", "https://hub.example/files/b.pdf")],
    ),
}


@pytest.mark.parametrize(("kind", "settings", "fields", "form"), SENDS.values(), ids=SENDS)
async def test_what_is_sent_is_what_the_description_allows(
    kind: type[TwilioMessaging],
    settings: dict[str, Any],
    fields: dict[str, Any],
    form: list[tuple[str, str]],
    *,
    twilio: StandIn,
    http: Direct,
) -> None:
    twilio.will(201, created(), content_type="application/json")
    assert await channel(kind, twilio.url, **settings).send(message(**fields), http) == Sent("SM" + "c" * 32)
    [seen] = twilio.seen
    assert (seen.method, seen.path, seen.query) == ("POST", PATH, {})
    assert seen.headers["authorization"] == LOGIN
    assert seen.headers["content-type"] == "application/x-www-form-urlencoded"
    assert sorted(seen.form) == sorted(form)
    description().validate_request(described(seen))


def without(name: str) -> Callable[[Seen], None]:
    def change(seen: Seen) -> None:
        seen.body = urlencode([pair for pair in seen.form if pair[0] != name]).encode()

    return change


def anonymous(seen: Seen) -> None:
    del seen.headers["authorization"]


def as_json(seen: Seen) -> None:
    seen.body, seen.headers["content-type"] = json.dumps(dict(seen.form)).encode(), "application/json"


def misdirected(seen: Seen) -> None:
    seen.path = seen.path.replace("Messages", "Massages")


@pytest.mark.parametrize("spoil", [without("To"), anonymous, as_json, misdirected], ids=["no To", "no login", "JSON body", "no such path"])
async def test_the_description_refuses_what_is_spoilt(spoil: Callable[[Seen], None], twilio: StandIn, http: Direct) -> None:
    twilio.will(201, created(), content_type="application/json")
    await channel(TwilioSms, twilio.url).send(message(), http)
    [seen] = twilio.seen
    description().validate_request(described(seen))
    spoil(seen)
    with pytest.raises(OpenAPIError):
        description().validate_request(described(seen))


async def test_the_stand_in_answers_as_described(twilio: StandIn, http: Direct) -> None:
    twilio.will(201, created(), content_type="application/json")
    await channel(TwilioSms, twilio.url).send(message(), http)
    request = described(twilio.seen[0])
    description().validate_response(request, MockResponse(json.dumps(created()).encode(), 201, content_type="application/json"))
    for wrong in (created(status="teleported"), created(num_media=["0"])):
        with pytest.raises(OpenAPIError):
            description().validate_response(request, MockResponse(json.dumps(wrong).encode(), 201, content_type="application/json"))


async def test_a_base_url_may_have_a_path(twilio: StandIn, http: Direct) -> None:
    twilio.will(201, created())
    await channel(TwilioSms, twilio.url + "/sandbox/twilio/").send(message(), http)
    assert twilio.seen[0].path == "/sandbox/twilio" + PATH


async def test_the_environment_redirects_nothing(twilio: StandIn, http: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TWILIO_EDGE", "TWILIO_REGION", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"):
        monkeypatch.setenv(name, "elsewhere")
    twilio.will(201, created())
    await channel(TwilioSms, twilio.url).send(message(), http)
    assert (twilio.seen[0].path, twilio.seen[0].headers["authorization"]) == (PATH, LOGIN)


def error(code: int, words: str, status: int = 400) -> dict[str, Any]:
    return {"code": code, "message": words, "more_info": f"https://www.twilio.com/docs/errors/{code}", "status": status}


PROBLEM = {"type": "https://x", "title": "Bad", "status": 422, "code": 99998, "detail": "Odd detail"}
ANSWERS: dict[str, tuple[int, Any, type[Exception], str]] = {
    # Twilio's answer -> how the delivery ends, and words the agent or the log is given
    "opted out": (400, error(21610, "Attempt to send to unsubscribed recipient"), Refused, r"opted out by STOP.*\(Twilio error 21610\)"),
    "outside the window": (400, error(63016, "jargon"), Refused, r"24 hours.*\(Twilio error 63016\)"),
    "no valid number": (400, error(21211, "jargon"), Refused, r"not a valid phone number.*21211"),
    "code we have no words for": (400, error(99999, "Odd thing."), Refused, r"^Odd thing\. \(Twilio error 99999\)$"),
    "wrong token": (401, error(20003, "Authenticate", 401), Refused, "settings"),
    "wrong account": (404, error(20404, "not found", 404), Refused, "account_sid"),
    "newer error shape": (422, PROBLEM, Refused, r"^Odd detail \(Twilio error 99998\)$"),
    "error that is no JSON": (400, b"<html>no</html>", Refused, "Twilio error 400"),
    "redirect": (307, b"", Refused, "307"),
    "taken and failed at once": (201, created(status="failed", error_code=30007), Refused, "filtered"),
    "too many": (429, error(20429, "Too Many Requests", 429), TryLater, "busy"),
    "down": (503, b"", TryLater, "busy"),
    "failed inside": (500, error(20500, "Internal", 500), Unknown, "may have gone"),
    "bad gateway": (502, b"<html>", Unknown, "may have gone"),
    "gateway timeout": (504, b"", Unknown, "may have gone"),
    "taken, unreadable": (201, b"<html>", Unknown, "without naming a message"),
    "taken, empty": (200, b"", Unknown, "without naming a message"),
    "taken, a list": (201, [], Unknown, "without naming a message"),
    "taken, no sid": (201, {"status": "queued"}, Unknown, "without naming a message"),
}


@pytest.mark.parametrize(("status", "body", "ends", "words"), ANSWERS.values(), ids=ANSWERS)
async def test_each_answer_ends_the_delivery_its_way(
    status: int, body: Any, ends: type[Exception], words: str, *, twilio: StandIn, http: Direct
) -> None:
    twilio.will(status, body, location="https://evil.example/") if status == 307 else twilio.will(status, body)
    with pytest.raises(ends, match=words) as caught:
        await channel(TwilioSms, twilio.url).send(message(), http)
    assert caught.type is ends
    assert TOKEN not in str(caught.value)
    assert len(twilio.seen) == 1  # never tried again behind the hub's back


WAITS = {"30": 30.0, "0": None, "": None, "Wed, 21 Oct 2026 07:28:00 GMT": None, "-1": None, "soon": None, "99999999999": 3600.0}


@pytest.mark.parametrize(("header", "seconds"), WAITS.items())
@pytest.mark.parametrize("status", [429, 503])
async def test_the_wait_twilio_names_is_handed_on(status: int, header: str, seconds: float | None, twilio: StandIn, http: Direct) -> None:
    twilio.will(status, b"", retry_after=header)
    with pytest.raises(TryLater) as caught:
        await channel(TwilioSms, twilio.url).send(message(), http)
    assert caught.value.retry_after == seconds


async def test_no_connection_is_tried_later(twilio: StandIn, http: Direct, unused_tcp_port: int) -> None:
    with pytest.raises(TryLater, match="could not be reached"):
        await channel(TwilioSms, f"http://127.0.0.1:{unused_tcp_port}").send(message(), http)


async def test_an_answer_lost_on_the_way_is_unknown(http: Direct) -> None:
    async def hang_up(request: web.Request) -> web.Response:
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_post("/{path:.*}", hang_up)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    with pytest.raises(Unknown, match="may have gone"):
        await channel(TwilioSms, str(server.make_url("/"))).send(message(), http)
    await server.close()


TOO_MUCH: dict[str, tuple[type[TwilioMessaging], dict[str, Any], str]] = {
    "too long": (TwilioSms, {"text": "x" * 1_601}, "1601 characters"),
    "too long for WhatsApp by Twilio": (TwilioWhatsApp, {"text": "x" * 1_601}, "1601 characters"),
    "empty": (TwilioSms, {"text": ""}, "empty"),
    "eleven files": (TwilioSms, {"attachments": (file(),) * 11}, "11 files"),
    "six MB by MMS": (TwilioSms, {"attachments": (file(size=3_000_000), file(size=3_000_000))}, "6.0 MB"),
    "two files on WhatsApp": (TwilioWhatsApp, {"attachments": (file(), file())}, "one by one"),
    "big picture on WhatsApp": (TwilioWhatsApp, {"attachments": (file(size=6_000_000),)}, "smaller picture"),
    "big film on WhatsApp": (TwilioWhatsApp, {"attachments": (file("v.mp4", "video/mp4", 17_000_000),)}, "17.0 MB"),
    "words beside a document on WhatsApp": (TwilioWhatsApp, {"attachments": (file("b.pdf", "application/pdf"),)}, "one after the other"),
    "file Twilio cannot reach": (TwilioSms, {"attachments": (OutboundAttachment("a.jpg", "image/jpeg", 1, bytes, ""),)}, "public URL"),
}


@pytest.mark.parametrize(("kind", "fields", "words"), TOO_MUCH.values(), ids=TOO_MUCH)
async def test_what_twilio_would_refuse_or_cut_never_leaves(kind: type[TwilioMessaging], fields: dict[str, Any], words: str) -> None:
    http = Scripted()
    with pytest.raises(Refused, match=words):
        await channel(kind).send(message(**fields), http)
    assert http.asked == []


JUST_ENOUGH: dict[str, tuple[type[TwilioMessaging], dict[str, Any]]] = {
    "longest text": (TwilioSms, {"text": "x" * 1_600}),
    "ten files": (TwilioSms, {"attachments": (file(size=500_000),) * 10}),
    "words beside a film": (TwilioWhatsApp, {"attachments": (file("v.mp4", "video/mp4", 16_000_000),)}),
    "words beside a picture": (TwilioWhatsApp, {"attachments": (file(size=5_000_000),)}),
}


@pytest.mark.parametrize(("kind", "fields"), JUST_ENOUGH.values(), ids=JUST_ENOUGH)
async def test_what_just_fits_leaves(kind: type[TwilioMessaging], fields: dict[str, Any], twilio: StandIn, http: Direct) -> None:
    twilio.will(201, created())
    await channel(kind, twilio.url).send(message(**fields), http)
    assert len(twilio.seen) == 1


async def test_without_a_token_nothing_leaves() -> None:
    http = Scripted()
    with pytest.raises(Refused, match="auth_token"):
        await channel(TwilioSms, auth_token="").send(message(), http)
    assert http.asked == []


def test_it_owns_up_to_having_no_idempotency_key() -> None:
    assert TwilioSms.idempotent is TwilioWhatsApp.idempotent is False


# --- Fetching media ---

MEDIA = f"https://api.twilio.com/2010-04-01/Accounts/{SID}/Messages/MM1/Media/ME1"
CDN = "https://mms.twiliocdn.com/AC1/abc?Expires=1"

FORGED = [
    "https://evil.example/Media/ME1",
    "http://api.twilio.com/2010-04-01/Media/ME1",  # in clear
    "https://api.twilio.com:8443/Media/ME1",
    "https://api.twilio.com.evil.example/Media/ME1",
    "https://eviltwilio.com/Media/ME1",
    "https://api.twilio.com@evil.example/Media/ME1",
    "https://evil.example\\@api.twilio.com/Media/ME1",  # clients differ on what the host is
    "https://evil.example\\.twilio.com/Media/ME1",  # a browser's reading: evil.example
    "https://evil.example#@api.twilio.com/Media/ME1",
    "https://user@api.twilio.com/Media/ME1",
    "https://api.twilio.com\t/Media/ME1",
    "https://api.twilio.com:x/Media/ME1",
    "https://аpi.twilio.com/Media/ME1",  # noqa: RUF001  a Cyrillic letter
    "https://[::1/Media/ME1",
    "file:///Media/ME1",
    "//api.twilio.com/Media/ME1",
    "",
    "http://127.0.0.1/Media/ME1",
    "http://169.254.169.254/latest/meta-data/Media/ME1",
    # Twilio's own, but not media: the account resource holds the auth token
    f"https://api.twilio.com/2010-04-01/Accounts/{SID}.json",
    f"https://api.twilio.com/2010-04-01/Accounts/{SID}.json?x=/Media/ME1",
    f"https://api.twilio.com/2010-04-01/Accounts/{SID}.json#/Media/ME1",
]


@pytest.mark.parametrize("url", FORGED)
async def test_a_forged_media_url_makes_no_connection(url: str) -> None:
    http = Scripted()
    with pytest.raises(Refused, match="not a Twilio media address"):
        await channel(TwilioSms).fetch(url, http)
    assert http.asked == []


@pytest.mark.parametrize("url", [MEDIA, MEDIA.replace("api.", "api.dublin.ie1."), MEDIA.replace("api.twilio.com", "api.twilio.com:443")])
async def test_twilios_media_are_fetched_with_credentials(url: str) -> None:
    http = Scripted({url: HttpResponse(200, {"content-type": "image/png; x=1"}, b"png")})
    found = await channel(TwilioSms).fetch(url, http)
    assert (found.name, found.content_type, found.data, found.url) == ("image-1.png", "image/png", b"png", url)
    assert http.asked == [(url, {"authorization": LOGIN})]


async def test_a_redirect_to_the_cdn_is_followed_once_without_credentials() -> None:
    for store in (CDN, "https://s3-external-1.amazonaws.com/media.twiliocdn.com/AC1/abc"):
        for status in (301, 302, 303, 307, 308):
            stored = HttpResponse(200, {"content-type": "image/jpeg"}, b"jpg")
            http = Scripted({MEDIA: HttpResponse(status, {"location": store}, b""), store: stored})
            assert (await channel(TwilioSms).fetch(MEDIA, http)).data == b"jpg"
            assert http.asked == [(MEDIA, {"authorization": LOGIN}), (store, {})]


ELSEWHERE = [
    "https://evil.example/x",
    "http://mms.twiliocdn.com/x",
    "https://eviltwiliocdn.com/x",
    "https://mms.twiliocdn.com:8443/x",
    "https://mms.twiliocdn.com@evil.example/x",
    "http://127.0.0.1/x",
    "http://169.254.169.254/x",
    "https://amazonaws.com.evil.example/x",
    "https://[::1",
]


@pytest.mark.parametrize("location", ELSEWHERE)
async def test_a_redirect_elsewhere_is_not_followed(location: str) -> None:
    http = Scripted({MEDIA: HttpResponse(302, {"location": location}, b"")})
    with pytest.raises(Refused, match="not one of its media stores"):
        await channel(TwilioSms).fetch(MEDIA, http)
    assert [url for url, _ in http.asked] == [MEDIA]


async def test_a_second_redirect_is_not_followed() -> None:
    http = Scripted({MEDIA: HttpResponse(307, {"location": CDN}, b""), CDN: HttpResponse(302, {"location": CDN + "2"}, b"")})
    with pytest.raises(Refused, match="302"):
        await channel(TwilioSms).fetch(MEDIA, http)
    assert len(http.asked) == 2


FETCHES: dict[int, type[Exception]] = {
    401: Refused, 403: Refused, 404: Refused, 410: Refused, 204: Refused,
    408: TryLater, 429: TryLater, 500: TryLater, 502: TryLater, 503: TryLater,
}  # fmt: skip


@pytest.mark.parametrize(("status", "ends"), FETCHES.items())
async def test_a_fetch_that_fails_is_refused_or_tried_later(status: int, ends: type[Exception], twilio: StandIn, http: Direct) -> None:
    twilio.will(status, b"", retry_after="9")
    with pytest.raises(ends) as caught:
        await channel(TwilioSms, twilio.url).fetch(twilio.url + "/media/1", http)
    assert caught.type is ends
    assert not isinstance(caught.value, TryLater) or caught.value.retry_after == 9.0


async def test_media_that_cannot_be_reached_or_break_off_are_tried_later(http: Direct, unused_tcp_port: int) -> None:
    base = f"http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(TryLater, match="could not be reached"):
        await channel(TwilioSms, base).fetch(base + "/media/1", http)


async def test_media_over_twenty_megabytes_are_refused() -> None:
    for size, fits in ((20_000_000, True), (20_000_001, False)):
        http = Scripted({MEDIA: HttpResponse(200, {"content-type": "video/mp4"}, b"\0" * size)})
        if fits:
            assert (await channel(TwilioSms).fetch(MEDIA, http)).name == "video-1.mp4"
        else:
            with pytest.raises(Refused, match="20 MB"):
                await channel(TwilioSms).fetch(MEDIA, http)


NAMES = {
    'inline; filename="invoice 7.pdf"': "invoice 7.pdf",
    "attachment; filename*=UTF-8''Rechnung%20%C3%9C.pdf": "Rechnung Ü.pdf",
    'attachment; filename="../../etc/passwd"': "passwd",
    'attachment; filename="C:\\\\x\\\\y.pdf"': "y.pdf",
    'attachment; filename=".."': "file-1.pdf",
    'attachment; filename="a\u202efdp.exe"': "afdp.exe",  # a direction override would show exe.pdf
    "attachment; filename*=no-such-charset''%FF": "ÿ",
    "attachment": "file-1.pdf",
    "": "file-1.pdf",
}


@pytest.mark.parametrize(("header", "name"), NAMES.items())
async def test_the_files_name_is_the_senders_and_never_a_path(header: str, name: str) -> None:
    headers = {"content-type": "application/pdf"} | ({"content-disposition": header} if header else {})
    found = await channel(TwilioSms).fetch(MEDIA, Scripted({MEDIA: HttpResponse(200, headers, b"%PDF")}))
    assert found.name == name


async def test_a_stand_in_serves_media_and_its_own_redirects(twilio: StandIn, http: Direct) -> None:
    twilio.will(307, b"", location="/store/1")
    twilio.will(200, b"gif", content_type="image/gif")
    found = await channel(TwilioSms, twilio.url).fetch(twilio.url + "/media/1", http)
    assert (found.data, found.content_type) == (b"gif", "image/gif")
    assert [(seen.path, "authorization" in seen.headers) for seen in twilio.seen] == [("/media/1", True), ("/store/1", False)]


async def test_a_stand_ins_neighbour_port_gets_no_credentials(twilio: StandIn) -> None:
    http = Scripted()
    with pytest.raises(Refused):
        await channel(TwilioSms, twilio.url).fetch(f"http://127.0.0.1:{(urlsplit(twilio.url).port or 0) + 1}/media/1", http)
    assert http.asked == []


# --- Settings ---

BASES = {
    "https://api.twilio.com": False,
    "https://api.dublin.ie1.twilio.com": False,
    "http://127.0.0.1:8080": True,
    "http://localhost:8080/": True,
    "http://[::1]:8080": True,
    "https://127.0.0.1": True,
}


@pytest.mark.parametrize(("base_url", "sandbox"), BASES.items())
def test_only_loopback_is_a_sandbox(base_url: str, sandbox: bool) -> None:
    assert channel(TwilioSms, base_url).is_sandbox() is sandbox


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "token in clear": ({"base_url": "http://api.twilio.com"}, "base_url must be https"),
    "no host": ({"base_url": "api.twilio.com"}, "base_url must be https"),
    "looks like loopback": ({"base_url": "http://127.0.0.1.evil.example"}, "base_url must be https"),
    "nobody to send as": ({"address": ""}, "messaging_service_sid"),
    "a typo": ({"acount_sid": "AC1"}, "acount_sid"),
    "the token misspelt": ({"auth_tokn": TOKEN}, "auth_tokn"),
    "the token last in what was given": ({"address": "", "base_url": "https://x.example", "auth_token": TOKEN}, "messaging_service_sid"),
}


@pytest.mark.parametrize(("settings", "words"), WRONG.values(), ids=WRONG)
def test_wrong_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        channel(TwilioSms, **settings)
    assert TOKEN not in str(caught.value)
