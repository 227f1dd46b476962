"""`hub identity replay`: recorded cases through the real ingest, on both engines; whoever wrote something sees at least that."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from connectors.webchat import WebChat, WebChatSettings
from hub.cli import main
from hub.cli.rehearsal import Disagreement, Fresh, answer, sqlite_databases
from hub.contract import Place, Proof
from hub.customers import cases, joining
from hub.customers.cases import BadCases, Case, Visit, read
from hub.storage.engines import Engine, PostgresEngine
from tests.postgres import postgresql_missing
from tests.postgres import shared as cluster
from tests.shared_data import FIXTURES
from tests.storage import ENGINES, fresh_postgres

ROOT = Path(__file__).resolve().parents[1]
IDENTITY = FIXTURES.parent / "identity"  # conformance data beside the project, as the fixtures are
OWN = Path(__file__).parent / "customers" / "own_cases.json"
ORDERS = int(os.environ.get("IDENTITY_ORDERS", "3"))  # of each case; the long form: IDENTITY_ORDERS=720, every one of case-11


def loaded(path: Path) -> dict[str, tuple[Case, dict[str, Any]]]:
    """The cases of a file with what each expects, by id; none where the file is absent."""
    if not path.exists():
        return {}
    text = path.read_text()
    return {case.id: (case, raw["expected"]) for case, raw in zip(read(text), json.loads(text)["cases"], strict=True)}


SHARED, MINE = loaded(IDENTITY / "cases.json"), loaded(OWN)
absent = pytest.mark.skipif(not SHARED, reason="conformance data absent: ../shared/identity/cases.json")


@pytest.fixture(params=ENGINES)
async def fresh(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Fresh]:
    if request.param == "sqlite":
        async with sqlite_databases(tmp_path) as made:
            yield made
    else:
        yield _copy


@asynccontextmanager
async def _copy() -> AsyncIterator[Engine]:
    """As postgres_databases gives them out (the command, below, is tried with that), but emptied and used again."""
    url = await asyncio.to_thread(fresh_postgres)
    try:
        yield PostgresEngine(url)
    finally:
        await asyncio.to_thread(cluster().drop_database, url)


def scorer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("identity_score", IDENTITY / "score.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def raw_case(id: str) -> dict[str, Any]:
    return next(one for one in json.loads((IDENTITY / "cases.json").read_text())["cases"] if one["id"] == id)


@absent
def test_all_the_acceptance_cases_are_here() -> None:
    assert (len(SHARED), sum(len(case.events) for case, _ in SHARED.values())) == (14, 74)


@absent
@pytest.mark.parametrize("id", SHARED)
async def test_an_acceptance_case_passes(id: str, fresh: Fresh) -> None:
    told = await answer(SHARED[id][0], fresh, rounds=ORDERS, seed=7)
    row = scorer().score_case(raw_case(id), told)
    assert row["pass"], row
    # Showing nothing to anybody would pass the file and fail every customer.
    assert [one for one, shown in told["visible"].items() if one not in shown] == []
    assert set(told["visible"]) == {one for group in told["groups"] for one in group}


@absent
@pytest.mark.parametrize("id", ["case-07", "case-13"])
async def test_the_acceptance_cases_can_fail(id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one rule of the hub taken out, the case it is there for fails: the replay goes through the real rules."""
    monkeypatch.setattr(joining, "two_accounts", lambda left, right: False)
    async with sqlite_databases(tmp_path) as made:
        told = await answer(SHARED[id][0], made, rounds=1, seed=7)
    assert scorer().score_case(raw_case(id), told)["wrong_merges"]


# A database made and dropped for each is what takes PostgreSQL its time: in the long form, beside all 720 orders.
@pytest.mark.parametrize("fresh", ENGINES if ORDERS > 100 else ["sqlite"], indirect=True)
@pytest.mark.parametrize("id", MINE)
async def test_a_case_of_our_own_passes(id: str, fresh: Fresh) -> None:
    case, expected = MINE[id]
    told = await answer(case, fresh, rounds=ORDERS, seed=7)
    for key in ("groups", "suggestions", "dropped", "suppressed"):
        if key in expected:
            assert told[key] == expected[key], key
    for pair in expected.get("suggest", []):
        assert pair in told["suggestions"]
    assert told["visible"] | expected.get("visible", {}) == told["visible"]
    assert [one for one, shown in told["visible"].items() if one not in shown] == []
    for after, groups in expected.get("checkpoints", {}).items():
        assert told["checkpoints"][after]["groups"] == groups
    for after in expected.get("quiet_after", []):
        assert told["checkpoints"][after]["suggestions"] == []


def test_no_expectation_of_our_own_is_left_unread() -> None:
    known = {"groups", "suggestions", "dropped", "suppressed", "suggest", "visible", "checkpoints", "quiet_after"}
    assert {key for _, expected in MINE.values() for key in expected} == known
    assert len(MINE) == 14


# --- what may come in any order ---


def a_case(*events: dict[str, Any], **more: Any) -> str:
    filled = [{"at": f"2026-01-01T10:00:{number:02}Z", "ws": "w", "channel": "sms"} | event for number, event in enumerate(events)]
    whole = {"id": "made", "any_order": True, "workspaces": [{"id": "w", "default_region": "US"}], "events": filled} | more
    return json.dumps({"schema": "identity-cases/1", "cases": [whole]})


def sms(id: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "kind": "message", "from": [{"type": "phone", "value": "+12125550101", "proof": "channel"}]} | more


GONE = {"id": "n1", "kind": "notice", "notice": "number_disconnected", "phone": "+12125550101"}


async def test_an_order_that_comes_out_otherwise_is_named(fresh: Fresh) -> None:
    """A number that is disconnected between two messages is two people's, and after both one person's: no order of these is the other."""
    (case,) = read(a_case(sms("e1"), GONE, sms("e2")))
    with pytest.raises(
        Disagreement, match=r"made in the order (e1, e2, n1|e2, e1, n1|n1, e1, e2|n1, e2, e1): groups came out as \[\[.e1., "
    ):
        await answer(case, fresh, rounds=6, seed=1)


@pytest.mark.parametrize(("count", "rounds", "played"), [(3, 6, 6), (3, 100, 6), (4, 6, 6), (6, 720, 720), (1, 5, 1), (40, 3, 3)])
def test_orders_are_every_one_or_a_sample_by_the_seed(count: int, rounds: int, played: int) -> None:
    found = list(cases.orders(count, rounds, 1))
    assert len(found) == played
    assert all(sorted(order) == list(range(count)) for order in found)
    assert found == list(cases.orders(count, rounds, 1))
    if rounds == played == 720:
        assert len(set(found)) == 720


def test_an_order_keeps_what_hangs_together_and_lets_time_run_forward() -> None:
    text = a_case(
        sms("e1"),
        {"id": "r1", "kind": "reply", "reply_to": "e1", "message_id": "<r>"},
        sms("e2", channel="email", in_reply_to="<r>", **{"from": [{"type": "email", "value": "a@b.example", "proof": "dmarc_pass"}]}),
        {"id": "o1", "kind": "operator", "action": "merge", "pair": ["e1", "e2"]},
        {"id": "o2", "kind": "operator", "action": "unmerge", "pair": ["e1", "e2"]},
        sms("w1", channel="web", session="s", **{"from": []}),
        {"id": "x1", "kind": "logout", "channel": "web", "session": "s"},
        sms("w2", channel="web", session="s", **{"from": []}),
    )
    (case,) = read(text)
    for order in cases.orders(len(case.events), 200, 3):
        placed = cases.arranged(case.events, order)
        at = {event.id: number for number, event in enumerate(placed)}
        assert at["e1"] < at["r1"] < at["e2"] < at["o1"] < at["o2"]
        assert at["w1"] < at["x1"] < at["w2"]
        assert [event.at for event in placed] == sorted(event.at for event in case.events)


# --- words ---


STRENGTH: list[tuple[str, Proof | None]] = [
    ("channel", Proof.CHANNEL),
    ("dmarc_pass", Proof.DMARC),
    ("signed", Proof.SIGNED),
    ("otp", Proof.OTP),
    ("dmarc_none", Proof.CLAIMED),
    ("typed", Proof.CLAIMED),
    ("dmarc_fail", Proof.CLAIMED),
    ("seen", Proof.SEEN),
    ("cookie", None),
    ("signed_invalid", None),
    ("otp_failed", None),
]


@pytest.mark.parametrize(("proof", "ours"), STRENGTH, ids=[row[0] for row in STRENGTH])
def test_a_proof_of_the_file_is_no_stronger_here(proof: str, ours: Proof | None) -> None:
    event = {"id": "e1", "kind": "message", "channel": "email", "from": [{"type": "email", "value": "a@b.example", "proof": proof}]}
    (case,) = read(a_case(event))
    assert [claim.proof for claim in cases.claims(case.events[0])] == ([ours] if ours else [])
    made = cases.message(case.events[0], (), "x", {})
    assert bool(made.doubt) == (proof == "dmarc_fail")


def test_no_proof_of_the_schema_is_left_out() -> None:
    assert set(cases.PROOFS) == {proof for proof, _ in STRENGTH}


VISITS = [
    Visit("d"),
    Visit("d", proofs=(("email", "a@b.example"), ("phone", "+12125550101"))),
    Visit("d", user_id="u"),
    Visit("d", user_id="u", email="a@b.example", phone="+12125550101", proofs=(("email", "c@b.example"),)),
]


@pytest.mark.parametrize("visit", VISITS, ids=["anonymous", "codes", "signed", "signed with addresses and a code"])
def test_a_visit_proves_what_the_chats_own_token_proves(visit: Visit) -> None:
    chat = WebChat(WebChatSettings(type="webchat", site=cases.SITE), Place("web", "http://localhost/in/web", b"key"))
    token = chat.issue("d", 0, user_id=visit.user_id, email=visit.email, phone=visit.phone, proofs=visit.proofs)
    session = chat.session(token)
    assert session is not None
    assert chat.claims(session) == visit.claims


FAULTS = [
    ("not JSON", "{", "it is not JSON"),
    ("another schema", '{"schema": "identity-cases/2", "cases": []}', '"schema": "identity-cases/1"'),
    ("a list", "[]", "it must be an object"),
    ("an unknown proof", a_case(sms("e1", **{"from": [{"type": "phone", "value": "+1", "proof": "oath"}]})), "made: e1: the proof 'oath'"),
    ("an unknown type", a_case(sms("e1", **{"from": [{"type": "fax", "value": "+1", "proof": "seen"}]})), "made: e1: the type 'fax'"),
    ("an unknown channel", a_case(sms("e1", channel="fax")), "made: e1: the channel 'fax' is unknown; one of email, sms, web, whatsapp"),
    ("an unknown kind", a_case(sms("e1", kind="call")), "made: e1: the kind 'call'"),
    (
        "an unknown action",
        a_case(sms("e1"), {"id": "o", "kind": "operator", "action": "split", "pair": ["e1", "e1"]}),
        "o: the action 'split'",
    ),
    ("an unknown notice", a_case(GONE | {"notice": "number_sold"}), "n1: the notice 'number_sold'"),
    ("no such workspace", a_case(sms("e1", ws="v")), "made: e1: there is no workspace 'v'"),
    ("no such message", a_case({"id": "r", "kind": "reply", "reply_to": "e9"}), "made: r: there is no event 'e9'"),
    ("an id twice", a_case(sms("e1"), sms("e1")), "made: two events have the same id"),
    ("a time without a zone", a_case(sms("e1", at="2026-01-01T10:00:00")), "made: e1: `at` names no time zone"),
    ("no time", a_case(sms("e1", at="soon")), "made: ValueError"),
    ("a field is missing", '{"schema": "identity-cases/1", "cases": [{"id": "x"}]}', "x: KeyError: 'workspaces'"),
    ("a case that is none", '{"schema": "identity-cases/1", "cases": [3]}', "case 1: TypeError"),
]


@pytest.mark.parametrize(("text", "said"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_a_file_that_is_no_case_file_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(BadCases) as refused:
        read(text)
    assert said in str(refused.value)


# --- the command ---

PLACES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.skipif(bool(postgresql_missing()), reason=postgresql_missing()))]


@absent
@pytest.mark.parametrize("engine", PLACES)
def test_the_command_pipes_into_the_scorer_and_leaves_nothing_behind(engine: str, tmp_path: Path) -> None:
    place = ["--database-url", cluster().url("postgres")] if engine == "postgresql" else []
    file, scored = str(IDENTITY / "cases.json"), [sys.executable, str(IDENTITY / "score.py"), str(IDENTITY / "cases.json"), "-"]
    played = subprocess.run(
        [sys.executable, "-m", "hub", "identity", "replay", file, "--orders", "1", *place],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        timeout=80,
    )
    said = subprocess.run(scored, input=played.stdout, capture_output=True, text=True, check=False, timeout=20)
    total = json.loads(said.stdout.splitlines()[-1])
    assert (said.returncode, total["cases"], total["passed"], total["blind"], total["leaks"]) == (0, 14, 14, 0, 0), said.stdout
    assert list(tmp_path.iterdir()) == []
    if engine == "postgresql":
        assert cluster().sql("SELECT datname FROM pg_database WHERE datname LIKE 'hub_replay%'") == ""


def run(*arguments: str, text: str) -> Any:
    return CliRunner().invoke(main, ["identity", "replay", "-", *arguments], input=text)


def test_the_command_says_what_is_wrong_and_exits_1() -> None:
    for text, arguments, said in (
        ("{", (), "it is not JSON"),
        (a_case(sms("e1")), ("--case", "other"), "there is no case other"),
        (a_case(sms("e1"), GONE, sms("e2")), ("--orders", "6"), "made in the order"),
        (a_case(sms("e1")), ("--database-url", "postgresql://nobody@127.0.0.1:1/none"), "cannot be reached"),
    ):
        result = run(*arguments, text=text)
        assert (result.exit_code, result.stdout) == (1, "")
        assert said in result.stderr


def test_the_command_plays_the_chosen_cases_alone() -> None:
    told = run("--case", "argentine-nine", "--case", "plus-tags", "--orders", "1", text=OWN.read_text())
    assert list(json.loads(told.stdout)) == ["plus-tags", "argentine-nine"]
