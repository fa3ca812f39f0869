"""Notices that a setting of the kernel by which tierd lives is taken away while it runs: by tuned, a package
that applies sysctl.d, another tiering daemon. It is named, and not fought."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tierd.core.state import MissingFeature
from tierd.errors import TierdError
from tierd.kernel.files import read_int
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


class KernelSettings:
    """Used by the engine only. A setting is missed once it has been as tierd needs it: the helper sets the
    last of them when the engine runs already, and names what it could not set."""

    def __init__(self, root: Root) -> None:
        self._settings: dict[MissingFeature, tuple[Path, Callable[[int], bool]]] = {
            BALANCING: (root.numa_balancing, lambda value: bool(value & TIERING_BIT)),
            RATE_LIMIT: (root.promote_rate_limit, lambda value: value == 0),
            GENERATIONS: (root.generations_enabled, bool),
        }
        self._had: set[MissingFeature] = set()
        self._lost: set[MissingFeature] = set()

    @property
    def missing(self) -> tuple[MissingFeature, ...]:
        """What was taken away, as of the last look."""
        return tuple(setting for setting in self._settings if setting in self._lost)

    def look(self, source: str) -> None:
        """Read them. source: the name of the source of accesses; only hint faults need the balancing."""
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
