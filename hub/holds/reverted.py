"""A campaign that a person had put back to draft."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hub.storage.facts import Facts, Needs
from hub.storage.marketing_records import CampaignSeen


@dataclass(frozen=True, slots=True)
class NoteReverted:
    """The tool put a campaign back to draft because an agent asked for it: noted at once, not at the next look."""

    id: int
    said: str  # what the tool answered, in words
    agent_id: int

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("campaign_seen", "id", self.id))

    def decide(self, facts: Facts) -> None:
        for row in facts.found[("campaign_seen", "id", self.id)]:
            self._note(row, facts)

    def _note(self, row: CampaignSeen, facts: Facts) -> None:
        row.status, row.risk, row.endangered, row.revertable, row.seen_at = "draft", "", "[]", False, facts.now
        facts.change(row)
        data = {"destination": row.destination, "campaign_id": row.campaign_id, "campaign": row.name, "said": self.said[:500]}
        facts.emit("campaign.reverted", agent_id=self.agent_id, data=json.dumps(data))
