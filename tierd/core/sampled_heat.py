"""How hot each page is, from samples of accesses: hardware that reports one of every `period`.

The samples of a page come at its rate of accesses divided by the period. Each counts half as much after a
half-life, so that at a steady rate the sum is samples a second x half-life / ln 2.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import numpy.typing as npt

from tierd.core.address_heat import KnownRates, few_of, known_rates
from tierd.core.heat import MOST_PAGES, HotPages, Movable
from tierd.core.page_table import PAGE_BITS, Nodes, note_near, noted_near, page_keys, slots_of, split_keys
from tierd.core.remembered import Arrays, Passage, dump_table, load_table
from tierd.core.table import Places, Table

Floats = npt.NDArray[np.float64]

_AWAY = -np.inf
"""The sum of a page that is being promoted, or was."""


class SampledHeat:
    """Takes the place of core.heat.HeatMap for sources that sample. Times are seconds on one monotonic
    clock; used by the engine thread only."""

    def __init__(
        self, half_life: float, period: int, cooldown: float = 0.0, capacity: int = MOST_PAGES
    ) -> None:
        """half_life: seconds. period: accesses for which a sample stands. cooldown: as core.heat has it.
        capacity: pages remembered at most; the ones not seen for longest go first."""
        self.half_life = half_life
        self.cooldown = cooldown
        self._period = period
        self._capacity = capacity
        self._pages = Table({"last": np.float64, "sum": np.float32, "near": np.uint8})

    def __len__(self) -> int:
        return len(self._pages)

    def _column(self, name: str) -> Floats:
        return cast("Floats", self._pages.columns[name])

    def observe(
        self,
        slot: npt.NDArray[np.int64],
        page: npt.NDArray[np.uint64],
        time: Floats,
        near: Nodes,
        weight: Floats | None = None,
    ) -> None:
        """Take samples in: arrays of one length. Samples of a page in one call count as of its latest.
        near: as core.heat has it."""
        if not len(page):
            return
        keys, first, index, counts = np.unique(
            page_keys(slot, page), return_index=True, return_inverse=True, return_counts=True
        )
        latest = np.full(len(keys), -np.inf)
        np.maximum.at(latest, index, time)
        place, _ = self._pages.insert(keys)
        note_near(self._pages, place, near[first])
        last, sums = self._column("last"), self._column("sum")
        latest = np.maximum(latest, last[place])
        away = np.isneginf(sums[place])
        resting = away & (latest - last[place] < self.cooldown)
        kept = np.where(away, 0.0, sums[place]) * self._decay(latest - last[place])
        sums[place] = np.where(resting, _AWAY, kept + counts)
        last[place] = np.where(resting, last[place], latest)
        if len(self._pages) > self._capacity:
            self._forget_oldest()

    def update(self, now: float, unmapped: int, *, resting: bool, measured: bool) -> int:
        """Samples need no prior, and tell nothing of how soon a page was used."""
        return 0

    def hottest(
        self,
        now: float,
        least_rate: float,
        most: int,
        movable: Movable = lambda slot, page: None,
        *,
        fresh: bool = False,
    ) -> HotPages:
        """At most `most` pages whose rate is at least `least_rate` accesses a second, hottest first.
        movable: as core.heat has it. fresh: no matter, for samples keep coming."""
        place = self._pages.occupied
        rate = self._rate(place, now)
        hot = np.flatnonzero(rate >= least_rate)
        mask = movable(*split_keys(self._pages.keys[place[hot]]))
        if mask is not None:
            hot = hot[mask]
        if len(hot) > most:
            hot = hot[np.argpartition(-rate[hot], most)[:most]]
        hot = hot[np.argsort(-rate[hot], kind="stable")]
        place = place[hot]
        return HotPages(*split_keys(self._pages.keys[place]), rate[hot], noted_near(self._pages, place))

    def of(self, slot: int, now: float) -> KnownRates:
        """What is known of one process. Of pages that came up nothing is."""
        mine, weight = few_of(self._pages.keys, slot, PAGE_BITS)
        place = mine[self._column("sum")[mine] > 0]
        return known_rates(split_keys(self._pages.keys[place])[1], self._rate(place, now), weight=weight)

    @property
    def typical(self) -> float:
        """Samples do not tell of cold pages, which they never see."""
        return 0.0

    def leaving(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None:
        """Pages that are about to move: nothing that happens to them meanwhile looks like a sample."""

    def recall(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None:
        """Pages that were about to move and did not: they have not been forgotten."""

    def forget(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None:
        """Pages that are being promoted, or were: no candidates any more until they are seen on a slow node
        again, the cooldown later."""
        place = self._pages.find(page_keys(slot, page))
        self._column("sum")[place[place >= 0]] = _AWAY

    def doubt(self, now: float) -> None:
        """The hot set has changed: what was sampled before counts no longer."""
        sums = self._column("sum")
        sums[np.isfinite(sums)] = 0.0

    def prune(self, now: float, live_slots: npt.NDArray[np.int64]) -> None:
        """Drop processes no longer placed, and pages not seen for eight half-lives."""
        place = self._pages.occupied
        recent = now - self._column("last")[place] < max(8 * self.half_life, self.cooldown)
        self._pages.keep(place[recent & np.isin(slots_of(self._pages.keys[place]), live_slots)])

    @property
    def evidence(self) -> dict[str, float]:
        """As core.heat has it."""
        return {"half-life": self.half_life, "sampling period": self._period}

    def dump(self) -> Arrays:
        """All that it knows, for `restore`."""
        return dump_table("pages", self._pages)

    def restore(self, arrays: Arrays, passage: Passage) -> int:
        """As core.heat has it."""
        load_table("pages", self._pages, arrays, passage, PAGE_BITS, ("last",))
        return len(self._pages)

    def _rate(self, place: Places, now: float) -> Floats:
        decayed = self._column("sum")[place] * self._decay(
            np.maximum(0.0, now - self._column("last")[place])
        )
        return cast("Floats", decayed * (self._period * math.log(2) / self.half_life))

    def _decay(self, seconds: Floats) -> Floats:
        return cast("Floats", np.exp2(-seconds / self.half_life))

    def _forget_oldest(self) -> None:
        place = self._pages.occupied
        keep = self._capacity * 3 // 4
        self._pages.keep(place[np.argpartition(-self._column("last")[place], keep)[:keep]])
