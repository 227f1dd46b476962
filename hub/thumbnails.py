"""Small pictures of what customers send, made in a process of its own: an image library reads bytes that strangers chose.

The child reads the image from standard input and writes a JPEG or PNG to standard output, nothing else: what it says is bytes and never
an object. It has little memory and time, so neither a decompression bomb nor a fault in a decoder costs more than the picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
EDGE = 640  # pixels
MEGABYTES = 512  # of address space in the child
SECONDS = 10.0
MAX_INPUT = 25_000_000  # bytes
MAX_OUTPUT = 2_000_000
MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "GIF", "WEBP")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_TURN = asyncio.Semaphore(2)


async def thumbnail(data: bytes) -> bytes | None:
    """A picture of at most EDGE pixels, upright and without what the camera noted; None where none can be made of it."""
    if len(data) > MAX_INPUT:
        return None
    async with _TURN:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "hub.thumbnails"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},  # none of the hub's secrets
            cwd=ROOT,
        )
        try:
            async with asyncio.timeout(SECONDS):
                made = await _made(process, data)
        except (TimeoutError, ConnectionError):
            made = b""
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
    return made if process.returncode == 0 and made.startswith(_MAGIC) and len(made) <= MAX_OUTPUT else None


async def _made(process: asyncio.subprocess.Process, data: bytes) -> bytes:
    """What the child writes, and one byte too many at the most: it may be anybody's by now."""
    if process.stdin is None or process.stdout is None:
        return b""
    process.stdin.write(data)
    process.stdin.write_eof()
    made = b""
    while len(made) <= MAX_OUTPUT and (more := await process.stdout.read(MAX_OUTPUT + 1 - len(made))):
        made += more
    if len(made) <= MAX_OUTPUT:
        await process.wait()
    return made


def make(data: bytes) -> bytes:
    """The thumbnail of an image. Raises whatever the library does, and ValueError for what is too large."""
    import io

    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError("too many pixels")
        image.draft("RGB", (EDGE, EDGE))  # a large JPEG is decoded small at once
        upright = ImageOps.exif_transpose(image)
        clear = upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info
        small = upright.convert("RGBA" if clear else "RGB")
        small.thumbnail((EDGE, EDGE))
        small.info.clear()  # comments and colour profiles would be written again
        out = io.BytesIO()
        if clear:
            small.save(out, "PNG", optimize=True)
        else:
            small.save(out, "JPEG", quality=80)
        return out.getvalue()


def main() -> None:
    import resource

    size = MEGABYTES * 1_048_576
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS), int(SECONDS) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        made = make(sys.stdin.buffer.read())
    except Exception:
        sys.exit(1)
    sys.stdout.buffer.write(made)


if __name__ == "__main__":
    main()
