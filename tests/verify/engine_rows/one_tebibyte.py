"""Feeds tierd's heat map and planner with the hint faults of a process of 1 TiB, in a Python of its own, and
prints what that took: `python -m tests.verify.engine_rows.one_tebibyte [SECONDS]` (simulated, 180).

The kernel sweeps the address space once in ten minutes. Seven faults in ten are hot pages of the part that
was just unmapped, which are used within a second; the others are cold pages from anywhere behind. A tenth of
the 2 MiB ranges are hot. Times are CPU seconds, which do not depend on what else the machine does.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np
import numpy.typing as npt

from tierd.core import planner
from tierd.core.heat import HeatMap
from tierd.core.model import Node
from tierd.core.policy import EnginePolicy

Pages = npt.NDArray[np.uint64]

PAGES = 1 << 28
FAULTS_PER_SECOND = 60_000
READINGS_PER_SECOND = 10
HOT_SHARE = 0.1
HOT_FAULTS = 0.7
SWEEP_PER_SECOND = PAGES // 600
MOST_HOT = 1 << 18
"""Pages that one round of the engine considers."""
GIB = 1 << 30


def is_hot(page: Pages) -> npt.NDArray[np.bool_]:
    """Whether the 2 MiB range of each page is one of the hot tenth, by a hash."""
    ranges = (page >> np.uint64(9)) * np.uint64(0x9E3779B97F4A7C15)
    return (ranges >> np.uint64(40)) % np.uint64(1000) < np.uint64(1000 * HOT_SHARE)


def draw(random: np.random.Generator, low: int, high: int, count: int, hot: bool) -> Pages:
    """`count` different pages of [low, high) that are hot, or that are not."""
    pages = random.integers(low, high, size=int(count / (HOT_SHARE if hot else 1 - HOT_SHARE) * 1.3))
    unique = np.unique(pages.astype(np.uint64))
    chosen = unique[is_hot(unique) == hot]
    return random.permutation(chosen)[:count]


def main(seconds: int) -> None:
    random, sockets = np.random.default_rng(1), np.random.default_rng(2)
    heat = HeatMap(EnginePolicy().heat_half_life)
    dram = Node(0, 96 * GIB, 2 * GIB, 1 * GIB, has_cpus=True, movable_only=False)
    slow = Node(1, 1024 * GIB, 64 * GIB, 1 * GIB, has_cpus=False, movable_only=True)
    cold = (planner.ColdStock("/load", 1, 0, 1, 10.0, 1 << 20, 0.1),)
    step = 1 / READINGS_PER_SECOND
    per_reading = FAULTS_PER_SECOND // READINGS_PER_SECOND
    faults = 0
    slowest = hot_share = 0.0
    observing = 0.0
    base = 1 << 30  # page number of the first page: addresses of a process begin high
    for second in range(seconds):
        for reading in range(READINGS_PER_SECOND):
            now = second + reading * step
            sweep = int(now * SWEEP_PER_SECOND) % PAGES + SWEEP_PER_SECOND
            wanted_hot = int(per_reading * HOT_FAULTS)
            hot = draw(random, max(0, sweep - SWEEP_PER_SECOND), sweep, wanted_hot, True)
            rest = draw(random, 0, sweep, per_reading - len(hot), False)
            page = np.concatenate([hot, rest]) + np.uint64(base)
            at = np.sort(random.uniform(now, now + step, len(page)))
            near = sockets.integers(0, 2, len(page)).astype(np.int16)
            begun = time.process_time()
            heat.observe(np.ones(len(page), dtype=np.int64), random.permutation(page), at, near)
            observing += time.process_time() - begun
            faults += len(page)
        now = second + 1.0
        begun = time.process_time()
        if second % 10 == 9:
            heat.prune(now, np.ones(1, dtype=np.int64))
        heat.update(now, FAULTS_PER_SECOND, resting=False, measured=False)
        hottest = heat.hottest(now, 1 / planner.IDLE_WITHOUT_SWAP, MOST_HOT)
        plan = planner.plan(planner.Observation(hottest, cold, (dram,), (slow,), 1 << 15))
        slowest = max(slowest, time.process_time() - begun)
        for promotion in plan.promotions:
            slots, pages = hottest.slot[promotion.which], hottest.page[promotion.which]
            hot_share = float(is_hot(pages - np.uint64(base)).mean())
            heat.forget(slots, pages)
    print(
        json.dumps(
            {
                "simulated_seconds": seconds,
                "faults": faults,
                "pages": len(heat),
                "state_bytes": heat.nbytes,
                "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "slowest_round": slowest,
                "observe_share": observing / seconds,
                "hot_share": hot_share,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 180)
