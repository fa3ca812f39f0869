"""Moves pages of one process to one node in short batches, and says what became of each."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tierd.core import budget
from tierd.core.model import PAGE_SIZE, ProcessId
from tierd.core.outcome import Outcome
from tierd.errors import TierdError
from tierd.kernel.page_calls import STATUS_UNKNOWN, move_pages, query_nodes
from tierd.kernel.paths import Root
from tierd.kernel.processes import same_process
from tierd.kernel.topology import read_free

_GONE = {errno.ESRCH, errno.EINVAL}


class Mover:
    """Used by the engine thread only. Learns from each call how many pages fit into 20 ms."""

    def __init__(self, root: Root, *, between: Callable[[], object] = lambda: None) -> None:
        """between: called after each batch, so that the caller's rings do not run over meanwhile."""
        self._root = root
        self._between = between
        self._batch = budget.LARGEST_BATCH // 4

    def promote(
        self,
        process: ProcessId,
        pages: npt.NDArray[np.uint64],
        node: int,
        floor: int,
        *,
        announce: Callable[[npt.NDArray[np.uint64]], object] = lambda pages: None,
    ) -> tuple[Outcome, npt.NDArray[np.bool_]]:
        """Move `pages` (virtual page numbers, in order of preference) to `node` while it keeps `floor` free
        bytes. announce: called with the pages of each batch before it moves.

        Returns the outcome and which pages are now on the node. Pages for which there is no room, and those
        of a process that is gone, are deferred. Raises nothing: what the kernel refuses is in the outcome.
        """
        there = np.zeros(len(pages), dtype=np.bool_)
        total = Outcome()
        done = 0
        while done < len(pages):
            room = self._room(node, floor)
            if room < budget.SMALLEST_BATCH or not same_process(self._root, process):
                break
            count = min(self._batch, room, len(pages) - done)
            order = done + np.argsort(pages[done : done + count])
            announce(pages[order])
            outcome, arrived = self._move_batch(process.pid, pages[order] << np.uint64(12), node)
            there[order] = arrived
            total += outcome
            done += count
            self._between()
            if outcome.errors.keys() & {errno.ENOMEM, errno.EACCES, errno.ENODEV, errno.EPERM, errno.ESRCH}:
                break
        return total + Outcome(deferred=len(pages) - done), there

    def _room(self, node: int, floor: int) -> int:
        try:
            return max(0, read_free(self._root, node) - floor) // PAGE_SIZE
        except TierdError:
            return 0  # what cannot be read may be full

    def _move_batch(
        self, pid: int, addresses: npt.NDArray[np.uint64], node: int
    ) -> tuple[Outcome, npt.NDArray[np.bool_]]:
        none = np.zeros(len(addresses), dtype=np.bool_)
        begun = time.monotonic()
        try:
            before = query_nodes(pid, addresses)
            away = (before >= 0) & (before != node)
            status = before.copy()
            if away.any():
                # pages already there would cut the kernel's list into batches of one
                result, status[away] = move_pages(pid, addresses[away], node)
                if result or (status[away] == STATUS_UNKNOWN).any():
                    status[away] = query_nodes(pid, addresses[away])
        except OSError as error:
            if error.errno in _GONE:
                return Outcome(deferred=len(addresses), errors={errno.ESRCH: 0}), none
            return Outcome(refused=len(addresses), errors={error.errno or 0: len(addresses)}), none
        seconds = time.monotonic() - begun
        self._batch = budget.next_batch(len(addresses), seconds)
        arrived = status == node
        refused = status[~arrived]
        codes, counts = np.unique(np.where(refused < 0, -refused, 0), return_counts=True)
        return (
            Outcome(
                moved=int((arrived & away).sum()),
                already_there=int((arrived & ~away).sum()),
                refused=len(refused),
                errors={int(code): int(count) for code, count in zip(codes, counts, strict=True)},
                seconds=seconds,
            ),
            arrived,
        )
