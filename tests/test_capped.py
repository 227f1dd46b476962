"""What strangers sent is read where it can take nothing down: too slow, too large or deadly, the next one is read all the same."""

from __future__ import annotations

import os
import time

import pytest

from connectors.email.raw import RawEmail
from hub.capped import CappedChild, TooMuch
from hub.contract import InboundMessage, Place, Request, Unparseable


def sleep_long() -> None:
    time.sleep(60)


def die() -> None:
    os._exit(9)


def swell() -> int:
    return len(bytearray(4_000_000_000))


def say() -> str:
    print("not an answer")  # noqa: T201
    return "an answer"


@pytest.fixture
async def child():
    made = CappedChild(600)
    yield made
    await made.close()


HERE = "tests.test_capped"


@pytest.mark.parametrize(
    ("what", "seconds", "why"), [("sleep_long", 0.3, "longer than"), ("die", 20, "ended the process"), ("swell", 20, "memory")]
)
async def test_what_is_too_much_ends_alone_and_the_next_one_is_read(what: str, seconds: float, why: str, child: CappedChild) -> None:
    assert await child.call(f"{HERE}:say", seconds=20) == "an answer"
    with pytest.raises(TooMuch, match=why):
        await child.call(f"{HERE}:{what}", seconds=seconds)
    assert await child.call(f"{HERE}:say", seconds=20) == "an answer"


async def test_a_mail_is_read_there_as_it_is_here(child: CappedChild) -> None:
    settings = RawEmail.Settings.model_validate({"type": "mime", "address": "support@shop.example", "smtp": {"host": "127.0.0.1"}})
    place = Place("mail", "https://hub.example/in/mail", b"k" * 32)
    raw = b"From: Ana <ana@shop.example>\r\nSubject: Hello\r\nMessage-ID: <1@shop.example>\r\n\r\n" + b"A long letter. " * 20_000
    request = Request("POST", place.inbound_url, {"content-type": "message/rfc822"}, raw)
    [said] = await child.call("hub.capped_child:parse", RawEmail, settings, place, request, seconds=30)
    [here] = RawEmail(settings, place).parse(request)
    assert isinstance(said, InboundMessage)
    assert said == here
    nothing = Request("POST", place.inbound_url, {}, b"hello")
    with pytest.raises(Unparseable, match="no mail"):
        await child.call("hub.capped_child:parse", RawEmail, settings, place, nothing, seconds=30)
