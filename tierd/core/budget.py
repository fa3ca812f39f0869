"""How much may move: a token bucket for bandwidth, and a batch size that keeps one call short."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import Final

CALL_SECONDS: Final = 0.020
"""One move_pages call holds the target's pages isolated; about 20 ms is short enough that nobody notices
(katalyst-core settled on the same figure after calls of minutes)."""
LARGEST_BATCH: Final = 1024
"""Base pages, 4 MiB: the most that is put at risk of a stall by one reading of the node's free memory."""
SMALLEST_BATCH: Final = 64
CALLS_REMEMBERED: Final = 9
"""Calls from which the batch size is estimated: a change shows after five, and 36 slopes are soon sorted."""
DISTINCT: Final = 1.25
"""Two calls whose sizes differ by less tell the noise of their times, not the cost of a page."""
CALLS_BETWEEN: Final = 4
"""Calls from one estimate to the next once CALLS_REMEMBERED are known: it costs more than all else that goes
on between two calls."""
CALLS_BELIEVED: Final = 3
"""Calls before anything is concluded: of fewer, one that was interrupted may be the median."""


@dataclass(slots=True)
class TokenBucket:
    """Bytes that may move. rate: bytes a second; burst: seconds of rate that can be saved up."""

    rate: float
    burst: float = 1.0
    tokens: float = 0.0
    filled_at: float | None = None

    def fill(self, now: float) -> None:
        if self.filled_at is None:
            self.tokens = self.rate * self.burst
        else:
            self.tokens = min(self.rate * self.burst, self.tokens + self.rate * (now - self.filled_at))
        self.filled_at = now

    def take(self, amount: float) -> None:
        """Moves already made are charged in full; the debt is paid off by waiting."""
        self.tokens -= amount


@dataclass(slots=True)
class BatchSize:
    """How many pages the next call takes. `pages`: base pages; owned by the mover.

    A call costs something by itself and something a page. Measured in the emulated guest: 3 ms and 25 us, so
    that 64 pages a call move at half the speed of 1024; a server with a hundred CPUs pays more for the call
    (each one drains the page vectors of all CPUs). Both are estimated from the last calls by the Theil-Sen
    line, the median of the slopes between pairs: nearly a third of the calls may have been interrupted
    without moving it.
    """

    pages: int = LARGEST_BATCH // 4
    _calls: list[tuple[int, float]] = field(default_factory=list)
    _learned: int = 0

    def learn(self, pages: int, seconds: float) -> None:
        """One call that moved `pages` base pages took `seconds`."""
        if pages <= 0:
            return
        self._calls = [*self._calls[1 - CALLS_REMEMBERED :], (pages, max(seconds, 0.0))]
        self._learned += 1
        known = len(self._calls)
        if known < CALLS_BELIEVED or (known == CALLS_REMEMBERED and self._learned % CALLS_BETWEEN):
            return
        line = self._line()
        if line is None:
            return
        fixed, each = line
        # where the call alone costs more than its time, fewer pages do not make it shorter
        affordable = max(CALL_SECONDS - fixed, CALL_SECONDS / 2)
        fitting = int(affordable / each) if each * LARGEST_BATCH > affordable else LARGEST_BATCH
        # a line says little far outside its points
        most = 2 * max(pages for pages, _ in self._calls)
        self.pages = max(SMALLEST_BATCH, min(LARGEST_BATCH, most, fitting))

    def _line(self) -> tuple[float, float] | None:
        """Seconds a call, and seconds a page; None when these calls do not say."""
        if 2 * max(pages for pages, _ in self._calls) < self.pages:
            return None  # the last batch of a process, and what little room there is, are a few pages
        slopes = [
            (late - early) / (more - fewer)
            for (fewer, early), (more, late) in combinations(sorted(self._calls), 2)
            if more >= DISTINCT * fewer
        ]
        typical = median(seconds / pages for pages, seconds in self._calls)
        if len(slopes) >= CALLS_BELIEVED:
            each = min(max(median(slopes), 0.0), typical)
            return max(0.0, median(seconds - each * pages for pages, seconds in self._calls)), each
        # calls of one size do not tell the two costs apart, but what fits into 20 ms is near them
        large = 2 * median(pages for pages, _ in self._calls) >= self.pages
        return (0.0, typical) if large else None
