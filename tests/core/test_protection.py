"""What is done to units so that the memory of guaranteed classes stays in DRAM, and undone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierd.core.protection import STEP, Guard, Step, UnitMemory, plan_protection, topmost, unit_of

DRAM = frozenset({0, 2})
FREE = UnitMemory()
SET = UnitMemory(DRAM, 2 * STEP)


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("/gold.slice", "gold.slice"),
        ("/machine.slice/machine-qemu\\x2d1.scope", "machine-qemu\\x2d1.scope"),
        ("/system.slice/db.service", "db.service"),
        ("/machine.slice/vm.scope/libvirt/vcpu0", ""),
        ("", ""),
    ],
)
def test_the_unit_of_a_cgroup(cgroup: str, unit: str) -> None:
    assert unit_of(cgroup) == unit


def test_what_is_set_for_a_cgroup_holds_for_all_below_it() -> None:
    cgroups = [
        "/gold.slice",
        "/gold.slice/a.service",
        "/gold.slice/b.service",
        "/x.slice",
        "/x.slice/gold.scope",
    ]
    assert topmost(cgroups, lambda cgroup: "gold" in cgroup) == ("/gold.slice", "/x.slice/gold.scope")
    but_one = topmost(cgroups, lambda cgroup: "gold" in cgroup and "b.service" not in cgroup)
    assert but_one == ("/gold.slice/a.service", "/x.slice/gold.scope")
    assert topmost(cgroups, lambda cgroup: False) == ()


def test_a_unit_is_kept_in_dram_and_what_it_holds_is_not_reclaimed() -> None:
    plan = plan_protection({"gold.slice": STEP + 1}, {"gold.slice": FREE}, {}, DRAM)
    assert plan.steps == (
        Step("gold.slice", SET, "it is guaranteed DRAM, and has 16 MiB", Guard(FREE, SET)),
    )
    held = {"gold.slice": Guard(FREE, SET)}
    assert not plan_protection({"gold.slice": 2 * STEP}, {"gold.slice": SET}, held, DRAM).steps
    (more,) = plan_protection({"gold.slice": 2 * STEP + 1}, {"gold.slice": SET}, held, DRAM).steps
    assert more.to.minimum == 3 * STEP and more.guard == Guard(FREE, more.to)


def test_what_was_protected_is_put_back() -> None:
    before = UnitMemory(frozenset(), 77)
    plan = plan_protection({}, {"gold.slice": SET}, {"gold.slice": Guard(before, SET)}, DRAM)
    assert plan.steps == (Step("gold.slice", before, "it is guaranteed DRAM no more", None),)


def test_what_somebody_else_has_set_stays() -> None:
    theirs = UnitMemory(frozenset({2}), 9 * STEP)
    (step,) = plan_protection({"a": 1}, {"a": UnitMemory(frozenset({2}), 0)}, {}, DRAM).steps
    assert step.to == UnitMemory(frozenset({2}), STEP)
    assert not plan_protection({"a": 1}, {"a": theirs}, {}, DRAM).steps
    changed = plan_protection({}, {"a": theirs}, {"a": Guard(FREE, SET)}, DRAM)
    assert changed.forgotten == ("a",) and not changed.steps
    slow = plan_protection({"a": 1}, {"a": UnitMemory(frozenset({0, 1}))}, {}, DRAM)
    assert not slow.steps and "lets it use the nodes 0, 1" in slow.conflicts[0]


def test_units_that_are_gone_are_forgotten() -> None:
    plan = plan_protection({"a": 1}, {}, {"b": Guard(FREE, SET)}, DRAM)
    assert plan.forgotten == ("b",) and not plan.steps and not plan.conflicts


memories = st.builds(UnitMemory, st.frozensets(st.integers(0, 3), max_size=3), st.integers(0, 4 * STEP))
units = st.sampled_from(["a", "b", "c"])


@given(
    st.dictionaries(units, memories), st.lists(st.dictionaries(units, st.integers(0, 5 * STEP)), max_size=5)
)
def test_whatever_is_wanted_in_between_in_the_end_all_is_as_before(
    machine: dict[str, UnitMemory], wishes: list[dict[str, int]]
) -> None:
    now, guards = dict(machine), dict[str, Guard]()
    for wanted in [*wishes, {}]:
        plan = plan_protection(wanted, now, guards, DRAM)
        for step in plan.steps:
            now[step.unit] = step.to
            if step.guard:
                guards[step.unit] = step.guard
            else:
                del guards[step.unit]
        again = plan_protection(wanted, now, guards, DRAM)
        assert not again.steps
    assert now == machine and not guards
