"""Tells pages that come into being from pages that are used again: both are page faults."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.core.heat import Known
from tierd.core.model import PAGE_SIZE
from tierd.errors import TierdError
from tierd.kernel.paths import Root
from tierd.kernel.processes import read_resident
from tierd.service.placed import PlacedProcesses

FEWEST: Final = 64
"""Faults of a process in one reading, below which it is not asked how much it has grown."""
MOSTLY: Final = 1 / 2
"""Of the pages that were never seen before: when the process has grown by as many, that is what they are."""


class FirstTouches:
    """Used by the engine only, with hint faults.

    Whoever fills new memory touches its pages one right after the other, which looks like the hottest use of
    all: a page that is used so soon after its neighbour was first seen is taken to have been unmapped with
    it. Such memory would come up, and pages that are used would go down for it; and at rest, each process
    that grows would pass for a change of the hot set.
    """

    def __init__(self, root: Root, placed: PlacedProcesses) -> None:
        self._root = root
        self._placed = placed
        self._resident: dict[int, int] = {}
        self._listed: dict[int, int] = {}
        self._asked: set[int] = set()

    def refresh(self) -> None:
        """The process list has been looked at."""
        listed = {self._placed.slot_of(view.id): view.resident for view in self._placed.views}
        # as of the list before: what has happened since may still be in the rings
        self._resident = {
            slot: self._resident[slot] if slot in self._asked else self._listed.get(slot, resident)
            for slot, resident in listed.items()
        }
        self._listed = listed
        self._asked.clear()

    def among(
        self, slots: npt.NDArray[np.int64], pages: npt.NDArray[np.uint64], known: Known
    ) -> npt.NDArray[np.bool_]:
        """Which of these faults, the first since the last call, made their page. known: of the heat map,
        which pages it has seen before."""
        made = np.zeros(len(pages), dtype=np.bool_)
        found, faults = np.unique(slots, return_counts=True)
        for slot, grown in self._growth(found[faults >= FEWEST].tolist()):
            these = np.flatnonzero(slots == slot)
            new = these[~known(slots[these], pages[these])]
            if grown >= MOSTLY * len(np.unique(pages[new])):
                made[new] = True
        return made

    def _growth(self, slots: Iterable[int]) -> Iterable[tuple[int, int]]:
        """Slots of processes that have grown, and by how many pages."""
        for slot in slots:
            view = self._placed.by_slot(slot)
            if view is None:
                continue
            try:
                resident = read_resident(self._root, view.id.pid)
            except TierdError:
                continue  # it is ending
            before = self._resident.get(slot, resident)
            self._resident[slot] = resident
            self._asked.add(slot)
            if resident > before:
                yield slot, (resident - before) // PAGE_SIZE
