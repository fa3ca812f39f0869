"""The engine: observe, heat, plan, move, report, one step at a time in the engine thread."""

from __future__ import annotations

import glob
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from tierd.core import planner
from tierd.core.budget import TokenBucket
from tierd.core.heat import HeatMap
from tierd.core.model import PAGE_SIZE, Topology
from tierd.core.planner import ColdStock, Observation, Plan
from tierd.core.policy import EngineMode, EnginePolicy, Policy, ProcessMatch, ProcessSelection
from tierd.core.sampling import ScanGovernor
from tierd.core.state import Counters, EngineState, MissingFeature, PlanLine, State
from tierd.errors import GoneError, TierdError
from tierd.kernel.counters import read_unmapped
from tierd.kernel.generations import Generations
from tierd.kernel.occupancy import read_occupancy
from tierd.kernel.own_cost import read_own_cost
from tierd.kernel.paths import Root
from tierd.kernel.perf import FaultStream
from tierd.kernel.pressure import read_memory_pressure
from tierd.kernel.processes import read_cgroup
from tierd.kernel.scanning import ScanRate
from tierd.kernel.topology import read_topology, refresh_free
from tierd.service.coldness import Coldness
from tierd.service.moving import Executor, Moved
from tierd.service.placed import PlacedProcesses
from tierd.service.rebuilding import Rebuilder
from tierd.service.splitting import Splitter

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 0.1
"""Between two readings of the rings: a ring holds 16,000 faults."""
PROCESS_SECONDS = 2.0
"""Between two looks at the process list."""
PRUNE_SECONDS = 10.0
TOPOLOGY_SECONDS = 5.0
"""Between two looks at nodes, tiers and watermarks; free memory is read in every round."""
MOST_HOT = 1 << 18
"""Pages (1 GiB) considered in one round."""
MOVE_SHARE = 0.9
"""Of a round's length, spent on moving at most."""
MOST_PLANNED = 1 << 15
"""Base pages (128 MiB) planned for one round at most: what a second of moving can do."""


class Engine:
    """Satisfies service.worker.Stepper. Not thread-safe: everything but `state` belongs to the engine
    thread."""

    def __init__(
        self,
        policy: Policy,
        faults: FaultStream,
        generations: Generations,
        scanning: ScanRate,
        splitter: Splitter,
        root: Root,
        missing: tuple[MissingFeature, ...] = (),
        lacking: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """lacking: what keeps this engine from placing anything, in words; empty when nothing does."""
        self._root = root
        self._clock = clock
        self._faults = faults
        self._scanning = scanning
        self._splitter = splitter
        self._governor = ScanGovernor()
        self._placed = PlacedProcesses(root)
        self._coldness = Coldness(generations, clock, between=self._sample)
        self._executor = Executor(root, generations, self._placed, between=self._sample, clock=clock)
        self._rebuilder = Rebuilder(root, self._placed, self._executor, clock)
        self._counters = Counters()
        self._unmapped = read_unmapped(root)
        self._lacking = lacking
        self._state = State(
            missing=missing,
            source="hint faults",
            source_reason="page-exact, and every kernel from 6.1 on has them",
        )
        self.adopt(policy)
        scanning.prepare()
        faults.enable(True)

    @property
    def state(self) -> State:
        return self._state

    def adopt(self, policy: Policy) -> None:
        self._policy = policy
        self._demotable = _without_own(self._root, policy.processes)
        self._heat = HeatMap(policy.engine.heat_half_life)
        self._bucket = TokenBucket(policy.engine.bandwidth)
        self._next_processes = self._next_round = self._next_prune = self._next_topology = 0.0

    def close(self) -> None:
        self._faults.enable(False)
        self._faults.close()

    def step(self) -> float:
        now = self._clock()
        if now >= self._next_processes:
            self._placed.refresh(self._policy.processes, self._policy.engine.minimum_process)
            self._next_processes = now + PROCESS_SECONDS
        self._sample()
        if now >= self._next_round:
            self._next_round = now + self._policy.engine.round
            self._round(now)
        return SAMPLE_SECONDS

    def _sample(self) -> None:
        faults = self._faults.read()
        self._count(samples=len(faults), samples_lost=faults.lost)
        slots = self._placed.slots_of(faults.pid)
        ours = slots > 0
        self._heat.observe(slots[ours], faults.page[ours], faults.time[ours])
        self._rebuilder.observe(slots[ours], faults.page[ours])

    def _round(self, now: float) -> None:
        engine = self._policy.engine
        topology = self._observe_topology(now)
        if not topology.tiered:
            return self._publish(
                topology, EngineState.IDLE, "one memory tier only: there is nothing to place"
            )
        if self._lacking:
            return self._publish(topology, EngineState.DEGRADED, self._lacking)
        if not len(self._placed):
            return self._publish(
                topology, EngineState.IDLE, "the policy selects no process that is large enough"
            )
        if now >= self._next_prune:
            self._heat.prune(now, self._placed.slots)
            self._next_prune = now + PRUNE_SECONDS
        self._bucket.fill(now)
        pressed = self._pressed(engine.pressure_limit)
        split = 0 if pressed else self._split(topology, engine)
        cold = self._coldness.stocks(self._demotable, {n.number for n in topology.dram}, now)
        least = planner.SWAP_GAIN / max((stock.idle for stock in cold), default=planner.IDLE_WITHOUT_SWAP)
        hot = self._heat.hottest(now, max(least, 1 / planner.IDLE_WITHOUT_SWAP), MOST_HOT)
        hot = self._executor.movable(hot)
        budget = min(int(self._bucket.tokens) // PAGE_SIZE, MOST_PLANNED)
        plan = planner.plan(
            Observation(hot, cold, topology.dram, topology.slow, max(0, budget), engine.dram_floor)
        )
        self._steer_sampling(topology, max(plan.wanted, plan.promote))
        if engine.mode is EngineMode.OBSERVE:
            return self._publish(topology, EngineState.OBSERVING, "the policy says observe", plan)
        if pressed:
            return self._publish(topology, EngineState.HOLDING, pressed, plan)
        moved = self._executor.execute(
            plan, hot, self._heat, topology, engine.dram_floor, MOVE_SHARE * engine.round
        )
        self._account(moved, split)
        self._rebuild(plan, moved, cold, topology, engine)
        self._coldness.steer(plan, cold, moved.pages)
        steady = EngineState.STEADY if self._governor.resting else EngineState.CONVERGING
        return self._publish(topology, steady, plan.held, plan)

    def _steer_sampling(self, topology: Topology, found: int) -> None:
        before, self._unmapped = self._unmapped, read_unmapped(self._root)
        dram_pages = sum(node.total for node in topology.dram) // PAGE_SIZE
        size = self._governor.update(
            found, dram_pages, self._unmapped - before, self._state.slow_bytes // PAGE_SIZE
        )
        self._scanning.set_size(size)

    def _observe_topology(self, now: float) -> Topology:
        if now < self._next_topology:
            try:
                return refresh_free(self._root, self._state.topology)
            except GoneError:
                log.info("a node is gone: reading the topology again")
        self._next_topology = now + TOPOLOGY_SECONDS
        return read_topology(self._root)

    def _pressed(self, limit: float) -> str:
        """Why nothing may be moved or split now, empty when it may: unknown pressure is too much."""
        try:
            pressure = read_memory_pressure(self._root)
        except TierdError as error:
            return f"memory pressure is not known: {error}"
        return f"some task waits for memory {pressure:.0f} % of the time" if pressure > limit else ""

    def _split(self, topology: Topology, engine: EnginePolicy) -> int:
        """Huge pages split in this round: only where DRAM is short, and only when moving is allowed."""
        if not (engine.huge_pages and self._splitter.available and engine.mode is EngineMode.PLACE):
            return 0
        if planner.room_pages(topology.dram, engine.dram_floor) * PAGE_SIZE > topology.dram[0].total // 8:
            return 0
        dram = frozenset(node.number for node in topology.dram)
        slow = frozenset(node.number for node in topology.slow)
        seconds = MOVE_SHARE * engine.round
        return self._splitter.split(self._placed.views, dram, slow, seconds, self._rebuilder)

    def _rebuild(
        self,
        plan: Plan,
        moved: Moved,
        cold: tuple[ColdStock, ...],
        topology: Topology,
        engine: EnginePolicy,
    ) -> None:
        rebuilt = self._rebuilder.rebuild(
            plan,
            moved,
            cold,
            topology,
            engine.dram_floor,
            self._state.slow_bytes // PAGE_SIZE,
            int(self._bucket.tokens),
            MOVE_SHARE * engine.round - moved.seconds,
        )
        self._bucket.take(rebuilt.bytes)
        self._count(huge_pages_rebuilt=rebuilt.huge_pages, demoted_pages=rebuilt.demoted)

    def _account(self, moved: Moved, split: int) -> None:
        self._bucket.take(moved.pages * PAGE_SIZE)
        self._count(
            promoted_pages=moved.promoted.carried,
            demoted_pages=moved.demoted,
            refused_pages=moved.promoted.refused,
            deferred_pages=moved.promoted.deferred,
            already_there_pages=moved.promoted.already_there,
            huge_pages_split=split,
            move_seconds=moved.seconds,
        )

    def _count(self, **amounts: float) -> None:
        changed = {name: getattr(self._counters, name) + amount for name, amount in amounts.items()}
        self._counters = replace(self._counters, **changed)

    def _publish(
        self, topology: Topology, engine: EngineState, reason: str, plan: Plan | None = None
    ) -> None:
        self._count(rounds=1)
        now = self._clock()
        cgroups = {view.cgroup for view in self._placed.views}
        dram_bytes, slow_bytes = self._occupancy(topology, cgroups)
        moved = (
            self._counters.promoted_pages
            + self._counters.demoted_pages
            - self._state.counters.promoted_pages
            - self._state.counters.demoted_pages
        )
        cost = read_own_cost()
        elapsed = now - self._state.monotonic if self._state.monotonic else 0.0
        self._state = replace(
            self._state,
            engine=engine,
            reason=reason,
            topology=topology,
            counters=self._counters,
            plan=_plan_lines(plan) if plan else (),
            processes=len(self._placed),
            cgroups=len(cgroups),
            dram_bytes=dram_bytes,
            slow_bytes=slow_bytes,
            bytes_per_second=moved * PAGE_SIZE / elapsed if elapsed > 0 else 0.0,
            own_cpu_seconds=cost.cpu_seconds,
            own_resident_bytes=cost.resident_bytes,
            monotonic=now,
        )

    def _occupancy(self, topology: Topology, cgroups: set[str]) -> tuple[int, int]:
        dram = {node.number for node in topology.dram}
        sums = [0, 0]
        for cgroup in cgroups:
            try:
                for node, amount in read_occupancy(self._root, cgroup).items():
                    sums[node not in dram] += amount
            except TierdError:
                continue
        return sums[0], sums[1]


def _without_own(root: Root, selection: ProcessSelection) -> ProcessSelection:
    """The same without the daemon's own cgroup: tierd never touches itself."""
    try:
        own = read_cgroup(root, os.getpid())
    except TierdError:
        return selection
    return replace(selection, exclude=(*selection.exclude, ProcessMatch(cgroup=glob.escape(own))))


def _plan_lines(plan: Plan) -> tuple[PlanLine, ...]:
    lines = [
        PlanLine("demote", d.stock.cgroup, d.pages, d.stock.node, None, d.reason) for d in plan.demotions
    ]
    if plan.promote:
        lines.append(
            PlanLine("promote", "the hottest pages", plan.promote, None, plan.promote_to, plan.reason)
        )
    if plan.held:
        lines.append(PlanLine("hold", "hot pages", plan.wanted - plan.promote, None, None, plan.held))
    return tuple(lines)


def create(policy: Policy, doors: Mapping[str, int], missing: tuple[MissingFeature, ...]) -> Engine:
    """The engine of this machine, from the descriptors that the helper opened. Called by the daemon.

    Raises OSError when a descriptor is not what its name says.
    """
    root = Root()
    rings = [descriptor for name, descriptor in sorted(doors.items()) if name.startswith("perf.")]
    return Engine(
        policy,
        FaultStream(rings),
        Generations(doors.get("lru_gen", -1)),
        ScanRate(doors),
        Splitter(root, doors.get("split_huge_pages")),
        root,
        missing,
        _lacking(doors),
    )


def _lacking(doors: Mapping[str, int]) -> str:
    """Why nothing can be placed with these doors. The helper hands out the scan rate only where the kernel's
    settings are ours to change."""
    needs = {
        "perf.": "hint faults cannot be read",
        "lru_gen": "cold pages cannot be found",
        "scan_size_mb": "the kernel's NUMA balancing is not ours to steer",
    }
    lost = [loss for need, loss in needs.items() if not any(name.startswith(need) for name in doors)]
    return "; ".join(lost)
