"""The stand-ins against the vendors' own SDKs, the sandbox's people against the vendors' own verifiers, and its pages."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.message import EmailMessage
from types import SimpleNamespace
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode

import aiohttp
import aiosmtplib
import jinja2
import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from openapi_core import Config, OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest, MockResponse
from slack_sdk.errors import SlackApiError
from slack_sdk.signature import SignatureVerifier
from slack_sdk.web.async_client import AsyncWebClient
from standardwebhooks.webhooks import Webhook as StandardWebhook
from twilio.base.exceptions import TwilioRestException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from connectors.email.raw import RawEmail
from connectors.klaviyo import Klaviyo
from connectors.sandbox import SandboxActor, SandboxDemo, SandboxSecrets, SandboxServer, SandboxState
from connectors.sandbox.actor import Member
from connectors.sandbox.demo import PEOPLE, held_now, steps
from connectors.sandbox.klaviyo_account import KlaviyoAccount
from connectors.sandbox.state import Campaign, CampaignLine, Hook, Said, SlackPost, TwilioMessage
from connectors.sandbox.tools.klaviyo import KlaviyoStandIn
from connectors.sandbox.twilio import parcel_photo
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.smtp import send_mail
from connectors.slack import Slack
from connectors.twilio_sms import TwilioSms
from connectors.twilio_whatsapp import TwilioWhatsApp
from hub.contract import (
    DeliveryUpdate,
    InboundMessage,
    MessageStatus,
    OutboundMessage,
    Place,
    Proof,
    Refused,
    Request,
    TryLater,
    Unknown,
    Verdict,
)
from hub.http import GuardedHttp
from hub.web import sandbox as pages
from hub.web.context import HUB
from hub.web.pages import templates_directory
from tests.shared_data import shared

SECRETS = SandboxSecrets(
    twilio_account_sid="AC" + "0" * 31 + "1",
    twilio_auth_token="sandbox-only-twilio-token",
    mail_username="sandbox",
    mail_password="sandbox-only-mail-password",
    slack_signing_secret="sandbox-only-slack-signing-secret",
    slack_bot_token="xoxb-sandbox-only",
    webhook_secret="whsec_c2FuZGJveC1vbmx5LXdlYmhvb2stc2VjcmV0LTAx",
    site_key="sandbox-only-site-key-0123456789abcdef",
    site_audience="support-hub",
)
PUBLIC = "https://hub.example"
Browser: TypeAlias = TestClient[web.Request, web.Application]
ADA, BEN, CHEN = PEOPLE
BUTTON = {"type": "button", "text": {"type": "plain_text", "text": "Claim"}, "action_id": "claim", "value": "7"}
BLOCKS = [
    {"type": "section", "text": {"type": "mrkdwn", "text": "*Ada*"}},
    {"type": "actions", "block_id": "do", "elements": [BUTTON]},
]


@pytest.fixture
async def server() -> AsyncIterator[SandboxServer]:
    started = SandboxServer(port=0, smtp_port=0, secrets=SECRETS)
    await started.start()
    yield started
    await started.stop()


@dataclass
class Heard:
    """What the hub's public endpoints got."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    def request(self) -> Request:
        return Request("POST", PUBLIC + self.path, {name.lower(): value for name, value in self.headers.items()}, self.body)


@dataclass
class ListeningHub:
    """A server in the hub's place that keeps what it hears, and answers 200 or what a test says."""

    heard: list[Heard] = field(default_factory=list)
    answers: dict[str, web.Response] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.Response:
        self.heard.append(Heard(str(request.rel_url), request.headers.copy(), await request.read()))
        prepared = self.answers.get(request.path)
        return web.Response(text="ok") if prepared is None else web.Response(status=prepared.status, body=prepared.body)


Listening: TypeAlias = tuple[ListeningHub, SandboxActor]


@pytest.fixture
async def hub(server: SandboxServer) -> AsyncIterator[Listening]:
    listening = ListeningHub()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", listening.handle)
    async with TestServer(app) as at:
        actor = SandboxActor(server, hub_url=str(at.make_url("")), public_url=PUBLIC)
        yield listening, actor
        await actor.close()


@pytest.fixture
async def http(server: SandboxServer) -> AsyncIterator[GuardedHttp]:
    guarded = GuardedHttp([f"127.0.0.1:{server.port}"])
    yield guarded
    await guarded.close()


# --- waiting ---


async def test_waiting_ends_with_the_change_that_makes_it_true() -> None:
    state = SandboxState()
    waiting = asyncio.create_task(state.wait_for(lambda: state.marks))
    state.changed()
    await asyncio.sleep(0)
    assert not waiting.done()
    state.marks.add("inbox")
    state.changed()
    assert await waiting == {"inbox"}


async def test_waiting_in_vain_tells_what_there_is() -> None:
    with pytest.raises(TimeoutError, match=r"within 0\.01 s; the sandbox holds 0 messages by Twilio, 0 Slack posts"):
        await SandboxState().wait_for(lambda: False, timeout=0.01)


def test_failing_an_unknown_provider_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="none of twilio"):
        SandboxState().fail_next("whatsapp")


async def test_a_taken_port_names_the_setting_to_mend(server: SandboxServer) -> None:
    taken = [("sandbox.port", {"port": server.port, "smtp_port": 0}), ("sandbox.smtp_port", {"port": 0, "smtp_port": server.smtp_port})]
    for key, ports in taken:
        with pytest.raises(OSError, match=key):
            await SandboxServer(secrets=SECRETS, **ports).start()


def test_secrets_stay_out_of_reprs() -> None:
    assert not [value for value in (SECRETS.twilio_auth_token, SECRETS.site_key, SECRETS.webhook_secret) if value in repr(SECRETS)]


# --- Twilio ---


class Elsewhere(AsyncTwilioHttpClient):
    """Twilio's own client, which has no setting for its host."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self.base_url = base_url

    async def request(self, method: str, uri: str, *args: Any, **kwargs: Any) -> Any:
        return await super().request(method, uri.replace("https://api.twilio.com", self.base_url), *args, **kwargs)


@pytest.fixture
async def twilio(server: SandboxServer) -> AsyncIterator[Client]:
    async with Elsewhere(server.url) as client:
        yield Client(SECRETS.twilio_account_sid, SECRETS.twilio_auth_token, http_client=client)


async def test_the_official_sdk_sends_reads_and_lists(server: SandboxServer, twilio: Client) -> None:
    sent = await twilio.messages.create_async(
        to="whatsapp:" + ADA.phone, from_="whatsapp:+15550100001", body="Täglich", media_url=["https://x.example/a", "https://x.example/b"]
    )
    plain = await twilio.messages.create_async(to=BEN.phone, from_="+15550100002", body="Hi", status_callback=PUBLIC + "/in/sms?delivery=3")
    kept, second = server.state.twilio_messages
    assert (sent.sid, sent.status, sent.direction, sent.num_media, sent.body) == (kept.sid, "queued", "outbound-api", "2", "Täglich")
    assert (kept.channel, kept.number, kept.media_urls) == ("whatsapp", ADA.phone, ("https://x.example/a", "https://x.example/b"))
    assert sent.sid.startswith("MM")
    assert plain.sid.startswith("SM")
    assert second.status_callback.endswith("delivery=3")
    assert abs((sent.date_created - datetime.now(UTC)).total_seconds()) < 60
    assert (await twilio.messages(sent.sid).fetch_async()).body == "Täglich"
    assert [found.sid for found in await twilio.messages.list_async(to=BEN.phone)] == [plain.sid]


TWILIO_REFUSALS = {
    # fields -> Twilio's code
    "no recipient": ({"From": "+15550100002", "Body": "x"}, 21604),
    "no sender": ({"To": ADA.phone, "Body": "x"}, 21603),
    "no such number": ({"To": "12", "From": "+15550100002", "Body": "x"}, 21211),
    "no content": ({"To": ADA.phone, "From": "+15550100002"}, 21602),
    "too long": ({"To": ADA.phone, "From": "+15550100002", "Body": "x" * 1601}, 21617),
    "from one channel to another": ({"To": "whatsapp:" + ADA.phone, "From": "+15550100002", "Body": "x"}, 21910),
    "a callback that is no address": ({"To": ADA.phone, "From": "+15550100002", "Body": "x", "StatusCallback": "/in"}, 21609),
}


@pytest.mark.parametrize(("fields", "code"), TWILIO_REFUSALS.values(), ids=TWILIO_REFUSALS)
async def test_twilio_refuses_in_its_own_words(server: SandboxServer, twilio: Client, fields: dict[str, str], code: int) -> None:
    names = {"To": "to", "From": "from_", "Body": "body", "StatusCallback": "status_callback"}
    with pytest.raises(TwilioRestException) as refused:
        await twilio.messages.create_async(**{"to": ""} | {names[name]: value for name, value in fields.items()})
    assert refused.value.code == code
    assert server.state.twilio_messages == []


async def test_twilio_wants_its_credentials(server: SandboxServer) -> None:
    async with Elsewhere(server.url) as client:
        stranger = Client(SECRETS.twilio_account_sid, "wrong", http_client=client)
        with pytest.raises(TwilioRestException) as refused:
            await stranger.messages.create_async(to=ADA.phone, from_="+15550100002", body="x")
    assert (refused.value.status, refused.value.code) == (401, 20003)


async def test_twilios_answer_fits_its_official_description(server: SandboxServer) -> None:
    config = Config(spec_validator_cls=None)
    spec = OpenAPI.from_dict(json.loads(shared("specs_twilio", "twilio_api_v2010.json").read_text()), config=config)
    path = f"/2010-04-01/Accounts/{SECRETS.twilio_account_sid}/Messages.json"
    form = urlencode({"To": ADA.phone, "From": "+15550100002", "Body": "Hi"}).encode()
    auth = aiohttp.encode_basic_auth(SECRETS.twilio_account_sid, SECRETS.twilio_auth_token)
    async with aiohttp.ClientSession() as session:
        headers = {"Authorization": auth, "Content-Type": "application/x-www-form-urlencoded"}
        async with session.post(server.url + path, data=form, headers=headers) as answer:
            body = await answer.read()
    request = MockRequest(
        "https://api.twilio.com", "post", path, headers=headers, data=form, content_type="application/x-www-form-urlencoded"
    )
    spec.validate_response(request, MockResponse(body, status_code=201, content_type="application/json"))
    broken = json.dumps(json.loads(body) | {"status": "on its way"}).encode()
    with pytest.raises(OpenAPIError):  # the negative twin
        spec.validate_response(request, MockResponse(broken, status_code=201, content_type="application/json"))


def sms_channel(server: SandboxServer) -> TwilioSms:
    settings = TwilioSms.Settings.model_validate(
        {
            "type": "twilio_sms",
            "address": "+15550100002",
            "account_sid": SECRETS.twilio_account_sid,
            "auth_token": SECRETS.twilio_auth_token,
            "base_url": server.url,
        }
    )
    return TwilioSms(settings, Place("sms", PUBLIC + "/in/sms", b"k"))


def whatsapp_channel(server: SandboxServer) -> TwilioWhatsApp:
    settings = sms_channel(server).settings.model_copy(update={"type": "twilio_whatsapp", "address": "+15550100001"})
    return TwilioWhatsApp(settings, Place("whatsapp", PUBLIC + "/in/whatsapp", b"k"))


TWILIO_FAILURES = {
    # how it fails -> what the connector makes of it, and whether the message went
    "server error": (500, Unknown, 0),
    "busy": (429, TryLater, 0),
    "down": (503, TryLater, 0),
    "answer lost": ("drop", Unknown, 1),
}


@pytest.mark.parametrize(("status", "raised", "went"), TWILIO_FAILURES.values(), ids=TWILIO_FAILURES)
async def test_twilio_fails_as_told_and_then_works_again(
    server: SandboxServer, http: GuardedHttp, status: Any, raised: type[Exception], went: int
) -> None:
    channel = sms_channel(server)
    message = OutboundMessage(delivery_id=1, to=ADA.phone, text="Hi")
    server.state.fail_next("twilio", status=status, retry_after=7)
    with pytest.raises(raised) as caught:
        await channel.send(message, http)
    assert len(server.state.twilio_messages) == went
    if isinstance(caught.value, TryLater):
        assert caught.value.retry_after == 7
    assert (await channel.send(message, http)).provider_message_id == server.state.twilio_messages[-1].sid


# --- what people write, as the connectors and the vendors' verifiers see it ---


@pytest.mark.parametrize("name", ["sms", "whatsapp"])
async def test_texts_are_signed_as_twilio_signs(server: SandboxServer, hub: Listening, name: str) -> None:
    listening, actor = hub
    text = "Grüße + more & 100 % = ☂"
    answer = await (actor.sms(ADA.phone, text) if name == "sms" else actor.whatsapp(ADA.phone, text, ADA.name))
    assert answer == (200, "ok")
    request = listening.heard[0].request()
    fields = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
    validator = RequestValidator(SECRETS.twilio_auth_token)
    assert validator.validate(f"{PUBLIC}/in/{name}", fields, request.headers["x-twilio-signature"])
    assert not validator.validate(f"{PUBLIC}/in/{name}", fields | {"Body": "other"}, request.headers["x-twilio-signature"])
    channel = sms_channel(server) if name == "sms" else whatsapp_channel(server)
    assert channel.verify(request, 0.0) is Verdict.GOOD
    said = channel.parse(request)[0]
    assert isinstance(said, InboundMessage)
    assert (said.text, said.claims[0].value, said.claims[0].proof) == (text, ADA.phone, Proof.CHANNEL)
    assert said.sender_name == ("" if name == "sms" else ADA.name)
    assert server.state.said[0].status == 200


async def test_a_delivery_can_be_repeated_under_its_sid(hub: Listening, server: SandboxServer) -> None:
    listening, actor = hub
    for _ in range(2):
        await actor.sms(ADA.phone, "Once", sid="SM" + "a" * 32)
    first, again = (sms_channel(server).parse(heard.request())[0] for heard in listening.heard)
    assert isinstance(first, InboundMessage)
    assert first == again


async def test_a_picture_travels_behind_credentials_and_a_redirect(server: SandboxServer, hub: Listening, http: GuardedHttp) -> None:
    listening, actor = hub
    photo = parcel_photo()
    await actor.whatsapp(ADA.phone, "", ADA.name, photo)
    channel = whatsapp_channel(server)
    said = channel.parse(listening.heard[0].request())[0]
    assert isinstance(said, InboundMessage)
    url = said.attachments[0].url
    fetched = await channel.fetch(url, http)
    assert (fetched.content_type, fetched.data, fetched.name) == ("image/png", photo.data, "parcel.png")
    stranger = TwilioWhatsApp(channel.settings.model_copy(update={"account_sid": "AC" + "9" * 32}), channel.place)
    with pytest.raises(Refused, match="401"):
        await stranger.fetch(url, http)
    server.state.fail_next("media", status=503)
    with pytest.raises(TryLater):
        await channel.fetch(url, http)


async def test_deliveries_are_reported_to_the_address_given_in_order(server: SandboxServer, hub: Listening, http: GuardedHttp) -> None:
    listening, actor = hub
    await actor.start()
    state = server.state
    for channel, name in ((whatsapp_channel(server), "whatsapp"), (sms_channel(server), "sms")):
        callback = f"{PUBLIC}/in/{name}?delivery=5"
        await channel.send(OutboundMessage(delivery_id=5, to=ADA.phone, text="Hi", callback_url=callback), http)
    await state.wait_for(lambda: len(state.callbacks) == 5)
    requests = [heard.request() for heard in listening.heard]
    assert all(whatsapp_channel(server).verify(request, 0.0) is Verdict.GOOD for request in requests)
    updates = [whatsapp_channel(server).parse(request)[0] for request in requests]
    assert all(isinstance(update, DeliveryUpdate) and update.delivery_id == 5 for update in updates)
    told = [update.status for update in updates if isinstance(update, DeliveryUpdate)]
    assert told == [MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.READ, MessageStatus.SENT, MessageStatus.DELIVERED]
    assert [message.status for message in state.twilio_messages] == ["read", "delivered"]


async def test_nobody_but_the_hub_is_called(server: SandboxServer, hub: Listening) -> None:
    listening, actor = hub
    elsewhere = TwilioMessage(
        order=1, at=0.0, sid="SM1", to=ADA.phone, from_="+15550100002", body="", media_urls=(), status_callback="https://hub.example.evil/x"
    )
    answer = await actor.report(elsewhere, "sent")
    assert answer.status == 0
    assert "only the hub" in answer.text
    assert listening.heard == []


async def test_a_hub_that_is_away_is_told_as_status_0(server: SandboxServer, unused_tcp_port: int) -> None:
    actor = SandboxActor(server, hub_url=f"http://127.0.0.1:{unused_tcp_port}", public_url=PUBLIC)
    answer = await actor.sms(ADA.phone, "Anyone?")
    await actor.close()
    assert answer.status == 0
    assert server.state.said[0].status == 599


# --- mail ---


def mail_settings(server: SandboxServer) -> dict[str, Any]:
    smtp = {"host": "127.0.0.1", "port": server.smtp_port, "security": "none"}
    return {"type": "mime", "address": "support@shop.example", "smtp": smtp}


def raw_channel(server: SandboxServer) -> RawEmail:
    own = {"username": SECRETS.mail_username, "password": SECRETS.mail_password, "authserv_id": "mx.shop.example"}
    return RawEmail(RawEmail.Settings.model_validate(mail_settings(server) | own), Place("email", PUBLIC + "/in/email", b"k"))


async def test_a_mail_sent_by_smtp_is_kept_as_its_reader_sees_it(server: SandboxServer) -> None:
    mail = EmailMessage()
    mail["From"] = "Shop Support <Support@Shop.example>"
    mail["To"] = "Ada <ada@example.com>"
    mail["Reply-To"] = "support+T0ken@shop.example"
    mail["Subject"] = "Re: Größe"
    mail["Message-ID"] = "<2@shop.example>"
    mail["In-Reply-To"] = "<1@example.com>"
    mail["References"] = "<0@example.com> <1@example.com>"
    mail.set_content("Hällo\n.dot\n")
    mail.add_alternative("<p>Hällo</p>", subtype="html")
    mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="bill.pdf")
    await aiosmtplib.send(mail, hostname="127.0.0.1", port=server.smtp_port, start_tls=False)
    (kept,) = server.state.mails
    assert (kept.from_name, kept.from_address, kept.reply_to) == ("Shop Support", "support@shop.example", "support+T0ken@shop.example")
    assert (kept.subject, kept.text, kept.recipients) == ("Re: Größe", "Hällo\n.dot", ("ada@example.com",))
    assert (kept.message_id, kept.in_reply_to) == ("<2@shop.example>", "<1@example.com>")
    assert kept.references == ("<0@example.com>", "<1@example.com>")
    assert [(file.name, file.content_type, file.data) for file in kept.files] == [("bill.pdf", "application/pdf", b"%PDF")]
    assert "<p>" in kept.html


MAIL_FAILURES = {
    # the SMTP reply, or a lost one -> what the connector makes of it, and whether the mail was taken
    "refused for good": (554, Refused, 0),
    "greylisted": (451, TryLater, 0),
    "answer lost": ("drop", Unknown, 1),
}


@pytest.mark.parametrize(("status", "raised", "went"), MAIL_FAILURES.values(), ids=MAIL_FAILURES)
async def test_the_mail_server_fails_as_told(server: SandboxServer, status: Any, raised: type[Exception], went: int) -> None:
    settings = EmailSettings.model_validate(mail_settings(server))
    message = OutboundMessage(delivery_id=1, to=ADA.email, text="Hi", subject="Re: x", message_id="<1@shop.example>")
    server.state.fail_next("mail", status=status)
    with pytest.raises(raised):
        await send_mail(message, settings)
    assert len(server.state.mails) == went
    await send_mail(message, settings)
    assert server.state.mails[-1].text.startswith("Hi")


async def test_a_mail_carries_our_servers_verdict_and_credentials(server: SandboxServer, hub: Listening) -> None:
    listening, actor = hub
    await actor.mail(ADA.email, "Ada Ökafor", "Größe?", "Hallo\n\nwelche?")
    request = listening.heard[0].request()
    assert request.content_type == "message/rfc822"
    channel = raw_channel(server)
    assert channel.verify(request, 0.0) is Verdict.GOOD
    wrong = {**request.headers, "authorization": "Basic " + base64.b64encode(b"sandbox:no").decode()}
    assert channel.verify(Request("POST", request.url, wrong, request.body), 0.0) is Verdict.BAD
    said = channel.parse(request)[0]
    assert isinstance(said, InboundMessage)
    assert (said.subject, said.text.strip(), said.sender_name) == ("Größe?", "Hallo\n\nwelche?", "Ada Ökafor")
    assert (said.claims[0].value, said.claims[0].proof, said.doubt) == (ADA.email, Proof.DMARC, "")
    await actor.mail(ADA.email, ADA.name, "Forged", "x", dmarc="fail")
    forged = channel.parse(listening.heard[1].request())[0]
    assert isinstance(forged, InboundMessage)
    assert forged.claims[0].proof is Proof.CLAIMED
    assert forged.doubt


async def test_an_answer_goes_where_the_mail_asked_and_names_its_chain(server: SandboxServer, hub: Listening) -> None:
    listening, actor = hub
    settings = EmailSettings.model_validate(mail_settings(server))
    await send_mail(
        OutboundMessage(
            delivery_id=1,
            to=ADA.email,
            text="Blue?",
            subject="Re: Lamp",
            message_id="<2@shop.example>",
            in_reply_to="<1@example.com>",
            references=("<1@example.com>",),
            reply_token="t7.abc",
        ),
        settings,
    )
    await actor.mail(ADA.email, ADA.name, "Re: Lamp", "Yes, blue.", in_reply_to="<2@shop.example>")
    said = raw_channel(server).parse(listening.heard[0].request())[0]
    assert isinstance(said, InboundMessage)
    assert (said.in_reply_to, said.references) == ("<2@shop.example>", ("<1@example.com>", "<2@shop.example>"))
    assert said.reply_token == "t7.abc"


# --- Slack ---


@pytest.fixture
def slack(server: SandboxServer) -> AsyncWebClient:
    return AsyncWebClient(SECRETS.slack_bot_token, base_url=server.url + "/slack/api/")


async def test_the_official_slack_sdk_posts_updates_and_looks_people_up(server: SandboxServer, slack: AsyncWebClient) -> None:
    assert (await slack.auth_test())["user_id"] == "U0HUBBOT"
    posted = await slack.chat_postMessage(channel="C0SUPPORT", text="Ada", blocks=BLOCKS)
    (post,) = server.state.slack_posts
    assert (posted["ts"], post.text, post.blocks) == (post.ts, "Ada", BLOCKS)
    await slack.chat_update(channel="C0SUPPORT", ts=posted["ts"], text="Ada, resolved", blocks=BLOCKS[:1])
    assert (post.text, post.blocks, post.updates) == ("Ada, resolved", BLOCKS[:1], 1)
    assert (await slack.users_info(user="U0AGENT"))["user"]["profile"]["email"] == "agent@shop.example"
    await slack.chat_postEphemeral(channel="C0SUPPORT", user="U0AGENT", text="Only you")
    assert [(notice.user, notice.text) for notice in server.state.slack_notices] == [("U0AGENT", "Only you")]
    await slack.chat_delete(channel="C0SUPPORT", ts=post.ts)
    assert post.deleted


async def test_slack_takes_forms_too(server: SandboxServer) -> None:
    url = server.url + "/slack/api/chat.postMessage"
    form = {"channel": "C0SUPPORT", "text": "Hi", "blocks": json.dumps(BLOCKS)}
    headers = {"Authorization": "Bearer " + SECRETS.slack_bot_token}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=form, headers=headers) as answer,
    ):
        assert (await answer.json())["ok"]
    assert server.state.slack_posts[0].blocks == BLOCKS


SLACK_REFUSALS = {
    "no text": ("chat.postMessage", {"channel": "C0SUPPORT"}, "no_text"),
    "no channel": ("chat.postMessage", {"text": "x"}, "channel_not_found"),
    "blocks that are none": ("chat.postMessage", {"channel": "C", "blocks": "{"}, "invalid_blocks_format"),
    "a post that is gone": ("chat.update", {"channel": "C0SUPPORT", "ts": "1.0", "text": "x"}, "message_not_found"),
    "nobody": ("users.info", {"user": "U9"}, "user_not_found"),
    "somebody outside": ("chat.postEphemeral", {"channel": "C", "user": "U9", "text": "x"}, "user_not_in_channel"),
    "no such method": ("chat.shout", {}, "unknown_method"),
}


@pytest.mark.parametrize(("method", "arguments", "error"), SLACK_REFUSALS.values(), ids=SLACK_REFUSALS)
async def test_slack_refuses_in_its_own_words(slack: AsyncWebClient, method: str, arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(SlackApiError) as refused:
        await slack.api_call(method, json=arguments)
    assert refused.value.response["error"] == error


async def test_slack_wants_its_token(server: SandboxServer) -> None:
    with pytest.raises(SlackApiError) as refused:
        await AsyncWebClient("xoxb-other", base_url=server.url + "/slack/api/").auth_test()
    assert refused.value.response["error"] == "invalid_auth"


async def test_slack_asks_for_patience_and_fails_as_told(server: SandboxServer, slack: AsyncWebClient) -> None:
    server.state.fail_next("slack", status=429)
    server.state.fail_next("slack", status="drop")
    with pytest.raises(SlackApiError) as limited:
        await slack.chat_postMessage(channel="C0SUPPORT", text="x")
    assert (limited.value.response["error"], limited.value.response.headers["Retry-After"]) == ("ratelimited", "1")
    assert server.state.slack_posts == []
    with pytest.raises(aiohttp.ClientError):
        await AsyncWebClient(SECRETS.slack_bot_token, base_url=server.url + "/slack/api/", retry_handlers=[]).chat_postMessage(
            channel="C0SUPPORT", text="lost"
        )
    assert [post.text for post in server.state.slack_posts] == ["lost"]


async def test_a_click_is_signed_and_shaped_as_slacks(server: SandboxServer, hub: Listening, slack: AsyncWebClient) -> None:
    listening, actor = hub
    await slack.chat_postMessage(channel="C0SUPPORT", text="Ada", blocks=BLOCKS)
    post = server.state.slack_posts[0]
    assert (await actor.slack_click(post, "claim", "U0AGENT")).status == 200
    heard = listening.heard[0]
    assert heard.path == "/rooms/slack"
    verifier = SignatureVerifier(SECRETS.slack_signing_secret)
    assert verifier.is_valid_request(heard.body, dict(heard.headers))
    assert not verifier.is_valid_request(heard.body + b"&x=1", dict(heard.headers))
    payload = json.loads(dict(parse_qsl(heard.body.decode()))["payload"])
    assert (payload["type"], payload["user"]["id"], payload["container"]["message_ts"]) == ("block_actions", "U0AGENT", post.ts)
    assert payload["actions"][0] | BUTTON == payload["actions"][0]
    assert payload["actions"][0]["block_id"] == "do"
    with pytest.raises(ValueError, match="no button"):
        await actor.slack_click(post, "explode", "U0AGENT")
    async with aiohttp.ClientSession() as session, session.post(payload["response_url"], json={"text": "Done"}) as answer:
        assert answer.status == 200
    assert server.state.slack_notices[0].text == "Done"


class Office:
    """A desk that remembers who claimed what."""

    def __init__(self) -> None:
        self.claimed: list[tuple[int, int]] = []

    async def agent_for(self, room: str, user: str, email: str) -> int | None:
        return {"agent@shop.example": 4}.get(email)

    async def claim(self, ticket_id: int, agent_id: int) -> str:
        self.claimed.append((ticket_id, agent_id))
        return "It is yours."

    async def resolve(self, ticket_id: int, agent_id: int) -> str:
        raise AssertionError


async def test_the_real_room_understands_a_click(server: SandboxServer, hub: Listening, slack: AsyncWebClient) -> None:
    listening, actor = hub
    await slack.chat_postMessage(channel="C0SUPPORT", text="Ada", blocks=BLOCKS)
    settings = {"type": "slack", "channel": "C0SUPPORT", "bot_token": SECRETS.slack_bot_token, "base_url": server.url + "/slack/api/"}
    settings |= {"signing_secret": SECRETS.slack_signing_secret}
    room = Slack(Slack.Settings.model_validate(settings), "slack")
    office = Office()
    for user in ("U0AGENT", "U0GUEST"):
        await actor.slack_click(server.state.slack_posts[0], "claim", user)
        assert (await room.handle(listening.heard[-1].request(), office)).status == 200
    await room.close()
    assert office.claimed == [(7, 4)]
    said = {notice.user: notice.text for notice in server.state.slack_notices}
    assert said["U0AGENT"] == "It is yours."
    assert "gil@elsewhere.example" in said["U0GUEST"]


# --- marketing ---


def signed_event(data: dict[str, Any], type_: str = "hold.placed", secret: str = SECRETS.webhook_secret) -> tuple[dict[str, str], bytes]:
    body = json.dumps({"specversion": "1.0", "id": "e1", "type": type_, "time": "2026-11-22T10:00:00Z", "data": data}).encode()
    now = datetime.now(UTC)
    signature = StandardWebhook(secret).sign("e1", now, body.decode())
    return {"webhook-id": "e1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}, body


async def hook(server: SandboxServer, headers: dict[str, str], body: bytes) -> int:
    async with aiohttp.ClientSession() as session, session.post(server.url + "/marketing/hooks", data=body, headers=headers) as answer:
        return answer.status


async def test_a_genuine_hold_event_is_taken_and_shown_as_verified(server: SandboxServer) -> None:
    headers, body = signed_event({"customer_id": 1, "version": 2, "reasons": ["open_ticket"]})
    headers["webhook-signature"] = "v1a,AAAA v1,bm8= " + headers["webhook-signature"]  # other versions, and a key being retired
    assert await hook(server, headers, body) == 204
    (kept,) = server.state.hooks
    assert (kept.id, kept.type, kept.data["version"], kept.verified) == ("e1", "hold.placed", 2, True)


FORGERIES = {
    "another body": (lambda h, b: (h, b.replace(b"placed", b"forged")), "signature is wrong"),
    "another id": (lambda h, b: (h | {"webhook-id": "e2"}, b), "signature is wrong"),
    "another time": (lambda h, b: (h | {"webhook-timestamp": str(int(h["webhook-timestamp"]) + 1)}, b), "signature is wrong"),
    "an old time": (lambda h, b: (h | {"webhook-timestamp": str(int(h["webhook-timestamp"]) - 400)}, b), "five minutes"),
    "a time that is none": (lambda h, b: (h | {"webhook-timestamp": "now"}, b), "five minutes"),
    "no signature": (lambda h, b: ({"webhook-id": "e1", "webhook-timestamp": h["webhook-timestamp"]}, b), "not signed"),
    "a signature that is none": (lambda h, b: (h | {"webhook-signature": "v1"}, b), "signature is wrong"),
}


@pytest.mark.parametrize(("forge", "problem"), FORGERIES.values(), ids=FORGERIES)
async def test_a_forged_hold_event_is_refused_and_shown_as_that(server: SandboxServer, forge: Any, problem: str) -> None:
    assert await hook(server, *forge(*signed_event({"customer_id": 1}))) == 401
    assert problem in server.state.hooks[0].problem
    assert held_now(server.state.hooks) == []


async def test_the_marketing_tool_fails_as_told(server: SandboxServer) -> None:
    server.state.fail_next("marketing", status=503)
    server.state.fail_next("marketing", status="drop")
    headers, body = signed_event({"customer_id": 1})
    assert await hook(server, headers, body) == 503
    assert server.state.hooks == []
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await hook(server, headers, body)
    assert len(server.state.hooks) == 1


# --- Klaviyo ---


async def test_a_hanging_stand_in_answers_nobody_until_they_give_up() -> None:
    stand_in = KlaviyoStandIn()
    url = await stand_in.start()
    stand_in.quirks.hang = True
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.2)) as session:
        with pytest.raises(TimeoutError):  # and no connection that was cut
            await session.post(url + "/api/profile-import", data=b"{}")
    assert stand_in.calls == [("POST", "/api/profile-import")]
    assert stand_in.writes == []
    async with asyncio.timeout(5):
        await stand_in.stop()


KLAVIYO_SECRETS = replace(SECRETS, klaviyo_api_key="pk_sandbox", klaviyo_webhook_secret="a webhook's secret")


async def profiles_of(server: SandboxServer, key: str) -> int:
    headers = {"Authorization": f"Klaviyo-API-Key {key}", "revision": "2026-07-15"}
    async with aiohttp.ClientSession() as session, session.get(server.url + "/klaviyo/api/profiles", headers=headers) as answer:
        return answer.status


async def test_klaviyo_lets_in_whoever_has_the_key_and_nobody_where_there_is_none(server: SandboxServer) -> None:
    assert await profiles_of(server, "") == 401
    assert not server.klaviyo.snapshot()["connected"]
    keyed = SandboxServer(port=0, smtp_port=0, secrets=KLAVIYO_SECRETS)
    await keyed.start()
    assert [await profiles_of(keyed, key) for key in ("pk_sandbox", "pk_other", "")] == [200, 401, 401]
    await keyed.stop()


def test_what_is_planned_goes_out_when_told_and_what_was_fixed_knows_no_later_hold() -> None:
    account = KlaviyoAccount(SandboxState(), "pk_sandbox")
    ada = account.profiles[0]
    account.write(ada, {"support_hold": True, "support_hold_until": "2999-01-01T00:00:00Z"})
    assert not account.in_segment(ada), "the segment asks for the next 60 days"
    later = datetime.fromtimestamp(account.clock() + 86_400, UTC).isoformat()
    account.write(ada, {"support_hold_until": later})
    planned = {one["name"]: one["recipients"] for one in account.snapshot()["planned"]}
    assert planned == {"Winter sale": None, "Winter sale by SMS": [one.name for one in PEOPLE]}
    account.send_now()
    got = {one["name"]: [line["name"] for line in one["lines"] if line["sent"]] for one in account.sent}
    assert got == {"Winter sale": [BEN.name, CHEN.name], "Winter sale by SMS": [one.name for one in PEOPLE]}
    assert [(one["name"], line["name"]) for one in account.sent for line in one["lines"] if line["leak"]] == [
        ("Winter sale by SMS", ADA.name)
    ]
    # Planned anew while she is held: now she is not among the fixed ones either, and gets nothing.
    assert {one["name"]: one["recipients"] for one in account.snapshot()["planned"]}["Winter sale by SMS 2"] == [BEN.name, CHEN.name]
    account.send_now()
    assert not [line for one in account.sent for line in one["lines"] if line["name"] == ADA.name and line["sent"]]
    json.dumps(account.snapshot())


async def test_klaviyo_tells_the_hub_what_it_sent_by_a_webhook_the_connector_believes() -> None:
    keyed = SandboxServer(port=0, smtp_port=0, secrets=KLAVIYO_SECRETS)
    await keyed.start()
    listening, app = ListeningHub(), web.Application()
    app.router.add_route("*", "/{rest:.*}", listening.handle)
    async with TestServer(app) as at:
        actor = SandboxActor(keyed, hub_url=str(at.make_url("")), public_url=PUBLIC)
        assert (await actor.send_planned()).status == 200
        await actor.close()
    await keyed.stop()
    (heard,) = listening.heard
    given = {"type": "klaviyo", "api_key": "pk_sandbox", "webhook_secret": "a webhook's secret"}
    connector = Klaviyo(Klaviyo.Settings.model_validate(given), "klaviyo")
    assert heard.path == "/tools/klaviyo/hooks"
    assert connector.verify(heard.request(), keyed.state.clock()) is Verdict.GOOD
    assert len(connector.parse_sends(heard.request())) == 2 * len(PEOPLE)


AUDIENCE = [Member(one.name, one.phone, one.email) for one in PEOPLE]


def standing(held: bool, known: bool = True) -> dict[str, Any]:
    return {"held": held, "known": known, "reasons": ["open_ticket"] if held else [], "until": "2026-11-29T00:00:00Z" if held else None}


async def test_a_campaign_asks_about_everybody_at_once_and_skips_whoever_is_held(server: SandboxServer, hub: Listening) -> None:
    listening, actor = hub
    # Ada by her phone alone; Ben is known and free; Chen is nobody to the hub.
    results = [standing(True), standing(False, False), standing(False), *[standing(False, False)] * 3]
    listening.answers["/api/v1/holds/check"] = web.json_response({"results": results, "held": True})
    assert (await actor.campaign(AUDIENCE, "hub_token")).status == 200
    (heard,) = listening.heard
    assert heard.headers["Authorization"] == "Bearer hub_token"
    asked = json.loads(heard.body)
    assert [one["value"] for one in asked["identifiers"]] == [ADA.phone, ADA.email, BEN.phone, BEN.email, CHEN.phone, CHEN.email]
    assert asked["class"] == "marketing"
    lines = server.state.campaigns[0].lines
    assert [(line.name, line.sent, line.why) for line in lines] == [
        (ADA.name, False, "open ticket"),
        (BEN.name, True, "no hold"),
        (CHEN.name, True, "unknown to support"),
    ]


UNCLEAR = {
    "refused": web.json_response({"title": "no"}, status=401),
    "down": web.Response(status=503, text="busy"),
    "not JSON": web.Response(text="<html>"),
    "not an object": web.json_response([1]),
    "too few results": web.json_response({"results": [standing(False)]}),
    "a standing that is none": web.json_response({"results": [{"held": "no"}] * 6}),
}


@pytest.mark.parametrize("answer", UNCLEAR.values(), ids=UNCLEAR)
async def test_without_a_clear_answer_nobody_gets_the_campaign(server: SandboxServer, hub: Listening, answer: web.Response) -> None:
    listening, actor = hub
    listening.answers["/api/v1/holds/check"] = answer
    await actor.campaign(AUDIENCE, "t")
    assert [line.sent for line in server.state.campaigns[0].lines] == [False] * 3


def test_a_visitors_token_is_a_jwt_of_the_site() -> None:
    actor = SandboxActor(SandboxServer(port=0, smtp_port=0, secrets=SECRETS), hub_url="", public_url=PUBLIC)
    token = actor.visitor_token(ADA.user_id, ADA.name, ADA.email)
    claims = jwt.decode(token, SECRETS.site_key, algorithms=["HS256"], audience="support-hub", options={"require": ["exp", "iat", "sub"]})
    assert (claims["sub"], claims["email"], claims["email_verified"]) == (ADA.user_id, ADA.email, True)
    assert claims["exp"] - claims["iat"] <= 3_600
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, "another-key-another-key-another-key", algorithms=["HS256"], audience="support-hub")


# --- the tour ---

WROTE = Said(order=1, at=0.0, channel="whatsapp", address=ADA.phone, text="?", status=200)
REFUSED = Said(order=1, at=0.0, channel="whatsapp", address=ADA.phone, text="?", status=403)
TEXTED = Said(order=9, at=0.0, channel="sms", address=ADA.phone, text="!", status=200)
EARLY = Said(order=2, at=0.0, channel="sms", address=ADA.phone, text="!", status=200)
REPLY = TwilioMessage(order=3, at=0.0, sid="SM1", to="whatsapp:" + ADA.phone, from_="", body="", media_urls=(), status_callback="")
RELEASED = Hook(order=5, at=0.0, id="e", type="hold.released", time="", data={"customer_id": 1, "version": 2})
FORGED = Hook(order=5, at=0.0, id="e", type="hold.released", time="", data={"customer_id": 1}, problem="its signature is wrong")


def sale(order: int, held: bool | None) -> Campaign:
    line = CampaignLine(name=ADA.name, phone=ADA.phone, email=ADA.email, held=held, until=None, why="")
    return Campaign(order=order, at=0.0, lines=(line,))


TOURS: dict[str, tuple[dict[str, list[Any]], set[str]]] = {
    "nothing yet": ({}, set()),
    "a campaign before anybody wrote": ({"campaigns": [sale(1, False)]}, set()),
    "what the hub refused was not written": ({"said": [REFUSED]}, set()),
    "written": ({"said": [WROTE]}, {"wrote"}),
    "skipped": ({"said": [WROTE], "campaigns": [sale(2, True)]}, {"wrote", "skipped"}),
    "a gate that gave no answer skipped nobody": ({"said": [WROTE], "campaigns": [sale(2, None)]}, {"wrote"}),
    "answered": ({"said": [WROTE], "twilio_messages": [REPLY]}, {"wrote", "answered"}),
    "resolved": ({"said": [WROTE], "hooks": [RELEASED]}, {"wrote", "resolved"}),
    "a forged release": ({"said": [WROTE], "hooks": [FORGED]}, {"wrote"}),
    "sent before it was resolved": ({"said": [WROTE], "hooks": [RELEASED], "campaigns": [sale(4, False)]}, {"wrote", "resolved"}),
    "sent after": ({"said": [WROTE], "hooks": [RELEASED], "campaigns": [sale(6, False)]}, {"wrote", "resolved", "sent"}),
    "an SMS before": ({"said": [WROTE, EARLY], "hooks": [RELEASED]}, {"wrote", "resolved"}),
    "an SMS after": ({"said": [WROTE, TEXTED], "hooks": [RELEASED]}, {"wrote", "resolved", "sms"}),
}


@pytest.mark.parametrize(("happened", "done"), TOURS.values(), ids=TOURS)
def test_steps_of_the_tour_follow_from_what_the_stand_ins_saw(happened: dict[str, list[Any]], done: set[str]) -> None:
    state = SandboxState()
    for name, items in happened.items():
        getattr(state, name).extend(items)
    assert {step for step, is_done in steps(state).items() if is_done} == done
    assert set(steps(state)) == {key for key, *_ in pages.STEPS}


def told(type_: str, customer: int, version: int) -> Hook:
    return Hook(order=0, at=0.0, id="", type=type_, time="", data={"customer_id": customer, "version": version})


def test_the_latest_version_decides_who_is_held_whatever_came_last() -> None:
    hooks = [told("hold.placed", 1, 1), told("hold.released", 2, 4), told("hold.placed", 2, 3), told("hold.renewed", 1, 2)]
    assert [(hook.data["customer_id"], hook.type) for hook in held_now(hooks)] == [(1, "hold.renewed")]


# --- the pages ---


@pytest.fixture
async def browser(hub: Listening) -> AsyncIterator[Browser]:
    _, actor = hub
    app = web.Application()
    app[HUB] = SimpleNamespace(  # type: ignore[assignment]
        pages=jinja2.Environment(loader=jinja2.FileSystemLoader(templates_directory()), autoescape=True, undefined=jinja2.StrictUndefined),
        settings=SimpleNamespace(
            sandbox=SimpleNamespace(enabled=True), server=SimpleNamespace(public_url="http://localhost:8080", port=8080)
        ),
    )
    pages.add_routes(app, SandboxDemo(actor, "hub_token"), login="agent@shop.example")
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_pages_carry_no_inline_script_or_style(browser: Browser) -> None:
    for path in ("/sandbox", "/sandbox/shop"):
        text = await (await browser.get(path)).text()
        assert "</html>" in text
        scripts = text.count("<script")
        assert scripts == text.count("<script src=") > 0
        assert not [word for word in ("<style", " style=", " onclick=", " onload=", "javascript:") if word in text]


async def test_people_act_by_json_of_this_origin_only(browser: Browser, hub: Listening) -> None:
    listening, _ = hub
    words = {"person": "ada", "text": "Hello"}
    answer = await browser.post("/sandbox/act/sms", json=words)
    assert (answer.status, await answer.json()) == (200, {"status": 200})
    assert len(listening.heard) == 1
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        assert (await browser.post("/sandbox/act/sms", json=words, headers=headers)).status == 403
    assert (await browser.post("/sandbox/act/sms", data=json.dumps(words), headers={"Content-Type": "text/plain"})).status == 415
    assert (await browser.post("/sandbox/act/sms", json=words | {"text": "x" * 40_000})).status == 413
    assert len(listening.heard) == 1


MISTAKES = {
    "nobody": ("sms", {"text": "x"}, "Choose one of the people"),
    "nothing": ("sms", {"person": "ada", "text": "  "}, "Write something"),
    "too much": ("sms", {"person": "ada", "text": "x" * 4_001}, "longer than 4000"),
    "no such post": ("slack", {"ts": "1.0", "action": "claim"}, "no longer there"),
    "no such deed": ("launch", {}, "cannot do"),
    "no object": ("sms", [1], "JSON object"),
}


@pytest.mark.parametrize(("what", "data", "problem"), MISTAKES.values(), ids=MISTAKES)
async def test_a_mistake_is_told_in_plain_words(browser: Browser, what: str, data: Any, problem: str) -> None:
    answer = await browser.post(f"/sandbox/act/{what}", json=data)
    assert answer.status == 400
    assert problem in (await answer.json())["problem"]


async def test_what_the_hub_refused_is_told(browser: Browser, hub: Listening) -> None:
    hub[0].answers["/in/sms"] = web.Response(status=503, text="Busy. Try again.")
    answer = await browser.post("/sandbox/act/sms", json={"person": "ada", "text": "x"})
    assert (await answer.json())["problem"] == "The hub answered 503. Busy. Try again."


async def frames(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in response.content:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


async def test_the_stream_shows_every_change(browser: Browser, server: SandboxServer, hub: Listening) -> None:
    response = await browser.get("/sandbox/stream")
    seen = frames(response)
    assert (await anext(seen))["texts"] == []
    await browser.post("/sandbox/act/whatsapp", json={"person": "ada", "text": "<b>Hi</b>", "picture": True})
    while not (snapshot := await anext(seen))["steps"]["wrote"]:
        pass
    (text,) = snapshot["texts"]
    assert (text["text"], text["phone"], text["status"]) == ("<b>Hi</b>", ADA.phone, "sent")
    picture = await browser.get(text["pictures"][0])
    assert (picture.content_type, await picture.read()) == ("image/png", parcel_photo().data)
    assert (await browser.get("/sandbox/media/other")).status == 404
    response.close()


async def test_the_snapshot_holds_every_device(browser: Browser, server: SandboxServer, hub: Listening, slack: AsyncWebClient) -> None:
    _, actor = hub
    await slack.chat_postMessage(channel="C0SUPPORT", text="Ada", blocks=BLOCKS)
    await actor.mail(ADA.email, ADA.name, "Refund", "Where?")
    settings = EmailSettings.model_validate(mail_settings(server))
    reply = OutboundMessage(delivery_id=1, to=ADA.email, text="Soon", subject="Re: Refund", message_id="<2@shop.example>")
    await send_mail(reply, settings)
    identifiers = [{"kind": "phone", "value": ADA.phone, "because": "verified"}]
    data = {"customer_id": 1, "version": 1, "reasons": ["open_ticket"], "until": "2026-11-29T00:00:00Z", "identifiers": identifiers}
    assert await hook(server, *signed_event(data)) == 204
    snapshot = SandboxDemo(actor, "t").snapshot()
    assert [(mail["box"], mail["mine"], mail["subject"]) for mail in snapshot["mails"]] == [
        (ADA.email, True, "Refund"),
        (ADA.email, False, "Re: Refund"),
    ]
    assert snapshot["slack"]["posts"][0]["blocks"] == BLOCKS
    (held,) = snapshot["marketing"]["held"]
    assert (held["who"], held["reasons"], held["problem"], held["identifiers"]) == (ADA.name, ["open ticket"], "", identifiers)
    json.dumps(snapshot)


async def test_open_streams_do_not_hold_up_a_shutdown(hub: Listening) -> None:
    app = web.Application()
    pages.add_routes(app, SandboxDemo(hub[1], "t"))
    runner = web.AppRunner(app, shutdown_timeout=30.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/sandbox/stream") as stream:
        await stream.content.readline()
        async with asyncio.timeout(5):
            await runner.cleanup()


def test_posts_of_the_state_have_their_buttons_found_in_accessories_too() -> None:
    from connectors.sandbox.actor import _button

    post = SlackPost(order=1, at=0.0, channel="C", ts="1.1", text="", blocks=[{"type": "section", "accessory": BUTTON}])
    assert _button(post, "claim") == ("b0", BUTTON)
