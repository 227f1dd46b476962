"""The JSON API marketing tools use: `GET` and `POST /api/v1/holds/check`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json
from sqlalchemy.exc import SQLAlchemyError

from hub.config import explain
from hub.holds import receipt
from hub.holds.gate import KINDS, MOST, Asked, BadQuestion, Standing, ask, by_key, keys_of, look_up, standing_of, together
from hub.holds.ledger import iso
from hub.keys import derive
from hub.storage.writer import StorageBusy
from hub.web.auth import program_of, require_token, shown_token
from hub.web.context import HUB, Hub

log = structlog.get_logger("hub.api")
routes = web.RouteTableDef()

T = TypeVar("T")
PARAMETERS = frozenset({"site", "campaign", "channel", "brand", "class"})  # beside the identifiers
PART = 250  # identifiers worked on at a stretch: a millisecond


class _Strict(BaseModel):
    # Strict: a lax mode would read 0 as False and "1" as 1.
    model_config = ConfigDict(strict=True, extra="forbid")


class AskedIdentifier(_Strict):
    kind: Literal["email", "phone", "external_id", "wa_user_id"]
    value: str = Field(min_length=1, max_length=512)
    site: str = ""


class CheckRequest(_Strict):
    """The body of `POST /api/v1/holds/check`."""

    identifiers: list[AskedIdentifier] = Field(min_length=1, max_length=MOST)
    campaign: str = Field("", max_length=200)
    channel: str = Field("", max_length=40)
    brand: str = Field("", max_length=100)
    message_class: Literal["marketing", "transactional"] = Field("marketing", alias="class")


def problem(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error as RFC 9457 problem details."""
    body = json.dumps({"title": text, "status": status})
    return web.Response(status=status, text=body, content_type="application/problem+json", headers=headers)


def _receipt(hub: Hub, asked: Sequence[Asked], about: Sequence[str], held: bool, version: int, now: int) -> str:
    named = sorted([f"{one.name}:{one.site}:{one.value or one.given}" for one in asked])
    return receipt.issue(derive(hub.secret, "receipt"), (*about, *named), held, version, now)


def _answer(body: Mapping[str, Any]) -> web.Response:
    # pydantic's encoder: a fifth of what the standard library takes for it.
    return web.Response(body=to_json(body), content_type="application/json", charset="utf-8")


def check_names(hub: Hub, brand: str, asked: Sequence[Asked]) -> None:
    """Refuse a brand or a site we do not have: a misspelt one would answer "not held" for everybody. Raises BadQuestion."""
    brands = {rule.brand for rule in hub.policy.channels.values()}
    if brand and brand not in brands:
        raise BadQuestion(f"There is no brand {brand}. Known: {', '.join(sorted(brands))}.")
    for one in asked:
        if one.site and one.site not in hub.settings.sites:
            raise BadQuestion(f"There is no site {one.site}. Known: {', '.join(sorted(hub.settings.sites))}.")


class Question(NamedTuple):
    """One person, as `GET /api/v1/holds/check` asks about them."""

    asked: tuple[Asked, ...]
    campaign: str
    channel: str
    brand: str
    message_class: str


def _question(hub: Hub, query: Mapping[str, str]) -> Question:
    """What a query string asks. Raises BadQuestion."""
    message_class = query.get("class", "marketing")
    if message_class not in ("marketing", "transactional"):
        raise BadQuestion("class: must be marketing or transactional.")
    asked: list[Asked] = []
    for name, value in query.items():
        if name in KINDS:
            if value.strip():  # a template that knows no phone of this person leaves `phone=` empty
                asked.append(ask(name, value, query.get("site", "") if name == "external_id" else ""))
        elif name not in PARAMETERS:
            raise BadQuestion(f"There is no parameter {name}.")
    if not asked:
        raise BadQuestion("Ask by email, phone, external_id or wa_user_id.")
    brand = query.get("brand", "")
    check_names(hub, brand, asked)
    return Question(tuple(asked), query.get("campaign", ""), query.get("channel", ""), brand, message_class)


@routes.get("/api/v1/holds/check")
async def check_one(request: web.Request) -> web.Response:
    """One person, by any of their identifiers; any held identifier holds. Prefer POST: a query string ends up in logs."""
    hub = request.app[HUB]
    token = shown_token(request)
    try:
        asked, _, _, brand, message_class = question = _question(hub, request.query)
    except BadQuestion:
        await require_token(request)  # nobody else learns which brands and sites there are
        raise
    now = hub.writer.clock()
    found, facts = await hub.hot.checked(token, keys_of(asked))
    program_of(found)
    hits = by_key(facts)
    standing = together([standing_of(one, hits, now, brand, message_class) for one in asked])
    proof = _receipt(hub, asked, question[1:], standing.held, standing.version, now)
    return _answer({**standing.shown(), "receipt_id": proof, "as_of": iso(now)})


async def _parts(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """A long list in pieces, letting others go on in between: a question of a thousand must not hold up those of one."""
    for start in range(0, len(items), PART):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + PART]


@routes.post("/api/v1/holds/check")
async def check_many(request: web.Request) -> web.Response:
    """1 to 1,000 identifiers, each answered in the order asked, and `held_count`."""
    await require_token(request)
    hub = request.app[HUB]
    try:
        wanted = CheckRequest.model_validate_json(await request.read())
    except ValidationError as error:
        return problem(400, " ".join(explain(error)).removeprefix(": "))
    asked: list[Asked] = []
    async for part in _parts(wanted.identifiers):
        asked += [ask(one.kind, one.value, one.site) for one in part]
    check_names(hub, wanted.brand, asked)
    now = hub.writer.clock()
    hits = await look_up(asked, hub.hot)
    standings: list[Standing] = []
    results: list[dict[str, Any]] = []
    async for some in _parts(asked):
        judged = [standing_of(one, hits, now, wanted.brand, wanted.message_class) for one in some]
        standings += judged
        results += [{"kind": one.name, "value": one.given, **standing.shown()} for one, standing in zip(some, judged, strict=True)]
    held_count = sum(standing.held for standing in standings)
    about = (wanted.campaign, wanted.channel, wanted.brand, wanted.message_class)
    return _answer(
        {
            "results": results,
            "held": held_count > 0,
            "held_count": held_count,
            "receipt_id": _receipt(hub, asked, about, held_count > 0, max(standing.version for standing in standings), now),
            "as_of": iso(now),
        }
    )


@web.middleware
async def api_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """Errors of the API as problem details, never as a page."""
    if not request.path.startswith("/api/"):
        return await handler(request)  # type: ignore[no-any-return]
    try:
        return await handler(request)  # type: ignore[no-any-return]
    except BadQuestion as error:
        return problem(400, str(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        kept = {name: error.headers[name] for name in ("WWW-Authenticate", "Allow", "Retry-After") if name in error.headers}
        return problem(error.status, error.text or error.reason, kept)
    except (StorageBusy, SQLAlchemyError) as error:
        # Its text quotes the identifiers asked about: only its kind is logged.
        log.error("the API could not read the database", path=request.path, error=type(error).__name__)
        return problem(503, "The database could not be read. Nothing is known of this person now; ask again.", {"Retry-After": "2"})
