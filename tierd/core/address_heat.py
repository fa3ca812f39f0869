"""The heat of one process by address: its memory in a few hundred parts, with what is known of each.

All page numbers are virtual ones, and below 2^45, so that int64 holds them and their differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MOST_BINS: Final = 256
"""As many as can be told apart in a picture; and a reply of so many rows is small."""
MOST_RATED: Final = 1 << 16
"""Pages of a process whose rates are worked out for one look, 256 for each bin: it takes about 50 ms of the
engine's thread where a million is known, and the rings hold what comes in 100."""
SAMPLE_PAGES: Final = 64
"""Pages of a bin that are asked where they are: the share in DRAM is then off by 6 % of the bin, mostly
(standard deviation of a binomial share at 1/2)."""
_AREAS: Final = 4
"""Bins for each area of memory with gaps around it, at least: of more gaps than there are bins for, the
smallest are taken for memory."""


@dataclass(frozen=True, slots=True)
class KnownRates:
    """What the heat map knows of one process. page: int64, the first of the `span` pages that an entry is
    of, in order; rate: accesses a second of each; remembered: whether that is from before the page came up
    to DRAM, where it is not sampled. weight: entries for which each of these stands, more than 1 where there
    were too many to look at all."""

    page: Integers
    rate: Floats
    remembered: npt.NDArray[np.bool_]
    span: int = 1
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.page)


@dataclass(frozen=True, slots=True)
class HeatBin:
    """Page numbers [start, end) of a process. rate: mean accesses a second of the pages that are known, None
    when none is. known: how many are; remembered: how many of these have the rate that they had before they
    came up. pages, dram: how many there are, and in DRAM, as a sample tells; None when it could not be
    taken."""

    start: int
    end: int
    rate: float | None
    known: int
    remembered: int
    pages: int | None = None
    dram: int | None = None


def known_rates(
    page: npt.NDArray[np.uint64],
    rate: Floats,
    remembered: npt.NDArray[np.bool_] | None = None,
    *,
    span: int = 1,
    weight: float = 1.0,
) -> KnownRates:
    """The entries in order of address. page: the first of each, in any order. remembered: none when None."""
    order = np.argsort(page)
    marked = np.zeros(len(page), dtype=np.bool_) if remembered is None else remembered[order]
    return KnownRates(page[order].astype(np.int64), rate[order], marked, span, weight)


def few_of(keys: npt.NDArray[np.uint64], slot: int, bits: np.uint64) -> tuple[npt.NDArray[np.int64], float]:
    """At most MOST_RATED places in a table, of keys that have `slot` above their lowest `bits`, and for how
    many each of them stands. Where a page is in the table says nothing about it: every third is a fair
    sample."""
    low, high = (np.uint64(number << int(bits)) for number in (slot, slot + 1))
    places = np.flatnonzero((keys >= low) & (keys < high))
    step = -(-len(places) // MOST_RATED)
    few = places[::step] if step > 1 else places
    return few, len(places) / len(few) if len(few) else 1.0


def edges_of(mappings: Sequence[tuple[int, int]], bins: int) -> tuple[Integers, Integers]:
    """Starts and ends of at most `bins` parts of the mappings, alike in size as far as that goes; at least
    one for each area between two gaps. mappings: page numbers [start, end), in order."""
    if not mappings:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    start, end = np.array(mappings, dtype=np.int64).T
    gaps = start[1:] - end[:-1]
    kept = np.argsort(-gaps, kind="stable")[: max(1, bins // _AREAS) - 1]
    kept = np.sort(kept[gaps[kept] > 0])
    first = start[np.concatenate([[0], kept + 1])]
    last = end[np.concatenate([kept, [len(end) - 1]])]
    length = last - first
    # each area rounds up to less than one part more than its share
    size = -(-int(length.sum()) // max(1, bins - len(length)))
    count = -(-length // size)
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    # the parts of an area differ by a page at most
    at = np.repeat(first, count)
    longs, parts = np.repeat(length, count), np.repeat(count, count)
    return at + longs * number // parts, at + longs * (number + 1) // parts


def heat_bins(start: Integers, end: Integers, known: KnownRates) -> list[HeatBin]:
    """What is known of the pages of each part [start, end)."""
    pages = _below(end, known, None) - _below(start, known, None)
    sums = _below(end, known, known.rate) - _below(start, known, known.rate)
    marked = known.remembered.astype(np.float64)
    remembered = _below(end, known, marked) - _below(start, known, marked)
    found = []
    for place in range(len(start)):
        most, count = int(end[place] - start[place]), float(pages[place])
        some = count > 0
        found.append(
            HeatBin(
                int(start[place]),
                int(end[place]),
                max(0.0, float(sums[place]) / count) if some else None,
                min(most, max(1, round(count * known.weight))) if some else 0,
                min(most, max(0, round(float(remembered[place]) * known.weight))) if some else 0,
            )
        )
    return found


def _below(edge: Integers, known: KnownRates, value: Floats | None) -> Floats:
    """Of the known pages below each edge the sum of their values, which are 1 when None."""
    each: Floats = np.ones(len(known)) if value is None else value
    sums = np.concatenate([np.zeros(1), np.cumsum(each)]) * float(known.span)
    entries = np.searchsorted(known.page, edge, side="left")
    if not len(known):
        return np.zeros(len(edge))
    # of all the entries that begin below an edge, the last one may reach beyond it
    last = np.maximum(entries - 1, 0)
    beyond = np.where(entries > 0, np.maximum(0, known.page[last] + known.span - edge), 0)
    found: Floats = sums[entries] - beyond * each[last]
    return found


def sample_pages(start: Integers, end: Integers, seed: int) -> tuple[npt.NDArray[np.uint64], Integers]:
    """Pages of each part to ask where they are, all where it has few, and the number of the part of each.
    seed: another one looks at other pages."""
    size = end - start
    taken = np.minimum(size, SAMPLE_PAGES)
    part = np.repeat(np.arange(len(start)), taken)
    number = np.arange(len(part)) - np.repeat(np.cumsum(taken) - taken, taken)
    # one at random in each of as many strata: interleaving over nodes is as regular as any stride
    low, high = number * size[part] // taken[part], (number + 1) * size[part] // taken[part]
    chance = np.random.default_rng(seed).random(len(part))
    page = start[part] + low + (chance * (high - low)).astype(np.int64)
    return page.astype(np.uint64), part


def placed_bins(
    bins: Sequence[HeatBin], part: Integers, node: npt.NDArray[np.int32], dram: Sequence[int]
) -> list[HeatBin]:
    """The same with how many pages there are, and in DRAM. part, node: of each page that was asked about,
    the number of its bin, and where it is; below 0 where there is none."""
    asked = np.bincount(part, minlength=len(bins))
    there = np.bincount(part[node >= 0], minlength=len(bins))
    fast = np.bincount(part[np.isin(node, list(dram))], minlength=len(bins))
    found = []
    for place, one in enumerate(bins):
        size, of = one.end - one.start, max(1, int(asked[place]))
        pages, in_dram = (round(size * int(count[place]) / of) for count in (there, fast))
        found.append(HeatBin(one.start, one.end, one.rate, one.known, one.remembered, pages, in_dram))
    return found
