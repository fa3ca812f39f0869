"""Splits the huge pages of cgroups that contend for DRAM, a little in each round."""

from __future__ import annotations

import logging
import time

from tierd.core.model import HUGE_PAGE_SIZE, ProcessView
from tierd.errors import TierdError, UnsupportedError
from tierd.kernel import huge_pages
from tierd.kernel.huge_pages import Range
from tierd.kernel.occupancy import read_occupancy
from tierd.kernel.paths import Root

log = logging.getLogger(__name__)

_SLICE = 16 * HUGE_PAGE_SIZE
"""Bytes of address space split by one write: tens of milliseconds under emulation."""


class Splitter:
    """Used by the engine only. `descriptor` is debugfs split_huge_pages, None where the helper could not
    open it."""

    def __init__(self, root: Root, descriptor: int | None) -> None:
        self._root = root
        self._descriptor = descriptor

    @property
    def available(self) -> bool:
        return self._descriptor is not None

    def split(
        self, views: tuple[ProcessView, ...], dram: frozenset[int], slow: frozenset[int], seconds: float
    ) -> int:
        """Split the huge pages of processes whose cgroup has huge pages in DRAM and memory on a slow node,
        for at most about `seconds`. Returns how many huge pages were split, by looking again."""
        deadline = time.monotonic() + seconds
        done = 0
        contended: dict[str, bool] = {}
        for view in views:
            if view.cgroup not in contended:
                contended[view.cgroup] = self._contends(view.cgroup, dram, slow)
            if contended[view.cgroup] and time.monotonic() < deadline:
                done += self._split_process(view.id.pid, deadline)
        return done

    def _contends(self, cgroup: str, dram: frozenset[int], slow: frozenset[int]) -> bool:
        try:
            small = read_occupancy(self._root, cgroup)
            huge = read_occupancy(self._root, cgroup, names=("anon_thp",))
        except TierdError:
            return False
        return any(huge.get(n, 0) for n in dram) and any(small.get(n, 0) for n in slow)

    def _split_process(self, pid: int, deadline: float) -> int:
        assert self._descriptor is not None
        try:
            try:
                ranges = huge_pages.huge_ranges(self._root, pid)
            except UnsupportedError:
                # Linux 6.1 does not say where they are; splitting a range without any does no harm
                ranges = tuple(huge_pages.private_mappings(self._root, pid))
            before = huge_pages.huge_bytes(self._root, pid)
            for target in ranges:
                for start in range(target.start, target.end, _SLICE):
                    if time.monotonic() > deadline:
                        break
                    huge_pages.split(self._descriptor, pid, Range(start, min(start + _SLICE, target.end)))
            return max(0, before - huge_pages.huge_bytes(self._root, pid)) // HUGE_PAGE_SIZE
        except (TierdError, OSError) as error:
            log.debug("splitting huge pages of process %d: %s", pid, error)
            return 0
