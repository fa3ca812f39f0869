"""What a trickle says of a workload that is faster once it is left in peace."""

from __future__ import annotations

import numpy as np

from tierd.core.heat import REGION_PAGES_SHIFT, HeatMap

REGION = 1 << REGION_PAGES_SHIFT
REGIONS = 128
SLOWER, FASTER = 0.1, 0.5
"""Uses a second of each page: while everything is unmapped, and when it is left in peace."""
REST_AT, END = 20.0, 120.0


def test_what_was_unmapped_before_a_rest_does_not_drown_what_is_unmapped_in_it() -> None:
    random = np.random.default_rng(5)
    heat = HeatMap(20.0, 30.0)
    mapped_again = np.zeros(REGIONS * REGION)
    used = np.empty(0), np.empty(0, dtype=np.int64)
    unmapped, turn, resting = 0, 0, False
    for tick in range(int(END * 2)):
        now = tick / 2
        resting = now >= REST_AT
        for _ in range(1 if resting and tick % 4 == 0 else 0 if resting else 8):
            pages = np.arange(REGION) + turn % REGIONS * REGION
            pages = pages[mapped_again[pages] <= now]
            turn += 1
            rate = FASTER if now >= REST_AT + 5 else SLOWER
            mapped_again[pages] = now + random.exponential(1 / rate, len(pages))
            used = np.append(used[0], mapped_again[pages]), np.append(used[1], pages)
            unmapped += len(pages)
        due = used[0] <= now
        order = np.argsort(used[0][due])
        time, page = used[0][due][order], used[1][due][order].astype(np.uint64)
        used = used[0][~due], used[1][~due]
        heat.observe(np.ones(len(page), dtype=np.int64), page, time, np.zeros(len(page), dtype=np.int16))
        if tick % 4 == 0:
            heat.update(now, unmapped, resting=resting, measured=resting)
            unmapped = 0
    assert FASTER / 2 <= heat.typical <= FASTER, "and not as often as they were used before"
