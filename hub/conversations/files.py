"""What is found out about a file after it was stored."""

from __future__ import annotations

from dataclasses import dataclass

from hub.storage.facts import Facts, Needs

NONE = "-"  # no small picture can be made of it


@dataclass(frozen=True, slots=True)
class NoteFile:
    """Keep a file's small picture (its digest, or NONE) or a scanner's verdict."""

    attachment_id: str
    thumbnail: str = ""
    scan: str = ""

    def needs(self, needs: Needs) -> None:
        needs.attachments.add(self.attachment_id)

    def decide(self, facts: Facts) -> None:
        file = facts.attachments.get(self.attachment_id)
        if file is None:
            return
        file.thumbnail = self.thumbnail or file.thumbnail
        file.scan = self.scan or file.scan
        facts.change(file)
