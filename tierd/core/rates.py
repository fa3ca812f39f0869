"""What a delay says about a page's rate of accesses, given how often all the others are used.

Among hundreds of thousands of cold pages some are used early by luck, and after a while, when the hot ones
have been promoted, the lucky ones are all that is left: taken at its word, a short delay would have cold
pages swapped for others for ever. How many pages there are of each rate is in the delays of all of them, and
decides how far one delay is to be believed (empirical Bayes, Robbins 1956; the distribution of rates is the
nonparametric maximum likelihood estimate by expectation and maximisation, Laird 1978).
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.core.remembered import Arrays

Floats = npt.NDArray[np.float64]

SHORTEST_DELAY: Final = 1e-3
"""Seconds. Below this a delay says more about scheduling than about heat."""
LONGEST_DELAY: Final = 60.0
"""Seconds. A page unused for longer is simply cold."""
MOST_EVENTS: Final = 3
"""Delays that are told apart; a running mean with weight 1/2 remembers as much as that of three."""

_RATES: Final = np.exp2(np.arange(-7, 10.5, 0.5))
"""Accesses a second: from one in two minutes to one in the shortest delay."""
_EDGES: Final = np.geomspace(SHORTEST_DELAY, LONGEST_DELAY, 33)
"""Of the classes in which delays are counted, a factor of 1.4 each."""
_OPEN: Final = _RATES**-0.5 / np.sum(_RATES**-0.5)
"""Shares of pages by rate before anything is known: most memory is cold. A single delay d then tells a rate
of 1/(2d)."""
_OPEN_WEIGHT: Final = 20.0
"""Pages as many of which outweigh that belief."""
STEPS: Final = 20
"""Steps of expectation and maximisation a round, each from where the last round ended: the estimate moves
slowly enough to stay smooth, and reaches what the data say within seconds."""
SETTLED_STEPS: Final = 8
"""The same while there is little to learn."""
_SUMS: Final = np.geomspace(SHORTEST_DELAY, MOST_EVENTS * LONGEST_DELAY * 2, 120)
"""Seconds of waiting at which expected rates are tabulated."""


class RatePrior:
    """How many pages of the slow nodes are used how often, and what that makes of a page's delays."""

    def __init__(self, half_life: float) -> None:
        """half_life: seconds after which what was counted weighs half."""
        self._half_life = half_life
        # the chance of each class of delays at each rate; each row is a class
        below = -np.expm1(-np.outer(_EDGES, _RATES))
        below[0], below[-1] = 0.0, 1.0
        self._chance: Floats = np.diff(below, axis=0)
        self.reset()

    def reset(self) -> None:
        """Forget: the pages of one rate are now of another."""
        self._counts: Floats = np.zeros(len(_EDGES) - 1)
        self._unmapped: deque[tuple[float, float]] = deque()
        self._updated: float | None = None
        self._shares: Floats = _OPEN.copy()
        self._tabulate()

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """All that it knows, for `restore`."""
        when, pages = np.array(self._unmapped, dtype=np.float64).reshape(-1, 2).T
        updated = np.array([math.nan if self._updated is None else self._updated])
        counted = {"prior_counts": self._counts, "prior_shares": self._shares, "prior_updated": updated}
        return {**counted, "unmapped.when": when, "unmapped.pages": pages}

    def restore(self, arrays: Arrays, seconds: float) -> None:
        """Know what another one knew, and nothing else. seconds: added to all times."""
        when, pages = (arrays[name].astype(np.float64) for name in ("unmapped.when", "unmapped.pages"))
        updated = float(arrays["prior_updated"].astype(np.float64)[0])
        self._counts = arrays["prior_counts"].astype(np.float64)
        self._shares = arrays["prior_shares"].astype(np.float64)
        self._unmapped = deque(zip((when + seconds).tolist(), pages.tolist(), strict=True))
        self._updated = None if math.isnan(updated) else updated + seconds
        self._tabulate()

    def discount(self, weight: float) -> None:
        """Let all that was counted count for this part of it: what is counted from now on says more."""
        self._counts *= weight
        self._unmapped = deque((when, pages * weight) for when, pages in self._unmapped)

    def observe(self, delays: Floats, weights: Floats | None = None) -> None:
        """Seconds from unmapping to use, of pages all alike: whatever is known of each does not matter.
        weights: what each counts for, 1 without them."""
        classes = np.searchsorted(_EDGES[1:-1], delays, "right")
        self._counts += np.bincount(classes, weights, minlength=len(_EDGES) - 1)

    def update(self, now: float, unmapped: int, steps: int = STEPS) -> None:
        """Estimate anew, once a round. unmapped: pages since the last call."""
        if self._updated is not None:
            self._counts *= 0.5 ** ((now - self._updated) / self._half_life)
        self._updated = now
        self._unmapped.append((now, float(unmapped)))
        while now - self._unmapped[0][0] > LONGEST_DELAY:
            self._unmapped.popleft()
        times, pages = np.array(self._unmapped).T
        ages = now - times
        pages = pages * 0.5 ** (ages / self._half_life)
        # what was unmapped and not used since still waits; which of it, nobody knows
        waiting = max(0.0, float(pages.sum() - self._counts.sum()))
        waits = pages * (waiting / pages.sum()) if waiting else pages * 0.0
        chance = np.vstack([self._chance, np.exp(-np.outer(ages, _RATES))])
        counts = np.concatenate([self._counts, waits])
        for _ in range(steps):
            expected = np.maximum(chance @ self._shares, 1e-300)
            found = self._shares * (chance.T @ (counts / expected)) + _OPEN_WEIGHT * _OPEN
            self._shares = found / found.sum()
        self._tabulate()

    def _tabulate(self) -> None:
        """Expected rates for 1 to MOST_EVENTS delays that sum up to each of _SUMS."""
        events = np.arange(1, MOST_EVENTS + 1)[:, None, None]
        log = np.log(self._shares) + events * np.log(_RATES) - _SUMS[:, None] * _RATES
        likely = np.exp(log - log.max(axis=2, keepdims=True))
        self._expected: Floats = likely @ _RATES / likely.sum(axis=2)

    @property
    def typical(self) -> float:
        """Accesses a second that a quarter of the pages do not reach: cold ones, where some are."""
        return float(_RATES[np.searchsorted(np.cumsum(self._shares), 0.25)])

    def delay(self, share: float) -> float:
        """Seconds within which this share of the pages is used; between two classes of delays."""
        used = np.concatenate([[0.0], np.cumsum(self._chance @ self._shares)])
        return float(np.exp(np.interp(share, used, np.log(_EDGES))))

    def rate(self, events: npt.NDArray[np.int64], waited: Floats) -> Floats:
        """Expected accesses a second of pages that were used `events` times (1 to MOST_EVENTS) in `waited`
        seconds of waiting, all told."""
        found = np.empty(len(waited))
        log = np.log(np.clip(waited, _SUMS[0], _SUMS[-1]))
        for count in range(1, MOST_EVENTS + 1):
            same = events == count
            found[same] = np.exp(np.interp(log[same], np.log(_SUMS), np.log(self._expected[count - 1])))
        return found

    def longest_wait(self, least_rate: float) -> Floats:
        """For 1 to MOST_EVENTS uses: the most seconds of waiting after which a page is still expected to be
        used `least_rate` times a second; 0 when no wait is short enough."""
        return np.array(
            [
                _SUMS[hot[-1]] if len(hot := np.flatnonzero(rates >= least_rate)) else 0.0
                for rates in self._expected
            ]
        )
