"""What marketing tools ask before they send: `GET` and `POST /api/v1/holds/check`, and the same as a data feed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from aiohttp import web
from multidict import CIMultiDict
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from hub.config import explain
from hub.holds import receipt
from hub.holds.answers import About, Answers
from hub.holds.gate import (
    DEGRADED,
    KINDS,
    LONGEST,
    MOST,
    Asked,
    BadQuestion,
    Standing,
    ask,
    by_key,
    judge,
    keys_of,
    look_up,
    spelled,
    standing_of,
    together,
)
from hub.holds.ledger import iso
from hub.keys import derive
from hub.storage.hot import HoldFact
from hub.storage.writer import StorageBusy
from hub.web.auth import program_of, require_token, shown_token
from hub.web.context import HUB, Hub

routes = web.RouteTableDef()
ANSWERS = web.AppKey("answers", Answers)

T = TypeVar("T")
PARAMETERS = frozenset({"site", "campaign", "channel", "brand", "class"})  # beside the identifiers
PART = 250  # identifiers worked on at a stretch: a millisecond
# Not 403 or 404, which a mistyped address or token would look like.
HELD_STATUS = 409
_JSON = CIMultiDict({"Content-Type": "application/json; charset=utf-8"})


class _Strict(BaseModel):
    # Strict: a lax mode would read 0 as False and "1" as 1.
    model_config = ConfigDict(strict=True, extra="forbid")


class AskedIdentifier(_Strict):
    kind: Literal["email", "phone", "external_id", "wa_user_id"]
    value: str = Field(min_length=1, max_length=LONGEST)
    site: str = ""


class CheckRequest(_Strict):
    """The body of `POST /api/v1/holds/check`."""

    identifiers: list[AskedIdentifier] = Field(min_length=1, max_length=MOST)
    campaign: str = Field("", max_length=200)
    channel: str = Field("", max_length=40)
    brand: str = Field("", max_length=100)
    message_class: Literal["marketing", "transactional"] = Field("marketing", alias="class")


def sign(hub: Hub, about: About, named: Sequence[str], standing: Standing, now: int, *, degraded: bool = False) -> str:
    """The receipt of one answer; `named` says whom it was about."""
    return receipt.issue(derive(hub.secret, "receipt"), (*about, *named), standing.held, standing.version, now, degraded=degraded)


def _named(asked: Sequence[Asked]) -> list[str]:
    return sorted([f"{one.name}:{one.site}:{one.value or one.given}" for one in asked])


def on_failure(hub: Hub, campaign: str) -> Literal["closed", "open"]:
    """What this campaign is to do where the gate cannot answer; whoever is not configured sends nothing then."""
    declared = hub.settings.holds.campaigns.get(campaign)
    return declared.on_failure if declared is not None else "closed"


def check_names(hub: Hub, brand: str, asked: Sequence[Asked]) -> None:
    """Refuse a brand or a site we do not have: a misspelt one would answer "not held" for everybody. Raises BadQuestion."""
    if brand:
        brands = {rule.brand for rule in hub.policy.channels.values()}
        if brand not in brands:
            raise BadQuestion(f"There is no brand {brand}. Known: {', '.join(sorted(brands))}.")
    for one in asked:
        if one.site and one.site not in hub.settings.sites:
            raise BadQuestion(f"There is no site {one.site}. Known: {', '.join(sorted(hub.settings.sites))}.")


def about_of(query: Mapping[str, str]) -> About:
    """What a query string asks for, beside whom. Raises BadQuestion."""
    message_class = query.get("class", "marketing")
    if message_class not in ("marketing", "transactional"):
        raise BadQuestion("class: must be marketing or transactional.")
    campaign = query.get("campaign", "")
    if len(campaign) > 200:
        raise BadQuestion("campaign: at most 200 characters.")
    return About(campaign, query.get("channel", "")[:40], query.get("brand", ""), message_class)


class Question(NamedTuple):
    """One person, as `GET /api/v1/holds/check` asks about them."""

    asked: tuple[Asked, ...]
    about: About


def _question(hub: Hub, query: Mapping[str, str]) -> Question:
    """What a query string asks. Raises BadQuestion."""
    asked: list[Asked] = []
    plain = True  # nothing but identifiers
    for name, value in query.items():
        if name in KINDS:
            if value.strip():  # a template that knows no phone of this person leaves `phone=` empty
                if name == "email" and "<" not in value:
                    value = value.strip().replace(" ", "+")  # noqa: PLW2901 (a plus sign in a query string arrives as a space)
                asked.append(ask(name, value, query.get("site", "") if name == "external_id" else ""))
        elif name in PARAMETERS:
            plain = False
        else:
            raise BadQuestion(f"There is no parameter {name}.")
    if not asked:
        raise BadQuestion("Ask by email, phone, external_id or wa_user_id.")
    if plain:
        return Question(tuple(asked), _NOTHING_SAID)
    about = about_of(query)
    check_names(hub, about.brand, asked)
    return Question(tuple(asked), about)


_NOTHING_SAID = About()


def _standing(asked: Sequence[Asked], about: About, facts: Sequence[HoldFact], now: int) -> Standing:
    _, channel, brand, message_class = about
    if len(asked) == 1 and asked[0].value is not None and not asked[0].site:
        return judge(facts, now, brand, channel, message_class)  # nearly every question: nothing else was read than what it asks
    hits = by_key(facts)
    return together([standing_of(one, hits, now, brand, channel, message_class) for one in asked])


async def _one(request: web.Request, held_status: int) -> web.Response:
    app = request.app
    hub = app[HUB]
    token = shown_token(request)
    try:
        asked, about = _question(hub, request.query)
    except BadQuestion:
        await require_token(request)  # nobody else learns which brands and sites there are
        raise
    otherwise = on_failure(hub, about.campaign)
    now = hub.writer.clock()
    degraded = False
    try:
        found, facts = await hub.hot.checked(token, keys_of(asked))
        program_of(found)
        standing = _standing(asked, about, facts, now)
    except StorageBusy:
        if otherwise == "closed":
            raise
        # Who asks is not known now either; but this tells nobody anything.
        standing, degraded = DEGRADED, True
    proof = sign(hub, about, _named(asked), standing, now, degraded=degraded)
    app[ANSWERS].count(about, proof, now, held=standing.held, degraded=degraded)
    body = (
        f'{{{spelled(standing)},"hold":{"true" if standing.held else "false"},{_DEGRADED if degraded else ""}"on_failure":"{otherwise}",'
        f'"receipt_id":"{proof}","as_of":"{iso(now)}"}}'
    )
    return web.Response(body=body.encode(), status=held_status if standing.held else 200, headers=_JSON.copy())


_DEGRADED = '"degraded":true,'


@routes.get("/api/v1/holds/check")
async def check_one(request: web.Request) -> web.Response:
    """One person, by any of their identifiers; any held identifier holds. Prefer POST: a query string ends up in logs."""
    return await _one(request, 200)


@routes.get("/api/v1/holds/feed")
async def check_feed(request: web.Request) -> web.Response:
    """The same for tools that understand nothing but the status: 200 send, anything else do not. Iterable skips a message whose data feed
    answers other than 200, with the reason DataFeedError (https://support.iterable.com/hc/en-us/articles/360021169631-Send-Skips)."""
    return await _one(request, HELD_STATUS)


async def _parts(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """A long list in pieces, letting others go on in between: a question of a thousand must not hold up those of one."""
    for start in range(0, len(items), PART):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + PART]


@routes.post("/api/v1/holds/check")
async def check_many(request: web.Request) -> web.Response:
    """1 to 1,000 identifiers, each answered in the order asked, and `held_count`. (`application/x-ndjson` goes to `holds_stream`.)"""
    hub = request.app[HUB]
    known = True
    try:
        await require_token(request)
    except StorageBusy:
        known = False
    try:
        wanted = CheckRequest.model_validate_json(await request.read())
    except ValidationError as error:
        raise BadQuestion(" ".join(explain(error)).removeprefix(": ")) from None
    about = About(wanted.campaign, wanted.channel, wanted.brand, wanted.message_class)
    otherwise = on_failure(hub, wanted.campaign)
    asked: list[Asked] = []
    async for part in _parts(wanted.identifiers):
        asked += [ask(one.kind, one.value, one.site) for one in part]
    if known:
        check_names(hub, wanted.brand, asked)
    now = hub.writer.clock()
    standings: list[Standing] = []
    results: list[dict[str, Any]] = []
    try:
        if not known:
            raise StorageBusy("The database could not be read. Ask again.")
        hits = await look_up(asked, hub.hot)
        async for some in _parts(asked):
            judged = [standing_of(one, hits, now, about.brand, about.channel, about.message_class) for one in some]
            standings += judged
            results += [{"kind": one.name, "value": one.given, **standing.shown()} for one, standing in zip(some, judged, strict=True)]
    except StorageBusy:
        if otherwise == "closed":
            raise
        known = False
        standings = [DEGRADED] * len(asked)
        results = [{"kind": one.name, "value": one.given, **DEGRADED.shown(), "degraded": True} for one in asked]
    whole = together(standings)
    held_count = sum(standing.held for standing in standings)
    proof = sign(hub, about, _named(asked), whole, now, degraded=not known)
    request.app[ANSWERS].count(about, proof, now, held=held_count, asked=len(asked), degraded=0 if known else len(asked))
    answer = {
        "results": results,
        "held": whole.held,
        "hold": whole.held,
        "held_count": held_count,
        **({} if known else {"degraded": True}),
        "on_failure": otherwise,
        "receipt_id": proof,
        "as_of": iso(now),
    }
    # pydantic's encoder: a fifth of what the standard library takes for it.
    return web.Response(body=to_json(answer), headers=_JSON.copy())


def add_routes(app: web.Application) -> None:
    """Answer, and count the answers while the application runs; what is counted is handed over when it ends, before the database closes."""
    app.add_routes(routes)
    hub = app[HUB]
    answers = app[ANSWERS] = Answers(hub.writer.run, hub.settings.holds.receipts)

    async def start(_: web.Application) -> None:
        await answers.start()

    async def stop(_: web.Application) -> None:
        await answers.stop()

    app.on_startup.append(start)
    app.on_cleanup.append(stop)
