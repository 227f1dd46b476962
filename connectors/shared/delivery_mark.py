"""Our own mark on a mail sent by a provider's API: a custom argument that its events bring back, so that news finds its message."""

from __future__ import annotations

NAME = "hub_delivery"


def delivery_of(value: object) -> int | None:
    """The delivery a mark names, as text or number; None for anything we did not write."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
