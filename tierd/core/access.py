"""Who uses which page, as values: what every source of access information delivers, and what the engine asks
of one.

Sources in the order in which they are tried, the first one that passes its self-test being used:

1. hint faults. Page-exact, and one fault tells a rate: the time from unmapping to fault spans decades of
   heat. Virtual machines have them, every kernel from 6.1 on has them, and the engine's results were
   measured with them.
2. PEBS, then IBS. Page-exact as well, and nobody is interrupted by a fault, but a page shows up only after
   thousands of cache misses, so that a lukewarm page looks like a cold one. Virtual machines lack both. They
   come first only where the kernel's unmapping is not ours to steer.
3. DAMON, where neither can be had. It knows regions, not pages, so that scattered hot pages are lost in
   them, and it watches a few processes only. There is one DAMON for all: the helper sets it up where nobody
   else uses it, and takes it away again when another source is chosen.
4. Soft-dirty bits. They show writes only, exist on x86 only, and clearing them holds the process's mmap lock
   for writing and makes each page that is written fault. Clearing takes CAP_DAC_OVERRIDE, with which a
   process may write every file, so the unit does not give it; an administrator who does has decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from tierd.core.address_heat import KnownRates
from tierd.core.heat import HotPages, Movable
from tierd.core.model import ProcessView, Topology
from tierd.core.page_table import Nodes
from tierd.core.remembered import Arrays, Passage

NO_CPU: Final = int(np.iinfo(np.int32).max)
"""In the place of the number of a CPU; more than any."""


@dataclass(frozen=True, slots=True)
class Accesses:
    """Observations in order of time, arrays of one length. pid: int32; page: uint64 virtual page number;
    time: float64 seconds, CLOCK_MONOTONIC; cpu: int32, where the thread ran, NO_CPU where that is not known.
    `lost` counts records that the source had no room for. weight: float64, None where each is one access;
    `AccessSource.looks` says what it counts. passes: how often the source has looked at all memory that it
    watches since the last reading; 0 where others look for it. others: how many observations of processes
    that are not placed were left out."""

    pid: npt.NDArray[np.int32]
    page: npt.NDArray[np.uint64]
    time: npt.NDArray[np.float64]
    cpu: npt.NDArray[np.int32]
    lost: int = 0
    weight: npt.NDArray[np.float64] | None = None
    passes: int = 0
    others: int = 0

    def __len__(self) -> int:
        return len(self.pid)

    def near(self, topology: Topology) -> Nodes:
        """The node of DRAM near the CPU of each; -1 where there is none, or the CPU was not there when the
        topology was read."""
        near: Nodes = np.array([*topology.near, -1], dtype=np.int16)
        return near.take(np.minimum(self.cpu, len(topology.near)))


@dataclass(frozen=True, slots=True)
class Looks:
    """How a source looks at regions: at a page of each every `interval` seconds, `number` times for each
    report."""

    interval: float
    number: int


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

    @property
    def looks(self) -> Looks | None:
        """None: an observation is of its page. Else it is of the 2 MiB around it, and its weight is how many
        looks found them in use."""

    def start(self) -> None:
        """Begin to observe. Raises OSError, TierdError."""

    def watch(self, processes: Sequence[ProcessView]) -> None:
        """These are the processes placed now. Raises OSError, TierdError."""

    def read(self) -> Accesses:
        """What was observed since the last call. Raises OSError, TierdError."""

    def steer(self, effort: float) -> None:
        """How hard to look: more than 0, and 1 for all that the source can do. Raises OSError."""

    def stop(self) -> None:
        """Stop observing and give back what it holds. Also after a `start` that failed."""


class Heat(Protocol):
    """The heat of pages, whatever the evidence. core.heat has one for first uses, core.sampled_heat one for
    samples, core.region_heat one for looks at regions; they explain the methods. The weight counts for the
    last of them alone."""

    def observe(
        self,
        slot: npt.NDArray[np.int64],
        page: npt.NDArray[np.uint64],
        time: npt.NDArray[np.float64],
        near: Nodes,
        weight: npt.NDArray[np.float64] | None = None,
    ) -> None: ...

    def update(self, now: float, unmapped: int, *, resting: bool, measured: bool) -> int: ...

    def hottest(
        self, now: float, least_rate: float, most: int, movable: Movable = ..., *, fresh: bool = False
    ) -> HotPages: ...

    def of(self, slot: int, now: float) -> KnownRates: ...

    @property
    def typical(self) -> float: ...

    def leaving(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None: ...

    def recall(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None: ...

    def forget(self, slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> None: ...

    def doubt(self, now: float) -> None: ...

    def prune(self, now: float, live_slots: npt.NDArray[np.int64]) -> None: ...

    @property
    def evidence(self) -> dict[str, float]: ...

    def dump(self) -> Arrays: ...

    def restore(self, arrays: Arrays, passage: Passage) -> int: ...
