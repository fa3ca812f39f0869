"""Which pages owners have locked into memory: they stay where they are, used or not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.core.model import ProcessId
from tierd.errors import GoneError, TierdError
from tierd.kernel.paths import Root
from tierd.kernel.residence import locked_ranges
from tierd.service.placed import PlacedProcesses

ANSWER_SECONDS: Final = 10.0
"""For which an answer holds: one small file for each process, and smaps of the few that lock anything."""
MOST_SHARE: Final = 100
"""Times as long as an answer took it holds at least: smaps costs 12 ms a GiB of small pages."""

Pages = npt.NDArray[np.uint64]


class LockedPages:
    """Used by the engine only, in its thread."""

    def __init__(self, root: Root, placed: PlacedProcesses, clock: Callable[[], float]) -> None:
        self._root = root
        self._placed = placed
        self._clock = clock
        self._next_look = -math.inf
        self._bounds: dict[ProcessId, Pages] = {}  # start and end of each range, in order
        self._until: dict[ProcessId, float] = {}

    def among(self, slots: npt.NDArray[np.int64], pages: Pages) -> npt.NDArray[np.bool_]:
        """Which pages are locked; all of a process that does not let it be read."""
        self._look()
        found = np.zeros(len(pages), dtype=np.bool_)
        for process, bounds in self._bounds.items():
            mine = np.flatnonzero(slots == self._placed.slot_of(process))
            # an odd number of bounds at or below a page: it is within a range
            found[mine] = np.searchsorted(bounds, pages[mine], side="right") & 1
        return found

    def _look(self) -> None:
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + ANSWER_SECONDS
        placed = {view.id for view in self._placed.views}
        self._until = {process: until for process, until in self._until.items() if process in placed}
        self._bounds = {process: bounds for process, bounds in self._bounds.items() if process in placed}
        for process in placed:
            if self._until.get(process, now) > now:
                continue
            self._bounds.pop(process, None)
            begun = time.monotonic()
            try:
                ranges = locked_ranges(self._root, process.pid)
            except GoneError:
                ranges = []
            except TierdError:
                ranges = [(0, 1 << 63)]
            self._until[process] = now + MOST_SHARE * (time.monotonic() - begun)
            if ranges:
                self._bounds[process] = np.array(ranges, dtype=np.uint64).ravel()
