"""Every route of the hub, and what each kind of caller gets from it: a route that is not in the table fails here.

No answer tells of our insides, no id of somebody else's opens anything, no form of another page acts, no GET changes a row.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from hub import agents
from hub.app import Running, sandbox_token
from hub.conversations.files import NONE
from hub.delivery.tokens import file_token
from hub.keys import digest
from hub.passwords import Verified
from hub.satisfaction.surveys import Link
from hub.satisfaction.surveys import token as survey_token
from hub.sessions import OpenSession
from hub.storage.marketing_records import FollowUp, Survey
from hub.storage.records import (
    Agent,
    ApiToken,
    Attachment,
    Customer,
    Delivery,
    Evidence,
    Hold,
    Identifier,
    JoinLog,
    Message,
    OptOut,
    Participant,
    Quarantine,
    Ticket,
)
from tests.web import Insert

ANYONE = "anonymous visitor token agent admin forged"
# route -> the status for each caller, in this order: nobody; a chat visitor's token; an API token; an agent; an administrator; and a
# form another page posts with an administrator's cookie but not their CSRF token. A disabled agent gets what nobody gets.
TABLE: dict[str, str] = {
    # for everybody
    "GET /healthz": "200 200 200 200 200 200",
    "GET /static": "200 200 200 200 200 200",
    "GET /widget.js": "200 200 200 200 200 200",
    "GET /files/{token}": "200 200 200 200 200 200",  # the signed link is the permission
    "GET /login": "200 200 200 303 303 303",
    "GET /setup/{link}": "200 200 200 200 200 200",
    "GET /sandbox": "200 200 200 200 200 200",
    "GET /sandbox/shop": "200 200 200 200 200 200",
    "GET /sandbox/stream": "200 200 200 200 200 200",
    "GET /sandbox/media/{media}": "404 404 404 404 404 404",
    "GET /s/{survey}": "200 200 200 200 200 200",  # the signed link is the permission
    # programs
    "GET /api/v1/holds/proof/head": "401 401 200 401 401 401",
    "GET /api/v1/holds/check": "401 401 200 401 401 401",
    "GET /api/v1/holds/feed": "401 401 200 401 401 401",
    "GET /api/v1/holds/changes": "401 401 200 401 401 401",
    "GET /api/v1/holds": "401 401 200 401 401 401",
    "GET /api/v1/customers": "401 401 200 401 401 401",
    "GET /api/v1/customers/{customer_id}": "401 401 200 401 401 401",
    "GET /api/v1/holds/missed": "401 401 200 401 401 401",
    "GET /api/v1/satisfaction": "401 401 200 401 401 401",
    "GET /api/v1/follow-ups": "401 401 200 401 401 401",
    "GET /api/v1/customers/{customer_id}/holds": "401 401 200 401 401 401",
    "GET /api/v1/customers/{customer_id}/why": "401 401 200 401 401 401",
    "GET /api/v1/customers/{customer_id}/suggestions": "401 401 200 401 401 401",
    # visitors
    "GET /chat/{channel}/config": "200 200 200 200 200 200",
    "GET /chat/{channel}/continue": "200 200 200 200 200 200",  # an empty page: what opens the chat lies behind the #
    "GET /chat/{channel}/messages": "401 200 401 401 401 401",
    "GET /chat/{channel}/stream": "401 200 401 401 401 401",
    "GET /chat/{channel}/files/{attachment_id}": "401 404 401 401 401 401",  # a file of somebody else's message
    # agents
    "GET /": "303 303 303 302 302 302",
    "GET /inbox/{view}": "303 303 303 200 200 200",
    "GET /search": "303 303 303 200 200 200",
    "GET /conversations/{customer_id}": "303 303 303 200 200 200",
    "GET /conversations/{customer_id}/older": "303 303 303 200 200 200",
    "GET /attachments/{attachment_id}": "303 303 303 200 200 200",
    "GET /messages/{message_id}/original": "303 303 303 200 200 200",
    "GET /messages/{message_id}/html": "303 303 303 200 200 200",
    "GET /attachments/{attachment_id}/thumbnail": "303 303 303 404 404 404",  # nothing a picture can be made of: tests/web/test_files.py
    "GET /channels/{channel}/templates": "303 303 303 200 200 200",
    "GET /messages/{message_id}/mail": "303 303 303 404 404 404",  # no mail: tests/web/test_review.py has one
    "GET /messages/{message_id}/text": "303 303 303 200 200 200",
    "GET /stream": "303 303 303 200 200 200",
    "GET /customers/suggestions": "303 303 303 200 200 200",
    "GET /customers/{customer_id}/merge": "303 303 303 200 200 200",
    "GET /customers/{customer_id}/merge/{other_id}": "303 303 303 200 200 200",
    "GET /customers/{customer_id}/why": "303 303 303 200 200 200",
    "GET /joins/{join_id}": "303 303 303 200 200 200",
    "GET /tickets/{ticket_id}/move": "303 303 303 200 200 200",
    "GET /messages/{message_id}/move": "303 303 303 200 200 200",
    "GET /holds": "303 303 303 200 200 200",
    "GET /holds/customers/{customer_id}": "303 303 303 200 200 200",
    "GET /tools/{tool}/hooks": "404 404 404 404 404 404",  # one that hears answers 200: tests/test_tool_hooks.py
    "GET /holds/tools": "303 303 303 200 200 200",
    "GET /holds/tools/{tool}": "303 303 303 404 404 404",  # one that is none: tests/web/test_holds_pages.py has real ones
    "GET /holds/campaigns": "303 303 303 200 200 200",
    "GET /holds/leaks": "303 303 303 200 200 200",
    "GET /satisfaction": "303 303 303 200 200 200",
    # administrators
    "GET /holds/campaigns/{id}/revert": "303 303 303 403 404 404",  # of a tool that is none
    "GET /settings/tools": "303 303 303 403 200 200",
    "GET /settings/tools/{tool}": "303 303 303 403 404 404",
    "GET /holds/proof": "303 303 303 403 200 200",
    "GET /holds/proof/report.json": "303 303 303 403 200 200",
    "GET /holds/proof/report.html": "303 303 303 403 200 200",
    "GET /settings": "303 303 303 403 303 303",
    "GET /settings/quarantine": "303 303 303 403 200 200",
    "GET /settings/quarantine/{id}": "303 303 303 403 200 200",
    "GET /settings/quarantine/{id}/raw": "303 303 303 403 200 200",
    "GET /settings/deliveries": "303 303 303 403 200 200",
    "GET /settings/api": "303 303 303 403 200 200",
    "GET /settings/agents": "303 303 303 403 200 200",
    # asking first (CORS): only a page that may embed the chat
    "OPTIONS /in/{channel}": "405 204 405 405 405 405",
    "OPTIONS /chat/{channel}/session": "403 204 403 403 403 403",
    "OPTIONS /chat/{channel}/messages": "404 204 404 404 404 404",
    "OPTIONS /chat/{channel}/stream": "404 204 404 404 404 404",
    "OPTIONS /chat/{channel}/files/{attachment_id}": "404 204 404 404 404 404",
    "OPTIONS /chat/{channel}/config": "404 204 404 404 404 404",
    "OPTIONS /chat/{channel}/typing": "404 204 404 404 404 404",
    "OPTIONS /chat/{channel}/continue": "404 204 404 404 404 404",
    "OPTIONS /chat/{channel}/code": "404 204 404 404 404 404",
    "OPTIONS /chat/{channel}/code/{id}": "404 204 404 404 404 404",
    "GET /in/{channel}": "404 404 404 404 404 404",  # a chat asks nothing by GET
    # what acts, in an order in which each finds something to act upon
    "POST /in/{channel}": "401 200 401 401 401 401",
    "POST /rooms/{room}": "401 401 401 401 401 401",
    "POST /api/v1/holds/check": "401 401 200 401 401 401",
    "POST /api/v1/customers": "401 401 200 401 401 401",
    "POST /api/v1/customers/{customer_id}/holds": "401 401 200 401 401 401",
    "DELETE /api/v1/customers/{customer_id}/holds/{hold_id}": "401 401 200 401 401 401",
    "POST /api/v1/customers/{customer_id}/merge": "401 401 200 401 401 401",
    "POST /api/v1/customers/{customer_id}/unmerge": "401 401 200 401 401 401",
    "POST /api/v1/customers/{customer_id}/reject": "401 401 200 401 401 401",
    "POST /chat/{channel}/session": "403 200 403 403 403 403",
    "POST /chat/{channel}/typing": "401 204 401 401 401 401",
    "POST /chat/{channel}/continue": "403 403 403 403 403 403",  # a token of nobody's
    "POST /tickets/{ticket_id}/typing": "401 401 401 204 204 403",
    "POST /chat/{channel}/code": "401 200 401 401 401 401",
    "POST /chat/{channel}/code/{id}": "401 404 401 401 401 401",  # a code of somebody else
    "POST /sandbox/act/{what}": "400 400 400 400 400 400",
    "POST /login": "401 401 401 401 401 401",  # a wrong password
    "POST /s/{survey}": "303 303 303 303 303 303",  # beside the sandbox an agent may play the customer
    "POST /api/v1/messages": "401 401 400 401 401 401",  # without a key: tests/web/test_messages_api.py
    "POST /api/v1/follow-ups/{key}": "401 401 200 401 401 401",
    "POST /tickets/{ticket_id}/reply": "401 401 401 204 204 403",
    "POST /compose/segments": "401 401 401 200 200 403",
    "POST /tickets/{ticket_id}/review": "401 401 401 204 204 403",
    "POST /tickets/{ticket_id}/participants/dismiss": "401 401 401 204 204 403",
    "POST /tickets/{ticket_id}/note": "401 401 401 204 204 403",
    "POST /tickets/{ticket_id}/assign": "401 401 401 204 204 403",
    "POST /tickets/{ticket_id}/snooze": "401 401 401 204 204 403",
    "POST /tickets/{ticket_id}/resolve": "401 401 401 204 204 403",
    "POST /tickets/{ticket_id}/reopen": "401 401 401 204 204 403",
    "POST /tickets/{ticket_id}/read": "401 401 401 204 204 403",
    "POST /tickets/{ticket_id}/ask-code": "401 401 401 204 204 403",
    "POST /messages/{message_id}/retry": "401 401 401 204 204 403",
    "POST /messages/{message_id}/move": "401 401 401 204 204 403",
    "POST /tickets/{ticket_id}/move": "401 401 401 204 204 403",
    "POST /customers/{customer_id}/reject/{other_id}": "401 401 401 204 204 403",
    "POST /customers/{customer_id}/identifiers/{identifier_id}/dismiss": "401 401 401 204 204 403",
    "POST /customers/{customer_id}/identifiers/{identifier_id}/take-out": "401 401 401 204 204 403",
    "POST /joins/{join_id}/undo": "401 401 401 303 303 403",
    "POST /tools/{tool}/hooks": "404 404 404 404 404 404",  # none is configured here; its signature is the permission
    "POST /tickets/{ticket_id}/tags": "401 401 401 204 204 403",
    "POST /tickets/{ticket_id}/priority": "401 401 401 204 204 403",
    "POST /tickets/{ticket_id}/follow-ups": "401 401 401 204 204 403",
    "POST /tickets/{ticket_id}/follow-ups/{id}/cancel": "401 401 401 204 204 403",
    "POST /tickets/{ticket_id}/spam": "401 401 401 204 204 403",
    "POST /messages/{message_id}/opt-out": "401 401 401 204 204 403",
    "POST /customers/{customer_id}/opt-outs/{id}/take-back": "401 401 401 204 204 403",
    "POST /customers/{customer_id}/hold": "401 401 401 204 204 403",
    "POST /customers/{customer_id}/holds/{hold_id}/end": "401 401 401 204 204 403",
    "POST /customers/{customer_id}/merge/{other_id}": "401 401 401 303 303 403",
    "POST /holds/tools/{tool}/look-again": "401 401 401 404 404 403",
    "POST /holds/campaigns/{id}/revert": "401 401 401 403 404 403",
    "POST /settings/tools/{tool}/test": "401 401 401 403 404 403",
    "POST /settings/tools/{tool}/prepare": "401 401 401 403 404 403",
    "POST /settings/tools/{tool}/round-trip": "401 401 401 403 404 403",
    "POST /settings/quarantine/{id}/replay": "401 401 401 403 200 403",
    "POST /settings/quarantine/{id}/dismiss": "401 401 401 403 200 403",
    # First: what is tried again is soon carried by the worker, and then there is nothing to discard.
    "POST /settings/deliveries/{id}/discard": "401 401 401 403 200 403",
    "POST /settings/deliveries/retry": "401 401 401 403 200 403",
    "POST /settings/deliveries/{id}/retry": "401 401 401 403 200 403",
    "POST /settings/api": "401 401 401 403 200 403",
    "POST /settings/api/{id}/revoke": "401 401 401 403 200 403",
    "POST /settings/agents": "401 401 401 403 200 403",
    "POST /settings/agents/{id}/link": "401 401 401 403 200 403",
    "POST /settings/agents/{id}/disable": "401 401 401 403 200 403",
    "POST /settings/agents/{id}/enable": "401 401 401 403 200 403",
    "POST /logout": "401 401 401 303 303 403",
    "POST /setup/{link}": "303 303 303 303 404 303",  # the one-time link is the permission; the administrator made a newer one above
}
FORMS: dict[str, dict[str, str]] = {
    "POST /settings/deliveries/{id}/discard": {"reason": "told by phone"},
    "POST /login": {"email": "admin@shop.example", "password": "not the password"},
    "POST /s/{survey}": {"score": "4"},
    "POST /tickets/{ticket_id}/follow-ups": {"key": "parcel-back", "words": "It came back."},
    "POST /setup/{link}": {"password": "correct horse battery"},
    "POST /tickets/{ticket_id}/reply": {"text": "On its way", "draft_key": "draft-key-1"},
    "POST /tickets/{ticket_id}/review": {"decision": "apart"},
    "POST /tickets/{ticket_id}/participants/dismiss": {"value": "eve@other.example"},
    "POST /compose/segments": {"text": "Hello"},
    "POST /tickets/{ticket_id}/note": {"text": "Mind the gap", "draft_key": "draft-key-2"},
    "POST /tickets/{ticket_id}/assign": {"assignee": "me"},
    "POST /tickets/{ticket_id}/snooze": {"for": "hour"},
    "POST /tickets/{ticket_id}/read": {"message_id": "1"},
    "POST /tickets/{ticket_id}/ask-code": {"identifier_id": "5"},
    "POST /tickets/{ticket_id}/move": {"to": "2"},
    "POST /tickets/{ticket_id}/tags": {"tags": "refund, vip"},
    "POST /tickets/{ticket_id}/priority": {"priority": "high"},
    "POST /customers/{customer_id}/hold": {"days": "3", "note": "Bereaved."},
    "POST /messages/{message_id}/move": {"to": "2"},
    "POST /settings/api": {"name": "A program"},
    "POST /settings/agents": {"name": "New", "email": "new@shop.example"},
}
BODIES: dict[str, dict[str, Any]] = {
    "POST /in/{channel}": {"id": "0f8fad5b-d9cb-469f", "text": "Hello"},
    "POST /api/v1/follow-ups/{key}": {"values": {}},
    "POST /api/v1/holds/check": {"identifiers": [{"kind": "email", "value": "ana@example.com"}]},
    "POST /api/v1/customers": {"external_id": "u-9", "email": "noor@example.com", "name": "Noor"},
    "POST /api/v1/customers/{customer_id}/holds": {"key": "case 17", "days": 3},
    "POST /api/v1/customers/{customer_id}/merge": {"other": 20},
    "POST /api/v1/customers/{customer_id}/unmerge": {"join_id": 4},  # the merge above: 3 is there from the start
    "POST /api/v1/customers/{customer_id}/reject": {"other": 20},
    "POST /chat/{channel}/session": {},
    "POST /chat/{channel}/typing": {"typing": True},
    "POST /chat/{channel}/continue": {"token": "nobody's"},
    "POST /chat/{channel}/code": {"kind": "email", "value": "ana@mail.example"},
    "POST /chat/{channel}/code/{id}": {"code": "123456"},
    "POST /sandbox/act/{what}": {},
}
PLACES: dict[str, dict[str, str]] = {
    "POST /messages/{message_id}/retry": {"message_id": "2"},
    "POST /settings/deliveries/{id}/discard": {"id": "5"},
    "POST /tickets/{ticket_id}/ask-code": {"ticket_id": "2"},
    "POST /customers/{customer_id}/identifiers/{identifier_id}/dismiss": {"identifier_id": "5"},
    "POST /customers/{customer_id}/identifiers/{identifier_id}/take-out": {"identifier_id": "4"},
    "POST /tickets/{ticket_id}/move": {"ticket_id": "2"},
    "POST /tickets/{ticket_id}/review": {"ticket_id": "2"},
    "GET /channels/{channel}/templates": {"channel": "whatsapp"},
}
QUERIES = {
    "GET /conversations/{customer_id}/older": "?before=2",
    "GET /api/v1/holds/check": "?email=ana@example.com",
    "GET /api/v1/holds/feed": "?email=ana@example.com",
    "GET /api/v1/customers": "?email=ana@example.com",
    "GET /search": "?q=a",
}

ADMIN, AGENT, SPARE, DISABLED = 1, 2, 3, 4
FILE = "f" * 32
MISSING = {
    "channel": "nowhere",
    "room": "nowhere",
    "view": "nowhere",
    "id": "99",
    "customer_id": "99",
    "other_id": "99",
    "identifier_id": "99",
    "join_id": "99",
    "hold_id": "99",
    "tool": "nothing",
    "ticket_id": "99",
    "message_id": "99",
    "attachment_id": "0" * 32,
    "survey": "99-1-en." + "a" * 26,
    "key": "never-promised",
    "token": "0" * 32,
    "link": "3." + "A" * 43,
    "media": "nothing",
    "what": "nothing",
}
# Where what is missing is told in another way.
UNFOUND = {
    ("OPTIONS /in/{channel}", "channel"): 405,
    ("OPTIONS /chat/{channel}/files/{attachment_id}", "attachment_id"): 204,  # a browser asks this of the route, not of the file
    ("OPTIONS /chat/{channel}/code/{id}", "id"): 204,
    ("POST /tickets/{ticket_id}/follow-ups/{id}/cancel", "id"): 409,
    ("POST /sandbox/act/{what}", "what"): 400,
}
HOSTILE = ("9" * 17, "9" * 40, "-1", "0", "1'--", "%00", "%D9%A3", "..%2f..%2fhub.db", "%F0%9F%92%A9", "x" * 3_000)


@dataclass
class Caller:
    headers: dict[str, str] = field(default_factory=dict)
    session: str = ""
    csrf: str = ""


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    text: str


# Settings the hub itself keeps: whose turn it is, how far recovery and the search index have come.
OWN = ("turn.", "recovery.", "search.", "proof.", "watching.")


class House:
    """A running hub with one of everything in it."""

    def __init__(self, running: Running) -> None:
        self.hub = running.hub
        self.app: web.Application = running._runner.app  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{running.port}"
        self.database = running.settings.storage.database
        self.places: dict[str, str] = {}

    async def furnish(self) -> None:
        run, now = self.hub.writer.run, self.hub.writer.clock()
        phone = self.hub.channels["whatsapp"].rule
        sha256 = self.hub.blobs.put(b"\x89PNG\r\n\x1a\n and more")
        link = agents.new_token()
        await run(
            Insert(
                (
                    Agent(ADMIN, "admin@shop.example", "Ada", "hash", "admin", now),
                    Agent(AGENT, "agent@shop.example", "Ben", "hash", "agent", now),
                    Agent(SPARE, "spare@shop.example", "Cy", "", "agent", now),
                    Agent(DISABLED, "gone@shop.example", "Di", "hash", "admin", now),
                    Customer(1, "Ana", now),
                    Customer(20, "Bea", now),  # for a program to merge with Ana, and to tell apart again
                    # Whom she could be, and whom she was merged with.
                    Customer(2, "Ana B", now),
                    Customer(3, "Ana C", now, 0, 1),
                    JoinLog(3, "merge", 1, 3, "[]", "an agent merged them", f"agent:{ADMIN}", now),
                    Identifier(1, "phone", "", "+12025550123", "proven", 0, 1, "channel", "+12025550123", now, now),
                    Ticket(1, 1, "open", "", "default", phone.id, 1, now, now, "Hello", last_inbound_id=1),
                    # A chat in which an address was named.
                    Identifier(4, "device", "", "d" * 32, "proven", 0, 1, "channel", "d" * 32, now, now, home_id=1),
                    Identifier(5, "email", "", "ana@other.example", "asserted", 0, None, "claimed", "ana@other.example", now, now),
                    Evidence(5, 4, 5, "claimed", "message:1", now),
                    Ticket(
                        2,
                        1,
                        "resolved",
                        "",
                        "default",
                        self.hub.channels["chat"].rule.id,
                        4,
                        now,
                        now,
                        "",
                        home_id=1,
                        review="DMARC failed",
                    ),
                    Participant(1, "eve@other.example", "eve@other.example", ADMIN, now),
                    Message(1, 1, 1, "in", "received", "Hello", now, phone.id, 1, html="<p>Hello</p>"),
                    *(Message(n, 1, 1, "out", "failed", "Hi", now, phone.id, 1, ADMIN) for n in (2, 3)),
                    *(
                        Delivery(n, f"reply:1:{phone.id}", "reply", phone.name, subject, "{}", "failed", False, now, now, done_at=now)
                        for n, subject in ((4, 2), (3, 3))
                    ),
                    Delivery(5, "hold:marketing:1", "hold", "marketing", 1, "{}", "failed", True, now, now, done_at=now),
                    Attachment(FILE, 1, "shot.png", "image/png", 17, sha256, "", False, "stored", thumbnail=NONE),
                    Quarantine(3, phone.id, "unparseable", "Not read.", "waiting", now, "POST", "http://x/in", "{}", b"x", "", "d"),
                    ApiToken(3, "Old", digest("old"), now),
                    *(
                        OptOut(n, self.hub.channels["chat"].rule.id, "phone", "+12025550123", now, 1, None, "No.", "agent:1")
                        for n in (3, 4)
                    ),
                    Survey(3, 2, self.hub.channels["chat"].rule.id, 4, "csat", "asked", now, "", now, now + 86_400_000_000),
                    FollowUp(3, "parcel-here", 1, "It is here.", "waiting", ADMIN, now),
                    Hold(3, 1, "api", "hand:program:crm", "{}", now, now + 86_400_000_000),
                )
            )
        )
        await run(agents.IssueLink(SPARE, digest(link), ADMIN))
        token = file_token(self.hub.secret, FILE, int(time.time()) + 60)
        self.places = {
            **{"channel": "chat", "room": "slack", "view": "open", "id": "3", "customer_id": "1", "ticket_id": "1", "message_id": "1"},
            **{"other_id": "2", "join_id": "3", "hold_id": "3", "tool": "nothing"},
            **{"attachment_id": FILE, "token": token, "link": f"{SPARE}.{link}", "media": "nothing", "what": "nothing"},
            **{"survey": survey_token(self.hub.secret, Link(3, 2, "en")), "key": "parcel-here"},
        }

    async def caller(self, kind: str) -> Caller:
        if kind == "anonymous":
            return Caller()
        if kind == "token":
            return Caller({"Authorization": f"Bearer {sandbox_token(self.hub.secret)}"})
        if kind == "visitor":
            origin = {"Origin": self.hub.settings.server.public_url}
            begun = await self.ask("POST", "/chat/chat/session", Caller(origin), json={})
            (token,) = re.findall(r'"token": "([^"]+)"', begun.text)
            return Caller({"Authorization": f"Bearer {token}", **origin})
        agent = {"admin": ADMIN, "forged": ADMIN, "agent": AGENT, "disabled": DISABLED}[kind]
        session, csrf = agents.new_token(), agents.new_token()
        await self.hub.writer.run(OpenSession(Verified(agent, "hash"), digest(session), csrf))
        if kind == "disabled":
            await self.hub.writer.run(agents.DisableAgent(DISABLED))
        return Caller(session=session, csrf="" if kind == "forged" else csrf)

    def fit(self, route: str, admin: Caller, visitor: Caller, token: Caller) -> Caller:
        """Who may use this route, so that what is answered is about the place it names."""
        return visitor if "{channel}" in route and "templates" not in route else token if " /api/" in route else admin

    def routes(self) -> list[str]:
        return [f"{route.method} {route.resource.canonical}" for route in self.app.router.routes() if route.resource is not None]

    def address(self, route: str, places: Mapping[str, str]) -> str:
        known = {**self.places, **PLACES.get(route, {}), **places}
        path = re.sub(r"\{(\w+)\}", lambda found: known[found[1]], route.partition(" ")[2])
        return (path + "/app.js" if path == "/static" else path) + QUERIES.get(route, "")

    async def call(self, route: str, caller: Caller, **places: str) -> Reply:
        body = {"json": BODIES[route]} if route in BODIES else {"data": FORMS.get(route, {})} if route.startswith("POST") else {}
        return await self.ask(route.partition(" ")[0], self.address(route, places), caller, **body)

    async def ask(self, method: str, path: str, caller: Caller, **body: Any) -> Reply:
        headers = dict(caller.headers)
        if caller.session:
            headers["Cookie"] = f"hub_session={caller.session}"
        if caller.csrf and method == "POST":
            headers["X-CSRF-Token"] = caller.csrf
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), headers=headers) as http:
            url = URL(self.url + path, encoded=True)
            async with http.request(method, url, allow_redirects=False, **body) as answer:
                endless = answer.content_type == "text/event-stream"
                raw = b"" if endless else await answer.read()
                return Reply(answer.status, answer.headers, raw.decode("utf-8", "replace"))

    def state(self) -> dict[str, str]:
        """A digest of the rows of every table, but for when sessions were last seen and what the hub notes of its own work."""
        with sqlite3.connect(self.database) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            digests = {}
            for name in tables:
                if not name.startswith(("message_search", "campaign_seen")):
                    columns = "token_hash, agent_id, expires_at" if name == "agent_session" else "*"
                    rows = [row for row in connection.execute(f'SELECT {columns} FROM "{name}"') if not str(row[0]).startswith(OWN)]
                    digests[name] = hashlib.sha256(repr(rows).encode()).hexdigest()
        assert len(digests) > 15
        return digests


@pytest.fixture
async def house(running: Running) -> House:
    built = House(running)
    await built.furnish()
    return built


def check_sound(route: str, answer: Reply) -> None:
    """What holds of every answer whatsoever."""
    assert answer.status < 500, (route, answer.status, answer.text[:500])
    if "javascript" not in answer.headers.get("Content-Type", ""):
        assert not re.search(r"Traceback|File \"|\.py\b|sqlite|SELECT ", answer.text), (route, answer.text[:500])
    assert answer.headers["X-Content-Type-Options"] == "nosniff", route
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"], route
    others = {"Referrer-Policy", "Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy", "Permissions-Policy"}
    assert others <= set(answer.headers), route


def test_every_entry_names_every_caller() -> None:
    for route, statuses in TABLE.items():
        assert len(statuses.split()) == len(ANYONE.split()), route
        assert set(statuses.split()) <= {"200", "204", "302", "303", "400", "401", "403", "404", "405"}, route


async def test_no_route_is_missing_from_the_table(house: House) -> None:
    routes = house.routes()
    assert len(routes) == len(set(routes)) > 80
    unlisted = {route for route in routes if not route.startswith("HEAD ")} - set(TABLE)
    assert not unlisted, "a new route begins with a decision: who gets what from it? Add it to TABLE"
    assert not set(TABLE) - set(routes), "these routes are gone"
    heads = {route for route in routes if route.startswith("HEAD ")}
    assert {route.replace("HEAD", "GET") for route in heads} <= set(TABLE)
    assert not {route for route in heads if route.endswith("/stream")}, "a HEAD of a stream would never end"


@pytest.mark.parametrize("kind", [*ANYONE.split(), "disabled"])
async def test_every_caller_gets_what_the_table_says_and_asking_changes_nothing(house: House, kind: str) -> None:
    caller = await house.caller(kind)
    column = ANYONE.split().index("anonymous" if kind == "disabled" else kind)
    before, found = house.state(), {}
    for route in [route for route in TABLE if route.startswith("GET ")]:
        answer = await house.call(route, caller)
        check_sound(route, answer)
        found[route] = str(answer.status)
        leads_to_login = answer.headers.get("Location", "").startswith("/login")
        assert leads_to_login == (answer.status == 303 and column < 3), route
        if f"HEAD {route[4:]}" in house.routes():
            head = await house.ask("HEAD", house.address(route, {}), caller)
            assert (head.status, head.text) == (answer.status, ""), route
    assert house.state() == before, "a GET changed the database"
    for route in [route for route in TABLE if not route.startswith("GET ")]:
        answer = await house.call(route, caller)
        check_sound(route, answer)
        found[route] = str(answer.status)
    assert found == {route: statuses.split()[column] for route, statuses in TABLE.items()}


@pytest.mark.parametrize("kind", [*ANYONE.split()[:-2], "forged"])
async def test_who_may_not_act_changes_nothing_by_trying(house: House, kind: str) -> None:
    caller = await house.caller(kind)
    column, before, tried = ANYONE.split().index(kind), house.state(), 0
    for route, statuses in TABLE.items():
        theirs = route.startswith(("POST /tickets", "POST /messages", "POST /settings", "POST /customers", "POST /joins", "POST /holds"))
        if theirs and statuses.split()[column] in ("401", "403"):
            await house.call(route, caller)
            tried += 1
    assert tried >= 9
    assert house.state() == before


async def test_an_id_that_names_nothing_is_not_found(house: House) -> None:
    admin, visitor, token = [await house.caller(kind) for kind in ("admin", "visitor", "token")]
    before, tried = house.state(), 0
    for route in TABLE:
        for name in re.findall(r"\{(\w+)\}", route):
            answer = await house.call(route, house.fit(route, admin, visitor, token), **{name: MISSING[name]})
            check_sound(route, answer)
            assert answer.status == UNFOUND.get((route, name), 404), (route, name, answer.status)
            tried += 1
    assert tried >= 40
    assert house.state() == before


async def test_an_id_that_is_none_breaks_nothing_and_means_nothing(house: House) -> None:
    admin, visitor, token = [await house.caller(kind) for kind in ("admin", "visitor", "token")]
    before = house.state()
    for route in TABLE:
        for name in re.findall(r"\{(\w+)\}", route):
            for hostile in HOSTILE:
                answer = await house.call(route, house.fit(route, admin, visitor, token), **{name: hostile})
                check_sound(route, answer)
                assert answer.status >= 400 or route.startswith("OPTIONS"), (route, name, hostile, answer.status)
    assert house.state() == before


QUESTIONS = [
    "?ticket=x",
    "?ticket=-1",
    "?ticket=999999999999999999999999999999",
    "?customer=99",
    "?m=99&ticket=1",
    "?rows=999999999",
    "?after=x-y",
    "?after=999999999999999999-1",
    "?parts=none,list,",
    "?q=%00%22",
    "?q=%F0%9F%92%A9",
    "?before=x",
    "?before=-1",
    "?state=x",
    "?images=2",
]
PAGES = [
    "/inbox/open",
    "/search",
    "/conversations/1",
    "/conversations/1/older",
    "/customers/suggestions",
    "/customers/1/merge",
    "/tickets/1/move",
    "/settings/quarantine",
    "/settings/deliveries",
    "/holds",
    "/holds/customers/1",
    "/holds/leaks",
    "/messages/1/original",
]


@pytest.mark.parametrize("query", QUESTIONS)
async def test_a_parameter_that_is_none_breaks_nothing(house: House, query: str) -> None:
    admin = await house.caller("admin")
    for path in PAGES:
        check_sound(path, await house.ask("GET", path + query, admin))
