"""How hot memory is, from looks at regions: DAMON looks at one page of a region at a time, which stands for
all of it.

A region's pages need not be alike, and its bounds change with every report. So heat is kept for blocks of
2 MiB, whatever the regions: what hot and cold neighbours share a region now and then evens out over reports,
and no single page is believed to be hot. Reports count half as much after a half-life.
"""

from __future__ import annotations

import math
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from tierd.core.address_heat import KnownRates, few_of, known_rates
from tierd.core.heat import HotPages, Movable
from tierd.core.model import HUGE_PAGE_SIZE, PAGE_SIZE
from tierd.core.page_table import Nodes
from tierd.core.remembered import Arrays, Passage, dump_table, load_table
from tierd.core.table import Keys, Places, Table

Floats = npt.NDArray[np.float64]

BLOCK_PAGES: Final = HUGE_PAGE_SIZE // PAGE_SIZE
"""Pages of a block: at the bounds that kernel/damon.py asks for, regions of what is worth tiering are mostly
larger."""
MOST_BLOCKS: Final = 1 << 19
"""Blocks remembered: 1 TiB seen in use lately, in 50 MB."""
_BLOCK_BITS: Final = np.uint64(36)
"""57-bit virtual addresses (5-level paging) have 36-bit numbers of 2 MiB; the process's slot stands above
them."""
_PART: Final = BLOCK_PAGES // 64
"""Pages for which one bit of a block stands."""
_ALL: Final = np.uint64((1 << 64) - 1)


class RegionHeat:
    """Takes the place of core.heat.HeatMap for sources that look at regions. Times are seconds on one
    monotonic clock; used by the engine thread only."""

    def __init__(
        self,
        half_life: float,
        interval: float,
        looks: int,
        cooldown: float = 0.0,
        capacity: int = MOST_BLOCKS,
    ) -> None:
        """half_life: seconds. interval: seconds between two looks. looks: of each report.
        cooldown: seconds for which pages that came up, or were not on a slow node, are no candidates; a
        half-life at least, for nothing tells meanwhile where they are. capacity: blocks remembered at most,
        those not seen for longest go first."""
        self.half_life = half_life
        self.cooldown = max(cooldown, half_life)
        self._interval = interval
        self._looks = looks
        self._capacity = capacity
        self._now = -np.inf
        self._blocks = Table(
            {
                "first": np.float64,
                "last": np.float64,
                "sum": np.float64,
                "away": np.uint64,
                "left": np.float64,
            }
        )

    def __len__(self) -> int:
        return len(self._blocks)

    def _column(self, name: str) -> Floats:
        return cast(Floats, self._blocks.columns[name])

    @property
    def _away(self) -> Keys:
        return cast(Keys, self._blocks.columns["away"])

    def observe(
        self,
        slot: npt.NDArray[np.int64],
        page: npt.NDArray[np.uint64],
        time: Floats,
        near: Nodes,
        weight: Floats | None = None,
    ) -> None:
        """Take reports in: arrays of one length. page: any of the block. near: no matter, for no thread is
        seen. weight: how many looks found it in use; one each when None."""
        if not len(page):
            return
        looks = np.ones(len(page)) if weight is None else weight
        keys, index = np.unique(_key(slot, page), return_inverse=True)
        latest = np.full(len(keys), -np.inf)
        np.maximum.at(latest, index, time)
        self._now = max(self._now, float(latest.max()))
        place, new = self._blocks.insert(keys)
        first, last, sums = self._column("first"), self._column("last"), self._column("sum")
        # the looks were made in the time before their report
        first[place[new]] = latest[new] - self._looks * self._interval
        last[place[new]] = latest[new]
        latest = np.maximum(latest, last[place])
        sums[place] = sums[place] * self._decay(latest - last[place]) + np.bincount(index, looks)
        last[place] = latest
        if len(self._blocks) > self._capacity:
            self._forget_oldest()

    def update(self, now: float, unmapped: int, *, resting: bool, measured: bool) -> int:
        """Looks need no prior, and tell nothing of how soon a page was used."""
        self._now = max(self._now, now)
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
        """At most `most` pages, of blocks whose pages are used at least `least_rate` times a second, hottest
        first; those of one block have one rate. movable: as core.heat has it. fresh: no matter, for reports
        keep coming."""
        self._now = max(self._now, now)
        back = self._blocks.occupied
        back = back[now - self._column("left")[back] >= self.cooldown]
        self._away[back] = 0
        place = self._blocks.occupied
        rate = self._rate(place, now)
        hot = np.flatnonzero((rate >= least_rate) & (self._away[place] != _ALL))
        hot = hot[np.argsort(-rate[hot], kind="stable")]
        # twice as many as asked for, since parts of some are away
        hot = hot[: 2 * most // BLOCK_PAGES + 1]
        slot, page = _pages(self._blocks.keys[place[hot]])
        stays = (self._away[place[hot]].repeat(BLOCK_PAGES) >> _bit(page)) & np.uint64(1) == 0
        mask = movable(slot, page)
        if mask is not None:
            stays &= mask
        chosen = np.flatnonzero(stays)[:most]
        near = np.full(len(chosen), -1, dtype=np.int16)
        return HotPages(slot[chosen], page[chosen], rate[hot].repeat(BLOCK_PAGES)[chosen], near)

    def of(self, slot: int, now: float) -> KnownRates:
        """What is known of one process, wherever its memory lies: looks tell no tiers apart."""
        mine, weight = few_of(self._blocks.keys, slot, _BLOCK_BITS)
        place = mine[self._column("sum")[mine] > 0]
        first = _first_pages(self._blocks.keys[place])
        return known_rates(first, self._rate(place, now), span=BLOCK_PAGES, weight=weight)

    @property
    def typical(self) -> float:
        """What is idle is not reported."""
        return 0.0

    def leaving(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None:
        """Pages that are about to move: nothing that happens to them meanwhile looks like a use."""

    def recall(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None:
        """Pages that were about to move and did not: they have not been forgotten."""

    def forget(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None:
        """Pages that came up, or that are on no slow node: they and their neighbours within 32 KiB are no
        candidates before the cooldown is over. Their block's heat stays, for it says nothing of where they
        are."""
        keys, index = np.unique(_key(slot, page), return_inverse=True)
        bits = np.zeros(len(keys), dtype=np.uint64)
        np.bitwise_or.at(bits, index, np.uint64(1) << _bit(page))
        place = self._blocks.find(keys)
        known = place >= 0
        self._away[place[known]] |= bits[known]
        self._column("left")[place[known]] = self._now

    def doubt(self, now: float) -> None:
        """The hot set has changed: what was reported before counts no longer."""
        place = self._blocks.occupied
        self._column("sum")[place] = 0.0
        self._column("first")[place] = now

    def prune(self, now: float, live_slots: npt.NDArray[np.int64]) -> None:
        """Drop processes no longer placed, and blocks not seen in use for eight half-lives."""
        place = self._blocks.occupied
        recent = now - self._column("last")[place] < max(8 * self.half_life, self.cooldown)
        self._blocks.keep(place[recent & np.isin(_slots(self._blocks.keys[place]), live_slots)])

    @property
    def evidence(self) -> dict[str, float]:
        """As core.heat has it."""
        return {"half-life": self.half_life, "interval": self._interval, "looks": self._looks}

    def dump(self) -> Arrays:
        """All that it knows, for `restore`."""
        return dump_table("blocks", self._blocks)

    def restore(self, arrays: Arrays, passage: Passage) -> int:
        """As core.heat has it."""
        load_table("blocks", self._blocks, arrays, passage, _BLOCK_BITS, ("first", "last", "left"))
        return len(self._blocks) * BLOCK_PAGES

    def _rate(self, place: Places, now: float) -> Floats:
        """Uses a second of a page: at r, a look finds one with probability 1 - exp(-r x interval)."""
        first, last = self._column("first")[place], self._column("last")[place]
        found = self._column("sum")[place] * self._decay(np.maximum(0.0, now - last))
        # what all looks since the first one would come to, had each found use; where the source pauses at
        # rest there were fewer, so that all rates seem lower, and by the same factor
        looks = (
            (1 - self._decay(np.maximum(0.0, now - first))) * self.half_life / math.log(2) / self._interval
        )
        share = found / np.maximum(looks, self._looks)
        # always in use may be any rate: half a look less than all of a report
        share = np.minimum(share, 1 - 0.5 / self._looks)
        return cast(Floats, -np.log1p(-share) / self._interval)

    def _decay(self, seconds: Floats) -> Floats:
        return cast(Floats, np.exp2(-seconds / self.half_life))

    def _forget_oldest(self) -> None:
        place = self._blocks.occupied
        keep = self._capacity * 3 // 4
        self._blocks.keep(place[np.argpartition(-self._column("last")[place], keep)[:keep]])


def _key(slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> Keys:
    return (slot.astype(np.uint64) << _BLOCK_BITS) | page // np.uint64(BLOCK_PAGES)


def _bit(page: npt.NDArray[np.uint64]) -> Keys:
    return page % np.uint64(BLOCK_PAGES) // np.uint64(_PART)


def _slots(keys: Keys) -> npt.NDArray[np.int64]:
    return (keys >> _BLOCK_BITS).astype(np.int64)


def _pages(keys: Keys) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """All pages of the blocks, in order, with their slots."""
    page = (_first_pages(keys)[:, None] + np.arange(BLOCK_PAGES, dtype=np.uint64)).ravel()
    return _slots(keys).repeat(BLOCK_PAGES), page


def _first_pages(keys: Keys) -> npt.NDArray[np.uint64]:
    return (keys & ((np.uint64(1) << _BLOCK_BITS) - np.uint64(1))) * np.uint64(BLOCK_PAGES)
