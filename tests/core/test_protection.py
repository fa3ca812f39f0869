"""What is done to units so that the memory of guaranteed classes stays in DRAM, and undone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierd.core.protection import (
    EVERYTHING,
    STEP,
    Guard,
    Step,
    UnitMemory,
    Wish,
    plan_protection,
    topmost,
    unit_of,
    with_parents,
)

DRAM = frozenset({0, 2})
FREE = UnitMemory()
SET = UnitMemory(DRAM, 2 * STEP)


def all_of(held: int, reason: str = "it is guaranteed DRAM") -> Wish:
    return Wish(held, True, reason=reason)


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
    plan = plan_protection({"gold.slice": all_of(2 * STEP)}, {"gold.slice": FREE}, {}, DRAM)
    assert plan.steps == (Step("gold.slice", SET, "it is guaranteed DRAM", Guard(FREE, SET)),)
    held = {"gold.slice": Guard(FREE, SET)}
    assert not plan_protection({"gold.slice": all_of(2 * STEP)}, {"gold.slice": SET}, held, DRAM).steps
    (more,) = plan_protection({"gold.slice": all_of(3 * STEP)}, {"gold.slice": SET}, held, DRAM).steps
    assert more.to.minimum == 3 * STEP and more.guard == Guard(FREE, more.to)


def test_what_was_protected_is_put_back() -> None:
    before = UnitMemory(frozenset(), 77)
    plan = plan_protection({}, {"gold.slice": SET}, {"gold.slice": Guard(before, SET)}, DRAM)
    assert plan.steps == (Step("gold.slice", before, "it is promised no DRAM any more", None),)


def test_what_somebody_else_has_set_stays() -> None:
    theirs = UnitMemory(frozenset({2}), 9 * STEP)
    (step,) = plan_protection({"a": all_of(1)}, {"a": UnitMemory(frozenset({2}), 0)}, {}, DRAM).steps
    assert step.to == UnitMemory(frozenset({2}), 1)
    assert not plan_protection({"a": all_of(1)}, {"a": theirs}, {}, DRAM).steps
    changed = plan_protection({}, {"a": theirs}, {"a": Guard(FREE, SET)}, DRAM)
    assert changed.forgotten == ("a",) and not changed.steps
    slow = plan_protection({"a": all_of(1)}, {"a": UnitMemory(frozenset({0, 1}))}, {}, DRAM)
    assert not slow.steps and "lets it use the nodes 0, 1" in slow.conflicts[0]


def test_where_a_part_is_promised_nothing_is_reclaimed_and_the_nodes_stay() -> None:
    anywhere = UnitMemory(frozenset({0, 1}), STEP)
    (step,) = plan_protection({"a": Wish(3 * STEP)}, {"a": anywhere}, {}, DRAM).steps
    assert step.to == UnitMemory(frozenset({0, 1}), 3 * STEP)


def test_the_slices_above_need_as_much_as_all_in_them() -> None:
    needs = {
        "/system.slice/db.service": all_of(STEP + 1),
        "/system.slice/system-web.slice/web.service": Wish(5 * STEP),
        "/gold.slice": all_of(1),
    }
    wanted = with_parents(needs)
    assert {unit: (wish.own, wish.below) for unit, wish in wanted.items()} == {
        "db.service": (2 * STEP, 0),
        "web.service": (5 * STEP, 0),
        "system-web.slice": (0, 5 * STEP),
        "system.slice": (0, 7 * STEP),
        "gold.slice": (STEP, 0),
    }
    theirs = {
        "system.slice": UnitMemory(minimum=10 * STEP),
        "system-web.slice": UnitMemory(minimum=EVERYTHING),
    }
    steps = plan_protection(wanted, theirs, {}, DRAM).steps
    assert [(step.unit, step.to, step.reason) for step in steps] == [
        ("system.slice", UnitMemory(minimum=17 * STEP), "units in it are promised DRAM")
    ]
    nested = with_parents({"/a.slice": Wish(9 * STEP), "/a.slice/b.service": all_of(2 * STEP)})
    assert (nested["a.slice"].own, nested["a.slice"].below) == (9 * STEP, 2 * STEP)
    assert (
        with_parents(
            dict(
                reversed(list({"/a.slice": Wish(9 * STEP), "/a.slice/b.service": all_of(2 * STEP)}.items()))
            )
        )
        == nested
    )


def test_units_that_are_gone_are_forgotten() -> None:
    plan = plan_protection({"a": all_of(1)}, {}, {"b": Guard(FREE, SET)}, DRAM)
    assert plan.forgotten == ("b",) and not plan.steps and not plan.conflicts


memories = st.builds(UnitMemory, st.frozensets(st.integers(0, 3), max_size=3), st.integers(0, 4 * STEP))
units = st.sampled_from(["a", "b", "c"])
wishes_of_one = st.builds(Wish, st.integers(0, 5 * STEP), st.booleans(), st.integers(0, 5 * STEP))


@given(st.dictionaries(units, memories), st.lists(st.dictionaries(units, wishes_of_one), max_size=5))
def test_whatever_is_wanted_in_between_in_the_end_all_is_as_before(
    machine: dict[str, UnitMemory], wishes: list[dict[str, Wish]]
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
