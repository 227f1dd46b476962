"""python -m tests.simulation [--storm] SEED [SEED ...]: run seeds again and print what happened in them."""

from __future__ import annotations

import sys

from tests.simulation.process import STORM
from tests.simulation.world import World


def main() -> int:
    failed = 0
    weather = STORM if "--storm" in sys.argv else None
    for seed in (int(word) for word in sys.argv[1:] if word != "--storm"):
        world = World(seed, traced=True, weather=weather)
        try:
            world.run()
        except AssertionError as error:
            failed += 1
            world.trace.append(f"FAILED {error}")
        sys.stdout.write("\n".join(world.trace) + "\n")
        sys.stdout.write(f"seed {seed}: {world.loop.steps} steps, {world.commits} commits, {world.loop.now:.0f} virtual seconds\n")
    return 1 if failed else 0


sys.exit(main())
