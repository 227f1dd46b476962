"""multipart/form-data out of a whole body: raw bytes in any charset, capped in parts and size, linear in the input.

aiohttp's own reader is asynchronous and decodes as it goes; a signed body is here already, and a mail's fields each have
their own charset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from connectors.shared.mail_headers import decode_text
from hub.contract import Unparseable

MAX_PARTS = 400  # two hundred attachments and every field SendGrid names
MAX_BYTES = 40_000_000  # SendGrid takes 30 MB in all
MAX_PART_HEADER = 8_000

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"\r\n]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
# A browser's rule (WHATWG): the name ends at the next quote and a backslash is just a backslash. SendGrid does the same.
_PARAMETER = re.compile(rb'[;\s](name|filename)="([^"\r\n]*)"', re.IGNORECASE)
_CONTENT_TYPE = re.compile(rb"^content-type:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_DISPOSITION = re.compile(rb"^content-disposition:[ \t]*form-data([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Part:
    """One field of the form; `filename` is None for a plain field."""

    name: str
    data: bytes
    filename: str | None = None
    content_type: str = ""


def read_form(body: bytes, content_type: str) -> list[Part]:
    """The parts of a multipart/form-data body (RFC 7578), in order. Raises Unparseable, saying what is wrong."""
    if not content_type.lower().startswith("multipart/form-data"):
        raise Unparseable(f"expected multipart/form-data, got {content_type[:80]!r}")
    if len(body) > MAX_BYTES:
        raise Unparseable(f"the form has {len(body)} bytes, more than {MAX_BYTES}")
    match = _BOUNDARY.search(content_type[:1000])
    if match is None:
        raise Unparseable("the multipart content type names no boundary")
    delimiter = b"\r\n--" + (match[1] or match[2]).encode("utf-8", "replace")
    if body.startswith(delimiter[2:]):
        at = len(delimiter) - 2
    else:
        found = body.find(delimiter)
        if found < 0:
            raise Unparseable("the form's boundary does not occur in its body")
        at = found + len(delimiter)
    parts: list[Part] = []
    while True:
        line_end = body.find(b"\r\n", at)
        after = body[at : at + 2]
        if after == b"--":
            return parts
        if line_end < 0 or body[at:line_end].strip(b" \t"):
            raise Unparseable("the form is broken after a boundary")
        end = body.find(delimiter, line_end)
        if end < 0:
            raise Unparseable(f"the form is cut off in part {len(parts) + 1}")
        if len(parts) == MAX_PARTS:
            raise Unparseable(f"the form has more than {MAX_PARTS} parts")
        parts.append(_part(body, line_end, end))
        at = end + len(delimiter)


def _part(body: bytes, start: int, end: int) -> Part:
    """The part between the line break at `start` that ends its boundary line and the next delimiter at `end`."""
    head_end = body.find(b"\r\n\r\n", start, min(end, start + MAX_PART_HEADER) + 2)
    if head_end < 0:
        raise Unparseable("a part of the form has no end to its headers")
    head = body[start + 2 : head_end + 2]
    disposition = _DISPOSITION.search(head)
    named = {key.lower(): value for key, value in _PARAMETER.findall(disposition[1])} if disposition else {}
    if b"name" not in named:
        raise Unparseable("a part of the form has no name")
    kind = _CONTENT_TYPE.search(head)
    filename = named.get(b"filename")
    return Part(
        name=decode_text(named[b"name"])[:200],
        data=body[head_end + 4 : end],
        filename=None if filename is None else decode_text(filename),
        content_type=decode_text(kind[1]).strip() if kind else "",
    )
