"""Slack and a marketing tool on loopback, just real enough to take what the hub sends; they run beside the load generator."""

from __future__ import annotations

import asyncio
import json


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
        body = self._stand_in.answer(head.split(b" ", 2)[1].decode())
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


class StandIn:
    """Counts what it was told."""

    def __init__(self) -> None:
        self.cards = 0
        self.hooks = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    def answer(self, path: str) -> bytes:
        if path.startswith("/slack/"):
            self.cards += 1
            return json.dumps({"ok": True, "channel": "C0SUPPORT", "ts": f"1700000000.{self.cards:06d}"}).encode()
        self.hooks += 1
        return b"{}"

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Exchange(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
