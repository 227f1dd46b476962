"""Outlook's `winmail.dat` (TNEF): the files in it, taken out by their lengths alone.

The format is a row of records, each with its length before it ([MS-OXTNEF] 2.1.3,
https://learn.microsoft.com/openspecs/exchange_server_protocols/ms-oxtnef), so one pass reads it; the compressed text of the
mail is left alone. Whatever does not fit ends the reading: what was found until then is kept, and the file itself always is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from connectors.shared.mail_headers import decode_text

SIGNATURE = 0x223E9F78
MOST_FILES = 50
_CODE_PAGE, _BEGINS, _TITLE, _DATA, _PROPERTIES = 0x00069007, 0x00069002, 0x00018010, 0x0006800F, 0x00069005
_ATTACHMENT = 2  # level of a record that belongs to a file


@dataclass(frozen=True, slots=True)
class Inside:
    """A file within: its name as it stands there, not yet made safe, and its bytes."""

    name: str
    data: bytes


def files_inside(data: bytes) -> list[Inside]:
    """The files in a TNEF stream; empty where it is none. Never raises."""
    if len(data) < 6 or struct.unpack_from("<I", data)[0] != SIGNATURE:
        return []
    found: list[Inside] = []
    charset, at = "", 6
    while at + 9 <= len(data) and len(found) < MOST_FILES:
        level, record, length = struct.unpack_from("<BII", data, at)
        start, at = at + 9, at + 9 + length + 2  # a checksum of two bytes follows
        if start + length > len(data):
            break
        if record == _CODE_PAGE and length >= 4:
            charset = f"cp{struct.unpack_from('<I', data, start)[0]}"
        elif level == _ATTACHMENT and record == _BEGINS:
            found.append(Inside("", b""))
        elif level == _ATTACHMENT and found and record == _TITLE:
            name = decode_text(data[start : start + min(length, 1_000)].partition(b"\x00")[0], charset)
            found[-1] = Inside(found[-1].name or name, found[-1].data)
        elif level == _ATTACHMENT and found and record == _DATA:
            found[-1] = Inside(found[-1].name, data[start : start + length])
        elif level == _ATTACHMENT and found and record == _PROPERTIES:
            found[-1] = Inside(_long_name(data[start : start + length]) or found[-1].name, found[-1].data)
    return [file for file in found if file.data]


def _long_name(properties: bytes) -> str:
    """The long file name (PidTagAttachLongFilename, 0x3707) among a file's MAPI properties, where it is told as Unicode text.

    The properties are not walked: their lengths differ by type. Its tag, one value and a sane length are looked for instead.
    """
    tag = struct.pack("<HHI", 0x001F, 0x3707, 1)
    at = properties.find(tag)
    if at < 0 or at + 12 > len(properties):
        return ""
    length = struct.unpack_from("<I", properties, at + 8)[0]
    if not 2 <= length <= 1_000 or at + 12 + length > len(properties):
        return ""
    return properties[at + 12 : at + 12 + length].decode("utf-16-le", "replace").rstrip("\x00")
