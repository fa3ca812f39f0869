"""How fast the kernel unmaps slow-tier pages for hint faults: debugfs sched/numa_balancing, by
descriptor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

SCAN_DOORS: Final = ("scan_delay_ms", "scan_period_min_ms", "scan_period_max_ms", "scan_size_mb")
"""The settings this module writes; the helper opens them, and restores them."""


class ScanRate:
    """Writes the scan settings when they change. A task takes its period when it is first scanned and keeps
    it; only the size counts for running tasks (task_numa_work, kernel/sched/fair.c), so that is what is
    steered."""

    def __init__(self, doors: Mapping[str, int]) -> None:
        self._doors = {name: doors[name] for name in SCAN_DOORS if name in doors}
        self._written: dict[str, int] = {}

    @property
    def available(self) -> bool:
        return "scan_size_mb" in self._doors

    def prepare(self) -> None:
        """Short delay and period for tasks that begin. Raises OSError."""
        self._write("scan_delay_ms", 100)
        self._write("scan_period_min_ms", 100)
        self._write("scan_period_max_ms", 1000)

    def set_size(self, mebibytes: int) -> None:
        """MiB unmapped each time a task's period has passed. Raises OSError."""
        self._write("scan_size_mb", max(1, mebibytes))

    def _write(self, name: str, value: int) -> None:
        if name in self._doors and self._written.get(name) != value:
            try:
                os.write(self._doors[name], f"{value}\n".encode("ascii"))
            except OSError as error:
                raise OSError(error.errno, error.strerror, name) from None
            self._written[name] = value
