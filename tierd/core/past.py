"""What the engine did lately, in steps of ten seconds, for pictures of it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tierd.core.model import PAGE_SIZE
from tierd.core.state import EngineState, State

STEP: Final = 10.0
"""Seconds: a few rounds, and less than a person waits for to see that something has changed."""
STEPS: Final = 720
"""Two hours, in about a megabyte."""
CLASSES: Final = 16
"""Those whose promises are served first: more bars than a picture can show."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The end of a step.

    time: seconds since 1970. state: of the engine. promoted, demoted: bytes, since the moment before.
    dram, slow: bytes of the placed processes in each kind of tier. tiers: of each by its name, bytes used
    and in all. classes: of service classes by their names, bytes in DRAM and on slow tiers.
    """

    time: float
    state: EngineState
    promoted: int
    demoted: int
    dram: int
    slow: int
    tiers: Mapping[str, tuple[int, int]]
    classes: Mapping[str, tuple[int, int]]


class Past:
    """Kept by the daemon, in the main thread; `since` may be asked from any other."""

    def __init__(self) -> None:
        self._moments: deque[Moment] = deque(maxlen=STEPS)
        self._due: float | None = None
        self._promoted = self._demoted = 0

    def add(self, state: State, now: float, time: float) -> None:
        """Called every second. now: monotonic seconds. time: seconds since 1970. The first call only says
        where counting begins."""
        counters = state.counters
        if self._due is None or now >= self._due:
            if self._due is not None:
                moved = counters.promoted_pages - self._promoted, counters.demoted_pages - self._demoted
                self._moments.append(_moment(state, time, *moved))
            self._promoted, self._demoted = counters.promoted_pages, counters.demoted_pages
            self._due = now + STEP

    def since(self, time: float) -> tuple[Moment, ...]:
        """Those after `time`, seconds since 1970, in their order."""
        # copied in one step: one that is asked for from another thread is not to meet `add`
        return tuple(moment for moment in tuple(self._moments) if moment.time > time)


def _moment(state: State, time: float, promoted_pages: int, demoted_pages: int) -> Moment:
    return Moment(
        time,
        state.engine,
        promoted_pages * PAGE_SIZE,
        demoted_pages * PAGE_SIZE,
        state.dram_bytes,
        state.slow_bytes,
        {tier.name: (max(0, tier.total - tier.free), tier.total) for tier in state.topology.tiers},
        {found.name: (found.dram_bytes, found.slow_bytes) for found in state.classes[:CLASSES]},
    )
