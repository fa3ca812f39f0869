"""Carries a plan out: a slice of room, then a slice of promotion, until the plan or the time is used up."""

from __future__ import annotations

import errno
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tierd.core import planner
from tierd.core.access import Heat
from tierd.core.backoff import LONGEST_WAIT, BackOff, failed_ranges, process_keys, range_keys
from tierd.core.heat import HotPages
from tierd.core.model import PAGE_SIZE, ProcessView, Topology
from tierd.core.outcome import Outcome, explain, fate
from tierd.core.planner import ColdStock, Plan, Push
from tierd.errors import TierdError
from tierd.kernel import page_calls
from tierd.kernel.counters import read_demoted
from tierd.kernel.generations import Generations, Lineage
from tierd.kernel.mover import Mover, Promotion
from tierd.kernel.occupancy import read_occupancy
from tierd.kernel.paths import Root
from tierd.kernel.topology import read_free
from tierd.service.locked_pages import LockedPages
from tierd.service.placed import PlacedProcesses

log = logging.getLogger(__name__)

SLICE = 8192
"""Base pages demoted, then promoted, in turn, so that the rings are read in between."""
GROUPED = 8 * SLICE
"""Base pages in which those of a process go up one after the other, half a second of moving. Each call of
move_pages has all CPUs empty their vectors of pages, so a few calls of many pages cost less than many calls
of few."""
PRUNE_SECONDS = 60.0
"""Between two clearings of what is remembered of refusals."""
SHARED_SECONDS = 2 * LONGEST_WAIT
"""For which a cgroup is known to share memory: as long as it may take until that is tried again."""
_OF_THE_PROCESS = {errno.EACCES, errno.EPERM}
"""Errnos of a whole call that any page of the process would get: its cpuset, or the permission."""
_PASSING = {errno.ENOENT, errno.ESRCH, errno.ENOMEM}
"""Errnos that are no news: memory that was freed, a process that ended, a node that is full."""
_HUGE_KINDS = ("anon_thp", "shmem_thp", "file_thp")

Pages = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Moved:
    """What a round moved. promoted: the fate of each page of the plan. demoted: base pages, by the kernel's
    count. seconds: wall time. arrived: pages now in DRAM, by the slot of their process and their node.
    asked: base pages that each cgroup was told to demote, without page cache. pushed: base pages that went
    down one by one, by the slot of their process. trouble: the reading that failed and ended it early; what
    was moved counts all the same."""

    promoted: Outcome = Outcome()
    demoted: int = 0
    seconds: float = 0.0
    arrived: Mapping[tuple[int, int], Pages] = field(default_factory=dict)
    asked: Mapping[str, int] = field(default_factory=dict)
    pushed: Mapping[int, int] = field(default_factory=dict)
    trouble: TierdError | OSError | None = None

    @property
    def down(self) -> int:
        """Base pages that went down in either way."""
        return self.demoted + sum(self.pushed.values())

    @property
    def pages(self) -> int:
        return self.promoted.carried + self.down


@dataclass(slots=True)
class _Part:
    """What is to be done for one DRAM node. floor: free bytes that it keeps. which: places in the round's
    list of hot pages; `done` of them have been tried. stocks: what is left to demote there, when there is no
    room for them. enforced: what is left to demote in any case. pushes: what is left of the pages that go
    down one by one, which comes first."""

    node: int
    floor: int
    which: planner.Places
    stocks: list[tuple[ColdStock, int]]
    enforced: list[tuple[ColdStock, int]]
    pushes: list[Push]
    done: int = 0


class Executor:
    """Used by the engine only, in its thread. Remembers what the kernel refused, and leaves it alone for a
    while."""

    def __init__(
        self,
        root: Root,
        generations: Generations,
        placed: PlacedProcesses,
        *,
        between: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._generations = generations
        self._placed = placed
        self._between = between
        self._clock = clock
        self._trouble: TierdError | OSError | None = None
        self._mover = Mover(root, between=self._keep_up)
        self._refusals = BackOff()
        self._locked = LockedPages(root, placed, clock)
        self._named: set[tuple[int, int]] = set()
        self._shared: dict[str, float] = {}
        self._fates: dict[int, tuple[float, str]] = {}
        self._down: dict[str, tuple[float, str]] = {}
        self._next_prune = 0.0
        self._huge: dict[tuple[str, int], bool] = {}  # in this round, by cgroup and target
        self._slow_floors: dict[int, int] = {}  # in this round, bytes by node
        self._full: set[int] = set()  # nodes that had no room in this round: asking again is what stalls
        self._checked = 0  # pages at the beginning of the round's list that were seen to be on a slow node

    def _keep_up(self) -> None:
        """What the caller does between two calls may fail; what has been moved is accounted for first."""
        try:
            self._between()
        except (TierdError, OSError) as error:
            self._trouble = self._trouble or error

    def movable(self, slots: npt.NDArray[np.int64], pages: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Which pages may be planned: those of processes still placed that nobody has locked, and that were
        not refused lately: a plan made with these would be carried out to no end. For `Heat.hottest`."""
        now = self._clock()
        if now >= self._next_prune:
            self._next_prune = now + PRUNE_SECONDS
            self._refusals.prune(now, self._placed.slots)
            self._named = {(slot, code) for slot, code in self._named if self._placed.by_slot(slot)}
            self._shared = {cgroup: until for cgroup, until in self._shared.items() if until > now}
            self._fates = {slot: told for slot, told in self._fates.items() if self._placed.by_slot(slot)}
            cgroups = {view.cgroup for view in self._placed.views}
            self._down = {cgroup: told for cgroup, told in self._down.items() if cgroup in cgroups}
        may = self._ready(slots, pages) & np.isin(slots, self._placed.slots)
        return may & ~self._locked.among(slots, pages)

    @property
    def sharing(self) -> frozenset[str]:
        """Cgroups with processes of which some pages did not come up because others map them too."""
        now = self._clock()
        return frozenset(cgroup for cgroup, until in self._shared.items() if until > now)

    def told(self, view: ProcessView) -> tuple[tuple[float, str], ...]:
        """What last became of pages of the process, and of its cgroup: when, on the engine's clock, and in
        words."""
        found = self._fates.get(self._placed.slot_of(view.id)), self._down.get(view.cgroup)
        return tuple(told for told in found if told)

    def on_slow(self, hot: HotPages, heat: Heat, slow: set[int], most: int) -> HotPages:
        """`hot` without those of its first `most` pages that are not on the nodes `slow`: new memory faults
        as well, wherever it lies, and nothing has to make room for what is in DRAM already."""
        elsewhere = np.zeros(len(hot), dtype=np.bool_)
        slots, pages = hot.slot[:most], hot.page[:most]
        self._checked = len(pages)
        for slot in np.unique(slots).tolist():
            view = self._placed.by_slot(slot)
            if view is None:
                continue
            mine = np.flatnonzero(slots == slot)
            try:
                nodes = page_calls.query_nodes(view.id.pid, pages[mine] << np.uint64(12))
            except OSError:
                continue  # it is ending, and the mover will see so
            gone = mine[~np.isin(nodes, list(slow))]
            elsewhere[gone] = True
            heat.forget(np.full(len(gone), slot), pages[gone])
        if not elsewhere.any():
            return hot
        self._checked -= int(elsewhere.sum())
        return hot.only(~elsewhere)

    def _ready(self, slots: npt.NDArray[np.int64], pages: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        now = self._clock()
        ready = self._refusals.ready(range_keys(slots, pages), now)
        return ready & self._refusals.ready(process_keys(slots), now)

    def execute(
        self, plan: Plan, hot: HotPages, heat: Heat, topology: Topology, floor: int, seconds: float
    ) -> Moved:
        """Do as much of `plan` as fits into `seconds`. floor: the policy's extra bytes. Raises
        TierdError when it could not begin."""
        if not plan.promote and not plan.demotions and not plan.pushes:
            return Moved()
        begun = time.monotonic()
        demoted_before = read_demoted(self._root)
        parts = _parts(plan, hot, topology, floor)
        self._huge.clear()
        self._full.clear()
        self._slow_floors = {node.number: planner.slow_floor_bytes(node) for node in topology.slow}
        for step in plan.demotions:
            words = f"{step.pages} pages of its cgroup were asked to go down: {step.reason}"
            self._down[step.stock.cgroup] = self._clock(), words
        promoted, demoted = Outcome(), 0
        arrived: dict[tuple[int, int], list[Pages]] = {}
        asked: dict[str, int] = {}
        pushed: Counter[int] = Counter()
        self._trouble = None
        try:
            # a slice for each node in turn, so that no node waits for all of another
            waiting = deque(parts)
            while waiting and not self._trouble and time.monotonic() < begun + seconds:
                part = waiting.popleft()
                count = 0 if part.node in self._full else min(SLICE, len(part.which) - part.done)
                if part.pushes:
                    part.pushes = self._push_slice(part.pushes, pushed)
                elif part.enforced:
                    part.enforced = self._demote_slice(part.enforced, asked)
                elif part.stocks and read_free(self._root, part.node) < part.floor + count * PAGE_SIZE:
                    part.stocks = self._demote_slice(part.stocks, asked)
                elif count:
                    which = part.which[part.done : part.done + count]
                    promoted += self._promote(part, hot, which, heat, arrived)
                    part.done += count
                else:
                    continue
                waiting.append(part)
        except TierdError as error:
            self._trouble = error
        try:
            demoted = max(0, read_demoted(self._root) - demoted_before)
        except TierdError as error:
            self._trouble = error
        return Moved(
            promoted + Outcome(deferred=plan.promote - sum(part.done for part in parts)),
            demoted,
            time.monotonic() - begun,
            {place: np.concatenate(pages) for place, pages in arrived.items()},
            asked,
            pushed,
            self._trouble,
        )

    def _promote(
        self,
        part: _Part,
        hot: HotPages,
        which: planner.Places,
        heat: Heat,
        arrived: dict[tuple[int, int], list[Pages]],
    ) -> Outcome:
        """Promote a slice; adds what is now in DRAM to `arrived`, by slot and node."""
        total = Outcome()
        slots, pages = hot.slot[which], hot.page[which]
        checked = bool((which < self._checked).all())
        for slot in np.unique(slots).tolist():
            chosen, rates = pages[slots == slot], hot.rate[which][slots == slot]
            view = self._placed.by_slot(slot)
            ready = self._ready(np.full(len(chosen), slot), chosen)
            total += Outcome(deferred=int((~ready).sum()) if view else len(chosen))
            chosen = chosen[ready]
            if view is None or not len(chosen):
                continue
            if part.node in self._full:
                total += Outcome(deferred=len(chosen))
                continue
            same = np.full(len(chosen), slot)

            def leaving(moving: npt.NDArray[np.uint64], slot: int = slot) -> None:
                heat.leaving(np.full(len(moving), slot), moving)

            huge = self._holds_huge(view.cgroup, part.node)
            result = self._mover.promote(
                view.id, chosen, part.node, part.floor, huge=huge, elsewhere=checked, announce=leaving
            )
            heat.forget(same[result.there], chosen[result.there])
            heat.recall(same[~result.there], chosen[~result.there])
            total += result.outcome
            arrived.setdefault((slot, part.node), []).append(chosen[result.there])
            self._learn(slot, view, part.node, chosen, result)
            if words := fate(result.outcome, float(rates.min()), float(rates.max())):
                self._fates[slot] = self._clock(), words
        return total

    def make_room(self, stock: ColdStock, pages: int) -> int:
        """Demote `pages` base pages of `stock` outside a plan. Returns how many went, by the kernel's count,
        which sees other demotions as well. Raises MalformedError."""
        before = read_demoted(self._root)
        self._demote_slice([(stock, pages)], {})
        return max(0, read_demoted(self._root) - before)

    def _holds_huge(self, cgroup: str, target: int) -> bool:
        """Whether some of what comes up may be part of a huge page."""
        if (cgroup, target) not in self._huge:
            try:
                held = read_occupancy(self._root, cgroup, names=_HUGE_KINDS)
            except TierdError:
                held = {-1: 1}  # what is not known may be huge
            self._huge[cgroup, target] = any(amount for node, amount in held.items() if node != target)
        return self._huge[cgroup, target]

    def _demote_slice(
        self, stocks: list[tuple[ColdStock, int]], asked: dict[str, int]
    ) -> list[tuple[ColdStock, int]]:
        """Demote one slice of the first stock; returns what is left of all, and adds it to `asked`."""
        stock, left = stocks[0]
        pages = min(left, SLICE)
        try:
            line = Lineage(stock.memcg, stock.cgroup, stock.node, ())
            self._generations.demote(line, stock.sequence, pages, file=stock.file)
            if not stock.file:
                asked[stock.cgroup] = asked.get(stock.cgroup, 0) + pages
        except OSError as error:
            # the cgroup is gone, or has fewer generations by now: the next round sees it as it is
            log.debug("demoting from %s: %s", stock.cgroup, error)
            left = pages
        self._keep_up()
        return [(stock, left - pages), *stocks[1:]] if left > pages else stocks[1:]

    def _push_slice(self, pushes: list[Push], pushed: Counter[int]) -> list[Push]:
        """Send one slice of the first push down; returns what is left of all, and adds it to `pushed`."""
        push, *rest = pushes
        pages, left = push.pages[:SLICE], push.pages[SLICE:]
        pages = pages[self._ready(np.full(len(pages), push.slot), pages)]
        view = self._placed.by_slot(push.slot)
        if view is None or push.slow in self._full:
            return rest
        if len(pages):
            huge = self._holds_huge(view.cgroup, push.slow)
            floor = self._slow_floors[push.slow]
            result = self._mover.promote(view.id, pages, push.slow, floor, huge=huge)
            self._learn(push.slot, view, push.slow, pages, result)
            if moved := result.outcome.carried:
                pushed[push.slot] += moved
                words = f"{moved} pages went down whatever their use: {push.reason}"
                self._fates[push.slot] = self._clock(), words
        return [replace(push, pages=left), *rest] if len(left) else rest

    def _learn(self, slot: int, view: ProcessView, node: int, pages: Pages, result: Promotion) -> None:
        """Remember what `node` or the kernel refused, and name each reason once for each process."""
        now = self._clock()
        slots = np.full(len(pages), slot, dtype=np.int64)
        if result.stopped == errno.ENOMEM:
            self._full.add(node)
        if result.cramped.any():
            self._refusals.refuse(range_keys(slots, pages)[result.cramped], now)
        if result.stopped in _OF_THE_PROCESS:
            self._refusals.refuse(process_keys(slots[:1]), now)
        elif not result.stopped:
            tried = (result.there | result.refused) & ~result.absent
            failed, gave = failed_ranges(range_keys(slots, pages)[tried], result.refused[tried])
            self._refusals.refuse(failed, now)
            self._refusals.forgive(gave)
            if errno.EACCES in result.outcome.errors:
                self._shared[view.cgroup] = now + SHARED_SECONDS
        for code, count in result.outcome.errors.items():
            news = code not in _PASSING and (slot, code) not in self._named
            self._named.add((slot, code))
            log.log(
                logging.INFO if news else logging.DEBUG,
                "process %d (%s): %d pages stay where they are: %s",
                view.id.pid,
                view.command,
                count,
                explain(code),
            )


def _parts(plan: Plan, hot: HotPages, topology: Topology, floor: int) -> list[_Part]:
    """The plan by DRAM node. floor: the policy's extra bytes."""
    parts = []
    for node in topology.dram:
        promotions = [step.which for step in plan.promotions if step.node == node.number]
        here = [step for step in plan.demotions if step.stock.node == node.number]
        pushes = [step for step in plan.pushes if step.dram == node.number]
        if promotions or here or pushes:
            which = _by_process(np.concatenate([*promotions, np.empty(0, dtype=np.int64)]), hot)
            enforced, stocks = (
                [(step.stock, step.pages) for step in here if step.enforced is wanted]
                for wanted in (True, False)
            )
            parts.append(
                _Part(node.number, planner.floor_bytes(node, floor), which, stocks, enforced, pushes)
            )
    return parts


def _by_process(which: planner.Places, hot: HotPages) -> planner.Places:
    """The same, but that in each GROUPED of them the pages of a process follow each other, the process of
    the hottest page first."""
    parts = []
    for start in range(0, len(which), GROUPED):
        part = which[start : start + GROUPED]
        _, first, process = np.unique(hot.slot[part], return_index=True, return_inverse=True)
        parts.append(part[np.argsort(first[process], kind="stable")])
    return np.concatenate(parts) if parts else which
