"""How fast the kernel unmaps slow-tier pages for hint faults: debugfs sched/numa_balancing, by
descriptor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

SCAN_DOORS: Final = ("scan_delay_ms", "scan_period_min_ms", "scan_period_max_ms", "scan_size_mb")
"""The settings this module writes; the helper opens them, and restores them."""


PERIOD: Final = 100
"""Milliseconds of run time after which the kernel first looks at a process, and between two looks."""
FIRST_RESIDENT: Final = 64
"""MiB that a process has touched by then, about."""


class ScanRate:
    """Writes the scan settings when they change. A task takes its period when it is first scanned and keeps
    it; only the size counts for running tasks (task_numa_work, kernel/sched/fair.c), so that is what is
    steered.

    The period that a task takes is the shortest one, divided by how many times the size goes into what it
    holds (task_scan_min). With a small size that is a millisecond or two, for good: what starts at rest was
    looked at a hundred times as often as what was there before. So a small size comes with a longer shortest
    period.
    """

    def __init__(self, doors: Mapping[str, int]) -> None:
        self._doors = {name: doors[name] for name in SCAN_DOORS if name in doors}
        self._written: dict[str, int] = {}

    @property
    def available(self) -> bool:
        return "scan_size_mb" in self._doors

    def prepare(self) -> None:
        """Short delay and period for tasks that begin. Raises OSError."""
        self._write("scan_delay_ms", PERIOD)
        self._write("scan_period_min_ms", PERIOD)
        self._write("scan_period_max_ms", 10 * PERIOD)

    def set_size(self, mebibytes: int) -> None:
        """MiB unmapped each time a task's period has passed. Raises OSError."""
        size = max(1, mebibytes)
        self._write("scan_period_min_ms", PERIOD * max(1, FIRST_RESIDENT // size))
        self._write("scan_size_mb", size)

    def _write(self, name: str, value: int) -> None:
        if name in self._doors and self._written.get(name) != value:
            try:
                os.write(self._doors[name], f"{value}\n".encode("ascii"))
            except OSError as error:
                raise OSError(error.errno, error.strerror, name) from None
            self._written[name] = value
