"""Where the third-party conformance data lies: beside the project, never in it. Tests that need it skip where it is absent."""

from pathlib import Path

import pytest

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"


def shared(*parts: str) -> Path:
    """The path of a piece of conformance data, or a skip that names what is missing."""
    path = FIXTURES.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"conformance data absent: ../shared/fixtures/{'/'.join(parts)}", allow_module_level=True)
    return path
