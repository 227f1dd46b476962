"""`/api/v1/customers/{id}/holds`: what holds a customer, and holds a program places and ends for reasons of the business's own."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import literal, select

from hub.conversations.commands import Resolve
from hub.holds.campaigns import NoteCampaigns
from hub.holds.reasons import PlaceHold
from hub.holds.sends import Known, NoteSends
from hub.marketing import Campaign, SendSeen
from tests.test_customers_api import ADA, Api, api, settings  # noqa: F401 (fixtures)


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
        ({"key": "a", "channels": ["e-mail"]}, "channels"),
    ):
        assert named in json.dumps(await api.post("/1/holds", wrong, 400))


async def test_what_a_customer_missed_while_held_is_listed_when_the_hold_is_over(api: Api) -> None:  # noqa: F811
    hub = api.running.hub
    now = hub.writer.clock() / 1_000_000
    coming = [
        Campaign(id=str(n), name=f"Campaign {n}", channel="email", status="sent", send_at=at, excludes_hold=excludes)
        for n, (at, excludes) in enumerate([(now - 60, True), (now + 0.001, True), (now + 0.002, False), (now + 3_600, True)])
    ]
    await hub.writer.run(NoteCampaigns("klaviyo", tuple((one, ()) for one in coming)))
    known = Known(
        SendSeen(provider_key="s1", at=now + 0.003, kind="phone", value=ADA, campaign="By the gate", prevented=True), "phone", ADA, 1, ""
    )
    await hub.writer.run(NoteSends("klaviyo", (known,)))
    await api.post("/1/holds", {"key": "a", "days": 1})
    while hub.writer.clock() / 1_000_000 < now + 0.01:
        await hub.reader.value(select(literal(1)))
    await hub.writer.run(Resolve(1, 1))
    [hold] = (await api.get("/1/holds"))["holds"]
    await delete(api, f"/1/holds/{hold['id']}")
    async with api.http.get(api.url("").replace("customers", "holds/missed")) as answered:
        body = await answered.json()
    [one] = body["customers"]
    assert one["customer_id"] == 1
    assert {"kind": "phone", "value": ADA, "because": "verified"} in one["identifiers"]
    assert [missed["name"] for missed in one["campaigns"]] == ["Campaign 1"], "what went out before, after, or to everybody was not missed"
    assert [missed["name"] for missed in one["prevented"]] == ["By the gate"]
    async with api.http.get(api.url("").replace("customers", "holds/missed"), params={"cursor": body["next_cursor"]}) as answered:
        assert (await answered.json())["customers"] == []
    async with api.http.get(api.url("").replace("customers", "holds/missed"), params={"from": "yesterday"}) as answered:
        assert answered.status == 400
