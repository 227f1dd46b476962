"""The chain of proof: each link a fact about holds, and the SHA-256 over it and the link before. Pure; docs/proof.md is its definition.

Whoever keeps one head of the chain (a number and a hash) can tell later that nothing up to it was changed, put in or taken out.
Values that name a person stand in the chain as digests alone: of each, its opening can be shown without showing any other.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FORMAT = "hub proof of holds 1"

BEGUN = "chain.begun"  # the first link: which chain this is
RESTORED = "chain.restored"  # the database was brought back from a backup, or copied: heads published since may stand in another life
DAMAGED = "chain.damaged"  # the newest link was not the one that had been noted as such
OWN = (BEGUN, RESTORED, DAMAGED)

_DIGEST = 40  # hexadecimal digits: 160 bits


class Link(NamedTuple):
    """One link, in the order of the table's columns. `data` is canonical JSON; `at` is microseconds UTC, when the fact was stated."""

    seq: int
    event_seq: int
    type: str
    at: int
    customer_id: int | None
    destination: str
    data: str
    hash: str = ""


class Head(NamedTuple):
    """Where the chain stands: the number and hash of a link, and when the fact in it was stated."""

    seq: int
    hash: str
    at: int = 0


class Broken(Exception):
    """The chain is not what was sealed; the text says which link and why."""


def canonical(value: Any) -> str:
    """One spelling for each JSON value: keys in order, no white space, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def genesis(chain: str) -> str:
    """What stands before the first link of the chain named so."""
    return hashlib.sha256(f"{FORMAT}\n{chain}".encode()).hexdigest()


def spelled(link: Link, *, with_hash: bool = False) -> str:
    """The canonical JSON of a link whose data is canonical: what is hashed, or, with its hash, as it stands in a report."""
    customer = "null" if link.customer_id is None else link.customer_id
    hash_ = f'"hash":{json.dumps(link.hash)},' if with_hash else ""
    return (
        f'{{"at":{link.at},"customer_id":{customer},"data":{link.data},"destination":{json.dumps(link.destination)},'
        f'"event_seq":{link.event_seq},{hash_}"seq":{link.seq},"type":{json.dumps(link.type)}}}'
    )


def hash_of(previous: str, link: Link) -> str:
    """The hash of a link after the one whose hash is `previous`."""
    return _hashed(previous, spelled(link))


def _hashed(previous: str, text: str) -> str:
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()


def chained(previous: Head, links: list[Link]) -> list[Link]:
    """Links as they follow on a head: numbered, and each with its hash. What numbers they had does not matter."""
    made: list[Link] = []
    seq, before = previous.seq, previous.hash
    for link in links:
        seq += 1
        numbered = link._replace(seq=seq)
        before = hash_of(before, numbered)
        made.append(numbered._replace(hash=before))
    return made


class Verifier:
    """Takes links one after another and refuses the first that does not follow."""

    def __init__(self, anchor: Head) -> None:
        """`anchor` is what stands before the first link: for link 1 the genesis."""
        self.head = anchor

    def take(self, link: Link) -> dict[str, Any]:
        """The link's data. Raises Broken."""
        if link.seq != self.head.seq + 1:
            raise Broken(f"After link {self.head.seq} comes link {link.seq}: what stood between is gone, or out of order.")
        try:
            data = json.loads(link.data)
        except ValueError:
            raise Broken(f"Link {link.seq} cannot be read: it was changed after it was sealed.") from None
        if type(data) is not dict or canonical(data) != link.data or hash_of(self.head.hash, link) != link.hash:
            raise Broken(
                f"Link {link.seq} ({link.type}) is not what was sealed: it or the link before was changed afterwards, or one was taken out."
            )
        self.head = Head(link.seq, link.hash, link.at)
        return data


def begins(link: Link) -> str:
    """The name of the chain that its first link states. Raises Broken."""
    try:
        named = json.loads(link.data).get("chain")
    except (ValueError, AttributeError):
        named = None
    if link.seq != 1 or link.type != BEGUN or not isinstance(named, str):
        raise Broken("Link 1 does not say which chain it begins: it was changed or taken out.")
    return named


_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


def read_head(text: str) -> Head | None:
    """A head as it is published, `number:hash`; None where it is none."""
    found = _HEAD.fullmatch(text.strip().lower())
    return Head(int(found[1]), found[2]) if found else None


# --- who is meant ---


def opening(key: bytes, kind: str, value: str) -> str:
    """What opens the digest of this value, and of no other."""
    return hmac.new(key, canonical([kind, value]).encode(), hashlib.sha256).hexdigest()


def digest(opened: str, kind: str, value: str) -> str:
    """How a value stands in the chain: anybody who is shown its opening can compute it, nobody can from the value alone."""
    return hashlib.sha256(f"{opened}\n{canonical([kind, value])}".encode()).hexdigest()[:_DIGEST]


def digest_of(key: bytes, kind: str, value: str) -> str:
    """The digest of a value, for who has the key."""
    return digest(opening(key, kind, value), kind, value)


# --- signatures (RFC 8032) ---


def public_key(seed: bytes) -> str:
    """The key to verify with, in hexadecimal."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()


def sign(seed: bytes, value: Any) -> str:
    """The signature of a JSON value's canonical text, in hexadecimal."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign(canonical(value).encode()).hex()


def signed_by(key: str, signature: str, value: Any) -> bool:
    """Whether this key signed this value. Hexadecimal is read in one spelling only."""
    if not re.fullmatch("[0-9a-f]{64}", key) or not re.fullmatch("[0-9a-f]{128}", signature):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), canonical(value).encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def head_shown(chain: str, head: Head, seed: bytes, iso: Callable[[int], str]) -> dict[str, Any]:
    """A head to publish, signed: whoever keeps it can hold us to it."""
    said: Mapping[str, Any] = {"format": FORMAT, "chain": chain, "seq": head.seq, "hash": head.hash, "at": iso(head.at)}
    return {**said, "head": f"{head.seq}:{head.hash}", "public_key": public_key(seed), "signature": sign(seed, said)}
