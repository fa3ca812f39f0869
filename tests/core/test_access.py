"""Accesses as values."""

from __future__ import annotations

import numpy as np

from tierd.core.access import Accesses
from tierd.core.model import Topology


def test_the_node_near_each_access() -> None:
    """CPU 3 has no DRAM of its own, and CPU 4 and those behind came online later."""
    cpu = np.array([2, 0, 3, 4, 500], dtype=np.int32)
    seen = Accesses(cpu, cpu.astype(np.uint64), cpu.astype(np.float64), cpu)
    assert seen.near(Topology((), near=(0, 0, 1, -1))).tolist() == [1, 0, -1, -1, -1]
    assert seen.near(Topology(())).tolist() == [-1] * 5
