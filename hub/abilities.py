"""What people ask of a channel. Every connector says of each, in its `can`, whether it can, and why not."""

from __future__ import annotations

from collections.abc import Mapping

ABILITIES: Mapping[str, str] = {
    "files_in": "takes files",
    "files_out": "sends files",
    "delivered": "tells when a message has arrived",
    "read": "tells when it was read",
    "quotes": "an answer names the message it answers",
    "reactions": "takes reactions",
    "edits": "takes edits and deletions",
    "templates": "sends approved templates",
    "presence": "shows customers that we read and write",
    "recovers": "asks the provider what was missed",
    "finds": "asks the provider what became of a doubtful send",
}
