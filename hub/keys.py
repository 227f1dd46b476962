"""Keys of our own: one secret in, one key a purpose out, and the short signed tokens made with them."""

from __future__ import annotations

import base64
import contextlib
import functools
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


@functools.lru_cache(maxsize=256)
def _keyed(key: bytes) -> hmac.HMAC:
    return hmac.new(key, digestmod=hashlib.sha256)


def _mac(key: bytes, text: str) -> bytes:
    # Not hmac.digest: that lets go of the interpreter lock, and then waits for a busy writer thread (docs/performance.md).
    mac = _keyed(key).copy()
    mac.update(text.encode())
    return mac.digest()


# Two letters at a time: base64.b32encode takes 12 microseconds for what this does in 2, in front of every hold check.
_PAIRS = [a + b for a in "abcdefghijklmnopqrstuvwxyz234567" for b in "abcdefghijklmnopqrstuvwxyz234567"]


def _base32(mac: bytes) -> str:
    """RFC 4648 base 32 of TOKEN_BYTES bytes, lower case and without its padding."""
    number = int.from_bytes(mac) << 2  # 130 bits: 13 pairs of letters
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


@functools.lru_cache(maxsize=256)
def derive(secret: bytes, purpose: str) -> bytes:
    """A key for one purpose, so that a token made for one can never serve another."""
    return _mac(secret, purpose)


def signed(key: bytes, payload: str) -> str:
    """`payload.signature`, lower case and safe in a URL or in the local part of a mail address."""
    return f"{payload}.{_base32(_mac(key, payload)[:TOKEN_BYTES])}"


def unsigned(key: bytes, token: str) -> str | None:
    """The payload of a token we signed, or None. Case is ignored: mail servers fold local parts."""
    payload, _, _ = token.lower().rpartition(".")
    return payload if payload and hmac.compare_digest(signed(key, payload).encode(), token.lower().encode()) else None


def digest(token: str) -> str:
    """What is stored of a secret token: never the token itself."""
    return hashlib.sha256(token.encode()).hexdigest()
