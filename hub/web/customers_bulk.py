"""The business's records from a program: `POST /api/v1/customers`, by the same rules as `hub customers import`."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hub.config import explain
from hub.customers import recording
from hub.customers.recording import BadRecord, Given, Record
from hub.storage.writer import StorageBusy
from hub.web.api import problem
from hub.web.auth import require_token
from hub.web.context import HUB, Hub

routes = web.RouteTableDef()

MOST = 1_000  # customers a request
PART = 10  # read at a stretch, letting others go on in between: a phone number alone takes 50 microseconds


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class AccountItem(_Strict):
    id: str = Field(max_length=512)
    site: str = ""


Values = str | list[str] | None


class CustomerItem(_Strict):
    """One customer. A field that is missing stays as it is on record; one that is null or empty is on record as none."""

    external_id: str | list[AccountItem] | None = None
    site: str = ""
    email: Values = None
    phone: Values = None
    wa_user_id: Values = None
    name: str | None = None
    attributes: dict[str, str | int | float | bool | None] = Field({}, max_length=recording.MOST_ATTRIBUTES)
    hub: Any = None  # what an export tells beside; passed over


class CustomersRequest(_Strict):
    """The body of `POST /api/v1/customers`."""

    customers: list[CustomerItem] = Field(min_length=1, max_length=MOST)
    source: str = ""


class Result(BaseModel):
    status: Literal["created", "updated", "unchanged", "refused"]
    customer_id: int | None = None
    error: str = ""


@routes.post("/api/v1/customers")
async def record_customers(request: web.Request) -> web.Response:
    """1 to 1,000 customers, each answered in the order given. One that is refused keeps none of the others from being recorded."""
    program = await require_token(request)
    hub = request.app[HUB]
    try:
        wanted = CustomersRequest.model_validate(_body(await request.read()))
        source = recording.check_source(wanted.source or program.name)
    except ValidationError as error:
        return problem(400, " ".join(explain(error)).removeprefix(": ") + " Nothing was recorded.")
    except (BadRecord, ValueError) as error:
        return problem(400, f"{error} Nothing was recorded.")
    results, records = await _read(wanted.customers, hub)
    try:
        done = await recording.write(list(records.values()), source, hub.writer)
    except StorageBusy as error:
        text = f"{error} Some of these customers may have been recorded: send all of them again, what is recorded stays as it is."
        return problem(503, text, {"Retry-After": "2"})
    for number, one in zip(records, done, strict=True):
        results[number] = Result(status=one.status, customer_id=one.customer_id)  # type: ignore[arg-type]
    return web.json_response({"results": [results[number].model_dump() for number in range(len(wanted.customers))]})


def _body(raw: bytes) -> Any:
    """The request as one of several customers. Raises ValueError."""

    def no_number(name: str) -> float:
        raise ValueError(name)

    try:
        body = json.loads(raw, parse_constant=no_number)
    except (ValueError, RecursionError):
        raise ValueError("The body is no JSON.") from None
    if isinstance(body, dict) and "customers" not in body:
        one = {name: value for name, value in body.items() if name != "source"}
        return {"customers": [one], **({"source": body["source"]} if "source" in body else {})}
    return body


async def _read(items: list[CustomerItem], hub: Hub) -> tuple[dict[int, Result], dict[int, Record]]:
    """By their place in the request: who is refused, and who can be recorded."""
    region, sites = hub.settings.identity.default_region, hub.settings.sites.keys()
    refused: dict[int, Result] = {}
    records: dict[int, Record] = {}
    seen: dict[str, int] = {}
    for number, item in enumerate(items):
        if number % PART == PART - 1:
            await asyncio.sleep(0)
        try:
            record = recording.read(_given(item, next(iter(sites)) if len(sites) == 1 else ""), region, sites)
        except BadRecord as error:
            refused[number] = Result(status="refused", error=str(error))
            continue
        first = seen.setdefault(record.key, number)
        if first == number:
            records[number] = record
        else:
            refused[number] = Result(status="refused", error=f"{record.key} is customers.{first} already: a person comes once.")
    return refused, records


def _given(item: CustomerItem, only_site: str) -> Given:
    told = item.model_fields_set
    accounts = item.external_id
    if isinstance(accounts, str):
        accounts = [AccountItem(id=accounts)]

    def values(name: str) -> tuple[str, ...] | None:
        value: Values = getattr(item, name)
        return None if name not in told else (value,) if isinstance(value, str) else tuple(value or ())

    return Given(
        tuple((one.site or item.site or only_site, one.id) for one in accounts or ()) if "external_id" in told else None,
        values("wa_user_id"),
        values("email"),
        values("phone"),
        (item.name or "") if "name" in told else None,
        tuple((name, _text(value)) for name, value in item.attributes.items()),
    )


def _text(value: str | int | float | bool | None) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
