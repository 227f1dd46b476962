"""The `hub` command, run as people and scripts run it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from hub import keys
from hub.cli import main
from hub.storage import migrate
from tests.conftest import ROOT, sandbox_config
from tests.storage import fresh_database

MAIL = (
    b"From: Ada <ada@example.com>\r\nTo: support+tok.en@shop.example\r\nSubject: Hello\r\nMessage-ID: <1@example.com>\r\n"
    b"Authentication-Results: mx.shop.example; dmarc=pass header.from=example.com\r\n\r\nWhere is it?\r\n"
)


def run(*arguments: str, expect: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == expect, result.output
    return result.output


def test_check_prints_the_urls_to_paste(tmp_path: Path) -> None:
    said = run("check", "--config", str(sandbox_config(tmp_path)))
    for name in ("whatsapp", "sms", "email", "chat"):
        assert f"/in/{name}" in said
    assert "/rooms/slack" in said


def test_check_names_what_to_mend_and_exits_1(tmp_path: Path) -> None:
    path = sandbox_config(tmp_path)
    path.write_text(path.read_text().replace("auth_token:", "auth_tokn:"))
    assert "channels.whatsapp.auth_tokn: there is no such setting" in run("check", "--config", str(path), expect=1)


def test_serve_says_what_to_mend_in_a_line_and_not_in_a_traceback(tmp_path: Path) -> None:
    path = sandbox_config(tmp_path)
    shipped = path.read_text()
    path.write_text(shipped.replace("type: webhook", "type: webhok"))
    assert run("serve", "--config", str(path), expect=1) == (
        "hub: destinations.marketing.type: there is no 'webhok'. "
        "One of: braze, customerio, hubspot, iterable, klaviyo, mailchimp, segment, webhook.\n"
    )
    path.write_text(shipped)
    with migrate.lock(tmp_path / "data" / "hub.db"):
        assert "is open in another hub process. Stop that one first." in run("serve", "--config", str(path), expect=1)


def test_a_file_that_is_no_database_is_named_by_every_command(tmp_path: Path) -> None:
    path = sandbox_config(tmp_path)
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "hub.db").write_bytes(b"a picture of a cat" * 100)
    for command in (("check",), ("serve",), ("migrate",), ("agents", "list")):
        assert "hub.db cannot be read as a database" in run(*command, "--config", str(path), expect=1)


def test_check_names_a_channel_that_could_verify_nothing(tmp_path: Path) -> None:
    path = sandbox_config(tmp_path)
    path.write_text(path.read_text().replace("    password: sandbox-only-mail-password\n", "", 1))
    assert "channels.email: has no key to verify deliveries with" in run("check", "--config", str(path), expect=1)


@pytest.mark.parametrize("held", [b"", b"c2hvcnQ=", b"\xff not base64", b"A" * 400], ids=["empty", "short", "noise", "long"])
def test_a_damaged_secret_stops_every_command_instead_of_signing_with_nothing(held: bytes, tmp_path: Path) -> None:
    path = sandbox_config(tmp_path)
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "secret").write_bytes(held)
    for command in (("check",), ("serve",), ("agents", "list")):
        assert "holds no secret of ours" in run(*command, "--config", str(path), expect=1)
    assert (tmp_path / "data" / "secret").read_bytes() == held, "nothing was changed"


def test_the_secret_is_made_once_whoever_asks_first(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(keys.load_secret, [tmp_path / "data" / "secret"] * 32))
    assert len(made) == 1
    assert [len(secret) for secret in made] == [32]
    (file,) = (tmp_path / "data").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_agents_and_tokens_are_made_by_command(tmp_path: Path) -> None:
    config = ("--config", str(sandbox_config(tmp_path)))
    run("agents", "add", "kim@shop.example", "--role", "admin", "--password", "a long enough pass phrase", *config)
    assert "kim@shop.example" in run("agents", "list", *config)
    assert "12 characters" in run("agents", "add", "lee@shop.example", "--password", "short", *config, expect=1)
    assert run("tokens", "add", "campaigns", *config).splitlines()[-1].startswith("hub_")
    assert run("quarantine", "list", *config).strip().splitlines()[-1:] in ([], [""]) or "kind" not in run("quarantine", "list", *config)
    assert run("deliveries", "list", *config) == ""
    assert "There is no delivery 7" in run("deliveries", "retry", "7", *config, expect=1)


def test_deliveries_are_listed_shown_tried_again_and_given_up(tmp_path: Path) -> None:
    path = sandbox_config(tmp_path)
    config = ("--config", str(path))
    assert "no database yet" in run("deliveries", "list", *config, expect=1)
    run("migrate", *config)
    owed = [(1, "failed", "sms"), (2, "unknown", "sms"), (3, "queued", "sms"), (4, "done", "sms"), (5, "failed", "whatsapp")]
    database = tmp_path / "data" / "hub.db"

    def states() -> list[str]:
        connection = sqlite3.connect(database)
        found = [state for (state,) in connection.execute("SELECT state FROM delivery ORDER BY id")]
        connection.close()
        return found

    connection = sqlite3.connect(database)
    connection.executemany(
        "INSERT INTO delivery (id, lane, kind, target, subject_id, payload, state, idempotent, created_at, due_at, attempt, version, ref,"
        " lease_token, lease_until, error) VALUES (?1, 'l' || ?1, 'reply', ?3, 1, '{}', ?2, 0, 1, 1, 3, 1, '', '', 0, 'No such number.')",
        owed,
    )
    connection.commit()
    connection.close()

    def numbers(*options: str) -> list[str]:
        return [line.split()[0] for line in run("deliveries", "list", *options, *config).splitlines()]

    assert numbers() == ["1", "2", "3", "5"]
    assert numbers("--state", "failed") == ["1", "5"]
    assert numbers("--state", "failed", "--state", "done", "--target", "sms") == ["1", "4"]
    assert numbers("--kind", "card") == []
    # Looking works while a hub holds the database, changing does not.
    with migrate.lock(database):
        assert numbers("--limit", "2") == ["3", "5"]
        said = run("deliveries", "show", "2", *config)
        assert "answer to sms" in said
        assert "unknown, after 3 tries" in said
        assert "No such number." in said
        assert "web pages" in run("deliveries", "retry", "1", *config, expect=1)
    assert "There is no delivery 9" in run("deliveries", "show", "9", *config, expect=1)
    assert "Say which" in run("deliveries", "retry", *config, expect=1)
    assert "Say which" in run("deliveries", "retry", "1", "--failed", *config, expect=1)
    assert "go with --failed" in run("deliveries", "retry", "1", "--target", "sms", *config, expect=1)
    assert "Delivery 5 is queued" in run("deliveries", "retry", "--failed", "--target", "whatsapp", *config)
    assert states() == ["failed", "unknown", "queued", "done", "queued"]
    assert "2 deliveries are queued" in run("deliveries", "retry", "1", "2", *config)
    assert "Nothing failed" in run("deliveries", "retry", "--failed", *config)
    assert "discarded" in run("deliveries", "discard", "3", "--reason", "Told by telephone.", *config)
    assert states() == ["queued", "queued", "discarded", "done", "queued"]


def test_migrate_says_where_the_database_stands(tmp_path: Path) -> None:
    config = ("--config", str(sandbox_config(tmp_path)))
    assert "brought at step" in run("migrate", *config)
    assert "was already at step" in run("migrate", *config)


def test_init_writes_the_shipped_configuration_once(tmp_path: Path) -> None:
    target = tmp_path / "config.yaml"
    run("init", str(target))
    assert target.read_bytes() == (ROOT / "config.yaml").read_bytes()
    assert "Nothing was written" in run("init", str(target), expect=1)


def test_mail_parse_shows_what_ingest_would_make_of_a_mail(tmp_path: Path) -> None:
    file = tmp_path / "mail.eml"
    file.write_bytes(MAIL)
    said = json.loads(run("mail", "parse", str(file), "--authserv-id", "mx.shop.example"))
    assert said["kind"] == "message"
    assert said["claims"][0] == {"kind": "email", "value": "ada@example.com", "proof": "dmarc"}
    assert said.keys() >= {
        *("channel", "external_id", "message_id", "in_reply_to", "references", "from", "to", "cc", "subject", "text", "reply_text"),
        *("html", "attachments", "machine", "spam"),
    }
    assert said["from"].keys() == {"name", "address"}
    assert said["machine"] is None


def test_webhook_parse_numbers_requests_and_judges_only_what_it_is_given_keys_for(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    body = "MessageSid=SM00000000000000000000000000000001&From=%2B12025550123&To=%2B15550100002&Body=Hi&NumMedia=0"
    file.write_text(json.dumps({"method": "POST", "path": "/in/sms", "content_type": "application/x-www-form-urlencoded", "body": body}))
    (said,) = json.loads(run("webhook", "parse", "twilio_sms", str(file)))
    assert (said["request"], said["answer"], said["events"][0]["text"]) == (0, None, "Hi")
    (said,) = json.loads(
        run("webhook", "parse", "twilio_sms", str(file), "--secret", "auth_token=t", "--public-url", "https://hub.example")
    )
    assert (said["answer"], said["events"]) == (403, [])
    status = body + "&MessageStatus=undelivered&ErrorCode=30005"
    several = [
        {"request": {"method": "POST", "path": "/", "content_type": "application/x-www-form-urlencoded", "body": one}}
        for one in (body, status)
    ]
    file.write_text(json.dumps(several))
    first, second = json.loads(run("webhook", "parse", "twilio_sms", str(file)))
    assert (first["request"], second["request"]) == (0, 1)
    [event] = second["events"]
    assert (event["kind"], event["status"], event["external_id"]) == ("delivery", "bounced", "SM00000000000000000000000000000001")
    assert event.keys() >= {"recipient", "reason"}


@pytest.mark.process
def test_help_loads_no_database_library() -> None:
    code = (
        "import sys; from hub.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'sqlmodel', 'sqlalchemy', 'aiohttp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=dict(os.environ), capture_output=True, timeout=60)


def test_check_writes_nothing_and_what_the_hub_writes_is_its_own(tmp_path: Path) -> None:
    """A secret made by `sudo hub check` could keep the service itself from starting."""
    config = sandbox_config(tmp_path)
    run("check", "--config", str(config))
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    run("migrate", "--config", str(config))
    database = tmp_path / "data" / "hub.db"
    assert oct(database.stat().st_mode & 0o777) == "0o600"
    assert oct(database.parent.stat().st_mode & 0o777) == "0o700"


@pytest.mark.parametrize(("addresses", "noted"), [(10, False), (11, True)])
def test_check_notes_a_sender_who_shows_many_reply_to_addresses(addresses: int, noted: bool, tmp_path: Path) -> None:
    config = sandbox_config(tmp_path)
    path = fresh_database(tmp_path / "data")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        row = "INSERT INTO identifier (id, kind, site, value, standing, epoch, customer_id, proof, address, first_seen, last_proof_at) "
        for number in range(addresses + 1):
            connection.execute(
                f"{row} VALUES (?, 'email', '', ?, 'asserted', 0, NULL, 'seen', ?, 1, 1)", (number, f"a{number}", f"a{number}@x")
            )
            connection.execute(
                "INSERT INTO evidence (identifier_id, other_id, proof, source, at) VALUES (0, ?, 'seen', 'm', 1)", (number or 1,)
            )
    said = run("check", "--config", str(config))
    assert ("different Reply-To addresses" in said) is noted
