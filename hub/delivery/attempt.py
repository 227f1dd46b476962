"""One try at a delivery: how far it has come, so that what never left is not called doubtful."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from hub.storage.records import Delivery


class Attempt:
    """One delivery in hand. From the moment it is begun it may have left, except while its carrier says that it is preparing."""

    __slots__ = ("begun", "delivery", "noting", "preparing")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.begun = False
        self.preparing = False
        self.noting = False  # it is over, and its outcome is on its way to the disk

    @property
    def left(self) -> bool:
        """Whether bytes may have gone."""
        return self.begun and not self.preparing


CURRENT: ContextVar[Attempt | None] = ContextVar("attempt", default=None)


@contextmanager
def preparing() -> Iterator[None]:
    """For carriers: what is done within reads and composes only. If it fails or is cut off there, nothing was sent."""
    attempt = CURRENT.get()
    if attempt is None:
        yield
        return
    attempt.preparing = True
    yield
    attempt.preparing = False
