"""Gives back the reach that splitting took: makes ranges that belong together huge again, a few a round."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.core import planner
from tierd.core.backoff import key_pages, key_slots, range_keys
from tierd.core.model import HUGE_PAGE_SIZE, PAGE_SIZE, PAGES_PER_HUGE_PAGE, ProcessId, Topology
from tierd.core.planner import ColdStock, Plan
from tierd.core.rebuild import RangeBook, Residence
from tierd.core.sampling import WRONG
from tierd.core.table import Keys
from tierd.errors import GoneError, TierdError
from tierd.kernel import huge_pages, page_calls
from tierd.kernel.huge_pages import Range
from tierd.kernel.occupancy import read_occupancy
from tierd.kernel.paths import Root
from tierd.kernel.processes import same_process
from tierd.kernel.topology import read_free, refresh_free
from tierd.service.moving import Executor, Moved
from tierd.service.placed import PlacedProcesses

log = logging.getLogger(__name__)

MOST_READINGS: Final = 32
"""Readings of the rings that are taken in at once at most: what a few seconds bring."""
LOOKED_AT: Final = 32
"""Ranges asked about for each second since the last time: 16,384 pages, about 4 ms."""
MOST_SECONDS: Final = 10.0
"""Of which so many count."""
MOST_REBUILT: Final = 16
"""Ranges (32 MiB) rebuilt in one round."""
PART_OF_DRAM: Final = 256
"""One range of so many that DRAM holds is rebuilt in one round, and looked at for each second, where that is
more: what takes minutes on small DRAM must not take hours on large."""
MOST_LOOKED_AT: Final = 2048
"""Ranges (4 GiB) asked about in one round at most, about 0.2 s."""
ROOM: Final = 2 * HUGE_PAGE_SIZE
"""Bytes of room made at once where DRAM is at its floor. The pages that a rebuild frees are the room of the
next."""
PRUNE_SECONDS: Final = 60.0
NOT_WHILE_SHORT: Final = 3
"""Rounds in which hot pages found nothing colder to change places with, after which nothing is rebuilt."""
RELEASE_AFTER: Final = 10
"""Such rounds after which ranges that were rebuilt are split again: a huge page of which a part is used is
young as a whole, and keeps its cold part in DRAM."""
LEAST_AGE: Final = 60.0
"""Seconds for which a range that was rebuilt is left whole in any case."""
_SAMPLE: Final = np.arange(0, PAGES_PER_HUGE_PAGE, 32, dtype=np.uint64)
_ALL: Final = np.arange(PAGES_PER_HUGE_PAGE, dtype=np.uint64)
_PASSING: Final = {errno.EAGAIN, errno.EINTR}
_NO_ROOM: Final = {errno.ENOMEM, errno.EBUSY}


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a round may do, and what was seen. floor: the policy's extra bytes. passes: how often the kernel
    has unmapped the slow tier since the last round, much less than once mostly. most: bytes that may still
    move. seconds: for which it may last, about; with none left it only takes notes."""

    floor: int
    passes: float
    most: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a round made. huge_pages: how many. demoted: base pages moved down to make room for them."""

    huge_pages: int = 0
    demoted: int = 0

    @property
    def bytes(self) -> int:
        """Bytes copied, for the bandwidth."""
        return self.huge_pages * HUGE_PAGE_SIZE + self.demoted * PAGE_SIZE


class Rebuilder:
    """Used by the engine only, in its thread. Knows which ranges were split and which are whole again."""

    def __init__(
        self, root: Root, placed: PlacedProcesses, executor: Executor, clock: Callable[[], float]
    ) -> None:
        self._root = root
        self._placed = placed
        self._executor = executor
        self._clock = clock
        self._book = RangeBook()
        self._topology: Topology | None = None
        self._given_up: dict[str, float] = {}
        self._passes = 0.0
        self._short = 0
        self._denied = False
        self._next_prune = 0.0
        self._last_look = 0.0
        self._used: list[Keys] = []
        self._used_since = 0.0

    def observe(self, slots: npt.NDArray[np.int64], pages: npt.NDArray[np.uint64]) -> None:
        """Accesses to pages, as sampled."""
        if len(self._book) and len(pages):
            self._used_since = self._used_since if self._used else self._clock()
            self._used.append(range_keys(slots, pages))
            if len(self._used) >= MOST_READINGS:
                self._take_in()

    def _take_in(self) -> None:
        """What was observed since the last call, as if all of it had been then: rather too early than too
        late to count against a range that was being rebuilt."""
        if self._used:
            self._book.used(np.concatenate(self._used), self._used_since)
            self._used.clear()

    def kept(self, process: ProcessId) -> tuple[Range, ...]:
        """Ranges of `process` that are not to be split. Called by the splitter."""
        self._take_in()
        slot = self._placed.slot_of(process)
        starts = self._book.kept(slot) << np.uint64(12)
        return tuple(Range(start, start + HUGE_PAGE_SIZE) for start in starts.tolist())

    def adopt(self, process: ProcessId, ranges: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Of huge pages that this did not make (`ranges`, numbers of 2 MiB), those that it would have made:
        khugepaged was faster. They stay whole. Called by the splitter."""
        slot = self._placed.slot_of(process)
        pages = ranges << np.uint64(9)
        keys = range_keys(np.full(len(pages), slot, dtype=np.int64), pages)
        keys = keys[self._book.known(keys)][:LOOKED_AT]
        if self._topology is None or not len(keys):
            return np.empty(0, dtype=np.uint64)
        self._take_in()
        now = self._clock()
        hot = self._book.choose(self._look(keys, self._topology), now, self._passes).hot
        self._book.rebuilt(hot, now, slow=False)
        return key_pages(hot) >> np.uint64(9)

    def note_split(self, process: ProcessId, ranges: npt.NDArray[np.uint64]) -> None:
        """Huge pages of `process` were split: `ranges` (numbers of 2 MiB), as far as it is known which.
        Called by the splitter."""
        slot = self._placed.slot_of(process)
        view = self._placed.by_slot(slot)
        if view is not None:
            pages = ranges << np.uint64(9)
            keys = range_keys(np.full(len(pages), slot, dtype=np.int64), pages)
            given_up = self._given_up.get(view.cgroup, 0.0)
            self._book.split(slot, keys, self._clock(), given_up, self._passes)

    def rebuild(
        self,
        plan: Plan,
        moved: Moved,
        cold: tuple[ColdStock, ...],
        topology: Topology,
        allowed: Allowance,
    ) -> Rebuilt:
        """Rebuild what belongs together, after the round's moves. Raises TierdError."""
        begun, now = time.monotonic(), self._clock()
        self._topology = topology
        self._take_in()
        self._note(moved, topology, allowed.passes, now)
        dram_pages = sum(node.total for node in topology.dram) // PAGE_SIZE
        part = dram_pages // PAGES_PER_HUGE_PAGE // PART_OF_DRAM
        # where the bandwidth or the time of a round is what holds pages up, room is not
        much = plan.more or plan.wanted > WRONG * dram_pages
        short = allowed.most > 0 and much and plan.wanted > 16 * plan.promote
        self._short = self._short + 1 if short else 0
        most = max(MOST_REBUILT, part)
        if self._short >= RELEASE_AFTER and (given := self._book.release(most, now, LEAST_AGE)):
            log.debug("%d rebuilt huge pages may be split again: DRAM is short", given)
        most = min(most, allowed.most // HUGE_PAGE_SIZE)
        if self._denied or self._short >= NOT_WHILE_SHORT or most <= 0 or allowed.seconds <= 0:
            return Rebuilt()
        seconds = min(MOST_SECONDS, max(1.0, now - self._last_look))
        keys = self._book.due(now, int(min(MOST_LOOKED_AT, max(LOOKED_AT, part) * seconds)))
        self._last_look = now
        if not len(keys):
            return Rebuilt()
        choice = self._book.choose(self._look(keys, topology), now, self._passes)
        dram = {node.number: planner.floor_bytes(node, allowed.floor) for node in topology.dram}
        slow = {node.number: planner.slow_floor_bytes(node) for node in topology.slow}
        deadline = begun + allowed.seconds
        demoted = 0
        hot, cold_ranges = choice.hot[:most], choice.cold[:most]
        if len(hot):
            demoted = self._make_room(topology, dram, cold, allowed.most)
        done = self._rebuild(hot, dram, deadline)
        done += self._rebuild(cold_ranges[: most - done], slow, deadline, slow=True)
        return Rebuilt(done, demoted)

    def _note(self, moved: Moved, topology: Topology, passes: float, now: float) -> None:
        self._passes += passes
        # the kernel demotes what it finds, which may be less than it was asked for
        done = min(1.0, moved.demoted / max(1, sum(moved.asked.values())))
        dram = {node.number for node in topology.dram}
        for cgroup, pages in moved.asked.items():
            try:
                held = read_occupancy(self._root, cgroup)
            except TierdError:
                continue
            total = sum(amount for node, amount in held.items() if node in dram)
            share = pages * done * PAGE_SIZE / max(total, PAGE_SIZE)
            self._given_up[cgroup] = self._given_up.get(cgroup, 0.0) + share
        for (slot, _), arrived in moved.arrived.items():
            view = self._placed.by_slot(slot)
            if view is not None:
                keys = range_keys(np.full(len(arrived), slot, dtype=np.int64), arrived)
                self._book.promoted(keys, now, self._given_up.get(view.cgroup, 0.0), self._passes)
        if now >= self._next_prune:
            self._next_prune = now + PRUNE_SECONDS
            self._book.prune(self._placed.slots)
            cgroups = {view.cgroup for view in self._placed.views}
            self._given_up = {name: share for name, share in self._given_up.items() if name in cgroups}

    def _look(self, keys: Keys, topology: Topology) -> Residence:
        """Where the pages of each range are: a few of them first, and all where these are together."""
        slots, pages = key_slots(keys), key_pages(keys)
        nodes = np.full(len(keys), -1, dtype=np.int64)
        share = np.zeros(len(keys))
        given_up = np.zeros(len(keys))
        dram = np.array([node.number for node in topology.dram])
        slow = np.array([node.number for node in topology.slow])
        for slot in np.unique(slots).tolist():
            view = self._placed.by_slot(slot)
            if view is None or not same_process(self._root, view.id):
                continue
            these = np.flatnonzero(slots == slot)
            given_up[these] = self._given_up.get(view.cgroup, 0.0)
            try:
                sampled = _nodes_of(view.id.pid, pages[these], _SAMPLE)
                share[these] = np.isin(sampled, dram).mean(axis=1)
                together = these[_on_one_node(sampled)]
                everything = _nodes_of(view.id.pid, pages[together], _ALL)
                whole = _on_one_node(everything)
                nodes[together[whole]] = everything[whole, 0]
            except OSError as error:
                log.debug("asking where pages of process %d are: %s", view.id.pid, error)
        return Residence(keys, np.isin(nodes, dram), np.isin(nodes, slow), share, given_up)

    def _make_room(
        self, topology: Topology, least: dict[int, int], cold: tuple[ColdStock, ...], most: int
    ) -> int:
        """Demote the coldest pages of DRAM nodes that are at their floor: ROOM of each at most, however far
        below its floor others keep it, `most` bytes, and what fits below. Returns base pages. Raises
        TierdError."""
        demoted = 0
        left = min(most // PAGE_SIZE, planner.slow_room_pages(refresh_free(self._root, topology).slow))
        for node in topology.dram:
            lacking = least[node.number] + ROOM - read_free(self._root, node.number)
            stocks = [stock for stock in cold if stock.node == node.number]
            pages = min(left, -(-min(lacking, ROOM) // PAGE_SIZE))
            if pages > 0 and stocks:
                coldest = max(stocks, key=lambda stock: stock.idle)
                gone = self._executor.make_room(coldest, pages)
                demoted += gone
                left -= gone
        return demoted

    def _rebuild(self, keys: Keys, least: dict[int, int], deadline: float, *, slow: bool = False) -> int:
        """Rebuild ranges while their nodes keep `least` free bytes. Returns how many were."""
        done = 0
        slots = key_slots(keys)
        for slot in np.unique(slots).tolist():
            view = self._placed.by_slot(slot)
            if view is None or self._denied:
                continue
            try:
                process = os.pidfd_open(view.id.pid)
            except OSError as error:
                log.debug("process %d: %s", view.id.pid, error)
                continue
            try:
                if same_process(self._root, view.id):
                    for key in keys[slots == slot]:
                        if time.monotonic() > deadline or not self._roomy(least):
                            break
                        code = self._collapse(view.id.pid, process, key)
                        if not code:
                            self._book.rebuilt(_one(key), self._clock(), slow=slow)
                            done += 1
                            continue
                        log.debug("rebuilding a huge page of process %d: %s", view.id.pid, os.strerror(code))
                        self._book.failed(_one(key), self._clock(), for_good=code not in _PASSING | _NO_ROOM)
                        if code not in _PASSING and code != errno.EINVAL:
                            break
            finally:
                os.close(process)
        return done

    def _roomy(self, least: dict[int, int]) -> bool:
        try:
            return all(read_free(self._root, node) >= free + HUGE_PAGE_SIZE for node, free in least.items())
        except TierdError:
            return False

    def _collapse(self, pid: int, process: int, key: np.uint64) -> int:
        """The errno of rebuilding one range, 0 when it is a huge page now."""
        start = int(key_pages(_one(key))[0]) << 12
        try:
            # the kernel would copy what others map as well, and give this process pages of its own
            if not huge_pages.is_private(self._root, pid, start):
                return errno.EINVAL
            huge_pages.collapse(process, start)
        except GoneError:
            return errno.ESRCH
        except TierdError:
            return errno.EACCES
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOSYS):
                self._denied = True
                log.warning("huge pages stay split: process_madvise: %s", error.strerror)
            return error.errno or errno.EIO
        return 0


def _one(key: np.uint64) -> Keys:
    return np.array([key], dtype=np.uint64)


def _nodes_of(
    pid: int, first: npt.NDArray[np.uint64], within: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int32]:
    """Nodes of the pages `within` each range that begins at page `first`: one row a range."""
    pages = first[:, None] + within
    return page_calls.query_nodes(pid, (pages << np.uint64(12)).ravel()).reshape(pages.shape)


def _on_one_node(nodes: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    together: npt.NDArray[np.bool_] = (nodes[:, 0] >= 0) & (nodes == nodes[:, :1]).all(axis=1)
    return together
