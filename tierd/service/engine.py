"""The engine: observe, heat, plan, move, report, one step at a time in the engine thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tierd.core import planner
from tierd.core.budget import TokenBucket
from tierd.core.heat import HeatMap, HotPages
from tierd.core.model import PAGE_SIZE, ProcessId, ProcessView, Topology
from tierd.core.outcome import Outcome
from tierd.core.planner import ColdStock, Observation, Plan
from tierd.core.policy import EngineMode, Policy
from tierd.core.state import Counters, EngineState, MissingFeature, PlanLine, State
from tierd.errors import TierdError
from tierd.kernel.generations import Generations, Lineage
from tierd.kernel.mover import Mover
from tierd.kernel.paths import Root
from tierd.kernel.perf import FaultStream
from tierd.kernel.pressure import read_memory_pressure
from tierd.kernel.processes import selected_processes
from tierd.kernel.scanning import ScanRate
from tierd.kernel.topology import read_topology

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 0.1
"""Between two readings of the rings: a ring holds 16,000 faults."""
PROCESS_SECONDS = 2.0
"""Between two looks at the process list."""
PRUNE_SECONDS = 10.0
MOVE_SLICE = 2048
"""Base pages demoted, then promoted, in turn, so that the rings are read in between."""
MOVE_SHARE = 0.8
"""Of a round's length, spent on moving at most."""
MOST_HOT = 1 << 18
"""Pages (1 GiB) considered in one round."""
LEAST_RATE = 1 / 30
"""Accesses a second below which a page is not a candidate at all."""


@dataclass
class _Placed:
    """A process being placed, and the slot under which the heat map knows it."""

    view: ProcessView
    slot: int


@dataclass
class _Timers:
    processes: float = 0.0
    round: float = 0.0
    prune: float = 0.0
    aging: dict[tuple[str, int], float] = field(default_factory=dict)


class Engine:
    """Satisfies service.worker.Stepper. Not thread-safe: everything but `state` belongs to the engine thread."""

    def __init__(
        self,
        policy: Policy,
        faults: FaultStream,
        generations: Generations,
        scanning: ScanRate,
        root: Root,
        missing: tuple[MissingFeature, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._clock = clock
        self._faults = faults
        self._generations = generations
        self._scanning = scanning
        self._mover = Mover(root, between=self._sample)
        self._placed: dict[ProcessId, _Placed] = {}
        self._by_slot: dict[int, _Placed] = {}
        self._pids = np.empty(0, dtype=np.int32)
        self._slots = np.empty(0, dtype=np.int64)
        self._next_slot = 1
        self._timers = _Timers()
        self._counters = Counters()
        self._aging_interval = 1.0
        self._walk_seconds = 0.0
        self._moved_lately = 1024
        self._times = [0.0, 0.0]
        self._state = State(missing=missing, source="hint faults", source_reason="page-exact, on every kernel")
        self.adopt(policy)
        faults.enable(True)

    @property
    def state(self) -> State:
        return self._state

    def adopt(self, policy: Policy) -> None:
        self._policy = policy
        self._heat = HeatMap(policy.engine.heat_half_life)
        self._bucket = TokenBucket(policy.engine.bandwidth)
        self._timers = _Timers()

    def close(self) -> None:
        self._faults.enable(False)
        self._faults.close()

    def step(self) -> float:
        now = self._clock()
        if now >= self._timers.processes:
            self._find_processes()
            self._timers.processes = now + PROCESS_SECONDS
        self._sample()
        if now >= self._timers.round:
            self._timers.round = now + self._policy.engine.round
            self._round(now)
        return SAMPLE_SECONDS

    # observe

    def _find_processes(self) -> None:
        engine = self._policy.engine
        views = selected_processes(self._root, self._policy.processes, engine.minimum_process)
        placed = {}
        for view in views:
            known = self._placed.get(view.id)
            if known is None:
                known = _Placed(view, self._next_slot)
                self._next_slot += 1
            placed[view.id] = _Placed(view, known.slot)
        self._placed = placed
        self._by_slot = {p.slot: p for p in placed.values()}
        ordered = sorted(placed.values(), key=lambda p: p.view.id.pid)
        self._pids = np.array([p.view.id.pid for p in ordered], dtype=np.int32)
        self._slots = np.array([p.slot for p in ordered], dtype=np.int64)

    def _sample(self) -> None:
        faults = self._faults.read()
        self._count(samples=len(faults), samples_lost=faults.lost)
        if not len(faults) or not len(self._pids):
            return
        place = np.searchsorted(self._pids, faults.pid).clip(max=len(self._pids) - 1)
        ours = self._pids[place] == faults.pid
        self._heat.observe(self._slots[place[ours]], faults.page[ours], faults.time[ours])

    def _cold_stocks(self, topology: Topology, now: float) -> tuple[ColdStock, ...]:
        dram = {node.number for node in topology.dram}
        lineages = [
            line
            for line in self._generations.read()
            if line.node in dram and self._policy.processes.selects(line.cgroup)
        ]
        if self._age(lineages, now):
            lineages = [
                line
                for line in self._generations.read()
                if line.node in dram and self._policy.processes.selects(line.cgroup)
            ]
        stocks = []
        for line in lineages:
            generations = line.generations
            for this, younger in zip(generations[:-2], generations[1:], strict=False):
                # untouched from the birth of the next generation to the last walk of the page tables
                idle = younger.age - generations[-1].age
                if this.anon:
                    stocks.append(ColdStock(line.cgroup, line.memcg, line.node, this.sequence, idle, this.anon))
        return tuple(stocks)

    def _age(self, lineages: list[Lineage], now: float) -> bool:
        aged = False
        for line in lineages:
            key = (line.cgroup, line.node)
            if now - self._timers.aging.get(key, 0.0) < self._aging_interval:
                continue
            if sum(g.anon for g in line.generations) < 256:
                continue
            begun = self._clock()
            try:
                self._generations.age(line)
            except OSError as error:
                log.debug("aging %s on node %d: %s", line.cgroup, line.node, error)
            self._walk_seconds = self._clock() - begun
            self._timers.aging[key] = now
            self._sample()
            aged = True
        return aged

    # plan

    def _round(self, now: float) -> None:
        topology = read_topology(self._root)
        if not topology.tiered:
            self._publish(EngineState.IDLE, "one memory tier only: there is nothing to place", topology)
            return
        if not self._placed:
            self._publish(EngineState.IDLE, "the policy selects no process", topology)
            return
        if now >= self._timers.prune:
            self._heat.prune(now, self._slots)
            self._timers.prune = now + PRUNE_SECONDS
        self._bucket.fill(now)
        t0 = self._clock()
        cold = self._cold_stocks(topology, now)
        t1 = self._clock()
        least = planner.SWAP_GAIN / max([s.idle for s in cold], default=planner.IDLE_WITHOUT_SWAP)
        hot = self._heat.hottest(now, least, MOST_HOT)
        self._t = (t1 - t0, self._clock() - t1)
        plan = planner.plan(
            Observation(
                hot=hot,
                cold=cold,
                dram=topology.dram,
                slow=topology.slow,
                budget=max(0, min(int(self._bucket.tokens) // PAGE_SIZE, 4 * self._moved_lately)),
                floor=self._policy.engine.dram_floor,
            )
        )
        self._steer_aging(plan, cold)
        engine = self._policy.engine
        if engine.mode is EngineMode.OBSERVE:
            self._publish(EngineState.OBSERVING, "the policy says observe", topology, plan, hot)
            return
        pressure = read_memory_pressure(self._root)
        if pressure > engine.pressure_limit:
            reason = f"tasks wait for memory {pressure:.0f} % of the time"
            self._publish(EngineState.HOLDING, reason, topology, plan, hot)
            return
        moved = self._execute(plan, hot, topology)
        state = EngineState.CONVERGING if moved * 500 > sum(n.total for n in topology.dram) // PAGE_SIZE else EngineState.STEADY
        self._publish(state, plan.held, topology, plan, hot)

    def _steer_aging(self, plan: Plan, cold: tuple[ColdStock, ...]) -> None:
        """The longest interval that still finds enough cold pages: the longer a page was idle, the surer it is
        cold; but pages used every few seconds would then never be found idle."""
        found = sum(stock.pages for stock in cold)
        if found > 4 * self._moved_lately:
            self._aging_interval *= 1.2
        elif plan.promote < plan.wanted and found < 2 * self._moved_lately:
            self._aging_interval /= 1.5
        self._aging_interval = min(30.0, max(0.1, 3 * self._walk_seconds, self._aging_interval))

    # move

    def _execute(self, plan: Plan, hot: HotPages, topology: Topology) -> int:
        """Room first, then promotion, a slice of each in turn, until the plan or the time for a round is used up."""
        begun = self._clock()
        deadline = begun + MOVE_SHARE * self._policy.engine.round
        demotions = [[d, d.pages] for d in plan.demotions]
        demoted, promoted, done = 0, Outcome(), 0
        node = next(n for n in topology.dram if n.number == plan.promote_to) if plan.promote else None
        ahead = plan.demote_pages - plan.promote  # what only brings DRAM back to its floor
        self._times = [0.0, 0.0]
        while node and done < plan.promote and self._clock() < deadline:
            t0 = self._clock()
            count = min(MOVE_SLICE, plan.promote - done)
            room = max(0, ahead) + count
            while room > 0 and demotions and self._clock() < deadline + 1:
                demotion, left = demotions[0]
                pages = min(left, room, MOVE_SLICE)
                self._demote(demotion.stock, pages)
                demoted += pages
                room -= pages
                demotions[0][1] -= pages
                if demotions[0][1] <= 0:
                    demotions.pop(0)
            ahead = 0
            t1 = self._clock()
            floor = planner.floor_bytes(node, self._policy.engine.dram_floor)
            promoted += self._promote(hot, done, done + count, node.number, floor)
            done += count
            t2 = self._clock()
            self._times[0] += t1 - t0
            self._times[1] += t2 - t1
        promoted += Outcome(deferred=plan.promote - done)
        moved = demoted + promoted.moved
        self._moved_lately = max(1024, moved)
        self._bucket.take(moved * PAGE_SIZE)
        self._count(
            promoted_pages=promoted.moved,
            demoted_pages=demoted,
            refused_pages=promoted.refused,
            deferred_pages=promoted.deferred,
            already_there_pages=promoted.already_there,
            move_seconds=self._clock() - begun,
        )
        return moved

    def _demote(self, stock: ColdStock, pages: int) -> None:
        lineage = Lineage(stock.memcg, stock.cgroup, stock.node, ())
        try:
            self._generations.demote(lineage, stock.sequence, pages)
        except OSError as error:
            log.debug("demoting from %s: %s", stock.cgroup, error)
        self._sample()

    def _promote(self, hot: HotPages, begin: int, end: int, node: int, floor: int) -> Outcome:
        total = Outcome()
        slots, pages = hot.slot[begin:end], hot.page[begin:end]
        for slot in np.unique(slots):
            placed = self._by_slot.get(int(slot))
            chosen = pages[slots == slot]
            if placed is None:
                total += Outcome(deferred=len(chosen))
                continue
            outcome, there = self._mover.promote(placed.view.id, chosen, node, floor)
            self._heat.forget(np.full(int(there.sum()), slot), chosen[there])
            total += outcome
        return total

    # report

    def _count(self, **amounts: float) -> None:
        changed = {name: getattr(self._counters, name) + amount for name, amount in amounts.items()}
        self._counters = replace(self._counters, **changed)

    def _publish(
        self,
        state: EngineState,
        reason: str,
        topology: Topology,
        plan: Plan | None = None,
        hot: HotPages | None = None,
    ) -> None:
        self._count(rounds=1)
        self._state = replace(
            self._state,
            engine=state,
            reason=reason,
            topology=topology,
            counters=self._counters,
            plan=_lines(plan) if plan else (),
            processes=len(self._placed),
            cgroups=len({p.view.cgroup for p in self._placed.values()}),
            monotonic=self._clock(),
        )


def _lines(plan: Plan) -> tuple[PlanLine, ...]:
    lines = [
        PlanLine("demote", d.stock.cgroup, d.pages, d.stock.node, None, d.reason) for d in plan.demotions
    ]
    if plan.promote:
        lines.append(PlanLine("promote", "", plan.promote, None, plan.promote_to, plan.reason))
    if plan.held:
        lines.append(PlanLine("hold", "", plan.wanted - plan.promote, None, None, plan.held))
    return tuple(lines)
