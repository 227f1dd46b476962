"""`hub customers import` and `export`: all of a file or none of it, the same again changes nothing, and what goes out comes in again."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from hub.config import Settings, load
from hub.contract import Claim, InboundMessage, Proof
from hub.conversations.ingest import Ingest, item
from hub.customers.merging import Merge
from hub.serving import offline
from hub.storage import migrate
from hub.storage.reader import postgres_reader, sqlite_reader
from tests.conftest import ROOT, on_engine, sandbox_config
from tests.storage import ENGINES
from tests.test_cli import run

PEOPLE = """\
external_id,email,phone,name,plan
u1,ada@example.com,+12025550123,Ada,gold
u2,ben@example.com;benny@example.com,,Ben,tin
,info@example.com,+18005550100,Front desk,
"""


@pytest.fixture(params=ENGINES)
def config(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    path = sandbox_config(tmp_path)
    with on_engine(path, request.param):
        yield path


def settings(config: Path) -> Settings:
    return load(config, {k: v for k, v in os.environ.items() if not k.startswith("HUB_")})


def select(config: Path, sql: str) -> list[Any]:
    built = settings(config)
    url = built.database_url

    async def read() -> list[Any]:
        reader = postgres_reader(url.get_secret_value()) if url else sqlite_reader(built.storage.database)
        try:
            return [tuple(row) for row in await reader.all(text(sql))]
        finally:
            await reader.close()

    return asyncio.run(read())


def everything(config: Path) -> list[Any]:
    tables = ("customer", "identifier", "evidence", "join_log", "attribute", "suggestion")
    return [select(config, f"SELECT * FROM {table} ORDER BY id") for table in tables] + [select(config, "SELECT * FROM event ORDER BY seq")]


def customers(*arguments: str, config: Path, expect: int = 0) -> str:
    return run("customers", *arguments, "--config", str(config), expect=expect)


def written(directory: Path, content: str, name: str = "people.csv") -> str:
    path = directory / name
    path.write_text(content)
    return str(path)


def test_a_file_is_recorded_and_the_same_again_changes_nothing(config: Path, tmp_path: Path) -> None:
    file = written(tmp_path, PEOPLE)
    assert "3 customers recorded: 3 created, 0 updated, 0 unchanged." in customers("import", file, config=config)
    before = everything(config)
    assert "3 customers recorded: 0 created, 0 updated, 3 unchanged." in customers("import", file, config=config)
    assert everything(config) == before
    written(tmp_path, PEOPLE.replace("gold", "silver").replace("+12025550123", ""))
    said = customers("import", file, config=config)
    assert "0 created, 1 updated, 2 unchanged." in said
    assert "1 identifiers this source no longer has" in said
    assert select(config, "SELECT value, source FROM attribute WHERE name = 'plan' ORDER BY value") == [
        ("silver", "people.csv shop/u1"),
        ("tin", "people.csv shop/u2"),
    ]
    for table in ("hold", "ticket", "message", "delivery"):
        assert select(config, f"SELECT count(*) FROM {table}") == [(0,)]


def test_of_a_file_with_a_bad_line_nothing_is_written(config: Path, tmp_path: Path) -> None:
    file = written(tmp_path, PEOPLE + "u3,no address,+12,Cy,\nu1,other@example.com,,Ada,\nu4,a@example.com\n")
    migrated(config)
    said = customers("import", file, config=config, expect=1)
    assert "line 5: email: 'no address' is no e-mail address. phone: '+12' is no possible phone number." in said
    assert "line 6: shop/u1 stands in line 2 already" in said
    assert "line 7: 2 cells where the header has 5" in said
    assert "3 lines are bad and 3 good. Nothing was written. Mend them, or add --skip-bad." in said
    assert select(config, "SELECT count(*) FROM customer") == [(0,)]
    said = customers("import", file, "--skip-bad", config=config)
    assert "3 created, 0 updated, 0 unchanged. 3 lines skipped." in said
    assert select(config, "SELECT count(*) FROM customer") == [(3,)]


def migrated(config: Path) -> None:
    run("migrate", "--config", str(config))


def test_a_dry_run_touches_no_database(tmp_path: Path) -> None:
    config = sandbox_config(tmp_path)
    assert "3 lines can be recorded. Nothing was written." in customers("import", written(tmp_path, PEOPLE), "--dry-run", config=config)
    assert not (tmp_path / "data").exists()


def test_of_very_many_faults_a_hundred_are_told_and_counted(tmp_path: Path) -> None:
    config = sandbox_config(tmp_path)
    said = customers("import", written(tmp_path, "email\n" + "x\n" * 250), config=config, expect=1).splitlines()
    assert sum(line.startswith("line ") for line in said) == 100
    assert "... and 150 more." in said
    assert not (tmp_path / "data").exists()


REFUSED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "an empty file": ("", (), "is empty"),
    "a header alone": ("email\n", (), "There is nobody in it"),
    "no column of ours": ("name\nAda\n", (), "no column says who somebody is"),
    "a site there is not": (PEOPLE, ("--site", "shp"), "there is no site shp. Known: shop."),
    "a site in the file there is not": ("external_id,site\nu1,shp\n", (), "line 2: external_id: there is no site 'shp'"),
    "a source without a name": (PEOPLE, ("--source", " "), "The source needs a name"),
    "an open quote": ('email,name\na@example.com,"A\n', (), "line 2: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_imported_is_said_and_nothing_is_written(case: str, tmp_path: Path) -> None:
    content, options, said = REFUSED[case]
    config = sandbox_config(tmp_path)
    assert said in customers("import", written(tmp_path, content), *options, config=config, expect=1)
    assert not (tmp_path / "data").exists()


def test_beside_a_running_hub_the_way_in_is_the_api(tmp_path: Path) -> None:
    config = sandbox_config(tmp_path)
    migrated(config)
    file = written(tmp_path, PEOPLE)
    with migrate.lock(tmp_path / "data" / "hub.db"):
        said = customers("import", file, config=config, expect=1)
        assert "POST /api/v1/customers" in said
        assert customers("export", config=config).startswith("name,"), "and reading needs no leave"
    assert select(config, "SELECT count(*) FROM customer") == [(0,)]


@pytest.mark.process
@pytest.mark.parametrize("at", [1, 503])
def test_killed_in_the_middle_whole_lines_stand_and_the_same_again_completes_them(config: Path, tmp_path: Path, at: int) -> None:
    count = 700
    lines = [f"u{n},a{n}@example.com,+1202{5000000 + n},Person {n},gold" for n in range(count)]
    file = written(tmp_path, "external_id,email,phone,name,plan\n" + "\n".join(lines))
    migrated(config)
    code = (
        "import os, signal, sys\n"
        "from hub.customers.recording import RecordCustomer\n"
        "decide, calls = RecordCustomer.decide, [0]\n"
        "def killed(self, facts):\n"
        "    calls[0] += 1\n"
        f"    if calls[0] == {at}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return decide(self, facts)\n"
        "RecordCustomer.decide = killed\n"
        "from hub.cli import main\n"
        f"main(['customers', 'import', {file!r}, '--config', {str(config)!r}])\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HUB_")}
    died = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, timeout=80, check=False)
    assert died.returncode == -9, died.stderr
    half = select(config, "SELECT count(*) FROM customer")[0][0]
    assert at - 300 < half < at
    whole = (
        "SELECT c.id FROM customer c WHERE c.name <> '' AND (SELECT count(*) FROM identifier i WHERE i.customer_id = c.id) = 3 "
        "AND (SELECT count(*) FROM attribute a WHERE a.customer_id = c.id) = 2 "
        "AND (SELECT count(*) FROM evidence e JOIN identifier s ON s.id = e.identifier_id WHERE s.customer_id = c.id) = 5"
    )
    assert len(select(config, whole)) == half
    said = customers("import", file, config=config)
    assert f"{count - half:,} created, 0 updated, {half:,} unchanged." in said
    assert len(select(config, whole)) == count == select(config, "SELECT count(*) FROM customer")[0][0]


# --- out, and in again ---


def lived(config: Path) -> None:
    """A database in which people were imported, wrote, were merged, claimed addresses and said STOP."""

    async def live() -> None:
        async with offline(settings(config)) as hub:
            sms, mail, chat = (hub.channels[name].rule.id for name in ("sms", "email", "chat"))

            async def hears(channel: int, *claims: Claim, **more: Any) -> None:
                said = InboundMessage(provider_key=f"{claims}{more}", claims=claims, text="Hi", **more)
                await hub.writer.run(Ingest(channel, (item(said, True),), None))

            await hears(sms, Claim("phone", "+1 202-555-0123", Proof.CHANNEL), sender_name="Ada", opts="out")
            await hears(mail, Claim("email", "Ada@Example.com", Proof.DMARC))
            await hub.writer.run(Merge(1, 2, "agent:1", 1))
            await hears(chat, Claim("device", "d" * 32, Proof.CHANNEL), Claim("email", "victim@example.com", Proof.CLAIMED))
            await hears(mail, Claim("email", "unproved@example.com", Proof.CLAIMED), sender_name='=HYPERLINK("http://x")')

    asyncio.run(live())


def test_everything_comes_out_and_goes_in_again_without_a_change(config: Path, tmp_path: Path) -> None:
    lived(config)
    customers("import", written(tmp_path, PEOPLE + 'u7,,+44 20 7946 0000 ext. 7,"=1+1\n\'s",-5\n'), config=config)
    out = tmp_path / "out.csv"
    customers("export", str(out), config=config)
    assert out.stat().st_mode & 0o077 == 0, "everybody's addresses are nobody else's"
    with out.open(newline="", encoding="utf-8") as file:
        exported = {line["hub:id"]: line for line in csv.DictReader(file)}
    ada = exported["1"]
    assert (ada["name"], ada["external_id:shop"], ada["plan"]) == ("Ada", "u1", "gold")
    assert (ada["email"], ada["phone"]) == ("Ada@Example.com", "+12025550123"), "as they were given; a number as anybody dials it"
    assert (ada["hub:merged_ids"], ada["hub:opt_outs"]) == ("2", "sms/+12025550123")
    (ben,) = [line for line in exported.values() if line["external_id:shop"] == "u2"]
    assert ben["email"] == "ben@example.com;benny@example.com"
    (desk,) = [line for line in exported.values() if line["name"].startswith("'=1+1")]
    assert (desk["phone"], desk["plan"]) == ("+442079460000;ext=7", "'-5")
    visitor, unproved = exported["3"], exported["4"]
    assert (visitor["email"], visitor["hub:unproven_email"]) == ("", "victim@example.com"), "a claim is never exported as known"
    assert (unproved["email"], unproved["hub:unproven_email"]) == ("", "unproved@example.com")
    assert unproved["name"] == '\'=HYPERLINK("http://x")'
    assert "name another" in customers("export", str(out), config=config, expect=1)
    # Who is known by nothing but a claim is nobody that a record could name.
    said = customers("import", str(out), "--source", "people.csv", "--skip-bad", config=config)
    assert "line 3: Nothing to know this person by" in said
    assert "0 created" in said
    again = tmp_path / "again.csv"
    customers("export", str(again), config=config)
    assert again.read_bytes() == out.read_bytes()


def test_into_an_empty_hub_goes_what_is_known_and_no_claim(config: Path, tmp_path: Path) -> None:
    lived(config)
    customers("import", written(tmp_path, PEOPLE), config=config)
    out = tmp_path / "out.csv"
    customers("export", str(out), config=config)
    (tmp_path / "other").mkdir()
    other = sandbox_config(tmp_path / "other")
    customers("import", str(out), "--skip-bad", config=other)
    assert select(other, "SELECT count(*) FROM customer") == [(3,)]
    assert select(other, "SELECT count(*) FROM identifier WHERE value IN ('victim@example.com', 'unproved@example.com')") == [(0,)]
    assert select(other, "SELECT DISTINCT standing, proof FROM identifier") == [("proven", "record")]


def test_an_agents_merge_is_not_in_the_file(config: Path, tmp_path: Path) -> None:
    customers("import", written(tmp_path, "external_id,email\nu1,a@example.com\nu2,b@example.com\n"), config=config)

    async def merge() -> None:
        async with offline(settings(config)) as hub:
            await hub.writer.run(Merge(1, 2, "agent:1", 1))

    asyncio.run(merge())
    out = tmp_path / "out.csv"
    customers("export", str(out), config=config)
    with out.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["external_id:shop"], line["hub:id"]) for line in lines] == [("u1", "1"), ("u2", "1")]
    said = customers("import", str(out), "--source", "people.csv", config=config)
    assert "0 created" in said
    assert select(config, "SELECT count(*) FROM customer WHERE merged_into IS NULL") == [(1,)]


def test_as_json_lines_a_customer_is_what_the_api_takes(config: Path, tmp_path: Path) -> None:
    from hub.web.customers_bulk import CustomersRequest

    lived(config)
    customers("import", written(tmp_path, PEOPLE), config=config)
    out = tmp_path / "out.jsonl"
    customers("export", str(out), "--format", "jsonl", config=config)
    exported = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(exported) == select(config, "SELECT count(*) FROM customer WHERE merged_into IS NULL")[0][0]
    assert exported[0] == {
        "name": "Ada",
        "external_id": [{"site": "shop", "id": "u1"}],
        "email": ["Ada@Example.com"],
        "phone": ["+12025550123"],
        "wa_user_id": [],
        "attributes": {"plan": "gold"},
        "hub": exported[0]["hub"],
    }
    assert exported[0]["hub"]["opt_outs"] == [{"channel": "sms", "kind": "phone", "value": "+12025550123"}]
    CustomersRequest.model_validate({"customers": exported})
