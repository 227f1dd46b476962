"""`hub simulate TOOL`: a marketing tool on this machine, started and stopped as people do it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from connectors import DESTINATIONS, load
from connectors.sandbox.tools import TOOLS as STAND_INS
from connectors.sandbox.tools.mailchimp import AUDIENCE, KEY, MailchimpQuirks
from connectors.sandbox.tools.stand_in import Quirks
from hub.app import configure
from hub.cli.simulate import TOOLS, apply_quirk, parse_profile, to_paste
from hub.config import load as load_config
from tests.conftest import ROOT, sandbox_config
from tests.test_cli import run


def test_every_stand_in_can_be_simulated() -> None:
    assert set(TOOLS) == set(STAND_INS) <= set(DESTINATIONS)


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ("read_lag=30", "read_lag", 30.0),
        ("status=503", "status", 503),
        ("retry_after=17", "retry_after", "17"),
        ("revoked", "revoked", True),
        ("revoked=false", "revoked", False),
        ("hang=true", "hang", True),
        ("refused=ann@example.org", "refused", {"ann@example.org"}),
        ("bare_403", "bare_403", True),
    ],
)
def test_a_quirk_is_set(given: str, name: str, value: object) -> None:
    quirks = MailchimpQuirks()
    apply_quirk(quirks, given)
    assert getattr(quirks, name) == value


@pytest.mark.parametrize("given", ["sloth=1", "read_lag", "read_lag=soon", "revoked=perhaps", "status=5xx", "bare_403", "__class__=1"])
def test_a_wrong_quirk_is_named(given: str) -> None:
    with pytest.raises(ValueError, match=f"--quirk {given}: "):
        apply_quirk(Quirks(), given)


def test_a_profile_is_parsed() -> None:
    assert parse_profile("email=e+x@example.com,phone=+12025550188") == {"email": "e+x@example.com", "phone": "+12025550188"}
    for wrong in ("eve@example.com", "email=", "fax=1", ""):
        with pytest.raises(ValueError, match="--profile"):
            parse_profile(wrong)


def test_wrong_arguments_are_named_in_a_line() -> None:
    assert run("simulate", "mailchimp", "--quirk", "sloth=1", expect=1).startswith("hub: --quirk sloth=1: there is no quirk 'sloth'")
    assert "'marketo' is not one of" in run("simulate", "marketo", expect=2)


@pytest.mark.parametrize("tool", TOOLS)
def test_what_it_says_to_paste_configures_the_connector(tool: str, tmp_path: Path) -> None:
    made = load(STAND_INS[tool])
    pasted = yaml.safe_load(to_paste(tool, "http://127.0.0.1:9009", made.credentials))
    path = sandbox_config(tmp_path)
    shipped = yaml.safe_load(path.read_text())
    shipped["allowed_hosts"] = pasted["allowed_hosts"]
    shipped["destinations"] |= pasted["destinations"]
    path.write_text(yaml.safe_dump(shipped))
    connector, settings = configure(load_config(path, {}), bytes(32)).tools[tool]
    assert connector.is_sandbox()
    assert settings.base_url == "http://127.0.0.1:9009"
    run("check", "--config", str(path))


@pytest.fixture
def running() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "hub", "simulate", "mailchimp", "--quirk", "status=503", "--quirk", "times=1"]
    process = subprocess.Popen(
        [*command, "--profile", "email=eve@example.com"],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process
    process.kill()
    process.communicate(timeout=10)


@pytest.mark.process
def test_it_runs_until_stopped_and_prints_what_is_written_to_it(running: subprocess.Popen[str]) -> None:
    assert running.stdout is not None
    said = []
    for line in running.stdout:
        said.append(line)
        if "Ctrl-C stops it" in line:
            break
    printed = "".join(said)
    url = next(line for line in said if "listens at" in line).split()[-1]
    pasted = yaml.safe_load(printed.partition("beside what is there:")[2].partition("It knows:")[0])
    assert pasted["destinations"]["mailchimp"] == {
        "type": "mailchimp",
        "base_url": url,
        "api_key": KEY,
        "audience": AUDIENCE,
        "webhook_secret": "mailchimp-signing-secret",
    }
    assert "eve@example.com" in printed
    assert "ada@example.com" in printed
    eve = next(line.split()[0] for line in said if "eve@example.com" in line)

    def post(path: str, body: object) -> int:
        headers = {"authorization": "Basic " + b64encode(f"x:{KEY}".encode()).decode(), "content-type": "application/json"}
        try:
            request = urllib.request.Request(f"{url}/3.0{path}", json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return int(error.code)

    tags = {"tags": [{"name": "support_hold", "status": "active"}]}
    assert [post(f"/lists/{AUDIENCE}/members/{eve}/tags", tags) for _ in range(2)] == [503, 204], "the quirk, once"
    assert eve in running.stdout.readline()
    running.send_signal(signal.SIGINT)
    assert "Stopped after 2 calls." in running.communicate(timeout=10)[0]
    assert running.returncode == 0
