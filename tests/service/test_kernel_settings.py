"""Settings that tierd lives by, and that somebody changes while it runs: named once, and not fought."""

from __future__ import annotations

import pytest

from tests.kernel.fixtures.simulated import SimulatedKernel
from tests.service import engine_bench
from tests.service.test_skipped_rounds import Watched
from tierd.core.state import MissingFeature
from tierd.service import kernel_settings
from tierd.service.events import FEATURE_MISSING, FEATURE_RETURNED
from tierd.service.kernel_settings import BALANCING, EVENTS, GENERATIONS, RATE_LIMIT

fake = engine_bench.fake

BALANCING_FILE = "proc/sys/kernel/numa_balancing"
SETTINGS = [
    (BALANCING_FILE, "2", "0", BALANCING),
    (BALANCING_FILE, "2", "1", BALANCING),
    ("proc/sys/kernel/numa_balancing_promote_rate_limit_MBps", "0", "65536", RATE_LIMIT),
    ("sys/kernel/mm/lru_gen/enabled", "0x0007", "0x0000", GENERATIONS),
]


@pytest.mark.parametrize(("file", "good", "bad", "missing"), SETTINGS)
def test_a_setting_that_is_taken_away_is_named_once_and_when_it_returns(
    fake: SimulatedKernel, file: str, good: str, bad: str, missing: MissingFeature
) -> None:
    where = fake.machine.put(file, f"{good}\n")
    bench = Watched(fake)
    bench.run(10)
    assert bench.state.missing == ()
    where.write_text(f"{bad}\n")
    bench.run(60)
    assert bench.state.missing == (missing,)
    assert where.read_text().strip() == bad, "it is not fought over"
    where.write_text(f"{good}\n")
    bench.run(60)
    assert bench.state.missing == ()
    kinds = [event.type for event in bench.events]
    assert (kinds.count(FEATURE_MISSING), kinds.count(FEATURE_RETURNED)) == (1, 1)


@pytest.mark.parametrize(("file", "good", "bad", "missing"), SETTINGS)
def test_what_never_was_as_it_should_be_is_the_helper_s_to_name(
    fake: SimulatedKernel, file: str, good: str, bad: str, missing: MissingFeature
) -> None:
    """It sets the balancing when the engine runs already."""
    fake.machine.put(file, f"{bad}\n")
    bench = Watched(fake)
    bench.run(30)
    assert bench.state.missing == ()


def test_who_looks_in_another_way_needs_no_balancing(fake: SimulatedKernel) -> None:
    where = fake.machine.put(BALANCING_FILE, "2\n")
    bench = Watched(fake)
    bench.source.name = "PEBS"
    bench.run(10)
    where.write_text("0\n")
    bench.run(30)
    assert bench.state.missing == ()


def test_what_cannot_be_read_is_no_news(fake: SimulatedKernel) -> None:
    where = fake.machine.put(BALANCING_FILE, "2\n")
    bench = Watched(fake)
    bench.run(10)
    where.write_text("two\n")
    bench.run(30)
    assert bench.state.missing == ()


CPUS = "sys/devices/system/cpu/online"


@pytest.mark.parametrize("between", ["0\n", "0,2-3\n"])
def test_a_cpu_that_was_offline_has_no_events_any_more(fake: SimulatedKernel, between: str) -> None:
    """The kernel drops them, and does not put them back."""
    online = fake.machine.put(CPUS, "0-1\n")
    bench = Watched(fake)
    bench.run(10)
    assert bench.state.missing == ()
    online.write_text(between)
    bench.run(60)
    online.write_text("0-1\n")
    bench.run(60)
    assert bench.state.missing == (EVENTS,)
    assert [event.type for event in bench.events].count(FEATURE_MISSING) == 1


def test_a_cpu_that_is_offline_needs_no_events(fake: SimulatedKernel) -> None:
    online = fake.machine.put(CPUS, "0-1\n")
    bench = Watched(fake)
    bench.run(10)
    online.write_text("0\n")
    bench.run(60)
    assert bench.state.missing == ()
    online.write_text("0,2\n")
    bench.run(60)
    assert bench.state.missing == (EVENTS,), "a new one"


@pytest.mark.parametrize(("cpus", "missing"), [("0-3", (EVENTS,)), ("0", ())])
def test_a_suspend_takes_all_cpus_but_the_first_offline(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch, cpus: str, missing: tuple[MissingFeature, ...]
) -> None:
    fake.machine.put(CPUS, f"{cpus}\n")
    bench = Watched(fake)
    bench.run(10)
    before = kernel_settings.suspended_seconds()
    monkeypatch.setattr(kernel_settings, "suspended_seconds", lambda: before + 3600)
    bench.run(60)
    assert bench.state.missing == missing
