"""What is asked of a hub with 10,000 open tickets: the hold check and the inbox's list page."""

from __future__ import annotations

import random
from pathlib import Path

from bench.load import Slice, drive
from bench.report import Figure
from bench.served import Served, plain_config
from bench.server import BARE
from bench.traffic import get, phone

TICKETS = 10_000
COUNTS = {"bare": (200, 1_500), "check": (150, 600), "inbox": (20, 60)}  # requests of a slice at c=1 and c=32
SINGLE, MANY = 1, 32


async def measure(directory: Path, rounds: int) -> list[Figure]:
    """Each round asks the bare handler, the hold check and the inbox in turn, at c=1 and at c=32."""
    server = Served("reading", plain_config(directory / "reading"), "--seed", str(TICKETS), "--sign-in")
    chosen = random.Random(3)
    seen: dict[tuple[str, int], list[Slice]] = {(what, c): [] for what in COUNTS for c in (SINGLE, MANY)}
    wrong = 0
    try:
        await server.start()
        await server.rest()
        cookie, token = server.ready["cookie"], server.ready["token"]

        def requests(what: str, count: int) -> list[bytes]:
            if what == "bare":
                return [get(BARE)] * count
            if what == "inbox":
                return [get("/inbox/open", Cookie=cookie)] * count
            # One in three asks for a person nobody knows.
            people = [chosen.randrange(TICKETS * 3 // 2) for _ in range(count)]
            return [get(f"/api/v1/holds/check?phone=%2B{phone(who)[1:]}", Authorization=f"Bearer {token}") for who in people]

        for what in COUNTS:
            await drive(server.port, requests(what, 20), 2)
        for _ in range(rounds):
            for what, counts in COUNTS.items():
                for concurrency, count in zip((SINGLE, MANY), counts, strict=True):
                    slice_ = await drive(server.port, requests(what, count), concurrency)
                    wrong += count - slice_.good
                    seen[what, concurrency].append(slice_)
        tickets = server.count("SELECT count(*) FROM ticket WHERE status = 'open'")
    finally:
        await server.stop()
    void = f"{wrong} answers were not 200" if wrong else ("" if tickets == TICKETS else f"{tickets} tickets were open, not {TICKETS}")
    figures = []
    for what, label in (("check", "hold check"), ("inbox", f"inbox list at {TICKETS:,} tickets")):
        mine, base = seen[what, MANY], seen["bare", MANY]
        figures += [
            Figure(f"{label}, p50 at c=1", tuple(s.quantile(0.5) * 1e3 for s in seen[what, SINGLE]), "ms", void=void),
            Figure(
                f"{label} / bare handler, c={MANY}", tuple(m.rate / b.rate for m, b in zip(mine, base, strict=True)), "ratio", void=void
            ),
            Figure(f"{label}, c={MANY}", tuple(s.rate for s in mine), "req/s", void=void),
        ]
    figures.append(Figure(f"bare handler, c={MANY}", tuple(s.rate for s in seen["bare", MANY]), "req/s", void=void))
    return figures
