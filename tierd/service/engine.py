"""The engine: observe, heat, plan, move, report, one step at a time in the engine thread."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tierd.core import planner
from tierd.core.access import AccessSource
from tierd.core.address_heat import KnownRates
from tierd.core.budget import TokenBucket
from tierd.core.heat import HeatMap
from tierd.core.heat_kinds import heat_for
from tierd.core.model import PAGE_SIZE, ProcessId, Topology
from tierd.core.plan_text import plan_lines
from tierd.core.planner import ColdStock, Observation, Plan
from tierd.core.policy import EngineMode, EnginePolicy, Policy
from tierd.core.state import Counters, EngineState, MissingFeature, State
from tierd.errors import GoneError, TierdError, in_words
from tierd.kernel.demotion import Demotion
from tierd.kernel.generations import Generations
from tierd.kernel.occupancy import read_held
from tierd.kernel.online_blocks import OnlineBlocks
from tierd.kernel.own_cost import OwnCost, read_own_cost
from tierd.kernel.paths import Root
from tierd.kernel.topology import read_mapped, read_topology, refresh_free
from tierd.service.class_pages import ClassPages
from tierd.service.class_shares import ClassShares
from tierd.service.coldness import Coldness
from tierd.service.demotable import Demotable
from tierd.service.failed_rounds import FailedRounds
from tierd.service.first_touches import FirstTouches
from tierd.service.holding import Holding
from tierd.service.keeping import Keeper
from tierd.service.kernel_settings import KernelSettings
from tierd.service.looking import SAMPLE_SECONDS, Looking
from tierd.service.moving import Executor, Moved
from tierd.service.pace import Pace
from tierd.service.placed import PlacedProcesses, without_own
from tierd.service.rebuilding import Allowance, Rebuilder
from tierd.service.sources import NoSource, Selection
from tierd.service.splitting import Splitter

log = logging.getLogger(__name__)

LITTLE = 256
"""Base pages: a round that moved fewer, and made no page huge, had little to do."""
MOST_HOT = 1 << 18
LEAST_HOT = 1 << 14
"""Pages considered in one round: several times as many as the last one promoted, within these."""
MOVE_SHARE = 0.9
"""Of a round's length, spent on moving at most, unless the rest of the round took long."""
MOVE_RATIO = 2.0
"""Times as long as the rest of a round may be moved in it: on a slow or busy machine, too, most of the time
goes to moving what has been found."""
LONGEST_WORK = 5.0
"""Seconds of splitting, and of moving, in one round at most: the watchdog hears of the engine between
rounds."""
MOST_PLANNED = 2 * MOST_HOT
"""Base pages planned for each second of a round at most, however much the policy allows: as many as are
considered, and as many that make room for them. More than a second of moving does."""
MOST_CHECKED = 1 << 15
"""Pages of which it is made sure that they lie on a slow node; a query of so many lasts milliseconds."""


class Engine:
    """Satisfies service.worker.Stepper. Not thread-safe: everything but `state` belongs to the engine
    thread."""

    def __init__(
        self,
        policy: Policy,
        select_source: Callable[[], Selection],
        generations: Generations,
        splitter: Splitter,
        root: Root,
        missing: tuple[MissingFeature, ...] = (),
        lacking: str = "",
        clock: Callable[[], float] = time.monotonic,
        demotion: Demotion | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        """select_source: called in the first step, and takes a few seconds at most. lacking: what keeps this
        engine from placing anything, in words; empty when nothing does. demotion: None where the kernel
        demotes without being told to. keeper: of heat, from the run before and for the next one."""
        self._root = root
        self._clock = clock
        self._select_source: Callable[[], Selection] | None = select_source
        self._source: AccessSource = NoSource()
        self._splitter = splitter
        self._demotion = demotion
        self._keeper = keeper or Keeper(root)
        self._holding = Holding(root, demotion)
        self._looking = Looking(root)
        self._blocks = OnlineBlocks(root)
        self._considered = MOST_HOT
        self._placed = PlacedProcesses(root)
        self._demotable = Demotable(root, self._placed)
        self._classes = ClassShares(root, self._placed, clock)
        self._class_pages = ClassPages(root, self._placed, clock)
        self._touches = FirstTouches(root, self._placed)
        self._coldness = Coldness(generations, clock, between=self._keep_up)
        self._executor = Executor(root, generations, self._placed, between=self._keep_up, clock=clock)
        self._rebuilder = Rebuilder(root, self._placed, self._executor, clock)
        self._counters = Counters()
        self._bucket = TokenBucket(policy.engine.bandwidth)
        self._failures = FailedRounds()
        self._sampled = self._began = -math.inf
        self._lacking = lacking
        self._missing = missing
        self._settings = KernelSettings(root)
        self._evidence: tuple[float, float] | None = None
        self._topology = Topology(())
        self._state = State(missing=missing)
        self.adopt(policy)

    @property
    def state(self) -> State:
        return self._state

    def adopt(self, policy: Policy) -> None:
        floor = policy.engine.dram_floor
        self._classes.check(policy.classes, policy.origin, self._topology, floor)
        self._policy = policy
        if self._demotion:
            self._demotion.follow(policy.engine.mode is EngineMode.PLACE)
        self._classes.adopt(policy.classes, policy.origin)
        self._demotable.adopt(without_own(self._root, policy.processes), self._classes.guaranteed)
        evidence = (policy.engine.heat_half_life, policy.engine.cooldown)
        if evidence != self._evidence:
            self._heat = heat_for(self._source, policy.engine)
            self._evidence = evidence
        self._bucket.rate, self._bucket.burst = policy.engine.bandwidth, max(1.0, policy.engine.round)
        self._pace = Pace()

    def pause(self, until: float, words: str) -> None:
        self._holding.pause(until, words)
        self._pace.round_now()

    def heat(self, process: ProcessId) -> KnownRates | None:
        slot = self._placed.slot_of(process)
        return self._heat.of(slot, self._clock()) if slot else None

    def close(self) -> None:
        self._keeper.hand_over(self._heat, self._source.name, self._placed)
        self._source.stop()

    def step(self) -> float:
        if self._select_source is not None:
            self._take_source(self._select_source())
            self._select_source = None
        now = self._began = self._clock()
        due = now >= self._pace.next_round
        urgent = self._classes.pending and not self._class_pages.hopeless
        resting = self._looking.resting and not urgent
        glancing = resting and now < self._pace.next_whole_round
        try:
            if self._pace.processes.due(now):
                self._placed.refresh(self._policy.processes, self._policy.engine.minimum_process)
                self._touches.refresh()
                self._source.watch(self._placed.views)
                self._keeper.restore(self._heat, self._source.name, self._placed)
                self._pace.processes.done(now, self._looking.resting, self._clock() - now)
            if due and not glancing:
                self._topology = self._observe_topology(now)
            self._sample()
            if due:
                if glancing:
                    self._glance(now)
                else:
                    self._round(now, self._topology)
                self._failures.succeeded()
        except (TierdError, OSError) as error:
            if due:
                state, words = self._failures.failed(in_words(error), self._state.reason)
                self._publish(self._state.topology, state, words)
        if due:
            self._pace.round(now, self._policy.engine.round, self._looking.resting)
        return self._looking.seconds

    def _take_source(self, selection: Selection) -> None:
        self._source = selection.source
        self._heat = heat_for(self._source, self._policy.engine)
        self._lacking = "; ".join(filter(None, (selection.lacking, self._lacking)))
        self._missing = (*self._missing, *selection.missing)
        self._state = replace(
            self._state,
            source=self._source.name,
            source_reason=selection.reason,
            missing=self._missing,
        )

    def _keep_up(self) -> None:
        """Between two pieces of work: a reading has a price of its own, and the rings hold what comes
        meanwhile."""
        if self._clock() - self._sampled >= SAMPLE_SECONDS:
            self._sample()

    def _sample(self) -> None:
        self._sampled = self._clock()
        seen = self._source.read()
        self._count(samples=len(seen) + seen.others, samples_lost=seen.lost)
        slots = self._placed.slots_of(seen.pid)
        ours = slots > 0
        self._looking.accesses += int(np.count_nonzero(ours))
        self._looking.reports += seen.passes
        near = seen.near(self._topology)
        if isinstance(self._heat, HeatMap):
            self._rebuilder.observe(slots[ours], seen.page[ours])
            ours[ours] = ~self._touches.among(slots[ours], seen.page[ours], self._heat.known)
        weight = None if seen.weight is None else seen.weight[ours]
        self._heat.observe(slots[ours], seen.page[ours], seen.time[ours], near[ours], weight)

    def _round(self, now: float, topology: Topology) -> None:
        engine = self._policy.engine
        self._pace.whole_round(now)
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
        if self._pace.prune.due(now):
            self._heat.prune(now, self._placed.slots)
            self._pace.prune.done(now, self._looking.resting)
        self._bucket.fill(now)
        self._looking.learn(now, self._heat)
        pressed = self._holding.pressed(engine.pressure_limit, now)
        if not pressed and not self._looking.silent:
            self._split(topology, engine)
        dram = {node.number: node.total // PAGE_SIZE for node in topology.dram}
        slow = {node.number for node in topology.slow}
        self._classes.look(topology, engine.dram_floor)
        self._demotable.look(now, slow, self._executor.sharing)
        cold = self._coldness.stocks(self._demotable, dram, now, walk=not pressed)
        caches, typical = self._coldness.caches, self._heat.typical
        coldest = min([self._coldness.coldest, *(stock.rate for stock in caches)])
        settled = self._looking.resting
        swapped = (planner.URGENT if settled else planner.SWAP_GAIN) * planner.rate_in_dram(coldest, typical)
        least = planner.least_rate(topology.dram, engine.dram_floor, self._classes.least(swapped))
        fresh = self._looking.fresh_only(now, topology, engine.dram_floor)
        hot = self._heat.hottest(now, least, self._considered, self._executor.movable, fresh=fresh)
        cut = len(hot) == self._considered
        hot = self._executor.on_slow(hot, self._heat, slow, MOST_CHECKED)
        hot = self._class_pages.with_owed(self._classes.sharing, hot, slow, self._executor.movable)
        budget = min(int(self._bucket.tokens) // PAGE_SIZE, int(MOST_PLANNED * max(1.0, engine.round)))
        if not fresh:
            # as it is now: looking through all that is known takes time, and memory
            topology = refresh_free(self._root, topology)
        nodes = topology.dram, topology.slow
        seen = Observation(
            *(hot, (*cold, *caches), *nodes, max(0, budget), engine.dram_floor),
            *(coldest, typical, settled, cut, self._placed.barred(dram)),
        )
        spare = self._class_pages.spare(
            self._classes.sharing, topology, engine.dram_floor, self._executor.movable
        )
        plan = self._classes.plan(seen, spare, self._coldness.coldest_in)
        if engine.mode is EngineMode.OBSERVE:
            self._steer_sampling(topology, plan)
            return self._publish(topology, EngineState.OBSERVING, "the policy says observe", plan)
        held = pressed or self._holding.unproven(plan, cold, topology, silent=self._looking.silent)
        if held:
            return self._publish(topology, EngineState.HOLDING, held, plan)
        seconds = self._moving_seconds(self._clock() - now)
        moved = self._executor.execute(plan, hot, self._heat, topology, engine.dram_floor, seconds)
        self._steer_sampling(topology, plan, moved)
        self._considered = min(MOST_HOT, max(LEAST_HOT, 4 * moved.promoted.carried))
        self._account(moved)
        if moved.trouble:
            raise moved.trouble
        rebuilt = self._rebuild(plan, moved, cold, topology, seconds - moved.seconds)
        if not rebuilt and moved.pages < LITTLE:
            self._pace.whole_round(now, idle=True)
        for (slot, node), pages in moved.arrived.items():
            if view := self._placed.by_slot(slot):
                self._coldness.arrived(view.cgroup, node, len(pages))
        self._coldness.steer(plan, cold, moved.pages)
        steady = EngineState.STEADY if self._looking.resting else EngineState.CONVERGING
        return self._publish(topology, steady, plan.held, plan)

    def _glance(self, now: float) -> None:
        """All of a round at rest, most of the time: look for a change of the hot set."""
        if self._looking.glance(now, self._heat):
            self._look_anew()

    def _look_anew(self) -> None:
        """The hot set has changed."""
        self._heat.doubt(self._clock())
        self._coldness.begin_anew()
        self._source.steer(self._looking.effort)

    def _steer_sampling(self, topology: Topology, plan: Plan, moved: Moved | None = None) -> None:
        if self._looking.steer(topology, plan, moved):
            return self._look_anew()
        self._source.steer(self._looking.effort)

    def _observe_topology(self, now: float) -> Topology:
        if not self._pace.topology.due(now):
            try:
                return refresh_free(self._root, self._topology)
            except GoneError:
                log.info("a node is gone: reading the topology again")
        topology = read_topology(self._root)
        if topology.tiered and not self._lacking:
            self._settings.look(self._source.name)
        self._pace.topology.done(now, self._looking.resting)
        return topology

    def _moving_seconds(self, looked: float = 0.0) -> float:
        """looked: seconds of the round that are over."""
        return min(max(MOVE_SHARE * self._policy.engine.round, MOVE_RATIO * looked), LONGEST_WORK)

    def _split(self, topology: Topology, engine: EnginePolicy) -> None:
        """Split huge pages, only where DRAM is short, and only when moving is allowed."""
        if not (engine.huge_pages and self._splitter.available and engine.mode is EngineMode.PLACE):
            return
        short = planner.short_of_room(topology.dram, engine.dram_floor)
        if not short:
            return
        slow = frozenset(node.number for node in topology.slow)
        resting = self._looking.resting
        views, seconds = self._placed.views, self._moving_seconds()
        split = self._splitter.split(views, short, slow, seconds, self._rebuilder, resting=resting)
        self._count(huge_pages_split=split)

    def _rebuild(
        self, plan: Plan, moved: Moved, cold: tuple[ColdStock, ...], topology: Topology, seconds: float
    ) -> int:
        """Returns how many huge pages were made."""
        floor = self._policy.engine.dram_floor
        allowed = Allowance(floor, self._looking.take_passes(), int(self._bucket.tokens), seconds)
        rebuilt = self._rebuilder.rebuild(plan, moved, cold, topology, allowed)
        self._bucket.take(rebuilt.bytes)
        self._count(huge_pages_rebuilt=rebuilt.huge_pages, demoted_pages=rebuilt.demoted)
        return rebuilt.huge_pages

    def _account(self, moved: Moved) -> None:
        self._bucket.take(moved.pages * PAGE_SIZE)
        self._classes.account(moved)
        self._count(
            promoted_pages=moved.promoted.carried,
            demoted_pages=moved.down,
            refused_pages=moved.promoted.refused,
            deferred_pages=moved.promoted.deferred,
            already_there_pages=moved.promoted.already_there,
            move_seconds=moved.seconds,
        )

    def _count(self, **amounts: float) -> None:
        changed = {name: getattr(self._counters, name) + amount for name, amount in amounts.items()}
        self._counters = replace(self._counters, **changed)

    def _publish(
        self, topology: Topology, engine: EngineState, reason: str, plan: Plan | None = None
    ) -> None:
        now = self._clock()
        self._count(rounds=1, round_seconds=now - self._began)
        engine, reason = self._holding.shown(engine, reason, now)
        cgroups = {view.cgroup for view in self._placed.views}
        dram, slow = ({node.number for node in nodes} for nodes in (topology.dram, topology.slow))
        held = read_held(self._root, cgroups, dram)
        self._looking.measure(held.mapped, read_mapped(self._root, slow), topology.cpus)
        moved = self._counters.moved_pages - self._state.counters.moved_pages
        cost = read_own_cost() or OwnCost(self._state.own_cpu_seconds, self._state.own_resident_bytes)
        elapsed = now - self._state.monotonic if self._state.monotonic else 0.0
        self._state = replace(
            self._state,
            engine=engine,
            reason=reason,
            missing=(*self._missing, *self._settings.missing),
            topology=topology,
            blocks=self._blocks.follow(topology),
            counters=self._counters,
            plan=plan_lines(plan) if plan else (),
            classes=self._classes.states,
            fates={view.id.pid: told for view in self._placed.views if (told := self._executor.told(view))},
            processes=len(self._placed),
            cgroups=len(cgroups),
            dram_bytes=held.dram,
            slow_bytes=held.slow,
            bytes_per_second=moved * PAGE_SIZE / elapsed if elapsed > 0 else 0.0,
            own_cpu_seconds=cost.cpu_seconds,
            own_resident_bytes=cost.resident_bytes,
            monotonic=now,
        )
