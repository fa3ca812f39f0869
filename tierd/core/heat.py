"""How hot each sampled page is, from the time between its unmapping and its next access.

The kernel unmaps slow-tier pages region by region; a hint fault then says when a page was used for the first
time afterwards. For accesses that arrive at rate r, that delay is exponential with mean 1/r, so one delay is
an estimate of r that spans decades at the price of one fault. The kernel does not say when it unmapped a
page. It need not: a page faults once per unmapping, so the second fault of any page of a region proves that
the region has been unmapped again in between, and the first such fault of a region marks the time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from tierd.core.address_heat import KnownRates, few_of, known_rates
from tierd.core.page_table import PAGE_BITS, Nodes, note_near, noted_near, page_keys, slots_of, split_keys
from tierd.core.rates import (
    LONGEST_DELAY,
    MOST_EVENTS,
    SETTLED_STEPS,
    SHORTEST_DELAY,
    STEPS,
    RatePrior,
)
from tierd.core.remembered import Arrays, Passage, dump_table, load_table
from tierd.core.table import FULLEST, Keys, Places, Table

Floats = npt.NDArray[np.float64]
Movable = Callable[[npt.NDArray[np.int64], npt.NDArray[np.uint64]], npt.NDArray[np.bool_] | None]
Known = Callable[[npt.NDArray[np.int64], npt.NDArray[np.uint64]], npt.NDArray[np.bool_]]

REGION_PAGES_SHIFT: Final = 10
"""Regions of 4 MiB: far less than what the kernel unmaps in one go (scan_size_mb), so that one time holds
for the whole region, and far more pages than the few whose own fault defines that time."""
_REGION_BITS: Final = PAGE_BITS - np.uint64(REGION_PAGES_SHIFT)
_WEIGHT: Final = 0.5
"""Of the newest delay in the running mean: a change of phase shows in two faults, one lucky fault of a cold
page does not make it hot."""
QUICK_SHARE: Final = 0.01
"""Of the pages of slow nodes: what counts as quick when the hot ones have been promoted. Enough to count,
and the shorter that time, the larger is the part of hot pages used in it beside that of cold ones."""
_QUICK_STEP: Final = 1.1
"""By which what counts as quick follows the workload in each round of a rest, which lasts two seconds."""
_BEFORE_REST: Final = 1 / 32
"""Of what was unmapped before a rest: as much as a trickle counts in the same time."""
_LEARN_SECONDS: Final = 4.0
"""Between two estimates of how often pages are used, during a rest, when that hardly changes."""
MOST_PAGES: Final = int(0.9 * FULLEST * (1 << 21))
"""Pages remembered: 4.3 GiB sampled lately, in 46 MB, and twice that while the table is rebuilt."""
_FORGOTTEN: Final = 1 / 4
"""Of the pages, when there are too many; and how many must be stale before the table is rebuilt for them."""
_FEW: Final = 1 << 13
"""Pages that are soon sorted, whatever they are."""
_NO_KEYS: Final = np.empty(0, dtype=np.uint64)
_AWAY: Final = 1000.0
"""Added to the mean delay of a page that is being promoted, or was: far above any that can be observed."""
_LEAST_COOLDOWN: Final = 10.0
"""Seconds since it was used for which a page that is away may still be on its way."""


@dataclass(frozen=True, slots=True)
class HotPages:
    """Pages in order of falling rate. slot: int64; page: uint64 page numbers; rate: accesses a second; near:
    int16, the node of DRAM near the last thread that used it, -1 when not known."""

    slot: npt.NDArray[np.int64]
    page: npt.NDArray[np.uint64]
    rate: Floats
    near: Nodes

    def __len__(self) -> int:
        return len(self.page)

    def only(self, mask: npt.NDArray[np.bool_]) -> HotPages:
        """Those of `mask`."""
        return HotPages(self.slot[mask], self.page[mask], self.rate[mask], self.near[mask])


class HeatMap:
    """The heat of what was sampled lately. Processes are known by a small number, their slot (1 to 2^18).

    Times are seconds on one monotonic clock. Fed and read by the engine thread only.
    """

    def __init__(self, half_life: float, cooldown: float = 0.0, capacity: int = MOST_PAGES) -> None:
        """half_life: seconds after which a page that is not sampled again starts to be forgotten. cooldown:
        seconds for which a page that came up, and went down again, does not come up once more; counted from
        the access that brought it up. capacity: pages remembered at most; the ones not seen for longest go
        first."""
        self.half_life = half_life
        self.cooldown = cooldown
        self._capacity = capacity
        self._doubted = -math.inf
        self._prior = RatePrior(half_life)
        self._quick = 0.0
        self._quick_uses = 0
        self._learnt = -math.inf
        self._resting = False
        self._rest_began = -math.inf
        self._unlearnt = 0
        self._fresh: deque[Keys] = deque()
        self._fresh_keys = 0
        self._pages = Table({"last": np.float64, "delay": np.float32, "events": np.uint8, "near": np.uint8})
        self._regions = Table({"start": np.float64, "before": np.float64, "origin": np.float64})

    def __len__(self) -> int:
        return len(self._pages)

    @property
    def nbytes(self) -> int:
        """Bytes of state."""
        return self._pages.nbytes + self._regions.nbytes + sum(keys.nbytes for keys in self._fresh)

    @property
    def _events(self) -> npt.NDArray[np.uint8]:
        return cast("npt.NDArray[np.uint8]", self._pages.columns["events"])

    def _page_column(self, name: str) -> Floats:
        return cast("Floats", self._pages.columns[name])

    def _region_column(self, name: str) -> Floats:
        return cast("Floats", self._regions.columns[name])

    def known(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Which of these pages are remembered."""
        return self._pages.find(page_keys(slot, page)) >= 0

    def observe(
        self,
        slot: npt.NDArray[np.int64],
        page: npt.NDArray[np.uint64],
        time: Floats,
        near: Nodes,
        weight: Floats | None = None,
    ) -> None:
        """Take faults in, in order of time: arrays of one length. near: as in HotPages, of the thread that
        faulted."""
        if not len(page):
            return
        keys, earliest_of = np.unique(page_keys(slot, page), return_index=True)
        time, near = time[earliest_of], near[earliest_of]
        if len(self._pages) + len(keys) > self._capacity:
            self._forget_oldest(len(keys))
        # the keys are in order, and so are their regions
        region_keys = _region_key(keys)
        heads = np.ones(len(keys), dtype=np.bool_)
        np.not_equal(region_keys[1:], region_keys[:-1], out=heads[1:])
        first_of, region_of = np.flatnonzero(heads), np.cumsum(heads) - 1
        region, region_new = self._regions.insert(region_keys[first_of])
        place, new = self._pages.insert(keys)
        start, before, origin = (self._region_column(c) for c in ("start", "before", "origin"))
        last, delay, events = self._page_column("last"), self._page_column("delay"), self._events

        note_near(self._pages, place, near)
        self._note_fresh(keys)
        fresh = region[region_new]
        start[fresh] = before[fresh] = origin[fresh] = np.minimum.reduceat(time, first_of)[region_new]
        begun, previous = start[region], before[region]
        last_used, known, seen = last[place], delay[place], events[place]

        away = ~new & _is_away(known)
        back = away & (time - last_used >= max(self.cooldown, _LEAST_COOLDOWN))
        resting = away & ~back
        # a page that faults for the second time since `start` proves a new unmapping of its region
        again = ~new & ~resting & (last_used >= begun[region_of])
        unmapped = np.minimum.reduceat(np.where(again, time, np.inf), first_of)
        renewed = np.isfinite(unmapped)
        previous[renewed] = begun[renewed]
        before[region] = previous
        current = np.where(renewed, unmapped, begun)
        start[region] = current

        unmapped_at, missed_since = current[region_of], previous[region_of]
        since = np.where(time >= unmapped_at, unmapped_at, begun[region_of])
        # not seen in the pass before: it has been waiting since then at least
        since = np.where(~away & (last_used < missed_since), missed_since, since)
        # never seen: waiting since the region was first unmapped, as far as anyone knows
        since[new] = origin[region[region_of[new]]]
        # what it waited before the hot set changed says nothing, unless it was unmapped anew since
        since = np.where((since < self._doubted) & (time >= unmapped_at), unmapped_at, since)
        # the fault that defines the start has no delay of its own; half the time since its last is expected
        defines = again & (time <= unmapped_at)
        outdated = np.where(defines, last_used, since) < self._doubted
        observed = np.where(defines, (time - last_used) / 2, time - since)
        observed = np.minimum(np.maximum(observed, SHORTEST_DELAY), LONGEST_DELAY)
        tells = ~(away | defines | outdated)
        telling = observed[tells]
        # most of what was unmapped at full rate is used when the rest has begun, and would drown the trickle
        self._prior.observe(telling, np.where(since[tells] < self._rest_began, _BEFORE_REST, 1.0))
        self._quick_uses += int(np.count_nonzero(telling <= self._quick))

        first = new | back | (last_used < self._doubted) | (seen == 0)
        mean = np.where(first, observed, _WEIGHT * observed + (1 - _WEIGHT) * known)
        counted = np.where(first, ~outdated, np.minimum(seen + np.uint8(1), MOST_EVENTS))
        awake = ~resting
        place = place[awake]
        delay[place], last[place], events[place] = mean[awake], time[awake], counted[awake]

    def update(self, now: float, unmapped: int, *, resting: bool, measured: bool) -> int:
        """Learn from what was observed how often pages are used at all, once a round. unmapped: pages that
        the kernel has unmapped since the last call. resting: whether there is little to learn. measured:
        whether what counts as quick stays as it was. Returns how many pages were used sooner after their
        unmapping than all but QUICK_SHARE of them when that was measured; many more say that other pages are
        hot now."""
        quick, self._quick_uses = self._quick_uses, 0
        if resting and not self._resting:
            # the hot pages that were counted are in DRAM now, and a rest counts few
            self._prior.discount(_BEFORE_REST)
            self._rest_began = now
        self._resting = resting
        if resting and unmapped:
            # a workload left in peace gets faster, and all its uses quicker; a change does so in no time
            self._quick *= _QUICK_STEP if quick < QUICK_SHARE * unmapped else 1 / _QUICK_STEP
        self._unlearnt += unmapped
        if resting and now - self._learnt < _LEARN_SECONDS:
            return quick
        self._prior.update(now, self._unlearnt, steps=SETTLED_STEPS if resting else STEPS)
        self._learnt, self._unlearnt = now, 0
        if not measured and not resting:
            self._quick = self._prior.delay(QUICK_SHARE)
        return quick

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
        movable: which of the pages may be among them, a mask; None for all. fresh: only those that were
        observed since the last call, which are all that can have become hot while few are looked at."""
        events = self._events
        longest = np.concatenate(
            [[0.0], self._prior.longest_wait(least_rate) / np.arange(1, MOST_EVENTS + 1)]
        )
        if fresh:
            place = self._pages.find(np.unique(np.concatenate([*self._fresh, _NO_KEYS])))
            place = place[place >= 0]
            place = place[self._page_column("delay")[place] <= longest[events[place]]]
        else:
            place = np.flatnonzero(self._soon_used(longest))
        self._fresh.clear()
        self._fresh_keys = 0
        if len(place) > 2 * most + _FEW:
            # what follows has its price for each page; by delay alone, the hottest are among the first
            longer = self._page_column("delay")[place]
            longer /= longest[events[place]]
            place = place[np.argpartition(longer, 2 * most + _FEW)[: 2 * most + _FEW]]
        keys = self._pages.keys[place]
        rate = self._rate(place, now)
        hot = np.flatnonzero(rate >= least_rate)
        mask = movable(*split_keys(keys[hot]))
        if mask is not None:
            hot = hot[mask]
        if len(hot) > most:
            hot = hot[np.argpartition(-rate[hot], most)[:most]]
        hot = hot[np.argsort(-rate[hot], kind="stable")]
        slots, pages = split_keys(keys[hot])
        return HotPages(slots, pages, rate[hot], noted_near(self._pages, place[hot]))

    def of(self, slot: int, now: float) -> KnownRates:
        """What is known of one process: of pages that came up, as when they were last on a slow node."""
        mine, weight = few_of(self._pages.keys, slot, PAGE_BITS)
        place = mine[self._events[mine] > 0]
        seen, delay = self._events[place].astype(np.int64), self._page_column("delay")[place]
        away = _is_away(delay)
        rate = self._rate(place, now)
        # others have come up since, so that what the rest are like says nothing of these any more
        rate[away] = RatePrior(self.half_life).rate(seen[away], (delay[away] - _AWAY) * seen[away])
        return known_rates(split_keys(self._pages.keys[place])[1], rate, away, weight=weight)

    def _rate(self, place: Places, now: float) -> Floats:
        """Accesses a second of the pages at `place`, which are on slow nodes."""
        keys, last = self._pages.keys[place], self._page_column("last")[place]
        seen = self._events[place].astype(np.int64)
        waited = self._page_column("delay")[place] * seen
        # unmapped since and not used: the wait so far is an observation too
        region = self._regions.find(_region_key(keys))
        start = np.where(region >= 0, self._region_column("start")[region], np.inf)
        waited += np.where(last < start, np.maximum(0.0, now - start), 0.0)
        # the kernel may have stopped looking; what was seen long ago counts for less
        stale = np.maximum(0.0, now - last - self.half_life) / self.half_life
        rate: Floats = self._prior.rate(seen, waited) * np.exp2(-stale)
        return rate

    def _note_fresh(self, keys: Keys) -> None:
        # an engine that may not place never asks for them
        self._fresh.append(keys)
        self._fresh_keys += len(keys)
        while self._fresh_keys > self._capacity and len(self._fresh) > 1:
            self._fresh_keys -= len(self._fresh.popleft())

    @property
    def typical(self) -> float:
        """Accesses a second that a quarter of the pages of slow nodes do not reach."""
        return self._prior.typical

    def _soon_used(self, longest: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Of each place, whether its page's mean delay is at most the `longest` of its number of events. An
        empty place has had none."""
        delay, events = self._page_column("delay"), self._events
        soon = np.zeros(len(delay), dtype=np.bool_)
        for count in range(1, MOST_EVENTS + 1):
            soon |= (events == count) & (delay <= longest[count])
        return soon

    def leaving(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None:
        """Pages that are about to move: whoever uses one meanwhile waits for it in a fault, which would
        otherwise pass for the proof that its region has been unmapped again."""
        self.forget(slot, page)

    def forget(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None:
        """Pages that were promoted: no candidates any more, and should one come back, what was seen before
        its stay in DRAM says nothing of the time since."""
        self._mark(slot, page, away=True)

    def recall(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None:
        """Pages that were about to move and did not: they are what they were before."""
        self._mark(slot, page, away=False)

    def _mark(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64], *, away: bool) -> None:
        place = self._pages.find(page_keys(slot, page))
        delay = self._page_column("delay")
        place = place[(place >= 0) & (_is_away(delay[place]) != away)]
        delay[place] += _AWAY if away else -_AWAY

    def doubt(self, now: float) -> None:
        """The hot set has changed: what was observed before `now` does not count against what will be."""
        self._doubted = now
        self._prior.reset()

    def prune(self, now: float, live_slots: npt.NDArray[np.int64]) -> None:
        """Drop processes no longer placed, pages not seen for eight half-lives, and regions without any."""
        place = self._pages.occupied
        slots = slots_of(self._pages.keys[place])
        recent = now - self._page_column("last")[place] < max(8 * self.half_life, self.cooldown)
        live = np.isin(slots, live_slots)
        if live.all() and np.count_nonzero(recent) > (1 - _FORGOTTEN) * len(place):
            return
        self._keep(place[recent & live])

    @property
    def evidence(self) -> dict[str, float]:
        """What makes its numbers mean what they mean, by name."""
        return {"half-life": self.half_life}

    def dump(self) -> Arrays:
        """All that it knows, for `restore`."""
        known = [self._doubted, self._learnt, self._rest_began]
        known += [self._quick, self._quick_uses, self._unlearnt, self._resting]
        tables = {**dump_table("pages", self._pages), **dump_table("regions", self._regions)}
        return {**tables, **self._prior.dump(), "known": np.array(known, dtype=np.float64)}

    def restore(self, arrays: Arrays, passage: Passage) -> int:
        """Know what another one with the same `evidence` knew, and nothing else. Returns how many pages that
        is."""
        load_table("pages", self._pages, arrays, passage, PAGE_BITS, ("last",))
        load_table("regions", self._regions, arrays, passage, _REGION_BITS, ("start", "before", "origin"))
        self._prior.restore(arrays, passage.seconds)
        known = arrays["known"].astype(np.float64)
        self._doubted, self._learnt, self._rest_began = (known[:3] + passage.seconds).tolist()
        self._quick, uses, unlearnt, resting = known[3:].tolist()
        self._quick_uses, self._unlearnt, self._resting = int(uses), int(unlearnt), bool(resting)
        return len(self._pages)

    def _forget_oldest(self, more: int) -> None:
        place = self._pages.occupied
        most = max(0, min(int(self._capacity * (1 - _FORGOTTEN)), self._capacity - more))
        if len(place) > most:
            last = self._page_column("last")[place]
            self._keep(place[np.argpartition(-last, most)[:most]])

    def _keep(self, place: Places) -> None:
        self._pages.keep(place)
        # a region outlives its pages by nothing: address space may be used once and never again
        remembered = np.unique(_region_key(self._pages.keys[self._pages.occupied]))
        region = self._regions.find(remembered)
        self._regions.keep(region[region >= 0])


def _is_away(delay: Floats) -> npt.NDArray[np.bool_]:
    return delay > _AWAY / 2


def _region_key(keys: Keys) -> Keys:
    return keys >> np.uint64(REGION_PAGES_SHIFT)
