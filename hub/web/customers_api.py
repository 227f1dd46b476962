"""The JSON API about customers: who answers to an address, why they are one person, and what a program decides about who is who.

An id never dies: that of a merged customer is answered with 307 and the survivor's address, and with 200 again once the merge is taken
back. So no answer may be kept by anybody in between (`Cache-Control: no-store`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from hub.config import explain as faults_of
from hub.conversations import history
from hub.customers import profile, suggestions, why
from hub.customers.canonical import canonical
from hub.customers.merging import Merge, Reject, Unmerge
from hub.holds.gate import KINDS, Asked, BadQuestion, ask
from hub.holds.ledger import NAMES, iso
from hub.policy import Refusal
from hub.storage.facts import Work
from hub.web.api import check_names
from hub.web.auth import require_token
from hub.web.context import HUB, Hub

routes = web.RouteTableDef()
R = TypeVar("R")
Body = TypeVar("Body", bound=BaseModel)

AT = "/api/v1/customers/{customer_id}"
NO_STORE: Mapping[str, str] = {"Cache-Control": "no-store"}
LARGEST = 2**63 - 1  # what an id column holds


class Strict(BaseModel):
    # Strict: a lax mode would take true for 1 and "17" for 17.
    model_config = ConfigDict(strict=True, extra="forbid")


class MergeRequest(Strict):
    """The body of `POST .../merge`: whom to join to the customer of the path, and why."""

    other: int = Field(ge=1, le=LARGEST)
    reason: str = Field("", max_length=500)


class UnmergeRequest(Strict):
    """The body of `POST .../unmerge`: the join to take back, as a merge or `why` named it."""

    join_id: int = Field(ge=1, le=LARGEST)


class RejectRequest(Strict):
    """The body of `POST .../reject`: who is somebody else than the customer of the path."""

    other: int = Field(ge=1, le=LARGEST)


# --- reading ---------------------------------------------------------------------------------------------------------


@routes.get("/api/v1/customers")
async def find(request: web.Request) -> web.Response:
    """The live customers whose this address or account is: by `email`, `phone`, `wa_user_id`, or `external_id` (with its `site`)."""
    await require_token(request)
    hub = request.app[HUB]
    asked = _asked(hub, request.query)
    check_names(hub, "", asked)
    found: dict[int, dict[str, Any]] = {}
    for one in asked:
        for row in await hub.reader.all(profile.holders(KINDS[one.name], one.value or "", one.site)):
            known = found.setdefault(row.customer_id, {"id": row.customer_id, "name": row.name, "matched": []})
            known["matched"].append({**_named(row), "standing": row.standing, "proof": row.proof, "shared": row.shared_at is not None})
    return answer({"customers": list(found.values())})


def _asked(hub: Hub, query: Mapping[str, str]) -> list[Asked]:
    """What a query string looks for. Raises BadQuestion."""
    asked: list[Asked] = []
    for name, value in query.items():
        if name in KINDS:
            if not value.strip():
                continue  # a template that knows no phone of this person leaves `phone=` empty
            one = ask(name, value, query.get("site", "") if name == "external_id" else "")
            read = one.value or canonical(KINDS[name], value, hub.policy.region)
            if read is None:
                raise BadQuestion(f"{name}: this cannot be read as one. A phone number needs its country code.")
            asked.append(one._replace(value=read))
        elif name != "site":
            raise BadQuestion(f"There is no parameter {name}.")
    if not asked:
        raise BadQuestion("Look up by email, phone, external_id or wa_user_id.")
    return asked


@routes.get(AT)
async def show(request: web.Request) -> web.Response:
    """A customer: identifiers with their proof, what is claimed, attributes with their sources, opt-outs, tickets."""
    await require_token(request)
    hub, customer = await customer_of(request)
    read = hub.reader
    body = {
        "id": customer.id,
        "name": customer.name,
        "created_at": iso(customer.created_at),
        "merged_ids": [row.id for row in await read.all(profile.merged(customer.id))],
        "identifiers": [
            {
                "id": row.id,
                **_named(row),
                "standing": row.standing,
                "proof": row.proof,
                "first_seen": iso(row.first_seen),
                "last_proof_at": iso(row.last_proof_at),
                "shared_since": _moment(row.shared_at),
                "passed_on_at": _moment(row.ended_at),
            }
            for row in await read.all(profile.identifiers(customer.id))
        ],
        "claimed": [{**_named(row), "proof": row.proof, "at": iso(row.at)} for row in await read.all(profile.claimed(customer.id))],
        "attributes": [
            {"name": row.name, "value": row.value, "source": row.source, "at": iso(row.at), "of": row.home_id}
            for row in await read.all(profile.attributes(customer.id))
        ],
        "opt_outs": [
            {"kind": NAMES.get(row.kind, row.kind), "value": row.value, "channel": row.channel, "since": iso(row.at)}
            for row in await read.all(profile.opt_outs(customer.id))
        ],
        "tickets": [
            {
                "id": row.id,
                "status": row.status,
                "subject": row.subject,
                "opened_at": iso(row.opened_at),
                "last_at": iso(row.last_at),
                "resolved_at": _moment(row.resolved_at),
            }
            for row in await read.all(history.customer_tickets(customer.id))
        ],
    }
    return answer(body)


def _named(row: Any) -> dict[str, str]:
    """An identifier in the words of the API."""
    return {"kind": NAMES.get(row.kind, row.kind), "value": row.value} | ({"site": row.site} if row.site else {})


def _moment(at: int | None) -> str | None:
    return iso(at) if at is not None else None


@routes.get(AT + "/why")
async def show_why(request: web.Request) -> web.Response:
    """Why they are one person: everything that is noted, as sentences with dates, and the live joins with the number an undo names."""
    await require_token(request)
    hub, customer = await customer_of(request)
    told = await why.explain(customer.id, hub.reader, {bound.rule.id: bound.rule.label for bound in hub.channels.values()})
    if told is None:
        raise web.HTTPNotFound(text=f"There is no customer {customer.id}.")
    return answer(why.shown(told))


@routes.get(AT + "/suggestions")
async def show_suggestions(request: web.Request) -> web.Response:
    """Who may be the same person, the likeliest first, with the reasons. None of them is joined by itself."""
    await require_token(request)
    hub, customer = await customer_of(request)
    found = []
    for row in await hub.reader.all(suggestions.for_customer(customer.id)):
        left = row.left_id == customer.id
        found.append(
            {
                "other": {"id": row.right_id if left else row.left_id, "name": row.right_name if left else row.left_name},
                "score": row.score / 1_000,
                "reasons": list(suggestions.reasons(row)),
                "at": iso(row.at),
            }
        )
    return answer({"id": customer.id, "suggestions": found})


# --- deciding --------------------------------------------------------------------------------------------------------


@routes.post(AT + "/merge")
async def merge(request: web.Request) -> web.Response:
    """Make two customers one, because a program's user says so."""
    program = await require_token(request)
    hub, customer = await customer_of(request)
    wanted = await body_of(request, MergeRequest)
    reason = wanted.reason.strip() or "no reason was given"
    merged = await run(hub, Merge(customer.id, wanted.other, f"program:{program.name}", None, reason))
    return answer({"customer_id": merged.customer_id, "join_id": merged.join_id})


@routes.post(AT + "/unmerge")
async def unmerge(request: web.Request) -> web.Response:
    """Take a join or a merge of this customer back, at any later time."""
    program = await require_token(request)
    hub, customer = await customer_of(request)
    wanted = await body_of(request, UnmergeRequest)
    tie = await hub.reader.first(profile.tie(wanted.join_id))
    if tie is None:
        raise web.HTTPConflict(text=f"There is no join {wanted.join_id}. GET .../why names those of this customer.")
    ends = await hub.reader.all(profile.customers({tie.left_id, tie.right_id}))
    if {row.merged_into or row.id for row in ends} != {customer.id}:
        raise web.HTTPConflict(text=f"Join {wanted.join_id} ties nobody to customer {customer.id} now. GET .../why names those that do.")
    parted = await run(hub, Unmerge(tie.id, tie.left_id, tie.right_id, f"program:{program.name}"))
    other = parted.right_id if parted.left_id == customer.id else parted.left_id
    return answer({"customer_id": customer.id, "other_id": other})


@routes.post(AT + "/reject")
async def reject(request: web.Request) -> web.Response:
    """Two customers are two people: they are suggested no more, and later proof asks a person instead of joining them."""
    program = await require_token(request)
    hub, customer = await customer_of(request)
    wanted = await body_of(request, RejectRequest)
    await run(hub, Reject(customer.id, wanted.other, f"program:{program.name}"))
    return answer({"customer_id": customer.id, "other_id": wanted.other})


# --- what they share -------------------------------------------------------------------------------------------------


async def customer_of(request: web.Request) -> tuple[Hub, Any]:
    """The live customer of the path. Raises 404 for an id nobody had, 307 to the survivor for one that was merged."""
    hub, given = request.app[HUB], request.match_info["customer_id"]
    number = int(given) if given.isascii() and given.isdigit() and len(given) < 19 else 0
    row = await hub.reader.first(profile.customers({number})) if number else None
    if row is None:
        raise web.HTTPNotFound(text="There is no such customer.")
    if row.merged_into is not None:
        # The method and the body are kept by whoever follows a 307 (RFC 9110 section 15.4.8).
        path = request.path.removeprefix(f"/api/v1/customers/{given}")
        raw = request.rel_url.raw_query_string  # as it came: decoded, a line break in it would stand in our header
        query = f"?{raw}" if raw else ""
        leads_to = f"/api/v1/customers/{row.merged_into}{path}{query}"
        raise web.HTTPTemporaryRedirect(leads_to, headers=NO_STORE, text=f"Customer {number} is customer {row.merged_into} now.")
    return hub, row


async def body_of(request: web.Request, model: type[Body]) -> Body:
    """The request's body. Raises BadQuestion."""
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        raise BadQuestion(" ".join(faults_of(error)).removeprefix(": ")) from None


async def run(hub: Hub, work: Work[R]) -> R:
    """Let a decision be made. Raises 409 with the words of its refusal."""
    try:
        return await hub.writer.run(work)
    except Refusal as refusal:
        raise web.HTTPConflict(text=str(refusal)) from None


def answer(body: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.Response(status=status, body=to_json(body), content_type="application/json", charset="utf-8", headers=NO_STORE)
