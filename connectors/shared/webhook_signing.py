"""Standard Webhooks 1.0.0, symmetric signatures (`v1`): signing and verifying.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. Written here because the
published package raises three different exceptions on a malformed header, and signs the wrong second for a
datetime that is not UTC; the tests hold the two side by side.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping

PREFIX = "whsec_"
TOLERANCE_SECONDS = 300  # "Verifying webhook authenticity": the reference libraries take five minutes either way

_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)


def decode_secret(secret: str) -> bytes:
    """The key behind a secret, with `whsec_` or without, padded or not. Raises ValueError without repeating the secret.

    24 to 64 bytes are what the specification asks of a key.
    """
    encoded = secret.strip().removeprefix(PREFIX).rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    if not 24 <= len(key) <= 64:
        raise ValueError(f"holds {len(key)} bytes where 24 to 64 are asked for")
    return key


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: `v1,` and the base64 HMAC-SHA256 over `id.timestamp.body`; `timestamp` in unix seconds."""
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def verify(key: bytes, headers: Mapping[str, str], body: bytes, now: float, tolerance: float = TOLERANCE_SECONDS) -> bool:
    """Whether one of the `v1` signatures in `webhook-signature` is right and `webhook-timestamp` lies within `tolerance` seconds of `now`.

    Header names in any case. Other signature versions are passed over. Never raises, whatever the headers hold.
    """
    given = {name.lower(): value for name, value in headers.items()}
    message_id, written, signatures = (given.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature"))
    if not message_id or not signatures or not _SECONDS.fullmatch(written) or abs(now - int(written)) > tolerance:
        return False
    # What was signed is the header as written (a leading zero included), and header text may hold what UTF-8 cannot.
    signed = f"{message_id}.{written}.".encode(errors="surrogatepass") + body
    wanted = hmac.new(key, signed, hashlib.sha256).digest()
    good = False
    for candidate in signatures.split():
        version, _, value = candidate.partition(",")
        if version == "v1":
            good |= hmac.compare_digest(_digest(value), wanted)
    return good


def _digest(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""
