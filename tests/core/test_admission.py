"""Promises against DRAM: what fits, what is said when it does not, and who comes off short."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierd.core.admission import Admission, admit, promised_size
from tierd.core.classes import DEFAULT_CLASS, DramBound, DramShare, Place, ServiceClass
from tierd.core.policy import GIB, MIB


def gold(name: str = "gold", priority: int = 0) -> ServiceClass:
    return ServiceClass(
        name, dram=DramShare(guaranteed=True, place=Place(5, 11, "classes[0].dram")), priority=priority
    )


def with_min(name: str, priority: int = 0, **bound: float) -> ServiceClass:
    minimum = DramBound(**bound)  # type: ignore[arg-type]
    dram = DramShare(minimum=minimum, place=Place(9, 11, "classes[1].dram"))
    return ServiceClass(name, dram=dram, priority=priority)


BRONZE = ServiceClass("bronze", dram=DramShare(maximum=DramBound(per_cent=10.0)))
POLICY = (gold(), with_min("silver", per_cent=30.0), BRONZE, DEFAULT_CLASS)


def test_what_fits_has_nothing_to_be_said() -> None:
    found = admit(POLICY, {"gold": 6 * GIB, "silver": 20 * GIB, "bronze": GIB}, dram=16 * GIB, floor=GIB)
    assert [(p.service_class.name, p.size, p.kept) for p in found.promises] == [
        ("gold", 6 * GIB, 6 * GIB),
        ("silver", 6 * GIB, 6 * GIB),
    ]
    assert (found.promised, found.available, found.excess) == (12 * GIB, 15 * GIB, 0)
    assert (found.broken, found.problems("t.yaml"), found.alarms()) == ((), (), ())


def test_it_may_fit_exactly() -> None:
    memory = {"gold": 9 * GIB, "silver": 20 * GIB}
    assert not admit(POLICY, memory, dram=16 * GIB, floor=GIB).excess
    assert admit(POLICY, memory, dram=16 * GIB, floor=GIB + 1).excess == MIB
    assert admit(POLICY, {**memory, "gold": 9 * GIB + 1}, dram=16 * GIB, floor=GIB).excess == MIB


def test_too_much_is_an_error_with_its_arithmetic_line_by_line() -> None:
    found = admit(POLICY, {"gold": 12 * GIB, "silver": 20 * GIB}, dram=16 * GIB, floor=512 * MIB)
    assert found.problems("t.yaml") == (
        "t.yaml:9:11: classes[1].dram: the classes are promised 18432 MiB of DRAM, and 15872 MiB can be"
        " promised: lower a min by 2560 MiB, or guarantee DRAM to fewer processes",
        "t.yaml:5:11: classes[0].dram: class gold, guaranteed, all that it has now: 12288 MiB",
        "t.yaml:9:11: classes[1].dram: class silver, min 30% of 20480 MiB: 6144 MiB",
        "t.yaml: promised: 12288 + 6144 = 18432 MiB",
        "t.yaml: can be promised: DRAM 16384 MiB - 512 MiB that stay free = 15872 MiB",
        "t.yaml: too much: 18432 - 15872 = 2560 MiB",
    )


def test_sizes_alone_can_be_too_much_whatever_the_classes_hold() -> None:
    policy = (with_min("a", size=3 * GIB), with_min("b", size=2 * GIB))
    found = admit(policy, {}, dram=4 * GIB, floor=0)
    assert found.excess == GIB
    assert "class b, min 2GiB: 2048 MiB" in found.problems("t.yaml")[2]


def test_what_is_not_known_is_not_counted_and_said() -> None:
    policy = (gold(), with_min("a", per_cent=30.0), with_min("b", size=5 * GIB))
    found = admit(policy, {}, dram=4 * GIB, floor=0)
    assert [promise.size for promise in found.promises] == [None, None, 5 * GIB]
    told = "\n".join(found.problems("t.yaml"))
    assert "class gold, guaranteed, all that it has now: not known yet, not counted" in told
    assert "class a, min 30%: not known yet, not counted" in told
    assert "promised: 5120 = 5120 MiB" in told
    assert not admit(policy[:2], {}, dram=4 * GIB, floor=0).excess


def test_a_share_of_what_is_not_known_is_nothing_when_it_is_zero() -> None:
    assert promised_size(with_min("a", per_cent=0.0), None) == 0


def test_a_share_is_promised_no_more_than_the_class_may_have() -> None:
    share = DramShare(minimum=DramBound(per_cent=50.0), maximum=DramBound(size=GIB))
    found = admit((ServiceClass("a", dram=share),), {"a": 8 * GIB}, dram=GIB // 2, floor=0)
    assert found.promised == GIB
    assert "class a, min 50% of 8192 MiB, but max 1GiB: 1024 MiB" in found.problems("t.yaml")[1]


def test_a_size_is_promised_in_full_before_the_class_has_grown_into_it() -> None:
    assert promised_size(with_min("a", size=GIB), 100 * MIB) == GIB
    assert promised_size(BRONZE, GIB) == 0


def test_a_guaranteed_class_that_outgrows_dram_is_told_with_the_numbers() -> None:
    found = admit(POLICY, {"gold": 18 * GIB, "silver": 10 * GIB}, dram=16 * GIB, floor=GIB)
    assert found.alarms() == (
        "class gold is guaranteed DRAM and has 18432 MiB, of which 15360 MiB fit: there is DRAM 16384 MiB -"
        " 1024 MiB that stay free = 15360 MiB; 3072 MiB of it have no place in DRAM",
        "class silver is to have 3072 MiB, of which 0 MiB fit: there is DRAM 16384 MiB - 1024 MiB that stay"
        " free = 15360 MiB, less gold 15360 MiB that come first; 3072 MiB of it have no place in DRAM",
    )


def test_guaranteed_classes_come_first_then_priority_then_the_order_of_the_policy() -> None:
    policy = (
        with_min("e", size=GIB),
        with_min("c", 5, size=GIB),
        gold("b", -5),
        gold("a"),
        with_min("d", 5, size=GIB),
    )
    found = admit(policy, {"a": GIB, "b": GIB}, dram=3 * GIB + GIB // 2, floor=0)
    assert [p.service_class.name for p in found.promises] == ["a", "b", "c", "d", "e"]
    assert [p.kept for p in found.promises] == [GIB, GIB, GIB, GIB // 2, 0]
    assert [p.service_class.name for p in found.broken] == ["d", "e"]


def test_a_floor_above_dram_leaves_nothing_to_promise() -> None:
    found = admit((gold(),), {"gold": MIB}, dram=GIB, floor=2 * GIB)
    assert (found.available, found.excess) == (0, MIB)
    assert "DRAM 1024 MiB - 1024 MiB that stay free = 0 MiB" in found.problems("t.yaml")[3]


def test_a_hostile_file_name_stays_on_its_line() -> None:
    found = admit((gold(),), {"gold": GIB}, dram=0, floor=0)
    assert all(line.isprintable() for line in found.problems("a\n.yaml"))


SIZES = st.integers(0, 1 << 42)
BOUNDS = st.one_of(
    st.builds(DramBound, size=SIZES),
    st.builds(DramBound, per_cent=st.integers(0, 10_000).map(lambda hundredths: hundredths / 100)),
)
SHARES = st.one_of(
    st.just(DramShare(guaranteed=True)),
    st.builds(DramShare, minimum=st.none() | BOUNDS, maximum=st.none() | BOUNDS),
)
CLASSES = st.lists(st.tuples(SHARES, st.integers(-3, 3)), max_size=6).map(
    lambda found: tuple(
        ServiceClass(f"c{i}", dram=share, priority=priority) for i, (share, priority) in enumerate(found)
    )
)
ADMISSIONS = st.builds(
    lambda classes, memory, dram, floor: admit(
        classes,
        {c.name: held for c, held in zip(classes, memory, strict=False) if held is not None},
        dram=dram,
        floor=floor,
    ),
    CLASSES,
    st.lists(st.none() | SIZES, min_size=6, max_size=6),
    SIZES,
    st.integers(0, 1 << 40),
)


@given(ADMISSIONS)
def test_no_more_is_kept_than_there_is_or_was_promised(found: Admission) -> None:
    kept = sum(promise.kept for promise in found.promises)
    assert kept == min(found.promised, found.available)
    assert found.available <= max(0, found.dram - found.floor)
    for promise in found.promises:
        assert 0 <= promise.kept <= (promise.size or 0)


@given(ADMISSIONS)
def test_the_excess_is_what_comes_off_short_and_each_case_is_told(found: Admission) -> None:
    assert found.excess == sum(promise.short for promise in found.promises)
    assert bool(found.excess) == bool(found.broken) == bool(found.alarms()) == bool(found.problems("t"))
    assert len(found.alarms()) == len(found.broken)
    # whoever comes after one that comes off short gets nothing
    if found.broken:
        after = found.promises[found.promises.index(found.broken[0]) + 1 :]
        assert all(promise.kept == 0 for promise in after)


@given(ADMISSIONS)
def test_the_lines_add_up(found: Admission) -> None:
    lines = found.problems("t")
    if not lines:
        return
    terms, total = re.search(r"promised: ([0-9 +]+) = ([0-9]+) MiB", lines[-3]).groups()  # type: ignore[union-attr]
    assert sum(map(int, terms.split(" + "))) == int(total)
    numbers = re.search(r"DRAM (\d+) MiB - (\d+) MiB that stay free = (\d+) MiB", lines[-2])
    dram, floor, available = map(int, numbers.groups())  # type: ignore[union-attr]
    assert dram - floor == available
    assert lines[-1] == f"t: too much: {total} - {available} = {int(total) - available} MiB"
    sizes = [int(m[1]) for line in lines[1:-3] if (m := re.search(r": (\d+) MiB$", line))]
    assert sum(sizes) == int(total)


@given(CLASSES, st.lists(SIZES, min_size=6, max_size=6), SIZES, st.integers(0, 5), SIZES)
def test_growing_never_makes_room(
    classes: tuple[ServiceClass, ...], memory: list[int], dram: int, which: int, more: int
) -> None:
    held = {f"c{i}": size for i, size in enumerate(memory)}
    before = admit(classes, held, dram=dram, floor=0)
    after = admit(classes, {**held, f"c{which}": memory[which] + more}, dram=dram, floor=0)
    assert after.promised >= before.promised
    assert after.excess >= before.excess


@given(CLASSES, st.integers(0, 1 << 42))
def test_a_promise_is_at_least_what_must_be_kept_now(classes: tuple[ServiceClass, ...], memory: int) -> None:
    for service_class in classes:
        size = promised_size(service_class, memory)
        assert size is not None
        assert size >= service_class.dram.least(memory)
        assert size % MIB == 0


@pytest.mark.parametrize("known", [0, 1, 3])
def test_knowing_more_can_only_add_to_what_is_promised(known: int) -> None:
    policy = (gold(), with_min("a", per_cent=50.0), with_min("b", size=GIB))
    memory = {"gold": GIB, "a": 2 * GIB, "b": GIB}
    some = dict(list(memory.items())[:known])
    assert (
        admit(policy, some, dram=GIB, floor=0).promised <= admit(policy, memory, dram=GIB, floor=0).promised
    )
