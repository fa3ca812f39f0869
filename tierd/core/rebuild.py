"""Which ranges of 2 MiB, once split, are to be huge pages again.

A huge page has one recency and one place, so only a range whose pages belong together may be one. Of a page
in DRAM nobody can say how hot it is: in tiering mode the kernel unmaps pages of the slow tier only, and
generations tell how much of a cgroup is old, not which pages. What can be known of a range, and is asked of
one that is wholly in DRAM, is how it got there:

- it was brought up: three quarters of its pages were promoted, each on the evidence of its own hint faults;
- or it stayed: it was split, since then the cgroup had to give up an eighth of what it had in DRAM, oldest
  pages first, and not one page of this range was among them. Demotion follows the kernel's list and not the
  ranges, so this alone does not tell hot throughout from half hot and not reached yet. It counts only where
  heat comes in pieces of 2 MiB, and that is learned from the ranges that were brought up: if most of those
  with promoted pages were promoted throughout, the process's heat is that coarse.

A range that lies wholly in the slow tier is cold throughout when the kernel has unmapped all of the slow
tier once since the range was split and no access to it was seen for two minutes. Everything else stays
small: where in doubt, page by page is right. The caller asks where all pages are right before the act.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from tierd.core.backoff import key_pages, key_slots
from tierd.core.model import PAGES_PER_HUGE_PAGE
from tierd.core.table import Keys, Places, Table

THROUGHOUT: Final = PAGES_PER_HUGE_PAGE * 3 // 4
"""Pages promoted that make a range hot throughout; the others are in DRAM too, or it is no candidate."""
TOUCHED: Final = PAGES_PER_HUGE_PAGE * 3 // 8
"""Pages promoted from which a range counts in the question how coarse the heat is. Cold pages are promoted
too, by luck and one after the other: a hundred of each cold range before the placement was right."""
FEWEST_TOUCHED: Final = 8
"""Ranges without which that question has no answer."""
SURVIVED: Final = 1 / 8
"""Share of the cgroup's DRAM that was given up while the range stayed. Were a quarter of the range's pages
cold and demotion random among cold pages, it would stay whole with probability (7/8)^128, 4 in 10^8."""
UNUSED_SECONDS: Final = 120.0
FIRST_LOOK: Final = 10.0
"""Seconds after the split: before, nothing has had time to happen."""
LONGEST_LOOK: Final = 320.0
"""Seconds between two looks at a range that was not ready; each is twice as long as the one before."""
LONGEST_LOOK_HOT: Final = 40.0
"""The same for a range of which but a few pages have come up, or that is in DRAM and may prove that it
belongs there."""
FIRST_TRUCE: Final = 120.0
"""Seconds for which a range that was rebuilt and split again stays small, doubled each time."""
LONGEST_TRUCE: Final = 3840.0
SETTLED: Final = 2.0
"""Seconds after which a rebuilt range no longer faults because it was rebuilt: two readings of the rings."""
MOST_RANGES: Final = 1 << 18
"""Ranges remembered: 512 GiB of split memory, in 32 MB. The ones split first are forgotten first."""

_SMALL, _HOT, _COLD = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Choice:
    """Keys of ranges to rebuild in DRAM and in the slow tier."""

    hot: Keys
    cold: Keys


@dataclass(frozen=True, slots=True)
class Residence:
    """Where ranges are, by the kernel's word: arrays of one length.

    in_dram, in_slow: whether all pages of the range are on one node of that kind. share: of its pages, those
    in DRAM, 0..1, perhaps estimated. given_up: the share of its DRAM that the cgroup has given up in all.
    """

    keys: Keys
    in_dram: npt.NDArray[np.bool_]
    in_slow: npt.NDArray[np.bool_]
    share: npt.NDArray[np.float64]
    given_up: npt.NDArray[np.float64]


class RangeBook:
    """What is known of the ranges of processes whose huge pages were split. Times are seconds on one
    monotonic clock; keys as in core/backoff.py. Fed and asked by the engine thread only."""

    def __init__(self, capacity: int = MOST_RANGES) -> None:
        self._capacity = capacity
        self._table = Table(
            {
                "state": np.int8,
                "promoted": np.int32,
                "since": np.float64,  # the split, or the first promotion
                "given_up": np.float64,  # by its cgroup, up to then
                "passes": np.float64,  # of the kernel over the slow tier, up to then
                "used": np.float64,  # when it was last seen in use on the slow tier
                "look": np.float64,  # when to look at it again
                "wait": np.float32,
                "truce": np.float32,
            }
        )
        self._slots: set[int] = set()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def nbytes(self) -> int:
        """Bytes of state."""
        return self._table.nbytes

    def _column(self, name: str) -> npt.NDArray[np.float64]:
        return cast("npt.NDArray[np.float64]", self._table.columns[name])

    def split(self, slot: int, keys: Keys, now: float, given_up: float, passes: float) -> None:
        """Huge pages of the process in `slot` were split: `keys`, as far as it is known which.

        given_up: the share of its DRAM that the process's cgroup has given up in all, which may exceed 1.
        passes: how often the kernel has unmapped the slow tier.
        """
        self._slots.add(slot)
        place, new = self._enter(keys, now, given_up, passes)
        again = place[~new]
        # that pages were brought up one by one still holds where it was khugepaged that made them one
        self._column("promoted")[again[self._column("state")[again] != _SMALL]] = 0
        self._column("state")[again] = _SMALL
        # but not that others gave way, or were not used: one page was young for all of them
        self._column("since")[again] = self._column("used")[again] = now
        self._column("given_up")[again] = given_up
        self._column("passes")[again] = passes

    def known(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Which of the ranges were split, and have not been rebuilt since."""
        place = self._table.find(keys)
        small: npt.NDArray[np.bool_] = (place >= 0) & (self._column("state")[place] == _SMALL)
        return small

    def promoted(self, keys: Keys, now: float, given_up: float, passes: float) -> None:
        """A page of each of `keys` (which repeat) came to DRAM. Counts in processes that were split only."""
        slots = key_slots(keys)
        keys = keys[np.isin(slots, np.fromiter(self._slots, dtype=np.int64))]
        ranges, pages = np.unique(keys, return_counts=True)
        place, _ = self._enter(ranges, now, given_up, passes)
        self._column("promoted")[place] += pages

    def _enter(
        self, keys: Keys, now: float, given_up: float, passes: float
    ) -> tuple[Places, npt.NDArray[np.bool_]]:
        if len(self._table) + len(keys) > self._capacity:
            self._forget_oldest(len(keys))
        place, new = self._table.insert(keys)
        fresh = place[new]
        self._column("since")[fresh] = self._column("used")[fresh] = now
        self._column("given_up")[fresh] = given_up
        self._column("passes")[fresh] = passes
        self._column("wait")[fresh] = FIRST_LOOK
        self._column("look")[fresh] = now + FIRST_LOOK
        return place, new

    def used(self, keys: Keys, now: float) -> None:
        """Accesses were seen on the slow tier. A rebuilt range that is used there is rebuilt no longer: as
        one page it would look as hot as all of its pages together."""
        if not len(self._table):
            return
        place = self._table.find(np.unique(keys))
        place = place[place >= 0]
        self._column("used")[place] = now
        # whoever uses a range while it is rebuilt waits for that in a fault
        settled = now - self._column("since")[place] >= SETTLED
        rebuilt = place[(self._column("state")[place] != _SMALL) & settled]
        self._column("state")[rebuilt] = _SMALL
        self._column("promoted")[rebuilt] = 0

    def due(self, now: float, most: int) -> Keys:
        """At most `most` ranges worth a look now: those with most promoted pages first."""
        place = self._table.occupied
        place = place[(self._column("state")[place] == _SMALL) & (self._column("look")[place] <= now)]
        order = np.lexsort((self._column("look")[place], -self._column("promoted")[place]))
        return cast("Keys", self._table.keys[place[order[:most]]])

    def choose(self, seen: Residence, now: float, passes: float) -> Choice:
        """Which of the ranges just looked at are to be rebuilt. The others are looked at later."""
        place = self._table.find(seen.keys)
        known = place >= 0
        promoted = self._column("promoted")
        brought_up = promoted[place] >= THROUGHOUT
        stayed = seen.given_up - self._column("given_up")[place] >= SURVIVED
        stayed &= np.isin(key_slots(seen.keys), self._coarse())
        unused = now - self._column("used")[place] >= UNUSED_SECONDS
        unused &= passes - self._column("passes")[place] >= 1.0
        hot = known & seen.in_dram & (brought_up | stayed)
        cold = known & seen.in_slow & unused
        # what has left DRAM again was not hot throughout; a few pages may still be on their way up
        promoted[place[known & (seen.share < THROUGHOUT / PAGES_PER_HUGE_PAGE) & brought_up]] = 0
        self._postpone(place[known & ~hot & ~cold], now)
        nearly = place[known & ~hot & (brought_up | seen.in_dram)]
        self._column("wait")[nearly] = np.minimum(self._column("wait")[nearly], LONGEST_LOOK_HOT)
        order = np.argsort(-promoted[place[hot]], kind="stable")
        return Choice(seen.keys[hot][order], seen.keys[cold])

    def _postpone(self, place: Places, now: float) -> None:
        self._column("look")[place] = now + self._column("wait")[place]
        self._column("wait")[place] = np.minimum(2 * self._column("wait")[place], LONGEST_LOOK)

    def _coarse(self) -> npt.NDArray[np.int64]:
        """Slots of the processes whose heat comes in pieces of 2 MiB."""
        promoted = self._column("promoted")[self._table.occupied]
        slots = key_slots(self._table.keys[self._table.occupied])
        touched, throughout = slots[promoted >= TOUCHED], slots[promoted >= THROUGHOUT]
        found, ranges = np.unique(touched, return_counts=True)
        whole = np.array([np.count_nonzero(throughout == slot) for slot in found], dtype=np.int64)
        return cast("npt.NDArray[np.int64]", found[(ranges >= FEWEST_TOUCHED) & (2 * whole >= ranges)])

    def rebuilt(self, keys: Keys, now: float, *, slow: bool) -> None:
        """These ranges are huge pages again."""
        place = self._table.find(keys)
        place = place[place >= 0]
        self._column("state")[place] = _COLD if slow else _HOT
        self._column("since")[place] = now

    def failed(self, keys: Keys, now: float, *, for_good: bool = False) -> None:
        """The kernel did not rebuild these; they are tried again later, or as late as possible."""
        place = self._table.find(keys)
        place = place[place >= 0]
        if for_good:
            self._column("wait")[place] = LONGEST_LOOK
        self._postpone(place, now)

    def kept(self, slot: int) -> npt.NDArray[np.uint64]:
        """First pages of the ranges of a process that were rebuilt: to be left whole. In order."""
        place = self._table.occupied
        place = place[self._column("state")[place] != _SMALL]
        keys = self._table.keys[place]
        return np.sort(key_pages(keys[key_slots(keys) == slot]))

    def release(self, most: int, now: float, least_age: float) -> int:
        """Give up to `most` ranges that were rebuilt in DRAM at least `least_age` seconds ago, oldest first,
        back to be split, because DRAM is short. Returns how many."""
        place = self._table.occupied
        place = place[
            (self._column("state")[place] == _HOT) & (self._column("since")[place] <= now - least_age)
        ]
        place = place[np.argsort(self._column("since")[place], kind="stable")[:most]]
        self._column("state")[place] = _SMALL
        self._column("promoted")[place] = 0
        truce = np.clip(2 * self._column("truce")[place], FIRST_TRUCE, LONGEST_TRUCE)
        self._column("truce")[place] = truce
        self._column("look")[place] = now + truce
        return len(place)

    def prune(self, live_slots: npt.NDArray[np.int64]) -> None:
        """Forget processes that are no longer placed."""
        self._slots &= set(live_slots.tolist())
        place = self._table.occupied
        self._table.keep(place[np.isin(key_slots(self._table.keys[place]), live_slots)])

    def _forget_oldest(self, more: int) -> None:
        place = self._table.occupied
        keep = max(0, min(len(place), self._capacity * 3 // 4 - more))
        newest = np.argsort(-self._column("since")[place], kind="stable")[:keep]
        self._table.keep(place[newest])
