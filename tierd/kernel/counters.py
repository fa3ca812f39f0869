"""The kernel's own counts of pages moved, from /proc/vmstat."""

from __future__ import annotations

from tierd.errors import MalformedError
from tierd.kernel.files import read_text
from tierd.kernel.paths import Root


def read_counters(root: Root) -> dict[str, int]:
    """/proc/vmstat by name. Raises GoneError, DeniedError, MalformedError.

    Every line has to be a counter: one that was skipped would read as 0, and the next as all since boot.
    """
    path = root.proc / "vmstat"
    found: dict[str, int] = {}
    for line in read_text(path).splitlines():
        name, _, value = line.partition(" ")
        if not (name and value.isascii() and value.isdecimal()):
            raise MalformedError(f"{path}: not a counter: {line[:40]!r}")
        found[name] = int(value)
    if not found:
        raise MalformedError(f"{path}: no counters")
    return found


def read_demoted(root: Root) -> int:
    """Base pages demoted on request since boot. Requests through lru_gen count as `direct` up to 6.12 and as
    `proactive` from 7.2 on; what kswapd demotes by itself is not in it."""
    counters = read_counters(root)
    return counters.get("pgdemote_direct", 0) + counters.get("pgdemote_proactive", 0)


def read_unmapped(root: Root) -> int:
    """Base pages unmapped for hint faults since boot (numa_pte_updates; a huge page counts once)."""
    return read_counters(root).get("numa_pte_updates", 0)
