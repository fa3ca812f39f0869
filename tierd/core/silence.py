"""Telling "nothing is used" from "nothing can be seen".

A hypervisor may hide accessed bits, and a source may fall silent without an error. Generations then report
everything idle, and whoever believed them would demote what is hottest. One access seen anywhere is proof
that somebody looks; none at all proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ALL_IDLE: Final = 0.98
"""Share of the memory in DRAM that has to be idle for all of it to count as idle. Where accessed bits are
hidden, what has just been allocated still looks young."""

NOTHING_SEEN: Final = "no access was seen anywhere, so that idle memory cannot be told from hidden accesses"


@dataclass(slots=True)
class Silence:
    """Whether the source has been silent for a whole pass. Owned by the engine, updated once a round.

    Silent at first: what has not spoken yet has not been heard.
    """

    _heard: bool = False
    _unmapped: int = 0

    def update(self, accesses: int, unmapped: int, slow_pages: int, passes: int = 0) -> bool:
        """accesses: of placed processes, seen since the last call. unmapped: pages that the kernel unmapped
        since then, to see them used. slow_pages: pages placed on slow nodes, which is what a pass unmaps.
        passes: those that the source made by itself. Returns whether nothing was heard from a whole pass."""
        if accesses:
            self._heard, self._unmapped = True, 0
        else:
            self._unmapped += unmapped
            if passes or self._unmapped >= slow_pages > 0:
                self._heard = False
        return not self._heard


def proves_nothing(silent: bool, idle_pages: int, dram_pages: int) -> bool:
    """Whether idleness must not be acted upon. idle_pages: base pages in DRAM that generations call idle, of
    the `dram_pages` that they cover there."""
    return silent and idle_pages >= ALL_IDLE * dram_pages
