"""The providers' doorway: `POST /in/{channel}` and `POST /rooms/{room}`.

Verify, parse, ingest, answer: the answer is given after COMMIT and never before. What each provider is told in each case
decides whether it tries again; the cases are those of each connector's `answers`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog
from aiohttp import web
from sqlalchemy import select

from hub.capped import TooMuch
from hub.contract import Answer, Challenged, Expands, Inbound, Refused, Request, TryLater, Unparseable, Verdict
from hub.conversations.ingest import Ingest, Outcome, Raw
from hub.conversations.intake import prepare
from hub.conversations.quarantine import OVERSIZE, SIGNATURE, UNPARSEABLE, Keep, Settle, Verified
from hub.customers.resolution import NoSender
from hub.delivery.tokens import reply_token_names
from hub.storage.tables import metadata
from hub.storage.writer import StorageBusy
from hub.web.context import HUB, BoundChannel, Hub

log = structlog.get_logger("hub.webhooks")
routes = web.RouteTableDef()

HARD_CAP = 40_000_000  # bytes; above the 30 MB that SendGrid sends at most
IN_ROW = 64_000  # a larger body goes to the blob store
UNVERIFIED_KEPT = 1_000_000  # bytes; of a larger body that nobody signed only the fact is kept: 1,000 of them must fit on the disk
PATIENCE = 2.0  # seconds until a provider is told to come back
# The same for a body above IN_ROW: asked to come back, a large mail would take as long the next time and be lost in the end.
LARGE_PATIENCE = 20.0
FETCHING = 14.0  # where a webhook only points to the mail: a little less than Amazon's SNS waits (15 s)
READING = 8.0  # seconds one large body may take to be understood; beyond that it is kept as it came
REPLAY_READING = 120.0  # an administrator waits longer
# Headers worth keeping beside the raw request. Credentials are never kept.
KEPT_HEADERS = (
    *("content-type", "user-agent", "i-twilio-idempotency-token", "x-twilio-signature", "x-request-id"),
    *("telnyx-signature-ed25519", "telnyx-timestamp", "x-envelope-from", "x-envelope-to"),
)


READ = web.RequestKey("read", bytes)  # a body a guard before this door has read already


async def _body(request: web.Request) -> bytes | None:
    """The whole body, or None when it is larger than we take."""
    if READ in request:
        return request[READ]
    if (request.content_length or 0) > HARD_CAP:
        return None
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > HARD_CAP:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def as_seen(request: web.Request, body: bytes, public_url: str) -> Request:
    """The request as its sender addressed it: our configured public address, the raw path and query, plain headers."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Request(request.method, public_url + request.raw_path, headers, body)


@routes.post("/in/{channel}")
async def inbound(request: web.Request) -> web.Response:
    hub = request.app[HUB]
    bound = hub.channels.get(request.match_info["channel"])
    if bound is None:
        return web.Response(status=404, text="There is no such channel.")
    body = await _body(request)
    if body is None:
        return await _too_big(hub, bound, request)
    seen = as_seen(request, body, hub.settings.server.public_url)
    try:
        async with asyncio.timeout(_patience(bound, body)):
            answer = await receive(hub, bound, seen)
    except (StorageBusy, TimeoutError, OSError) as error:
        log.warning("webhook not stored", channel=bound.rule.name, error=str(error) or "too slow")
        return web.Response(status=bound.connector.answers.busy, text="Not stored. Try again.", headers={"Retry-After": "2"})
    return web.Response(status=answer.status, text=answer.body, content_type=answer.content_type)


def _patience(bound: BoundChannel, body: bytes) -> float:
    if isinstance(bound.connector, Expands):
        return FETCHING
    return PATIENCE if len(body) <= IN_ROW else LARGE_PATIENCE


@routes.get("/in/{channel}")
async def challenge(request: web.Request) -> web.Response:
    """Some providers ask by GET whether this address is ours before they send anything to it."""
    hub = request.app[HUB]
    bound = hub.channels.get(request.match_info["channel"])
    if bound is None or not isinstance(bound.connector, Challenged):
        raise web.HTTPNotFound(text="There is no such channel, or its provider asks nothing by GET.\n")
    answer = bound.connector.challenge(as_seen(request, b"", hub.settings.server.public_url))
    return web.Response(status=answer.status, text=answer.body, content_type=answer.content_type)


async def receive(hub: Hub, bound: BoundChannel, seen: Request) -> Answer:
    """One webhook from verification to COMMIT. Raises StorageBusy or OSError where nothing was stored."""
    connector = bound.connector
    if isinstance(connector, Expands):
        try:
            await connector.prepare(seen, hub.http)
        except TryLater as error:
            log.warning("webhook cannot be verified yet", channel=bound.rule.name, error=str(error))
            return Answer(connector.answers.busy, "What it is verified with cannot be fetched now. Try again.")
    verdict = connector.verify(seen, time.time())
    if verdict is Verdict.NO_KEY:
        log.error("no key to verify with; nothing accepted", channel=bound.rule.name)
        return Answer(connector.answers.busy, f"The channel {bound.rule.name} has no key to verify this with. Set it in config.yaml.")
    observing = bound.observes and bound.state.verified_at is None
    if verdict is not Verdict.GOOD and not observing:
        await hub.writer.run(await _keep(hub, bound, seen, SIGNATURE, f"The signature is {_WORDS[verdict]}."))
        answers = connector.answers
        unproven = answers.bad_signature_until_verified if bound.state.verified_at is None else None
        return Answer(unproven or answers.bad_signature, "The signature does not verify.")
    trusted = verdict is Verdict.GOOD
    if trusted and isinstance(connector, Expands):
        try:
            seen = await connector.expand(seen, hub.http)
        except TryLater as error:
            log.warning("webhook points to what cannot be fetched yet", channel=bound.rule.name, error=str(error))
            return Answer(connector.answers.busy, "What it points to cannot be fetched now. Try again.")
        except (Unparseable, Refused) as error:
            await hub.writer.run(await _keep(hub, bound, seen, UNPARSEABLE, str(error), whole=True))
            return connector.answers.ok
    fault, outcome = await _understand(hub, bound, seen, verdict)
    if not fault and outcome is not None and outcome.aside:
        fault = outcome.aside[0]
    if fault:
        # What did not verify when it came must do so before it is replayed: nobody's word may gain weight by being unreadable.
        kind = UNPARSEABLE if trusted else SIGNATURE
        await hub.writer.run(await _keep(hub, bound, seen, kind, fault, whole=True))
    if trusted and bound.state.verified_at is None:
        bound.state = await hub.writer.run(Verified(bound.state))
    return connector.answers.ok


_TOKEN = re.compile(r"([?&]token=)[^&]*")
_WORDS = {Verdict.BAD: "wrong", Verdict.UNSIGNED: "missing"}


async def understood(hub: Hub, bound: BoundChannel, seen: Request, seconds: float) -> Sequence[Inbound]:
    """What the connector makes of a request. Raises Unparseable, also for a large one that takes longer than so many seconds or more
    memory than it is given: those are read in a process of their own, where they can take nothing down."""
    if len(seen.body) <= IN_ROW or bound.settings is None:
        return bound.connector.parse(seen)
    made_of = (type(bound.connector), bound.settings, bound.place, seen)
    try:
        found: Sequence[Inbound] = await hub.reading.call("hub.capped_child:parse", *made_of, seconds=seconds)
    except TooMuch as error:
        raise Unparseable(
            f"Of its {len(seen.body) / 1_000_000:.0f} MB nothing was made: {error}. Replay it: then more time is given."
        ) from error
    return found


async def _understand(
    hub: Hub, bound: BoundChannel, seen: Request, verdict: Verdict, seconds: float = READING
) -> tuple[str, Outcome | None]:
    """Parse and ingest: why that could not be done, or the outcome. Raises StorageBusy or OSError where trying again may help."""
    try:
        said = await understood(hub, bound, seen, seconds)
        return "", await ingest(hub, bound, said, trusted=verdict is Verdict.GOOD, raw=await _raw(hub, seen, verdict))
    except Unparseable as error:
        return str(error) or "It cannot be read.", None
    except NoSender as error:
        return str(error), None
    except (StorageBusy, OSError):
        raise
    except Exception as error:
        # Whatever our code did not foresee must not become a crash loop at the provider's expense.
        log.exception("not understood; kept in quarantine", channel=bound.rule.name)
        return f"Our own code failed ({type(error).__name__}). Replay after a fix.", None


async def ingest(hub: Hub, bound: BoundChannel, said: Sequence[Inbound], *, trusted: bool, raw: Raw | None) -> Outcome:
    """Store what was said: files first, synced, then everything in one commit."""
    items, aside = [], []
    for one in said:
        try:
            items.append(await prepare(one, trusted, hub.policy, hub.blobs, lambda token: reply_token_names(hub.secret, token)))
        except NoSender as error:
            aside.append(str(error))
    if aside and not items:
        raise NoSender(aside[0])
    # One that is nobody's holds back none of the others that came with it.
    outcome = await hub.writer.run(Ingest(bound.rule.id, tuple(items), raw))
    return replace(outcome, aside=(*outcome.aside, *aside))


async def accept(hub: Hub, bound: BoundChannel, items: Sequence[Inbound]) -> None:
    """Ingest what a channel of our own proved itself (a visitor who signed in). Raises StorageBusy."""
    await ingest(hub, bound, items, trusted=True, raw=None)


async def _raw(hub: Hub, seen: Request, verdict: Verdict) -> Raw:
    body, sha256 = await _kept_body(hub, seen.body)
    # Some vendors prove themselves by a token in the address: what has verified need not keep it.
    url = _TOKEN.sub(r"\1-", seen.url)
    return Raw(hub.writer.clock(), verdict.value, seen.method, url, _kept_headers(seen.headers), body, sha256)


async def _kept_body(hub: Hub, body: bytes) -> tuple[bytes | None, str]:
    return (body, "") if len(body) <= IN_ROW else (None, await asyncio.to_thread(hub.blobs.put, body))


def _kept_headers(headers: Mapping[str, str], names: Sequence[str] = KEPT_HEADERS) -> str:
    return json.dumps({name: headers[name] for name in names if name in headers})


async def _keep(hub: Hub, bound: BoundChannel, seen: Request, kind: str, reason: str, *, whole: bool = False) -> Keep:
    """The request as quarantine keeps it: `whole` where its sender is told that we have it."""
    body: bytes | None = seen.body
    sha256 = ""
    if whole:
        body, sha256 = await _kept_body(hub, seen.body)
    elif kind == OVERSIZE:
        body = None
    elif len(seen.body) > UNVERIFIED_KEPT:
        body = None
        reason = f"{reason} Its {len(seen.body) / 1_000_000:.1f} MB were not kept, since nothing proves who sent them."
    # A quarantined request is verified again when it is replayed, so whatever signs it must stay; no page shows it.
    headers = {name: value for name, value in seen.headers.items() if name not in ("cookie", "proxy-authorization")}
    # What a proxy adds (a trace id, a time) differs from one try of the same request to the next; what proves it does not.
    proving = sorted(name for name in headers if name in ("authorization", "content-type") or "signature" in name)
    digest = hashlib.sha256(b"\0".join([seen.url.encode(), _kept_headers(headers, proving).encode(), seen.body])).hexdigest()
    return Keep(
        channel_id=bound.rule.id,
        kind=kind,
        reason=reason,
        method=seen.method,
        url=seen.url,
        headers=json.dumps(headers),
        body=body,
        body_sha256=sha256,
        digest=digest,
    )


async def _too_big(hub: Hub, bound: BoundChannel, request: web.Request) -> web.Response:
    size = request.content_length or HARD_CAP
    seen = as_seen(request, b"", hub.settings.server.public_url)
    try:
        reason = f"A request of {size / 1_000_000:.0f} MB was refused; we take {HARD_CAP // 1_000_000} MB."
        await hub.writer.run(await _keep(hub, bound, seen, OVERSIZE, reason))
    except StorageBusy:
        return web.Response(status=503, headers={"Retry-After": "2"})
    return web.Response(status=bound.connector.answers.too_big, text="Too big.")


@routes.post("/rooms/{room}")
async def room(request: web.Request) -> web.Response:
    hub = request.app[HUB]
    found = hub.rooms.get(request.match_info["room"])
    if found is None:
        return web.Response(status=404, text="There is no such room.")
    body = await _body(request)
    if body is None:
        return web.Response(status=413)
    answer = await found.handle(as_seen(request, body, hub.settings.server.public_url), hub.desk)
    return web.Response(status=answer.status, text=answer.body, content_type=answer.content_type)


async def replay(hub: Hub, quarantine_id: int) -> str:
    """Try a quarantined request again, after a fix; says in plain words what happened. A bad signature must verify now."""
    table = metadata.tables["quarantine"]
    row = await hub.reader.first(select(table).where(table.c.id == quarantine_id))
    if row is None:
        return f"There is no quarantined request {quarantine_id}."
    bound = hub.channel(row.channel_id)
    if bound is None:
        return "Its channel is no longer configured. Add it to config.yaml, then replay."
    try:
        body = row.body if row.body is not None else await asyncio.to_thread(hub.blobs.get, row.body_sha256)
    except (OSError, ValueError):
        return "Its body was not kept (too big, or gone from the file store): there is nothing to replay. Ask its sender for it again."
    seen = Request(row.method, row.url, json.loads(row.headers), body)
    connector = bound.connector
    try:
        if isinstance(connector, Expands):
            await connector.prepare(seen, hub.http)
        verdict = Verdict.GOOD if row.kind == UNPARSEABLE else connector.verify(seen, row.received_at / 1_000_000)
        if isinstance(connector, Expands) and verdict is Verdict.GOOD:
            seen = await connector.expand(seen, hub.http)
    except (TryLater, Refused, Unparseable) as error:
        return f"What it points to cannot be had: {error} It still waits here."
    if verdict is not Verdict.GOOD:
        return f"Its signature is still {_WORDS.get(verdict, 'not verifiable')}. Check the channel's token, then replay."
    try:
        fault, outcome = await _understand(hub, bound, seen, verdict, REPLAY_READING)
        if outcome is not None:
            await hub.writer.run(Settle(quarantine_id, "replayed"))
    except (StorageBusy, OSError) as error:
        return f"Not stored: {error} It still waits here; replay it again in a moment (nothing is doubled)."
    if outcome is None:
        return f"Still not understood: {fault}"
    if outcome.stored:
        return "Replayed: the message is in its conversation."
    return "Replayed: it was known already, nothing is doubled." if outcome.duplicates else "Replayed."
