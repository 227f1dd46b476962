"""`hub why`, `merge`, `unmerge` and `suggestions`: who is who, from the command line (issue 4, lines 6 and 7)."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from hub.cli import main
from hub.config import load
from hub.contract import Identified, InboundMessage, Proof
from hub.conversations.ingest import Ingest, item
from hub.serving import offline
from hub.storage import migrate
from hub.storage.records import Suggestion
from tests.conftest import on_engine, sandbox_config
from tests.storage import ENGINES, account, device, email, message, phone
from tests.web import Insert

ADA, SHOWN = "+12125550142", "+1 212-555-0142"


def run(*arguments: str, config: Path, expect: int = 0) -> str:
    result = CliRunner().invoke(main, [*arguments, "--config", str(config)])
    assert result.exit_code == expect, result.output
    return result.output


def join_of(said: str) -> str:
    """The number that takes a merge back, as the command named it. (PostgreSQL hands numbers out in blocks.)"""
    (number,) = re.findall(r"hub unmerge (\d+)", said)
    return str(number)


def customer_of(address: str, config: Path) -> str:
    return str(json.loads(run("why", address, "--json", config=config))["customer_id"])


def hear(config: Path, *said: tuple[str, InboundMessage | Identified], rows: tuple[object, ...] = ()) -> None:
    """Let the hub of this configuration take in what customers said, by channel."""

    async def work() -> None:
        async with offline(load(config, {k: v for k, v in os.environ.items() if not k.startswith("HUB_")})) as hub:
            for channel, one in said:
                await hub.writer.run(Ingest(hub.channels[channel].rule.id, (item(one, True),), None))
            if rows:
                await hub.writer.run(Insert(rows))

    asyncio.run(work())


@pytest.fixture(params=ENGINES)
def config(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Ada (1) by phone and account, her mails (2) tied by nobody yet."""
    path = sandbox_config(tmp_path)
    with on_engine(path, request.param):
        hear(
            path,
            ("whatsapp", message(phone(ADA), sender_name="Ada")),
            ("chat", Identified(provider_key="i1", claims=(account("u7"), device("d" * 32), phone(ADA, Proof.OTP)))),
            ("email", message(email("ada@example.com"))),
        )
        yield path


def test_a_merge_is_explained_and_taken_back(config: Path) -> None:
    merged = run("merge", "2", "1", "--reason", "told on the phone", config=config)
    join = join_of(merged)
    assert merged == f"They are customer 1. To take it back: hub unmerge {join}\n"
    told = run("why", "2", config=config)
    assert told.startswith("Ada, customer 1\n")
    assert f"{SHOWN} wrote first" in told
    assert "somebody at the command line merged #2 (ada@example.com) and #1 (Ada" in told
    assert f"told on the phone. (Take it back: hub unmerge {join}.)" in told
    assert "d" * 32 not in told
    assert "one customer already" in run("merge", "1", "2", "--reason", "again", config=config, expect=1)
    assert "They are customers 2 and 1 again" in run("unmerge", join, config=config)
    assert "somebody undid it" in run("unmerge", join, config=config, expect=1)
    again = run("why", "2", config=config)
    assert "customer 2" in again
    assert "Joined: never" in again
    assert "somebody at the command line took back the join" in again


def test_a_merge_is_taken_back_by_the_customers_number(config: Path) -> None:
    assert "joined to nobody" in run("unmerge", "--customer", "2", config=config, expect=1)
    first = join_of(run("merge", "1", "2", "--reason", "one", config=config))
    hear(config, ("sms", message(phone("+12125550177"))))
    third = customer_of("+12125550177", config)
    second = join_of(run("merge", "1", third, "--reason", "two", config=config))
    listed = run("unmerge", "--customer", "1", config=config, expect=1)
    assert f"hub unmerge {first}: " in listed
    assert f"hub unmerge {second}: " in listed
    assert "They are customers 1 and 2 again" in run("unmerge", "--customer", "2", config=config)
    assert f"They are customers 1 and {third} again" in run("unmerge", "--customer", "1", config=config)


def test_one_address_leads_to_another(config: Path) -> None:
    way = run("why", ADA, "--to", "u7", config=config)
    assert way.count("\n") >= 1
    assert way.startswith("1. On ")
    assert "a one-time code" in way or "signed in" in way
    back = run("why", "u7", "--to", ADA, config=config).splitlines()
    assert [line[3:] for line in back] == [line[3:] for line in reversed(way.splitlines())]
    as_json = json.loads(run("why", "1", "--to", "u7", "--json", config=config))
    assert [line["text"] for line in as_json] == [line[3:] for line in way.splitlines()]
    assert "is none of customer 1's" in run("why", "1", "--to", "ada@example.com", config=config, expect=1)
    assert "where the question begins" in run("why", ADA, "--to", ADA, config=config)


def test_why_is_the_same_in_json(config: Path) -> None:
    told = json.loads(run("why", "1", "--json", config=config))
    assert (told["customer_id"], told["name"], told["complete"]) == (1, "Ada", True)
    assert told["story"][0]["text"].endswith(".")
    assert "d" * 32 not in json.dumps(told)


# what is typed -> what the error says
UNKNOWN = {
    ("why", "99"): "There is no customer 99",
    ("why", "nobody@example.com"): "Nobody has written from nobody@example.com yet",
    ("why", "5550142"): "There is no customer 5550142",
    ("merge", "1", "99", "--reason", "x"): "There is no customer 99",
    ("merge", "1", "1", "--reason", "x"): "one customer already",
    ("unmerge", "99"): "There is no join 99",
    ("unmerge",): "Say which",
    ("unmerge", "1", "--customer", "1"): "Say which",
    ("unmerge", "--customer", "99"): "There is no customer 99",
    ("suggestions", "99"): "There is no customer 99",
}


def test_what_cannot_be_answered_says_what_to_give(config: Path) -> None:
    for arguments, text in UNKNOWN.items():
        assert text in run(*arguments, config=config, expect=1), arguments
    assert CliRunner().invoke(main, ["merge", "1", "2", "--config", str(config)]).exit_code == 2, "a merge without a reason is none"


def test_an_address_of_several_asks_which(config: Path) -> None:
    hear(config, ("email", message(email("ada@example.com", Proof.CLAIMED))))
    said = run("why", "ada@example.com", config=config, expect=1)
    assert re.search(r"several customers': 2 \(email, proven\), \d+ \(email, asserted\)", said)


def test_suggestions_are_listed_for_one_and_for_all(config: Path) -> None:
    assert "Nobody looks like" in run("suggestions", config=config)
    hear(config, ("sms", message(phone("+12125550177"), sender_name="Ada")))
    other = customer_of("+12125550177", config)
    hear(config, rows=(Suggestion(5, 1, int(other), "similar", 870, "Both are called Ada.", 1),))
    for arguments in (("suggestions",), ("suggestions", other), ("suggestions", "1", "--limit", "1")):
        assert run(*arguments, config=config) == f"0.87  1 Ada  and  {other} Ada: Both are called Ada.\n"
    assert "Nobody looks like" in run("suggestions", "2", config=config)
    run("merge", "1", other, "--reason", "the same", config=config)
    assert "Nobody looks like" in run("suggestions", other, config=config), "they are one already"


@pytest.mark.parametrize("config", ["sqlite"], indirect=True)
def test_reading_works_beside_a_running_hub_and_deciding_says_what_to_do(config: Path) -> None:
    database = load(config, {}).storage.database
    with migrate.lock(database):
        assert "Ada, customer 1" in run("why", "1", config=config)
        assert "Nobody looks like" in run("suggestions", config=config)
        for arguments in (("merge", "1", "2", "--reason", "x"), ("unmerge", "1")):
            assert "The hub is running" in run(*arguments, config=config, expect=1)
    assert "Joined: never" in run("why", "2", config=config), "and nothing was changed"


@pytest.mark.parametrize("config", ENGINES[1:], indirect=True)
async def test_on_postgresql_all_of_it_works_beside_a_running_hub(config: Path) -> None:
    from hub.app import Running

    running = Running(load(config, {k: v for k, v in os.environ.items() if not k.startswith("HUB_")}))
    await running.start()
    try:
        said = await asyncio.to_thread(run, "merge", "1", "2", "--reason", "x", config=config)
        assert "They are customer 1" in said
        sandbox = running.sandbox
        assert sandbox is not None
        # The hub that runs carries what the command owed.
        await sandbox.state.wait_for(lambda: [hook for hook in sandbox.state.hooks if hook.type == "customer.merged" and hook.verified])
        assert "They are customers 1 and 2 again" in await asyncio.to_thread(run, "unmerge", join_of(said), config=config)
    finally:
        await running.stop()


def test_no_database_yet_is_said(tmp_path: Path) -> None:
    assert "there is no database yet" in run("why", "1", config=sandbox_config(tmp_path), expect=1)
