"""Law: the templates offered are Twilio's own; what is sent is one of them, whole; the credentials stay on Twilio's hosts.

Official description: ../shared/fixtures/specs_twilio. The real connector speaks to a loopback server.
"""

import json
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from openapi_core import Config, OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest, MockResponse
from pydantic import ValidationError

from connectors.shared.twilio import RETRIES
from connectors.shared.twilio_content import template
from connectors.twilio_sms import TwilioSms
from connectors.twilio_whatsapp import TwilioWhatsApp
from hub.abilities import ABILITIES
from hub.contract import (
    HttpResponse,
    KnowsTemplates,
    OneWay,
    OutboundMessage,
    Place,
    Refused,
    Sent,
    ShowsPresence,
    Template,
    TemplateUse,
    TryLater,
    Unknown,
)
from tests.connectors.test_twilio_outbound import (
    CALLBACK,
    LOGIN,
    PATH,
    SID,
    TOKEN,
    Direct,
    Scripted,
    Seen,
    StandIn,
    created,
    described,
    file,
)
from tests.connectors.test_twilio_outbound import description as messages_description
from tests.shared_data import shared

HX = "HX" + "d" * 32


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


def channel(base_url: str = "https://api.twilio.com", **settings: Any) -> TwilioWhatsApp:
    chosen = {
        "type": "twilio_whatsapp",
        "address": "+15555550100",
        "account_sid": SID,
        "base_url": base_url,
        "auth_token": TOKEN,
    } | settings
    return TwilioWhatsApp(TwilioWhatsApp.Settings(**chosen), Place("main", "https://hub.example/in/wa", b"k"))  # type: ignore[arg-type]


@cache
def description() -> OpenAPI:
    config = Config(spec_validator_cls=None)  # type: ignore[arg-type]
    return OpenAPI.from_dict(json.loads(shared("specs_twilio", "twilio_content_v1.json").read_text()), config=config)


def examples() -> dict[str, Any]:
    read = json.loads(shared("specs_twilio", "twilio_content_v1.json").read_text())
    content = read["paths"]["/v1/ContentAndApprovals"]["get"]["responses"]["200"]["content"]
    found = content["application/json"]["examples"]["readResults"]["value"]
    assert isinstance(found, dict)
    return found


def content(sid: str = HX, **fields: Any) -> dict[str, Any]:
    return {
        "sid": sid,
        "account_sid": SID,
        "friendly_name": "order_shipped",
        "language": "en",
        "variables": {"1": "Ann"},
        "types": {"twilio/text": {"body": "Hi {{1}}"}},
        "approval_requests": {"name": "order_shipped", "category": "UTILITY", "content_type": "twilio/text", "status": "approved"},
    } | fields


def page(*contents: dict[str, Any], following: str | None = None) -> dict[str, Any]:
    return {"contents": list(contents), "meta": {"page": 0, "page_size": 200, "next_page_url": following, "key": "contents"}}


def asked(seen: Seen) -> MockRequest:
    return MockRequest("https://content.twilio.com", seen.method.lower(), seen.path, args=seen.query, headers=seen.headers)


# --- Reading them ---


async def test_the_descriptions_own_templates_are_read(twilio: StandIn, http: Direct) -> None:
    twilio.will(200, examples())
    plain, media, video = await channel(twilio.url).templates(http)
    assert plain == Template(
        id="HX" + "a" * 32,
        name="Some content",
        language="en",
        category="",
        approved=False,
        state="unsubmitted",
        text="Foo Bar Co is located at 39.7392, 104.9903",
        samples={"name": "foo"},
    )
    assert media == Template(
        id="HX5fcd48a417c1cb59da349ad6d5da4607",
        name="Media Test",
        language="en",
        category="utility",  # TRANSACTIONAL, as Meta said before 2023
        approved=True,
        state="approved",
        text="{{1}}, Congratulations {{2}}! For additional assistance, please contact us at hello@twilio.com",
        variables=("1", "2"),
        samples={"1": "name", "2": "typedocument"},
    )
    assert (video.approved, video.state) == (False, "rejected")
    assert video.variables == ("1", "2", "3")  # the third stands in the address of the video


async def test_the_request_and_the_answer_are_as_described(twilio: StandIn, http: Direct) -> None:
    twilio.will(200, examples())
    await channel(twilio.url).templates(http)
    [seen] = twilio.seen
    assert (seen.method, seen.path, seen.query) == ("GET", "/v1/ContentAndApprovals", {"PageSize": "200"})
    assert seen.headers["authorization"] == LOGIN
    description().validate_request(asked(seen))
    description().validate_response(asked(seen), MockResponse(json.dumps(examples()).encode(), 200, content_type="application/json"))


def anonymous(seen: Seen) -> None:
    del seen.headers["authorization"]


def too_much(seen: Seen) -> None:
    seen.query["PageSize"] = "1001"


def misdirected(seen: Seen) -> None:
    seen.path = "/v1/ContentAndApproval"


@pytest.mark.parametrize("spoil", [anonymous, too_much, misdirected])
async def test_the_description_refuses_a_spoilt_request(spoil: Callable[[Seen], None], twilio: StandIn, http: Direct) -> None:
    twilio.will(200, page())
    await channel(twilio.url).templates(http)
    [seen] = twilio.seen
    spoil(seen)
    with pytest.raises(OpenAPIError):
        description().validate_request(asked(seen))


async def test_every_page_is_read(twilio: StandIn, http: Direct) -> None:
    following = f"{twilio.url}/v1/ContentAndApprovals?PageSize=200&Page=1&PageToken=x"
    twilio.will(200, page(content(), following=following))
    twilio.will(200, page(content("HX" + "e" * 32)))
    assert [one.id for one in await channel(twilio.url).templates(http)] == [HX, "HX" + "e" * 32]
    assert twilio.seen[1].query == {"PageSize": "200", "Page": "1", "PageToken": "x"}


@pytest.mark.parametrize(
    "following",
    [
        "https://evil.example/v1/ContentAndApprovals?Page=1",
        "https://content.twilio.com.evil.example/v1/ContentAndApprovals",
        "http://content.twilio.com/v1/ContentAndApprovals",
        "https://content.twilio.com/v1/Content",
        "//evil.example/v1/ContentAndApprovals",
    ],
)
async def test_a_page_that_leads_elsewhere_is_not_followed(following: str) -> None:
    first = "https://content.twilio.com/v1/ContentAndApprovals?PageSize=200"
    http = Scripted({first: HttpResponse(200, {}, json.dumps(page(content(), following=following)).encode())})
    with pytest.raises(Refused, match="Not followed"):
        await channel().templates(http)
    assert [url for url, _ in http.asked] == [first]


async def test_a_list_without_end_is_refused(twilio: StandIn, http: Direct) -> None:
    twilio.will(200, page(following=f"{twilio.url}/v1/ContentAndApprovals?Page=1"))
    with pytest.raises(Refused, match="more than 100 pages"):
        await channel(twilio.url).templates(http)


@pytest.mark.parametrize(
    ("status", "body", "raised"),
    [
        (401, {"code": 20003}, Refused),
        (403, {}, Refused),
        (404, {}, Refused),
        (429, {}, TryLater),
        (500, {}, TryLater),
        (200, b"<html>", TryLater),
        (200, [], TryLater),
        (200, {"contents": None}, TryLater),
    ],
)
async def test_an_answer_that_is_no_list_is_no_empty_list(
    status: int, body: Any, raised: type[Exception], twilio: StandIn, http: Direct
) -> None:
    twilio.will(status, body)
    with pytest.raises(raised):
        await channel(twilio.url).templates(http)


async def test_without_a_token_nothing_is_asked() -> None:
    http = Scripted()
    with pytest.raises(Refused, match="auth_token"):
        await channel(auth_token="").templates(http)
    with pytest.raises(Refused, match="auth_token"):
        await channel(auth_token="").seen("SM" + "1" * 32, http, typing=True)
    assert http.asked == []


SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "quick replies": (
        {
            "types": {
                "twilio/quick-reply": {"body": "Hi {{ 1 }}, ready?", "actions": [{"title": "Yes", "id": "y"}, {"title": "No", "id": "n"}]}
            }
        },
        {"text": "Hi {{1}}, ready?", "buttons": ("Yes", "No"), "variables": ("1",)},
    ),
    "the richest shape": (
        {"types": {"twilio/text": {"body": "plain"}, "twilio/media": {"body": "with a picture", "media": ["https://x.example/{{2}}.png"]}}},
        {"text": "with a picture", "variables": ("2",)},
    ),
    "a card of WhatsApp's": (
        {
            "types": {
                "whatsapp/card": {
                    "header_text": "Order {{2}}",
                    "body": "Hi {{1}}",
                    "footer": "Shop & Co",
                    "actions": [{"type": "URL", "title": "Follow it", "url": "https://x.example/{{3}}"}],
                }
            }
        },
        {
            "header": "Order {{2}}",
            "text": "Hi {{1}}",
            "footer": "Shop & Co",
            "buttons": ("Follow it",),
            "variables": ("2", "1", "3"),
        },
    ),
    "a card of Twilio's": (
        {"types": {"twilio/card": {"title": "Hi {{1}}", "subtitle": "Shop & Co", "actions": []}}},
        {"text": "Hi {{1}}\nShop & Co", "variables": ("1",)},
    ),
    "a code": (
        {
            "types": {
                "whatsapp/authentication": {
                    "add_security_recommendation": True,
                    "actions": [{"type": "COPY_CODE", "copy_code_text": "Copy"}],
                }
            },
            "approval_requests": {"category": "AUTHENTICATION", "status": "approved"},
        },
        {"text": "(a code WhatsApp puts in)", "buttons": ("Copy",), "category": "authentication", "variables": ()},
    ),
    "no approval asked for": ({"approval_requests": None}, {"approved": False, "state": "unsubmitted", "category": ""}),
    "waiting": (
        {"approval_requests": {"status": "pending", "category": "MARKETING"}},
        {"approved": False, "state": "pending", "category": "marketing"},
    ),
    "paused by Meta": ({"approval_requests": {"status": "paused", "category": "UTILITY"}}, {"approved": False, "state": "paused"}),
    "a shape we do not know": ({"types": {"twilio/new": {"body": "Hi {{1}}"}}}, {"text": "Hi {{1}}"}),
    "without a name": ({"friendly_name": None}, {"name": "order_shipped"}),
}


@pytest.mark.parametrize(("fields", "expected"), SHAPES.values(), ids=SHAPES)
def test_a_content_becomes_a_template(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    found = template(content(**fields))
    assert found is not None
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"sid": HX},
        {"sid": 1, "types": {}},
        content(sid="HX1"),
        content(types={}),
        content(types={"twilio/text": {}}),
        content(types=[]),
    ],
)
def test_what_has_no_words_or_no_id_is_no_template(odd: dict[str, Any]) -> None:
    assert template(odd) is None


# --- Sending one ---


def message(**fields: Any) -> OutboundMessage:
    use = TemplateUse(HX, "en", {"1": "Änn \U0001f642", "2": "A-7"})
    return OutboundMessage(
        **({"delivery_id": 7, "to": "+15555550101", "text": "Hi Ann", "callback_url": CALLBACK, "template": use} | fields)
    )


async def test_a_template_goes_by_its_id_and_not_by_its_words(twilio: StandIn, http: Direct) -> None:
    twilio.will(201, created(), content_type="application/json")
    assert await channel(twilio.url).send(message(), http) == Sent("SM" + "c" * 32)
    [seen] = twilio.seen
    form = dict(seen.form)
    assert json.loads(form.pop("ContentVariables")) == {"1": "Änn \U0001f642", "2": "A-7"}
    assert form == {
        "To": "whatsapp:+15555550101",
        "From": "whatsapp:+15555550100",
        "ContentSid": HX,
        "StatusCallback": CALLBACK + RETRIES,
    }
    messages_description().validate_request(described(seen))


async def test_a_template_without_variables_has_no_field_for_them(twilio: StandIn, http: Direct) -> None:
    twilio.will(201, created(), content_type="application/json")
    await channel(twilio.url).send(message(template=TemplateUse(HX)), http)
    assert "ContentVariables" not in dict(twilio.seen[0].form)


@pytest.mark.parametrize("field", [("ContentSid", "HX1"), ("ContentSid", "MG" + "d" * 32)])
async def test_the_description_refuses_a_foreign_id(field: tuple[str, str], twilio: StandIn, http: Direct) -> None:
    twilio.will(201, created(), content_type="application/json")
    await channel(twilio.url).send(message(), http)
    [seen] = twilio.seen
    seen.body = urlencode([field if pair[0] == field[0] else pair for pair in seen.form]).encode()
    with pytest.raises(OpenAPIError):
        messages_description().validate_request(described(seen))


REFUSED = {
    "an id of Meta's": ({"template": TemplateUse("order_shipped")}, "not one of Twilio's templates"),
    "a path for an id": ({"template": TemplateUse("HX/../../x")}, "not one of Twilio's templates"),
    "files beside it": ({"attachments": (file(),)}, "takes no other"),
    "a variable left empty": ({"template": TemplateUse(HX, "", {"1": " "})}, "variable 1"),
    "a line break in a variable": ({"template": TemplateUse(HX, "", {"1": "a\nb"})}, "variable 1"),
    "four spaces in a variable": ({"template": TemplateUse(HX, "", {"1": "a    b"})}, "variable 1"),
}


@pytest.mark.parametrize(("fields", "words"), REFUSED.values(), ids=REFUSED)
async def test_a_template_twilio_would_refuse_never_leaves(fields: dict[str, Any], words: str) -> None:
    http = Scripted()
    with pytest.raises(Refused, match=words):
        await channel().send(message(**fields), http)
    assert http.asked == []


async def test_sms_takes_no_template() -> None:
    settings = TwilioSms.Settings(type="twilio_sms", address="+15555550100", account_sid=SID, auth_token=TOKEN)  # type: ignore[call-arg]
    sms = TwilioSms(settings, Place("main", "https://hub.example/in/sms", b"k"))  # type: ignore[arg-type]
    with pytest.raises(Refused, match="needs no template"):
        await sms.send(message(), Scripted())


async def test_outside_the_window_the_agent_is_told_what_to_send(twilio: StandIn, http: Direct) -> None:
    twilio.will(400, {"code": 63016, "message": "Failed to send freeform message", "status": 400})
    with pytest.raises(Refused, match=r"24 hours .* approved template\. \(Twilio error 63016\)"):
        await channel(twilio.url).send(message(template=None), http)


async def test_a_lost_answer_to_a_template_is_unknown(twilio: StandIn, http: Direct) -> None:
    twilio.will(500)
    with pytest.raises(Unknown):
        await channel(twilio.url).send(message(), http)


# --- Showing that we read and write ---


async def test_writing_is_shown_beside_the_message_it_answers(twilio: StandIn, http: Direct) -> None:
    twilio.will(200, {"success": True})
    sid = "SM" + "1" * 32
    await channel(twilio.url).seen(sid, http, typing=True)
    [seen] = twilio.seen
    assert (seen.method, seen.path, dict(seen.form)) == ("POST", "/v2/Indicators/Typing.json", {"messageId": sid, "channel": "whatsapp"})
    assert seen.headers["authorization"] == LOGIN


async def test_nobody_is_shown_to_write_where_nobody_does() -> None:
    http = Scripted()
    await channel().seen("SM" + "1" * 32, http)
    with pytest.raises(Refused, match="not the id"):
        await channel().seen("wamid.1", http, typing=True)
    assert http.asked == []


@pytest.mark.parametrize(("status", "raised"), [(400, Refused), (401, Refused), (404, Refused), (429, TryLater), (503, TryLater)])
async def test_an_indicator_that_fails_says_how(status: int, raised: type[Exception], twilio: StandIn, http: Direct) -> None:
    twilio.will(status, {})
    with pytest.raises(raised):
        await channel(twilio.url).seen("SM" + "1" * 32, http, typing=True)


# --- Where the credentials go ---

HOSTS = {
    "Twilio": ({}, "https://content.twilio.com", "https://messaging.twilio.com"),
    "a stand-in for all": ({"base_url": "http://127.0.0.1:9"}, "http://127.0.0.1:9", "http://127.0.0.1:9"),
    "a stand-in for templates": ({"content_base_url": "http://localhost:9/"}, "http://localhost:9", "https://messaging.twilio.com"),
    "a region of Twilio's": (
        {"base_url": "https://api.dublin.ie1.twilio.com", "messaging_base_url": "https://messaging.dublin.ie1.twilio.com"},
        "https://content.twilio.com",
        "https://messaging.dublin.ie1.twilio.com",
    ),
}


@pytest.mark.parametrize(("settings", "templates", "indicators"), HOSTS.values(), ids=HOSTS)
def test_a_stand_in_never_shares_its_credentials_with_twilio(settings: dict[str, str], templates: str, indicators: str) -> None:
    chosen = channel(**settings).settings
    assert (chosen.content_url, chosen.messaging_url) == (templates, indicators)


@pytest.mark.parametrize("name", ["base_url", "content_base_url", "messaging_base_url"])
def test_no_base_url_sends_the_token_in_the_clear(name: str) -> None:
    with pytest.raises(ValidationError, match="must be https"):
        channel(**{name: "http://content.twilio.com"})


def test_it_can_do_what_it_says() -> None:
    whatsapp, sms = channel(), TwilioSms(TwilioSms.Settings(type="t", address="+15555550100", account_sid=SID), Place("m", "u", b"k"))  # type: ignore[call-arg,arg-type]
    for one in (whatsapp, sms):
        assert set(one.can) == set(ABILITIES)
        assert (one.can["templates"] == "") == isinstance(one, KnowsTemplates)
        assert (one.can["presence"] == "") == isinstance(one, ShowsPresence)
    assert isinstance(sms, OneWay)
    assert PATH.endswith("/Messages.json")


@pytest.mark.parametrize(
    ("settings", "one_way"),
    [
        ({"address": "+15555550100"}, False),
        ({"address": "12345"}, False),
        ({"address": "ACME"}, True),
        ({"address": "ACME Shop 24"[:11]}, True),
        ({"address": "", "messaging_service_sid": "MG1"}, False),
        ({"address": "ACME", "messaging_service_sid": "MG1"}, False),
    ],
)
def test_a_sender_nobody_can_answer_says_so(settings: dict[str, str], one_way: bool) -> None:
    chosen = TwilioSms.Settings(**({"type": "t", "account_sid": SID} | settings))  # type: ignore[arg-type]
    said = TwilioSms(chosen, Place("m", "u", b"k")).one_way()  # type: ignore[arg-type]
    assert bool(said) is one_way
    if one_way:
        assert said.startswith("Customers cannot answer this sender: ACME")


@pytest.mark.parametrize("address", ["ACME Shop 247", "+1555", "ACME!", "123456789", "whatsapp:+15555550100", "Ärzte"])
def test_an_address_that_is_no_sms_sender_is_named(address: str) -> None:
    with pytest.raises(ValidationError, match="is no SMS sender"):
        TwilioSms.Settings(type="t", account_sid=SID, address=address)  # type: ignore[call-arg]
