"""Quarantine: requests we could not use, kept whole, shown, and replayable once the cause is mended."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import product

from hub.policy import SECOND
from hub.storage.facts import Facts, Needs
from hub.storage.records import ChannelState, Quarantine

UNPARSEABLE = "unparseable"  # verified when it came, and not understood
SIGNATURE = "signature"  # did not verify; replayed only once it does
OVERSIZE = "oversize"  # refused for its size, its body never read
# What anybody can send us: of these only the last 1,000 a channel are kept, for 30 days, so that a forger cannot fill the disk.
UNVERIFIED = frozenset({SIGNATURE, OVERSIZE})
TELL_EVERY = 60 * SECOND  # a flood of them is told of once a minute: events are kept for ever


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep one request. The same request again (a provider trying once more) is kept once."""

    channel_id: int
    kind: str
    reason: str
    method: str
    url: str
    headers: str
    body: bytes | None
    body_sha256: str
    digest: str

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("quarantine", "digest", self.digest))
        if self.kind in UNVERIFIED:
            needs.quarantined.add((self.channel_id, self.kind))

    def decide(self, facts: Facts) -> None:
        if any(row.channel_id == self.channel_id for row in facts.found[("quarantine", "digest", self.digest)]):
            return
        row = Quarantine(
            facts.new_id("quarantine"),
            self.channel_id,
            self.kind,
            self.reason,
            "waiting",
            facts.now,
            self.method,
            self.url,
            self.headers,
            self.body,
            self.body_sha256,
            self.digest,
        )
        facts.insert(row)
        if self.kind not in UNVERIFIED or self._make_room(row.id, facts):
            facts.emit("quarantine.added")

    def _make_room(self, row_id: int, facts: Facts) -> bool:
        """Remove what is too old or too many; whether it is time to tell of another one."""
        kept = facts.quarantined[(self.channel_id, self.kind)]
        tell = not kept or facts.now - kept[-1][1] > TELL_EVERY
        _thin(kept, facts.policy.signatures_kept - 1, facts)
        kept.append((row_id, facts.now))
        return tell


def _thin(kept: deque[tuple[int, int]], most: int, facts: Facts) -> int:
    """Remove what is too old, and the oldest of what is too many; how many that were."""
    oldest = facts.now - facts.policy.signatures_kept_for
    removed = 0
    while kept and (len(kept) > most or kept[0][1] < oldest):
        facts.remove("quarantine", "id", kept.popleft()[0])
        removed += 1
    return removed


@dataclass(frozen=True, slots=True)
class SweepUnverified:
    """Forget the unverified requests that are past their time, on channels that are quiet too."""

    channel_ids: tuple[int, ...]

    def needs(self, needs: Needs) -> None:
        needs.quarantined.update(product(self.channel_ids, UNVERIFIED))

    def decide(self, facts: Facts) -> int:
        """How many were removed."""
        keys = product(self.channel_ids, UNVERIFIED)
        return sum(_thin(facts.quarantined[key], facts.policy.signatures_kept, facts) for key in keys)


@dataclass(frozen=True, slots=True)
class Settle:
    """Close a quarantined request: `replayed` or `dismissed`."""

    quarantine_id: int
    state: str

    def needs(self, needs: Needs) -> None:
        needs.quarantine.add(self.quarantine_id)

    def decide(self, facts: Facts) -> bool:
        row = facts.quarantine.get(self.quarantine_id)
        if row is None or row.state != "waiting":
            return False
        row.state = self.state
        facts.change(row)
        facts.emit("quarantine.settled")
        return True


@dataclass(frozen=True, slots=True)
class Verified:
    """Note that a delivery verified under the channel's present key: from now on the signature is enforced."""

    state: ChannelState

    def needs(self, needs: Needs) -> None: ...

    def decide(self, facts: Facts) -> ChannelState:
        verified = replace(self.state, verified_at=facts.now)
        facts.change(verified)
        return verified
