"""Signing a request to Amazon (Signature Version 4), by hand: two calls do not warrant Amazon's SDK.

Rules: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html, with S3's own exceptions
(https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html). The tests hold it against Amazon's published examples.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, unquote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class AwsKey:
    """An access key of Amazon's, for one service in one region. `session_token` comes with temporary keys only."""

    id: str
    secret: str = field(repr=False)
    region: str
    service: str
    session_token: str = field(default="", repr=False)


def sign(key: AwsKey, method: str, url: str, now: float, headers: Mapping[str, str] | None = None, body: bytes = b"") -> dict[str, str]:
    """The headers to send: those given (lower case), and `host`, `x-amz-date`, `authorization` and what else the key and service need.

    `now` is unix seconds; Amazon refuses a signature more than 15 minutes off (S3) or 5 (others). The path of `url` must be
    percent-encoded as it is sent.
    """
    at = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    parts = urlsplit(url)
    digest = hashlib.sha256(body).hexdigest()
    sent = {name.lower(): " ".join(value.split()) for name, value in (headers or {}).items()}
    sent |= {"host": parts.netloc, "x-amz-date": at}
    if key.service == "s3":
        sent["x-amz-content-sha256"] = digest
    if key.session_token:
        sent["x-amz-security-token"] = key.session_token
    names = ";".join(sorted(sent))
    canonical = "\n".join(
        [
            method,
            _path(parts.path, key.service),
            _query(parts.query),
            *(f"{name}:{sent[name]}" for name in sorted(sent)),
            "",
            names,
            digest,
        ]
    )
    scope = f"{at[:8]}/{key.region}/{key.service}/aws4_request"
    to_sign = "\n".join([ALGORITHM, at, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signing = f"AWS4{key.secret}".encode()
    for word in (at[:8], key.region, key.service, "aws4_request"):
        signing = hmac.digest(signing, word.encode(), "sha256")
    signature = hmac.digest(signing, to_sign.encode(), "sha256").hex()
    return sent | {"authorization": f"{ALGORITHM} Credential={key.id}/{scope}, SignedHeaders={names}, Signature={signature}"}


def _path(path: str, service: str) -> str:
    """S3 signs the path as it is sent; every other service encodes it once more."""
    return (path or "/") if service == "s3" else quote(path or "/", safe="/-_.~")


def _query(query: str) -> str:
    pairs = [piece.partition("=") for piece in query.split("&") if piece]
    encoded = sorted((quote(unquote(name), safe="-_.~"), quote(unquote(value), safe="-_.~")) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)
