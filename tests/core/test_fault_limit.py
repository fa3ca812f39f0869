"""How much of full sampling a machine may have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierd.core.fault_limit import LEAST_EFFORT, LEAST_FAULTS, MOST_FAULTS, RESTING_PART, FaultLimit

RATES = st.lists(st.tuples(st.floats(0, 1e9), st.booleans()), max_size=60)


def settled(faults_at_full: float, cpus: int, *, resting: bool = False) -> FaultLimit:
    """After a minute in which faults come in proportion to the effort."""
    limit = FaultLimit()
    for _ in range(60):
        limit.update(faults_at_full * limit.effort(resting=resting), cpus, resting=resting)
    return limit


@given(RATES, st.integers(1, 4096))
def test_the_effort_is_a_part_of_all(rounds: list[tuple[float, bool]], cpus: int) -> None:
    limit = FaultLimit()
    for faults, resting in rounds:
        limit.update(faults, cpus, resting=resting)
        assert all(0 < limit.effort(resting=now) <= 1 for now in (True, False))


@pytest.mark.parametrize("cpus", [1, 2, 8, 128])
def test_what_one_process_of_the_testbed_brings_is_no_matter(cpus: int) -> None:
    """The kernel unmaps 69,000 pages a second of it at most, and not all of them are used."""
    assert settled(69_000, cpus).effort(resting=False) == 1


@pytest.mark.parametrize(("faults", "cpus", "most"), [(6e6, 128, MOST_FAULTS), (6e6, 4, LEAST_FAULTS)])
@pytest.mark.parametrize("resting", [True, False])
def test_hundreds_of_processes_are_looked_at_less_hard(
    faults: float, cpus: int, most: int, resting: bool
) -> None:
    """500 of them, of which 10,000 hot pages each are unmapped in each second."""
    if resting:
        faults, most = faults / 64, most * RESTING_PART
    come = faults * settled(faults, cpus, resting=resting).effort(resting=resting)
    assert most / 3 < come <= most


def test_full_sampling_and_rest_have_each_their_own() -> None:
    limit = settled(6e6, 128)
    assert limit.effort(resting=True) == 1 and limit.effort(resting=False) < 0.1


def test_it_looks_hard_again_when_less_is_used() -> None:
    limit = settled(6e6, 128)
    for _ in range(20):
        limit.update(100.0, 128, resting=False)
    assert limit.effort(resting=False) == 1


def test_a_single_round_says_little() -> None:
    limit = FaultLimit()
    limit.update(1e12, 2, resting=False)
    assert limit.effort(resting=False) >= 0.25
    for _ in range(5000):
        limit.update(1e12, 2, resting=False)
    assert limit.effort(resting=False) == LEAST_EFFORT
