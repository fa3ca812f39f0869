"""How hard to look: at full rate while the picture is wrong, a trickle once it is right."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Final

FULL_SIZE: Final = 256
"""MiB unmapped at a time at full rate: the kernel's own default (sysctl_numa_balancing_scan_size)."""
TRICKLE_SIZE: Final = 4
"""MiB unmapped at a time at rest: enough to notice within seconds that the hot set has changed."""
WRONG: Final = 0.005
"""Share of DRAM's pages that are known to be hot on a slow node, above which the picture counts as wrong."""


WINDOW: Final = 5
"""Rounds over which a trickle is judged."""
SURPRISE: Final = 3.0
"""A trickle that finds so many times as many hot pages as it used to, for each page unmapped, says that the
hot set has changed. All of it is far more than the trickle has come by."""
FEWEST_FOUND: Final = 32
"""Pages in the window; fewer may be luck."""
REMEMBERED: Final = 25
"""Rounds from which it is known what a trickle used to find, the window among them."""


@dataclass(slots=True)
class ScanGovernor:
    """The scan size for the next round. Owned by the engine; `size` in MiB.

    A round that finds little proves little: the kernel may not have come by. It rests only after everything
    on the slow nodes has been unmapped once without the picture turning out wrong.
    """

    size: int = FULL_SIZE
    _seen: int = 0
    _rounds: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def update(self, found: int, dram_pages: int, unmapped: int, slow_pages: int) -> int:
        """found: pages on slow nodes that are worth promoting now. dram_pages: base pages of all DRAM
        nodes. unmapped: pages that the kernel unmapped since the last call. slow_pages: pages placed on slow
        nodes."""
        if found > WRONG * dram_pages or (self.resting and self._surprised(found, unmapped)):
            self.size, self._seen = FULL_SIZE, 0
            return self.size
        self._seen += unmapped
        if self._seen >= slow_pages > 0 and not self.resting:
            self.size = TRICKLE_SIZE
            self._rounds.clear()
        return self.size

    @property
    def resting(self) -> bool:
        return self.size <= TRICKLE_SIZE

    def _surprised(self, found: int, unmapped: int) -> bool:
        """Whether the last rounds found far more than the median of those before."""
        self._rounds.append((found, unmapped))
        before, now = list(self._rounds)[:-WINDOW], list(self._rounds)[-WINDOW:]
        if len(before) < WINDOW:
            return False
        usual = median(pages / max(1, looked_at) for pages, looked_at in before)
        found_now = sum(pages for pages, _ in now)
        unmapped_now = sum(looked_at for _, looked_at in now)
        return found_now >= FEWEST_FOUND and found_now > SURPRISE * usual * unmapped_now
