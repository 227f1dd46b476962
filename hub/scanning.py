"""Files looked at by ClamAV before anybody is given them, where one is configured (`storage.scanner`).

clamd's INSTREAM command: chunks, each with its length in four bytes, ended by an empty one
(https://docs.clamav.net/manual/Usage/Scanning.html#clamd, man clamd). A scanner that cannot be asked is no reason to hand the file out.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from urllib.parse import urlsplit

CHUNK = 64 * 1024
SECONDS = 30.0
CLEAN = "clean"


class CannotScan(Exception):
    """The scanner gave no verdict; nothing is known of the file."""


async def scan(address: str, data: bytes) -> str:
    """`clean`, or the name of what was found. `address` is tcp://host:3310 or unix:/path. Raises CannotScan."""
    try:
        async with asyncio.timeout(SECONDS):
            return await _ask(address, data)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise CannotScan(f"the virus scanner does not answer ({type(error).__name__})") from error


async def _ask(address: str, data: bytes) -> str:
    if address.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
    else:
        parts = urlsplit(address)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 3310)
    try:
        writer.write(b"zINSTREAM\0")
        for at in range(0, len(data), CHUNK):
            chunk = data[at : at + CHUNK]
            writer.write(struct.pack(">I", len(chunk)) + chunk)
            await writer.drain()
        writer.write(struct.pack(">I", 0))
        await writer.drain()
        told = (await reader.readuntil(b"\0")).rstrip(b"\0").decode("utf-8", "replace").strip()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    said = told.removeprefix("stream:").strip()
    if said == "OK":
        return CLEAN
    if said.endswith(" FOUND"):
        return said.removesuffix(" FOUND")[:200]
    raise CannotScan(f"the virus scanner says: {told[:200]}")
