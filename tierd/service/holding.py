"""Why nothing may be moved in a round, in words."""

from __future__ import annotations

from tierd.core.model import PAGE_SIZE, Topology
from tierd.core.planner import ColdStock, Plan
from tierd.core.silence import NOTHING_SEEN, proves_nothing
from tierd.core.state import EngineState
from tierd.errors import TierdError
from tierd.kernel.demotion import Demotion
from tierd.kernel.occupancy import read_in_dram
from tierd.kernel.paths import Root
from tierd.kernel.pressure import read_memory_pressure

DEMOTION_OFF = (
    "the kernel's demotion is off, and pages would be swapped out or dropped instead; "
    "systemctl reload tierd switches it on again"
)
IN_GENERATIONS = ("anon", "shmem")
"""What memory.numa_stat calls the memory that the counts of cold pages cover."""


class Holding:
    """Used by the engine only."""

    def __init__(self, root: Root, demotion: Demotion | None) -> None:
        """demotion: None where the kernel demotes without being told to."""
        self._root = root
        self._demotion = demotion
        self._paused = 0.0, ""

    def pause(self, until: float, words: str) -> None:
        """Nothing moves before `until`, on the engine's clock. words: until when, for people."""
        self._paused = until, words

    def shown(self, state: EngineState, reason: str, now: float) -> tuple[EngineState, str]:
        """What to show of an engine that is so for this reason: that it is paused, whatever it would be
        besides, but for what an operator has to mend."""
        paused = "" if state is EngineState.DEGRADED else self._pause_words(now)
        return (EngineState.PAUSED, paused) if paused else (state, reason)

    def _pause_words(self, now: float) -> str:
        until, words = self._paused
        return f"an operator has paused it {words}" if now < until else ""

    def pressed(self, limit: float, now: float) -> str:
        """Why nothing may be moved or split now, empty when it may. limit: the policy's, of PSI; unknown
        pressure is too much."""
        if paused := self._pause_words(now):
            return paused
        if self._demotion is not None and not self._demotion.on:
            return DEMOTION_OFF
        try:
            pressure = read_memory_pressure(self._root)
        except TierdError as error:
            return f"memory pressure is not known: {error}"
        return f"some task waits for memory {pressure:.0f} % of the time" if pressure > limit else ""

    def unproven(self, plan: Plan, cold: tuple[ColdStock, ...], topology: Topology, *, silent: bool) -> str:
        """Why what would be moved may not be idle at all, empty when something was seen to be used. silent:
        whether nobody was seen to use anything for a whole pass."""
        if not silent or not (plan.promote or plan.demotions):
            return ""
        dram = {node.number for node in topology.dram}
        covered = read_in_dram(self._root, {stock.cgroup for stock in cold}, dram, IN_GENERATIONS)
        idle = sum(stock.pages for stock in cold)
        return NOTHING_SEEN if proves_nothing(True, idle, covered // PAGE_SIZE) else ""
