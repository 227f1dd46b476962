"""The keys sites sign their visitors with: secrets from the configuration, or public keys a site serves as a JSON Web Key Set.

Every key is for one algorithm, fixed by what the key is and never by the token (RFC 8725, sections 2.1 and 3.1): a secret checks
HS256, an RSA key RS256, a P-256 key ES256. Whatever else a token brings to be checked with (`jku`, `x5u`, `jwk`) is never looked at.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import structlog

from hub.config import SiteSettings
from hub.contract import Http, NoAnswer, NotSent

log = structlog.get_logger("hub.site_keys")

FRESH = 3_600.0  # seconds a fetched set is used unasked: how long at most a key the site took back still counts
AGAIN = 60.0  # seconds between two fetches of a site's set, whoever would like another and however the last one ended
KEPT = 24 * 3_600.0  # seconds the last good set counts while its address fails
PATIENCE = 5.0  # seconds one fetch may take: somebody's page is waiting
MAX_SET = 100_000  # bytes
MAX_KEYS = 50
RSA_BITS = (2_048, 8_192)  # NIST SP 800-131A; and no number so long that checking with it becomes work

SYMMETRIC = ("HS256",)
ASYMMETRIC = ("RS256", "ES256")
# kty of a key -> the one algorithm it is for, and the members that are the public key (RFC 7518, sections 6.2.1 and 6.3.1).
_PUBLIC = {"RSA": ("RS256", ("n", "e")), "EC": ("ES256", ("crv", "x", "y"))}


@dataclass(frozen=True, slots=True)
class SiteKey:
    """A key, the one algorithm it checks, and the name tokens may call it by."""

    algorithm: str
    material: Any = field(repr=False)
    kid: str = ""


def accepted(site: SiteSettings) -> tuple[str, ...]:
    """The algorithms a site's tokens may be signed with, by the kind of key it is configured with."""
    return ASYMMETRIC if site.jwks_url else SYMMETRIC


def secrets_of(site: SiteSettings) -> tuple[SiteKey, ...]:
    """The secrets a site is configured with; none for one with a key set."""
    return tuple(SiteKey("HS256", secret.get_secret_value(), kid) for kid, secret in site.secrets)


def fitting(keys: Sequence[SiteKey], header: Mapping[str, Any]) -> tuple[SiteKey, ...]:
    """The keys a token may have been signed with: of its algorithm and, where both have one, its `kid`."""
    kid = header.get("kid")
    return tuple(key for key in keys if key.algorithm == header.get("alg") and (not kid or not key.kid or key.kid == kid))


class UnusableKeySet(Exception):
    """What the address serves is no key set. The text says what it is instead."""


def read_key_set(body: bytes) -> tuple[SiteKey, ...]:
    """The usable public keys of a JSON Web Key Set (RFC 7517, section 5): RSA of 2048 bits or more, and P-256, meant for signatures.

    What is meant for something else, unknown or too weak is passed over, and so is every secret: a key the world can read is none.
    A set without a usable key is the site's word too. Raises UnusableKeySet.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise UnusableKeySet("it is not JSON") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise UnusableKeySet('it is no key set: a JSON object with the list "keys" is wanted')
    if len(listed) > MAX_KEYS:
        raise UnusableKeySet(f"it holds {len(listed)} keys; at most {MAX_KEYS} are read")
    return tuple(key for key in map(_read_key, listed) if key is not None)


def _read_key(jwk: Any) -> SiteKey | None:
    import jwt

    if not isinstance(jwk, dict) or not isinstance(jwk.get("kty"), str) or jwk["kty"] not in _PUBLIC:
        return None
    algorithm, members = _PUBLIC[jwk["kty"]]
    kid, uses = jwk.get("kid", ""), jwk.get("key_ops", ["verify"])
    meant = jwk.get("use", "sig") == "sig" and jwk.get("alg", algorithm) == algorithm and isinstance(uses, list) and "verify" in uses
    if not meant or not isinstance(kid, str) or not all(isinstance(jwk.get(name), str) for name in members):
        return None
    if "d" in jwk:
        log.warning("a key set serves a private key: it counts for nothing; serve its public members only", kid=kid[:200])
        return None
    if algorithm == "ES256" and jwk["crv"] != "P-256":
        return None
    try:
        key = jwt.PyJWK({"kty": jwk["kty"], **{name: jwk[name] for name in members}}, algorithm)
    except (jwt.PyJWTError, ValueError):
        return None
    if algorithm == "RS256" and not RSA_BITS[0] <= key.key.key_size <= RSA_BITS[1]:
        return None
    return SiteKey(algorithm, key.key, kid)


def unfetchable(url: str, allowed_hosts: Sequence[str]) -> list[str]:
    """What is wrong with a configured address that can be told without calling it: keys that anyone on the way can swap are none."""
    parts = urlsplit(url)
    if parts.scheme != "http" or {parts.hostname, parts.netloc, f"{parts.netloc}:80"} & set(allowed_hosts):
        return []
    return [f"is http, which anyone on the way can change. Use https, or list {parts.netloc} in allowed_hosts if it is yours."]


class KeysAway(Exception):
    """A site's key set cannot be had now, and none is kept. The text is for the site's developer; the log says why."""


@dataclass(slots=True)
class _Kept:
    """What is known of one site's set. Times are of the monotonic clock."""

    keys: tuple[SiteKey, ...] = ()
    got_at: float = -math.inf
    asked_at: float = -math.inf
    asking: asyncio.Task[None] | None = None


class KeySets:
    """The key sets of sites that serve one, fetched when a token asks for it and kept in memory.

    Visitors decide when a token arrives and what its header says, so neither may decide how often somebody else's server is called:
    one fetch at a time and at most one a minute for each site, of a bounded size and duration, through the guarded client.
    """

    def __init__(self, http: Http, clock: Callable[[], float] = time.monotonic) -> None:
        self._http = http
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    async def of(self, name: str, site: SiteSettings, header: Mapping[str, Any]) -> tuple[SiteKey, ...]:
        """The keys of the site of this name, for a token with this header. Raises KeysAway."""
        if not site.jwks_url:
            return secrets_of(site)
        kept = self._kept.setdefault(name, _Kept())
        if header.get("alg") not in ASYMMETRIC:
            return kept.keys
        now = self._clock()
        if now - kept.got_at >= FRESH or not fitting(kept.keys, header):
            if kept.asking is None and now - kept.asked_at >= AGAIN:
                kept.asked_at = now
                kept.asking = asyncio.create_task(self._fetch(name, site.jwks_url, kept), name=f"key set of {name}")
            if kept.asking is not None:
                await asyncio.shield(kept.asking)  # a visitor who goes away takes nobody's answer along
        if self._clock() - kept.got_at >= KEPT:
            raise KeysAway(
                "this site's keys (sites.<site>.jwks_url) cannot be fetched now, and the visitor stays anonymous; the hub's log says why"
            )
        return kept.keys

    async def _fetch(self, name: str, url: str, kept: _Kept) -> None:
        try:
            answer = await self._http.request("GET", url, headers={"Accept": "application/json"}, timeout=PATIENCE, max_bytes=MAX_SET)
            if answer.status != 200:
                moved = " and redirects are not followed: name the final address" if 300 <= answer.status < 400 else ""
                raise UnusableKeySet(f"its answer was {answer.status}{moved}")
            keys = read_key_set(answer.body)
        except (NotSent, NoAnswer, UnusableKeySet) as error:
            log.warning(
                "a site's key set could not be fetched; the last good one counts for a day",
                setting=f"sites.{name}.jwks_url",
                problem=str(error),
                kept=len(kept.keys),
            )
        except Exception:
            log.exception("a site's key set could not be read", setting=f"sites.{name}.jwks_url")
        else:
            if not keys:
                log.warning("a site's key set holds no usable key (RSA of 2048 bits or P-256, `use` sig)", setting=f"sites.{name}.jwks_url")
            kept.keys, kept.got_at = keys, self._clock()
        finally:
            kept.asking = None
