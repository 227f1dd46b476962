"""`POST /api/v1/customers`: the business's records from a program, by the same rules as an import (issue 4, line 11)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hub.agents import CreateApiToken
from hub.app import Running
from hub.customers.recording import RecordCustomer
from hub.keys import digest
from hub.storage.writer import StorageBusy
from hub.web.customers_bulk import MOST
from tests.conftest import configured
from tests.storage import RULE_ENGINES

TOKEN = "hub_" + "A" * 43
ADA = "+12025550123"


@dataclass
class Api:
    running: Running
    http: aiohttp.ClientSession

    async def post(self, body: Any, status: int = 200) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(f"http://127.0.0.1:{self.running.port}/api/v1/customers", data=data) as answer:
            said = await answer.json(content_type=None)
            assert answer.status == status, said
            return said

    async def results(self, *customers: Any, **more: Any) -> list[tuple[str, int | None]]:
        said = await self.post({"customers": list(customers), **more})
        return [(one["status"], one["customer_id"]) for one in said["results"]]

    async def value(self, sql: str) -> Any:
        from sqlalchemy import text

        return await self.running.hub.reader.value(text(sql))


@pytest.fixture(params=RULE_ENGINES)
async def api(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    with configured(tmp_path, request.param) as settings:
        running = Running(settings)
        await running.start()
        try:
            await running.hub.writer.run(CreateApiToken("Shop", digest(TOKEN)))
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
                yield Api(running, http)
        finally:
            await running.stop()


async def test_customers_are_recorded_and_said_again_change_nothing(api: Api) -> None:
    ada = {
        "external_id": "u1",
        "email": "ada@example.com",
        "phone": [ADA],
        "name": "Ada",
        "attributes": {"plan": "gold", "since": 2020, "vip": True},
    }
    ben = {"external_id": [{"id": "u2", "site": "shop"}], "email": ["ben@example.com", "benny@example.com"]}
    assert await api.results(ada, ben) == [("created", 1), ("created", 2)]
    assert await api.results(ada, ben) == [("unchanged", 1), ("unchanged", 2)]
    assert await api.results({**ada, "attributes": {"plan": "tin"}}) == [("updated", 1)]
    assert await api.value("SELECT value FROM attribute WHERE name = 'plan'") == "tin"
    assert await api.value("SELECT value FROM attribute WHERE name = 'vip'") == "true"
    assert await api.value("SELECT source FROM attribute WHERE name = 'plan'") == "Shop shop/u1", (
        "a source is a program, by its token's name"
    )
    assert await api.value("SELECT count(*) FROM ticket") == await api.value("SELECT count(*) FROM hold") == 0


async def test_one_customer_needs_no_list(api: Api) -> None:
    said = await api.post({"email": "ada@example.com", "source": "crm"})
    assert said == {"results": [{"status": "created", "customer_id": 1, "error": ""}]}
    assert await api.value("SELECT source FROM evidence") == "record:crm"


async def test_what_is_missing_stays_and_what_is_null_is_withdrawn(api: Api) -> None:
    await api.results({"external_id": "u1", "email": "ada@example.com", "phone": ADA, "attributes": {"plan": "gold", "city": "Oslo"}})
    assert await api.results({"external_id": "u1"}) == [("unchanged", 1)]
    assert await api.results({"external_id": "u1", "phone": None, "attributes": {"plan": None}}) == [("updated", 1)]
    assert await api.value(f"SELECT customer_id FROM identifier WHERE value = '{ADA}'") is None
    assert await api.value("SELECT customer_id FROM identifier WHERE value = 'ada@example.com'") == 1
    assert await api.value("SELECT count(*) FROM attribute") == 1
    assert await api.results({"external_id": "u1", "email": []}) == [("updated", 1)]
    assert await api.value("SELECT customer_id FROM identifier WHERE value = 'ada@example.com'") is None


async def test_one_that_is_refused_keeps_none_of_the_others_out(api: Api) -> None:
    said = await api.post(
        {
            "customers": [
                {"email": "ada@example.com"},
                {"email": "no address"},
                {"external_id": "u1", "site": "shp"},
                {"name": "Nobody"},
                {"email": "ADA@example.com", "name": "Ada again"},
                {"email": "ben@example.com"},
            ]
        }
    )
    assert [one["status"] for one in said["results"]] == ["created", "refused", "refused", "refused", "refused", "created"]
    errors = [one["error"] for one in said["results"]]
    assert errors[1] == "email: 'no address' is no e-mail address."
    assert "there is no site 'shp'. Known: shop." in errors[2]
    assert "Nothing to know this person by" in errors[3]
    assert errors[4] == "ada@example.com is customers.0 already: a person comes once."
    assert [one["customer_id"] for one in said["results"]] == [1, None, None, None, None, 2]


MALFORMED: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "no JSON"),
    "no number": (b'{"customers": [{"email": "a@example.com", "attributes": {"a": NaN}}]}', "no JSON"),
    "a nest": (b"[" * 100_000, "no JSON"),
    "a list": ([{"email": "a@example.com"}], "Input should be"),
    "nobody": ({"customers": []}, "customers"),
    "too many": ({"customers": [{"email": "a@example.com"}] * (MOST + 1)}, "customers"),
    "a mistyped field, by its place": ({"customers": [{"email": "a@example.com"}, {"emial": "b@example.com"}]}, "customers.1.emial"),
    "a wrong type, by its place": ({"customers": [{"email": "a@example.com"}, {}, {"email": 7}]}, "customers.2.email"),
    "an attribute that is no value": ({"email": "a@example.com", "attributes": {"a": ["b"]}}, "customers.0.attributes.a"),
    "a source without a name": ({"email": "a@example.com", "source": " "}, "source"),
    "a source that is none": ({"email": "a@example.com", "source": 7}, "source"),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_request_is_refused_whole(api: Api, case: str) -> None:
    body, text = MALFORMED[case]
    said = await api.post(body, 400)
    assert text in said["title"]
    assert said["title"].endswith("Nothing was recorded.")
    assert await api.value("SELECT count(*) FROM customer") == 0


async def test_a_program_needs_its_token(api: Api) -> None:
    url = f"http://127.0.0.1:{api.running.port}/api/v1/customers"
    for headers in ({}, {"Authorization": "Bearer hub_" + "B" * 43}):
        async with aiohttp.ClientSession(headers=headers) as http, http.post(url, json={"email": "a@example.com"}) as answer:
            assert answer.status == 401
    assert await api.value("SELECT count(*) FROM customer") == 0


async def test_a_database_that_is_behind_is_told_and_what_was_recorded_is_not_doubled(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    customers = [{"email": f"a{n}@example.com"} for n in range(100)]
    run, count = api.running.hub.writer.run, 0

    async def behind(work: Any) -> Any:
        nonlocal count
        if isinstance(work, RecordCustomer):
            count += 1
            if count == 60:
                raise StorageBusy("The database is behind.")
        return await run(work)

    with monkeypatch.context() as patched:
        patched.setattr(api.running.hub.writer, "run", behind)
        said = await api.post({"customers": customers}, 503)
        assert "send all of them again" in said["title"]
    half = await api.value("SELECT count(*) FROM customer")
    assert 50 <= half < 100
    statuses = [status for status, _ in await api.results(*customers)]
    assert statuses.count("unchanged") == half
    assert await api.value("SELECT count(*) FROM customer") == 100


async def test_a_thousand_at_once(api: Api) -> None:
    customers = [{"external_id": f"u{n}", "email": f"a{n}@example.com", "phone": f"+1202{5550000 + n}"} for n in range(MOST)]
    assert {status for status, _ in await api.results(*customers)} == {"created"}
    assert {status for status, _ in await api.results(*customers)} == {"unchanged"}
