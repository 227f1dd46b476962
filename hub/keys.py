"""Keys of our own: one secret in, one key a purpose out, and the short signed tokens made with them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

SECRET_BYTES = 32
TOKEN_BYTES = 16  # 128 bits of signature: not guessable, short enough for the local part of an address


class BadSecret(ValueError):
    """The file of the installation's secret holds none. Nothing was changed."""


def load_secret(path: Path) -> bytes:
    """The installation's secret, made on first use and readable by its owner alone.

    Raises BadSecret for a file that holds none: with a key made of nothing anybody could sign our tokens.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".secret-")  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another process was first: its secret counts
                os.link(partial, path)
        finally:
            Path(partial).unlink()
    try:
        secret = base64.urlsafe_b64decode(path.read_bytes())
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise BadSecret(
            f"storage.secret_file: {path} holds no secret of ours. Nothing was changed: put its backup in place, or remove it and a new "
            "one is made (then links in mails already sent no longer find their ticket, and chat visitors begin anew)."
        )
    return secret


def derive(secret: bytes, purpose: str) -> bytes:
    """A key for one purpose, so that a token made for one can never serve another."""
    return hmac.digest(secret, purpose.encode(), hashlib.sha256)


def signed(key: bytes, payload: str) -> str:
    """`payload.signature`, lower case and safe in a URL or in the local part of a mail address."""
    mac = hmac.digest(key, payload.encode(), hashlib.sha256)[:TOKEN_BYTES]
    return f"{payload}.{base64.b32encode(mac).decode().rstrip('=').lower()}"


def unsigned(key: bytes, token: str) -> str | None:
    """The payload of a token we signed, or None. Case is ignored: mail servers fold local parts."""
    payload, _, _ = token.lower().rpartition(".")
    return payload if payload and hmac.compare_digest(signed(key, payload).encode(), token.lower().encode()) else None


def digest(token: str) -> str:
    """What is stored of a secret token: never the token itself."""
    return hashlib.sha256(token.encode()).hexdigest()
