"""What tierd itself costs, so that an operator can hold it to its promise."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class OwnCost:
    """cpu_seconds: user and system time since the daemon started. resident_bytes: its resident memory
    now."""

    cpu_seconds: float = 0.0
    resident_bytes: int = 0


def read_own_cost() -> OwnCost:
    """The cost of the calling process."""
    process = _own()
    times = process.cpu_times()
    return OwnCost(times.user + times.system, process.memory_info().rss)


@functools.cache
def _own() -> psutil.Process:
    return psutil.Process()
