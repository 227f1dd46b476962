"""The agents' inbox over HTTP and in Chromium: constant reads, nothing unescaped, files that cannot run, drafts that stay."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import FormData, web
from aiohttp.test_utils import TestClient, TestServer
from markupsafe import escape
from PIL import Image
from sqlalchemy import event

from hub.config import ServerSettings, Settings
from hub.contract import Claim, InboundMessage, Proof
from hub.conversations.ingest import Ingest, item
from hub.delivery.works import Claim as Lease
from hub.delivery.works import finish
from hub.keys import digest
from hub.policy import ChannelRule, Policy
from hub.reactions import react
from hub.storage.blobs import Blobs
from hub.storage.reader import sqlite_reader
from hub.storage.records import Agent, AgentSession, Attachment, Customer, Event, Hold, HoldLedger, Identifier, Message, Ticket
from hub.storage.sqlite_hot import SqliteHot
from hub.storage.sqlite_writer import SqliteWriter
from hub.storage.writer import wall_clock
from hub.web import attachments, inbox, pages
from hub.web.context import Hub
from hub.web.feed import Feed
from hub.web.routes import build
from tests.conversations.test_queries import put
from tests.storage import fresh_database

TOKEN = "t" * 43
CSRF = "csrf-of-this-session"
STATIC = Path(inbox.__file__).parent / "static"


@dataclass
class Site:
    hub: Hub
    client: TestClient[Any, Any]
    path: Path

    async def page(self, path: str, status: int = 200) -> str:
        async with self.client.get(path, allow_redirects=False) as response:
            assert response.status == status, await response.text()
            return await response.text()

    async def post(self, path: str, script: bool = True, **form: str) -> aiohttp.ClientResponse:
        headers = {"X-CSRF-Token": CSRF} if script else {}
        return await self.client.post(path, data={**form, **({} if script else {"csrf": CSRF})}, headers=headers, allow_redirects=False)

    async def customer_writes(self, key: str, text: str, phone: str = "+4915012345678", name: str = "") -> None:
        said = InboundMessage(provider_key=key, claims=(Claim("phone", phone, Proof.CHANNEL),), text=text, sender_name=name)
        await self.hub.writer.run(Ingest(1, (item(said, True),), None))

    async def customer_mails(self, key: str, text: str, email: str) -> None:
        said = InboundMessage(provider_key=key, claims=(Claim("email", email, Proof.DMARC),), text=text)
        await self.hub.writer.run(Ingest(2, (item(said, True),), None))


@asynccontextmanager
async def site(tmp_path: Path, rows: Iterable[Any] = ()) -> AsyncIterator[Site]:
    """The inbox as the hub runs it: real writer, reader, reactions, session and CSRF; two channels that are never sent through."""
    path = fresh_database(tmp_path)
    now = wall_clock()
    put(path, [Agent(1, "maria@example.com", "Maria", "x", "admin", now), Agent(2, "jonas@example.com", "Jonas", "x", "agent", now)])
    put(path, [AgentSession(digest(TOKEN), 1, CSRF, now, now, now + 10**12), *rows])
    rules = {
        1: ChannelRule(1, "sms", "SMS", "default", ("phone",), False, False),
        2: ChannelRule(2, "mail", "E-mail", "default", ("email",), False, True),
    }
    bound = {
        rule.name: SimpleNamespace(rule=rule, connector=SimpleNamespace(icon="sms" if rule.id == 1 else "mail", max_text=1_600))
        for rule in rules.values()
    }
    feed = Feed()
    policy = Policy(channels=rules)
    writer = SqliteWriter(path, policy, react, lambda events, owes: feed.publish(events))
    reader = sqlite_reader(path)
    parts: dict[str, Any] = {
        **dict.fromkeys(field.name for field in fields(Hub)),
        "settings": Settings(server=ServerSettings()),
        "policy": policy,
        "writer": writer,
        "reader": reader,
        "hot": SqliteHot(path),
        "blobs": Blobs(tmp_path / "files"),
        "feed": feed,
        "pages": pages.environment(),
        "secret": b"s" * 32,
        "channels": bound,
        "rooms": {},
    }
    hub = Hub(**parts)
    app = build(hub)

    async def close_feed(_: web.Application) -> None:
        feed.close()

    app.on_shutdown.append(close_feed)
    client = TestClient(TestServer(app), cookies={"hub_session": TOKEN})
    await client.start_server()
    try:
        yield Site(hub, client, path)
    finally:
        await client.close()
        await writer.close()
        await reader.close()
        await hub.hot.close()


def people(count: int, text: str = "hello", now: int = 1_800_000_000_000_000) -> list[Any]:
    """So many customers with a ticket each, two messages, an event, a file, a hold with its ledger."""
    rows: list[Any] = []
    for n in range(1, count + 1):
        at = now + n
        rows += [
            Customer(n, f"{text} {n}", at),
            Identifier(n, "phone", "", f"+49150{n:07}", "proven", 0, n, "channel", f"+49150{n:07}", at, at),
            Ticket(n, n, "open", text, "default", 1, n, at, at, text, last_inbound_id=2 * n),
            Message(
                2 * n - 1, n, n, "in", "received", text, at, 1, n, subject=text, sender_name=text, doubt=text, automatic=text, html="<b>x"
            ),
            Message(2 * n, n, n, "out", "failed", text, at, 1, n, 1, error=text),
            Attachment(f"{n:032x}", 2 * n, text, text, 5, "0" * 64, "", False, "failed", error=text),
            Event(n, "ticket.assigned", at, n, n, None, 1, '{"assignee_id": 2}'),
            Hold(n, n, text, text, "{}", at, 2**53),
            HoldLedger(n, n, n, "placed", text, text, 1, at, at),
        ]
    return rows


# --- reads ---


@pytest.mark.parametrize(
    "path",
    ["/inbox/open", "/inbox/all?ticket=1", "/search?q=hello", "/inbox/all?ticket=1&parts=list,views", "/conversations/1/older?before=9"],
)
async def test_a_page_reads_as_often_for_eighty_rows_as_for_one(tmp_path: Path, path: str) -> None:
    counted = []
    for count in (1, 80):
        (tmp_path / str(count)).mkdir()
        rows = people(count)
        if count > 1:
            rows += [Message(500 + n, 1, 1, "in", "received", "hello", 1_800_000_000_000_000 + n, 1, 1) for n in range(40)]
        async with site(tmp_path / str(count), rows) as built:
            statements: list[str] = []
            engine = built.hub.reader._engine.sync_engine
            event.listen(engine, "before_cursor_execute", lambda c, cur, sql, *_, seen=statements: seen.append(sql))
            await built.page(path)
            counted.append(len(statements))
    assert counted[0] == counted[1]
    assert counted[1] <= 19, "one for the session, and one for each part of the screen"


async def test_following_load_more_shows_every_ticket_once(tmp_path: Path) -> None:
    async with site(tmp_path, people(120)) as built:
        seen: list[str] = []
        path: str | None = "/inbox/open"
        while path:
            page = await built.page(path)
            seen += re.findall(r'<li id="ticket-(\d+)"', page)
            following = re.search(r'<a href="([^"]+)" data-more>', page)
            path = following and following[1].replace("&amp;", "&")
        assert [int(n) for n in seen] == list(range(120, 0, -1))


async def test_scrolling_up_shows_every_message_once(tmp_path: Path) -> None:
    rows = people(1)[:3] + [Message(n, 1, 1, "in", "received", f"m{n}", n, 1, 1) for n in range(1, 131)]
    async with site(tmp_path, rows) as built:
        seen: list[int] = []
        path: str | None = "/inbox/open?ticket=1"
        while path:
            page = await built.page(path)
            seen = [int(n) for n in re.findall(r'id="message-(\d+)"', page)] + seen
            following = re.search(r'<a href="([^"]+)" data-older>', page)
            path = following and following[1]
        assert seen == list(range(1, 131))


async def test_the_list_says_who_wrote_what_where_and_whether_it_is_new(tmp_path: Path) -> None:
    async with site(tmp_path) as built:
        await built.customer_writes("k1", "Where is my parcel?", name="Ada Byron")
        page = await built.page("/inbox/open")
        [row] = re.findall(r'<li id="ticket-1".*?</li>', page, re.DOTALL)
        for wanted in ("unread", "Ada Byron", "Where is my parcel?", 'title="SMS"', "Marketing is held", "<time datetime="):
            assert wanted in row
        await built.post("/tickets/1/read", message_id="1")
        [row] = re.findall(r'<li id="ticket-1".*?</li>', await built.page("/inbox/open"), re.DOTALL)
        assert "unread" not in row


@pytest.mark.parametrize(
    "path",
    [*(f"/tickets/9/{command}" for command in ("reply", "note", "assign", "snooze", "resolve", "reopen", "read")), "/messages/9/retry"],
)
async def test_what_does_not_exist_cannot_be_acted_upon(tmp_path: Path, path: str) -> None:
    async with site(tmp_path) as built:
        for script in (True, False):
            assert (await built.post(path, script, text="x", assignee="me")).status == 404


@pytest.mark.parametrize("path", ["/inbox/nowhere", "/conversations/99", "/messages/99/html", "/messages/99/original", "/messages/99/text"])
async def test_what_does_not_exist_is_not_found(tmp_path: Path, path: str) -> None:
    async with site(tmp_path) as built:
        await built.page(path, 404)


@pytest.mark.parametrize(
    "path", ["/inbox/open", "/search?q=x", "/stream", "/attachments/" + "a" * 32, "/messages/1/html", "/conversations/1"]
)
async def test_nothing_is_shown_without_a_session(tmp_path: Path, path: str) -> None:
    async with site(tmp_path, people(1)) as built:
        built.client.session.cookie_jar.clear()
        async with built.client.get(path, allow_redirects=False) as response:
            assert response.status in (303, 401)
            assert "hello" not in await response.text()


async def test_an_old_id_of_a_joined_customer_leads_to_the_survivor(tmp_path: Path) -> None:
    async with site(tmp_path, [*people(1), Customer(2, "Old", 1, 0, 1), Customer(3, "Silent", 1)]) as built:
        for path, goal in (
            ("/conversations/2", "/conversations/1"),
            ("/inbox/all?customer=2", "/conversations/1"),
        ):
            async with built.client.get(path, allow_redirects=False) as response:
                assert (response.status, response.headers["Location"]) == (307, goal)
                assert response.headers["Cache-Control"] == "no-store", "they may be taken apart again"
        async with built.client.get("/", allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (302, "/inbox/open")
        for path in ("/conversations/1", "/inbox/all?customer=1"):
            assert 'data-ticket="1"' in await built.page(path)
        assert "Silent" in await built.page("/conversations/3")
        assert "Silent" in await built.page("/inbox/all?customer=3")


# --- nothing runs ---

XSS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "</textarea><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "javascript:alert(1)",
    "{{7*7}}{% raw %}",
    "<!--<iframe src=javascript:alert(1)>",
    "]]><x>&lt;script&gt;",
    'http://a.example/"onclick=alert(1)//',
    "http://a.example/'><script>alert(1)</script>",
    "\u202e<b>\x00\x02\x03",
]


class Shape(HTMLParser):
    """The elements of a page and the names of their attributes: what text must never be able to change."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.links: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action", "formaction")]


@pytest.mark.parametrize("payload", XSS)
async def test_no_text_of_anybody_changes_the_elements_of_a_page(tmp_path: Path, payload: str) -> None:
    shapes = []
    link = payload.startswith("http")
    for name, text in (("plain", "http://a.example/ word" if link else "plain word"), ("hostile", payload)):
        (tmp_path / name).mkdir()
        async with site(tmp_path / name, people(2, text)) as built:
            found = []
            for path in ("/inbox/all?ticket=1", "/inbox/all?ticket=1&parts=customer", "/conversations/1/older?before=9"):
                page = await built.page(path)
                shape = Shape(page)
                assert link or "\x00" in text or str(escape(text)) in page, "shown, and as text"
                assert not [url for url in shape.links if not url.startswith(("/", "http://a.example/", "#"))]
                found.append([entry for entry in shape.found if not (link and entry[0] == "a" and "rel" in entry[1])])
            shapes.append(found)
            response = await built.post("/tickets/1/reply", script=False, text=text, to="77:1", draft_key="d" * 20)
            assert response.status == 409
            shapes[-1].append(Shape(await response.text()).found)
            search = Shape(await built.page("/search?" + urlencode({"q": text})))
            shapes[-1].append([entry for entry in search.found if entry[0] != "li"][:12])
    assert shapes[0] == shapes[1]


def test_no_template_opts_out_of_escaping_and_no_script_writes_markup() -> None:
    templates = pages.templates_directory()
    looked_at = [*sorted((templates / "inbox").glob("*.html")), templates / "base.html", templates / "plain.html"]
    assert len(looked_at) >= 12
    for file in looked_at:
        text = file.read_text()
        assert not re.search(r"\|\s*safe|autoescape|Markup", text), file
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", text), (
            f"{file}: the policy forbids inline script and style"
        )
    for file in STATIC.glob("*.js"):
        if file.name in ("app.js", "theme.js"):
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", file.read_text()), file


# --- files ---

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


@pytest.mark.parametrize(
    ("data", "name", "type_"),
    [
        (PNG, "a.png", "image/png"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 20, "a.jpg", "image/jpeg"),
        (b"GIF89a" + b"\0" * 20, "a.gif", "image/gif"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "a.webp", "image/webp"),
        (PNG, "a.html", "image/png"),  # the bytes decide, not the name
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "a.svg", ""),
        (b"<html><script>alert(1)</script>", "a.png", ""),  # a page that calls itself a picture
        (b"%PDF-1.7\n/JavaScript", "a.pdf", ""),
        (b"RIFF\x10\0\0\0WAVEfmt ", "a.webp", ""),
        (b"\0\0\0\x0cjP  ", "a.jp2", ""),
        (b"BM" + b"\0" * 30, "a.bmp", ""),
        (b"MIME-Version: 1.0\nContent-Type: multipart/related", "a.mhtml", ""),
        (b"", "empty.png", ""),
    ],
)
async def test_only_four_kinds_of_picture_are_shown_and_all_else_is_a_download(tmp_path: Path, data: bytes, name: str, type_: str) -> None:
    blobs = Blobs(tmp_path / "files")
    row = Attachment("f" * 32, 2, name, "text/html", len(data), blobs.put(data), "", False, "stored")
    async with site(tmp_path, [*people(1), row]) as built, built.client.get("/attachments/" + "f" * 32) as response:
        assert response.status == 200
        assert await response.read() == data
        assert response.headers["Content-Type"] == (type_ or "application/octet-stream")
        assert response.headers["Content-Disposition"].startswith("inline;" if type_ else "attachment;")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("invoice.pdf", "attachment; filename=\"invoice.pdf\"; filename*=UTF-8''invoice.pdf"),
        ("Rechnung für Zoë.pdf", "attachment; filename=\"Rechnung fur Zoe.pdf\"; filename*=UTF-8''Rechnung%20f%C3%BCr%20Zo%C3%AB.pdf"),
        ("../../etc/passwd", "attachment; filename=\"_.._etc_passwd\"; filename*=UTF-8''_.._etc_passwd"),
        ('a"b\r\nSet-Cookie: x', "attachment; filename=\"a_bSet-Cookie_ x\"; filename*=UTF-8''a_bSet-Cookie_%20x"),
        ("gpj\u202eexe.\u200bpdf", "attachment; filename=\"gpjexe.pdf\"; filename*=UTF-8''gpjexe.pdf"),
        ("請求書.pdf", "attachment; filename=\".pdf\"; filename*=UTF-8''%E8%AB%8B%E6%B1%82%E6%9B%B8.pdf"),
        ("\x00\x01", "attachment; filename=\"file\"; filename*=UTF-8''file"),
        ("...", "attachment; filename=\"file\"; filename*=UTF-8''file"),
    ],
)
def test_a_file_name_is_data_in_a_header_and_never_more(name: str, header: str) -> None:
    assert attachments.disposition(name) == header
    assert len(attachments.disposition("x" * 10_000)) < 1_000


async def test_a_file_of_no_message_or_not_yet_here_is_not_served(tmp_path: Path) -> None:
    sha = Blobs(tmp_path / "files").put(b"secret")
    rows = [
        *people(1),
        Attachment("a" * 32, 999, "orphan", "", 6, sha, "", False, "stored"),
        Attachment("b" * 32, 2, "pending", "", 0, "", "", False, "pending"),
        Attachment("c" * 32, 2, "lost", "", 6, "0" * 64, "", False, "stored"),
    ]
    async with site(tmp_path, rows) as built:
        for letter in "abcd":
            await built.page("/attachments/" + letter * 32, 404)


# --- mails in their own HTML ---

MAILS = [
    "<script>alert(1)</script><p>ok",
    "<img src=x onerror=alert(1)>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<textarea></p><img title='</textarea><img src onerror=alert(1)>'>",
    "<title><a title='</title><img src=x onerror=alert(1)>'>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe><object data=x><embed src=x><form action=//x><input autofocus onfocus=alert(1)>",
    "<a href='javascript:alert(1)'>a</a><a href=' jav&#x09;ascript:alert(1)'>b</a><a href='data:text/html,x'>c</a>",
    "<base href='//evil.example/'><meta http-equiv=refresh content='0;url=//evil.example'><link rel=stylesheet href=//evil.example>",
    '<p style="background:url(https://evil.example/p.gif);position:fixed;color:red">x</p>',
    "<img src='data:image/svg+xml,<svg onload=alert(1)>'><img srcset='https://evil.example/1.png 1x'>",
    "<xmp><p></xmp><img src=x onerror=alert(1)></p>",
    "<table background='https://evil.example/b.png'><tr><td>x",
]


@pytest.mark.parametrize("html", MAILS)
def test_a_cleaned_mail_keeps_only_what_cannot_run_or_call_home(html: str) -> None:
    cleaned = attachments.clean(html, {}, remote_images=False)
    assert cleaned is not None
    shape = Shape(cleaned.html)
    assert {tag for tag, _ in shape.found} <= attachments.TAGS
    assert not [name for _, names in shape.found for name in names if name.startswith("on") or name in ("srcset", "background", "srcdoc")]
    assert not [url for url in shape.links if not url.startswith(("http://", "https://", "mailto:", "tel:"))]
    assert "url(" not in cleaned.html
    assert "position" not in cleaned.html


def test_remote_images_are_blocked_until_asked_for_and_their_own_ones_embedded() -> None:
    html = '<img src="https://x.example/1.gif"><img src="HTTP://x.example/2.gif"><img src="cid:logo"><img src="cid:gone">'
    blocked = attachments.clean(html, {"logo": "data:image/png;base64,AA=="}, remote_images=False)
    assert blocked is not None
    assert (blocked.remote, blocked.html) == (2, '<img><img><img src="data:image/png;base64,AA=="><img>')
    loaded = attachments.clean(html, {}, remote_images=True)
    assert loaded is not None
    assert loaded.html.lower().count("http") == 2


def test_a_mail_that_shows_its_picture_a_thousand_times_does_not_grow_a_thousandfold() -> None:
    logo = "data:image/png;base64," + "A" * 1_000_000
    cleaned = attachments.clean('<img src="cid:logo">' * 1_000, {"logo": logo}, remote_images=False)
    assert cleaned is not None
    assert cleaned.html.count(logo) == attachments.MAX_INLINED // len(logo)
    assert len(cleaned.html) < attachments.MAX_INLINED + 100_000


def test_a_mail_too_deep_to_clean_is_refused_at_once() -> None:
    assert attachments.clean("<b>" * 80_000, {}, remote_images=False) is None
    assert attachments.clean("<b>" * 3_000, {}, remote_images=False) is not None


@pytest.mark.parametrize(("query", "images"), [("", "img-src data:;"), ("?images=1", "img-src data: https: http:;")])
async def test_a_mail_is_framed_under_a_policy_of_its_own(tmp_path: Path, query: str, images: str) -> None:
    message = Message(9, 1, 1, "in", "received", "t", 1, 2, 1, html='<img src="cid:a@b"><img src="https://x.example/1.gif">{{7*7}}{0}')
    file = Attachment("e" * 32, 9, "x", "image/png", len(PNG), Blobs(tmp_path / "files").put(PNG), "a@b", True, "stored")
    async with site(tmp_path, [*people(1), message, file]) as built:
        async with built.client.get("/messages/9/html" + query) as response:
            policy, page = response.headers["Content-Security-Policy"], await response.text()
        assert policy.startswith("sandbox ")
        assert "allow-scripts" not in policy
        assert "allow-same-origin" not in policy
        assert "default-src 'none'" in policy
        assert images in policy
        assert page.count("data:image/png;base64,") == 1
        assert ("https://x.example/1.gif" in page) is bool(query)
        assert "{{7*7}}{0}" in page
        frame = Shape(await built.page("/messages/9/original" + query))
        assert ("iframe", ("class", "sandbox", "referrerpolicy", "loading", "title", "src")) in frame.found
        assert any("data-images" in names for _, names in frame.found) is not bool(query)


# --- commands ---


async def test_a_reply_goes_once_however_often_it_is_sent(tmp_path: Path) -> None:
    async with site(tmp_path) as built:
        await built.customer_writes("k1", "Hello")
        answers = await asyncio.gather(
            *(
                built.post("/tickets/1/reply", text="On its way", draft_key="0f8fad5b-d9cb-469f-a165-70867728950e", to="1:1")
                for _ in range(3)
            )
        )
        assert [answer.status for answer in answers] == [204, 204, 204]
        page = await built.page("/inbox/open?ticket=1")
        assert page.count('class="message out') == 1
        assert "Waiting to be sent" in page


async def test_files_go_with_a_reply_and_may_be_opened_again(tmp_path: Path) -> None:
    async with site(tmp_path) as built:
        await built.customer_writes("k1", "Hello")
        form = FormData({"text": "See this", "draft_key": "a" * 20, "then": "resolve"})
        drawn = io.BytesIO()
        Image.new("RGB", (4, 4), "red").save(drawn, "PNG")
        form.add_field("file", drawn.getvalue(), filename="shot.png", content_type="image/png")
        form.add_field("file", b"%PDF", filename="a.pdf", content_type="application/pdf")
        response = await built.client.post("/tickets/1/reply", data=form, headers={"X-CSRF-Token": CSRF})
        assert response.status == 204
        page = await built.page("/inbox/resolved?ticket=1")
        assert "Ticket #1 resolved by Maria" in page
        [picture] = re.findall(r'<img src="(/attachments/[^"]+)"', page)
        async with built.client.get(picture) as shown:
            assert Image.open(io.BytesIO(await shown.read())).size == (4, 4)
        async with built.client.get(picture.removesuffix("/thumbnail")) as shown:
            assert (await shown.read(), shown.headers["Content-Type"]) == (drawn.getvalue(), "image/png")


@pytest.mark.parametrize(
    ("path", "form", "reason"),
    [
        ("/tickets/1/reply", {"text": "  "}, "Write something first."),
        ("/tickets/1/reply", {"text": "hi", "to": "2:1"}, "cannot be reached by E-mail"),
        ("/tickets/1/reply", {"text": "hi", "to": "77:1"}, "no longer configured"),
        ("/tickets/1/reply", {"text": "hi", "seen": "1"}, "The customer wrote again"),
        ("/tickets/1/note", {"text": ""}, "Write something first."),
        ("/tickets/1/assign", {"assignee": "99"}, "There is no such agent."),
        ("/tickets/1/assign", {"assignee": "x"}, "There is no such agent."),
        ("/tickets/1/snooze", {"for": "ever"}, "Choose how long"),
        ("/tickets/1/reopen", {}, "already open"),
    ],
)
async def test_a_refusal_is_told_in_words_and_the_text_is_kept(tmp_path: Path, path: str, form: dict[str, str], reason: str) -> None:
    async with site(tmp_path) as built:
        await built.customer_writes("k1", "Hello")
        await built.customer_writes("k2", "Again")
        fragment = await built.post(path, **form)
        assert (fragment.status, reason in await fragment.text()) == (409, True)
        assert "<html" not in await fragment.text()
        whole = await built.post(path, script=False, **form)
        assert whole.status == 409
        page = await whole.text()
        assert reason in page
        assert (form.get("text") or "Back to the ticket") in page
        assert 'class="message out' not in await built.page("/inbox/all?ticket=1")


@pytest.mark.parametrize(
    ("back", "goal"),
    [
        ("/inbox/mine?ticket=1", "/inbox/mine?ticket=1"),
        ("/search?q=a&ticket=1", "/search?q=a&ticket=1"),
        ("//evil.example", "/inbox/open?ticket=1"),
        ("https://evil.example", "/inbox/open?ticket=1"),
        ("/inbox/x\\..//evil", "/inbox/open?ticket=1"),
        ("/inbox/open?a\r\nSet-Cookie: x", "/inbox/open?ticket=1"),
        ("", "/inbox/open?ticket=1"),
    ],
)
async def test_a_form_without_script_returns_to_our_own_page(tmp_path: Path, back: str, goal: str) -> None:
    async with site(tmp_path) as built:
        await built.customer_writes("k1", "Hello")
        response = await built.post("/tickets/1/assign", script=False, assignee="me", back=back)
        assert (response.status, response.headers["Location"]) == (303, goal)


async def test_files_the_disk_has_no_room_for_send_nothing_and_keep_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site(tmp_path) as built:
        await built.customer_writes("k1", "Hello")

        def full(data: bytes) -> str:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(built.hub.blobs, "put", full)
        form = FormData({"text": "A long answer", "draft_key": "a" * 20, "csrf": CSRF})
        form.add_field("file", PNG, filename="shot.png", content_type="image/png")
        async with built.client.post("/tickets/1/reply", data=form) as response:
            assert (response.status, "A long answer" in await response.text()) == (503, True)
        assert 'class="message out' not in await built.page("/inbox/open?ticket=1")


async def test_reading_ahead_of_what_is_there_leaves_the_next_message_new(tmp_path: Path) -> None:
    async with site(tmp_path) as built:
        await built.customer_writes("k1", "Hello")
        assert (await built.post("/tickets/1/read", message_id="9" * 15)).status == 204
        assert 'data-unread="0"' in await built.page("/inbox/open")
        await built.customer_writes("k2", "Again")
        assert 'data-unread="1"' in await built.page("/inbox/open")


@pytest.mark.parametrize("state", ["failed", "unknown"])
async def test_a_reply_that_did_not_go_is_sent_again_from_the_conversation(tmp_path: Path, state: str) -> None:
    async with site(tmp_path) as built:
        await built.customer_writes("k1", "Hello")
        assert (await built.post("/tickets/1/reply", text="On its way", draft_key="d" * 20)).status == 204
        assert "/retry" not in await built.page("/inbox/open?ticket=1")
        assert (await built.post("/messages/2/retry")).status == 409, "what is under way is not sent again"
        (row,) = await built.hub.writer.run(Lease("lease", 1))
        outcome: Any = state
        assert await built.hub.writer.run(finish(row, outcome, error="The carrier did not answer."))
        page = await built.page("/inbox/open?ticket=1")
        assert page.count('action="/messages/2/retry"') == 1
        assert ("the customer may get it twice" in page) == (state == "unknown")
        assert (await built.post("/messages/2/retry", script=False, back="/inbox/open?ticket=1")).status == 303
        page = await built.page("/inbox/open?ticket=1")
        assert ("Waiting to be sent" in page, "/messages/2/retry" in page) == (True, False)
        assert (await built.post("/messages/2/retry")).status == 409, "a second click sends nothing twice"
        assert [each.id for each in await built.hub.writer.run(Lease("lease", 1))] == [row.id]
        assert (await built.post("/messages/1/retry")).status == 409, "what a customer said cannot be sent"


async def test_the_life_of_a_ticket_by_its_buttons(tmp_path: Path) -> None:
    async with site(tmp_path) as built:
        await built.customer_writes("k1", "Hello")
        for path, form, view, words in (
            ("assign", {"assignee": "2"}, "open", "Maria assigned Jonas"),
            ("assign", {"assignee": ""}, "unassigned", "Maria unassigned the ticket"),
            ("assign", {"assignee": "me"}, "mine", "Maria took the ticket"),
            ("note", {"text": "Mind the gap", "draft_key": "n" * 20}, "mine", "Mind the gap"),
            ("snooze", {"for": "tomorrow"}, "snoozed", "Ticket #1 snoozed by Maria until"),
            ("reopen", {}, "mine", "Ticket #1 taken out of snooze by Maria"),
            ("resolve", {}, "resolved", "Marketing hold released"),
            ("reopen", {}, "mine", "Ticket #1 reopened by Maria"),
        ):
            assert (await built.post(f"/tickets/1/{path}", **form)).status == 204
            page = await built.page(f"/inbox/{view}?ticket=1")
            assert 'id="ticket-1"' in page, view
            assert words in page


async def test_a_command_without_its_token_changes_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as built:
        await built.customer_writes("k1", "Hello")
        for command in ("reply", "note", "assign", "snooze", "resolve", "reopen", "read"):
            async with built.client.post(f"/tickets/1/{command}", data={"text": "x", "assignee": "me"}) as response:
                assert response.status == 403
        assert "Nothing assigned to you" in await built.page("/inbox/mine")


# --- live ---


async def frames(response: aiohttp.ClientResponse, count: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    current: dict[str, str] = {}
    async with asyncio.timeout(10):
        async for raw in response.content:
            line = raw.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                current[name] = value
                continue
            if "data" in current:
                found.append(current)
            current = {}
            if len(found) == count:
                return found
    raise AssertionError(f"the stream ended after {found}")


async def test_what_commits_is_heard_as_ids_only_and_what_was_missed_is_caught_up(tmp_path: Path) -> None:
    async with site(tmp_path) as built:
        async with built.client.get("/stream") as response:
            assert response.headers["X-Accel-Buffering"] == "no"
            assert response.headers["Content-Type"].startswith("text/event-stream")
            await built.customer_writes("k1", "a secret text")
            [frame] = await frames(response, 1)
        assert frame["event"] == "changes"
        assert "secret" not in frame["data"]
        changes = json.loads(frame["data"])
        assert set(changes[0]) == {"seq", "type", "customer_id", "ticket_id", "message_id"}
        assert {"customer.created", "ticket.opened", "message.received", "hold.placed"} <= {change["type"] for change in changes}
        assert int(frame["id"]) == changes[-1]["seq"]
        await built.customer_writes("k2", "while away")
        async with built.client.get("/stream?after=1", headers={"Last-Event-ID": frame["id"]}) as response:
            [caught_up] = await frames(response, 1)
        assert {change["type"] for change in json.loads(caught_up["data"])} == {"message.received"}, "the header is newer than the address"


async def test_what_commits_between_a_page_and_its_stream_is_not_lost(tmp_path: Path) -> None:
    async with site(tmp_path) as built:
        await built.customer_writes("k1", "Hello")
        [seq] = re.findall(r'data-seq="(\d+)"', await built.page("/inbox/open?ticket=1"))
        await built.customer_writes("k2", "right behind the page")
        async with built.client.get(f"/stream?after={seq}") as response:
            [frame] = await frames(response, 1)
        assert [change["type"] for change in json.loads(frame["data"])] == ["message.received"], "this and nothing the page showed already"


async def test_a_number_of_another_database_says_read_everything_again(tmp_path: Path) -> None:
    async with site(tmp_path) as built, built.client.get("/stream", headers={"Last-Event-ID": "0a1b2c3d-500"}) as response:
        [frame] = await frames(response, 1)
        assert frame["event"] == "resync"


async def test_what_came_before_this_process_is_read_from_the_table(tmp_path: Path) -> None:
    """A restart, or a ring that turned over, is no reason for a thousand browsers to read everything again."""
    async with site(tmp_path, [Event(seq, "message.received", 1, 1, 1, seq) for seq in (2, 3, 5, 8)]) as built:
        built.hub.feed = Feed(8, "0a1b2c3d")
        async with built.client.get("/stream", headers={"Last-Event-ID": "0a1b2c3d-3"}) as response:
            [caught_up] = await frames(response, 1)
            built.hub.feed.publish([Event(9, "message.received", 1, 1, 1, 9)])
            [live] = await frames(response, 1)
        assert [change["seq"] for change in json.loads(caught_up["data"])] == [5, 8]
        assert (caught_up["id"], live["id"]) == ("0a1b2c3d-8", "0a1b2c3d-9")


async def test_whoever_missed_too_much_reads_everything_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.web.live.REPLAYED", 3)
    async with site(tmp_path, [Event(seq, "message.received", 1, 1, 1, seq) for seq in range(1, 9)]) as built:
        built.hub.feed = Feed(8)
        for after, kind in ((4, "resync"), (5, "changes")):
            async with built.client.get(f"/stream?after={after}") as response:
                [frame] = await frames(response, 1)
            assert frame["event"] == kind


async def test_an_open_stream_ends_with_the_hub_and_with_its_session(tmp_path: Path) -> None:
    async with site(tmp_path) as built:
        async with built.client.get("/stream") as response, asyncio.timeout(10):
            built.hub.feed.close()
            assert b"data" not in await response.read()
        async with built.client.get("/stream") as response, asyncio.timeout(10):
            connection = sqlite3.connect(built.path)
            connection.execute("UPDATE agent SET disabled_at = 1 WHERE id = 1")
            connection.commit()
            connection.close()
            built.hub.feed.publish([Event(7, "agent.disabled", 1, agent_id=1)])
            assert b"data" not in await response.read(), "an agent who was shut out hears nothing more"


# --- in a browser ---


@pytest.mark.browser
async def test_a_live_message_leaves_draft_caret_menu_and_scroll_as_they_were(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.async_api")
    async with site(tmp_path) as built, playwright.async_playwright() as p:
        for n in range(40):
            await built.customer_writes(f"k{n}", f"Line {n} of a long talk", name="Ada Byron")
        put(built.path, [Identifier(50, "email", "", "ada@example.com", "proven", 0, 1, "dmarc", "ada@example.com", 1, 1)])
        browser = await p.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        try:
            context = await browser.new_context(viewport={"width": 1200, "height": 700})
            await context.add_cookies([{"name": "hub_session", "value": TOKEN, "url": str(built.client.make_url("/"))}])
            page = await context.new_page()
            faults: list[str] = []
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
            expect = playwright.expect
            await page.goto(str(built.client.make_url("/inbox/open")))
            await page.locator("#ticket-1 a").click()
            await expect(page.locator(".pane h1")).to_have_text("Ada Byron")
            area = page.get_by_role("textbox", name="Write a reply to Ada Byron")
            await area.fill("half a thought")
            await page.locator("#assign-menu summary").click()
            await area.evaluate("area => { area.focus(); area.setSelectionRange(4, 4); }")
            scroll = page.locator(".timeline-scroll")
            await scroll.evaluate("box => { box.scrollTop = 100; }")
            ways_out = page.locator("select[name=to]")
            await expect(ways_out).to_have_value("1:1")
            await built.customer_mails("mail", "By mail now", "ada@example.com")
            await expect(ways_out).to_have_value("2:50")  # the way out follows the customer ...
            await built.customer_writes("sms", "By SMS again")
            await expect(ways_out).to_have_value("1:1")
            await ways_out.select_option("2:50")
            await built.customer_mails("mail again", "By mail again", "ada@example.com")
            await built.customer_writes("live", "LIVE <b>message</b>")
            await expect(page.get_by_role("log").get_by_text("LIVE <b>message</b>")).to_be_attached()
            await built.customer_writes("other", "Somebody else", phone="+4915099999999", name="Zoë")
            await expect(page.locator("#rows > li").first).to_contain_text("Zoë")
            state = "area => [area.value, document.activeElement === area, area.selectionStart]"
            assert await area.evaluate(state) == ["half a thought", True, 4]
            await expect(ways_out).to_have_value("2:50")  # ... until the agent chooses
            assert await page.locator("#assign-menu").evaluate("menu => menu.open")
            assert await scroll.evaluate("box => box.scrollTop") == 100
            await expect(page.get_by_role("button", name="New messages")).to_be_visible()
            await expect(page).to_have_title(re.compile(r"^\(1\) "))

            # The draft is still there after a reload; a note typed meanwhile is a text of its own.
            await page.reload()
            await expect(area).to_have_value("half a thought")
            await page.get_by_role("tab", name="Note").click()
            note = page.get_by_role("textbox", name="Write a note for your team")
            await expect(note).to_have_value("")
            await note.fill("only for us")
            await page.keyboard.press("Control+Enter")
            await expect(page.locator(".message.note")).to_contain_text("only for us")
            await page.get_by_role("tab", name="Reply").click()
            await expect(area).to_have_value("half a thought")

            # A refusal gives the text back.
            # In one step: the next live message would correct what the page has seen.
            stale = "form => { form.elements.seen.value = '1'; form.requestSubmit(form.querySelector('[data-send]')); }"
            await page.locator("[data-composer]").evaluate(stale)
            await expect(page.get_by_role("alert")).to_contain_text("The customer wrote again")
            await expect(area).to_have_value("half a thought")
            await expect(page.locator("[name=seen]")).not_to_have_value("1")
            await area.press("Control+Enter")
            await expect(page.locator(".message.out:not(.pending)")).to_contain_text("half a thought")
            await expect(page.locator(".message.out")).to_have_count(1)
            await expect(area).to_have_value("")

            # By keyboard alone: take it, resolve it, and it leaves the list; then to another view.
            await page.keyboard.press("Escape")
            await page.keyboard.press("e")
            await expect(page.locator(".head .state")).to_have_text("Resolved")
            await expect(page.locator("#ticket-1")).to_have_count(0)
            await page.keyboard.press("g")
            await page.keyboard.press("d")
            await expect(page.locator("#ticket-1")).to_be_visible()
            refused = [fault for fault in faults if "409" not in fault]
            assert refused == []
        finally:
            await browser.close()
