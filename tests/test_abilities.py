"""Law: what docs/channels.md tells of channels is what the code says: its table, its settings, and a section for each type."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import SecretStr

from connectors import CHANNELS
from hub.abilities import ABILITIES
from hub.app import channel_types
from hub.cli.channels import BEGIN, END, abilities_markdown, abilities_text
from tests.test_cli import run

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "channels.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## `(\w+)`[^\n]*\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
EC_KEY = ec.derive_private_key(7, ec.SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
# Settings that must look like what they are; any other `${NAME}` may be anything.
SHAPED = {
    "TELNYX_PUBLIC_KEY": base64.b64encode(b"\x07" * 32).decode(),
    "SENDGRID_PARSE_KEY": base64.b64encode(EC_KEY).decode(),
    "SENDGRID_EVENT_KEY": base64.b64encode(EC_KEY).decode(),
    "RESEND_WEBHOOK_SECRET": "whsec_" + base64.b64encode(b"k" * 24).decode(),
}


def test_the_documents_table_is_what_the_code_says():
    written = TEXT.partition(BEGIN)[2].partition(END)[0].strip()
    made = abilities_markdown({type_: cls.can for type_, cls in channel_types().items()})
    assert written == made, "run `hub channels abilities --into docs/channels.md`"


def test_the_table_has_each_type_each_ability_and_each_reason_once():
    table = abilities_markdown(
        {
            "a": dict.fromkeys(ABILITIES, ""),
            "b": dict.fromkeys(ABILITIES, "not built"),
            "c": {**dict.fromkeys(ABILITIES, ""), "read": "x|y"},
        }
    )
    rows = table.splitlines()
    assert rows[0] == "| | `a` | `b` | `c` |"
    assert [row.split(" | ")[0] for row in rows[2 : 2 + len(ABILITIES)]] == [f"| {words}" for words in ABILITIES.values()]
    assert rows[2] == f"| {ABILITIES['files_in']} | yes | no [1] | yes |"
    assert f"| {ABILITIES['read']} | yes | no [1] | no [2] |" in rows
    assert rows[-2:] == ["1. Not built.", "2. Xy."]


def test_the_words_for_a_terminal_say_who_can_and_why_others_cannot():
    text = abilities_text({"a": dict.fromkeys(ABILITIES, ""), "b": {**dict.fromkeys(ABILITIES, ""), "read": "SMS has none"}})
    assert "tells when it was read\n  yes  a\n  no   b: SMS has none\n" in text
    assert text.count("  yes  a, b") == len(ABILITIES) - 1


def test_the_command_prints_both_and_writes_the_table_between_the_markers(tmp_path):
    assert "  yes  " in run("channels", "abilities")
    table = run("channels", "abilities", "--markdown").strip()
    assert table.startswith("| | `twilio_sms`")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    run("channels", "abilities", "--into", str(page))
    assert page.read_text() == f"before\n{BEGIN}\n{table}\n{END}\nafter\n"


def test_every_type_has_a_section():
    assert set(SECTIONS) == set(CHANNELS)


@pytest.mark.parametrize("type_", CHANNELS)
def test_a_sections_settings_are_taken_and_its_secrets_come_from_the_environment(type_):
    [block] = re.findall(r"```yaml\n(.*?)```", SECTIONS[type_], re.DOTALL)
    filled = re.sub(r"\$\{(\w+)\}", lambda found: SHAPED.get(found[1], "a-made-up-secret-0123456789"), block)
    [entry] = yaml.safe_load(filled)["channels"].values()
    assert entry["type"] == type_
    cls = channel_types()[type_]
    cls.Settings.model_validate(entry)
    raw = yaml.safe_load(block)["channels"]
    for name, field in cls.Settings.model_fields.items():
        if field.annotation is SecretStr and name in entry:
            assert "${" in str(next(iter(raw.values()))[name]), f"{name}: a secret in a document gets copied"
        if field.annotation is SecretStr:
            assert name in SECTIONS[type_], f"{name} is not explained"
