"""The processes being placed, and the small number by which the heat map knows each."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tierd.core.model import ProcessId, ProcessView
from tierd.core.policy import ProcessMatch, ProcessSelection
from tierd.errors import TierdError
from tierd.kernel.cpusets import Nodes, read_allowed_nodes
from tierd.kernel.paths import Root
from tierd.kernel.processes import read_cgroup, selected_processes

LAST_SLOT = (1 << 18) - 1
"""The largest number that the heat map takes for a slot."""


class PlacedProcesses:
    """Used by the engine only. A slot belongs to one process for as long as that is placed; given back, it
    is the last to be taken again, long after the heat map has been pruned."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._slot_of: dict[ProcessId, int] = {}
        self._by_slot: dict[int, ProcessView] = {}
        self._next_slot = 1
        self._pids: npt.NDArray[np.int32] = np.empty(0, dtype=np.int32)
        self._slots: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._allowed: dict[str, Nodes] = {}

    def __len__(self) -> int:
        return len(self._by_slot)

    @property
    def slots(self) -> npt.NDArray[np.int64]:
        return self._slots

    @property
    def views(self) -> tuple[ProcessView, ...]:
        return tuple(self._by_slot.values())

    def refresh(self, selection: ProcessSelection, minimum: int) -> None:
        """Look at the process list again."""
        views = sorted(selected_processes(self._root, selection, minimum), key=lambda view: view.id.pid)
        slot_of = {view.id: self._slot_of[view.id] for view in views if view.id in self._slot_of}
        taken = set(slot_of.values())
        for view in views:
            if view.id not in slot_of:
                slot_of[view.id] = self._free_slot(taken)
        self._slot_of = slot_of
        self._by_slot = {slot_of[view.id]: view for view in views}
        self._pids = np.array([view.id.pid for view in views], dtype=np.int32)
        self._slots = np.array([slot_of[view.id] for view in views], dtype=np.int64)
        known: dict[str, Nodes] = {}
        cgroups = {view.cgroup for view in views}
        self._allowed = {cgroup: read_allowed_nodes(self._root, cgroup, known) for cgroup in cgroups}

    def barred(self, nodes: Iterable[int]) -> dict[int, frozenset[int]]:
        """By each of `nodes` that is not for everybody the slots of the processes that may have no memory
        there: a cpuset says so."""
        found = {}
        for node in nodes:
            without = {
                cgroup for cgroup, may in self._allowed.items() if may is not None and node not in may
            }
            if slots := frozenset(slot for slot, view in self._by_slot.items() if view.cgroup in without):
                found[node] = slots
        return found

    def _free_slot(self, taken: set[int]) -> int:
        # processes of 64 MiB are fewer than slots on any machine there is
        while self._next_slot in taken:
            self._next_slot = self._next_slot % LAST_SLOT + 1
        slot = self._next_slot
        self._next_slot = slot % LAST_SLOT + 1
        taken.add(slot)
        return slot

    def by_slot(self, slot: int) -> ProcessView | None:
        return self._by_slot.get(slot)

    def slot_of(self, process: ProcessId) -> int:
        """The slot of a process, 0 when it is not placed."""
        return self._slot_of.get(process, 0)

    def slots_of(self, pids: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """The slot of each process number, 0 for processes that are not placed."""
        if not len(self._pids):
            return np.zeros(len(pids), dtype=np.int64)
        place = np.searchsorted(self._pids, pids).clip(max=len(self._pids) - 1)
        return np.where(self._pids[place] == pids, self._slots[place], 0)


def without_own(root: Root, selection: ProcessSelection) -> ProcessSelection:
    """The same without the daemon's own cgroup: tierd never touches itself. Called by the engine."""
    try:
        own = read_cgroup(root, os.getpid())
    except TierdError:
        return selection
    return replace(selection, exclude=(*selection.exclude, ProcessMatch(cgroup=glob.escape(own))))
