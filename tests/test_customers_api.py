"""`/api/v1/customers`: who is who, as programs ask and decide it; ids that never die; what webhooks hear of it (issue 4, lines 6 and 7)."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hub.agents import CreateApiToken
from hub.app import Running, sandbox_token
from hub.config import Settings
from hub.contract import Claim, Identified, InboundMessage, Proof
from hub.conversations.ingest import Ingest, item
from hub.keys import digest
from hub.storage.records import Attribute
from tests.conftest import ROOT, configured
from tests.storage import ENGINES, account, device, email, message, phone
from tests.web import Insert

ADA, BEN = "+12025550123", "+12025550124"


@pytest.fixture(params=ENGINES)
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Settings]:
    with configured(tmp_path, request.param) as built:
        yield built


@dataclass
class Api:
    running: Running
    http: aiohttp.ClientSession

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.running.port}/api/v1/customers{path}"

    async def get(self, path: str, status: int = 200, **query: Any) -> Any:
        async with self.http.get(self.url(path), params=query, allow_redirects=False) as answer:
            return await self._body(answer, status)

    async def post(self, path: str, body: Any, status: int = 200) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(self.url(path), data=data, allow_redirects=False) as answer:
            return await self._body(answer, status)

    async def _body(self, answer: aiohttp.ClientResponse, status: int) -> Any:
        text = await answer.text()
        assert answer.status == status, text
        assert answer.headers["Cache-Control"] == "no-store", "an id that leads on today may lead nowhere tomorrow"
        if status >= 400:
            assert answer.content_type == "application/problem+json"
        return json.loads(text) if status != 307 else answer.headers["Location"]

    async def hears(self, channel: str, *said: InboundMessage | Identified) -> None:
        rule = self.running.hub.channels[channel].rule
        await self.running.hub.writer.run(Ingest(rule.id, tuple(item(one, True) for one in said), None))


@pytest.fixture
async def api(running: Running) -> AsyncIterator[Api]:
    """Ada (1) wrote by phone and from her browser (signed in), and named an address; her mails (2) nobody tied to her yet."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {sandbox_token(running.hub.secret)}"}) as http:
        built = Api(running, http)
        await built.hears("whatsapp", message(phone(ADA), sender_name="Ada"))
        await built.hears("chat", Identified(provider_key="i1", claims=(account("u7"), device("d" * 32), phone(ADA, Proof.OTP))))
        await built.hears("chat", message(account("u7"), device("d" * 32), email("ada@work.example", Proof.CLAIMED)))
        await built.hears("email", message(email("ada@example.com")))
        yield built


# --- reading ---


async def test_a_customer_is_shown_with_what_is_known_and_how(api: Api) -> None:
    await api.running.hub.writer.run(Insert((Attribute(1, 1, "plan", "gold", "import", 1_750_000_000_000_000),)))
    await api.hears("whatsapp", message(phone(ADA), text="STOP", opts="out"))
    body = await api.get("/1")
    assert (body["id"], body["name"], body["merged_ids"]) == (1, "Ada", [])
    assert [(one["kind"], one["value"], one["standing"], one["proof"]) for one in body["identifiers"]] == [
        ("phone", ADA, "proven", "channel"),
        ("external_id", "u7", "proven", "signed"),
    ]
    assert body["identifiers"][1]["site"] == "shop"
    assert all(one["shared_since"] is None and one["passed_on_at"] is None for one in body["identifiers"])
    assert [(one["kind"], one["value"], one["proof"]) for one in body["claimed"]] == [("email", "ada@work.example", "claimed")]
    assert body["attributes"] == [{"name": "plan", "value": "gold", "source": "import", "at": "2025-06-15T15:06:40.000Z", "of": 1}]
    assert [(one["kind"], one["value"], one["channel"]) for one in body["opt_outs"]] == [("phone", ADA, "whatsapp")]
    assert [(one["id"], one["status"]) for one in body["tickets"]] == [(1, "open")]
    assert "d" * 32 not in json.dumps(body), "a browser's key is nobody's to see"


# the query -> the customers found, and how
FOUND: dict[str, tuple[dict[str, str], list[tuple[int, str]]]] = {
    "by phone": ({"phone": ADA}, [(1, "proven")]),
    "a plus sign sent raw": ({"phone": " 12025550123"}, [(1, "proven")]),
    "a number without its country": ({"phone": "(202) 555-0123"}, []),  # refused below: no region is configured
    "by mail": ({"email": "Ada <ADA@example.com>"}, [(2, "proven")]),
    "by account": ({"external_id": "u7"}, [(1, "proven")]),
    "by account and site": ({"external_id": "u7", "site": "shop"}, [(1, "proven")]),
    "nobody": ({"email": "nobody@example.com"}, []),
    "a claim makes nobody its holder": ({"email": "ada@work.example"}, []),
    "two of one person, once": ({"phone": ADA, "external_id": "u7"}, [(1, "proven"), (1, "proven")]),
    "two people": ({"phone": ADA, "email": "ada@example.com"}, [(1, "proven"), (2, "proven")]),
    "an empty one beside": ({"phone": ADA, "email": ""}, [(1, "proven")]),
}


async def test_customers_are_looked_up_by_any_of_their_addresses(api: Api) -> None:
    for case, (query, wanted) in FOUND.items():
        if "(202)" in query.get("phone", ""):
            assert "country code" in (await api.get("", 400, **query))["title"], case
            continue
        body = await api.get("", **query)
        assert [(one["id"], match["standing"]) for one in body["customers"] for match in one["matched"]] == wanted, case
    for refused in (
        {},
        {"emial": "x@example.com"},
        {"email": "not an address"},
        {"external_id": "u7", "site": "outlet"},
        {"device": "d" * 32},
    ):
        assert (await api.get("", 400, **refused))["title"]


async def test_several_who_write_as_one_address_are_all_found_the_proven_one_first(api: Api) -> None:
    await api.hears("email", message(email("ada@example.com", Proof.CLAIMED)))
    body = await api.get("", email="ada@example.com")
    assert [(one["id"], [match["standing"] for match in one["matched"]]) for one in body["customers"]] == [
        (2, ["proven"]),
        (3, ["asserted"]),
    ]


async def test_why_is_told_in_sentences(api: Api) -> None:
    body = await api.get("/1/why")
    assert (body["customer_id"], body["name"], body["joins"], body["complete"]) == (1, "Ada", [], True)
    told = [line["text"].partition(" on ")[0] for line in body["story"]]
    assert told[0] == "WhatsApp +1 202-555-0123 wrote first"
    assert "They first signed in" in told
    assert "Customer number u7" in told or "The chat visitor gave ada@work.example" in " ".join(line["text"] for line in body["story"])
    assert "d" * 32 not in json.dumps(body)


async def test_suggestions_name_the_other_and_the_reasons(api: Api) -> None:
    await api.hears("chat", message(device("e" * 32), email("ada@example.com", Proof.CLAIMED)))
    body = await api.get("/2/suggestions")
    (found,) = [one for one in body["suggestions"] if one["other"]["id"] == 3]
    assert 0 < found["score"] <= 1
    assert found["reasons"] == ["Gave the address ada@example.com, which the other one has proved."]
    assert (await api.get("/3/suggestions"))["suggestions"][0]["other"]["id"] == 2


# --- deciding ---


async def test_merged_ids_lead_to_the_survivor_and_come_back_after_an_unmerge(api: Api) -> None:
    merged = await api.post("/2/merge", {"other": 1, "reason": "same parcel"})
    assert merged == {"customer_id": 1, "join_id": merged["join_id"]}
    for path, leads in (("/2", "/1"), ("/2/why", "/1/why"), ("/2/suggestions", "/1/suggestions")):
        assert await api.get(path, 307) == f"/api/v1/customers{leads}"
    assert await api.get("/2", 307, x="1&2\r\nSet-Cookie: a=b") == "/api/v1/customers/1?x=1%262%0D%0ASet-Cookie:+a%3Db"
    for act in ("merge", "unmerge", "reject"):
        assert await api.post(f"/2/{act}", {}, 307) == f"/api/v1/customers/1/{act}", "the method is kept by whoever follows"
    async with api.http.get(api.url("/2")) as followed:
        body = await followed.json()
    assert (body["id"], body["merged_ids"]) == (1, [2])
    assert {one["value"] for one in body["identifiers"]} == {ADA, "u7", "ada@example.com"}
    (join,) = (await api.get("/1/why"))["joins"]
    assert (join["join_id"], join["undoable"]) == (merged["join_id"], True)
    assert "the program Sandbox marketing tool merged #2 (ada@example.com) and #1 (Ada" in join["text"]
    assert join["text"].endswith(": same parcel.")
    # And back: the same ids are the same people as before.
    assert await api.post("/1/unmerge", {"join_id": merged["join_id"]}) == {"customer_id": 1, "other_id": 2}
    assert (await api.get("/2"))["identifiers"][0]["value"] == "ada@example.com"
    assert (await api.get("/1"))["merged_ids"] == []
    assert "took it back" not in (await api.post("/1/unmerge", {"join_id": merged["join_id"]}, 409))["title"]


async def test_a_rejection_is_kept_and_a_merge_ends_it(api: Api) -> None:
    assert await api.post("/1/reject", {"other": 2}) == {"customer_id": 1, "other_id": 2}
    assert any(line["about"] == "parted" for line in (await api.get("/2/why"))["story"])
    assert (await api.post("/1/merge", {"other": 2}))["customer_id"] == 1
    assert "Take the merge back" in (await api.post("/1/reject", {"other": 2}, 409))["title"]


REFUSED: dict[str, tuple[str, Any, int]] = {
    "with itself": ("/1/merge", {"other": 1}, 409),
    "with nobody": ("/1/merge", {"other": 99}, 409),
    "nobody with somebody": ("/99/merge", {"other": 1}, 404),
    "no such join": ("/1/unmerge", {"join_id": 99}, 409),
    "text for a number": ("/1/merge", {"other": "2"}, 400),
    "true for a number": ("/1/merge", {"other": True}, 400),
    "a number beyond all ids": ("/1/merge", {"other": 2**63}, 400),
    "a key too many": ("/1/merge", {"other": 2, "force": True}, 400),
    "an endless reason": ("/1/merge", {"other": 2, "reason": "x" * 501}, 400),
    "no JSON": ("/1/merge", b"other=2", 400),
    "nothing": ("/1/reject", b"", 400),
    "no id": ("/one/merge", {"other": 2}, 404),
    "an id beyond all ids": (f"/{'9' * 30}/merge", {"other": 2}, 404),
}


async def test_what_cannot_be_done_is_refused_and_changes_nothing(api: Api) -> None:
    before = [await api.get(f"/{id_}/why") for id_ in (1, 2)]
    for case, (path, body, status) in REFUSED.items():
        assert (await api.post(path, body, status))["title"], case
    assert [await api.get(f"/{id_}/why") for id_ in (1, 2)] == before


async def test_a_join_is_taken_back_only_by_way_of_its_own_customer(api: Api) -> None:
    await api.hears("sms", message(phone(BEN)))
    merged = await api.post("/1/merge", {"other": 2})
    assert "ties nobody to customer 3" in (await api.post("/3/unmerge", {"join_id": merged["join_id"]}, 409))["title"]


async def test_an_automatic_join_can_be_taken_back_too(api: Api) -> None:
    await api.hears("chat", message(device("e" * 32)))
    await api.hears("chat", Identified(provider_key="i2", claims=(device("e" * 32), email("ada@example.com", Proof.OTP))))
    (join,) = (await api.get("/2/why"))["joins"]
    assert "a one-time code sent to ada@example.com was answered" in join["text"]
    assert (await api.post("/2/unmerge", {"join_id": join["join_id"]}))["other_id"] == 3
    assert (await api.get("/2/why"))["joins"] == []


@pytest.mark.parametrize("path", ["", "/1", "/1/why", "/1/suggestions", "/99", "/1/merge", "/1/unmerge", "/1/reject"])
async def test_without_a_token_nobody_learns_who_there_is(api: Api, path: str) -> None:
    method = "POST" if path.endswith(("merge", "reject")) else "GET"
    for headers in ({}, {"Authorization": "Bearer hub_" + "x" * 43}):
        async with aiohttp.ClientSession(headers=headers) as http, http.request(method, api.url(path), params={}) as answer:
            assert (answer.status, answer.content_type) == (401, "application/problem+json")


async def test_who_decided_is_the_token_that_was_shown(api: Api) -> None:
    token = "hub_" + "a" * 43
    await api.running.hub.writer.run(CreateApiToken("CRM", digest(token)))
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http,
        http.post(api.url("/1/merge"), json={"other": 2}) as answer,
    ):
        assert answer.status == 200
    (join,) = (await api.get("/1/why"))["joins"]
    assert "the program CRM merged" in join["text"]
    assert join["text"].endswith(": no reason was given.")


# --- what webhooks hear ---


async def test_a_destination_hears_of_a_merge_and_its_undoing_and_in_an_order_of_their_own_how_holds_stand(api: Api) -> None:
    sandbox = api.running.sandbox
    assert sandbox is not None
    state = sandbox.state

    def heard(type_: str) -> list[Any]:
        return [hook for hook in state.hooks if hook.type == type_]

    def held() -> list[tuple[int, bool]]:
        """How Ada's hold stands, in the order in which it was told: its version, and whether it binds the address of the other's mail."""
        told = sorted((hook for hook in state.hooks if hook.type.startswith("hold.")), key=lambda hook: hook.order)
        return [
            (hook.data["version"], any(one["value"] == "ada@example.com" for one in hook.data["identifiers"]))
            for hook in told
            if hook.data["customer_id"] == 1
        ]

    def binds_mail() -> bool:
        return held()[-1:] != [] and held()[-1][1]

    merged = await api.post("/1/merge", {"other": 2, "reason": "same parcel"})
    await state.wait_for(lambda: heard("customer.merged") and binds_mail())
    await api.post("/1/unmerge", {"join_id": merged["join_id"]})
    await state.wait_for(lambda: heard("customer.unmerged") and not binds_mail())
    (joined,), (parted,) = heard("customer.merged"), heard("customer.unmerged")
    assert joined.verified
    assert parted.verified
    known = [
        {"kind": "email", "value": "ada@work.example", "because": "claimed"},
        {"kind": "external_id", "value": "u7", "because": "verified", "site": "shop"},
        {"kind": "phone", "value": ADA, "because": "verified"},
    ]
    mail = {"kind": "email", "value": "ada@example.com", "because": "verified"}
    assert joined.data == {
        "customer_id": 1,
        "other_id": 2,
        "actor": "program:Sandbox marketing tool",
        "reason": "same parcel",
        "join_id": merged["join_id"],
        "identifiers": [mail, *known],
        "merged_ids": [2],
        "other_identifiers": [],
        "other_merged_ids": [],
    }
    assert parted.data == {
        "customer_id": 1,
        "other_id": 2,
        "actor": "program:Sandbox marketing tool",
        "identifiers": known,
        "merged_ids": [],
        "other_identifiers": [mail],
        "other_merged_ids": [],
    }
    written = json.loads(re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "identity.md").read_text(), re.DOTALL)[0])
    assert (set(written["data"]), written["type"]) == (set(joined.data), joined.type), "what docs/identity.md promises"
    assert joined.order < parted.order
    assert held() == sorted(held()), "in the order of their versions"
    assert [binds for _, binds in held()][-3:] == [False, True, False]
    assert len({version for version, _ in held()}) == len(held()), "each once"


async def test_a_claim_is_no_proof_in_an_answer(api: Api) -> None:
    """Negative twin: what was typed is shown as claimed and finds nobody, also where somebody else writes as it without proof."""
    await api.hears("email", message(email("ada@example.com", Proof.CLAIMED)))
    await api.hears("chat", message(device("f" * 32), Claim("email", "ada@example.com", Proof.CLAIMED)))
    body = await api.get("/4")
    assert body["identifiers"] == []
    assert [one["value"] for one in body["claimed"]] == ["ada@example.com"]
    assert [one["id"] for one in (await api.get("", email="ada@example.com"))["customers"]] == [2, 3]
