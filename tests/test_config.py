"""A typo or a missing secret stops the start and names the key and the fix; no message shows a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.app import configure
from hub.config import ConfigError, load
from tests.conftest import ROOT

SHIPPED = (ROOT / "config.yaml").read_text()


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_the_shipped_configuration_is_whole_and_every_line_says_what_it_is_for() -> None:
    settings = load(ROOT / "config.yaml", {})
    assert settings.sandbox.enabled
    built = configure(settings, b"secret")
    assert set(built.channels) == {"whatsapp", "sms", "email", "chat"}
    bare = [
        line
        for line in SHIPPED.partition("channels:")[0].splitlines()
        if line.startswith("  ") and ":" in line and "#" not in line and not line.rstrip().endswith(":")
    ]
    assert bare == [], "a process setting without its one-line comment"


FAULTS = [
    # (what is changed in the shipped file, what it becomes, what the message must say)
    ("port: 8080", "prot: 8080", "server.prot: there is no such setting. Check the spelling, or remove it."),
    ("port: 8080", "port: eighty", "server.port: Input should be a valid integer"),
    ("port: 8080", "port: 80800", "server.port: Input should be less than or equal to 65535."),
    ("public_url: http://localhost:8080", "public_url: localhost", "server.public_url: must begin with http:// or https:// and a host."),
    ("lease_days: 7", "lease_days: 0", "holds.lease_days: Input should be greater than 0."),
    ("lease_days: 7", "lease_days: 2", "holds: renew_under_days must be less than lease_days."),
    ("key: sandbox-only-site-key-0123456789abcdef", "key: short", "sites.shop.key: must have at least 32 characters"),
    ("channels:", "chanels:", "chanels: there is no such setting"),
    ("  whatsapp:\n", "  Whats App:\n", "a name is lower-case letters"),
    ("auth_token: sandbox-only-twilio-token", "auth_token: ${NOT_SET}", "the environment variable NOT_SET is not set. Set it"),
]


@pytest.mark.parametrize(("old", "new", "said"), FAULTS, ids=[fault[1].strip()[:30] for fault in FAULTS])
def test_a_fault_names_the_key_and_the_fix(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SHIPPED
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, SHIPPED.replace(old, new, 1)), {})
    assert said in str(caught.value)


CONNECTOR_FAULTS = [
    ("type: twilio_sms", "type: twilio_smss", "channels.sms.type: there is no 'twilio_smss'. One of: "),
    ("    account_sid: AC00000000000000000000000000000001\n", "", "channels.whatsapp.account_sid: is missing. Add it."),
    ("signing_secret: sandbox-only-slack", "signing_secrt: sandbox-only-slack", "rooms.slack.signing_secrt: there is no such setting."),
    ("whsec_c2FuZGJveC1vbmx5LXdlYmhvb2stc2VjcmV0LTAx", "hunter2hunter2", "destinations.marketing.secret"),
    ("    site: shop\n", "    site: shpo\n", "channels.chat.site: there is no site 'shpo' under `sites`."),
]


@pytest.mark.parametrize(("old", "new", "said"), CONNECTOR_FAULTS, ids=[fault[2][:34] for fault in CONNECTOR_FAULTS])
def test_a_connectors_fault_names_the_key_and_never_shows_a_value(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SHIPPED
    settings = load(write(tmp_path, SHIPPED.replace(old, new, 1)), {})
    with pytest.raises(ConfigError) as caught:
        configure(settings, b"secret")
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "sandbox-only-twilio-token" not in str(caught.value)


def test_environment_overrides_a_key_and_fills_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_SERVER__PORT", "9000")
    settings = load(write(tmp_path, SHIPPED.replace("sandbox-only-twilio-token", "${TWILIO}")), {"TWILIO": "from outside"})
    assert settings.server.port == 9000
    assert settings.channels["sms"]["auth_token"] == "from outside"


def test_the_sandbox_refuses_to_stand_beside_a_channel_that_reaches_real_people(tmp_path: Path) -> None:
    real = SHIPPED.replace("    base_url: http://127.0.0.1:8090     # the stand-in; leave out for Twilio itself\n", "", 1)
    assert real != SHIPPED
    with pytest.raises(ConfigError) as caught:
        configure(load(write(tmp_path, real), {}), b"secret")
    assert "sandbox.enabled: the sandbox is on beside channels.whatsapp" in str(caught.value)
    configure(load(write(tmp_path, real.replace("beside_real: false", "beside_real: true")), {}), b"secret")


def test_without_the_sandbox_nothing_may_point_at_a_stand_in(tmp_path: Path) -> None:
    off = SHIPPED.replace("enabled: true ", "enabled: false")
    assert off != SHIPPED
    with pytest.raises(ConfigError) as caught:
        configure(load(write(tmp_path, off), {}), b"secret")
    assert "channels.whatsapp: points at a loopback address but the sandbox is off" in str(caught.value)


def test_a_mail_server_of_ones_own_beside_the_hub_is_no_stand_in(tmp_path: Path) -> None:
    """A Postfix on this machine must be usable, and it reaches real people: the sandbox may not stand beside it unasked."""
    relay = SHIPPED.replace("      port: 8025\n", "      port: 25\n", 1)
    assert relay != SHIPPED
    with pytest.raises(ConfigError, match=r"sandbox.enabled: the sandbox is on beside channels.email"):
        configure(load(write(tmp_path, relay), {}), b"secret")
    off = relay.replace("enabled: true ", "enabled: false")
    with pytest.raises(ConfigError) as caught:
        configure(load(write(tmp_path, off), {}), b"secret")
    assert "channels.whatsapp" in str(caught.value)
    assert "channels.email" not in str(caught.value)


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 3: not valid YAML"):
        load(write(tmp_path, "server:\n  port: [8080\n"), {})


def test_a_missing_file_says_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml", {})
