"""Alarms, posted in the team's rooms."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hub.contract import Refused
from hub.delivery.attempt import preparing
from hub.delivery.works import Finish, finish
from hub.storage.records import Delivery
from hub.team_rooms import Alert, Room


class AlertCarrier:
    """An alarm that was raised or is over, to one room."""

    def __init__(self, rooms: Mapping[str, Room], public_url: str) -> None:
        self._rooms = rooms
        self._public_url = public_url

    async def carry(self, delivery: Delivery) -> Finish:
        with preparing():
            room = self._rooms.get(delivery.target)
            if room is None:
                raise Refused(f"The room {delivery.target} is no longer configured.")
            said = json.loads(delivery.payload)
            url = f"{self._public_url}{said['url']}"
            alert = Alert(title=said["title"], text=said["text"], url=url, ended=said["ended"])
        return finish(delivery, ref=await room.alert(alert, ""))
