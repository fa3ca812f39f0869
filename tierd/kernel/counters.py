"""The kernel's own counts of pages moved, from /proc/vmstat."""

from __future__ import annotations

import re

from tierd.kernel.files import read_text
from tierd.kernel.paths import Root

_COUNTER = re.compile(r"^(\w+) (\d+)$", re.MULTILINE)


def read_counters(root: Root) -> dict[str, int]:
    """/proc/vmstat by name. Raises GoneError, DeniedError."""
    return {name: int(value) for name, value in _COUNTER.findall(read_text(root.proc / "vmstat"))}


def read_demoted(root: Root) -> int:
    """Base pages demoted on request since boot. Requests through lru_gen count as `direct` up to 6.12 and as
    `proactive` from 7.2 on; what kswapd demotes by itself is not in it."""
    counters = read_counters(root)
    return counters.get("pgdemote_direct", 0) + counters.get("pgdemote_proactive", 0)


def read_unmapped(root: Root) -> int:
    """Base pages unmapped for hint faults since boot (numa_pte_updates; a huge page counts once)."""
    return read_counters(root).get("numa_pte_updates", 0)
