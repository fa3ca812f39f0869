"""How much may move: a token bucket for bandwidth, and a batch size that keeps one call short."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CALL_SECONDS: Final = 0.020
"""One move_pages call holds the target's pages isolated; about 20 ms is short enough that nobody notices
(katalyst-core settled on the same figure after calls of minutes)."""
LARGEST_BATCH: Final = 1024
"""Base pages, 4 MiB: the most that is put at risk of a stall by one reading of the node's free memory."""
SMALLEST_BATCH: Final = 64


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


def next_batch(pages: int, seconds: float) -> int:
    """The size of the next batch after one of `pages` base pages took `seconds`."""
    if seconds <= 0:
        return LARGEST_BATCH
    fitting = int(pages * CALL_SECONDS / seconds)
    # at most double: one lucky call proves little
    return max(SMALLEST_BATCH, min(LARGEST_BATCH, 2 * pages, fitting))
