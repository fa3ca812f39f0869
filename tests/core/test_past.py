"""What the daemon remembers of what the engine did."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tierd.core.model import PAGE_SIZE, Node, Tier, TierKind, Topology
from tierd.core.past import CLASSES, STEP, STEPS, Past
from tierd.core.state import ClassState, Counters, EngineState, State

NODE = Node(0, 100, 30, 0, has_cpus=True, movable_only=False)
TOPOLOGY = Topology((Tier("memory_tier4", TierKind.DRAM, (NODE,)),))


def state(promoted: int = 0, demoted: int = 0, **others: object) -> State:
    counters = Counters(promoted_pages=promoted, demoted_pages=demoted)
    return replace(State(counters=counters, topology=TOPOLOGY, dram_bytes=7, slow_bytes=9), **others)


def test_each_step_has_what_was_moved_in_it_alone() -> None:
    past = Past()
    for second in range(31):
        past.add(state(second * 3, second), 100.0 + second, 1000.0 + second)
    found = past.since(0.0)
    assert [moment.time for moment in found] == [1010.0, 1020.0, 1030.0]
    assert {moment.promoted for moment in found} == {30 * PAGE_SIZE}
    assert {moment.demoted for moment in found} == {10 * PAGE_SIZE}
    assert (found[0].dram, found[0].slow, found[0].tiers) == (7, 9, {"memory_tier4": (70, 100)})
    assert past.since(1010.0) == found[1:]


def test_nothing_is_remembered_before_the_first_step_is_over() -> None:
    past = Past()
    past.add(state(5), 0.0, 1000.0)
    past.add(state(9), STEP - 0.01, 1009.0)
    assert past.since(0.0) == ()
    past.add(state(9, engine=EngineState.STEADY), STEP, 1010.0)
    (moment,) = past.since(0.0)
    assert (moment.state, moment.promoted) == (EngineState.STEADY, 4 * PAGE_SIZE)


def test_a_clock_that_is_set_back_costs_no_steps() -> None:
    past = Past()
    for number in range(4):
        past.add(state(), number * STEP, 1000.0 - 100 * number)
    assert len(past.since(0.0)) == 3


@pytest.mark.parametrize("number", [STEPS, STEPS + 1, 2 * STEPS])
def test_what_is_old_is_forgotten(number: int) -> None:
    past = Past()
    for step in range(number + 1):
        past.add(state(), step * STEP, float(step))
    found = past.since(-1.0)
    assert (len(found), found[-1].time) == (STEPS, float(number))


def test_so_many_classes_are_remembered() -> None:
    past = Past()
    classes = tuple(ClassState(f"c{n}", dram_bytes=n, slow_bytes=2 * n) for n in range(CLASSES + 5))
    for step in range(2):
        past.add(state(classes=classes), step * STEP, 1.0)
    (moment,) = past.since(0.0)
    assert list(moment.classes) == [f"c{n}" for n in range(CLASSES)] and moment.classes["c3"] == (3, 6)
