"""Leaves alone for a while what the kernel refused to move: twice as long after each further refusal.

A refused page is still hot, so it would stand in every plan, take the place of one that can move, and, in a
call of move_pages, cut the kernel's list in two. What refuses is rarely one page: memory that several
processes map, that a device has pinned, or that a mapping forbids to move lies together. So whole ranges of
2 MiB are left out, and they come back by themselves.
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np
import numpy.typing as npt

from tierd.core.model import PAGES_PER_HUGE_PAGE
from tierd.core.table import Keys, Table

FIRST_WAIT: Final = 4.0
"""Seconds after a first refusal: a page that was just being reclaimed or migrated by somebody else is free
again by then."""
LONGEST_WAIT: Final = 512.0
"""Seconds. Memory pinned for good costs one page's attempt in nine minutes."""
MOST_RANGES: Final = 1 << 17
"""Ranges remembered, 256 GiB of refused memory in about 5 MB; those that may be tried soonest go first."""

_RANGE_SHIFT: Final = np.uint64(PAGES_PER_HUGE_PAGE.bit_length() - 1)
_RANGE_BITS: Final = np.uint64(36)
"""57-bit virtual addresses have 36-bit numbers of 2 MiB ranges; the process's slot stands above them."""
_WHOLE_PROCESS: Final = (np.uint64(1) << _RANGE_BITS) - np.uint64(1)
"""The last range of the address space is the kernel's, so its number stands for the process itself."""


def range_keys(slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> Keys:
    """One number for the 2 MiB range of each page. slot: 1 to 2^18; page: virtual page numbers."""
    return (slot.astype(np.uint64) << _RANGE_BITS) | (page >> _RANGE_SHIFT)


def key_slots(keys: Keys) -> npt.NDArray[np.int64]:
    """The slot in each key of `range_keys`."""
    return (keys >> _RANGE_BITS).astype(np.int64)


def key_pages(keys: Keys) -> npt.NDArray[np.uint64]:
    """The first page of the range of each key of `range_keys`."""
    return (keys & _WHOLE_PROCESS) << _RANGE_SHIFT


def process_keys(slot: npt.NDArray[np.int64]) -> Keys:
    """The key that stands for all of a process."""
    return (slot.astype(np.uint64) << _RANGE_BITS) | _WHOLE_PROCESS


class BackOff:
    """Keys that are to be left alone, and until when. Times are seconds on one monotonic clock; keys are
    those of `range_keys` and `process_keys`."""

    def __init__(
        self, first: float = FIRST_WAIT, longest: float = LONGEST_WAIT, capacity: int = MOST_RANGES
    ) -> None:
        self._first = first
        self._longest = longest
        self._capacity = capacity
        self._table = Table({"until": np.float64, "wait": np.float32})

    def __len__(self) -> int:
        return len(self._table)

    @property
    def nbytes(self) -> int:
        """Bytes of state."""
        return self._table.nbytes

    def _column(self, name: str) -> npt.NDArray[np.float64]:
        return cast("npt.NDArray[np.float64]", self._table.columns[name])

    def refuse(self, keys: Keys, now: float) -> None:
        """Leave `keys` alone: for the first time `first` seconds, then twice as long each time. What is
        being left alone already was tried in the same round, and that counts once."""
        place, new = self._table.insert(np.unique(keys))
        place = place[new | (self._column("until")[place] <= now)]
        wait = self._column("wait")
        wait[place] = np.clip(2 * wait[place], self._first, self._longest)
        self._column("until")[place] = now + wait[place]
        if len(self._table) > self._capacity:
            self._drop(self._capacity * 3 // 4)

    def forgive(self, keys: Keys) -> None:
        """What moved after all starts from the beginning."""
        place = self._table.find(np.unique(keys))
        place = place[place >= 0]
        if len(place):
            self._table.keep(np.setdiff1d(self._table.occupied, place))

    def ready(self, keys: Keys, now: float) -> npt.NDArray[np.bool_]:
        """Which of `keys` may be tried now."""
        if not len(self._table):
            return np.ones(len(keys), dtype=np.bool_)
        place = self._table.find(keys)
        return (place < 0) | (self._column("until")[place] <= now)

    def waiting(self, now: float) -> int:
        """How many keys are being left alone."""
        return int(np.count_nonzero(self._column("until")[self._table.occupied] > now))

    def prune(self, now: float, live_slots: npt.NDArray[np.int64]) -> None:
        """Forget processes no longer placed, and keys that nobody has tried for as long as they waited."""
        place = self._table.occupied
        recent = self._column("until")[place] + self._column("wait")[place] > now
        self._table.keep(place[recent & np.isin(key_slots(self._table.keys[place]), live_slots)])

    def _drop(self, keep: int) -> None:
        place = self._table.occupied
        until = self._column("until")[place]
        self._table.keep(place[np.argpartition(-until, keep)[:keep]])


def failed_ranges(keys: Keys, refused: npt.NDArray[np.bool_]) -> tuple[Keys, Keys]:
    """The ranges that gave no more pages than they refused, and those that gave more.

    One page of a range refuses for many passing reasons, and its neighbours should not wait for it.
    keys: the range of each page that was tried; refused: whether the kernel refused it.
    """
    ranges, which = np.unique(keys, return_inverse=True)
    balance = np.zeros(len(ranges), dtype=np.int64)
    np.add.at(balance, which, np.where(refused, -1, 1))
    return ranges[balance <= 0], ranges[balance > 0]
