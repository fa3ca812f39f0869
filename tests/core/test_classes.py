"""What a class may and must have of DRAM, and how a rule is put into words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierd.core.classes import BUILT_IN, ClassRule, DramBound, DramShare, Place, ServiceClass
from tierd.core.policy import GIB, MIB, Policy

BOUNDS = st.one_of(
    st.builds(DramBound, size=st.integers(0, 1 << 40)),
    st.builds(DramBound, per_cent=st.integers(0, 10_000).map(lambda hundredths: hundredths / 100)),
)
SHARES = st.one_of(
    st.just(DramShare(guaranteed=True)),
    st.builds(DramShare, minimum=st.none() | BOUNDS, maximum=st.none() | BOUNDS),
)


@pytest.mark.parametrize(
    ("share", "least", "most"),
    [
        (DramShare(), 0, 10 * GIB),
        (DramShare(guaranteed=True), 10 * GIB, 10 * GIB),
        (DramShare(minimum=DramBound(per_cent=30.0)), 3 * GIB, 10 * GIB),
        (DramShare(minimum=DramBound(size=2 * GIB)), 2 * GIB, 10 * GIB),
        (DramShare(minimum=DramBound(size=20 * GIB)), 10 * GIB, 10 * GIB),
        (DramShare(maximum=DramBound(per_cent=10.0)), 0, GIB),
        (DramShare(maximum=DramBound(size=0)), 0, 0),
        (DramShare(minimum=DramBound(per_cent=30.0), maximum=DramBound(size=GIB)), GIB, GIB),
        (DramShare(minimum=DramBound(size=GIB), maximum=DramBound(per_cent=20.0)), GIB, 2 * GIB),
    ],
)
def test_what_a_class_of_10_gib_must_and_may_have(share: DramShare, least: int, most: int) -> None:
    assert (share.least(10 * GIB), share.most(10 * GIB)) == (least, most)


@given(SHARES, st.integers(0, 1 << 45))
def test_a_class_never_must_have_more_than_it_may_and_may_no_more_than_it_holds(
    share: DramShare, memory: int
) -> None:
    assert 0 <= share.least(memory) <= share.most(memory) <= memory


def test_a_share_counts_hundredths_exactly() -> None:
    assert DramBound(per_cent=0.07).of(10_000) == 7
    assert DramBound(per_cent=33.33).of(10_000 * MIB) == 3333 * MIB
    assert DramBound(per_cent=100.0).of((1 << 62) + 1) == (1 << 62) + 1


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (ClassRule(unit="gold.slice"), "unit: gold.slice"),
        (ClassRule(cgroup="/a/*"), 'cgroup: "/a/*"'),
        (ClassRule(user="postgres"), "user: postgres"),
        (ClassRule(user=0), "user: 0"),
        (ClassRule(command="qemu-*"), 'command: "qemu-*"'),
    ],
)
def test_a_rule_reads_as_in_the_policy(rule: ClassRule, words: str) -> None:
    assert rule.words == words


def test_the_longest_rule_is_one_short_line() -> None:
    assert len(ClassRule(cgroup="/" + "a" * 1023).words) <= 120


def test_bounds_read_as_in_the_policy() -> None:
    assert DramBound(size=2 * GIB).words == "2GiB"
    assert DramBound(per_cent=12.5).words == "12.5%"


def test_where_a_class_stands_makes_it_no_other() -> None:
    here, there = Place(3, 5, "classes[0]"), Place(9, 5, "classes[1]")
    rule = ClassRule(unit="a.slice")
    assert ServiceClass("a", (rule,), place=here) == ServiceClass("a", (rule,), place=there)
    assert ClassRule(unit="a.slice", place=here) == rule
    assert hash(ClassRule(unit="a.slice", place=here)) == hash(rule)
    assert DramShare(place=here) == DramShare()
    assert ClassRule(user="0") != ClassRule(user=0)


def test_a_place_is_told_as_other_problems_are() -> None:
    assert Place(3, 5, "classes[0].dram").told("t.yaml", "no") == "t.yaml:3:5: classes[0].dram: no"
    assert BUILT_IN.told("t\n.yaml", "no") == "t\\n.yaml: no"


def test_every_policy_has_the_class_of_the_rest() -> None:
    assert [service_class.name for service_class in Policy().classes] == ["default"]
