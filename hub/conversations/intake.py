"""Before anything is ingested: the files that came with it are stored, and its reply token is checked."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from hub.contract import Attachment, Inbound, InboundMessage
from hub.conversations.ingest import Item, StoredFile, item
from hub.conversations.text import storable_inbound
from hub.policy import Policy
from hub.storage.blobs import Blobs

TokenNames = Callable[[str], tuple[int, int] | None]


async def prepare(said: Inbound, trusted: bool, policy: Policy, blobs: Blobs, token_names: TokenNames) -> Item:
    """What ingest takes, its files synced to disk. `token_names` is what a reply token of ours names, None for any other.

    Raises NoSender, or OSError where the disk takes nothing."""
    said = storable_inbound(said)
    if not isinstance(said, InboundMessage) or not (said.attachments or said.reply_token):
        return item(said, trusted, policy=policy)
    files = tuple([await _store(blobs, attachment) for attachment in said.attachments])
    return item(said, trusted, files, token_names(said.reply_token) if said.reply_token else None, policy)


async def _store(blobs: Blobs, attachment: Attachment) -> StoredFile:
    sha256 = await asyncio.to_thread(blobs.put, attachment.data) if attachment.data is not None else ""
    return StoredFile(
        secrets.token_hex(16),
        attachment.name,
        attachment.content_type,
        len(attachment.data or b""),
        sha256,
        attachment.content_id,
        attachment.inline,
        attachment.url,
    )
