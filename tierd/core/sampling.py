"""How hard to look: at full rate while the picture is wrong, a trickle once it is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FULL_SIZE: Final = 256
"""MiB unmapped at a time at full rate: the kernel's own default (sysctl_numa_balancing_scan_size)."""
TRICKLE_SIZE: Final = 4
"""MiB unmapped at a time at rest: enough to notice within seconds that the hot set has changed."""
WRONG: Final = 0.005
"""Share of DRAM's pages that are known to be hot on a slow node, above which the picture counts as wrong."""


@dataclass(slots=True)
class ScanGovernor:
    """The scan size for the next round. Owned by the engine; `size` in MiB.

    A round that finds little proves little: the kernel may not have come by. It rests only after everything
    on the slow nodes has been unmapped once without the picture turning out wrong.
    """

    size: int = FULL_SIZE
    _seen: int = 0

    def update(self, found: int, dram_pages: int, unmapped: int, slow_pages: int) -> int:
        """found: pages on slow nodes that are worth promoting now. dram_pages: base pages of all DRAM
        nodes. unmapped: pages that the kernel unmapped since the last call. slow_pages: pages placed on slow
        nodes."""
        if found > WRONG * dram_pages:
            self.size, self._seen = FULL_SIZE, 0
            return self.size
        self._seen += unmapped
        if self._seen >= slow_pages > 0:
            self.size = TRICKLE_SIZE
        return self.size

    @property
    def resting(self) -> bool:
        return self.size <= TRICKLE_SIZE
