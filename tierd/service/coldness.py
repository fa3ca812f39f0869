"""Which pages of DRAM have not been used lately: ages the generations, and steers how often."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from tierd.core.planner import AGREEMENT, IDLE_WITHOUT_SWAP, ColdStock, Plan
from tierd.kernel.generations import Generations, Lineage

log = logging.getLogger(__name__)

Rates = dict[int, float]

FIRST_INTERVAL = 2.0
SHORTEST_INTERVAL = 0.1
LONGEST_INTERVAL = 30.0
WALK_SHARE = 3
"""An interval is at least this many times as long as the walks of all cgroups take."""
MOST_WALKED = 2.0
"""Seconds after which a round begins no further walk: that of hundreds of gigabytes in small pages takes
seconds alone, and neither the rings nor the watchdog wait for those of all cgroups."""
SMALLEST_LINEAGE = 256
"""Base pages. Walking page tables for less is not worth it."""
COLD_SHARE = 0.01
"""Of what cgroups hold in DRAM: so many pages have to be as cold as that for it to count. There are always a
few that nobody ever uses; measured against those, every page of a slow node is hot."""
CACHE_KEPT = 1 / 8
"""Of a DRAM node: so much page cache stays where it is. A little is the programs that run."""
IDLE_COUNTED = 10.0
"""Seconds of idleness that count at most, as long as nobody has seen how soon such pages are used again:
among cold pages the longest idle are the unlucky ones."""


class Selects(Protocol):
    def selects(self, cgroup: str, /) -> bool:
        """Whether the cgroup may be asked for anonymous memory and tmpfs."""

    def caches(self, cgroup: str, /) -> bool:
        """Whether it may be asked for page cache; all that are selected may."""


class Coldness:
    """Used by the engine only, in its thread.

    caches: page cache that could be demoted, oldest first, as of the last call of `stocks`; none on nodes
    that hold little. The kernel would make room with it first of all when DRAM runs short, which it does not
    where tierd keeps it above its floor; and what was in DRAM first is what a server has read since it was
    booted.
    """

    def __init__(
        self, generations: Generations, clock: Callable[[], float], *, between: Callable[[], object]
    ) -> None:
        self._generations = generations
        self._clock = clock
        self._between = between
        self._interval = FIRST_INTERVAL
        self._news = False
        self._walks: dict[tuple[str, int], float] = {}
        self._aged: dict[tuple[str, int], float] = {}
        self._rates: dict[tuple[str, int], Rates] = {}
        self._held: dict[tuple[str, int], int] = {}
        self._stocks: tuple[ColdStock, ...] = ()
        self._arrived: dict[tuple[str, int], int] = {}
        self.caches: tuple[ColdStock, ...] = ()

    @property
    def coldest(self) -> float:
        """Uses a second expected of the coldest pages of DRAM: of those that could go down, where they are
        more than a few, and by what the last walks have seen where they are not."""
        return self._coldest(self._rates.keys())

    def coldest_in(self, cgroups: Collection[str]) -> float:
        """The same of some cgroups alone."""
        return self._coldest({key for key in self._rates if key[0] in cgroups})

    def _coldest(self, keys: Collection[tuple[str, int]]) -> float:
        seen = {rate for key in keys for rate in self._rates[key].values()}
        if not seen:
            return 1 / IDLE_WITHOUT_SWAP
        needed = COLD_SHARE * sum(self._held.get(key, 0) for key in keys)
        for stock in sorted(self._stocks, key=lambda stock: stock.rate):
            if (stock.cgroup, stock.node) in keys:
                needed -= stock.pages
                if needed <= 0:
                    return stock.rate
        # all but a few were used between two walks, nobody knows how often: at least as often as measured
        return AGREEMENT * min(seen)

    def stocks(
        self, selection: Selects, dram: Mapping[int, int], now: float, *, walk: bool = True
    ) -> tuple[ColdStock, ...]:
        """What could be demoted now, after aging what is due unless not to `walk`; the page cache is in
        `caches`. dram: base pages of each node. Raises OSError, MalformedError."""
        lineages = self._lineages(selection, dram)
        known = {_key(line) for line in lineages}
        self._aged = {key: when for key, when in self._aged.items() if key in known}
        self._arrived = {key: pages for key, pages in self._arrived.items() if key in known}
        # what has gone down, and is walked no more, says nothing of what is in DRAM
        owned = {_key(line) for line in lineages if self._owned(line, selection)}
        self._rates = {key: rates for key, rates in self._rates.items() if key in owned}
        much = _much_cache(lineages, dram)
        walked = [line for line in lineages if _key(line) in owned or line.node in much and _cached(line)]
        kept = {_key(line) for line in walked}
        self._walks = {key: seconds for key, seconds in self._walks.items() if key in kept}
        interval = max(self._interval, self._shortest_interval)
        due = [line for line in walked if now - self._aged.get(_key(line), 0.0) >= interval]
        if due and walk:
            before = self._walk(due, now)
            lineages = self._lineages(selection, dram)
            for line in lineages:
                if (key := _key(line)) in before and key in owned:
                    arrived = self._arrived.pop(key, 0)
                    self._rates[key] = rates_of_use(before[key], line, arrived)
        # a shorter time than the one aimed at is not the engine's own measure: the kernel aged in between
        least = interval / 2
        self.caches = _caches(lineages, dram, least)
        self._held = {_key(line): sum(g.anon for g in line.generations) for line in lineages}
        self._stocks = tuple(
            stock
            for line in lineages
            if selection.selects(line.cgroup)
            for stock in _stocks(line, self._rates.get(_key(line), {}))
            if stock.idle >= least
        )
        return self._stocks

    def _owned(self, line: Lineage, selection: Selects) -> bool:
        held = sum(generation.anon for generation in line.generations)
        return held >= SMALLEST_LINEAGE and selection.selects(line.cgroup)

    def arrived(self, cgroup: str, node: int, pages: int) -> None:
        """So many pages of the cgroup were promoted to the node."""
        self._arrived[cgroup, node] = self._arrived.get((cgroup, node), 0) + pages

    def begin_anew(self) -> None:
        """The hot set has changed: what becomes cold now is wanted soon."""
        self._interval = self._first_interval

    @property
    def _first_interval(self) -> float:
        return max(FIRST_INTERVAL, self._shortest_interval)

    @property
    def _shortest_interval(self) -> float:
        return max(SHORTEST_INTERVAL, WALK_SHARE * sum(self._walks.values()))

    def steer(self, plan: Plan, cold: tuple[ColdStock, ...], moved: int) -> None:
        """The longest interval that still finds enough cold pages. The longer a page was idle, the surer it
        is cold; but where every page is used every few seconds, a long interval finds none."""
        found = sum(stock.pages for stock in cold)
        enough = max(1024, moved)
        short = bool(plan.unmet) or (plan.promote < plan.wanted and found < 2 * enough)
        if short and self._interval > self._first_interval:
            # what a long interval found is used up, and the end of the next one is far away
            self.begin_anew()
            return
        if not self._news:
            return  # an interval is judged once, by what the walk at its end found
        self._news = False
        if found > 4 * enough and not plan.unmet:
            self._interval *= 1.5
        elif short:
            self._interval /= 1.5
        self._interval = max(self._shortest_interval, min(LONGEST_INTERVAL, self._interval))

    def _lineages(self, selection: Selects, dram: Collection[int]) -> list[Lineage]:
        return [line for line in self._generations.read(selection.caches) if line.node in dram]

    def _walk(self, due: list[Lineage], now: float) -> dict[tuple[str, int], Lineage]:
        """Age those that have waited for longest, for about MOST_WALKED seconds. Returns what they were."""
        due.sort(key=lambda line: self._aged.get(_key(line), 0.0))
        begun, before = self._clock(), {}
        for line in due:
            if self._clock() - begun >= MOST_WALKED:
                break
            self._age(line, now)
            before[_key(line)] = line
        self._news = self._news or len(before) == len(due)
        return before

    def _age(self, line: Lineage, now: float) -> None:
        begun = self._clock()
        try:
            self._generations.age(line)
        except OSError as error:
            # the kernel aged it meanwhile, or the cgroup is gone
            log.debug("aging %s on node %d: %s", line.cgroup, line.node, error)
        self._walks[_key(line)] = self._clock() - begun
        self._aged[_key(line)] = now
        self._between()


def rates_of_use(before: Lineage, after: Lineage, arrived: int = 0) -> Rates:
    """How often pages that had not been used for a while were used after all: of the pages in a generation
    or an older one, those that a walk of the page tables has found used, over the time since the last.
    Uses a second, by the sequence of the generation. before, after: the lineage around the walk. arrived:
    pages promoted since the last walk, which the kernel puts into the generation before the youngest, and
    which are used more than any that were there (measured: move_pages, 6.12 and 7.3)."""
    exposed = before.generations[-1].age
    rates: Rates = {}
    for generation in before.generations[:-1]:
        held, left = (_older(line, generation.sequence) for line in (before, after))
        if generation.sequence == before.youngest - 1:
            held -= arrived
        # a walk that found nothing used proves nothing
        if held >= SMALLEST_LINEAGE and left < held and exposed > 0:
            rates[generation.sequence] = math.log(held / max(1, left)) / exposed
    return rates


def _older(line: Lineage, sequence: int) -> int:
    """Pages of this generation and all before it. The kernel merges the oldest, which changes no sum."""
    return sum(generation.anon for generation in line.generations if generation.sequence <= sequence)


def _key(line: Lineage) -> tuple[str, int]:
    return line.cgroup, line.node


def _cached(line: Lineage) -> int:
    """Pages of page cache, 0 when there are few."""
    held = sum(generation.file for generation in line.generations)
    return held if held >= SMALLEST_LINEAGE else 0


def _much_cache(lineages: Iterable[Lineage], dram: Mapping[int, int]) -> dict[int, int]:
    """Pages of page cache beyond those that a node keeps, by node, where there are such."""
    held: dict[int, int] = {}
    for line in lineages:
        held[line.node] = held.get(line.node, 0) + _cached(line)
    beyond = {node: pages - int(CACHE_KEPT * dram[node]) for node, pages in held.items()}
    return {node: pages for node, pages in beyond.items() if pages > 0}


def _caches(lineages: list[Lineage], dram: Mapping[int, int], least: float) -> tuple[ColdStock, ...]:
    """Of each node what it holds beyond what it keeps; `least`: seconds of idleness."""
    left = _much_cache(lineages, dram)
    stocks = [
        stock
        for line in lineages
        if line.node in left and _cached(line)
        for stock in _stocks(line, {}, file=True)
        if stock.idle >= least
    ]
    found = []
    for stock in sorted(stocks, key=lambda stock: -stock.idle):
        if taken := min(stock.pages, left[stock.node]):
            left[stock.node] -= taken
            found.append(replace(stock, pages=taken))
    return tuple(found)


def _stocks(line: Lineage, rates: Rates, *, file: bool = False) -> list[ColdStock]:
    """Oldest first, and none with a higher rate than a younger one. file: of page cache."""
    youngest = line.generations[-1]
    stocks: list[ColdStock] = []
    least = math.inf
    for this, younger in zip(line.generations[-3::-1], line.generations[-2:0:-1], strict=True):
        # untouched from the birth of the next generation to the last walk of the page tables
        idle = younger.age - youngest.age
        unseen = 1 / min(max(idle, SHORTEST_INTERVAL), IDLE_COUNTED)
        least = min(least, rates.get(this.sequence, unseen))
        if pages := this.file if file else this.anon:
            stock = ColdStock(line.cgroup, line.memcg, line.node, this.sequence, idle, pages, least, file)
            stocks.insert(0, stock)
    return stocks
