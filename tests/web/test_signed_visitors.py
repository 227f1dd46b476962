"""A site's token over the routes a browser uses: it is used once, its keys are fetched rarely, and what it does not prove stays unseen."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.async_api import Page, async_playwright
from sqlalchemy import select

from connectors.webchat import WebChat
from hub.app import Running
from hub.config import SiteSettings
from hub.conversations.ingest import Ingest, item
from hub.customers import site_keys
from hub.customers.site_keys import AGAIN, KeySets
from hub.customers.visitors import first_use
from hub.http import GuardedHttp
from hub.storage.tables import metadata
from hub.web import visitors
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.storage import POLICY
from tests.storage.several import needs_postgres, several
from tests.web.test_chat import KEY, Known, Say, Stand, Visitor, build_hub, site_token

OLD, NEW, STRANGER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    app, hub = build_hub(tmp_path / "hub.db")
    client = TestClient(TestServer(app))
    await client.start_server()
    yield Stand(app, hub, client, tmp_path / "hub.db")
    hub.feed.close()
    await client.close()
    await hub.writer.close()
    await hub.reader.close()


def configure(stand: Stand, **changes: Any) -> None:
    """Change the settings of the shop."""
    shop = stand.hub.settings.sites["shop"].model_dump() | changes
    sites = {**stand.hub.settings.sites, "shop": SiteSettings(**shop)}
    stand.hub.settings = stand.hub.settings.model_copy(update={"sites": sites})


async def is_ana(visitor: Visitor, **body: object) -> bool:
    told = await visitor.begin(**body)
    assert told["identified"] == ("problem" not in told)
    return bool(told["identified"])


# --- attacks (numbers of the attack table on identity) ---


@pytest.mark.parametrize(
    "body",
    [
        {"user_id": "ana", "email": "ana@mail.example"},
        {"identify": {"sub": "ana", "email": "ana@mail.example", "email_verified": True}},
        {"identify": "ana"},
        {"identify": None},
        {"identify": ""},
        {"identify": "null"},
        {"identifier_hash": "", "identify": {"identifier_hash": None}},
    ],
    ids=["claims beside the request", "claims in place of a token", "an id", "null", "empty", "null in words", "an empty hash"],
)
async def test_a2_what_a_browser_says_by_itself_is_no_identification(stand: Stand, body: dict[str, Any]) -> None:
    (mail,) = await stand.hub.writer.run(Known((("email", "", "ana@mail.example", "proven", 0),)))
    ana = await stand.visitor(identify=site_token("ana"))
    await ana.says("ana's secret")
    attacker = await stand.visitor(**body)
    assert not attacker.told["identified"]
    await attacker.says("hello", email="ana@mail.example", user_id="ana")
    assert await attacker.sees() == ["hello"]
    ((victim,),) = stand.rows(f"SELECT customer_id FROM identifier WHERE id = {mail}")
    assert (victim,) not in stand.rows("SELECT conversation_id FROM message WHERE text = 'hello'")


async def test_a3_unsigned_email_beside_a_valid_token_counts_for_nothing(stand: Stand) -> None:
    configure(stand, trust_phone=True)
    mail, phone = await stand.hub.writer.run(
        Known((("email", "", "victim@mail.example", "proven", 0), ("phone", "", "+4915550100001", "proven", 0)))
    )
    beside: dict[str, Any] = {
        "email": "victim@mail.example",
        "email_verified": True,
        "phone_number": "+4915550100001",
        "phone_number_verified": True,
    }
    attacker = await stand.visitor(identify=site_token("mallory"), **beside)
    assert attacker.told["identified"]
    await attacker.says("hello", **beside)
    ((victim,), (other,)) = stand.rows(f"SELECT customer_id FROM identifier WHERE id IN ({mail}, {phone})")
    assert victim == other
    assert stand.rows(f"SELECT text FROM message WHERE conversation_id = {victim}") == []


@pytest.mark.parametrize(("trusted", "joins"), [(True, True), (False, False)])
async def test_a_phone_in_the_token_joins_only_where_the_sites_word_is_trusted(stand: Stand, trusted: bool, joins: bool) -> None:
    configure(stand, trust_phone=trusted)
    (phone,) = await stand.hub.writer.run(Known((("phone", "", "+4915550100001", "proven", 0),)))
    ana = await stand.visitor(identify=site_token("ana", phone_number="+49 1555 0100001", phone_number_verified=True))
    await ana.says("hello")
    ((known,),) = stand.rows(f"SELECT customer_id FROM identifier WHERE id = {phone}")
    ((speaks,),) = stand.rows("SELECT conversation_id FROM message")
    assert (speaks == known) is joins
    await stand.hub.writer.run(Say(phone, "a text to the phone"))
    assert await ana.sees() == ["hello"]  # joined or not: a number opens no chat history


async def test_a4_a_replayed_token_proves_nothing_at_another_browser(stand: Stand) -> None:
    token = site_token("ana", jti="page-1")
    ana = await stand.visitor(identify=token)
    await ana.says("ana's secret")
    thief = await stand.visitor()
    device = thief.device
    told = await thief.begin(identify=token)
    assert (told["identified"], told["visitor"]) == (False, device)
    assert "used before" in told["problem"]
    await thief.says("let me in")
    assert await thief.sees() == ["let me in"]
    assert len(stand.rows("SELECT DISTINCT conversation_id FROM message")) == 2
    fresh = Visitor(stand)  # nor at a browser that was never here
    assert not await is_ana(fresh, identify=token)
    # The negative twin: a token of its own is who it says, on any browser.
    assert await is_ana(fresh, identify=site_token("ana", jti="page-2"))
    assert await fresh.sees() == ["ana's secret"]


async def test_a4_a_replayed_token_ends_the_session_of_whoever_tries_it(stand: Stand) -> None:
    token = site_token("ana", jti="page-1")
    await stand.visitor(identify=token)
    ben = await stand.visitor(identify=site_token("ben"))
    device = ben.device
    assert not await is_ana(ben, identify=token)
    assert ben.device != device


async def test_a_reload_with_the_same_token_changes_nothing_for_the_browser_that_used_it(stand: Stand) -> None:
    token = site_token("ana", jti="page-1")
    ana = await stand.visitor(identify=token)
    device = ana.device
    for _ in range(3):
        assert await is_ana(ana, identify=token)
    assert ana.device == device
    assert stand.rows("SELECT count(*) FROM dedupe WHERE provider_key LIKE 'jti:%'") == [(1,)]
    assert stand.rows("SELECT provider_key FROM dedupe WHERE provider_key LIKE '%page-1%'") == []


async def test_a4_after_a_logout_the_old_page_proves_nothing(stand: Stand) -> None:
    token = site_token("ana", jti="page-1")
    computer = await stand.visitor(identify=token)
    await computer.says("ana's secret")
    computer.token = ""  # what the widget's logout does; then somebody presses Back
    assert not await is_ana(computer, identify=token)
    assert await computer.sees() == []


@pytest.mark.parametrize(("first", "then"), [("chat", "blog"), ("blog", "chat")])
async def test_a4_a_used_token_is_used_at_every_widget_of_its_site(stand: Stand, first: str, then: str) -> None:
    configure(stand, origins=["https://shop.example", "https://blog.example"])
    shop, blog = (cast(WebChat, stand.hub.channels[name].connector) for name in ("chat", "blog"))
    blog.settings = shop.settings
    token = site_token("ana", jti="page-1")
    assert await is_ana(Visitor(stand, channel=first), identify=token)
    assert not await is_ana(Visitor(stand, channel=then), identify=token)


async def test_a4_one_id_at_two_sites_is_two_tokens(stand: Stand) -> None:
    assert await is_ana(Visitor(stand), identify=site_token("ana", jti="1"))
    assert await is_ana(Visitor(stand, channel="blog"), identify=site_token("ana", jti="1", key=KEY[::-1]))


async def test_a4_of_many_browsers_with_one_token_at_once_one_is_the_visitor(stand: Stand) -> None:
    token = site_token("ana", jti="page-1")
    crowd = [Visitor(stand) for _ in range(20)]
    assert sum(await asyncio.gather(*(is_ana(one, identify=token) for one in crowd))) == 1
    assert stand.rows("SELECT count(*) FROM identifier WHERE kind = 'device'") == [(1,)]


@needs_postgres
async def test_a4_several_hubs_on_one_database_count_a_token_once() -> None:
    """The negative twin is each other token: whoever comes first with it is the visitor."""
    async with several(4) as hubs:
        channel = next(iter(POLICY.channels))
        for number in range(10):
            use = Ingest(channel, (item(first_use("shop", f"page-{number}"), True),), None)
            outcomes = await asyncio.gather(*(writer.run(use) for writer in hubs.writers for _ in range(3)))
            assert sorted(outcome.duplicates for outcome in outcomes) == [0] + [1] * 11


async def test_a4_a_token_that_proves_nothing_is_not_used_up(stand: Stand) -> None:
    """Else a stranger could spend other people's tokens by guessing their ids."""
    for spoilt in (site_token("ana", jti="page-1", aud="other"), site_token("ana", jti="page-1", key="x" * 40)):
        assert not await is_ana(Visitor(stand), identify=spoilt)
    assert await is_ana(Visitor(stand), identify=site_token("ana", jti="page-1"))


async def test_without_a_token_id_a_copy_works_until_it_expires(stand: Stand) -> None:
    """The documented limit: the site chose no `jti`, so only the short life protects its visitors."""
    token = site_token("ana")
    assert await is_ana(Visitor(stand), identify=token)
    copy = Visitor(stand)
    assert await is_ana(copy, identify=token)
    stand.app[visitors.CHAT].clock = lambda: time.time() + 700
    assert not await is_ana(Visitor(stand), identify=token)


# --- keys ---


async def test_rotation_with_two_keys_while_the_site_changes_its_own(stand: Stand) -> None:
    second = "the-second-site-key-of-at-least-32-characters"
    configure(stand, key=None, keys=[{"key": KEY}, {"key": second, "kid": "second"}])
    assert await is_ana(Visitor(stand), identify=site_token("ana"))
    assert await is_ana(Visitor(stand), identify=site_token("ana", key=second))
    configure(stand, keys=[{"key": second, "kid": "second"}])
    assert not await is_ana(Visitor(stand), identify=site_token("ana"))
    assert await is_ana(Visitor(stand), identify=site_token("ana", key=second))


def public(key: Any, kid: str) -> dict[str, Any]:
    return {**jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig", "key_ops": ["verify"]}


def signed(key: Any, kid: str, user: str = "ana", **header: object) -> str:
    claims = {"sub": user, "aud": "support-hub", "exp": int(time.time()) + 600}
    return jwt.encode(claims, key, "ES256", {"kid": kid, **header})


@dataclass
class Shop:
    """The shop's own server, which serves its keys, and what else somebody could make the hub call."""

    stand: Stand
    keys: list[dict[str, Any]] = field(default_factory=lambda: [public(OLD, "old")])
    status: int = 200
    asked: list[str] = field(default_factory=list)
    now: float = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        return web.Response(
            status=self.status, text=json.dumps({"keys": self.keys if request.path == "/jwks" else [public(STRANGER, "old")]})
        )


@pytest.fixture
async def shop(stand: Stand) -> AsyncIterator[Shop]:
    shop = Shop(stand)
    app = web.Application()
    app.router.add_get("/{path:.*}", shop.answer)
    server = TestServer(app)
    await server.start_server()
    http = GuardedHttp([f"127.0.0.1:{server.port}"])
    configure(stand, key=None, jwks_url=str(server.make_url("/jwks")))
    stand.app[visitors.CHAT].key_sets = KeySets(http, lambda: shop.now)
    yield shop
    await http.close()
    await server.close()


async def test_a_site_that_serves_its_keys_changes_them_without_anybody_at_the_hub(shop: Shop) -> None:
    stand = shop.stand
    assert await is_ana(Visitor(stand), identify=signed(OLD, "old"))
    shop.keys.append(public(NEW, "new"))
    shop.now += AGAIN
    assert await is_ana(Visitor(stand), identify=signed(NEW, "new"))
    assert await is_ana(Visitor(stand), identify=signed(OLD, "old"))
    del shop.keys[0]
    shop.now += site_keys.FRESH
    assert not await is_ana(Visitor(stand), identify=signed(OLD, "old"))
    assert await is_ana(Visitor(stand), identify=signed(NEW, "new"))
    assert shop.asked == ["/jwks"] * 3


async def test_jwks_down_who_is_known_stays_known_and_nobody_else_gets_in(shop: Shop) -> None:
    stand = shop.stand
    shop.status = 500
    told = await Visitor(stand).begin(identify=signed(OLD, "old"))
    assert (told["identified"], "cannot be fetched now" in told["problem"]) == (False, True)
    assert "127.0.0.1" not in told["problem"]
    shop.status = 200
    shop.now += AGAIN
    assert await is_ana(Visitor(stand), identify=signed(OLD, "old"))
    shop.status = 500
    shop.now += site_keys.FRESH
    assert await is_ana(Visitor(stand), identify=signed(OLD, "old"))
    assert not await is_ana(Visitor(stand), identify=signed(NEW, "new"))
    shop.now += site_keys.KEPT
    assert not await is_ana(Visitor(stand), identify=signed(OLD, "old"))


async def test_key_confusion_over_the_wire_and_keys_that_a_token_brings_along(shop: Shop) -> None:
    stand = shop.stand
    assert await is_ana(Visitor(stand), identify=signed(OLD, "old"))
    pem = OLD.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    elsewhere = stand.hub.settings.sites["shop"].jwks_url.replace("/jwks", "/mine")
    forged = [
        signed(STRANGER, "old", jku=elsewhere),
        signed(STRANGER, "old", x5u=elsewhere),
        signed(STRANGER, "old", jwk=public(STRANGER, "old")),
        signed(STRANGER, elsewhere),
        jwt.PyJWS().encode(b'{"sub":"ana"}', pem[27:], "HS256", {"kid": "old"}),  # the library itself refuses the whole of it
        jwt.PyJWS().encode(b'{"sub":"ana"}', "", "none", {"kid": "old"}),
    ]
    for token in forged:
        assert not await is_ana(Visitor(stand), identify=token)
    assert shop.asked == ["/jwks"]  # nothing in a token is an address


async def test_visitors_cannot_make_the_hub_flood_the_sites_server(shop: Shop) -> None:
    stand = shop.stand
    stand.app[visitors.CHAT].among(stand.hub)
    stand.app[visitors.CHAT].newcomers["chat"] = visitors.Buckets(1_000, 1)
    crowd = [Visitor(stand) for _ in range(60)]
    found = await asyncio.gather(*(is_ana(one, identify=signed(STRANGER, f"made-up-{n}")) for n, one in enumerate(crowd)))
    assert not any(found)
    assert shop.asked == ["/jwks"]


# --- a real browser ---

EMBEDS = """<!doctype html><title>A shop</title>
<script>window.HubChat = function () { (window.HubChat.q = window.HubChat.q || []).push(arguments); };</script>
<script src="/widget.js" data-channel="chat" async></script>"""


@pytest.mark.browser
async def test_a4_a_wrong_an_expired_and_a_used_token_say_so_in_the_console_and_leave_the_visitor_anonymous(running: Running) -> None:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    site = running.settings.sites["shop"]
    assert site.key is not None
    used = site_token("ana", key=site.key.get_secret_value(), jti="page-1")
    tokens = {
        "wrong": site_token("ana", key="another-key-of-at-least-thirty-two-characters"),
        "expired": site_token("ana", key=site.key.get_secret_value(), exp=int(time.time()) - 3_600),
        "used": used,
        "good": site_token("ana", key=site.key.get_secret_value(), jti="page-2"),
    }
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)

        async def shop() -> tuple[Page, list[str]]:
            """A browser of its own, on a page of the shop."""
            page = await (await browser.new_context()).new_page()
            errors: list[str] = []
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            await page.route("**/shop", lambda route: route.fulfill(body=EMBEDS, content_type="text/html"))
            await page.goto(f"{running.settings.server.public_url}/shop")
            return page, errors

        async def identify(page: Page, token: str) -> dict[str, Any]:
            """What the hub answered the widget."""
            async with page.expect_response("**/chat/chat/session") as answered:
                await page.evaluate("(token) => HubChat('identify', { token: async () => token })", token)
            return dict(await (await answered.value).json())

        ana, faults = await shop()
        assert (await identify(ana, used))["identified"]
        assert faults == []
        for name, said in [("wrong", "the signature does not fit"), ("expired", "the token expired 36"), ("used", "used before")]:
            page, errors = await shop()
            async with page.expect_console_message(lambda message: message.type == "error"):
                assert not (await identify(page, tokens[name]))["identified"]
            assert len(errors) == 1
            assert errors[0].startswith("HubChat identify: ")
            assert said in errors[0]
            assert tokens[name] not in errors[0]
            await page.evaluate("HubChat('open')")
            async with page.expect_response("**/in/chat") as stored:
                await page.locator("hub-chat textarea").fill(f"hello from the {name}")
                await page.keyboard.press("Enter")
            assert (await stored.value).ok, "an anonymous visitor may write"
        page, errors = await shop()
        assert (await identify(page, tokens["good"]))["identified"]
        assert errors == []
        await browser.close()
    message, identifier = metadata.tables["message"], metadata.tables["identifier"]
    spoke = await running.hub.reader.all(
        select(message.c.text, identifier.c.kind).join(identifier, identifier.c.id == message.c.identifier_id).order_by(message.c.id)
    )
    assert [tuple(row) for row in spoke] == [(f"hello from the {name}", "device") for name in ("wrong", "expired", "used")]
