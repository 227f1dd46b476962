"""`/api/v1/customers/{id}/holds`: what holds a customer, and holds a program places and ends for reasons of the business's own."""

from __future__ import annotations

import json
from typing import Any

from hub.conversations.commands import Resolve
from hub.holds.reasons import PlaceHold
from tests.test_customers_api import Api, api, settings  # noqa: F401 (fixtures)


async def delete(api: Api, path: str, status: int = 200) -> Any:  # noqa: F811
    async with api.http.delete(api.url(path)) as answer:
        return await api._body(answer, status)


async def test_a_program_holds_a_customer_under_a_key_of_its_own_and_ends_it(api: Api) -> None:  # noqa: F811
    await api.running.hub.writer.run(Resolve(1, 1))
    assert not (await api.get("/1/holds"))["held"]
    wanted = {"key": "return 17", "days": 10, "note": "A parcel is on its way back.", "channels": ["email"]}
    assert (await api.post("/1/holds", wanted)) == {"customer_id": 1, "changed": True}
    assert (await api.post("/1/holds", wanted | {"days": 5}))["changed"] is False, "an earlier end changes nothing"
    assert (await api.post("/1/holds", {"key": "return 18"}))["changed"] is True, "another key is another hold"
    shown = await api.get("/1/holds")
    assert [(one["reason"], one["scope"]["channels"], one["note"]) for one in shown["holds"]] == [
        ("api", ["email"], "A parcel is on its way back."),
        ("api", ["*"], ""),
    ]
    assert shown["holds"][0]["by"].startswith("program:")
    for one in shown["holds"]:
        await delete(api, f"/1/holds/{one['id']}")
    assert not (await api.get("/1/holds"))["held"]
    await delete(api, f"/1/holds/{shown['holds'][0]['id']}", 409)


async def test_a_program_ends_no_agents_and_no_tickets_hold(api: Api) -> None:  # noqa: F811
    await api.running.hub.writer.run(PlaceHold(1, 5, "agent:1", agent_id=1))
    holds = (await api.get("/1/holds"))["holds"]
    assert [one["reason"] for one in holds] == ["open_ticket", "agent"]
    for one in holds:
        await delete(api, f"/1/holds/{one['id']}", 409)
    await delete(api, "/1/holds/999", 404)
    await delete(api, f"/2/holds/{holds[0]['id']}", 404)


async def test_a_hold_that_cannot_be_is_refused_with_the_field_that_is_wrong(api: Api) -> None:  # noqa: F811
    for wrong, named in (
        ({"days": 5}, "key"),
        ({"key": "a", "days": 0}, "days"),
        ({"key": "a", "days": 400}, "days"),
        ({"key": "a", "reason": "open_ticket"}, "reason"),
        ({"key": "a", "until": "tomorrow"}, "until"),
    ):
        assert named in json.dumps(await api.post("/1/holds", wrong, 400))
