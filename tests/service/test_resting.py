"""What the engine does while it rests: a glance in most rounds, and all of it where one is not enough."""

from __future__ import annotations

import pytest

from tests.kernel.fixtures import MIB
from tests.kernel.fixtures.simulated import CGROUP, SLOW, SimulatedKernel
from tests.service import engine_bench
from tests.service.engine_bench import HOT, Bench
from tierd.core.model import PAGE_SIZE
from tierd.core.state import EngineState
from tierd.service import engine
from tierd.service.pace import IDLE_ROUND_SECONDS

fake = engine_bench.fake


class Looking(Bench):
    """An engine beside which the kernel unmaps pages."""

    def pass_by(self, seconds: float, unmapped: int = 3000) -> None:
        """Seconds, in each of which the kernel unmaps so many pages."""
        vmstat, end = self.fake.machine.vmstat, self.fake.now + seconds
        while self.fake.now < end:
            waited = self.engine.step()
            self.fake.now += waited
            vmstat["numa_pte_updates"] = vmstat.get("numa_pte_updates", 0) + round(unmapped * waited)
            self.fake.machine.write_vmstat()


class Resting(Looking):
    """One that has come to rest."""

    def __init__(self, kernel: SimulatedKernel) -> None:
        super().__init__(kernel)
        self.pass_by(92, unmapped=20_000)
        assert self.state.engine is EngineState.STEADY and self.source.efforts[-1] < 1


@pytest.fixture
def resting(fake: SimulatedKernel) -> Resting:
    return Resting(fake)


def test_most_rounds_are_a_glance(resting: Resting) -> None:
    before = resting.state.counters.rounds
    resting.pass_by(40)
    assert resting.state.counters.rounds - before == 40 / IDLE_ROUND_SECONDS
    assert resting.state.engine is EngineState.STEADY


def test_a_glance_sees_that_other_pages_are_hot(resting: Resting) -> None:
    rest = resting.source.efforts[-1]
    resting.fake.place(HOT)
    before = resting.state.counters.rounds
    changed = resting.fake.now
    while resting.source.efforts[-1] == rest:
        resting.pass_by(1)
    assert resting.fake.now - changed <= 5 and resting.source.efforts[-1] == 1
    resting.pass_by(2)
    assert resting.state.counters.rounds > before + 1, "then each round is whole"


def seconds_to_rest(fake: SimulatedKernel, unmapped: int) -> float:
    looking, begun = Looking(fake), fake.now
    while not looking.source.efforts or looking.source.efforts[-1] == 1:
        looking.pass_by(1, unmapped)
        assert fake.now - begun < 600, "never"
    return fake.now - begun


def test_page_cache_on_the_slow_nodes_is_no_part_of_a_pass(fake: SimulatedKernel) -> None:
    """Nobody unmaps it, and after some days it is most of what is there."""
    usual = seconds_to_rest(fake, 5000)
    where = fake.machine.root.cgroup / CGROUP.lstrip("/") / "memory.numa_stat"
    text = where.read_text().replace(f"file N0={PAGE_SIZE} N1={PAGE_SIZE}", f"file N0=0 N1={900 << 30}")
    assert str(900 << 30) in text
    where.write_text(text)
    assert seconds_to_rest(fake, 5000) == pytest.approx(usual, abs=2)


def test_what_the_kernel_unmaps_of_others_is_no_part_of_a_pass(fake: SimulatedKernel) -> None:
    """The policy selects one process of many: of ten pages that are unmapped nine are of others."""
    usual = seconds_to_rest(fake, 5000)
    fake.machine.mapped = {SLOW: (2900 * MIB, 100 * MIB)}
    fake.machine.write()
    assert seconds_to_rest(fake, 5000) == pytest.approx(10 * usual, rel=0.2)
    assert seconds_to_rest(fake, 50_000) == pytest.approx(usual, abs=2)


@pytest.mark.parametrize(("faults", "effort"), [(50_000, 1.0), (2_000_000, 0.1)])
def test_where_far_too_much_faults_it_looks_less_hard(
    fake: SimulatedKernel, faults: int, effort: float
) -> None:
    """Of hundreds of processes, each of which the kernel unmaps as fast as one."""
    looking, vmstat = Looking(fake), fake.machine.vmstat
    for _ in range(20):
        come = faults * (looking.source.efforts or [1.0])[-1]
        vmstat["numa_hint_faults"] = vmstat.get("numa_hint_faults", 0) + int(come)
        looking.pass_by(1, unmapped=10)
    assert looking.source.efforts[-1] <= effort
    if effort == 1:
        assert set(looking.source.efforts) == {1.0}


def test_it_does_not_rest_because_a_round_considers_a_part_of_what_is_hot(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is known to be cold, all is hot, and the part is far below a hundredth of DRAM."""
    for name in ("MOST_HOT", "LEAST_HOT"):
        monkeypatch.setattr(engine, name, 256)
    fake.cgroups.clear()
    looking = Looking(fake)
    looking.pass_by(8, unmapped=20_000)
    assert looking.on_dram < HOT / 2 and set(looking.source.efforts) == {1.0}


def test_a_process_that_grows_is_no_change_and_its_new_memory_not_hot(resting: Resting) -> None:
    """DRAM is full, so that what it fills lies on the slow tier; a load that reads its data in does so."""
    made: list[int] = []
    before, looks = resting.fake.promoted, len(resting.source.efforts)
    for _ in range(20):
        made += resting.fake.touch(8000)
        resting.pass_by(1)
    assert all(effort < 1 for effort in resting.source.efforts[looks:]), "it goes on to rest"
    assert resting.fake.promoted == before
    assert all(resting.fake.where[page] == SLOW for page in made)
    resting.fake.hot += made[:HOT]
    resting.pass_by(30)
    assert sum(resting.fake.where[page] != SLOW for page in made[:HOT]) > 0.9 * HOT, "used again it is"


def test_it_rests_when_the_picture_is_right_and_looks_again_when_it_is_not(resting: Resting) -> None:
    assert resting.source.efforts[0] == 1 == max(resting.source.efforts), "first it looks hard"
    rest = resting.source.efforts[-1]
    resting.pass_by(10)
    assert resting.source.efforts[-1] == rest
    resting.fake.place(HOT)
    resting.pass_by(10)
    assert max(resting.source.efforts[-10:]) > rest
    resting.pass_by(30)
    assert resting.on_dram > 0.9 * 2 * HOT
