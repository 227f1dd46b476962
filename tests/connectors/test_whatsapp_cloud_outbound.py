"""Law: what Meta is asked is what its own API description allows; in doubt we say so; the token never leaves Meta's hosts.

The real connector speaks to a loopback server. Official description: ../shared/fixtures/specs_meta_whatsapp (the patched file).
"""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from openapi_core import Config, OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest
from pydantic import ValidationError

from connectors.whatsapp_cloud import WhatsAppCloud
from connectors.whatsapp_cloud.api import judge
from connectors.whatsapp_cloud.incoming import read
from connectors.whatsapp_cloud.outgoing import payload
from connectors.whatsapp_cloud.templates import template
from hub.contract import (
    DeliveryUpdate,
    HttpResponse,
    NoAnswer,
    NotSent,
    OutboundAttachment,
    OutboundMessage,
    Place,
    Refused,
    Sent,
    TemplateUse,
    TryLater,
    Unknown,
)
from tests.shared_data import shared

TOKEN = "EAAtoken"
VERSION = "v23.0"  # the description's
PATH = f"/{VERSION}/1122334455667/messages"
TAKEN = {"messaging_product": "whatsapp", "contacts": [], "messages": [{"id": "wamid.X", "message_status": "accepted"}]}


@dataclass
class Seen:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


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
        async with self.session.request(method, url, headers=headers, data=body, allow_redirects=False) as response:
            data = await response.read()
            return HttpResponse(response.status, {name.lower(): value for name, value in response.headers.items()}, data)


@dataclass
class Scripted:
    """An Http that connects to nothing: answers by URL, and keeps what it was asked with which headers."""

    answers: dict[str, HttpResponse] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    fails: Exception | None = None

    async def request(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, **_: Any) -> HttpResponse:
        self.asked.append((url, dict(headers or {})))
        if self.fails:
            raise self.fails
        return self.answers[url]


@pytest.fixture
async def meta() -> AsyncIterator[StandIn]:
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


def channel(base_url: str = "https://graph.facebook.com", **more: Any) -> WhatsAppCloud:
    chosen = {"type": "whatsapp_cloud", "phone_number_id": "1122334455667", "waba_id": "77", "access_token": TOKEN, "api_version": VERSION}
    made = WhatsAppCloud.Settings(**(chosen | {"base_url": base_url} | more))
    return WhatsAppCloud(made, Place("wa", "https://hub.example/in/wa", b"k"))  # type: ignore[arg-type]


def file(name: str = "a.jpg", content_type: str = "image/jpeg", size: int = 1_000, url: str = "") -> OutboundAttachment:
    return OutboundAttachment(name, content_type, size, bytes, url or f"https://hub.example/files/{name}")


def message(**fields: Any) -> OutboundMessage:
    return OutboundMessage(**({"delivery_id": 7, "to": "+15555550101", "text": "Hello"} | fields))


@cache
def spec() -> OpenAPI:
    told = json.loads(shared("specs_meta_whatsapp", "business-messaging.patched.json").read_text())
    return OpenAPI.from_dict(told, config=Config(spec_validator_cls=None))


def validate(seen: Seen, body: Any = None) -> None:
    data = seen.body if body is None else json.dumps(body).encode()
    kind = seen.headers.get("content-type", "application/json")
    spec().validate_request(
        MockRequest(
            "https://graph.facebook.com",
            seen.method.lower(),
            seen.path,
            args=seen.query,
            headers=seen.headers,
            data=data if seen.method == "POST" else None,
            content_type=kind,
        )
    )


# --- sending ---

IMAGE, CLIP, SOUND, PAPER = file(), file("c.mp4", "video/mp4"), file("s.ogg", "audio/ogg; codecs=opus"), file("p.pdf", "application/pdf")
ORDER = TemplateUse("order_update", "en_US", {"2": "today", "1": "Ann"})
NAMED = TemplateUse("named", "de", {"header_shop": "Acme", "name": "Ann", "button_1_url": "x1"}, "From {{header_shop}}")

KINDS: dict[str, tuple[OutboundMessage, dict[str, Any]]] = {
    "text": (message(), {"type": "text", "text": {"body": "Hello", "preview_url": False}}),
    "quote": (message(quoted_id="wamid.Q"), {"context": {"message_id": "wamid.Q"}}),
    "image": (message(text="", attachments=(IMAGE,)), {"type": "image", "image": {"link": IMAGE.public_url}}),
    "image and text": (message(attachments=(IMAGE,)), {"type": "image", "image": {"link": IMAGE.public_url, "caption": "Hello"}}),
    "video": (message(attachments=(CLIP,)), {"type": "video", "video": {"link": CLIP.public_url, "caption": "Hello"}}),
    "audio": (message(text="", attachments=(SOUND,)), {"type": "audio", "audio": {"link": SOUND.public_url}}),
    "document": (
        message(attachments=(PAPER,)),
        {"type": "document", "document": {"link": PAPER.public_url, "caption": "Hello", "filename": "p.pdf"}},
    ),
    "any other file": (message(text="", attachments=(file("a.gif", "image/gif"),)), {"type": "document"}),
    "template": (
        message(template=ORDER),
        {
            "type": "template",
            "template": {
                "name": "order_update",
                "language": {"code": "en_US", "policy": "deterministic"},
                "components": [{"type": "body", "parameters": [{"type": "text", "text": "Ann"}, {"type": "text", "text": "today"}]}],
            },
        },
    ),
    "template without variables": (message(template=TemplateUse("hello", "en")), {"type": "template"}),
    "template with names": (
        message(template=NAMED),
        {
            "template": {
                "name": "named",
                "language": {"code": "de", "policy": "deterministic"},
                "components": [
                    {"type": "header", "parameters": [{"type": "text", "parameter_name": "shop", "text": "Acme"}]},
                    {"type": "body", "parameters": [{"type": "text", "parameter_name": "name", "text": "Ann"}]},
                    # The description's pattern for an index takes 1 to 6, though its own examples use 0.
                    {"type": "button", "sub_type": "url", "index": "1", "parameters": [{"type": "text", "text": "x1"}]},
                ],
            }
        },
    ),
    "template with a picture": (message(template=TemplateUse("pic", "en", {}, "<image>"), attachments=(IMAGE,)), {"type": "template"}),
    "template with a document": (message(template=TemplateUse("doc", "en", {}, "<document>"), attachments=(PAPER,)), {"type": "template"}),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_sent_is_as_metas_description_wants_it(kind: str, meta: StandIn, http: Direct) -> None:
    sent, wanted = KINDS[kind]
    meta.will(200, TAKEN)
    assert await channel(meta.url).send(sent, http) == Sent("wamid.X")
    [seen] = meta.seen
    assert (seen.method, seen.path, seen.headers["authorization"]) == ("POST", PATH, f"Bearer {TOKEN}")
    assert wanted.items() <= seen.json.items()
    assert seen.json["to"] == "+15555550101"
    validate(seen)
    # The negative twins: what the description would not take is seen.
    for dropped in ("to", "type", "messaging_product", seen.json["type"]):
        with pytest.raises(OpenAPIError):
            validate(seen, {name: value for name, value in seen.json.items() if name != dropped})
    bare = Seen(
        seen.method, seen.path, seen.query, {name: value for name, value in seen.headers.items() if name != "authorization"}, seen.body
    )
    with pytest.raises(OpenAPIError):
        validate(bare)


async def test_what_is_sent_comes_back_in_its_status(meta: StandIn, http: Direct) -> None:
    meta.will(200, TAKEN)
    await channel(meta.url).send(message(), http)
    state = {
        "id": "wamid.X",
        "status": "read",
        "recipient_id": "5",
        "biz_opaque_callback_data": meta.seen[0].json["biz_opaque_callback_data"],
    }
    value = {"metadata": {"phone_number_id": "1"}, "statuses": [state]}
    told = {"object": "whatsapp_business_account", "entry": [{"changes": [{"field": "messages", "value": value}]}]}
    [said] = read(json.dumps(told).encode(), "1")
    assert isinstance(said, DeliveryUpdate)
    assert (said.delivery_id, said.recipient, said.provider_message_id) == (7, "+15555550101", "wamid.X")


@pytest.mark.parametrize("to", ["US.13491208655302741918", "US.ENT.11815799212886844830"])
def test_a_user_id_is_a_recipient_and_never_stands_where_a_number_would(to: str) -> None:
    body = payload(message(to=to))
    assert body["recipient"] == to
    assert "to" not in body


REFUSED: dict[str, tuple[OutboundMessage, str]] = {
    "nothing": (message(text="  "), "empty"),
    "too long": (message(text="x" * 4_097), "4096"),
    "two files": (message(attachments=(IMAGE, IMAGE)), "one by one"),
    "a long caption": (message(text="x" * 1_025, attachments=(IMAGE,)), "1024"),
    "text beside sound": (message(attachments=(SOUND,)), "sound"),
    "a heavy picture": (message(attachments=(file(size=5_000_001),)), "5 MB"),
    "a heavy video": (message(attachments=(file("v.mp4", "video/mp4", 16_000_001),)), "16 MB"),
    "a heavy document": (message(attachments=(file("p.pdf", "application/pdf", 100_000_001),)), "100 MB"),
    "a file nobody can reach": (message(attachments=(file(url="http://localhost:8080/f"),)), "public URL"),
    "no address": (message(to="ann@example.org"), "address"),
    "not Meta's template": (message(template=TemplateUse("HX" + "a" * 32, "en")), "Fetch the templates"),
    "a template without a language": (message(template=TemplateUse("hello")), "language"),
    "a variable of two lines": (message(template=TemplateUse("t", "en", {"1": "a\nb"})), "one line"),
    "an empty variable": (message(template=TemplateUse("t", "en", {"1": " "})), "empty"),
    "no picture": (message(template=TemplateUse("t", "en", {}, "<image>")), "Attach"),
    "a document for a picture": (message(template=TemplateUse("t", "en", {}, "<image>"), attachments=(PAPER,)), "Attach"),
    "a file too many": (message(template=TemplateUse("t", "en"), attachments=(IMAGE,)), "carries no file"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_whatsapp_would_refuse_never_leaves(case: str, http: Direct) -> None:
    sent, word = REFUSED[case]
    with pytest.raises(Refused, match=word):
        await channel().send(sent, quiet := Scripted())
    assert not quiet.asked


@pytest.mark.parametrize(
    ("settings", "named"), [({"access_token": ""}, "access_token"), ({"phone_number_id": ""}, "phone_number_id")], ids=["token", "number"]
)
async def test_a_missing_setting_is_named(settings: dict[str, str], named: str) -> None:
    with pytest.raises(Refused, match=named):
        await channel(**settings).send(message(), Scripted())


# --- what answers mean ---


def failed(status: int, code: int | None = None, **more: Any) -> tuple[int, Any]:
    return status, {"error": {"message": "(#1) m", "type": "OAuthException", "code": code, **more}} if code is not None else b"<html>"


ANSWERS: list[tuple[str, tuple[int, Any], type[Exception], str]] = [
    ("window", failed(400, 131047), Refused, "24 hours"),
    ("not on WhatsApp", failed(400, 131026), Refused, "131026"),
    ("experiment", failed(400, 130472), Refused, "experiment"),
    ("spared", failed(400, 131049), Refused, "131049"),
    ("payment", failed(400, 131042), Refused, "payment"),
    ("spam", failed(400, 131048), Refused, "WhatsApp Manager"),
    ("template gone", failed(404, 132001), Refused, "Fetch the templates"),
    ("template paused", failed(400, 132015), Refused, "paused"),
    ("not registered", failed(400, 133010), Refused, "not registered"),
    ("token run out", failed(401, 190), Refused, "access_token"),
    ("no code, not authorised", failed(401), Refused, "access_token"),
    ("permission", failed(403, 10), Refused, "permission"),
    ("permission of the two hundreds", failed(403, 299), Refused, "permission"),
    ("permission, as a fault of the server", failed(500, 3), Refused, "permission"),
    ("a parameter", failed(400, 100, error_data={"details": "bad to"}), Refused, "bad to"),
    ("an error nobody knows", failed(400, 987654, error_data={"details": "odd"}), Refused, "odd"),
    ("a bare refusal", failed(404), Refused, "404"),
    ("a redirect", failed(302), Refused, "302"),
    ("too fast", failed(429, 130429), TryLater, "Too many"),
    ("too fast for one customer", failed(400, 131056), TryLater, "this customer"),
    ("the account is full", failed(400, 80007), TryLater, "80007"),
    ("the app is full", failed(400, 4), TryLater, "4"),
    ("too fast, without a code", failed(429), TryLater, "429"),
    ("down", failed(500, 131016), TryLater, "131016"),
    ("something went wrong", failed(500, 131000), TryLater, "131000"),
    ("in a moment", failed(400, 987654, is_transient=True), TryLater, "987654"),
    ("a bare fault", failed(500), Unknown, "may have gone"),
    ("a gateway's", failed(502), Unknown, "may have gone"),
    ("an unknown fault", failed(500, 1), Unknown, "may have gone"),
    ("taken without an id", (200, {"messages": []}), Unknown, "may have gone"),
    ("taken, unreadable", (200, b"ok"), Unknown, "may have gone"),
]


@pytest.mark.parametrize(("why", "answer", "error", "words"), ANSWERS, ids=[why for why, *_ in ANSWERS])
async def test_each_answer_ends_a_delivery_as_meta_documents_it(
    why: str, answer: tuple[int, Any], error: type[Exception], words: str, meta: StandIn, http: Direct
) -> None:
    meta.will(*answer)
    with pytest.raises(error, match=words) as told:
        await channel(meta.url).send(message(), http)
    assert TOKEN not in str(told.value)
    assert len(meta.seen) == 1, "never twice by itself"


def test_a_customers_limit_holds_up_nobody_else() -> None:
    """A wait that is named holds for the whole channel."""
    waits = {}
    for code in (131056, 130429):
        with pytest.raises(TryLater) as told:
            judge(HttpResponse(400, {}, json.dumps(failed(400, code)[1]).encode()))
        waits[code] = told.value.retry_after
    assert waits[131056] is None
    assert (waits[130429] or 0) > 0
    with pytest.raises(TryLater) as told:
        judge(HttpResponse(429, {"retry-after": "30"}, b""))
    assert told.value.retry_after == 30


@pytest.mark.parametrize(("fails", "error"), [(NotSent("x"), TryLater), (NoAnswer("x"), Unknown)], ids=["not sent", "no answer"])
async def test_a_lost_answer_is_unknown_and_a_lost_call_is_tried_again(fails: Exception, error: type[Exception]) -> None:
    with pytest.raises(error):
        await channel().send(message(), Scripted(fails=fails))


# --- presence ---


@pytest.mark.parametrize("typing", [False, True])
async def test_a_customer_sees_that_we_read_and_write(typing: bool, meta: StandIn, http: Direct) -> None:
    meta.will(200, {"success": True})
    await channel(meta.url).seen("wamid.A", http, typing=typing)
    [seen] = meta.seen
    said = {"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.A"}
    assert seen.json == said | ({"typing_indicator": {"type": "text"}} if typing else {})
    validate(seen)
    with pytest.raises(OpenAPIError):
        validate(seen, {"messaging_product": "whatsapp", "status": "read"})


async def test_presence_that_is_lost_is_no_doubtful_message(meta: StandIn, http: Direct) -> None:
    meta.will(502)
    with pytest.raises(TryLater):
        await channel(meta.url).seen("wamid.A", http)
    with pytest.raises(Refused):
        await channel(meta.url).seen("", http)


# --- files ---

ASK = f"https://graph.facebook.com/{VERSION}/65?phone_number_id=1122334455667"
STORE = "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=65&hash=x"


def found(url: str = STORE) -> HttpResponse:
    return HttpResponse(200, {}, json.dumps({"url": url, "mime_type": "image/jpeg; x=1", "id": "65"}).encode())


async def test_a_file_is_asked_for_by_its_id_and_fetched_from_metas_store(meta: StandIn, http: Direct) -> None:
    scripted = Scripted({ASK: found(), STORE: HttpResponse(200, {"content-type": "image/jpeg"}, b"jpeg")})
    got = await channel().fetch("media:65", scripted)
    assert (got.name, got.content_type, got.data, got.url) == ("image.jpg", "image/jpeg", b"jpeg", "media:65")
    assert [url for url, _ in scripted.asked] == [ASK, STORE]
    assert all(headers["Authorization"] == f"Bearer {TOKEN}" for _, headers in scripted.asked)
    meta.will(200, {"url": f"{meta.url}/store", "mime_type": "audio/ogg"})
    meta.will(200, b"ogg")
    assert (await channel(meta.url).fetch("media:65", http)).data == b"ogg"
    validate(meta.seen[0])


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/x",
        "http://lookaside.fbsbx.com/x",
        "https://lookaside.fbsbx.com.evil.example/x",
        "https://lookaside.fbsbx.com@evil.example/x",
        "https://lookaside.fbsbx.com:8443/x",
        "https://evil.example\\@lookaside.fbsbx.com/",
        "https://lookaside.fbsbx.com:port/x",
        "http://graph.facebook.com/x",
        "https://[::1",
        "file:///etc/passwd",
        "",
    ],
)
async def test_the_token_goes_to_no_other_host(url: str) -> None:
    scripted = Scripted({ASK: found(url)})
    with pytest.raises(Refused, match="none of its own"):
        await channel().fetch("media:65", scripted)
    assert [asked for asked, _ in scripted.asked] == [ASK]


@pytest.mark.parametrize("reference", ["65", "media:", "media:../me", "media:65?fields=x", "https://lookaside.fbsbx.com/x", ""])
async def test_only_ids_are_fetched(reference: str) -> None:
    quiet = Scripted()
    with pytest.raises(Refused):
        await channel().fetch(reference, quiet)
    assert not quiet.asked


@pytest.mark.parametrize(
    ("asked", "store", "error"),
    [
        (HttpResponse(400, {}, json.dumps(failed(400, 100)[1]).encode()), None, Refused),
        (HttpResponse(401, {}, b""), None, Refused),
        (HttpResponse(503, {}, b""), None, TryLater),
        (found(), HttpResponse(404, {}, b""), TryLater),  # its address has run out
        (found(), HttpResponse(500, {}, b""), TryLater),
        (HttpResponse(200, {}, json.dumps({"url": STORE, "file_size": "100000001"}).encode()), None, Refused),
        (found(), HttpResponse(302, {"location": "https://evil.example"}, b""), Refused),
    ],
    ids=["gone", "token", "down", "address run out", "store down", "too large", "redirect"],
)
async def test_a_file_that_cannot_be_had_says_whether_to_try_again(
    asked: HttpResponse, store: HttpResponse | None, error: type[Exception]
) -> None:
    scripted = Scripted({ASK: asked} | ({STORE: store} if store else {}))
    with pytest.raises(error):
        await channel().fetch("media:65", scripted)
    scripted.fails = NoAnswer("x")
    with pytest.raises(TryLater):
        await channel().fetch("media:65", scripted)


# --- templates ---


def told(**more: Any) -> dict[str, Any]:
    body = {"type": "BODY", "text": "Hi {{1}}, {{2}}!", "example": {"body_text": [["Ann", "today"]]}}
    return {
        "name": "order_update",
        "language": "en_US",
        "status": "APPROVED",
        "category": "UTILITY",
        "id": "9",
        "components": [body],
    } | more


def part(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, **more}


async def test_all_pages_are_read_and_no_address_is_followed(meta: StandIn, http: Direct) -> None:
    evil = {"next": "https://evil.example/?access_token=x", "cursors": {"after": "c1"}}
    meta.will(200, {"data": [told(), {"junk": 1}, "x"], "paging": evil})
    meta.will(200, {"data": [told(name="second", status="REJECTED")], "paging": {"cursors": {"after": "c2"}}})
    read_ = await channel(meta.url).templates(http)
    assert [(one.id, one.language, one.approved, one.state) for one in read_] == [
        ("order_update", "en_US", True, "approved"),
        ("second", "en_US", False, "rejected"),
    ]
    assert [seen.query.get("after") for seen in meta.seen] == [None, "c1"]
    assert all(seen.path == f"/{VERSION}/77/message_templates" for seen in meta.seen)
    validate(meta.seen[0])


async def test_templates_need_the_account_and_say_what_is_wrong(meta: StandIn, http: Direct) -> None:
    with pytest.raises(Refused, match="waba_id"):
        await channel(waba_id="").templates(http)
    for answer, error in ((failed(500), TryLater), (failed(400, 100), Refused), ((200, {}), TryLater), ((200, b"x"), TryLater)):
        meta.answers.clear()
        meta.will(*answer)
        with pytest.raises(error):
            await channel(meta.url).templates(http)
    meta.answers.clear()
    meta.will(200, {"data": [], "paging": {"next": "x", "cursors": {"after": "same"}}})
    assert await channel(meta.url).templates(http) == []  # a cursor that stays the same ends it


def test_a_template_is_told_in_our_words() -> None:
    see = {"type": "URL", "text": "See", "url": "https://s/{{1}}", "example": ["https://s/a"]}
    parts = [
        part("HEADER", format="TEXT", text="Order {{1}}", example={"header_text": ["17"]}),
        *told()["components"],
        part("FOOTER", text="Bye"),
        part("BUTTONS", buttons=[{"type": "QUICK_REPLY", "text": "Stop"}, see]),
    ]
    one = template(told(components=parts))
    assert one is not None
    assert (one.header, one.text, one.footer, one.buttons) == ("Order {{header_1}}", "Hi {{1}}, {{2}}!", "Bye", ("Stop", "See"))
    assert one.variables == ("header_1", "1", "2", "button_1_url")
    assert one.samples == {"header_1": "17", "1": "Ann", "2": "today", "button_1_url": "a"}
    assert one.category == "utility"


def test_what_a_template_lists_is_what_sends_it() -> None:
    """Filled with its own samples it becomes a call with a parameter for each variable."""
    named = {"body_text_named_params": [{"param_name": "name", "example": "Ann"}]}
    parts = [
        part("HEADER", format="TEXT", text="For {{name}}", example={"header_text_named_params": [{"param_name": "name", "example": "X"}]}),
        part("BODY", text="Hi {{name}}", example=named),
        part("BUTTONS", buttons=[{"type": "COPY_CODE", "text": "Copy", "example": "SALE"}]),
    ]
    one = template(told(components=parts))
    assert one is not None
    used = TemplateUse(one.id, one.language, {name: one.samples[name] for name in one.variables}, one.header)
    assert payload(message(template=used))["template"]["components"] == [
        {"type": "header", "parameters": [{"type": "text", "parameter_name": "name", "text": "X"}]},
        {"type": "body", "parameters": [{"type": "text", "parameter_name": "name", "text": "Ann"}]},
        {"type": "button", "sub_type": "copy_code", "index": "0", "parameters": [{"type": "coupon_code", "coupon_code": "SALE"}]},
    ]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([part("BODY", text="x"), part("CAROUSEL")], "carousel"),
        ([part("HEADER", format="LOCATION"), part("BODY", text="x")], "location"),
        ([part("BODY", text="x"), part("BUTTONS", buttons=[{"type": "MPM"}])], "products"),
    ],
    ids=["carousel", "location", "products"],
)
def test_a_template_that_cannot_be_filled_in_here_is_not_offered(parts: list[Any], why: str) -> None:
    one = template(told(components=parts))
    assert one is not None
    assert not one.approved
    assert why in one.state


@pytest.mark.parametrize(
    "junk", [{}, {"name": "x"}, told(components="x"), told(components=[1, {"type": 5, "buttons": 1}, {"type": "BUTTONS", "buttons": 3}])]
)
def test_a_template_of_nonsense_breaks_nothing(junk: Any) -> None:
    made = template(junk)
    assert made is None or made.text == ""


# --- settings ---


WRONG = [{"base_url": "http://graph.facebook.com"}, {"base_url": "ftp://x"}, {"phone_number_id": "+1555"}, {"api_version": "23"}]


@pytest.mark.parametrize("wrong", [*WRONG, {"acess_token": TOKEN}], ids=str)
def test_wrong_settings_are_refused_without_printing_the_token(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as told_:
        channel(**wrong)
    assert TOKEN not in str(told_.value)


def test_the_token_is_in_no_repr() -> None:
    assert TOKEN not in repr(channel().settings)
    assert channel("http://127.0.0.1:9").is_sandbox()
    assert not channel().is_sandbox()


def test_media_may_come_from_this_machine_in_the_sandbox() -> None:
    local = message(attachments=(file(url="http://127.0.0.1/f"),))
    assert payload(local, sandbox=True)["image"]["link"] == "http://127.0.0.1/f"
