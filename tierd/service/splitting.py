"""Splits the huge pages of cgroups that contend for DRAM, a little in each round."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from tierd.core.model import HUGE_PAGE_SIZE, ProcessId, ProcessView
from tierd.errors import GoneError, TierdError, UnsupportedError
from tierd.kernel import huge_pages
from tierd.kernel.huge_pages import Range
from tierd.kernel.occupancy import read_occupancy
from tierd.kernel.paths import Root
from tierd.kernel.processes import ProcessWatch

log = logging.getLogger(__name__)

_SLICE: Final = 16
"""Huge pages split by one write: tens of milliseconds under emulation."""
_LOOK_SHARE: Final = 50
"""Between two looks at a process passes at least this many times as long as a look takes, so that a process
whose huge pages are all to be kept costs two per cent of one core."""
_RESTING_LOOK_SHARE: Final = 200
"""The same at rest, where only khugepaged makes huge pages to be split."""
_LEAST_PAUSE: Final = 1.0
"""Seconds between two looks at a process at least."""

_LEAST_SLOW: Final = 1 / 64
"""Of what a cgroup holds: with less on slow nodes it fits in DRAM. A little page cache soon goes down."""

Numbers = npt.NDArray[np.uint64]


class Keeper(Protocol):
    """Who remembers what was split, and what is to stay whole (service/rebuilding.py)."""

    def kept(self, process: ProcessId) -> tuple[Range, ...]: ...

    def adopt(self, process: ProcessId, ranges: Numbers) -> Numbers: ...

    def note_split(self, process: ProcessId, ranges: Numbers) -> None: ...


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look found, as far as it has not been split yet. huge: numbers of 2 MiB. sure: whether they are
    huge pages; else some of them may be."""

    huge: Numbers
    sure: bool


class Splitter:
    """Used by the engine only. `descriptor` is debugfs split_huge_pages, None where the helper could not
    open it."""

    def __init__(self, root: Root, descriptor: int | None) -> None:
        self._root = root
        self._descriptor = descriptor
        self._next_look: dict[ProcessId, float] = {}
        self._found: dict[ProcessId, _Found] = {}

    @property
    def available(self) -> bool:
        return self._descriptor is not None

    def split(
        self,
        views: tuple[ProcessView, ...],
        dram: frozenset[int],
        slow: frozenset[int],
        seconds: float,
        keeper: Keeper,
        *,
        resting: bool = False,
    ) -> int:
        """Split the huge pages of processes whose cgroup has huge pages in DRAM and memory on a slow node,
        but for those that `keeper` keeps, for at most about `seconds`. Returns how many huge pages were
        split, by looking again."""
        deadline = time.monotonic() + seconds
        done = 0
        contended: dict[str, bool] = {}
        placed = {view.id for view in views}
        self._next_look = {process: when for process, when in self._next_look.items() if process in placed}
        self._found = {process: found for process, found in self._found.items() if process in placed}
        for view in views:
            begun = time.monotonic()
            if not self._next_look.get(view.id, 0.0) <= begun < deadline:
                continue
            if view.cgroup not in contended:
                contended[view.cgroup] = self._contends(view.cgroup, dram, slow)
            if contended[view.cgroup]:
                split = self._split_process(view.id, deadline, keeper)
                done += split
                ended = time.monotonic()
                if not split and view.id not in self._found:
                    share = _RESTING_LOOK_SHARE if resting else _LOOK_SHARE
                    pause = max(_LEAST_PAUSE, share * (ended - begun))
                    self._next_look[view.id] = ended + pause
        return done

    def _contends(self, cgroup: str, dram: frozenset[int], slow: frozenset[int]) -> bool:
        try:
            huge = read_occupancy(self._root, cgroup, names=("anon_thp",))
            if not any(huge.get(n, 0) for n in dram):
                return False
            held = read_occupancy(self._root, cgroup)
        except TierdError:
            return False
        return sum(held.get(n, 0) for n in slow) > _LEAST_SLOW * sum(held.values())

    def _split_process(self, process: ProcessId, deadline: float, keeper: Keeper) -> int:
        pid, kept = process.pid, _numbers(keeper.kept(process))
        # a look through a large process may take longer than there is time to split
        found = self._found.pop(process, None)
        done = 0
        try:
            # views are seconds old, and splitting knows numbers only: another may have this one by now
            with ProcessWatch(self._root, process) as watch:
                if found is None:
                    found = self._look(process, kept, keeper)
                huge = np.setdiff1d(found.huge, kept)
                before = 0 if found.sure else huge_pages.huge_bytes(self._root, pid)
                written = self._write(watch, pid, huge, deadline)
                if written < len(huge):
                    self._found[process] = replace(found, huge=huge[written:])
                if found.sure:
                    split = huge[:written]
                    if written:
                        left = _numbers(huge_pages.huge_ranges(self._root, pid, _runs(split)))
                        split = np.setdiff1d(split, left)
                    done = len(split)
                else:
                    split = np.empty(0, dtype=np.uint64)
                    done = max(0, before - huge_pages.huge_bytes(self._root, pid)) // HUGE_PAGE_SIZE
        except (TierdError, OSError) as error:
            log.debug("splitting huge pages of process %d: %s", pid, error)
            return done
        if done:
            keeper.note_split(process, split)
        return done

    def _look(self, process: ProcessId, kept: Numbers, keeper: Keeper) -> _Found:
        """What of a process is to be split. Raises TierdError."""
        try:
            huge = np.setdiff1d(_numbers(huge_pages.huge_ranges(self._root, process.pid)), kept)
        except UnsupportedError:
            # Linux 6.1 does not say where they are; splitting a range without any does no harm
            return _Found(_numbers(huge_pages.private_mappings(self._root, process.pid)), sure=False)
        return _Found(np.setdiff1d(huge, keeper.adopt(process, huge)), sure=True)

    def _write(self, watch: ProcessWatch, pid: int, numbers: Numbers, deadline: float) -> int:
        """Returns how many of `numbers`, from the first on, there was time for. Raises OSError, and
        GoneError when the process has ended."""
        assert self._descriptor is not None
        written = 0
        for run in _runs(numbers):
            for start in range(run.start, run.end, _SLICE * HUGE_PAGE_SIZE):
                if time.monotonic() > deadline:
                    return written
                if not watch.alive:
                    raise GoneError(f"process {pid} exited")
                end = min(start + _SLICE * HUGE_PAGE_SIZE, run.end)
                huge_pages.split(self._descriptor, pid, Range(start, end))
                written += (end - start) // HUGE_PAGE_SIZE
        return written


def _numbers(ranges: Iterable[Range]) -> Numbers:
    """The whole 2 MiB within `ranges`, by number, in order."""
    parts = [
        np.arange(-(-part.start // HUGE_PAGE_SIZE), part.end // HUGE_PAGE_SIZE, dtype=np.uint64)
        for part in ranges
    ]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.uint64)


def _runs(numbers: Numbers) -> tuple[Range, ...]:
    """Numbers of 2 MiB, in order, as ranges of adjacent ones."""
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    return tuple(
        Range(int(run[0]) * HUGE_PAGE_SIZE, (int(run[-1]) + 1) * HUGE_PAGE_SIZE)
        for run in np.split(numbers, breaks)
        if len(run)
    )
