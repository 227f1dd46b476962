"""Work on what strangers sent, in a process of its own: capped in memory and time, so that nothing in it can take the hub down.

One child does one thing at a time and stays for the next; one that is too slow, or that died, is replaced. It is started when first
needed and costs nothing before.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
from typing import Any

from hub.capped_child import LENGTH

MEGABYTES = 1_024  # of address space: a mail of 40 MB needs about 400


class TooMuch(Exception):
    """It took longer than it was given, or more memory, or it ended the process it ran in. The text says which."""


class CappedChild:
    """A process that calls functions by name. `megabytes` caps its address space."""

    def __init__(self, megabytes: int = MEGABYTES) -> None:
        self._megabytes = megabytes
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def call(self, name: str, *arguments: Any, seconds: float) -> Any:
        """What the function `module:name` returns. Raises what it raises, or TooMuch.

        The seconds count from when it is this call's turn; whoever waits does so at most three times as long."""
        try:
            async with asyncio.timeout(3 * seconds):
                await self._turn.acquire()
        except TimeoutError:
            raise TooMuch("others wait to be read, too") from None
        try:
            return await self._ask(name, arguments, seconds)
        finally:
            self._turn.release()

    async def _ask(self, name: str, arguments: tuple[Any, ...], seconds: float) -> Any:
        told = await asyncio.to_thread(pickle.dumps, (name, arguments))
        process = await self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                process.stdin.write(LENGTH.pack(len(told)) + told)
                await process.stdin.drain()
                (size,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
                answer = await process.stdout.readexactly(size)
        except TimeoutError:
            await self._end()
            raise TooMuch(f"it takes longer than {seconds:g} s") from None
        except (asyncio.IncompleteReadError, OSError):
            await self._end()
            raise TooMuch("it ended the process that read it") from None
        except asyncio.CancelledError:
            await self._end()  # its answer must not be taken for the next one's
            raise
        outcome, value = await asyncio.to_thread(pickle.loads, answer)
        if outcome == "done":
            return value
        if isinstance(value, MemoryError):
            await self._end()
            raise TooMuch(f"it needs more than {self._megabytes} MB of memory")
        raise value

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "hub.capped_child", str(self._megabytes)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1_048_576,
            )
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()

    async def close(self) -> None:
        """End the child."""
        await self._end()
