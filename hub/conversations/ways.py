"""Before an answer leaves by another address than the customer wrote from: is it proven to be the same person's? Pure.

Agents see a customer's whole history; an address that was merely claimed, or joined by an agent's word, has proved no right to any of
it. The answer may go there all the same, once the agent has confirmed that it should.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from hub.conversations import wording
from hub.customers.resolution import PROVEN


class Address(Protocol):
    """The part of an identifier that decides: a record, or a row of a page."""

    @property
    def id(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def standing(self) -> str: ...
    @property
    def proof(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def home_id(self) -> int | None: ...
    @property
    def customer_id(self) -> int | None: ...
    @property
    def shared_at(self) -> int | None: ...


_UNPROVEN = frozenset({"claimed", "seen"})


def why_stop(last: Address | None, to: Address, own: Iterable[Address], together: Iterable[tuple[int, int]]) -> str:
    """Why an agent should look twice before an answer goes to `to`, as a sentence; empty where nothing speaks against it.

    `last` is the address the customer last wrote from on the ticket, None where that is not theirs (the ticket was given to them).
    `own` are all their addresses, `together` the pairs that evidence proved to be one person's.
    """
    if last is not None and last.id == to.id:
        return ""
    goal = named(to)
    if to.standing != PROVEN or to.proof in _UNPROVEN:
        return f"Nobody has proved that {goal} is theirs."
    if to.shared_at is not None:
        return f"{goal} is shared: somebody else may read it."
    if last is None:
        return f"What was said on this ticket came from another customer's address, not from {goal}."
    if to.id in _reach(last.id, own, together):
        return ""
    return f"An agent merged {named(last)} and {goal}; nothing proves that both are one person's."


def named(one: Address) -> str:
    """An address within a sentence; a browser's key is nobody's to see."""
    return "the chat" if one.kind == "device" else wording.address(one.kind, one.address)


def _reach(start: int, own: Iterable[Address], together: Iterable[tuple[int, int]]) -> set[int]:
    """What is proven to be of one person with this address: through proofs, and through the record they have stood in from the start."""
    beside: dict[int, set[int]] = {}
    homes: dict[int, list[int]] = {}
    for one in own:
        if one.standing == PROVEN and one.shared_at is None:
            homes.setdefault(one.home_id or one.customer_id or 0, []).append(one.id)
    pairs = [*together, *((first, other) for first, *others in homes.values() for other in others)]
    for left, right in pairs:
        beside.setdefault(left, set()).add(right)
        beside.setdefault(right, set()).add(left)
    reached, waiting = {start}, [start]
    while waiting:
        for other in beside.get(waiting.pop(), set()) - reached:
            reached.add(other)
            waiting.append(other)
    return reached
