"""Notices that something of the kernel's by which tierd lives is taken away while it runs: settings, by
tuned, a package that applies sysctl.d or another tiering daemon, and events, by a CPU that goes offline. It
is named, and not fought."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tierd.core.state import MissingFeature
from tierd.errors import TierdError
from tierd.kernel.files import parse_list, read_int, read_text
from tierd.kernel.hint_faults import HintFaults
from tierd.kernel.paths import Root
from tierd.service.helper import TIERING_BIT

BALANCING = MissingFeature(
    "kernel.numa_balancing=2",
    "somebody has changed it: no page of the slow tier is unmapped any more, so that nothing shows its use",
    "find who sets it (sysctl.d, tuned, another tiering daemon), then systemctl restart tierd",
)
RATE_LIMIT = MissingFeature(
    "kernel.numa_balancing_promote_rate_limit_MBps=0",
    "somebody has changed it: the kernel promotes by itself beside tierd",
    "find who sets it (sysctl.d, tuned, another tiering daemon), then systemctl restart tierd",
)
GENERATIONS = MissingFeature(
    "the multi-generational LRU (lru_gen/enabled)",
    "somebody has switched it off: cold pages cannot be told from warm ones, so no room is made in DRAM",
    "find who sets it (tmpfiles.d, tuned), then systemctl restart tierd",
)
EVENTS = MissingFeature(
    "events of every CPU",
    "some CPUs came after the start of tierd, or have been offline since, and the kernel drops the events of"
    " these: what is used on them seems not to be used",
    "systemctl restart tierd",
)
_SUSPENDED: Final = 1.0
"""Seconds of suspend since the last look, from which on all CPUs but the first have been offline."""


class KernelSettings:
    """Used by the engine only. A setting is missed once it has been as tierd needs it: the helper sets the
    last of them when the engine runs already, and names what it could not set. CPUs are those of the first
    look, for which the helper has just opened events (perf_event_exit_cpu in kernel/events/core.c)."""

    def __init__(self, root: Root) -> None:
        self._settings: dict[MissingFeature, tuple[Path, Callable[[int], bool]]] = {
            BALANCING: (root.numa_balancing, lambda value: bool(value & TIERING_BIT)),
            RATE_LIMIT: (root.promote_rate_limit, lambda value: value == 0),
            GENERATIONS: (root.generations_enabled, bool),
        }
        self._had: set[MissingFeature] = set()
        self._lost: set[MissingFeature] = set()
        self._online = root.online_cpus
        self._cpus: set[int] | None = None
        self._suspended = 0.0

    @property
    def missing(self) -> tuple[MissingFeature, ...]:
        """What was taken away, as of the last look."""
        return tuple(found for found in (*self._settings, EVENTS) if found in self._lost)

    def look(self, source: str) -> None:
        """Read them. source: the name of the source of accesses; only hint faults need the balancing."""
        self._look_at_cpus()
        for setting, (path, needed) in self._settings.items():
            if setting is BALANCING and source != HintFaults.name:
                continue
            try:
                value = read_int(path, 0)
            except TierdError:
                continue  # what cannot be read is no news
            if needed(value):
                self._had.add(setting)
                self._lost.discard(setting)
            elif setting in self._had:
                self._lost.add(setting)

    def _look_at_cpus(self) -> None:
        """An event that is gone does not come back with its CPU."""
        try:
            online = set(parse_list(read_text(self._online)))
        except (TierdError, ValueError):
            return
        suspended = suspended_seconds()
        if self._cpus is None:
            self._cpus, self._suspended = online, suspended
        if suspended > self._suspended + _SUSPENDED:
            self._cpus &= {min(self._cpus)}
        self._suspended = suspended
        self._cpus &= online
        (self._lost.discard if online <= self._cpus else self._lost.add)(EVENTS)


def suspended_seconds() -> float:
    """For how long the machine has been suspended in this boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
