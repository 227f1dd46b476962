"""`hub channels` and what `hub check` says of being away, run as people run them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import yaml

import connectors
from connectors.sandbox import SandboxActor, SandboxServer
from connectors.shared.twilio import RETRIES
from hub.app import sandbox_secrets
from hub.cli.server import AWAY
from hub.config import load
from hub.conversations.recovery import NoteRecovered
from hub.serving import offline
from hub.storage import migrate
from tests.conftest import free_port, sandbox_config
from tests.test_cli import run


def test_check_prints_twilios_address_with_its_retries_and_a_fallback(tmp_path: Path) -> None:
    said = run("check", "--config", str(sandbox_config(tmp_path))).splitlines()
    for name in ("whatsapp", "sms"):
        lines = [line for line in said if f"/in/{name}" in line]
        assert len(lines) == 2
        assert all(line.endswith(f"/in/{name}{RETRIES}") for line in lines)
        assert "fallback" in lines[1]
    assert [line.split()[-1].rpartition("/")[2] for line in said if "/in/email" in line] == ["email"], "others take the plain address"


def test_check_says_how_long_each_channel_may_be_away(tmp_path: Path) -> None:
    said = run("check", "--config", str(sandbox_config(tmp_path)))
    for name, type_ in (("whatsapp", "twilio_whatsapp"), ("sms", "twilio_sms"), ("email", "mime"), ("chat", "webchat")):
        assert any(line.split()[:1] == [name] and line.endswith(AWAY[type_]) for line in said.splitlines())
    assert set(AWAY) == set(connectors.CHANNELS), "every type of channel says so"


def test_list_shows_each_channel_also_while_the_hub_runs(tmp_path: Path) -> None:
    path = sandbox_config(tmp_path)
    assert "no delivery yet" in run("channels", "list", "--config", str(path)), "before the first start"
    assert not (tmp_path / "data" / "hub.db").exists(), "and looking made nothing"

    async def before() -> None:
        async with offline(load(path, {})) as hub:
            await hub.writer.run(NoteRecovered("sms", 1_800_000_000))

    asyncio.run(before())
    with migrate.lock(tmp_path / "data" / "hub.db"):
        lines = {line.split()[0]: line for line in run("channels", "list", "--config", str(path)).splitlines()}
    assert set(lines) == {"whatsapp", "sms", "email", "chat"}
    assert lines["sms"].split()[1:3] == ["twilio_sms", "+15550100002"]
    assert lines["sms"].endswith("2027-01-15 08:00Z")
    assert lines["whatsapp"].endswith(" -")


def test_recover_takes_in_what_was_missed_and_doubles_nothing(tmp_path: Path) -> None:
    path = sandbox_config(tmp_path)
    config = yaml.safe_load(path.read_text())
    port = free_port()
    config["channels"]["sms"]["base_url"] = f"http://127.0.0.1:{port}"
    config["allowed_hosts"] = [f"127.0.0.1:{port}"]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    server = SandboxServer(port=port, smtp_port=0, secrets=sandbox_secrets(load(path, {})))

    async def missed(work: str) -> str:
        await server.start()
        actor = SandboxActor(server, hub_url="http://127.0.0.1:1", public_url="http://localhost")
        for number in range(3):
            await actor.sms("+12025550123", f"message {number} {work}", told=False)
        since = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86_400))
        try:
            return await asyncio.to_thread(run, "channels", "recover", "sms", "--since", since, "--config", str(path))
        finally:
            await actor.close()
            await server.stop()

    assert "3 messages listed" in (said := asyncio.run(missed("first")))
    assert "3 of them new" in said
    assert "6 messages listed" in (said := asyncio.run(missed("second")))
    assert "3 of them new" in said


REFUSALS = {
    "no such channel": (("telex", "--since", "2026-01-01"), "There is no channel telex. One of: chat, email, sms, whatsapp."),
    "nothing to list": (("email", "--since", "2026-01-01"), "email has no provider that lists what was written."),
    "no date": (("sms", "--since", "yesterday"), "'yesterday' is no date. Write it like 2026-11-20"),
    "the future": (("sms", "--since", "2999-01-01"), "2999-01-01 has not been yet."),
    "no provider there": (("sms", "--since", "2026-01-01"), "Twilio could not be reached"),
}


@pytest.mark.parametrize(("arguments", "said"), REFUSALS.values(), ids=REFUSALS)
def test_recover_says_what_to_mend(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert said in run("channels", "recover", *arguments, "--config", str(sandbox_config(tmp_path)), expect=1)
