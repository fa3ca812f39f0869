"""Whether a source sees: tierd touches memory of its own and waits for the source to say so.

A source that does not see a touch would make everything look idle. Called in the engine thread at start, so
that the main loop does not wait: for a fraction of a second, or, where reports take seconds, for a few of
them, which the watchdog does not mind.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.core.access import Accesses

Pages = npt.NDArray[np.uint64]

DEADLINE: Final = 0.3
"""Seconds for each source that tells of a touch as it happens, so that three that stay silent take less than
one. A fault is in the ring before the access that caused it returns."""
_TOUCHES: Final = 30
"""In that time."""
_CLOCK_TOLERANCE: Final = 0.05
"""Seconds. A time is taken between the touch and the reading; another clock is off by far more, at the
latest after a suspend (CLOCK_BOOTTIME) or by the whole of the epoch (CLOCK_REALTIME)."""
_BUFFER: Final = 64 << 20
"""Bytes, more than the caches of a core, so that reading them misses."""
_READS: Final = 1 << 18


def see_touch(
    read: Callable[[], Accesses],
    touch: Callable[[], Pages],
    deadline: float = DEADLINE,
    *,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] = time.sleep,
    process: int | None = None,
) -> str:
    """Why the source cannot be used, in words; empty when it saw `touch`.

    read: what the source observed since the last call. touch: touches memory of this process and returns its
    page numbers; called several times, because a full ring loses records. deadline: seconds. process: this
    one's number. Raises what `read` raises.
    """
    own = os.getpid() if process is None else process
    begun = clock()
    touched: list[Pages] = []
    trouble = "it delivered nothing while tierd touched memory of its own"
    while True:
        touched.append(touch())
        seen = read()
        now = clock()
        if len(seen):
            failure = _examine(seen, np.concatenate(touched), own, begun, now)
            if not failure:
                return ""
            trouble = failure
        if now >= begun + deadline:
            return trouble
        wait(deadline / _TOUCHES)


def _examine(seen: Accesses, touched: Pages, own: int, begun: float, now: float) -> str:
    there = np.isin(seen.page, touched)
    ours = there & (seen.pid == own)
    if not ours.any():
        others = seen.pid[there & (seen.pid > 0)]
        if len(others) and (seen.pid != own).all():
            return f"it takes tierd, which is process {own}, for process {int(others[0])}"
        return "it delivered accesses, but not those of tierd to memory of its own"
    early, late = begun - seen.time[ours], seen.time[ours] - now
    off = np.maximum(early, late)
    if off.min() > _CLOCK_TOLERANCE:
        return f"its clock is not CLOCK_MONOTONIC: it is off by at least {off.min():.3g} s"
    return ""


class FreshPages:
    """Touches a page that was never touched before, which is a page fault on every kernel."""

    def __init__(self) -> None:
        self._kept: list[mmap.mmap] = []

    def __call__(self) -> Pages:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page[0] = 1
        self._kept.append(page)  # given back, its address could be used again at once
        return _pages_of(page)


class CacheMisses:
    """Reads at random from more memory than the caches hold: what hardware samples. It is more than the TLB
    maps as well, which has to look up what it is to mark as accessed again for DAMON."""

    def __init__(self) -> None:
        self._buffer = np.ones(_BUFFER, dtype=np.uint8)
        self._order = np.random.default_rng(1).integers(0, len(self._buffer), _READS)

    def __call__(self) -> Pages:
        self._buffer.take(self._order)
        return _pages_of(self._buffer)


def _pages_of(memory: mmap.mmap | npt.NDArray[np.uint8]) -> Pages:
    held = np.frombuffer(memory, dtype=np.uint8)
    first = held.ctypes.data // mmap.PAGESIZE
    last = (held.ctypes.data + len(held) - 1) // mmap.PAGESIZE
    return np.arange(first, last + 1, dtype=np.uint64)
