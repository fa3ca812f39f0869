"""How the engine divides its time between looking and moving, on a simulated kernel whose calls last."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernel.fixtures.simulated import SimulatedKernel
from tests.service import engine_bench
from tests.service.engine_bench import Bench
from tierd.service.moving import Executor, Moved

fake = engine_bench.fake


@pytest.mark.parametrize("seconds, reads", [(0.001, 1), (0.2, 2)])
def test_the_rings_are_read_between_two_calls_when_they_may_have_filled(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch, seconds: float, reads: int
) -> None:
    """Each reading has a price of its own."""
    found: list[int] = []
    read_faults, demote = fake.read_faults, fake.demote

    def read() -> Any:
        found.append(0)
        return read_faults()

    def slow(*arguments: Any, **options: Any) -> None:
        demote(*arguments, **options)
        fake.now += seconds
        demoted.append(len(found))

    demoted: list[int] = []
    monkeypatch.setattr(fake, "read_faults", read)
    monkeypatch.setattr(fake, "demote", slow)
    bench = Bench(fake)
    while not demoted:
        found.clear()
        bench.engine.step()
        fake.now += 0.1
    assert demoted[0] == 1
    assert len(found) == reads


@pytest.mark.parametrize("looking, moving", [(0.1, 0.9), (0.8, 3.2), (30.0, 5.0)])
def test_where_looking_takes_long_so_may_moving(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch, looking: float, moving: float
) -> None:
    """What was found would otherwise wait for one long look after another."""
    allowed: list[float] = []
    read, execute = fake.read_generations, Executor.execute

    def slow(*arguments: Any) -> Any:
        fake.now += looking
        return read(*arguments)

    def noted(executor: Executor, *arguments: Any) -> Moved:
        allowed.append(arguments[-1])
        return execute(executor, *arguments)

    monkeypatch.setattr(fake, "read_generations", slow)
    monkeypatch.setattr(Executor, "execute", noted)
    bench = Bench(fake)
    while not allowed:
        bench.run(1)
    assert allowed[0] == pytest.approx(moving)
    assert bench.state.counters.round_seconds >= looking
