"""Mails signed for tests by the reference library with keys made here, and a name server on loopback that serves the keys."""

from __future__ import annotations

import asyncio
import base64
import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import dkim
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

MAIL = b"""From: Ada Okafor <ada@shop.example>
To: support@hub.example
Subject: My parcel
Date: Sun, 22 Nov 2026 10:00:00 +0000
Message-ID: <1@shop.example>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

Where is  it? \t
It should have come on Friday.


""".replace(b"\n", b"\r\n")


def numbered(number: int) -> bytes:
    """The mail under another Message-ID: another mail."""
    return MAIL.replace(b"<1@", b"<%d@" % number)


@functools.cache
def keys(number: int = 0, bits: int = 2_048) -> tuple[bytes, str]:
    """The `number`th key pair of this run: the private half as PEM, the public half as a key record has it."""
    private = rsa.generate_private_key(65_537, bits)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return pem, base64.b64encode(der).decode()


def record(number: int = 0, tags: str = "v=DKIM1; k=rsa; ") -> bytes:
    """A key record for a TXT answer."""
    return f"{tags}p={keys(number)[1]}".encode()


def signed(
    mail: bytes = MAIL,
    domain: str = "shop.example",
    selector: str = "s1",
    *,
    key: int = 0,
    length: bool = False,
    headers: Sequence[str] | None = None,
    canonical: tuple[bytes, bytes] = (b"relaxed", b"relaxed"),
    algorithm: bytes = b"rsa-sha256",
    identity: str | None = None,
) -> bytes:
    """The mail with a signature on top."""
    signature = dkim.DKIM(mail, signature_algorithm=algorithm).sign(
        selector.encode(),
        domain.encode(),
        keys(key)[0],
        identity=identity.encode() if identity is not None else None,
        canonicalize=canonical,
        include_headers=[name.encode() for name in headers] if headers is not None else None,
        length=length,
    )
    return bytes(signature) + mail


class NameServer(asyncio.DatagramProtocol):
    """Answers TXT questions from `records`; `down` answers nothing, `failing` answers SERVFAIL."""

    def __init__(self) -> None:
        self.records: dict[str, list[bytes]] = {}
        self.down = False
        self.failing = False
        self.asked: list[str] = []
        self.address = ""
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = dns.message.from_wire(data)
        name = question.question[0].name.to_text(omit_final_dot=True)
        self.asked.append(name)
        if self.down:
            return
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        texts = self.records.get(name)
        if self.failing:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif texts is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif texts:
            rows = [" ".join(f'"{text[at : at + 255].decode()}"' for at in range(0, len(text), 255)) for text in texts]
            answer.answer.append(
                dns.rrset.from_text(question.question[0].name, 60, "IN", "TXT", *[row.replace(";", "\\;") for row in rows])
            )
        self._transport.sendto(answer.to_wire(max_size=65_000), addr)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """A name server on a loopback port of its own."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()
