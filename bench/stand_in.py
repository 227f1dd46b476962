"""Slack, Twilio and a marketing tool on loopback, just real enough to take what the hub sends; they run beside the load generator."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from urllib.parse import parse_qs

from bench.traffic import ACCOUNT, NUMBER

MESSAGES = f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json"


class _Exchange(asyncio.Protocol):
    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in
        self._transport: asyncio.Transport
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, rest = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        if len(rest) < length:
            return
        self._buffer = b""
        method, path, _ = head.split(b" ", 2)
        self._stand_in.asked(self, method.decode(), path.decode(), rest)

    def answer(self, status: bytes, body: bytes) -> None:
        self._transport.write(b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)


class StandIn:
    """Counts what it was told. While `open` is false it lets those who send a Twilio message wait."""

    def __init__(self) -> None:
        self.cards = 0
        self.hooks = 0
        self.texts: Counter[str] = Counter()  # of Twilio messages
        self.last = 0.0  # when the last Twilio message was taken
        self.port = 0
        self._waiting: list[tuple[_Exchange, bytes]] | None = None
        self._count, self._expected, self._all_here = 0, 0, asyncio.Event()
        self._server: asyncio.Server | None = None

    def shut(self) -> None:
        """Let whoever sends a Twilio message wait from now on."""
        self._waiting = []

    @property
    def count(self) -> int:
        """Twilio messages taken."""
        return self._count

    def open(self) -> None:
        """Answer those who wait, and everybody else at once again."""
        waiting, self._waiting = self._waiting or [], None
        for exchange, body in waiting:
            self._take(exchange, body)

    async def taken(self, total: int) -> None:
        """Wait until so many Twilio messages have been taken in all."""
        self._expected = total
        self._all_here.clear()
        if self._count < total:
            await self._all_here.wait()

    def asked(self, exchange: _Exchange, method: str, path: str, body: bytes) -> None:
        """Answer one request, sooner or later."""
        if path.startswith("/slack/"):
            self.cards += 1
            exchange.answer(b"200 OK", json.dumps({"ok": True, "channel": "C0SUPPORT", "ts": f"1700000000.{self.cards:06d}"}).encode())
        elif path.startswith(MESSAGES) and method == "GET":
            exchange.answer(b"200 OK", b'{"messages": [], "next_page_uri": null}')  # nothing was missed
        elif path.startswith(MESSAGES):
            if self._waiting is not None:
                self._waiting.append((exchange, body))
            else:
                self._take(exchange, body)
        else:
            self.hooks += 1
            exchange.answer(b"200 OK", b"{}")

    def _take(self, exchange: _Exchange, body: bytes) -> None:
        form = parse_qs(body.decode())
        text = form["Body"][0]
        self.texts[text] += 1
        self.last = time.perf_counter()
        self._count += 1
        if self._count >= self._expected:
            self._all_here.set()
        # The resource as Twilio answers it: https://www.twilio.com/docs/messaging/api/message-resource
        resource = {
            "sid": f"SM{self._count:032x}",
            "account_sid": ACCOUNT,
            "status": "queued",
            "direction": "outbound-api",
            "from": NUMBER,
            "to": form["To"][0],
            "body": text,
            "date_created": "Sun, 22 Nov 2026 12:00:00 +0000",
            "error_code": None,
            "error_message": None,
        }
        exchange.answer(b"201 Created", json.dumps(resource).encode())

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Exchange(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
