"""Tiers and nodes as values."""

from __future__ import annotations

import dataclasses

import pytest

from tierd.core.model import Node, Tier, TierKind, Topology


def node(number: int, total: int = 100, free: int = 40) -> Node:
    return Node(number, total, free, high_watermark=5, has_cpus=number == 0, movable_only=number > 0)


FAST = Tier("memory_tier4", TierKind.DRAM, (node(0), node(1)))
SLOW = Tier("memory_tier22", TierKind.SLOW, (node(2, 1000, 900),))


def test_a_tier_sums_its_nodes_up() -> None:
    assert (FAST.total, FAST.free) == (200, 80)
    assert (Tier("empty", TierKind.SLOW, ()).total, Tier("empty", TierKind.SLOW, ()).free) == (0, 0)


def test_nodes_by_kind() -> None:
    seen = Topology((FAST, SLOW, Tier("memory_tier30", TierKind.SLOW, (node(3),))))
    assert [n.number for n in seen.dram] == [0, 1]
    assert [n.number for n in seen.slow] == [2, 3]


@pytest.mark.parametrize(
    ("tiers", "tiered"),
    [((FAST, SLOW), True), ((FAST,), False), ((SLOW,), False), ((), False)],
)
def test_there_is_something_to_place_only_with_both_kinds(tiers: tuple[Tier, ...], tiered: bool) -> None:
    assert Topology(tiers).tiered is tiered


def test_a_tier_that_lost_its_nodes_is_no_place() -> None:
    assert not Topology((FAST, Tier("memory_tier22", TierKind.SLOW, ()))).tiered


def test_values_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        node(0).free = 7  # type: ignore[misc]
