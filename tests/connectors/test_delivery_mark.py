"""Our own mark on a mail, as it comes back."""

import pytest

from connectors.shared.delivery_mark import delivery_of


@pytest.mark.parametrize(
    ("told", "ours"),
    [
        ("42", 42),
        (42, 42),
        ("", None),
        ("x", None),
        ("²", None),
        ("٤", None),
        ("-1", None),
        (-1, None),
        (True, None),
        ("9" * 30, None),
        (None, None),
        (["1"], None),
    ],
)
def test_only_what_we_wrote_names_a_delivery(told, ours):
    assert delivery_of(told) == ours
