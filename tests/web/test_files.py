"""Files as they are handed out: small pictures made where nothing can be harmed, and nothing a scanner finds something in."""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from PIL import Image

from hub.app import Running
from hub.config import Settings
from hub.scanning import CannotScan, scan
from hub.thumbnails import EDGE, make, thumbnail
from tests.web.test_channels_doors import Office, http  # noqa: F401 (a fixture)

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR" + b"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


def picture(format_: str = "PNG", size: tuple[int, int] = (1_600, 800), mode: str = "RGB", **more: Any) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, "red" if mode == "RGB" else None).save(out, format_, **more)
    return out.getvalue()


@pytest.mark.parametrize(
    ("format_", "mode"), [("PNG", "RGB"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("GIF", "P"), ("PNG", "RGBA"), ("PNG", "LA")]
)
def test_a_thumbnail_is_small_and_says_nothing_of_where_it_was_taken(format_: str, mode: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    exif[0x0112] = 6  # lying on its side
    made = Image.open(
        io.BytesIO(make(picture(format_, mode=mode, **({"exif": exif, "comment": b"52.5N 13.4E"} if format_ == "JPEG" else {}))))
    )
    assert max(made.size) == EDGE
    assert (made.size[0] < made.size[1]) is (format_ == "JPEG"), "upright"
    assert not made.getexif()
    assert "comment" not in made.info


@pytest.mark.parametrize(
    "data",
    [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 100, picture()[:200], b"<svg xmlns='http://www.w3.org/2000/svg'/>"],
)
async def test_of_what_is_no_image_there_is_no_thumbnail_and_the_next_one_is_made(data: bytes) -> None:
    assert await thumbnail(data) is None


async def test_a_bomb_costs_no_more_than_its_picture() -> None:
    """40,000 x 40,000 pixels of one colour: 200 KB on the wire, 1.6 GB in memory."""
    assert await thumbnail(picture(size=(40_000, 40_000), mode="1")) is None
    made = await thumbnail(picture())
    assert made is not None
    assert made.startswith(b"\xff\xd8\xff")


# --- a scanner, as clamd speaks ----------------------------------------------------------------------------------------


@pytest.fixture
async def clamd() -> AsyncIterator[tuple[str, list[bytes]]]:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(10) == b"zINSTREAM\0"
        data = b""
        while size := struct.unpack(">I", await reader.readexactly(4))[0]:
            data += await reader.readexactly(size)
        seen.append(data)
        answer = (
            b"stream: Eicar-Test-Signature FOUND"
            if EICAR in data
            else b"INSTREAM size limit exceeded. ERROR"
            if data == b"huge"
            else b"stream: OK"
        )
        writer.write(answer + b"\0")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    server.close()
    await server.wait_closed()


async def test_a_scanners_verdict_is_what_it_says_and_no_answer_is_no_verdict(clamd: tuple[str, list[bytes]]) -> None:
    address, seen = clamd
    assert await scan(address, b"x" * 200_000) == "clean"
    assert await scan(address, EICAR) == "Eicar-Test-Signature"
    assert seen == [b"x" * 200_000, EICAR]
    with pytest.raises(CannotScan, match="size limit"):
        await scan(address, b"huge")
    with pytest.raises(CannotScan, match="does not answer"):
        await scan("tcp://127.0.0.1:9", b"x")


async def stored(office: Office, name: str, data: bytes) -> str:
    """A file that a customer mailed: its address."""
    sandbox = office.running.sandbox
    assert sandbox is not None
    from email.message import EmailMessage

    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "ada@example.com", "support@shop.example", name
    mail.set_content("See the file.")
    mail.add_attachment(data, maintype="application", subtype="octet-stream", filename=name)
    await office.mail(mail.as_bytes())
    return "/attachments/" + next(id_ for id_, found in await office.rows("attachment", "id", "name") if found == name)


async def signed_in(running: Running, session: Any) -> Office:
    office = Office(running, session)
    await office.sign_in()
    return office


async def test_a_picture_has_a_thumbnail_made_once_and_another_file_has_none(running: Running, http: Any) -> None:  # noqa: F811
    office = await signed_in(running, http)
    where = await stored(office, "shot.png", picture())
    status, first = await office.get(f"{where}/thumbnail")
    assert (status, first[:3]) == (200, b"\xff\xd8\xff")
    assert (await office.get(f"{where}/thumbnail")) == (200, first)
    [(digest,)] = await office.rows("attachment", "thumbnail")
    assert len(digest) == 64
    where = await stored(office, "list.csv", b"a,b\n")
    assert (await office.get(f"{where}/thumbnail"))[0] == 404
    assert sorted(await office.rows("attachment", "thumbnail")) == [("-",), (digest,)]


async def test_nothing_is_handed_out_that_the_scanner_finds_something_in_or_cannot_look_at(
    settings: Settings,
    clamd: tuple[str, list[bytes]],
    http: Any,  # noqa: F811
) -> None:
    address, seen = clamd
    for scanner, clean, found in ((address, 200, 403), ("tcp://127.0.0.1:9", 503, 403)):
        own = settings.model_copy(update={"storage": settings.storage.model_copy(update={"scanner": scanner})})
        hub = Running(own)
        await hub.start()
        try:
            office = await signed_in(hub, http) if scanner == address else Office(hub, http)
            if scanner == address:
                office_headers = office.as_agent
                harmless, eicar = await stored(office, "list.csv", b"a,b\n"), await stored(office, "bill.pdf", EICAR)
                later = await stored(office, "later.csv", b"c,d\n")
            office.as_agent = office_headers
            assert (await office.get(harmless))[0] == 200, "its verdict is kept"
            status, said = await office.get(eicar)
            assert (status, b"Eicar-Test-Signature" in said) == (found, True)
            if scanner != address:
                assert (await office.get(later))[0] == clean, "no verdict, no file"
        finally:
            await hub.stop()
    assert len(seen) == 2
