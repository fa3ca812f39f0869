"""What an operator is told of the devices."""

from __future__ import annotations

from tierd.core.notices import SeenRegion, notices
from tierd.core.policy import ProvisionMode, ProvisionRequest

MIB = 1 << 20
OURS = SeenRegion("region0", 0xA, 1024 * MIB, 512 * MIB)
NEW = SeenRegion("region1", 0xB, 512 * MIB, 512 * MIB)
APPLY = ProvisionRequest("pmem0", 0xA, None, ProvisionMode.APPLY)


def test_what_is_as_the_policy_says_is_not_mentioned() -> None:
    full = SeenRegion("region2", 0xC, 512 * MIB, 0)
    assert notices([OURS, full], [APPLY], frozenset()) == ()


def test_what_nobody_asks_for_is() -> None:
    assert notices([OURS, NEW], [APPLY], frozenset()) == (
        "region1: 512 MiB free, which no request of the policy names (iset_id 0xb)",
    )
    nameless = SeenRegion("region1", None, 512 * MIB, 0)
    assert notices([nameless], [], frozenset()) == ("region1: 512 MiB of persistent memory without labels",)


def test_what_was_drained_is() -> None:
    (words,) = notices([OURS], [APPLY], frozenset({0xA}))
    assert words.startswith("region0 is drained")


def test_a_request_without_its_region_is() -> None:
    gone = ProvisionRequest("gone", 0xD, None, ProvisionMode.APPLY)
    planned = ProvisionRequest("planned", 0xE, None, ProvisionMode.PLAN)
    assert notices([OURS], [APPLY, gone, planned], frozenset()) == (
        "request gone: no region has iset_id 0xd",
    )
