"""How hard the engine looks: what a round saw, told to those who decide."""

from __future__ import annotations

import logging
from typing import Final

from tierd.core import planner
from tierd.core.access import Heat
from tierd.core.fault_limit import FaultLimit
from tierd.core.model import PAGE_SIZE, Topology
from tierd.core.planner import Plan
from tierd.core.sampling import FULL_SIZE, RESTING_SECONDS, ScanGovernor
from tierd.core.silence import Silence
from tierd.kernel.counters import read_hinting
from tierd.kernel.paths import Root
from tierd.service.moving import Moved

log = logging.getLogger(__name__)

SAMPLE_SECONDS: Final = 0.1
"""Between two readings of the rings: a ring holds 13,000 faults."""
ROOMY: Final = 4096
"""Base pages of room in DRAM from which on all that is known to be hot is looked through at rest, not just
what was seen since the last round."""
THROUGH_SECONDS: Final = 60.0
"""Between two times that this is done; it takes tens of milliseconds for a million pages."""

REPORTS_OF_PASS: Final = 8
"""Reports of a source that looks by itself which count as one pass over the slow nodes: 16 s of DAMON's, in
which it has told hot regions from cold ones, and what is cold in DRAM has begun to show."""


class Looking:
    """Used by the engine only, in its thread. accesses: of placed processes, seen since the last round.
    reports: of all that the source watches, since then. The engine adds to both."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._governor = ScanGovernor()
        self._silence = Silence()
        self._silent = True
        self._limit = FaultLimit()
        self._before: tuple[float, int, int] | None = None
        self._unmapped = self._reported = self._quick = 0
        self._slow_pages, self._share, self._cpus = 0, 1.0, 1
        self._passes = 0.0
        self._next_through = 0.0
        self._fresh = False
        self.accesses = self.reports = 0

    @property
    def resting(self) -> bool:
        return self._governor.resting

    @property
    def silent(self) -> bool:
        """Whether nobody was seen to use anything for a whole pass."""
        return self._silent

    @property
    def effort(self) -> float:
        """For the source of accesses: more than 0, and 1 for all that it can do."""
        return self._governor.size / FULL_SIZE * self._limit.effort(resting=self.resting)

    @property
    def seconds(self) -> float:
        """Until the rings should be read again."""
        return RESTING_SECONDS if self.resting else SAMPLE_SECONDS

    def fresh_only(self, now: float, topology: Topology, floor: int) -> bool:
        """Whether what was seen since the last round is all that is to be considered in this one."""
        self._fresh = self.resting
        if self.resting and planner.room_pages(topology.dram, floor) >= ROOMY and now >= self._next_through:
            self._next_through = now + THROUGH_SECONDS
            self._fresh = False
        return self._fresh

    def measure(self, placed: int, mapped: int | None, cpus: int) -> None:
        """What a pass over the slow nodes is. placed: bytes there that are in the page tables of cgroups
        with placed processes. mapped: of all processes, None when that is not known: the kernel unmaps
        everybody's, and does not say whose. cpus: that are online."""
        self._cpus = cpus
        self._slow_pages = placed // PAGE_SIZE
        self._share = min(1.0, placed / mapped) if mapped else 1.0

    def learn(self, now: float, heat: Heat) -> None:
        """Begin a round. Raises TierdError."""
        unmapped, faults = read_hinting(self._root)
        before, self._before = self._before or (now, unmapped, faults), (now, unmapped, faults)
        self._unmapped = int(max(0, unmapped - before[1]) * self._share)
        if now > before[0]:
            a_second = max(0, faults - before[2]) / (now - before[0])
            self._limit.update(a_second, self._cpus, resting=self.resting)
        self._passes += self._unmapped / self._slow_pages if self._slow_pages else 0.0
        self._silent = self._silence.update(self.accesses, self._unmapped, self._slow_pages, self.reports)
        self._reported = self.reports * self._slow_pages // REPORTS_OF_PASS
        self.accesses = self.reports = 0
        self._quick = heat.update(
            now, self._unmapped, resting=self.resting, measured=self._governor.measured
        )

    def glance(self, now: float, heat: Heat) -> bool:
        """All of a round in which only a change of the hot set is looked for. Returns whether it has
        changed. Raises TierdError."""
        self.learn(now, heat)
        self._governor.glance(self._quick, self._unmapped)
        return self._changed()

    def take_passes(self) -> float:
        """How often the kernel has unmapped the slow tier since the last call."""
        passes, self._passes = self._passes, 0.0
        return passes

    def steer(self, topology: Topology, plan: Plan, moved: Moved | None = None) -> bool:
        """After a round. moved: None when it is not for want of time or bandwidth that nothing was moved.
        Returns whether the hot set has changed."""
        deferred = moved.promoted.deferred if moved else 0
        self._governor.update(
            plan.wanted,
            plan.urgent,
            min(plan.urgent, plan.promote - deferred if moved else 0),
            sum(node.total for node in topology.dram) // PAGE_SIZE,
            self._unmapped + self._reported,
            self._slow_pages,
            self._quick,
            limited=plan.limited or 2 * deferred > plan.promote,
            more=plan.more,
            fresh=self._fresh,
        )
        return self._changed()

    def _changed(self) -> bool:
        if self._governor.changed:
            log.debug("looking hard again: %s", self._governor.why)
        return self._governor.changed
