"""What the DNS says, and what it means that it says nothing: asked of a real name server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from hub import dns
from hub.contract import TryLater
from hub.dns import Resolver, host_and_port
from tests.signed_mail import NameServer, name_server


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NameServer]:
    monkeypatch.setattr(dns, "ONE_TRY", 0.05)
    monkeypatch.setattr(dns, "SECONDS", 0.2)
    async with name_server() as started:
        yield started


async def test_a_record_comes_in_one_piece_however_it_was_cut(server: NameServer) -> None:
    long = b"v=DKIM1; p=" + b"A" * 900
    server.records = {"s1._domainkey.shop.example": [long, b"v=spf1 -all"]}
    found = await Resolver([server.address]).txt("s1._domainkey.shop.example")
    assert sorted(found) == sorted([long, b"v=spf1 -all"])


async def test_what_is_not_there_is_no_record_and_no_fault(server: NameServer) -> None:
    server.records = {"empty.example": []}
    resolver = Resolver([server.address])
    assert await resolver.txt("nowhere.example") == []
    assert await resolver.txt("empty.example") == []


@pytest.mark.parametrize("name", ["a..example", "x" * 64 + ".example", ".".join(["x" * 60] * 5)], ids=["empty", "long label", "long"])
async def test_what_is_no_name_has_no_record(name: str, server: NameServer) -> None:
    assert await Resolver([server.address]).txt(name) == []
    assert server.asked == []


@pytest.mark.parametrize("how", ["down", "failing"])
async def test_where_nobody_could_say_it_is_asked_again_later(how: str, server: NameServer) -> None:
    server.records = {"s1._domainkey.shop.example": [b"v=DKIM1; p=x"]}
    setattr(server, how, True)
    resolver = Resolver([server.address])
    with pytest.raises(TryLater, match=r"s1\._domainkey\.shop\.example"):
        await resolver.txt("s1._domainkey.shop.example")
    setattr(server, how, False)
    assert await resolver.txt("s1._domainkey.shop.example") == [b"v=DKIM1; p=x"], "a failure is not remembered"


async def test_an_answer_is_remembered_for_as_long_as_it_says(server: NameServer) -> None:
    server.records = {"a.example": [b"x"]}
    resolver = Resolver([server.address])
    assert await resolver.txt("a.example") == await resolver.txt("a.example") == [b"x"]
    assert server.asked == ["a.example"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
        ("[::1]", ("::1", 53)),
    ],
)
def test_a_name_server_is_an_address_and_perhaps_a_port(text: str, expected: tuple[str, int]) -> None:
    assert host_and_port(text) == expected


@pytest.mark.parametrize("text", ["", "dns.example", "192.0.2.1:", "192.0.2.1:x", "192.0.2.1:0", "192.0.2.1:70000", "https://192.0.2.1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="name server"):
        host_and_port(text)
