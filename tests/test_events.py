"""Every event the hub waits for is one that something in it states: a renamed event must not leave a deaf listener behind."""

from __future__ import annotations

import ast
import re

from hub.conversations import history, wording
from hub.reactions import REACTIONS
from hub.web import chat
from tests.conftest import ROOT

# Names composed at run time, where the source cannot show them.
COMPOSED = {"hold.placed", "hold.renewed", "hold.released"}  # hub/holds/ledger.py, by what the change came to


def stated() -> set[str]:
    """The names handed to `emit`, `state` and `_step`, or to the variable `event` they are called with, anywhere in the hub."""
    names: set[str] = set()
    for path in (ROOT / "hub").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("emit", "state", "_step")
            chosen = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "event"
            chosen = chosen or (isinstance(node, ast.keyword) and node.arg == "event")
            if called or chosen:
                constants = (inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant) and isinstance(inner.value, str))
                names.update(name for name in constants if re.fullmatch(r"[a-z_]+\.[a-z_]+", name))
    return names | COMPOSED


def test_nobody_waits_for_an_event_that_is_never_stated() -> None:
    known = stated()
    assert len(known) > 15
    for listener, names in (
        ("reactions", set(REACTIONS)),
        ("the chat stream", set(chat.SHOWN)),
        ("the timeline", set(history.TOLD)),
        ("the timeline's icons", set(wording.EVENT_ICON)),
    ):
        assert names <= known, f"{listener} waits for {sorted(names - known)}, which nothing states"
