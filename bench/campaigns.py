"""Campaigns and tickets over ninety simulated days, with two tools that fail in all the usual ways: whom marketing reached all the same.

The same history is lived through in four worlds (bench.campaigns_run). Before a figure counts, the simulation must find leaks where the
reconciler or the gate is switched off.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import structlog

import hub.storage  # noqa: F401  (picks the SQLite library before anything imports sqlite3)
from bench import machine
from bench.campaigns_run import Outcome, Run
from bench.campaigns_world import FREEZES, GATED, TOOLS, Size, draw
from bench.databases import Databases
from bench.report import Figure

FULL = Size()
SHORT = Size(customers=400, events=3_000, campaigns=60, days=14)  # for what is switched off
MEMORY = Path("/dev/shm")  # what a disk's flush costs is measured elsewhere
IN_MEMORY = MEMORY.is_dir()
NAMES = {FREEZES: "the tool that freezes recipients (as Klaviyo)", GATED: "the tool that asks the gate (as Braze)"}
WORLDS = {
    "a": "(a) no hub",
    "b": "(b) a flag only",
    "c": "(c) reconciled holds",
    "d-": "(d) with the gate switched off",
    "d~": "(d) campaigns that fail open",
    "d": "(d) with gate and watch",
}
CAUSES = {
    "frozen_list": "recipients fixed before the hold",
    "missing_filter": "the campaign lacks the filter",
    "lag": "the tool's segment was late",
    "our_delay": "not told yet",
    "tool down": "the tool's API was down",
    "never seen": "scheduled and sent while the hub or the tool's API was down, so that its filter is not known",
    "unexplained": "UNEXPLAINED",
}


def live(size: Size, directory: Path, reconciles: bool = True) -> Outcome:
    """One history from its first day to its last, in a directory of its own; the same for the same size."""
    quiet = structlog.make_filtering_bound_logger(logging.ERROR)  # a simulated outage warns thousands of times
    before = structlog.get_config()
    structlog.configure(wrapper_class=quiet, cache_logger_on_first_use=False)

    async def run() -> Outcome:
        return await Run(Path(place), draw(size), reconciles).live()

    try:
        with tempfile.TemporaryDirectory(prefix="campaigns-", dir=directory) as place:
            return asyncio.run(run())
    finally:
        structlog.configure(**before)


async def measure(databases: Databases, rounds: int) -> list[Figure]:
    """One full history, whatever the rounds: it is the same each time."""
    directory = MEMORY if IN_MEMORY else databases.directory
    loop = asyncio.get_running_loop()
    with machine.confined(machine.usable()), ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        began = time.monotonic()
        short = [loop.run_in_executor(pool, live, SHORT, directory, reconciles) for reconciles in (True, False)]
        whole = loop.run_in_executor(pool, live, FULL, directory)
        on, off = await asyncio.gather(*short)
        print("\n".join(switched_off(on, off)), flush=True)
        full = await whole
    print("\n".join(told(FULL, full)), flush=True)
    return figures(full, on, off, time.monotonic() - began)


def switched_off(on: Outcome, off: Outcome) -> list[str]:
    """What the simulation finds where something is missing; a simulation that found nothing then would prove nothing."""
    return [
        f"\nShort form ({SHORT.customers:,} customers, {SHORT.events:,} ticket events, {SHORT.campaigns} campaigns, {SHORT.days} days):",
        f"  reconciled, {_leaks(on, 'c'):,} messages reached held customers in (c); with the reconciler switched off, {_leaks(off, 'c'):,}",
        f"  with the gate, {on.leaks['d', GATED]:,} in (d) from the tool that asks it; with it switched off, {on.leaks['d-', GATED]:,}",
    ]


def _leaks(outcome: Outcome, world: str) -> int:
    return sum(outcome.leaks[world, tool] for tool in TOOLS)


def figures(full: Outcome, on: Outcome, off: Outcome, seconds: float) -> list[Figure]:
    """What must hold, and what is worth knowing."""
    unexplained = sum(many for (_, _, cause), many in full.causes.items() if cause == "unexplained")
    found = [
        Figure(
            "leaks more with the reconciler switched off (short form)", (float(_leaks(off, "c") - _leaks(on, "c")),), "messages", at_least=1
        ),
        Figure("leaks with the gate switched off", (float(full.leaks["d-", GATED]),), "messages", at_least=1),
        Figure("leaks in (d), the tool with a gate", (float(full.leaks["d", GATED]),), "messages", at_most=0),
        Figure("leaks in (c) and (d) that nobody can explain", (float(unexplained),), "messages", at_most=0),
        Figure("answers of the gate that the history contradicts", (float(full.disagreed),), "answers", at_most=0),
        Figure("other things that must not be", (float(len(full.odd)),), "", at_most=0, note="; ".join(full.odd[:5])),
        Figure("campaigns simulated in", (seconds,), "s"),
    ]
    for world in ("a", "b", "c", "d"):
        for tool in TOOLS:
            many = float(full.leaks[world, tool])
            found.append(Figure(f"messages to held customers, {WORLDS[world]}, {tool} tool", (many,), "messages"))
    for tool in TOOLS:
        for name, share in (("p50", 0.5), ("p95", 0.95)):
            found.append(Figure(f"hold wanted to confirmed, {tool} tool, {name}", (quantile(full.confirmed[tool], share) / 1e3,), "s"))
    return found


def told(size: Size, outcome: Outcome) -> list[str]:
    """The whole story, a line each."""
    lines = [
        f"\n{size.customers:,} customers, {sum(outcome.counts[kind] for kind in _EVENTS):,} ticket events, {size.campaigns} campaigns, "
        f"{size.days} days, seed {size.seed}; "
        f"{outcome.counts['merged']} merges, {outcome.counts['unmerged']} undone, {outcome.counts['crashes']} crashes with deliveries in "
        f"hand, {outcome.counts['tries']:,} tries for {outcome.counts['deliveries']:,} deliveries"
    ]
    for tool in TOOLS:
        lines.append(f"\n{NAMES[tool]}:")
        for world, name in WORLDS.items():
            key = (world, tool)
            if key in outcome.sent:
                lines.append(
                    f"  {name:<32}{outcome.sent[key]:>9,} sent, {outcome.leaks[key]:>6,} of them to held customers, in "
                    f"{len(outcome.reached[key]):>3} campaigns; {outcome.needless[key]:,} kept from customers not held"
                )
        for world in ("c", "d"):
            why = [f"{CAUSES[c]} {many:,}" for (w, t, c), many in sorted(outcome.causes.items()) if (w, t) == (world, tool)]
            lines.append(f"  why in ({world}): {', '.join(why) or 'nobody was reached'}")
        for world in ("b", "c"):
            kept = outcome.kept[world, tool]
            lines.append(
                f"  held on without need after the last ticket, ({world}): p50 {_span(quantile(kept, 0.5))}, "
                f"p95 {_span(quantile(kept, 0.95))}, "
                f"longest {_span(max(kept, default=0))}; {outcome.stuck[world, tool]:,} still at the end"
            )
        lines += [
            f"  hold wanted to {what}: p50 {_span(quantile(times, 0.5) / 1e3)}, p95 {_span(quantile(times, 0.95) / 1e3)}"
            for what, times in (("confirmed", outcome.confirmed[tool]), ("effective (looked at every 5 min)", outcome.effective[tool]))
        ]
    lines += [
        f"\nThe gate: {outcome.asked:,} questions, {outcome.aborted:,} messages kept back. {outcome.gate_down} campaigns went out while "
        f"it was down: {outcome.closed:,} messages not sent, as they fail closed; had they failed open, {outcome.leaks['d~', GATED]:,} "
        "of them would have reached held customers.",
        f"The watch: {outcome.warned} warnings, campaigns mended {outcome.mended} times. In (d), {outcome.unseen} messages went to "
        "customers who had written while the hub was down, of whom it could not know.",
    ]
    return lines


_EVENTS = ("writes", "assigned", "snoozed", "woken", "reopened", "resolved", "merged", "unmerged")


def quantile(times: Sequence[float], share: float) -> float:
    """The value that a share of all do not exceed; 0 of none."""
    return sorted(times)[min(len(times) - 1, int(share * len(times)))] if times else 0.0


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return (
        f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"
    )
