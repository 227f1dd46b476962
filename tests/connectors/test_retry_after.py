"""How long to wait is read out of whatever the other side writes, and never beyond an hour."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.shared.retry_after import retry_after

DATE = "Mon, 24 Nov 2025 16:00:00 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", None),
        ("3600", 3600.0),
        ("3601", 3600.0),
        ("999999999", 3600.0),
        ("9" * 400, None),
        ("1e3", None),
        ("1.5", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("٣", None),  # a digit, but not an ASCII one
        ("Mon, 24 Nov 2025 16:00:30 GMT", 30.0),
        ("Mon, 24 Nov 2025 16:00:30 -0000", 30.0),
        ("Monday, 24-Nov-25 16:00:30 GMT", 30.0),  # obsolete RFC 850 form
        ("Mon Nov 24 16:00:30 2025", 30.0),  # obsolete asctime form
        ("Mon, 24 Nov 2025 17:00:30 +0100", 30.0),
        ("Mon, 24 Nov 2025 15:59:00 GMT", None),  # gone by
        ("Sun, 24 Nov 2199 16:00:00 GMT", 3600.0),
        ("Mon, 99 Nov 2025 16:00:00 GMT", None),
        ("Mon, 24 Nov 99999999999999999999 16:00:00 GMT", None),
        ("", None),
        ("soon", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value, "date": DATE}) == seconds


def test_a_date_counts_from_the_answers_own_date_and_from_no_clock() -> None:
    assert retry_after({"retry-after": "Mon, 24 Nov 2025 16:00:30 GMT"}) is None


@settings(deadline=None)
@given(st.text(), st.text())
def test_retry_after_never_raises(value: str, date: str) -> None:
    seconds = retry_after({"retry-after": value, "date": date})
    assert seconds is None or 0 < seconds <= 3600
