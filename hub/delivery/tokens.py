"""Tokens that travel with what we send: the reply address of a mail, the short-lived link to a file, a one-time code."""

from __future__ import annotations

import hashlib
import hmac

from hub.keys import derive, signed, unsigned


def reply_token(secret: bytes, ticket_id: int, identifier_id: int) -> str:
    """Names the ticket and the recipient. It opens nothing by itself: the sender must be that recipient's customer too."""
    return signed(derive(secret, "reply"), f"{ticket_id}.{identifier_id}")


def reply_token_names(secret: bytes, token: str) -> tuple[int, int] | None:
    """The ticket and identifier a reply token names, or None if we did not sign it."""
    payload = unsigned(derive(secret, "reply"), token)
    if payload is None:
        return None
    ticket_id, _, identifier_id = payload.partition(".")
    return int(ticket_id), int(identifier_id)


def file_token(secret: bytes, attachment_id: str, until: int) -> str:
    """Lets whoever holds it fetch one file until a time (unix seconds): providers fetch outgoing media this way."""
    return signed(derive(secret, "file"), f"{attachment_id}.{until}")


def file_token_names(secret: bytes, token: str, now: float) -> str | None:
    """The attachment a file token names, or None if it is not ours or has run out."""
    payload = unsigned(derive(secret, "file"), token)
    if payload is None:
        return None
    attachment_id, _, until = payload.partition(".")
    return attachment_id if now < int(until) else None


CODE_DIGITS = 6


def one_time_code(secret: bytes, code_id: str) -> str:
    """The code of a request for one, by its random id: six digits that nobody can work out without our secret, and no row holds."""
    number = int.from_bytes(hmac.digest(derive(secret, "one-time code"), code_id.encode(), hashlib.sha256))
    return str(number % 10**CODE_DIGITS).zfill(CODE_DIGITS)
