"""E-mail channels: `sendgrid` (Inbound Parse) and `raw` (whole mails posted by your own server). Both answer by SMTP."""

from __future__ import annotations

import base64
import binascii
import hmac

from hub.contract import Verdict


def basic_verdict(authorization: str, expected: str) -> Verdict:
    """Judge an `Authorization: Basic` header (RFC 7617) against the expected `user:password`, in constant time."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return Verdict.UNSIGNED
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return Verdict.BAD
    return Verdict.GOOD if hmac.compare_digest(given, expected.encode()) else Verdict.BAD
