"""The page of proof, its downloads and the head for programs, on the whole hub."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from sqlalchemy import func, select

from hub import agents, sessions
from hub.app import Running, sandbox_token
from hub.contract import Claim, InboundMessage, Proof
from hub.conversations.ingest import Ingest, item
from hub.holds.proof import public_key, signed_by
from hub.holds.sealing import Sealer
from hub.keys import digest
from hub.passwords import Verified
from hub.storage.records import Agent
from hub.storage.tables import metadata
from hub.web import proof
from hub.web.proof import keys_of, span_text
from tests.conftest import ROOT
from tests.web import Insert

EVIL = "<script>alert(1)</script>"
MAIL = "ada@example.com"


@dataclass
class State:
    facts: tuple[tuple[str, int | None, dict[str, Any]], ...]

    def needs(self, needs: Any) -> None: ...

    def decide(self, facts: Any) -> None:
        for type_, customer_id, data in self.facts:
            facts.emit(type_, customer_id=customer_id, data=json.dumps(data))


@dataclass
class Visit:
    """A browser of an administrator, and one that only has an API token."""

    running: Running
    admin: aiohttp.ClientSession
    program: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[aiohttp.ClientResponse, str]:
        asker = self.program if path.startswith("/api") else self.admin
        async with asker.get(f"http://127.0.0.1:{self.running.port}{path}", allow_redirects=False) as answer:
            return answer, await answer.text()

    async def seal(self) -> None:
        """Seal what was stated, whoever's turn it is."""
        hub = self.running.hub
        sealer = Sealer(hub.reader, hub.writer, keys_of(hub.secret).identifiers)
        newest = await hub.reader.value(select(func.max(metadata.tables["event"].c.seq)))
        while (await sealer._step(newest))[1] < newest:
            pass

    async def change(self, **values: Any) -> None:
        """Change link 3 behind everybody's back."""

        class Change:
            def needs(self, needs: Any) -> None:
                needs.rows.add(("proof", "seq", 3))

            def decide(self, facts: Any) -> None:
                for row in facts.found[("proof", "seq", 3)]:
                    for name, value in values.items():
                        setattr(row, name, value)
                    facts.change(row)

        await self.running.hub.writer.run(Change())


@pytest.fixture
async def visit(running: Running) -> AsyncIterator[Visit]:
    hub = running.hub
    mail = next(bound.rule.id for bound in hub.channels.values() if bound.rule.mails)
    said = InboundMessage(provider_key="1", claims=(Claim("email", MAIL, Proof.DMARC),), text="Where is it?")
    await hub.writer.run(Ingest(mail, (item(said, True, (), None),), None))
    now = proof.iso(hub.writer.clock())
    about = {"destination": "klaviyo", "campaign": EVIL, "campaign_id": "c", "channel": "email", "kind": "email", "value": MAIL}
    await hub.writer.run(State((("send.seen", 1, about | {"at": now, "leak": True, "prevented": False, "cause": "frozen_list"}),)))
    await hub.writer.run(Insert((Agent(9, "nia@shop.example", "Nia", "hash", "admin", 1),)))
    token = agents.new_token()
    await hub.writer.run(sessions.OpenSession(Verified(9, "hash"), digest(token), agents.new_token()))
    async with (
        aiohttp.ClientSession(headers={"Cookie": f"hub_session={token}"}, cookie_jar=aiohttp.DummyCookieJar()) as admin,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {sandbox_token(hub.secret)}"}) as program,
    ):
        built = Visit(running, admin, program)
        await built.seal()
        yield built


async def test_the_page_shows_where_the_chain_stands_and_with_what_key_it_is_signed(visit: Visit) -> None:
    answer, text = await visit.get("/holds/proof")
    _, told = await visit.get("/api/v1/holds/proof/head")
    head = json.loads(told)
    assert answer.status == 200
    assert head["head"] in text
    assert head["public_key"] == public_key(keys_of(visit.running.hub.secret).seed)
    assert head["public_key"] in text
    assert signed_by(head["public_key"], head["signature"], {name: head[name] for name in ("format", "chain", "seq", "hash", "at")})


async def test_the_download_is_proof_for_a_stranger(visit: Visit) -> None:
    answer, text = await visit.get("/holds/proof/report.json")
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="proof-of-holds-2')
    spec = importlib.util.spec_from_file_location("verify_holds", ROOT / "docs" / "verify_holds.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    _, head = await visit.get("/api/v1/holds/proof/head")
    report = script.check(text, json.loads(head)["public_key"], [json.loads(head)["head"]])["report"]
    assert (len(report["held"]), report["sends"]["leaks"]) == (1, 1)
    assert MAIL not in text
    _, named = await visit.get("/holds/proof/report.json?identifiers=1")
    assert [one["value"] for one in script.check(named)["identifiers"].values()] == [MAIL]
    _, nobody = await visit.get("/holds/proof/report.json?customer=99")
    assert script.check(nobody)["report"]["held"] == []


async def test_the_page_to_print_needs_nothing_beside_it_and_runs_nothing(visit: Visit) -> None:
    answer, text = await visit.get("/holds/proof/report.html")
    assert answer.status == 200
    assert EVIL not in text
    assert "&lt;script&gt;" in text
    assert "frozen list" in text
    assert not re.search(r"(src|href)=", text)
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert policy == f"sandbox; default-src 'none'; style-src 'sha256-{allowed}'"
    assert ' style="' not in text


async def test_a_changed_link_is_told_in_place_of_a_report(visit: Visit) -> None:
    await visit.change(customer_id=7)
    for kind in ("json", "html"):
        answer, text = await visit.get(f"/holds/proof/report.{kind}")
        assert answer.status == 409
        assert "Link 3 (" in text
        assert "Content-Disposition" not in answer.headers


async def test_a_program_that_kept_a_head_is_told_when_it_is_no_more(visit: Visit) -> None:
    _, first = await visit.get("/api/v1/holds/proof/head")
    kept = json.loads(first)["head"]
    answer, _ = await visit.get(f"/api/v1/holds/proof/head?since={kept}")
    assert answer.status == 200
    answer, text = await visit.get(f"/api/v1/holds/proof/head?since={kept.partition(':')[0]}:{'0' * 64}")
    assert (answer.status, "written anew" in text) == (409, True)
    answer, text = await visit.get(f"/api/v1/holds/proof/head?since=99:{'0' * 64}")
    assert (answer.status, "has no link 99" in text) == (409, True)
    answer, _ = await visit.get("/api/v1/holds/proof/head?since=x")
    assert answer.status == 400


@pytest.mark.parametrize(
    "query",
    [
        "from=x",
        "from=2027-02-30",
        "to=x",
        "from=9999-12-31&to=9999-12-31",
        "from=2099-01-01",
        "customer=x",
        "customer=-1",
        "customer=" + "9" * 40,
    ],
)
async def test_what_cannot_be_a_period_is_said_on_the_page(query: str, visit: Visit) -> None:
    for kind in ("json", "html"):
        answer, text = await visit.get(f"/holds/proof/report.{kind}?{query}")
        assert answer.status == 400
        assert 'role="alert"' in text


async def test_a_report_too_long_for_a_browser_names_the_command(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "MOST", 2)
    answer, text = await visit.get("/holds/proof/report.json")
    assert answer.status == 400
    assert "hub holds prove" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3_601, "1 h 1 s"), (90_061, "1 d 1 h"), (86_400, "1 d")]
)
def test_a_length_of_time_is_told_in_its_two_largest_units(seconds: int, text: str) -> None:
    assert span_text(seconds) == text
