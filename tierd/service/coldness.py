"""Which pages of DRAM have not been used lately: ages the generations, and steers how often."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tierd.core.planner import ColdStock, Plan
from tierd.core.policy import ProcessSelection
from tierd.kernel.generations import Generations, Lineage

log = logging.getLogger(__name__)

FIRST_INTERVAL = 2.0
SHORTEST_INTERVAL = 0.1
LONGEST_INTERVAL = 30.0
WALK_SHARE = 3
"""An interval is at least this many times as long as the walk that begins it."""
SMALLEST_LINEAGE = 256
"""Base pages. Walking page tables for less is not worth it."""


class Coldness:
    """Used by the engine only, in its thread."""

    def __init__(
        self, generations: Generations, clock: Callable[[], float], *, between: Callable[[], object]
    ) -> None:
        self._generations = generations
        self._clock = clock
        self._between = between
        self._interval = FIRST_INTERVAL
        self._walk = 0.0
        self._news = False
        self._aged: dict[tuple[str, int], float] = {}

    def stocks(
        self, selection: ProcessSelection, dram: set[int], now: float, *, walk: bool = True
    ) -> tuple[ColdStock, ...]:
        """What could be demoted now, after aging what is due unless not to `walk`. Raises OSError,
        MalformedError."""
        lineages = self._lineages(selection, dram)
        known = {(line.cgroup, line.node) for line in lineages}
        self._aged = {key: when for key, when in self._aged.items() if key in known}
        due = [
            line
            for line in lineages
            if now - self._aged.get((line.cgroup, line.node), 0.0) >= self._interval
            and sum(generation.anon for generation in line.generations) >= SMALLEST_LINEAGE
        ]
        if due and walk:
            self._walk = 0.0
            for line in due:
                self._age(line, now)
            lineages = self._lineages(selection, dram)
        # a shorter time than the one aimed at is not the engine's own measure: the kernel aged in between
        least = self._interval / 2
        return tuple(stock for line in lineages for stock in _stocks(line) if stock.idle >= least)

    def begin_anew(self) -> None:
        """The hot set has changed: what becomes cold now is wanted soon."""
        self._interval = self._first_interval

    @property
    def _first_interval(self) -> float:
        return max(FIRST_INTERVAL, WALK_SHARE * self._walk)

    def steer(self, plan: Plan, cold: tuple[ColdStock, ...], moved: int) -> None:
        """The longest interval that still finds enough cold pages. The longer a page was idle, the surer it
        is cold; but where every page is used every few seconds, a long interval finds none."""
        found = sum(stock.pages for stock in cold)
        enough = max(1024, moved)
        short = plan.promote < plan.wanted and found < 2 * enough
        if short and self._interval > self._first_interval:
            # what a long interval found is used up, and the end of the next one is far away
            self.begin_anew()
            return
        if not self._news:
            return  # an interval is judged once, by what the walk at its end found
        self._news = False
        if found > 4 * enough:
            self._interval *= 1.5
        elif short:
            self._interval /= 1.5
        self._interval = min(
            LONGEST_INTERVAL, max(SHORTEST_INTERVAL, WALK_SHARE * self._walk, self._interval)
        )

    def _lineages(self, selection: ProcessSelection, dram: set[int]) -> list[Lineage]:
        return [line for line in self._generations.read(selection.selects) if line.node in dram]

    def _age(self, line: Lineage, now: float) -> None:
        begun = self._clock()
        try:
            self._generations.age(line)
        except OSError as error:
            # the kernel aged it meanwhile, or the cgroup is gone
            log.debug("aging %s on node %d: %s", line.cgroup, line.node, error)
        self._walk += self._clock() - begun
        self._aged[line.cgroup, line.node] = now
        self._news = True
        self._between()


def _stocks(line: Lineage) -> list[ColdStock]:
    youngest = line.generations[-1]
    return [
        # untouched from the birth of the next generation to the last walk of the page tables
        ColdStock(line.cgroup, line.memcg, line.node, this.sequence, younger.age - youngest.age, this.anon)
        for this, younger in zip(line.generations[:-2], line.generations[1:], strict=False)
        if this.anon
    ]
