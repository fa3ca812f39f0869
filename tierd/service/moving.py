"""Carries a plan out: a slice of room, then a slice of promotion, until the plan or the time is used up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from tierd.core import planner
from tierd.core.access import Heat
from tierd.core.heat import HotPages
from tierd.core.model import PAGE_SIZE, Topology
from tierd.core.outcome import Outcome
from tierd.core.planner import ColdStock, Plan
from tierd.errors import TierdError
from tierd.kernel.counters import read_demoted
from tierd.kernel.generations import Generations, Lineage
from tierd.kernel.mover import Mover
from tierd.kernel.paths import Root
from tierd.kernel.topology import read_free
from tierd.service.placed import PlacedProcesses

log = logging.getLogger(__name__)

SLICE = 2048
"""Base pages demoted, then promoted, in turn, so that the rings are read in between."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a round moved. promoted: the fate of each page of the plan. demoted: base pages, by the kernel's
    count. seconds: wall time. trouble: the reading that failed and ended it early; what was moved until then
    counts."""

    promoted: Outcome = Outcome()
    demoted: int = 0
    seconds: float = 0.0
    trouble: TierdError | None = None

    @property
    def pages(self) -> int:
        return self.promoted.moved + self.demoted


class Executor:
    """Used by the engine only, in its thread."""

    def __init__(
        self, root: Root, generations: Generations, placed: PlacedProcesses, *, between: Callable[[], object]
    ) -> None:
        self._root = root
        self._generations = generations
        self._placed = placed
        self._between = between
        self._mover = Mover(root, between=between)

    def execute(
        self, plan: Plan, hot: HotPages, heat: Heat, topology: Topology, floor: int, seconds: float
    ) -> Moved:
        """Do as much of `plan` as fits into `seconds`. floor: the policy's extra bytes. Raises
        TierdError when it could not begin."""
        if not plan.promote and not plan.demotions:
            return Moved()
        begun = time.monotonic()
        demoted_before = read_demoted(self._root)
        node = next(n for n in topology.dram if n.number == plan.promote_to)
        least_free = planner.floor_bytes(node, floor)
        stocks = [(demotion.stock, demotion.pages) for demotion in plan.demotions]
        promoted, done, demoted = Outcome(), 0, 0
        trouble: TierdError | None = None
        try:
            while time.monotonic() < begun + seconds:
                count = min(SLICE, plan.promote - done)
                if stocks and read_free(self._root, node.number) < least_free + count * PAGE_SIZE:
                    stocks = self._demote_slice(stocks)
                    continue
                if not count:
                    break
                promoted += self._promote(hot, done, done + count, heat, node.number, least_free)
                done += count
            demoted = max(0, read_demoted(self._root) - demoted_before)
        except TierdError as error:
            trouble = error
        promoted += Outcome(deferred=plan.promote - done)
        return Moved(promoted, demoted, time.monotonic() - begun, trouble)

    def _demote_slice(self, stocks: list[tuple[ColdStock, int]]) -> list[tuple[ColdStock, int]]:
        """Demote one slice of the first stock; returns what is left of all."""
        stock, left = stocks[0]
        pages = min(left, SLICE)
        try:
            self._generations.demote(
                Lineage(stock.memcg, stock.cgroup, stock.node, ()), stock.sequence, pages
            )
        except OSError as error:
            # the cgroup is gone, or has fewer generations by now: the next round sees it as it is
            log.debug("demoting from %s: %s", stock.cgroup, error)
            left = pages
        self._between()
        return [(stock, left - pages), *stocks[1:]] if left > pages else stocks[1:]

    def _promote(self, hot: HotPages, begin: int, end: int, heat: Heat, node: int, floor: int) -> Outcome:
        total = Outcome()
        slots, pages = hot.slot[begin:end], hot.page[begin:end]
        for slot in np.unique(slots):
            view = self._placed.by_slot(int(slot))
            chosen = pages[slots == slot]
            if view is None:
                total += Outcome(deferred=len(chosen))
                continue
            leave = partial(_forget, heat, slot)
            outcome, there = self._mover.promote(view.id, chosen, node, floor, announce=leave)
            leave(chosen[there])
            total += outcome
        return total


def _forget(heat: Heat, slot: np.int64, pages: npt.NDArray[np.uint64]) -> None:
    heat.forget(np.full(len(pages), slot), pages)
