"""Gives every configured channel its number, for ever, and notes when its credentials changed."""

from __future__ import annotations

from dataclasses import dataclass

from hub.storage.facts import Facts, Needs
from hub.storage.records import ChannelState


@dataclass(frozen=True, slots=True)
class RegisterChannels:
    """(name, digest of the credentials) of every configured channel -> its row."""

    channels: tuple[tuple[str, str], ...]

    def needs(self, needs: Needs) -> None:
        for name, _ in self.channels:
            needs.rows.add(("channel", "name", name))

    def decide(self, facts: Facts) -> dict[str, ChannelState]:
        states = {}
        for name, key_digest in self.channels:
            known = facts.found[("channel", "name", name)]
            if known:
                state = known[0]
                if state.key_digest != key_digest:
                    # New credentials: nothing has verified under them yet.
                    state.key_digest = key_digest
                    state.verified_at = None
                    facts.change(state)
            else:
                state = ChannelState(facts.new_id("channel"), name, None, key_digest)
                facts.insert(state)
            states[name] = state
        return states
