"""Moves pages of one process to one node in short batches, and says what became of each."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.core.budget import LARGEST_BATCH, SMALLEST_BATCH, BatchSize
from tierd.core.model import PAGE_SIZE, PAGES_PER_HUGE_PAGE, ProcessId
from tierd.core.outcome import Outcome
from tierd.errors import TierdError
from tierd.kernel.huge_pages import HugePageFinder
from tierd.kernel.page_calls import STATUS_UNKNOWN, move_pages, query_nodes
from tierd.kernel.paths import Root
from tierd.kernel.processes import same_process
from tierd.kernel.topology import read_free

Pages = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_GONE: Final = {errno.ESRCH, errno.EINVAL}
_FATAL: Final = {errno.ENOMEM, errno.EACCES, errno.ENODEV, errno.EPERM}
"""Errnos of a call after which the next one of the same process to the same node would say the same."""
_HUGE_BATCH: Final = LARGEST_BATCH // PAGES_PER_HUGE_PAGE
_RANGE_SHIFT: Final = np.uint64(PAGES_PER_HUGE_PAGE.bit_length() - 1)
_IN_RANGE: Final = np.arange(PAGES_PER_HUGE_PAGE, dtype=np.uint64)
_LEFT: Final = np.int32(-(1 << 16))
"""The fate of a page that was not tried; no errno is that large."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of each page, in the order given. there: now on the node. refused: tried, and the kernel
    did not move it. absent: those of the refused that were freed. stopped: the errno that ended the whole
    call (the same would end the next), 0 if none did."""

    outcome: Outcome
    there: Mask
    refused: Mask
    absent: Mask
    stopped: int = 0


@dataclass(frozen=True, slots=True)
class _Call:
    """One batch. before, after: node or negative errno of each page that was watched. stopped: as in
    `Promotion`; with ESRCH nothing is known of the pages. seconds: spent in the kernel."""

    before: npt.NDArray[np.int32]
    after: npt.NDArray[np.int32]
    stopped: int
    seconds: float

    def moved(self, node: int) -> npt.NDArray[np.bool_]:
        """Which of the pages came to `node` now."""
        came: npt.NDArray[np.bool_] = (self.after == node) & (self.before >= 0) & (self.before != node)
        return came


@dataclass(frozen=True, slots=True)
class _Task:
    """One call of `promote`. fate: of each page its node, a negative errno, or _LEFT; filled as it goes."""

    process: ProcessId
    pages: Pages
    node: int
    floor: int
    announce: Callable[[Pages], object]
    fate: npt.NDArray[np.int32]


class Mover:
    """Used by the engine thread only. Learns from each call how many pages fit into 20 ms."""

    def __init__(self, root: Root, *, between: Callable[[], object] = lambda: None) -> None:
        """between: called after each batch, so that the caller's rings do not run over meanwhile."""
        self._root = root
        self._between = between
        self._batch = BatchSize()
        self._finder = HugePageFinder(root)

    def promote(
        self,
        process: ProcessId,
        pages: Pages,
        node: int,
        floor: int,
        *,
        huge: bool = False,
        announce: Callable[[Pages], object] = lambda pages: None,
    ) -> Promotion:
        """Move `pages` (virtual page numbers, in order of preference) to `node` while it keeps `floor` free
        bytes. announce: called with the pages of each batch before it moves.

        huge: whether some may be part of huge pages, which then move whole, by one address each, and after
        the small ones: it takes 2 MiB of room to bring one of their pages.
        Pages for which there is no room, and those of a process that is gone, are deferred. Raises nothing:
        what the kernel refuses is in the outcome.
        """
        fate = np.full(len(pages), _LEFT, dtype=np.int32)
        whole = self._huge(process, pages) if huge else np.zeros(len(pages), dtype=np.bool_)
        task = _Task(process, pages, node, floor, announce, fate)
        total, stopped = self._promote_small(task, np.flatnonzero(~whole))
        if whole.any() and not stopped:
            more, stopped = self._promote_huge(task, np.flatnonzero(whole))
            total += more
        there, left = fate == node, fate == _LEFT
        refused = ~there & ~left
        codes, counts = np.unique(np.maximum(-fate[refused], 0), return_counts=True)
        errors = {int(code): int(count) for code, count in zip(codes, counts, strict=True)}
        total += Outcome(refused=int(refused.sum()), deferred=int(left.sum()), errors=errors)
        return Promotion(total, there, refused, fate == -errno.ENOENT, stopped)

    def _huge(self, process: ProcessId, pages: Pages) -> Mask:
        try:
            return self._finder.among(process.pid, pages)
        except TierdError:
            return np.ones(len(pages), dtype=np.bool_)  # what is not known may be 2 MiB

    def _room(self, node: int, floor: int) -> int:
        try:
            return max(0, read_free(self._root, node) - floor) // PAGE_SIZE
        except TierdError:
            return 0  # what cannot be read may be full

    def _promote_small(self, task: _Task, chosen: npt.NDArray[np.intp]) -> tuple[Outcome, int]:
        total, done = Outcome(), 0
        while done < len(chosen):
            room = self._room(task.node, task.floor)
            if room < min(SMALLEST_BATCH, len(chosen) - done) or not same_process(self._root, task.process):
                break
            batch = chosen[done : done + min(self._batch.pages, room)]
            batch = batch[np.argsort(task.pages[batch])]
            task.announce(task.pages[batch])
            call = _move(task.process.pid, task.pages[batch], np.arange(len(batch)), task.node)
            if call.stopped == errno.ESRCH:
                return total, call.stopped
            moved = int(call.moved(task.node).sum())
            self._batch.learn(moved, call.seconds)
            task.fate[batch] = call.after
            there = int((call.after == task.node).sum())
            total += Outcome(moved, there - moved, seconds=call.seconds)
            done += len(batch)
            self._between()
            if call.stopped:
                return total, call.stopped
        return total, 0

    def _promote_huge(self, task: _Task, chosen: npt.NDArray[np.intp]) -> tuple[Outcome, int]:
        ranges, first, range_of = np.unique(
            task.pages[chosen] >> _RANGE_SHIFT, return_index=True, return_inverse=True
        )
        order = np.argsort(first)
        total, done = Outcome(), 0
        while done < len(order):
            room = self._room(task.node, task.floor) // PAGES_PER_HUGE_PAGE
            if not room or not same_process(self._root, task.process):
                break
            batch = np.sort(order[done : done + min(_HUGE_BATCH, room)])
            watched = ((ranges[batch, None] << _RANGE_SHIFT) + _IN_RANGE).ravel()
            leaders = np.searchsorted(watched, task.pages[chosen[first[batch]]])
            task.announce(watched[leaders])
            call = _move(task.process.pid, watched, leaders, task.node)
            if call.stopped == errno.ESRCH:
                return total, call.stopped
            planned = np.flatnonzero(np.isin(range_of, batch))
            place = np.searchsorted(watched, task.pages[chosen[planned]])
            own = call.after[place]
            leader = call.after[leaders[np.searchsorted(batch, range_of[planned])]]
            # where only the leader moved, the range was small pages after all: the others were not tried
            others = np.where(leader == task.node, np.where(own < 0, own, _LEFT), leader)
            task.fate[chosen[planned]] = np.where(own == task.node, task.node, others)
            moved = int(call.moved(task.node)[place].sum())
            total += Outcome(
                moved,
                int((own == task.node).sum()) - moved,
                along=int(call.moved(task.node).sum()) - moved,
                seconds=call.seconds,
            )
            done += len(batch)
            self._between()
            if call.stopped:
                return total, call.stopped
        return total, 0


def _move(pid: int, watched: Pages, leaders: npt.NDArray[np.intp], node: int) -> _Call:
    """Move the pages at places `leaders` of `watched`, and see what became of all that are watched."""
    addresses = watched << np.uint64(12)
    begun = time.monotonic()
    before = np.full(len(watched), STATUS_UNKNOWN, dtype=np.int32)
    stopped = 0
    try:
        before = query_nodes(pid, addresses)
        status = before[leaders]
        # pages already there would cut the kernel's list into batches of one
        away = (status >= 0) & (status != node)
        unsure = len(leaders) < len(watched)
        if away.any():
            try:
                result, status[away] = move_pages(pid, addresses[leaders[away]], node)
                unsure |= bool(result) or bool((status[away] == STATUS_UNKNOWN).any())
            except OSError as error:
                # the pages before the one that failed may have moved
                unsure, stopped = True, error.errno or errno.EIO
                status[away] = -stopped
        after = before.copy()
        if unsure and stopped not in _GONE:
            after = query_nodes(pid, addresses)
            seen = after[leaders]
            unexplained = (status >= 0) | (status == STATUS_UNKNOWN) | (seen == node)
            status = np.where(unexplained, seen, status)
        after[leaders] = status
        if (status == -errno.ENOMEM).any():
            stopped = errno.ENOMEM
    except OSError as error:
        stopped = error.errno or errno.EIO
        after = np.full(len(watched), -stopped, dtype=np.int32)
    if stopped in _GONE:
        stopped = errno.ESRCH
    elif stopped not in _FATAL:
        stopped = 0
    return _Call(before, after, stopped, time.monotonic() - begun)
