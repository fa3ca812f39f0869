"""How hard to look: at full rate while the picture is wrong, a trickle once it is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FULL_SIZE: Final = 256
"""MiB unmapped at a time at full rate: the kernel's own default (sysctl_numa_balancing_scan_size)."""
TRICKLE_SIZE: Final = 4
"""MiB unmapped at a time at rest: enough to notice within seconds that the hot set has changed."""
WRONG: Final = 0.005
"""Share of DRAM's pages that one round found hot on a slow node, above which the picture counts as wrong."""
_SLOWDOWN: Final = 0.6
"""Factor a round on the way to rest: from full to trickle in about eight rounds."""


@dataclass(slots=True)
class ScanGovernor:
    """The scan size for the next round. Owned by the engine; `size` in MiB."""

    size: float = FULL_SIZE

    def update(self, found: int, dram_pages: int) -> int:
        """found: pages that were worth promoting in this round; dram_pages: base pages of all DRAM nodes."""
        if found > WRONG * dram_pages:
            self.size = FULL_SIZE
        else:
            self.size = max(TRICKLE_SIZE, self.size * _SLOWDOWN)
        return int(self.size)

    @property
    def resting(self) -> bool:
        return self.size <= TRICKLE_SIZE
