"""What every channel must keep, whichever its provider: inherited by each channel's class in `test_channels_conform.py`.

    class TestTelnyxSms(ChannelConformance):
        type = "telnyx_sms"
        settings = {"address": "+15555550100", "api_key": ..., "public_key": ...}
        credentials = ("telnyx-signature-ed25519",)

        def inbound(self, text, number=1): ...     an authentic request in which a customer says this
        def shown(self): ...                       an authentic request for each ability that is seen in what comes in

The way out is tried on a stand-in of the provider over real loopback connections (`HttpProvider`, `SmtpProvider`).
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

import pytest
from aiohttp import web
from aiosmtpd.smtp import SMTP
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from connectors import CHANNELS, load
from hub.abilities import ABILITIES
from hub.config import explain
from hub.contract import (
    Altered,
    Attachment,
    Channel,
    ChannelSettings,
    Claim,
    DeliveryUpdate,
    Expands,
    Finds,
    HolderChanged,
    HttpResponse,
    Identified,
    Ignored,
    InboundMessage,
    KnowsTemplates,
    MessageStatus,
    OutboundAttachment,
    OutboundMessage,
    Place,
    Recovers,
    Refused,
    Request,
    Sent,
    ShowsPresence,
    TryLater,
    Unknown,
    Unparseable,
    Verdict,
)
from hub.contract import ConsentChanged as Consent
from hub.conversations.text import storable_inbound
from hub.customers.canonical import canonical
from hub.http import GuardedHttp
from tests.conftest import free_port

NOW = 1_790_000_000.0
URL = "https://hub.example/in/main"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
SLOW = 1.0  # seconds of processor time one hostile body may take
KINDS = {"email", "phone", "wa_user_id", "user_id", "device"}

# Abilities that are a way to ask the connector, and the protocol it must then have.
PROTOCOLS: Mapping[str, type] = {"templates": KnowsTemplates, "presence": ShowsPresence, "recovers": Recovers, "finds": Finds}
SEEN_COMING_IN = ("files_in", "delivered", "read", "reactions", "edits")  # abilities shown by a request that has them

TEXTS = {
    "plain": "Hello, where is my order?",
    "other scripts": "Grüße, 你好, שלום, été 🎉",
    "lines": "One\ntwo\n\nthree",
    "markup": "<b>no markup</b> & no &amp; entity",
    "punctuation": "100% = a+b; \"c\" \\ 'd' {e} [f] --g",
    "long": "Where is it? " * 70 + "end",
}

HOSTILE = {
    "nothing": b"",
    "zeros": bytes(2_000),
    "no text": b"\xff\xfe\x80" * 700,
    "cut json": b'{"id": "1", "text": ',
    "json null": b"null",
    "json number": b"1e999",
    "json digits": b"[" + b"9" * 5_000 + b"]",
    "json list": b"[]",
    "json object": b"{}",
    "json surrogate": b'{"type": "\\ud800", "event": "\\ud800", "items": "\\ud800"}',
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"data":' * 50_000,
    "many fields": b"a=b&" * 30_000,
    "broken percents": b"Body=%zz%&=%&%00=%ff&From=",
    "many parts": b"--x\r\n\r\n" * 20_000,
    "many headers": b"From: a@b.example\r\n" * 20_000,
    "one long header": b"From: " + b"(" * 100_000,
    "nested mail": b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"
    + b"--x\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n" * 2_000,
    "entities": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>',
    "packed": b"\x1f\x8b\x08" + bytes(500),
}
CONTENT_TYPES = (None, "", "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "message/rfc822")
ODD: Sequence[Any] = (None, True, -1, 10**40, 1.5e308, "", "\x00\ud800", "9" * 5_000, [], {}, [[]], [{"": None}])


def twisted(value: Any) -> Iterator[Any]:
    """The same JSON with one thing in it, at any depth, replaced by something odd; JSON within text is twisted too."""
    yield from ODD
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: one for name, one in value.items() if name != key}
            for odd in twisted(inner):
                yield {**value, key: odd}
    elif isinstance(value, list) and value:
        for odd in twisted(value[0]):
            yield [odd, *value[1:]]
    elif isinstance(value, str) and value[:1] in ("{", "["):
        with suppress(ValueError):
            for odd in twisted(json.loads(value)):
                yield json.dumps(odd)


def twisted_requests(request: Request) -> Iterator[Request]:
    """The request with one thing in its body made odd: JSON and forms field by field, anything else cut and overwritten."""
    try:
        told = json.loads(request.body)
    except ValueError:
        told = None
    if isinstance(told, dict | list):
        for odd in twisted(told):
            yield replace(request, body=json.dumps(odd).encode())
        return
    if request.content_type.startswith("application/x-www-form-urlencoded"):
        pairs = parse_qsl(request.body.decode(), keep_blank_values=True)
        for at, (name, value) in enumerate(pairs):
            yield replace(request, body=urlencode(pairs[:at] + pairs[at + 1 :]).encode())
            for odd in twisted(value):
                said = odd if isinstance(odd, str) else json.dumps(odd)
                body = urlencode([*pairs[:at], (name, said), *pairs[at + 1 :]], errors="surrogatepass")
                yield replace(request, body=body.encode())
        return
    step = max(1, len(request.body) // 60)
    for at in range(0, len(request.body), step):
        yield replace(request, body=request.body[:at])
        for odd in (b"\x00", b"\xff\xfe", b"\r\n\r\n", b"=?utf-8?b?", b'"<(['):
            yield replace(request, body=request.body[:at] + odd + request.body[at + len(odd) :])


def secrets_of(chosen: BaseModel) -> set[str]:
    """Every secret in the settings, at any depth."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, SecretStr):
            found.add(value.get_secret_value())
        elif isinstance(value, BaseModel):
            for name in type(value).model_fields:
                walk(getattr(value, name))
        elif isinstance(value, Mapping):
            walk(list(value.values()))
        elif isinstance(value, list | tuple):
            for one in value:
                walk(one)

    walk(chosen)
    return {secret for secret in found if secret}


def unstorable(value: Any, where: str = "") -> str:
    """Why a part of what was parsed fits no column of a database, or ""."""
    if isinstance(value, str):
        fits = "\x00" not in value and value == value.encode(errors="replace").decode()
        return "" if fits else f"{where} has a NUL or half a character: {value[:40]!r}"
    if isinstance(value, int) and not isinstance(value, bool):
        return "" if abs(value) < 2**63 else f"{where} is an integer of more than 64 bits"
    if isinstance(value, Claim):  # what is kept of it is its canonical form
        return unstorable(canonical(value.kind, value.value) or "", f"{where}.value")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
        return next(filter(None, (unstorable(inner, f"{where}.{name}") for name, inner in named.items())), "")
    if isinstance(value, Mapping):
        return next(filter(None, (unstorable(inner, f"{where}.{name}") for name, inner in value.items())), "")
    if isinstance(value, list | tuple):
        return next(filter(None, (unstorable(inner, where) for inner in value)), "")
    return ""


# --- The provider's stand-ins ----------------------------------------------------------------------------------------


@dataclass
class HttpProvider:
    """A loopback server in the place of the provider's API. `takes` is its answer to a message it took; `fate` what happens instead."""

    takes: tuple[int, bytes]
    fate: str = ""
    url: str = ""
    port: int = 0
    seen: list[bytes] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)  # the Idempotency-Key of each request
    credentials: set[str] = field(default_factory=set)

    ANSWERS: ClassVar = {
        "busy": (429, b"{}"),
        "broken": (500, b"oops"),
        "refuses": (400, b"{}"),
        "denies": (401, b"{}"),
        "garbled": (200, b"\xff{"),
    }

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(request.raw_path.encode() + b"\n" + await request.read())
        self.credentials |= {
            value.rpartition(" ")[2] for name, value in request.headers.items() if name.lower() in ("authorization", "api-key")
        }
        self.keys.append(request.headers.get("idempotency-key", ""))
        if self.fate == "lost":
            assert request.transport is not None
            request.transport.close()
        status, body = self.ANSWERS.get(self.fate, self.takes)
        return web.Response(status=status, body=body, headers={"Retry-After": "7"} if self.fate == "busy" else {})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[HttpProvider]:
        app = web.Application(client_max_size=10**8)
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        try:
            yield self
        finally:
            await runner.cleanup()


@dataclass
class SmtpProvider:
    """A loopback mail server in the place of the relay answers leave by."""

    fate: str = ""
    port: int = 0
    url: str = ""
    seen: list[bytes] = field(default_factory=list)
    credentials: set[str] = field(default_factory=set)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if self.fate in ("busy", "refuses"):
            return "450 4.2.1 Try again later" if self.fate == "busy" else "550 5.1.1 No such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.seen.append(", ".join(envelope.rcpt_tos).encode() + b"\n" + envelope.content)
        if self.fate in ("lost", "broken"):
            server.transport.abort()
        return "250 OK"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[SmtpProvider]:
        loop = asyncio.get_running_loop()
        sessions: list[SMTP] = []

        def session() -> SMTP:
            sessions.append(SMTP(self, hostname="stand-in.example", loop=loop))
            return sessions[-1]

        server = await loop.create_server(session, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for one in sessions:
                if one.transport is not None:
                    one.transport.close()
            await asyncio.sleep(0)


Provider = HttpProvider | SmtpProvider


@dataclass
class Tempting:
    """An Http that reaches nobody: it leads every request to another host, and keeps what was asked."""

    answer: HttpResponse
    asked: list[tuple[str, str]] = field(default_factory=list)  # (url, all that went there, as text)

    async def request(self, method: str, url: str, *, headers: Any = None, body: bytes | None = None, **_: Any) -> HttpResponse:
        self.asked.append((url, f"{url}\n{dict(headers or {})}\n{(body or b'').decode(errors='replace')}".lower()))
        return self.answer


ELSEWHERE = "https://evil.example/x.png"
TEMPTATIONS = (
    HttpResponse(302, {"location": ELSEWHERE}, b""),
    HttpResponse(200, {"content-type": "application/json", "location": ELSEWHERE}, json.dumps({"url": ELSEWHERE}).encode()),
)


def foreign(host: str) -> list[str]:
    """Addresses that are not the provider's, some of which look as if they were."""
    return [
        "",
        "media:../../me",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data/",
        ELSEWHERE,
        f"https://evil.example/{host}/Media/ME1",
        f"https://{host}.evil.example/Media/ME1",
        f"https://evil{'.'.join(host.split('.')[-2:])}/Media/ME1",
        f"https://{host}@evil.example/Media/ME1",
        f"https://evil.example\\@{host}/Media/ME1",
        f"https://evil.example#@{host}/Media/ME1",
        f"http://{host}/Media/ME1",
        f"https://{host}:8443/Media/ME1",
    ]


def words_of(seen: bytes) -> bytes:
    """What went to a provider, also with its escapes and base64 undone, twice: a mail may be base64 within JSON."""
    found = seen + unquote_plus(seen.decode(errors="replace")).encode()
    for _ in range(2):
        runs = re.findall(rb"(?:[A-Za-z0-9+/]{4}(?:\r?\n)?){8,}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", found)
        found += b"".join(base64.b64decode(run) for run in runs)
    return found


# --- The laws --------------------------------------------------------------------------------------------------------


class ChannelConformance:
    """Inherit, name the type, its settings as for the real provider, and how authentic requests are made."""

    type: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]]
    keyless: ClassVar[Mapping[str, Any] | str]  # the settings that leave it without a key; in words, why there is always one
    credentials: ClassVar[tuple[str, ...]] = ()  # the headers that prove who posts; () where the body does (override `altered_key`)
    signs_body: ClassVar[bool] = True  # the credential covers the body
    customer: ClassVar[str] = "+12025550123"
    hosts: ClassVar[tuple[str, ...]] = ()  # the provider's own, where credentials may go on the way to a file
    takes: ClassVar[tuple[int, bytes] | None] = None  # the provider's answer to a message it took; None: it sends otherwise
    by_smtp: ClassVar[bool] = False
    url_setting: ClassVar[str] = "base_url"
    breaks: ClassVar[Mapping[str, str]] = {}  # a law (its test's name) that it is known to break, and how: expected to fail until mended

    @pytest.fixture(autouse=True)
    def _known(self, request: pytest.FixtureRequest) -> None:
        if why := self.breaks.get(request.node.name):
            request.node.add_marker(pytest.mark.xfail(strict=True, reason=why))

    def load(self) -> Any:
        return load(CHANNELS[self.type])

    def channel(self, **more: Any) -> Any:
        cls = self.load()
        return cls(cls.Settings.model_validate({"type": self.type, **self.settings, **more}), Place("main", URL, b"k" * 32))

    # What a subclass tells.

    def inbound(self, text: str, number: int = 1) -> Request:
        """The `number`-th message of one customer, authentic, saying `text`."""
        raise NotImplementedError

    def shown(self) -> Mapping[str, Request]:
        """For each of SEEN_COMING_IN that the channel can: an authentic request that has it."""
        return {}

    async def verdict(self, channel: Any, request: Request) -> Verdict:
        verdict: Verdict = channel.verify(request, NOW)
        return verdict

    def without_key(self, request: Request) -> Request:
        return replace(request, headers={name: value for name, value in request.headers.items() if name not in self.credentials})

    def altered_key(self, request: Request) -> Request:
        """The same with another signature or password."""

        def other(value: str) -> str:
            at = (value.find(" ") + len(value)) // 2  # within the credential, not its scheme
            return value[:at] + ("B" if value[at] != "B" else "C") + value[at + 1 :]

        return replace(
            request, headers={name: other(value) if name in self.credentials else value for name, value in request.headers.items()}
        )

    @property
    def provider(self) -> Provider | None:
        if self.by_smtp:
            return SmtpProvider()
        return HttpProvider(self.takes) if self.takes is not None else None

    def way_out(self, port: int) -> dict[str, Any]:
        """The settings by which it speaks to a stand-in on this port."""
        if self.by_smtp:
            return {"smtp": {"host": "127.0.0.1", "port": port, "security": "none"}}
        return {self.url_setting: f"http://127.0.0.1:{port}"}

    def outbound(self, **more: Any) -> OutboundMessage:
        known: dict[str, Any] = {
            "delivery_id": 7,
            "to": self.customer,
            "text": "It is on its way.",
            "subject": "Re: Hello",
            "message_id": "<7.hub@hub.example>",
            "callback_url": f"{URL}?delivery=7",
        }
        return OutboundMessage(**(known | more))

    def judged(self, request: Request) -> list[Any]:
        return list(self.channel().parse(request))

    # --- what it is ---

    def test_it_is_a_channel_with_every_attribute_of_the_contract(self) -> None:
        channel = self.channel()
        assert isinstance(channel, Channel)
        assert issubclass(channel.Settings, ChannelSettings)
        assert channel.label
        assert channel.icon
        assert channel.reaches
        assert set(channel.reaches) <= KINDS
        assert channel.max_text > 0
        assert {channel.idempotent, channel.live} <= {True, False}
        assert channel.answers.ok.status == 200
        assert channel.answers.busy in (429, 500, 503), "an answer that providers come back after"
        assert channel.answers.too_big in (200, 413)

    def test_it_says_of_each_ability_whether_it_can_and_why_not(self) -> None:
        can = self.load().can
        assert list(can) == list(ABILITIES), "each of hub.abilities.ABILITIES, in their order"
        for ability, why in can.items():
            assert why == " ".join(why.split()).rstrip("."), f"{ability}: half a sentence, on one line"
            assert len(why) < 120, ability

    @pytest.mark.parametrize("ability", PROTOCOLS)
    def test_it_can_be_asked_for_what_it_says_it_can_and_for_nothing_else(self, ability: str) -> None:
        assert isinstance(self.channel(), PROTOCOLS[ability]) == (self.load().can[ability] == ""), ability

    @pytest.mark.parametrize("ability", SEEN_COMING_IN)
    def test_what_it_says_it_takes_is_found_in_what_it_parses(self, ability: str) -> None:
        request, why = self.shown().get(ability), self.load().can[ability]
        assert (request is not None) == (why == ""), f"{ability}: `can` and the requests shown disagree"
        if request is None:
            return
        found = self.judged(request)
        statuses = {
            one.status for one in found if isinstance(one, DeliveryUpdate) and (one.provider_message_id or one.mail_id or one.delivery_id)
        }
        altered = {one.what for one in found if isinstance(one, Altered) and one.about}
        has = {
            "files_in": any(isinstance(one, InboundMessage) and one.attachments for one in found),
            "delivered": MessageStatus.DELIVERED in statuses,
            "read": MessageStatus.READ in statuses,
            "reactions": "reaction" in altered,
            "edits": bool(altered & {"edit", "deletion"}),
        }
        assert has[ability], found

    # --- who is speaking ---

    async def test_only_an_authentic_request_is_good(self) -> None:
        channel, request = self.channel(), self.inbound("Hello")
        assert await self.verdict(channel, request) is Verdict.GOOD
        assert await self.verdict(channel, self.without_key(request)) is Verdict.UNSIGNED
        assert await self.verdict(channel, self.altered_key(request)) is Verdict.BAD

    async def test_a_changed_body_is_bad_where_the_body_is_signed(self) -> None:
        if not self.signs_body:
            pytest.skip("the credential does not cover the body")
        request = self.inbound("Hello")
        body = request.body.replace(b"Hello", b"Hallo") if b"Hello" in request.body else request.body[:-20] + b"x" + request.body[-19:]
        assert body != request.body
        assert await self.verdict(self.channel(), replace(request, body=body)) is Verdict.BAD

    async def test_without_a_key_of_ours_nothing_is_good(self) -> None:
        if isinstance(self.keyless, str):
            pytest.skip(self.keyless)
        assert await self.verdict(self.channel(**self.keyless), self.inbound("Hello")) is Verdict.NO_KEY

    @pytest.mark.parametrize(
        "value", ["", " ", "Basic", "Basic ====", "Bearer", "Bearer v1..", "sha256=", "v1=", "\udcff", "é", "A" * 9_000, "0"]
    )
    async def test_an_odd_credential_is_judged_and_nothing_breaks(self, value: str) -> None:
        request = self.inbound("Hello")
        odd = replace(request, headers={name: value if name in self.credentials else said for name, said in request.headers.items()})
        verdict = await self.verdict(self.channel(), odd)
        assert verdict in (Verdict.BAD, Verdict.UNSIGNED) or not self.credentials

    # --- what they say ---

    @pytest.mark.parametrize("name", TEXTS)
    def test_text_comes_in_as_it_was_written(self, name: str) -> None:
        [said] = self.judged(self.inbound(TEXTS[name]))
        assert isinstance(said, InboundMessage)
        assert said.text.replace("\r\n", "\n").strip() == TEXTS[name]
        assert said.claims[0].kind in self.load().reaches, "an answer can go where the message came from"
        assert unstorable(said) == "", "plain text needs no mending by the hub"

    def test_a_message_delivered_five_times_has_one_key_and_each_message_its_own(self) -> None:
        keys = [[one.provider_key for one in self.judged(self.inbound("Hello", number))] for number in (1, 1, 1, 1, 1, 2, 3)]
        assert keys[0] == keys[1] == keys[2] == keys[3] == keys[4]
        assert len({key for found in keys for key in found}) == 3 * len(keys[0]), "the same words said again are another message"
        assert all(key and len(key) <= 1_000 for found in keys for key in found)

    # --- what is hostile ---

    def parses_or_refuses(self, channel: Any, request: Request) -> None:
        started = time.process_time()
        try:
            found = channel.parse(request)
            why = ""
        except Unparseable as error:
            found, why = [], str(error)
        took = time.process_time() - started
        assert found or why, "it says what cannot be understood"
        assert took < SLOW, f"{took:.1f} s for {len(request.body)} bytes"
        for one in found:
            assert isinstance(one, InboundMessage | Identified | HolderChanged | DeliveryUpdate | Altered | Consent | Ignored)
            assert one.provider_key
            kept = storable_inbound(one)  # as the hub takes it; of what is ignored only the key
            kept = kept.provider_key if isinstance(kept, Ignored) else kept
            assert not (why := unstorable(kept, type(one).__name__)), f"{why} of {request.body[:200]!r}"

    @pytest.mark.parametrize("name", HOSTILE)
    def test_a_hostile_body_is_unparseable_and_nothing_else(self, name: str) -> None:
        channel, request = self.channel(), self.inbound("Hello")
        for content_type in CONTENT_TYPES:
            headers = dict(request.headers) | ({} if content_type is None else {"content-type": content_type})
            self.parses_or_refuses(channel, replace(request, headers=headers, body=HOSTILE[name]))

    def test_an_authentic_body_with_one_thing_odd_is_unparseable_at_most(self) -> None:
        channel = self.channel()
        for request in {"text": self.inbound("Hello"), **self.shown()}.values():
            for odd in twisted_requests(request):
                self.parses_or_refuses(channel, odd)

    @given(body=st.binary(max_size=400))
    @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def test_any_bytes_are_unparseable_at_most(self, body: bytes) -> None:
        self.parses_or_refuses(self.channel(), replace(self.inbound("Hello"), body=body))

    # --- the way out ---

    @asynccontextmanager
    async def out(self, fate: str = "") -> AsyncIterator[tuple[Any, Provider, GuardedHttp]]:
        """The channel pointed at its stand-in, the stand-in, and the guarded client. At the fate `away` nobody listens there."""
        provider = self.provider
        if provider is None:
            pytest.skip("it has no provider to send by")
        provider.fate = fate
        async with provider.running():
            channel = self.channel(**self.way_out(free_port() if fate == "away" else provider.port))
            http = GuardedHttp(["127.0.0.1"])
            try:
                yield channel, provider, http
            finally:
                await http.close()
                if hasattr(channel, "close"):
                    await channel.close()

    async def test_what_is_sent_reaches_the_provider_with_its_words_and_address(self) -> None:
        async with self.out() as (channel, provider, http):
            sent = await channel.send(self.outbound(), http)
        assert isinstance(sent, Sent)
        assert sent.status is MessageStatus.SENT
        [seen] = provider.seen
        assert b"It is on its way." in words_of(seen)
        assert self.customer.lstrip("+").encode() in words_of(seen)

    @pytest.mark.parametrize("fate", ["busy", "broken", "refuses", "denies", "lost", "away", "garbled"])
    async def test_what_became_of_a_send_is_told_as_it_is(self, fate: str) -> None:
        if self.by_smtp and fate in ("denies", "garbled"):
            pytest.skip("an answer of HTTP's")
        in_doubt = TryLater if self.load().idempotent else Unknown
        right: dict[str, tuple[type, ...]] = {
            "busy": (TryLater,),
            "away": (TryLater,),
            "refuses": (Refused,),
            "denies": (Refused,),
            "lost": (in_doubt,),
            "broken": (in_doubt,),
            "garbled": (Sent, in_doubt),  # taken, by its status: never to be sent again blindly
        }
        async with self.out(fate) as (channel, provider, http):
            try:
                became: Any = await channel.send(self.outbound(), http)
            except (Refused, TryLater, Unknown) as error:
                became = error
        assert isinstance(became, right[fate]), repr(became)
        assert isinstance(became, Sent) or len(str(became)) > 15, "agents read it"
        assert len(provider.seen) <= 1, "one request: whether to try again is the hub's to decide"
        if fate == "busy" and not self.by_smtp:
            assert became.retry_after == 7

    async def test_sent_again_it_goes_under_the_same_key_where_it_says_so(self) -> None:
        if not self.load().idempotent:
            pytest.skip("its provider takes no key: it never sends again by itself")
        async with self.out() as (channel, provider, http):
            for delivery in (7, 7, 8):
                await channel.send(self.outbound(delivery_id=delivery), http)
        first, again, other = provider.keys
        assert first
        assert first == again
        assert first != other, "another answer is not taken for the same"

    async def test_files_go_out_or_are_refused_before_anything_leaves(self) -> None:
        file = OutboundAttachment("a.png", "image/png", len(PNG), lambda: PNG, "https://hub.example/files/a.png")
        async with self.out() as (channel, provider, http):
            if self.load().can["files_out"]:
                with pytest.raises(Refused):
                    await channel.send(self.outbound(attachments=(file,)), http)
                assert not provider.seen
                return
            await channel.send(self.outbound(attachments=(file,)), http)
        went = words_of(provider.seen[-1])
        assert file.public_url.encode() in went or PNG in went

    async def test_an_answer_names_what_it_answers_where_it_says_so(self) -> None:
        more = {
            "quoted_id": "quoted-1234567",
            "in_reply_to": "<quoted-1234567@shop.example>",
            "references": ("<quoted-1234567@shop.example>",),
        }
        async with self.out() as (channel, provider, http):
            await channel.send(self.outbound(**more), http)
        assert (b"quoted-1234567" in words_of(provider.seen[-1])) == (self.load().can["quotes"] == "")

    @pytest.mark.parametrize("fate", ["busy", "broken", "refuses", "denies", "lost", "away", "garbled"])
    async def test_a_provider_that_fails_to_tell_is_asked_later_or_refused(self, fate: str) -> None:
        async with self.out(fate) as (channel, _provider, http):
            if isinstance(channel, Recovers):
                with pytest.raises((TryLater, Refused)):  # to end without a word would mean that nothing was missed
                    async for _ in channel.received(NOW - 3_600, NOW, http):
                        pass
            if isinstance(channel, Finds):
                with pytest.raises((TryLater, Refused)):
                    await channel.find(self.outbound(), NOW - 60, NOW, http)
            if isinstance(channel, KnowsTemplates):
                with pytest.raises((TryLater, Refused)):
                    await channel.templates(http)
            if isinstance(channel, ShowsPresence):
                with suppress(TryLater, Refused):
                    await channel.seen("wamid.1", http, typing=True)

    async def test_a_stand_in_on_this_machine_is_told_from_the_real_provider(self) -> None:
        assert self.channel().is_sandbox() is False
        if self.provider is not None:
            assert self.channel(**self.way_out(free_port())).is_sandbox() is True

    # --- secrets ---

    def test_no_secret_is_in_a_repr_or_in_what_is_said_of_wrong_settings(self) -> None:
        channel = self.channel()
        secrets = secrets_of(channel.settings)
        said = [
            repr(channel),
            repr(channel.settings),
            str(channel.settings),
            repr(vars(channel)),
            repr(channel.place),
            channel.settings.model_dump_json(),
        ]
        for secret in sorted(secrets):
            for wrong in ({"no_such_setting": secret}, {"brand": [secret]}):
                with pytest.raises(ValidationError) as caught:
                    self.channel(**wrong)
                said += explain(caught.value)
        assert not [text for text in said for secret in secrets if secret in text]

    async def test_no_secret_is_in_an_error_or_a_log(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        said: list[str] = []
        for fate in ("", "busy", "broken", "refuses", "denies", "lost", "away", "garbled"):
            async with self.out(fate) as (channel, provider, http):
                try:
                    said.append(repr(await channel.send(self.outbound(), http)))
                except (Refused, TryLater, Unknown) as error:
                    chain: BaseException | None = error
                    while chain is not None:
                        said.append(repr(chain))
                        chain = chain.__cause__ or chain.__context__
                secrets = secrets_of(channel.settings) | provider.credentials
        said += [f"{record.getMessage()} {record.exc_text or ''}" for record in caplog.records]
        assert not [text for text in said for secret in secrets if secret in text]

    # --- files ---

    @pytest.mark.parametrize("temptation", TEMPTATIONS, ids=["redirected", "told another address"])
    async def test_credentials_go_to_the_providers_own_hosts_alone(self, temptation: HttpResponse) -> None:
        channel = self.channel()
        secrets = {secret.lower() for secret in secrets_of(channel.settings)}
        own = [one.url for one in self._files() if one.url]
        for url in [*own, *(address for host in self.hosts or ("api.vendor.example",) for address in foreign(host))]:
            http = Tempting(temptation)
            try:
                found = await channel.fetch(url, http)
            except (Refused, TryLater):
                found = None
            assert found is None or isinstance(found, Attachment)
            for where, went in http.asked:
                parts = urlsplit(where)
                bears = "authorization" in went or "api-key" in went or any(secret in went for secret in secrets)
                right = parts.scheme == "https" and parts.netloc in self.hosts
                assert right or not bears, f"credentials went to {where} for {url}"
                assert url in own or parts.hostname != "evil.example", f"{where} was asked for {url}"

    def _files(self) -> Sequence[Attachment]:
        request = self.shown().get("files_in")
        return [file for one in self.judged(request) if isinstance(one, InboundMessage) for file in one.attachments] if request else []

    def test_a_file_brings_its_bytes_or_an_address_and_a_safe_name(self) -> None:
        for file in self._files():
            assert (file.data is not None) != bool(file.url)
            assert re.fullmatch(r"[^/\\\x00-\x1f.][^/\\\x00-\x1f]*", file.name)
            assert re.fullmatch(r"[a-z0-9.+-]+/[a-z0-9.+-]+", file.content_type)
            assert file.data in (None, PNG)

    def test_what_must_be_fetched_to_verify_is_asked_for_by_the_contract(self) -> None:
        channel = self.channel()
        assert isinstance(channel, Expands) == (hasattr(channel, "prepare") or hasattr(channel, "expand"))
