"""The JSON API marketing tools use: `GET` and `POST /api/v1/holds/check`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from hub.config import explain
from hub.holds.gate import KINDS, MOST, Asked, BadQuestion, Standing, ask, look_up, standing_of, together
from hub.holds.ledger import iso
from hub.keys import derive, signed
from hub.storage.writer import StorageBusy
from hub.web.auth import require_token
from hub.web.context import HUB, Hub

log = structlog.get_logger("hub.api")
_canonical = json.JSONEncoder().encode  # its questions always name the same things in the same order
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


def receipt(hub: Hub, question: Mapping[str, Any], held: bool, version: int, now: int) -> str:
    """A signed receipt of one answer: when, what was said, and a keyed digest of what was asked. Kept by whoever asked."""
    key = derive(hub.secret, "receipt")
    # Keyed: of a plain digest anybody could try all phone numbers.
    digest = hashlib.blake2b(_canonical(question).encode(), key=key, digest_size=12).hexdigest()
    return signed(key, f"{random.getrandbits(32):08x}.{now}.{'held' if held else 'free'}.{version}.{digest}")


def _question(asked: Sequence[Asked], campaign: str, channel: str, brand: str, message_class: str) -> dict[str, Any]:
    named = sorted(f"{one.name}:{one.site}:{one.value or one.given}" for one in asked)
    return {"identifiers": named, "campaign": campaign, "channel": channel, "brand": brand, "class": message_class}


def check_names(hub: Hub, brand: str, asked: Sequence[Asked]) -> None:
    """Refuse a brand or a site we do not have: a misspelt one would answer "not held" for everybody. Raises BadQuestion."""
    brands = {rule.brand for rule in hub.policy.channels.values()}
    if brand and brand not in brands:
        raise BadQuestion(f"There is no brand {brand}. Known: {', '.join(sorted(brands))}.")
    for one in asked:
        if one.site and one.site not in hub.settings.sites:
            raise BadQuestion(f"There is no site {one.site}. Known: {', '.join(sorted(hub.settings.sites))}.")


@routes.get("/api/v1/holds/check")
async def check_one(request: web.Request) -> web.Response:
    """One person, by any of their identifiers; any held identifier holds. Prefer POST: a query string ends up in logs."""
    await require_token(request)
    hub = request.app[HUB]
    query = request.query
    message_class = query.get("class", "marketing")
    if message_class not in ("marketing", "transactional"):
        return problem(400, "class: must be marketing or transactional.")
    asked: list[Asked] = []
    for name, value in query.items():
        if name in KINDS:
            if value.strip():  # a template that knows no phone of this person leaves `phone=` empty
                asked.append(ask(name, value, query.get("site", "") if name == "external_id" else ""))
        elif name not in PARAMETERS:
            return problem(400, f"There is no parameter {name}.")
    if not asked:
        return problem(400, "Ask by email, phone, external_id or wa_user_id.")
    brand = query.get("brand", "")
    check_names(hub, brand, asked)
    now = hub.writer.clock()
    hits = await look_up(asked, hub.hot)
    standing = together([standing_of(one, hits, now, brand, message_class) for one in asked])
    question = _question(asked, query.get("campaign", ""), query.get("channel", ""), brand, message_class)
    proof = receipt(hub, question, standing.held, standing.version, now)
    return web.json_response({**standing.shown(), "receipt_id": proof, "as_of": iso(now)})


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
    question = _question(asked, wanted.campaign, wanted.channel, wanted.brand, wanted.message_class)
    return web.json_response(
        {
            "results": results,
            "held": held_count > 0,
            "held_count": held_count,
            "receipt_id": receipt(hub, question, held_count > 0, max(standing.version for standing in standings), now),
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
