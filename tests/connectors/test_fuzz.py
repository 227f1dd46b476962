"""The short form of `python -m bench.fuzz`: a few hundred changed inputs, the same ones at every run. No crash, nothing slow."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import connectors
from bench import fuzz
from tests.shared_data import FIXTURES

MAILS = ["mail_bounces_flufl", "mail_cpython", "mail_django_mailbox", "mail_mailman", "mail_salmon", "mail_talon"]
FOLDERS = {
    "mail": MAILS,
    "reply": ["mail_reply_trimmer", "mail_planer_html", "mail_talon"],
    "webhook": ["webhooks_anymail", "webhooks_twilio", "webhooks_meta_pywa", "webhooks_sendgrid_python"],
}
BEGIN = {
    name: fuzz.seeds(name, [FIXTURES / folder for folder in folders if (FIXTURES / folder).exists()], sorted(connectors.CHANNELS))
    for name, folders in FOLDERS.items()
}
RUN = {name: build() for name, build in fuzz.TARGETS.items()}


@pytest.mark.parametrize("name", sorted(FOLDERS))
@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_no_changed_input_crashes_or_takes_long(name, number):
    rng = random.Random(number)
    data = fuzz.mutate(rng.choice(BEGIN[name]), rng, BEGIN[name], 20_000)
    started = time.process_time()
    RUN[name](data)
    assert time.process_time() - started < fuzz.SLOW


def test_what_fails_is_seen_kept_and_ends_the_run(tmp_path, monkeypatch, capsys):
    def breaks(data: bytes) -> None:
        raise KeyError("x")

    def ended(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(fuzz.os, "_exit", ended)
    monkeypatch.setattr(fuzz.sys, "excepthook", lambda *error: None)
    with pytest.raises(SystemExit) as end:
        fuzz.Run("mail", breaks, 60, tmp_path, "test").feed(b"the input")
    assert end.value.code == 1
    assert (tmp_path / "mail-crash").read_bytes() == b"the input"
    assert "CRASH on input 1" in capsys.readouterr().out
    over = fuzz.Run("mail", lambda data: None, -1, tmp_path, "test")
    with pytest.raises(SystemExit) as end:
        over.feed(b"")
    assert end.value.code == 0
