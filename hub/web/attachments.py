"""Files of messages, and mails in their own HTML: shown so that nothing in them can run or call home.

A file's type is read from its first bytes, never from its name or what the sender called it. HTML is cleaned and then shown
in a frame that may run nothing, whatever cleaning may have missed.
"""

from __future__ import annotations

import asyncio
import base64
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nh3
from aiohttp import web

from hub.conversations import history
from hub.conversations.files import NONE, NoteFile
from hub.scanning import CLEAN, CannotScan, scan
from hub.storage.blobs import Blobs
from hub.thumbnails import thumbnail
from hub.web.context import HUB, Hub
from hub.web.pages import render

routes = web.RouteTableDef()

MAX_HTML = 256 * 1024  # characters of a mail's HTML that are looked at
# Cleaning is quadratic in how deeply tags nest: 10,000 pairs take 1.2 s, 80,000 (256 KB of <b>) more than a minute.
MAX_TAGS = 10_000
MAX_EMBEDDED = 6_000_000  # bytes of inline images read for one mail
MAX_INLINED = 10_000_000  # characters of them in its page: a mail may show one picture ten thousand times

NO_SCRIPT = "sandbox; default-src 'none'"
# Links in a mail may open, in a page of their own; the mail itself runs nothing, posts nothing and loads nothing.
MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src {images}; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)

MAIL_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Original mail</title><style>
body {{ margin: 16px; background: #fff; color: #1a1d23; font: 14px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }}
img {{ max-width: 100%; height: auto }} table {{ max-width: 100% }} blockquote {{ margin: 0 0 0 1em; color: #555 }}
</style><body>{body}</body></html>"""

# The only types shown inside a page, by their first bytes.
MAGIC: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/webp", re.compile(rb"RIFF....WEBP", re.DOTALL)),
)


def picture_type(head: bytes) -> str:
    """The image type these first bytes are, of the four we show; empty for everything else (SVG, HTML, PDF ...)."""
    return next((type_ for type_, magic in MAGIC if magic.match(head)), "")


def disposition(name: str, how: str = "attachment") -> str:
    """A Content-Disposition header value (RFC 6266): an ASCII name for old readers, RFC 5987 for the rest.

    Control characters and marks that turn or hide letters are dropped, so the header has no line break and the name reads
    the way it is stored.
    """
    visible = "".join(letter for letter in name if unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))
    kept = re.sub(r'[/\\:*?"<>|]', "_", visible).strip(" .")[:150] or "file"
    plain = re.sub(r"[^A-Za-z0-9 ._()+-]", "_", unicodedata.normalize("NFKD", kept).encode("ascii", "ignore").decode()) or "file"
    return f"{how}; filename=\"{plain}\"; filename*=UTF-8''{quote(kept, safe='')}"


async def serve(hub: Hub, attachment_id: str) -> web.StreamResponse:
    """A stored file: an image inline, anything else as a download. Raises 404. The caller has checked who may ask."""
    row = await hub.reader.first(history.file(attachment_id))
    if row is None or row.state != "stored" or not row.sha256:
        raise web.HTTPNotFound(text="There is no such file, or it has not arrived yet.\n")
    path = hub.blobs.path(row.sha256)
    try:
        head = await asyncio.to_thread(_head, path)
    except FileNotFoundError:
        raise web.HTTPNotFound(text="This file is no longer stored.\n") from None
    await check_clean(hub, row)
    picture = picture_type(head)
    return web.FileResponse(
        path,
        headers={
            "Content-Type": picture or "application/octet-stream",
            "Content-Disposition": disposition(row.name, "inline" if picture else "attachment"),
            "Content-Security-Policy": NO_SCRIPT,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, max-age=3600",
        },
    )


async def check_clean(hub: Hub, row: Any) -> None:
    """Let a file be given to nobody in which the scanner finds something, or which it cannot be asked about now. Raises 403, 503."""
    scanner = hub.settings.storage.scanner
    if not scanner:
        return
    verdict = row.scan
    if not verdict:
        try:
            verdict = await scan(scanner, await asyncio.to_thread(hub.blobs.get, row.sha256))
        except FileNotFoundError:
            raise web.HTTPNotFound(text="This file is no longer stored.\n") from None
        except CannotScan as error:
            said = f"This file cannot be checked for viruses now: {error}. It is kept; try again in a moment.\n"
            raise web.HTTPServiceUnavailable(text=said, headers={"Retry-After": "10"}) from error
        await hub.writer.run(NoteFile(row.id, scan=verdict))
    if verdict != CLEAN:
        raise web.HTTPForbidden(text=f"This file is not handed out: the virus scanner found {verdict} in it.\n")


@routes.get(r"/attachments/{attachment_id:[A-Za-z0-9_-]{16,64}}/thumbnail")
async def small(request: web.Request) -> web.StreamResponse:
    """A small picture of an image, made once in a capped process. 404 where none can be made."""
    hub = request.app[HUB]
    row = await hub.reader.first(history.file(request.match_info["attachment_id"]))
    if row is None or row.state != "stored" or not row.sha256 or row.thumbnail == NONE:
        raise web.HTTPNotFound(text="There is no picture of this file.\n")
    await check_clean(hub, row)
    sha256 = row.thumbnail
    if not sha256:
        try:
            data = await asyncio.to_thread(hub.blobs.get, row.sha256)
        except FileNotFoundError:
            raise web.HTTPNotFound(text="This file is no longer stored.\n") from None
        made = await thumbnail(data) if picture_type(data[:16]) else None
        sha256 = await asyncio.to_thread(hub.blobs.put, made) if made is not None else NONE
        await hub.writer.run(NoteFile(row.id, thumbnail=sha256))
        if made is None:
            raise web.HTTPNotFound(text="There is no picture of this file.\n")
    path = hub.blobs.path(sha256)
    headers = {
        "Content-Type": picture_type(await asyncio.to_thread(_head, path)) or "application/octet-stream",
        "Content-Disposition": "inline",
        "Content-Security-Policy": NO_SCRIPT,
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, max-age=86400",
    }
    return web.FileResponse(path, headers=headers)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


@routes.get(r"/attachments/{attachment_id:[A-Za-z0-9_-]{16,64}}")
async def attachment(request: web.Request) -> web.StreamResponse:
    return await serve(request.app[HUB], request.match_info["attachment_id"])


# --- mails as they were written --------------------------------------------------------------------------------------

TAGS = frozenset(
    """a abbr address article aside b bdi bdo blockquote br caption center cite code col colgroup dd del details dfn div dl dt em
    figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark nav ol p pre q rp rt ruby s samp section
    small span strike strong sub summary sup table tbody td tfoot th thead time tr tt u ul var wbr""".split()  # noqa: SIM905  (a list of eighty strings would hide what is missing)
)
# Their content goes with them. None of these, nor svg or math, may ever be allowed: see threats T40 of the sanitiser.
DROPPED = frozenset({"script", "style", "title", "template"})
_SIZES = {"width", "height", "align", "valign", "bgcolor"}
ATTRIBUTES: dict[str, set[str]] = {
    "*": {"style", "dir", "lang", "title", "align"},
    "a": {"href"},
    "img": {"src", "alt", "width", "height", "border"},
    "table": _SIZES | {"border", "cellpadding", "cellspacing"},
    "td": _SIZES | {"colspan", "rowspan"},
    "th": _SIZES | {"colspan", "rowspan"},
    "tr": _SIZES,
    "col": {"span", "width"},
    "colgroup": {"span", "width"},
    "font": {"color", "face", "size"},
    "ol": {"start", "type"},
    "li": {"value"},
}
_TEXT_STYLES = """color background-color font font-family font-size font-style font-weight line-height letter-spacing text-align
    text-decoration text-transform white-space vertical-align direction word-break list-style-type"""
_BOX_STYLES = """width max-width min-width height max-height padding padding-top padding-right padding-bottom padding-left margin
    margin-top margin-right margin-bottom margin-left border border-top border-right border-bottom border-left border-color
    border-style border-width border-collapse border-spacing border-radius display table-layout float clear"""
STYLES = frozenset((_TEXT_STYLES + " " + _BOX_STYLES).split())


@dataclass(frozen=True, slots=True)
class Cleaned:
    html: str
    remote: int  # images on other people's servers, blocked or (where asked for) let through


def clean(html: str, embedded: Mapping[str, str], remote_images: bool) -> Cleaned | None:
    """A mail's HTML made harmless, `cid:` images replaced by `embedded` (Content-ID -> data URL); None if it is too deep to clean."""
    html = html[:MAX_HTML]
    if html.count("<") > MAX_TAGS:
        return None
    remote, room = 0, MAX_INLINED

    def keep(tag: str, attribute: str, value: str) -> str | None:
        nonlocal remote, room
        if attribute not in ("href", "src"):
            return value
        scheme, _, rest = value.strip().partition(":")
        if tag == "a":
            return value if scheme.lower() in ("http", "https", "mailto", "tel") else None
        if scheme.lower() == "cid":
            url = embedded.get(rest.strip("<> "))
            if url is None or len(url) > room:
                return None
            room -= len(url)
            return url
        if scheme.lower() in ("http", "https"):  # img has no other source here: a sender's own data: URL is dropped
            remote += 1
            return value if remote_images else None
        return None

    cleaned = nh3.clean(
        html,
        tags=set(TAGS),
        clean_content_tags=set(DROPPED),
        attributes=ATTRIBUTES,
        attribute_filter=keep,
        url_schemes={"http", "https", "mailto", "tel", "cid", "data"},
        url_relative="deny",
        set_tag_attribute_values={"a": {"target": "_blank"}},
        filter_style_properties=set(STYLES),
        link_rel="noopener noreferrer nofollow",
    )
    return Cleaned(cleaned, remote)


def _embedded(files: Sequence[Any], blobs: Blobs) -> dict[str, str]:
    """The mail's own inline images as data URLs: a frame that may run nothing has no session to fetch them with."""
    found: dict[str, str] = {}
    left = MAX_EMBEDDED
    for row in files:
        if row.size > left:
            continue
        try:
            data = blobs.get(row.sha256)
        except FileNotFoundError:
            continue
        picture = picture_type(data[:16])
        if picture:
            left -= len(data)
            found[row.content_id] = f"data:{picture};base64,{base64.b64encode(data).decode()}"
    return found


def _id(request: web.Request) -> int:
    return int(request.match_info["message_id"])


@routes.get(r"/messages/{message_id:[0-9]{1,17}}/original")
async def original(request: web.Request) -> web.StreamResponse:
    """What `Show original mail` opens: the frame, and a button for remote images where there are any."""
    row = await request.app[HUB].reader.first(history.original(_id(request), MAX_HTML))
    if row is None or not row.html:
        raise web.HTTPNotFound(text="There is no such mail.\n")
    shown = await asyncio.to_thread(clean, row.html, {}, False)
    return render(
        request,
        "inbox/original.html",
        message_id=row.id,
        remote=shown.remote if shown else 0,
        too_deep=shown is None,
        cut=bool(row.cut),
        images=request.query.get("images") == "1",
    )


def _mail_page(html: str, files: Sequence[Any], blobs: Blobs, remote: bool) -> bytes:
    """The page in the frame. Reads files and works for up to a second: not in the loop that answers everybody."""
    shown = clean(html, _embedded(files, blobs), remote)
    # The one place where markup that is not ours reaches a page: cleaned, and under a policy that lets nothing in it run.
    body = shown.html if shown is not None else "<p>This mail nests its elements too deeply to be shown. Read its text instead.</p>"
    return MAIL_PAGE.format(body=body).encode("utf-8", "replace")


@routes.get(r"/messages/{message_id:[0-9]{1,17}}/html")
async def mail(request: web.Request) -> web.StreamResponse:
    """A mail's own HTML, for the frame; `?images=1` lets remote images load, which tells their servers that it was opened."""
    hub = request.app[HUB]
    row = await hub.reader.first(history.original(_id(request), MAX_HTML))
    if row is None or not row.html:
        raise web.HTTPNotFound(text="There is no such mail.\n")
    remote = request.query.get("images") == "1"
    files = await hub.reader.all(history.inline_files(row.id))
    return web.Response(
        body=await asyncio.to_thread(_mail_page, row.html, files, hub.blobs, remote),
        content_type="text/html",
        charset="utf-8",
        headers={
            "Content-Security-Policy": MAIL_POLICY.format(images="data: https: http:" if remote else "data:"),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        },
    )


@routes.get(r"/messages/{message_id:[0-9]{1,17}}/text")
async def whole_text(request: web.Request) -> web.StreamResponse:
    """A message's whole text, where the timeline shows only its beginning."""
    row = await request.app[HUB].reader.first(history.original(_id(request), 0))
    if row is None:
        raise web.HTTPNotFound(text="There is no such message.\n")
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": NO_SCRIPT}
    return web.Response(text=row.text, content_type="text/plain", headers=headers)


def add_routes(app: web.Application) -> None:
    app.add_routes(routes)
