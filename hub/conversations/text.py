"""Text as every engine can hold it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, TypeVar

from hub.contract import Attachment, Inbound

# PostgreSQL's text holds no NUL, and no database holds half of a surrogate pair; JSON and mail can spell both.
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_TEXTS = (
    *("provider_key", "text", "html", "subject", "sender_name", "message_id", "in_reply_to", "doubt", "error", "provider_message_id"),
    *("reply_text", "external_id", "quoted_id", "about", "words", "recipient", "mail_id"),
)

Said = TypeVar("Said", bound=Inbound)


def storable(text: str) -> str:
    """The same text, with U+FFFD where it holds a character that no engine can store."""
    return _UNSTORABLE.sub("\ufffd", text) if not text.isascii() or "\x00" in text else text


def _storable_file(file: Attachment) -> Attachment:
    words = [storable(text) for text in (file.name, file.content_type, file.url, file.content_id)]
    return replace(file, name=words[0], content_type=words[1], url=words[2], content_id=words[3])


def storable_inbound(said: Said) -> Said:
    """The same thing said, every text of it storable."""
    changed: dict[str, Any] = {}
    for name in _TEXTS:
        value = getattr(said, name, "")
        if isinstance(value, str) and (clean := storable(value)) != value:
            changed[name] = clean
    references: tuple[str, ...] = getattr(said, "references", ())
    if any(map(_UNSTORABLE.search, references)):
        changed["references"] = tuple(map(storable, references))
    files: tuple[Attachment, ...] = getattr(said, "attachments", ())
    if any(_UNSTORABLE.search(text) for file in files for text in (file.name, file.content_type, file.url, file.content_id)):
        changed["attachments"] = tuple(_storable_file(file) for file in files)
    return replace(said, **changed) if changed else said
