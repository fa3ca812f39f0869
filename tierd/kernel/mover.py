"""Moves pages of one process to one node in short batches, and says what became of each."""

from __future__ import annotations

import contextlib
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
from tierd.kernel.files import OpenFile
from tierd.kernel.huge_pages import HugePageFinder
from tierd.kernel.page_calls import STATUS_UNKNOWN, MoveCall, query_nodes
from tierd.kernel.paths import Root
from tierd.kernel.processes import ProcessWatch
from tierd.kernel.topology import free_in, free_memory

Pages = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_GONE: Final = {errno.ESRCH, errno.EINVAL}
_FATAL: Final = {errno.ENOMEM, errno.EACCES, errno.ENODEV, errno.EPERM}
"""Errnos of a call after which the next one of the same process to the same node would say the same."""
_HUGE_BATCH: Final = LARGEST_BATCH // PAGES_PER_HUGE_PAGE
_GROUP: Final = 8 * LARGEST_BATCH
"""Base pages that are looked at and accounted for together: what goes on between two batches is a system
call or two, and little Python."""
_RANGE_SHIFT: Final = np.uint64(PAGES_PER_HUGE_PAGE.bit_length() - 1)
_IN_RANGE: Final = np.arange(PAGES_PER_HUGE_PAGE, dtype=np.uint64)
_LEFT: Final = np.int32(-(1 << 16))
"""The fate of a page that was not tried; no errno is that large."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of each page, in the order given. there: now on the node. refused: tried, and the kernel
    did not move it. absent: those of the refused that were freed. cramped: those of the refused that are
    part of a huge page for which the node has no 2 MiB in one piece. stopped: the errno that ended the whole
    call (the same would end the next), 0 if none did."""

    outcome: Outcome
    there: Mask
    refused: Mask
    absent: Mask
    cramped: Mask
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


@dataclass(slots=True)
class _Run:
    """Batches of one group. tried: pages, from its start. stopped: as in `Promotion`. unsure: whether some
    statuses may not say what happened."""

    tried: int = 0
    stopped: int = 0
    unsure: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Task:
    """One call of `promote`. fate: of each page its node, a negative errno, or _LEFT; whole: which pages are
    part of huge pages. Both are filled as it goes."""

    process: ProcessId
    pages: Pages
    node: int
    floor: int
    elsewhere: bool
    announce: Callable[[Pages], object]
    fate: npt.NDArray[np.int32]
    whole: Mask
    watch: ProcessWatch
    free: OpenFile

    def room(self) -> int:
        """Base pages that may go to the node now; 0 when the process is gone."""
        try:
            room = max(0, free_in(self.free) - self.floor) // PAGE_SIZE
        except TierdError:
            return 0  # what cannot be read may be full
        return room if self.watch.alive else 0


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
        elsewhere: bool = False,
        announce: Callable[[Pages], object] = lambda pages: None,
    ) -> Promotion:
        """Move `pages` (virtual page numbers, in order of preference) to `node` while it keeps `floor` free
        bytes. announce: called with the pages of each batch before it moves.

        huge: whether some may be part of huge pages, which then move whole, by one address each, and after
        the small ones: it takes 2 MiB of room to bring one of their pages. elsewhere: whether the caller has
        just made sure that no page is on `node`; what is there all the same then counts as moved.
        Pages for which there is no room, and those of a process that is gone, are deferred. Raises nothing:
        what the kernel refuses is in the outcome.
        """
        fate = np.full(len(pages), _LEFT, dtype=np.int32)
        whole = np.zeros(len(pages), dtype=np.bool_)
        total, stopped = Outcome(), 0
        with contextlib.suppress(TierdError), contextlib.ExitStack() as opened:
            watch = opened.enter_context(ProcessWatch(self._root, process))
            free = opened.enter_context(free_memory(self._root, node))
            task = _Task(process, pages, node, floor, elsewhere, announce, fate, whole, watch, free)
            total, stopped = self._promote(task, huge)
        there, left = fate == node, fate == _LEFT
        refused = ~there & ~left
        codes, counts = np.unique(np.maximum(-fate[refused], 0), return_counts=True)
        errors = {int(code): int(count) for code, count in zip(codes, counts, strict=True)}
        total += Outcome(refused=int(refused.sum()), deferred=int(left.sum()), errors=errors)
        cramped = whole & (fate == -errno.ENOMEM)
        return Promotion(total, there, refused, fate == -errno.ENOENT, cramped, stopped)

    def _promote(self, task: _Task, huge: bool) -> tuple[Outcome, int]:
        if huge:
            task.whole[:] = self._huge(task)
        small = np.flatnonzero(~task.whole)
        total, done = Outcome(), 0
        while done < len(small):
            # the hottest first, where not all of them fit
            group = small[done : done + min(_GROUP, task.room())]
            if len(group) < min(SMALLEST_BATCH, len(small) - done):
                return total, 0
            more, stopped, complete = self._promote_group(
                task, group[np.argsort(task.pages[group], kind="stable")]
            )
            total += more
            done += len(group)
            if stopped or not complete:
                return total, stopped
        stopped = 0
        if task.whole.any():
            more, stopped = self._promote_huge(task, np.flatnonzero(task.whole))
            total += more
        return total, stopped

    def _huge(self, task: _Task) -> Mask:
        try:
            return self._finder.among(task.process, task.pages)
        except TierdError:
            return np.ones(len(task.pages), dtype=np.bool_)  # what is not known may be 2 MiB

    def _promote_group(self, task: _Task, group: npt.NDArray[np.intp]) -> tuple[Outcome, int, bool]:
        """Returns what became of these pages, the errno that ended it, and whether all of them were
        tried."""
        addresses = task.pages[group] << np.uint64(12)
        already_there = 0
        if not task.elsewhere:
            try:
                before = query_nodes(task.process.pid, addresses)
            except OSError as error:
                code = error.errno or errno.EIO
                if code in _GONE:
                    return Outcome(), errno.ESRCH, False
                task.fate[group] = -code
                return Outcome(), code if code in _FATAL else 0, True
            # pages already there would cut the kernel's list into batches of one
            away = np.flatnonzero((before >= 0) & (before != task.node))
            task.fate[group] = before
            already_there = int((before == task.node).sum())
            group, addresses = group[away], addresses[away]
        call = MoveCall(task.process.pid, addresses, task.node)
        task.announce(task.pages[group])
        run = self._move_in_batches(task, call, len(group))
        status = call.status[: run.tried]
        if run.unsure and run.stopped not in _GONE:
            try:
                status = _explained(status, query_nodes(task.process.pid, addresses[: run.tried]), task.node)
            except OSError as error:
                # what happened is not known, and what is not known is not counted
                status = np.full(run.tried, -(error.errno or errno.EIO), dtype=np.int32)
        task.fate[group] = _LEFT
        task.fate[group[: run.tried]] = status
        moved = int((status == task.node).sum())
        outcome = Outcome(moved, already_there, seconds=run.seconds)
        return outcome, run.stopped, run.tried == len(group)

    def _move_in_batches(self, task: _Task, call: MoveCall, pages: int) -> _Run:
        run = _Run()
        while run.tried < pages and not run.stopped:
            left = pages - run.tried
            room = task.room()
            if room < min(SMALLEST_BATCH, left):
                break
            first, count = run.tried, min(self._batch.pages, room, left)
            batch = call.status[first : first + count]
            begun = time.monotonic()
            try:
                run.unsure |= call.move(first, count) > 0
            except OSError as error:
                code = error.errno or errno.EIO
                if code in _GONE:
                    run.stopped = errno.ESRCH
                    break
                # the pages before the one that failed may have moved
                run.unsure, batch[:] = True, -code
                run.stopped = code if code in _FATAL else 0
            seconds = time.monotonic() - begun
            moved = np.count_nonzero(batch == task.node)
            if moved < count and (batch == -errno.ENOMEM).any():
                run.stopped = errno.ENOMEM
            self._batch.learn(int(moved), seconds)
            run.seconds += seconds
            run.tried += count
            self._between()
        return run

    def _promote_huge(self, task: _Task, chosen: npt.NDArray[np.intp]) -> tuple[Outcome, int]:
        ranges, first, range_of = np.unique(
            task.pages[chosen] >> _RANGE_SHIFT, return_index=True, return_inverse=True
        )
        order = np.argsort(first)
        total, done = Outcome(), 0
        while done < len(order):
            room = task.room() // PAGES_PER_HUGE_PAGE
            if not room:
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


def _explained(
    status: npt.NDArray[np.int32], seen: npt.NDArray[np.int32], node: int
) -> npt.NDArray[np.int32]:
    """Statuses that may not say what happened, after a query: an errno that says why a page stayed is
    kept."""
    unexplained = (status >= 0) | (status == STATUS_UNKNOWN) | (seen == node)
    return np.where(unexplained, seen, status)


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
                call = MoveCall(pid, addresses[leaders[away]], node)
                unsure |= call.move(0, int(away.sum())) > 0
                status[away] = call.status
            except OSError as error:
                # the pages before the one that failed may have moved
                unsure, stopped = True, error.errno or errno.EIO
                status[away] = -stopped
        after = before.copy()
        if unsure and stopped not in _GONE:
            after = query_nodes(pid, addresses)
            status = _explained(status, after[leaders], node)
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
