"""How long the other side asks us to wait."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST = 3_600.0  # seconds; an absurd wait must not shelve a message for ever
_WHOLE_SECONDS = re.compile(r"[0-9]{1,20}", re.ASCII)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait out of a `Retry-After` header (RFC 9110 section 10.2.3: seconds or an HTTP date), at most an hour.

    A date counts from the answer's own `Date`, so that neither clock need be right. None for nonsense and for a date gone by.
    """
    value = headers.get("retry-after", "").strip()
    if _WHOLE_SECONDS.fullmatch(value):
        seconds = float(value)
    else:
        try:
            seconds = _unix(value) - _unix(headers.get("date", ""))
        except (ValueError, OverflowError):
            return None
    return min(seconds, LONGEST) if seconds > 0 else None


def _unix(date: str) -> float:
    when = parsedate_to_datetime(date.strip())
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
