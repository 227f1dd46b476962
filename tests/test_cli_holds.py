"""`hub holds`: who is held, the proof of who was, and that a proof is worth nothing once anything in it or behind it was changed."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.config import Settings, load
from hub.contract import Claim, InboundMessage, Proof
from hub.conversations.commands import Resolve
from hub.conversations.ingest import Ingest, item
from hub.holds.sealing import Sealer
from hub.keys import load_secret
from hub.serving import offline
from hub.web.proof import keys_of
from tests.conftest import ROOT, on_engine, sandbox_config
from tests.storage import ENGINES
from tests.test_cli import run

ADA = "ada@example.com"


def settings(config: Path) -> Settings:
    return load(config, {k: v for k, v in os.environ.items() if not k.startswith("HUB_")})


def live_a_little(config: Path) -> None:
    """Ada writes and is helped, Ben writes; all of it sealed."""
    built = settings(config)

    async def live() -> None:
        async with offline(built) as hub:
            mail = next(bound.rule.id for bound in hub.channels.values() if bound.rule.mails)
            for address in (ADA, "ben@example.com"):
                said = InboundMessage(provider_key=address, claims=(Claim("email", address, Proof.DMARC),), text="Where is it?")
                await hub.writer.run(Ingest(mail, (item(said, True, (), None),), None))
            await hub.writer.run(Resolve(1, 0))
            await Sealer(hub.reader, hub.writer, keys_of(load_secret(built.storage.secret_file)).identifiers).seal()

    asyncio.run(live())


@pytest.fixture(params=ENGINES)
def config(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    path = sandbox_config(tmp_path)
    with on_engine(path, request.param):
        live_a_little(path)
        yield path


@pytest.fixture
def sqlite_config(tmp_path: Path) -> Path:
    path = sandbox_config(tmp_path)
    live_a_little(path)
    return path


def holds(*arguments: str, config: Path | None = None, expect: int = 0) -> str:
    return run("holds", *arguments, *(("--config", str(config)) if config else ()), expect=expect)


def script(*arguments: str) -> tuple[int, str]:
    """The stranger's check, by an interpreter that sees nothing of ours."""
    command = [sys.executable, "-I", str(ROOT / "docs" / "verify_holds.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    return done.returncode, done.stdout + done.stderr


def today() -> str:
    return "2020-01-01"  # the period begins long ago, and ends now


def test_a_proof_is_written_checked_and_refused_by_two_programs_of_which_one_is_no_part_of_the_hub(config: Path, tmp_path: Path) -> None:
    file, page = tmp_path / "proof.json", tmp_path / "proof.html"
    said = holds("prove", "--from", today(), "--json", str(file), "--html", str(page), config=config)
    assert "2 customers held, 0 sends seen" in said
    head, key = (next(line.split()[1] for line in said.splitlines() if line.startswith(name)) for name in ("head", "key"))
    assert "holds: " in holds("verify", str(file), "--key", key, "--head", head)
    code, told = script(str(file), "--key", key, "--head", head)
    assert (code, told.splitlines()[1]) == (0, "  2 customers held, 0 sends seen, 0 of them to somebody held, not prevented")
    assert ADA not in file.read_text()
    assert "<h1>Proof of holds</h1>" in page.read_text()
    assert json.loads(holds("head", config=config))["head"] == head
    changed = file.read_text().replace("open_ticket", "complaint", 1)
    assert changed != file.read_text()
    file.write_text(changed)
    assert "hub: " in holds("verify", str(file), expect=1)
    code, told = script(str(file))
    assert (code, told[:8]) == (1, "REFUSED:")


def test_who_is_held_is_listed(config: Path) -> None:
    said = holds("list", config=config)
    assert [line.split()[1:3] for line in said.splitlines()] == [["2", "open_ticket"]]
    assert holds("list", "--customer", "1", config=config) == "Customer 1 is not held.\n"
    assert "ticket:2" in holds("list", "--customer", "2", config=config)


def test_an_address_is_found_in_a_proof_by_its_digest(sqlite_config: Path, tmp_path: Path) -> None:
    file = tmp_path / "proof.json"
    holds("prove", "--from", today(), "--customer", "1", "--json", str(file), config=sqlite_config)
    [held] = json.loads(file.read_text())["report"]["held"]
    told = {one["value"] for one in held["identifiers"]}
    assert {line.split()[-1] for line in holds("digest", " Ada@Example.com", config=sqlite_config).splitlines()} == told
    assert {line.split()[0] for line in holds("digest", "u-17", config=sqlite_config).splitlines()} == {"external_id", "wa_user_id"}
    assert holds("digest", "+1 202 555 0123", config=sqlite_config).split()[0] == "phone"
    holds("prove", "--from", today(), "--identifiers", "--json", str(file), config=sqlite_config)
    assert {one["value"] for one in json.loads(file.read_text())["identifiers"].values()} == {ADA, "ben@example.com"}
    assert script(str(file))[0] == 0


def change(config: Path, *statements: str) -> None:
    with sqlite3.connect(settings(config).storage.database) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_a_changed_row_is_named_and_nothing_is_written(sqlite_config: Path, tmp_path: Path) -> None:
    file, page = tmp_path / "proof.json", tmp_path / "proof.html"
    file.write_text("yesterday's")
    change(sqlite_config, "UPDATE proof SET customer_id = 9 WHERE seq = 3")
    said = holds("prove", "--from", today(), "--json", str(file), "--html", str(page), config=sqlite_config, expect=1)
    assert said.startswith("hub: Link 3 (hold.")
    assert "Nothing was written." in said
    assert file.read_text() == "yesterday's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "data", "proof.json"]


def test_a_chain_cut_short_is_missed_by_whoever_kept_a_head(sqlite_config: Path) -> None:
    head = json.loads(holds("head", config=sqlite_config))["head"]
    number, hash_ = head.split(":")
    change(
        sqlite_config,
        f"DELETE FROM proof WHERE seq = {number}",
        # Somebody who knows what they do forges the note beside it too.
        f"UPDATE setting SET value = (SELECT replace(replace(s.value, '{hash_}', p.hash), ',{number},', ',' || p.seq || ',') "
        "FROM setting s, proof p WHERE s.key = 'proof.sealed' ORDER BY p.seq DESC LIMIT 1) WHERE key = 'proof.sealed'",
    )
    assert "1 facts are not sealed" not in holds("prove", "--from", today(), config=sqlite_config)
    said = holds("prove", "--from", today(), "--head", head, config=sqlite_config, expect=1)
    assert f"The chain has no link {number}, which was published" in said


def test_what_is_not_sealed_yet_is_said(sqlite_config: Path) -> None:
    change(
        sqlite_config,
        "INSERT INTO event (type, at, customer_id, data) SELECT type, at, customer_id, data FROM event WHERE type = 'hold.placed' LIMIT 1",
    )
    assert "1 facts are not sealed yet" in holds("prove", "--from", today(), config=sqlite_config)


# arguments -> what is said
MISTAKES: dict[tuple[str, ...], str] = {
    ("--from", "yesterday"): "--from and --to take a day (2027-01-31)",
    ("--from", "2027-02-30"): "--from and --to take a day",
    ("--from", "9999-01-01"): "The period is empty",
    ("--from", "2020-01-02", "--to", "2020-01-01"): "The period is empty",
    ("--from", "2020-01-01", "--head", "12"): "--head 12: a head is written NUMBER:HASH",
    ("--from", "2020-01-01", "--json", "/nowhere/at/all.json"): "/nowhere/at/all.json cannot be written",
}


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_a_mistake_is_said_in_a_line(arguments: tuple[str, ...], sqlite_config: Path) -> None:
    said = holds("prove", *arguments, config=sqlite_config, expect=1)
    assert MISTAKES[arguments] in said
    assert len(said.splitlines()) == 1


def test_a_day_is_meant_whole(sqlite_config: Path, tmp_path: Path) -> None:
    file = tmp_path / "proof.json"
    times: dict[tuple[str, ...], Any] = {
        ("--from", "2020-01-01", "--to", "2020-01-01"): ("2020-01-01T00:00:00.000Z", "2020-01-02T00:00:00.000Z"),
        ("--from", "2020-01-01T06:00", "--to", "2020-01-01T07:00+01:00"): None,
        ("--from", "2020-01-01T06:00Z", "--to", "2020-01-01T09:00+02:00"): ("2020-01-01T06:00:00.000Z", "2020-01-01T07:00:00.000Z"),
    }
    for arguments, wanted in times.items():
        holds("prove", *arguments, "--json", str(file), config=sqlite_config, expect=0 if wanted else 1)
        if wanted:
            report = json.loads(file.read_text())["report"]
            assert (report["from"], report["to"]) == wanted


def test_before_there_is_a_chain_it_is_said_how_one_begins(tmp_path: Path) -> None:
    config = sandbox_config(tmp_path)
    run("migrate", "--config", str(config))
    for command in (("prove", "--from", today()), ("head",)):
        assert "A hub that runs begins the chain" in holds(*command, config=config, expect=1)
    (tmp_path / "other.json").write_text("{}")
    assert "This is no report" in holds("verify", str(tmp_path / "other.json"), expect=1)
    (tmp_path / "other.json").write_bytes(b"\xff")
    assert "no report of ours" in holds("verify", str(tmp_path / "other.json"), expect=1)
    assert script(str(tmp_path / "other.json"))[0] == 1
