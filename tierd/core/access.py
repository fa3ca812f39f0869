"""Who uses which page, as values: what every source of access information delivers, and what the engine asks
of one.

Sources in the order in which they are tried, the first one that passes its self-test being used:

1. hint faults. Page-exact, and one fault tells a rate: the time from unmapping to fault spans decades of
   heat. Virtual machines have them, every kernel from 6.1 on has them, and the engine's results were
   measured with them.
2. PEBS, then IBS. Page-exact as well, and nobody is interrupted by a fault, but a page shows up only after
   thousands of cache misses, so that a lukewarm page looks like a cold one. Virtual machines lack both. They
   come first only where the kernel's unmapping is not ours to steer.
3. DAMON is probed and not used. It knows regions, not pages, so that scattered hot pages are lost in them,
   and its targets would have to be set as processes come and go, by root, which the daemon is not.
4. Soft-dirty bits are not used at all: they show writes only, exist on x86 only, and clearing them holds the
   process's mmap lock for writing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tierd.core.heat import HotPages, Movable, Nodes
from tierd.core.model import Topology


@dataclass(frozen=True, slots=True)
class Accesses:
    """Observations in order of time, arrays of one length. pid: int32; page: uint64 virtual page number;
    time: float64 seconds, CLOCK_MONOTONIC; cpu: int32, where the thread ran. `lost` counts records that the
    source had no room for."""

    pid: npt.NDArray[np.int32]
    page: npt.NDArray[np.uint64]
    time: npt.NDArray[np.float64]
    cpu: npt.NDArray[np.int32]
    lost: int = 0

    def __len__(self) -> int:
        return len(self.pid)

    def near(self, topology: Topology) -> Nodes:
        """The node of DRAM near the CPU of each; -1 where there is none, or the CPU was not there when the
        topology was read."""
        near: Nodes = np.array([*topology.near, -1], dtype=np.int16)
        return near.take(np.minimum(self.cpu, len(topology.near)))


class AccessSource(Protocol):
    """One way to learn who uses pages of the slow tier. Called from the engine thread only."""

    @property
    def name(self) -> str:
        """As operators know it: ``hint faults``."""

    @property
    def reason(self) -> str:
        """Why it is worth using, and what it has not been shown to do. A clause."""

    @property
    def period(self) -> int | None:
        """What an observation says. None: the page was used for the first time since the kernel unmapped it,
        and how soon that was is heat. A number: one of so many accesses was sampled, and how many samples
        come in a time is heat."""

    def start(self) -> None:
        """Begin to observe. Raises OSError, TierdError."""

    def read(self) -> Accesses:
        """What was observed since the last call. Raises OSError, TierdError."""

    def steer(self, effort: float) -> None:
        """How hard to look: more than 0, and 1 for all that the source can do. Raises OSError."""

    def stop(self) -> None:
        """Stop observing and give back what it holds. Also after a `start` that failed."""


class Heat(Protocol):
    """The heat of pages, whatever the evidence. core.heat has one for first uses, core.sampled_heat one for
    samples; both explain the methods."""

    def observe(
        self,
        slot: npt.NDArray[np.int64],
        page: npt.NDArray[np.uint64],
        time: npt.NDArray[np.float64],
        near: Nodes,
    ) -> None: ...

    def update(self, now: float, unmapped: int, *, resting: bool, measured: bool) -> int: ...

    def hottest(
        self, now: float, least_rate: float, most: int, movable: Movable = ..., *, fresh: bool = False
    ) -> HotPages: ...

    @property
    def typical(self) -> float: ...

    def leaving(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None: ...

    def recall(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None: ...

    def forget(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None: ...

    def doubt(self, now: float) -> None: ...

    def prune(self, now: float, live_slots: npt.NDArray[np.int64]) -> None: ...
