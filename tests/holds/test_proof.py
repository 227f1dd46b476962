"""The chain of proof: what is sealed of what was stated, what a report makes of it, and that no change to either goes unseen."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hub import reactions
from hub.holds import sealing
from hub.holds.ledger import iso
from hub.holds.proof import Broken, Head, Link, canonical, chained, digest_of, genesis, public_key, read_head, sign, signed_by
from hub.holds.proving import Keys, TooMany, check_file, newest_head, prove
from hub.holds.report import Assembly, Period, micros, percentile
from hub.holds.sealing import PROVED, Sealer, Stated, sealed
from hub.storage.engines import EPOCH
from hub.storage.postgres_writer import PostgresWriter
from hub.storage.reader import Reader
from hub.storage.records import Setting
from tests.conftest import ROOT
from tests.storage import CHAT, ENGINES, MAIL, POLICY, Store, device, email, heard, message, open_store

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
START = 1_800_000_000_000_000  # 2027-01-15 08:00
KEYS = Keys(b"\1" * 32, b"\2" * 32)
ADA, BEN = "ada@example.com", "ben@example.com"


def _script() -> ModuleType:
    """docs/verify_holds.py, as a stranger runs it: no line of the hub in it."""
    spec = importlib.util.spec_from_file_location("verify_holds", ROOT / "docs" / "verify_holds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = _script()


@dataclass
class State:
    """Facts stated at this moment: (type, customer, data)."""

    facts: tuple[tuple[str, int | None, dict[str, Any]], ...]

    def needs(self, needs: Any) -> None: ...

    def decide(self, facts: Any) -> None:
        for type_, customer_id, data in self.facts:
            facts.emit(type_, customer_id=customer_id, data=json.dumps(data))


@dataclass
class Put:
    """A setting, as a restore leaves it."""

    key: str
    value: str

    def needs(self, needs: Any) -> None:
        needs.rows.add(("setting", "key", self.key))

    def decide(self, facts: Any) -> None:
        for row in facts.found[("setting", "key", self.key)]:
            row.value = self.value
            facts.change(row)
            return
        facts.insert(Setting(self.key, self.value))


def hold(customer: int, until: int, version: int, *, value: str = ADA, reasons: Sequence[str] = ("open_ticket",)) -> dict[str, Any]:
    return {
        "customer_id": customer,
        "identifiers": [{"kind": "email", "value": value, "because": "verified"}],
        "reasons": list(reasons),
        "scope": {"brands": ["*"], "channels": ["*"]},
        "until": iso(until),
        "version": version,
    }


def free(customer: int, version: int, value: str = ADA) -> dict[str, Any]:
    return hold(customer, 0, version, value=value, reasons=()) | {"until": None}


def mark(asked_at: int, *, held: bool = True, tool: str = "klaviyo", **more: Any) -> dict[str, Any]:
    said = {"destination": tool, "kind": "email", "value": ADA, "held": held, "version": 1, "until": None, "asked_at": iso(asked_at)}
    return said | more


def send(at: int, *, leak: bool = False, prevented: bool = False, value: str = ADA, campaign: str = "Spring") -> dict[str, Any]:
    return {
        **{"destination": "klaviyo", "campaign": campaign, "campaign_id": "c1", "channel": "email", "at": iso(at), "leak": leak},
        **{"prevented": prevented, "cause": "lag" if leak else "", "kind": "email", "value": value},
    }


def answered(asked: int, held: int, **more: Any) -> dict[str, Any]:
    about = {"campaign": "spring", "brand": "", "class": "marketing", "channel": "email"}
    return about | {"asked": asked, "held": held, "degraded": 1, "since": iso(START), "until": iso(START)} | more


Story = list[tuple[int, str, int | None, dict[str, Any]]]  # (seconds after START, type, customer, data)

DAY_OF_ADA: Story = [
    (0, "hold.placed", 1, hold(1, START + 7 * DAY, 1)),
    (2, "mark.accepted", 1, mark(START)),
    (5, "mark.confirmed", 1, mark(START, took_ms=5_000)),
    (60, "gate.answered", None, answered(40, 3, receipts=[["0.1.held.1.mac", True], ["0.2.free.1.mac", False]])),
    (61, "gate.answered", None, answered(2, 0)),
    (90, "send.seen", 1, send(START + 80 * SECOND, leak=True)),
    (91, "send.seen", 1, send(START + 81 * SECOND, prevented=True)),
    (92, "send.seen", 2, send(START + 82 * SECOND, value=BEN)),
    (100, "mark.drifted", 1, mark(START, error=f"somebody freed {ADA}")),
    (110, "mark.failed", 1, mark(START, error="401")),
    (120, "optout.recorded", 1, {"kind": "email", "value": ADA, "channel_id": 2, "words": "stop it, I am Ada", "by": ""}),
    (
        130,
        "campaign.warned",
        None,
        {"destination": "klaviyo", "campaign_id": "c1", "campaign": "Spring", "risk": "frozen", "endangered": [1]},
    ),
    (3_600, "hold.released", 1, free(1, 2)),
    (3_602, "mark.accepted", 1, mark(START + 3_600 * SECOND, held=False)),
    (3_700, "send.seen", 1, send(START + 3_650 * SECOND)),
]


async def tell(store: Store, story: Story) -> None:
    """Let it happen, each fact at its time."""
    for after, *fact in story:
        store.clock.at = START + after * SECOND
        await store.run(State((tuple(fact),)))  # type: ignore[arg-type]


@asynccontextmanager
async def chain(directory: Path, engine: str = "sqlite", story: Story = DAY_OF_ADA) -> AsyncIterator[tuple[Store, Reader, Sealer]]:
    """A store with everything that happened in it sealed."""
    async with open_store(directory, react=lambda facts, event: None, engine=engine) as store:
        reader = store.reader()
        try:
            sealer = Sealer(reader, store.writer, KEYS.identifiers)
            await sealer.seal()
            await tell(store, story)
            await sealer.seal()
            yield store, reader, sealer
        finally:
            await reader.close()


async def taken_over(store: Store, reader: Reader) -> int:
    """Another process seals, when the turn of the first has run out; how many links it added."""
    store.clock.advance(sealing.TURN + 1)
    return await Sealer(reader, store.writer, KEYS.identifiers).seal()


async def proof_of(reader: Reader, begin: int = 0, end: int = DAY, **more: Any) -> str:
    """The report on a period after START, as the file that is written."""
    period = Period(START + begin, START + end, more.pop("customer_id", None), more.pop("lead", 7 * 86_400))
    pieces: list[str] = []
    await prove(reader, period, more.pop("made_at", START + 100 * DAY), KEYS, pieces.append, **more)
    return "".join(pieces)


def both(text: str, **more: Any) -> dict[str, Any]:
    """What our check and the stranger's script agree that a file says."""
    checked = check_file(text, **more)
    heads = [f"{head.seq}:{head.hash}" for head in more.pop("heads", ())]
    document: dict[str, Any] = SCRIPT.check(text, heads=heads, **more)
    assert document["report"] == checked.report
    return document


def refused(text: str, **more: Any) -> str:
    """Why both refuse a file: our words."""
    try:
        heads = [f"{head.seq}:{head.hash}" for head in more.get("heads", ())]
        SCRIPT.check(text, **{**more, "heads": heads})
    except (SCRIPT.Refused, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError):
        pass
    else:
        pytest.fail("the script took it")
    with pytest.raises(Broken) as caught:
        check_file(text, **more)
    return str(caught.value)


# --- what is sealed ---


def test_every_field_that_could_name_a_person_is_sealed_as_a_digest() -> None:
    for seq, (_, type_, customer, data) in enumerate(DAY_OF_ADA, 1):
        link = sealed(Stated(seq, type_, START, customer, json.dumps(data)), KEYS.identifiers)
        assert "example.com" not in link.data
        assert "I am Ada" not in link.data
        assert link.destination == data.get("destination", "")
        if "kind" in data:
            assert json.loads(link.data)["value"] == digest_of(KEYS.identifiers, "email", data["value"])
    drifted = sealed(Stated(1, "mark.drifted", START, 1, json.dumps(DAY_OF_ADA[8][3])), KEYS.identifiers)
    assert json.loads(drifted.data)["error"] == "somebody freed [identifier]"


def test_a_field_nobody_decided_to_seal_stays_out() -> None:
    link = sealed(Stated(1, "hold.placed", START, 1, json.dumps(hold(1, START, 1) | {"note": "she is ill"})), KEYS.identifiers)
    assert "ill" not in link.data


@pytest.mark.parametrize("data", ["", "no JSON", "[]", "{}", '{"identifiers": [{}]}', '{"value": 3, "kind": "email"}', '{"x": NaN'])
def test_what_cannot_be_read_is_sealed_by_its_hash(data: str) -> None:
    link = sealed(Stated(1, "hold.placed", START, 1, data), KEYS.identifiers)
    assert list(json.loads(link.data)) == ["unreadable"]


def test_what_a_report_could_not_read_is_sealed_by_its_hash() -> None:
    """One fact stated wrongly must not break every report it falls into, and must be seen all the same."""
    for _, type_, customer, data in DAY_OF_ADA:
        for name in sealing.NEEDED.get(type_, ()):
            for wrong in ({}, {name: None}, {name: {}}):
                changed = {other: value for other, value in data.items() if other != name} | wrong
                link = sealed(Stated(1, type_, START, customer, json.dumps(changed)), KEYS.identifiers)
                assert list(json.loads(link.data)) == ["unreadable"], (type_, name)


def test_everything_proved_is_stated_somewhere() -> None:
    from tests.test_events import stated

    # customer.split is told by the name of what was done (hub/customers/bonds.py)
    assert set(PROVED) - {"customer.split"} <= stated()


def test_each_hash_is_made_of_the_link_and_the_one_before() -> None:
    begun = Head(0, genesis("c"))
    facts = [Link(0, n, "hold.placed", n, 1, "", "{}") for n in (1, 2, 3)]
    made = chained(begun, facts)
    assert [link.seq for link in made] == [1, 2, 3]
    for place, changes in enumerate(({"at": 9}, {"data": '{"a":1}'}, {"customer_id": None})):
        other = [link._replace(**changes) if at == place else link for at, link in enumerate(facts)]  # type: ignore[arg-type]
        hashes = [link.hash for link in chained(begun, other)]
        same = [ours.hash == theirs for ours, theirs in zip(made, hashes, strict=True)]
        assert same == [True] * place + [False] * (3 - place), "it and all after it are others"
    assert chained(Head(0, genesis("d")), facts)[0].hash != made[0].hash


# RFC 8032, section 7.1, tests 1 to 3, the last of 1,023 bytes left out: seed, public key, message, signature
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "key", "said", "signature"), RFC_8032, ids=["empty", "one byte", "two bytes"])
def test_the_scripts_own_ed25519_takes_what_the_rfc_signs_and_nothing_else(seed: str, key: str, said: str, signature: str) -> None:
    key_, said_, made = bytes.fromhex(key), bytes.fromhex(said), bytes.fromhex(signature)
    assert public_key(bytes.fromhex(seed)) == key
    assert SCRIPT.signed(key_, made, said_)
    assert not SCRIPT.signed(key_, made, said_ + b"x")
    for place in range(64):
        assert not SCRIPT.signed(key_, made[:place] + bytes([made[place] ^ 1]) + made[place + 1 :], said_)
    more = int.from_bytes(made[32:], "little") + SCRIPT.L  # the same signature in another spelling
    assert not SCRIPT.signed(key_, made[:32] + more.to_bytes(32, "little"), said_)


def test_both_verify_what_is_signed_here() -> None:
    for n in range(20):
        seed, value = bytes([n]) * 32, {"n": n}
        signature, key = sign(seed, value), public_key(seed)
        assert signed_by(key, signature, value)
        assert SCRIPT.signed(bytes.fromhex(key), bytes.fromhex(signature), canonical(value).encode())
        assert not signed_by(key, signature, {"n": n + 1})
        assert not signed_by(key, signature.upper(), value), "in one spelling only"
    assert not signed_by("00", "00", {})


def test_a_head_is_read_as_it_is_written() -> None:
    assert read_head(f" 12:{'A' * 64}\n") == Head(12, "a" * 64)
    for text in ("", "12", f"x:{'a' * 64}", f"12:{'a' * 63}", f"12:{'g' * 64}"):
        assert read_head(text) is None


# --- the sealer ---


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_is_stated_is_sealed_once_in_the_order_of_commits(engine: str, tmp_path: Path) -> None:
    async with chain(tmp_path, engine) as (store, reader, sealer):
        rows = store.rows("SELECT * FROM proof ORDER BY seq")
        assert [row["type"] for row in rows] == ["chain.begun", *(type_ for _, type_, *_ in DAY_OF_ADA)]
        assert [row["event_seq"] for row in rows[1:]] == sorted(row["event_seq"] for row in rows[1:])
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        assert await sealer.seal() == 0
        await store.run(State((("message.received", 1, {}), ("hold.placed", 3, hold(3, START, 1)))))
        assert await sealer.seal() == 1
        assert await taken_over(store, reader) == 0, "another process goes on where it was left"
        assert (await newest_head(reader) or ("", Head(0, "")))[1].seq == len(rows) + 1


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_real_ticket_is_proved_from_end_to_end(engine: str, tmp_path: Path) -> None:
    async with open_store(tmp_path, POLICY, reactions.react, engine=engine) as store:
        reader = store.reader()
        try:
            await store.run(heard(MAIL, message(email(ADA))))
            await store.run(heard(CHAT, message(device("d" * 32))))
            await Sealer(reader, store.writer, KEYS.identifiers).seal()
            now = store.clock()
            document = both(await proof_of(reader, end=0, made_at=now + HOUR, identifiers=True))
            assert document["report"]["held"] == []
            document = both(await proof_of(reader, end=HOUR, made_at=now + HOUR, identifiers=True))
            assert [one["spans"][0]["reasons"] for one in document["report"]["held"]] == [["open_ticket"]] * 2
            assert {one["value"] for one in document["identifiers"].values()} == {ADA}
        finally:
            await reader.close()


async def test_two_hubs_at_once_seal_one_chain(tmp_path: Path) -> None:
    engine = ENGINES[1]
    if engine.marks[0].args[0]:  # type: ignore[union-attr]
        pytest.skip("PostgreSQL is missing")
    async with open_store(tmp_path, react=lambda facts, event: None, engine="postgresql") as store:
        assert isinstance(store.path, str)
        other = PostgresWriter(store.path, POLICY, lambda facts, event: None, None, store.clock)
        await other.start()
        reader = store.reader()
        try:
            sealers = [Sealer(reader, writer, KEYS.identifiers) for writer in (store.writer, other)]
            total, number = 0, 0
            for _ in range(20):
                said = tuple(("hold.placed", n, hold(n, START + DAY, 1)) for n in range(number, number + 5))
                number += 5
                # Both state, and both seal: not by turns but at once, as two do of which one takes the other for dead.
                await asyncio.gather(store.writer.run(State(said)), other.run(State(said)))
                newest = store.value("SELECT max(seq) FROM event")
                total += sum(some for some, _ in await asyncio.gather(*(sealer._step(newest) for sealer in sealers)))
            assert store.value("SELECT count(*) FROM proof") == total == 1 + 200
            assert store.value("SELECT count(DISTINCT event_seq) FROM proof WHERE type = 'hold.placed'") == 200
            both(await proof_of(reader))
        finally:
            await reader.close()
            await other.close()


async def test_one_at_a_time_has_the_turn(tmp_path: Path) -> None:
    async with chain(tmp_path) as (store, reader, sealer):
        await store.run(State((("hold.placed", 3, hold(3, START, 1)),)))
        second = Sealer(reader, store.writer, KEYS.identifiers)
        assert await second.seal() == 0
        assert await sealer.seal() == 1
        await sealer.start()
        await sealer.stop()
        await store.run(State((("hold.released", 3, free(3, 2)),)))
        assert await second.seal() == 1, "who stops gives the turn back"


async def test_a_backlog_is_sealed_in_small_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MOST", 7)
    monkeypatch.setattr(sealing, "SPAN", 11)
    monkeypatch.setattr(sealing, "NOTE_EVERY", 30)
    story: Story = [(n, "message.received" if n % 3 else "hold.renewed", 1, hold(1, START + DAY, n)) for n in range(100)]
    story += [(200, "message.received", 1, {})] * 60
    async with chain(tmp_path, story=story) as (store, reader, sealer):
        assert store.value("SELECT count(*) FROM proof") == 1 + 34
        assert sealing.progress_in(store.value("SELECT value FROM setting WHERE key = ?", sealing.KEY)).after > 100, "looked through once"
        both(await proof_of(reader))
        big = {"receipts": [["r" * 100, False]] * 2_000}
        monkeypatch.setattr(sealing, "MOST_BYTES", 500_000)
        await store.run(State((("gate.answered", None, answered(1, 0, **big)),) * 6))
        assert await sealer.seal() == 6


async def test_a_restored_database_says_so_in_its_chain(tmp_path: Path) -> None:
    async with chain(tmp_path) as (store, reader, _):
        await store.run(Put(EPOCH, "another"))
        await store.run(State((("hold.placed", 3, hold(3, START + 9 * DAY, 1)),)))
        await taken_over(store, reader)
        types = [row["type"] for row in store.rows("SELECT type FROM proof ORDER BY seq")]
        assert types[-2:] == ["chain.restored", "hold.placed"]
        assert await taken_over(store, reader) == 0, "once"
        document = both(await proof_of(reader))
        assert [one["type"] for one in document["report"]["breaks"]] == ["chain.restored"]


async def test_a_chain_that_was_cut_goes_on_and_says_that_it_was(tmp_path: Path) -> None:
    async with chain(tmp_path) as (store, reader, _):
        newest = await newest_head(reader)
        assert newest is not None
        store.execute("DELETE FROM proof WHERE seq > 10")
        with pytest.raises(Broken, match="Link 16 was noted as the newest, and the chain ends at link 10"):
            await proof_of(reader)
        await store.run(State((("hold.placed", 3, hold(3, START + 9 * DAY, 1)),)))
        await taken_over(store, reader)
        assert [row["type"] for row in store.rows("SELECT type FROM proof WHERE seq > 10 ORDER BY seq")] == ["chain.damaged", "hold.placed"]
        document = both(await proof_of(reader))
        assert [one["type"] for one in document["report"]["breaks"]] == ["chain.damaged"]
        with pytest.raises(Broken, match="The chain has no link 16, which was published"):
            await proof_of(reader, heads=[newest[1]])
        for _ in range(5):
            await store.run(State((("hold.placed", 3, hold(3, START + 9 * DAY, 1)),)))
        await taken_over(store, reader)
        with pytest.raises(Broken, match="Link 16 was published with another hash"):
            await proof_of(reader, heads=[newest[1]])


async def test_a_chain_that_is_gone_altogether_is_missed(tmp_path: Path) -> None:
    async with chain(tmp_path) as (store, reader, _):
        store.execute("DELETE FROM proof")
        with pytest.raises(Broken, match="the chain ends at link 0"):
            await proof_of(reader)
        await taken_over(store, reader)
        [row] = store.rows("SELECT * FROM proof")
        assert json.loads(row["data"])["instead_of"][1] == 16
        store.execute(f"DELETE FROM setting WHERE key = '{sealing.KEY}'")
        with pytest.raises(Broken, match="are not noted"):
            await proof_of(reader)
        assert await taken_over(store, reader) == 1, "it says that its note was lost"
        both(await proof_of(reader))


async def test_before_anything_is_sealed_there_is_nothing_to_prove(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        reader = store.reader()
        with pytest.raises(Broken, match="Nothing is sealed yet"):
            await proof_of(reader)
        sealer = Sealer(reader, store.writer, KEYS.identifiers)
        await sealer.start()
        assert store.value("SELECT type FROM proof") == "chain.begun", "a hub that serves has a chain"
        await sealer.stop()
        await reader.close()


# --- the report ---


async def test_a_report_says_who_was_held_when_and_what_was_sent_meanwhile(tmp_path: Path) -> None:
    async with chain(tmp_path) as (_, reader, _):
        report = both(await proof_of(reader))["report"]
    assert report["held"] == [
        {
            "customer": 1,
            "also": [],
            "identifiers": [{"kind": "email", "value": digest_of(KEYS.identifiers, "email", ADA), "because": "verified"}],
            "spans": [
                {
                    **{"from": "2027-01-15T08:00:00.000Z", "to": "2027-01-15T09:00:00.000Z", "before": False, "after": False},
                    **{"reasons": ["open_ticket"], "versions": [[1, 1, 1]]},
                }
            ],
            "seconds": 3_600,
        }
    ]
    assert report["sends"] == {"seen": 4, "prevented": 1, "leaks": 1, "noted_leaks": 1}
    assert [(one["at"][11:19], one["held"], one["leak"], one["cause"]) for one in report["reached"]] == [
        ("08:01:20", True, True, "lag"),
        ("08:01:21", True, False, ""),
    ]
    about = {"campaign": "spring", "brand": "", "class": "marketing", "channel": "email"}
    assert report["gate"] == [about | {"asked": 42, "held": 3, "degraded": 2, "receipts": 2}]
    assert [(one["step"], one["held"], one["n"], one["p50_ms"], one["max_ms"]) for one in report["tools"]] == [
        ("accepted", False, 1, 2_000, 2_000),
        ("accepted", True, 1, 2_000, 2_000),
        ("confirmed", True, 1, 5_000, 5_000),
    ]
    assert [one["type"] for one in report["troubles"]] == ["mark.drifted", "mark.failed"]
    assert report["opt_outs"] == {"recorded": 1, "withdrawn": 0}
    assert [one["endangered"] for one in report["warnings"]] == [1]


# name -> (story, spans of each person as (from, to) in seconds after START)
SPANS: dict[str, tuple[Story, dict[int, list[tuple[int, int]]]]] = {
    "renewed": (
        [(0, "hold.placed", 1, hold(1, START + 100 * SECOND, 1)), (50, "hold.renewed", 1, hold(1, START + 200 * SECOND, 2))],
        {1: [(0, 200)]},
    ),
    "a lease that ran out let go, whatever came later": (
        [
            (0, "hold.placed", 1, hold(1, START + 100 * SECOND, 1)),
            (300, "hold.renewed", 1, hold(1, START + 400 * SECOND, 2)),
            (900, "hold.released", 1, free(1, 3)),
        ],
        {1: [(0, 100), (300, 400)]},
    ),
    "a release of nobody": ([(0, "hold.released", 1, free(1, 3))], {}),
    "released twice": (
        [
            (0, "hold.placed", 1, hold(1, START + DAY, 1)),
            (9, "hold.released", 1, free(1, 2)),
            (20, "hold.released", 1, free(1, 3)),
        ],
        {1: [(0, 9)]},
    ),
    "shortened by a reason that ended": (
        [(0, "hold.placed", 1, hold(1, START + DAY, 1)), (50, "hold.renewed", 1, hold(1, START + 70 * SECOND, 2))],
        {1: [(0, 70)]},
    ),
    "merged: one person, held through": (
        [
            (0, "hold.placed", 2, hold(2, START + DAY, 1, value=BEN)),
            (50, "customer.merged", 1, {"other": 2, "rule": "x", "actor": "", "join": 1}),
            (50, "hold.released", 2, free(2, 2, BEN)),
            (50, "hold.renewed", 1, hold(1, START + DAY, 3)),
            (90, "hold.released", 1, free(1, 4)),
        ],
        {1: [(0, 90)]},
    ),
    "parted again: each their own": (
        [
            (0, "hold.placed", 2, hold(2, START + DAY, 1, value=BEN)),
            (50, "customer.merged", 1, {"other": 2}),
            (50, "hold.released", 2, free(2, 2, BEN)),
            (50, "hold.renewed", 1, hold(1, START + DAY, 3)),
            (70, "customer.unmerged", 1, {"other": 2}),
            (70, "hold.released", 1, free(1, 4)),
            (70, "hold.renewed", 2, hold(2, START + DAY, 4, value=BEN)),
            (95, "hold.released", 2, free(2, 5, BEN)),
        ],
        {1: [(50, 70)], 2: [(0, 50), (70, 95)]},
    ),
}


@pytest.mark.parametrize("name", SPANS)
async def test_when_somebody_was_held(name: str, tmp_path: Path) -> None:
    story, wanted = SPANS[name]
    async with chain(tmp_path, story=story) as (_, reader, _):
        report = both(await proof_of(reader, end=2 * DAY))["report"]
    found = {
        one["customer"]: [((micros(s["from"]) - START) // SECOND, (micros(s["to"]) - START) // SECOND) for s in one["spans"]]
        for one in report["held"]
    }
    assert found == wanted


async def test_a_person_keeps_the_sends_and_names_of_whoever_was_merged_in(tmp_path: Path) -> None:
    story = [*SPANS["merged: one person, held through"][0], (99, "send.seen", 1, send(START + 20 * SECOND, value=BEN, leak=True))]
    async with chain(tmp_path, story=story) as (_, reader, _):
        for customer in (None, 1, 2):
            report = both(await proof_of(reader, customer_id=customer))["report"]
            assert [(one["customer"], one["also"], len(one["identifiers"])) for one in report["held"]] == [(1, [2], 2)]
            assert report["sends"]["leaks"] == 1
            assert report["held"][0]["spans"][0]["versions"] == [[2, 1, 1], [1, 3, 3]]


async def test_of_one_customer_nothing_is_told_of_others(tmp_path: Path) -> None:
    async with chain(tmp_path) as (_, reader, _):
        report = both(await proof_of(reader, customer_id=2))["report"]
    assert (report["held"], report["troubles"], report["gate"], report["warnings"], report["reached"]) == ([], [], [], [], [])
    assert report["sends"]["seen"] == 1


async def test_who_was_held_before_the_period_is_held_at_its_beginning(tmp_path: Path) -> None:
    others: Story = [(n, "hold.placed", 5, hold(5, START + n * SECOND + 1, 1)) for n in range(0, 30 * 86_400, 86_400)]
    async with chain(tmp_path, story=[*others, (30 * 86_400, "hold.placed", 1, hold(1, START + 37 * DAY, 1))]) as (store, reader, _):
        await tell(store, [(36 * 86_400, "hold.placed", 2, hold(2, START + 40 * DAY, 1))])
        await taken_over(store, reader)
        document = both(await proof_of(reader, 35 * DAY, 36 * DAY - SECOND))
    [held] = document["report"]["held"]
    assert (held["customer"], held["seconds"]) == (1, 86_399)
    assert (held["spans"][0]["before"], held["spans"][0]["after"]) == (True, True)
    at = [row["at"] for row in document["chain"]]
    assert at[0] <= START + 28 * DAY < at[1], "shown from seven days before: a lease"
    assert at[-2] < START + 36 * DAY - SECOND <= at[-1], "and to the first link after"


@pytest.mark.parametrize(("begin", "end"), [(-DAY, -HOUR), (50 * DAY, 51 * DAY), (0, 1), (500, 700)])
async def test_a_period_in_which_nothing_happened_is_proved_too(begin: int, end: int, tmp_path: Path) -> None:
    async with chain(tmp_path) as (_, reader, _):
        report = both(await proof_of(reader, begin, end))["report"]
    assert report["sends"]["seen"] == 0


def test_percentiles_are_nearest_ranks() -> None:
    assert [percentile([7], p) for p in (50, 95)] == [7, 7]
    assert [percentile(list(range(1, 101)), p) for p in (50, 95)] == [50, 95]
    assert [percentile([1, 2, 3, 4], p) for p in (50, 95)] == [2, 4]


async def test_who_was_held_is_named_only_where_that_was_asked_for_and_can_be_checked(tmp_path: Path) -> None:
    async with chain(tmp_path) as (_, reader, _):
        plain, named = await proof_of(reader), await proof_of(reader, identifiers=True)
    assert ADA not in plain
    assert both(plain)["identifiers"] == {}
    [(name, one)] = both(named)["identifiers"].items()
    assert (one["kind"], one["value"]) == ("email", ADA)
    assert name == digest_of(KEYS.identifiers, "email", ADA) != digest_of(b"\3" * 32, "email", ADA)
    # Signed again by the hub itself, with another name to the same digest.
    document = json.loads(named)
    document["identifiers"][name]["value"] = BEN
    assert "named in clear is not the one" in refused(spelled(document))


def any_story(chosen: random.Random) -> list[Link]:
    """A chain in which anything follows on anything, as no hub would have it."""
    facts, at = [], START - 9 * DAY
    for number in range(80):
        at += chosen.choice([0, 1, SECOND, HOUR, 5 * HOUR, -SECOND])
        customer, other = chosen.sample(range(1, 6), 2)
        type_ = chosen.choice([*PROVED, "hold.placed", "hold.renewed", "hold.released", "send.seen"])
        data: dict[str, Any] = {"x": None}
        if type_.startswith("hold."):
            until = at + chosen.choice([0, HOUR, DAY, 7 * DAY])
            value, reasons = chosen.choice([ADA, BEN]), chosen.sample(["open_ticket", "complaint", "agent"], chosen.randrange(1, 3))
            data = free(customer, number) if type_ == "hold.released" else hold(customer, until, number, value=value, reasons=reasons)
        elif type_.startswith("customer."):
            data = {"other": other}
        elif type_.startswith("mark."):
            data = mark(at - chosen.choice([-5, 0, HOUR]), held=chosen.random() < 0.5, tool=chosen.choice(["braze", "klaviyo"]))
        elif type_ == "send.seen":
            flags = {"leak": chosen.random() < 0.3, "prevented": chosen.random() < 0.3}
            data = send(at - chosen.choice([0, SECOND, DAY]), campaign=chosen.choice(["a", "b"]), **flags)
        elif type_ == "gate.answered":
            data = answered(chosen.randrange(9), chosen.randrange(9), campaign=chosen.choice(["a", "b"]))
        elif type_ == "campaign.warned":
            data = DAY_OF_ADA[11][3]
        elif type_.startswith("optout."):
            data = DAY_OF_ADA[10][3]
        if chosen.random() < 0.05:
            data = {"identifiers": 3, "value": 4}
        told = None if type_ in ("gate.answered", "campaign.warned") or chosen.random() < 0.02 else customer
        facts.append(sealed(Stated(number, type_, at, told, json.dumps(data)), KEYS.identifiers))
        if chosen.random() < 0.02:
            facts.append(Link(0, number, "chain.restored", at, None, "", "{}"))
    return chained(Head(0, genesis("c")), facts)


@pytest.mark.parametrize("seed", range(60))
def test_two_programs_that_share_no_line_make_the_same_of_any_chain(seed: int) -> None:
    chosen = random.Random(seed)
    links = any_story(chosen)
    period = Period(START - 3 * DAY, START, chosen.choice([None, 1, 2, 9]))
    assembly = Assembly(period)
    for link in links:
        assembly.add(link, json.loads(link.data))
    ours = assembly.report()
    rows = [link._asdict() | {"data": json.loads(link.data)} for link in links]
    asked = {name: ours[name] for name in ("from", "to", "customer", "lead_s")}
    assert SCRIPT.recompute({"report": asked, "chain": rows}) == ours


# --- no change goes unseen ---


def spelled(document: dict[str, Any], seed: bytes = KEYS.seed) -> str:
    """A file as the hub would write and sign it: what somebody can do who has its key and lies."""
    document["public_key"] = public_key(seed)
    document["signature"] = sign(seed, {k: v for k, v in document.items() if k not in ("chain", "signature")})
    rest = ",\n".join(f'"{name}":{canonical(document[name])}' for name in sorted(document)[2:])
    links = ",\n".join(canonical(row) for row in document["chain"])
    return f'{{"anchor":{canonical(document["anchor"])},\n"chain":[\n{links}\n],\n{rest}}}\n'


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    async def write() -> str:
        async with chain(tmp_path_factory.mktemp("written")) as (_, reader, _):
            return await proof_of(reader, identifiers=True)

    return asyncio.run(write())


def test_any_byte_that_was_changed_is_seen(written: str) -> None:
    assert written == spelled(json.loads(written)), "the spelling below is that of the file"
    both(written)
    raw = written.encode()
    chosen = random.Random(7)
    for place in range(0, len(raw), 3):
        bit = 1 << chosen.randrange(8)
        changed = raw[:place] + bytes([raw[place] ^ bit]) + raw[place + 1 :]
        with pytest.raises((Broken, UnicodeDecodeError)):
            check_file(changed.decode("ascii"))
    # The script's signatures take 20 ms each, so of these it sees one in a hundred, and all kinds of change below.
    for place in range(0, len(raw), 101):
        refused((raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]).decode("latin-1"))


@pytest.mark.parametrize("insertion", ["", " ", "\n", "0", '"', "x"])
def test_nothing_can_be_put_in_or_taken_out(written: str, insertion: str) -> None:
    for place in range(0, len(written), 211):
        refused(written[:place] + insertion + written[place + (not insertion) :])
    refused(written + " ")
    refused("\ufeff" + written)


LIES: dict[str, Any] = {
    "a leak is left out": lambda d: d["report"]["sends"].update(leaks=0),
    "and the send with it": lambda d: (d["report"]["sends"].update(leaks=0, seen=3), d["report"]["reached"].pop(0)),
    "held for longer": lambda d: d["report"]["held"][0].update(seconds=3_601),
    "held from earlier on": lambda d: d["report"]["held"][0]["spans"][0].update({"from": "2027-01-15T07:00:00.000Z"}),
    "nobody was held": lambda d: d["report"].update(held=[], reached=[]),
    "the tool was quicker": lambda d: d["report"]["tools"][0].update(p50_ms=1),
    "the gate was asked more": lambda d: d["report"]["gate"][0].update(asked=43),
    "no drift": lambda d: d["report"]["troubles"].pop(0),
    "no warning": lambda d: d["report"]["warnings"].clear(),
    "fewer links": lambda d: d["report"]["links"].pop("mark.failed"),
    "something is missing": lambda d: d["report"].pop("opt_outs"),
    "something is put in": lambda d: d["report"].update(praise="none"),
    "an opt-out more": lambda d: d["report"]["opt_outs"].update(withdrawn=1),
    "true for 1": lambda d: d["report"]["opt_outs"].update(recorded=True),
    "another chain": lambda d: d["report"].update(chain="0" * 32),
    "made before it ended": lambda d: d["report"].update(made_at="2027-01-15T08:00:00.000Z"),
    "a longer chain than there is": lambda d: d["report"].update(latest={"seq": 3, "hash": "0" * 64}),
    "another head": lambda d: d["head"].update(seq=15),
    "another anchor": lambda d: d["anchor"].update(hash="0" * 64),
    "the last link is left out": lambda d: d["chain"].pop(),
    "and the head is moved": lambda d: (d["chain"].pop(), d["head"].update({k: d["chain"][-1][k] for k in ("seq", "hash", "at")})),
    "the first link is left out": lambda d: d["anchor"].update(seq=1, hash=d["chain"].pop(0)["hash"]),
    "a link in the middle": lambda d: d["chain"].pop(5),
    "two links change places": lambda d: d["chain"].insert(5, d["chain"].pop(6)),
    "a link twice": lambda d: d["chain"].insert(5, d["chain"][5]),
    "a field more in a link": lambda d: d["chain"][3].update(more=1),
    "a field less": lambda d: d["chain"][3].pop("destination"),
    "another format": lambda d: d.update(format="hub proof of holds 2"),
    "no links": lambda d: d["chain"].clear(),
    "a period that is none": lambda d: d["report"].update({"from": "yesterday"}),
    "an identifier of nobody": lambda d: d["identifiers"].update({"0" * 40: {"kind": "email", "value": "x", "opening": "0"}}),
    **{
        f"{name} of a link": lambda d, name=name, value=value: d["chain"][6].update({name: value})
        for name, value in {
            **{"at": START, "customer_id": 2, "type": "send.unseen", "destination": "braze", "event_seq": 999, "seq": 99},
            **{"data": {}, "hash": "0" * 64},
        }.items()
    },
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_even_when_the_hub_itself_signs_it(written: str, lie: str) -> None:
    document = json.loads(written)
    LIES[lie](document)
    assert refused(spelled(document))


def test_another_key_and_another_head_are_refused(written: str) -> None:
    document = json.loads(written)
    key = document["public_key"]
    both(written, key=key)
    both(written, key=key.upper())
    forged = spelled(document, b"\7" * 32)
    both(forged)  # whoever names no key believes any
    assert "signed with the key" in refused(forged, key=key)
    third = document["chain"][2]
    both(written, heads=[Head(third["seq"], third["hash"])])
    both(written, heads=[Head(0, document["anchor"]["hash"])])
    assert "another hash" in refused(written, heads=[Head(3, "0" * 64)])
    assert "is not among those shown" in refused(written, heads=[Head(99, third["hash"])])


def test_a_chain_written_anew_holds_but_not_before_an_older_head(written: str) -> None:
    """What proof cannot do alone: whoever has the hub's key and disk can begin again. A published head finds that."""
    document = json.loads(written)
    published = Head(document["chain"][-1]["seq"], document["chain"][-1]["hash"])
    links = [Link(**(row | {"data": canonical(row["data"])})) for row in document["chain"] if not row["data"].get("leak")]
    rows = [
        row._asdict() | {"data": json.loads(row.data)}
        for row in chained(Head(0, genesis(document["report"]["chain"])), [link._replace(hash="") for link in links])
    ]
    last = rows[-1]
    assembly = Assembly(Period(START, START + DAY))
    for row in rows:
        assembly.add(Link(**row), row["data"])
    document |= {"chain": rows, "head": {"seq": last["seq"], "hash": last["hash"], "at": last["at"]}}
    kept = {name: document["report"][name] for name in ("chain", "made_at")}
    document["report"] = assembly.report() | kept | {"latest": {"seq": last["seq"], "hash": last["hash"]}}
    rewritten = spelled(document)
    assert both(rewritten)["report"]["sends"]["leaks"] == 0
    refused(rewritten, heads=[published])


# statement -> what is said of it
TAMPERED = {
    "UPDATE proof SET at = at + 1 WHERE seq = 7": r"Link 7 \(send.seen\) is not what was sealed",
    "UPDATE proof SET data = replace(data, '\"leak\":true', '\"leak\":false') WHERE seq = 7": "Link 7 ",
    "UPDATE proof SET data = ' ' || data WHERE seq = 7": "Link 7 ",
    "UPDATE proof SET data = 'x' WHERE seq = 7": "Link 7 cannot be read",
    "UPDATE proof SET customer_id = NULL WHERE seq = 7": "Link 7 ",
    "UPDATE proof SET customer_id = 2 WHERE seq = 7": "Link 7 ",
    "UPDATE proof SET destination = 'x' WHERE seq = 7": "Link 7 ",
    "UPDATE proof SET event_seq = 0 WHERE seq = 7": "Link 7 ",
    "UPDATE proof SET type = 'x' WHERE seq = 7": "Link 7 ",
    "UPDATE proof SET hash = 'x' WHERE seq = 7": "Link 7 ",
    "UPDATE proof SET data = '{}' WHERE seq = 1": "Link 1 does not say which chain it begins",
    "UPDATE proof SET at = 0 WHERE seq = 1": "Link 1 ",
    "DELETE FROM proof WHERE seq = 7": "After link 6 comes link 8",
    "DELETE FROM proof WHERE seq = 1": "After link 0 comes link 2",
    "DELETE FROM proof WHERE seq > 14": "Link 16 was noted as the newest",
    "DELETE FROM proof WHERE seq = 16": "Link 16 was noted as the newest",
    "UPDATE proof SET hash = 'x' WHERE seq = 16": "Link 16 was noted as the newest, and another one stands there",
    "UPDATE proof SET seq = CASE seq WHEN 7 THEN -8 ELSE -7 END WHERE seq IN (7, 8); UPDATE proof SET seq = -seq WHERE seq < 0": "Link 7 ",
    "INSERT INTO proof SELECT 17, event_seq, type, at, customer_id, destination, data, hash FROM proof WHERE seq = 16": "are not noted",
}


@pytest.mark.parametrize("statement", TAMPERED)
async def test_a_row_changed_in_the_database_is_named(statement: str, tmp_path: Path) -> None:
    async with chain(tmp_path) as (store, reader, _):
        for one in statement.split(";"):
            store.execute(one)
        with pytest.raises(Broken, match=TAMPERED[statement]):
            await proof_of(reader)
        if "noted" not in TAMPERED[statement]:
            with pytest.raises(Broken):  # nor by a report on another day, which looks through all the same
                await proof_of(reader, 50 * DAY, 51 * DAY)


async def test_a_row_changed_on_postgresql_is_named(tmp_path: Path) -> None:
    engine = ENGINES[1]
    if engine.marks[0].args[0]:  # type: ignore[union-attr]
        pytest.skip("PostgreSQL is missing")
    async with chain(tmp_path, "postgresql") as (store, reader, _):
        both(await proof_of(reader))
        store.execute("UPDATE proof SET at = at + 1 WHERE seq = 7")
        with pytest.raises(Broken, match=r"Link 7 \(send.seen\)"):
            await proof_of(reader)


async def test_many_links_are_written_in_pieces_and_not_without_end(tmp_path: Path) -> None:
    async with open_store(tmp_path, react=lambda facts, event: None) as store:
        reader = store.reader()
        for second in range(3):
            store.clock.at = START + second * SECOND
            held = tuple(("hold.placed", n, hold(n, START + DAY, 1)) for n in range(500))
            await store.run(State((*held, *(("hold.released", n, free(n, 2)) for n in range(500)))))
        assert await Sealer(reader, store.writer, KEYS.identifiers).seal() == 3_001
        pieces: list[str] = []
        await prove(reader, Period(START, START + DAY), START + 2 * DAY, KEYS, pieces.append)
        with pytest.raises(TooMany, match="3,001 links are more than 3,000"):
            await prove(reader, Period(START, START + DAY), START + 2 * DAY, KEYS, pieces.append, most=3_000)
        await reader.close()
    assert max(piece.count("\n") for piece in pieces) <= 500
    assert both("".join(pieces))["head"]["seq"] == 3_001
