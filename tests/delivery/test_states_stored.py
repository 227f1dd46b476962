"""F21 on disk: reports of delivery that come twice, in any order, and before or after the note of our own sending, end in one state.

The same law as in test_states, through the real doorway, the real writer and the real rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import chain, combinations, permutations
from pathlib import Path

from hub.contract import DeliveryUpdate, MessageStatus
from hub.conversations.ingest import Ingest, item
from hub.delivery.works import Finish
from tests.delivery import SMS, START, TOKEN, Ground, Insert, delivery, ground, message
from tests.delivery.test_states import meaning

# Twilio's words, and ours.
WORDS = {"queued": "queued", "sent": "sent", "delivered": "delivered", "read": "read", "failed": "failed", "undelivered": "failed"}
OWN = "our note"
Case = tuple[tuple[str, ...], str]  # the words with our own note among them, and what that note was


def cases() -> list[Case]:
    """Every order of up to three words, with our note (that it was taken, or that nobody knows) at every place; and every order of all
    six, our note at a place that goes round."""
    short = chain.from_iterable(permutations(some) for size in (1, 2, 3) for some in combinations(WORDS, size))
    found = [((*order[:at], OWN, *order[at:]), note) for order in short for at in range(len(order) + 1) for note in ("done", "unknown")]
    for number, order in enumerate(permutations(WORDS)):
        at = number % 7
        found.append(((*order[:at], OWN, *order[at:]), ("done", "unknown")[number % 2]))
    return found


def step(number: int, what: str, note: str) -> Iterable[Ingest | Finish]:
    """What arrives: a report, twice, or our own note."""
    sid = f"SM{number}"
    if what == OWN:
        yield Finish(number, TOKEN, 1, note, provider_id=sid if note == "done" else "", error="" if note == "done" else "Lost.")  # type: ignore[arg-type]
        return
    for _ in range(2):
        yield Ingest(
            SMS.id,
            (
                item(
                    DeliveryUpdate(
                        provider_key=f"status:{sid}:{what}",
                        status=MessageStatus(WORDS[what]),
                        delivery_id=number,
                        provider_message_id=sid,
                        error="Unreachable (30003)" if WORDS[what] == "failed" else "",
                    ),
                    True,
                ),
            ),
            None,
        )


async def test_every_order_ends_in_the_state_it_means(tmp_path: Path) -> None:
    every = cases()
    assert len(every) == (6 * 2 + 30 * 3 + 120 * 4) * 2 + 720
    async with ground(tmp_path) as at:
        await at.hears()
        for first in range(0, len(every), 500):
            numbers = range(first + 1, min(first + 500, len(every)) + 1)
            rows = [
                row
                for number in numbers
                for row in (
                    message(id=100 + number, status="sending"),
                    delivery(id=number, subject_id=100 + number, lane=f"lane {number}", lease_until=START + 90_000_000),
                )
            ]
            await at.run(Insert(tuple(rows)))
            await play(at, {number: every[number - 1] for number in numbers})
        told = {row.id: row for row in await at.all("message")}
        owed = {row.id: row for row in await at.all("delivery")}
        for number, (order, note) in enumerate(every, 1):
            words = tuple(WORDS[word] for word in order if word != OWN)
            sent, row = told[100 + number], owed[number]
            assert sent.status == meaning(words), (order, note)
            assert row.state == ("failed" if sent.status == "failed" else "done"), (order, note)
            assert sent.provider_id == f"SM{number}", (order, note)
            assert sent.error == ("Unreachable (30003)" if sent.status == "failed" else ""), (order, note)
            assert row.lease_token == "", (order, note)


async def play(at: Ground, each: dict[int, Case]) -> None:
    """All cases side by side, each of them step by step: a batch of the writer holds many, and no two steps of one."""
    for turn in range(max(len(order) for order, _ in each.values())):
        now = [work for number, (order, note) in each.items() if turn < len(order) for work in step(number, order[turn], note)]
        for first in range(0, len(now), 200):  # fewer than a busy machine's queue takes
            await asyncio.gather(*(at.run(work) for work in now[first : first + 200]))
