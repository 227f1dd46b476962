"""The receipt of a hold check: our signed note of what was asked, when, and what was answered, kept by whoever asked.

It names nobody: without the question it proves nothing, and from it alone no number can be tried out.
"""

from __future__ import annotations

import hashlib
import hmac
import random
from collections.abc import Iterable

_NONCE_BITS = 32  # two answers within one microsecond have a receipt each
_MAC_BYTES = 20


def issue(key: bytes, question: Iterable[str], held: bool, version: int, now: int, *, degraded: bool = False) -> str:
    """`nonce.time.answer.version.mac`, for one answer given at `now` (microseconds UTC). The answer is held, free, or (where the
    database did not say, and the campaign wanted to be let through then) degraded."""
    answer = "degraded" if degraded else "held" if held else "free"
    said = f"{random.getrandbits(_NONCE_BITS):08x}.{now}.{answer}.{version}"
    return f"{said}.{_mac(key, said, question)}"


def proves(key: bytes, question: Iterable[str], receipt: str) -> bool:
    """Whether we gave this receipt in answer to this question."""
    said, _, mac = receipt.rpartition(".")
    return hmac.compare_digest(_mac(key, said, question).encode(), mac.encode())


def _mac(key: bytes, said: str, question: Iterable[str]) -> str:
    # Each part with its length before it: no other question spells the same.
    spelled = f"{len(said)}:{said}" + "".join([f"{len(part)}:{part}" for part in question])
    return hashlib.blake2b(spelled.encode("utf-8", "surrogatepass"), key=key, digest_size=_MAC_BYTES).hexdigest()
