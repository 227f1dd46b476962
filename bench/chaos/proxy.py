"""A TCP proxy on loopback that can fall silent or cut, in the middle of what it carries."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

CHUNK = 65_536


class Proxy:
    """Carries connections from a port of its own to a target."""

    def __init__(self, target_port: int, host: str = "127.0.0.1") -> None:
        self.target_port = target_port
        self.port = 0
        self._host = host
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        # Asked for each piece sent towards the target (True) or back (False); True means: pass nothing more, cut now.
        self.cut_at: Callable[[bool, bytes], bool] = lambda forth, piece: False
        self.cuts = 0

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._accept, self._host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.silent(False)
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def silent(self, yes: bool = True) -> None:
        """Hold back everything, in both directions; connections stay open and new ones are taken."""
        (self._flowing.clear if yes else self._flowing.set)()

    def refuse(self, yes: bool = True) -> None:
        """Take new connections only to cut them, and cut those that are open."""
        self._refusing = yes
        if yes:
            self.cut()

    def cut(self) -> None:
        """Cut every connection, with a reset."""
        for writer in tuple(self._open):
            writer.transport.abort()
        self._open.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            onward = await asyncio.open_connection(self._host, self.target_port)
        except OSError:
            writer.transport.abort()
            return
        ends = (writer, onward[1])
        self._open.update(ends)
        for source, sink, forth in ((reader, onward[1], True), (onward[0], writer, False)):
            task = asyncio.create_task(self._carry(source, sink, ends, forth))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, ends: tuple[asyncio.StreamWriter, ...], forth: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(CHUNK):
                await self._flowing.wait()
                if self.cut_at(forth, piece):
                    self.cuts += 1
                    break
                sink.write(piece)
                await sink.drain()
        for writer in ends:
            self._open.discard(writer)
            if not writer.transport.is_closing():
                writer.transport.abort()
