"""Placing by other sources than hint faults, in a whole server: DAMON, and soft-dirty bits."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.vm import scenario
from tests.vm.guest import Guest
from tests.vm.scenario import CASES, Case, Load
from tests.vm.test_settings import BALANCING, Server, differences

pytestmark = [pytest.mark.one_kernel, pytest.mark.slow, pytest.mark.accessed_bits]

# 400 of 2400 MiB in pieces that regions can tell apart
REGIONS = Case("regions", 32 << 10)
SECONDS = 90
DAMON = "/sys/kernel/mm/damon/admin/kdamonds"
STAT = "/sys/module/damon_stat/parameters/enabled"
ONLY_DAMON = "Restart=no\nEnvironment=TIERD_SOURCE=DAMON"
SOFT_DIRTY = (
    'Restart=no\nEnvironment="TIERD_SOURCE=soft-dirty bits"\n'
    "AmbientCapabilities=CAP_DAC_OVERRIDE\nCapabilityBoundingSet=CAP_DAC_OVERRIDE"
)
BLIND = "/usr/local/lib/blind.py"
# The daemon as installed, with page faults of which it reads nothing.
WITHOUT = """\
import sys
sys.path.insert(0, "/usr/lib/python3/dist-packages")
from tierd.kernel.hint_faults import HintFaults
from tierd.service.sources import NoSource
HintFaults.read = lambda source: NoSource().read()
from tierd.__main__ import main
sys.exit(main())
"""
FALL_BACK = f"Restart=no\nExecStart=\nExecStart=/usr/bin/python3 -I {BLIND}"


@pytest.fixture(scope="module")
def server(own_guest: Guest) -> Iterator[Server]:
    """Slow memory online, tierd stopped, the policy in mode place, DAMON as the kernel has it."""
    if own_guest.run(f"test -d {DAMON}", check=False).returncode:
        pytest.skip("this kernel has no DAMON")
    scenario.make_memory(own_guest, own_guest.region())
    own_guest.write(BLIND, WITHOUT)
    yield Server(own_guest)


@pytest.fixture
def free(server: Server) -> Iterator[Server]:
    """DAMON in nobody's use."""
    server.guest.run(f"test ! -e {STAT} || echo N > {STAT}")
    yield server
    server.no_drop_in()


@pytest.fixture
def load(server: Server) -> Iterator[Load]:
    running = Load(server.guest, REGIONS)
    running.start()
    yield running
    running.stop()


def monitors(server: Server) -> str:
    return server.read(f"{DAMON}/nr_kdamonds")


def status(server: Server) -> str:
    return " ".join(server.guest.output("tierctl status").split())


def test_damon_in_use_is_left_alone_and_named(server: Server) -> None:
    if server.guest.run(f"grep -q Y {STAT}", check=False).returncode:
        pytest.skip("nobody uses DAMON on this kernel")
    before = server.settings()
    server.drop_in(ONLY_DAMON)
    server.start()
    text = status(server)
    assert "Source: none" in text and "in use by damon_stat" in text and f"echo N > {STAT}" in text
    server.stop()
    server.no_drop_in()
    assert differences(before, server.settings()) == {}


@pytest.mark.parametrize("case", [REGIONS, CASES["B"], CASES["A"]], ids=lambda case: case.name)
def test_what_damon_brings_to_dram(free: Server, case: Case) -> None:
    """Figures; regions of 2 MiB and less among cold ones (cases B and A) are more than it can tell apart."""
    before = free.settings()
    free.drop_in(ONLY_DAMON)
    load = Load(free.guest, case)
    load.start()
    time.sleep(15)
    try:
        ready = scenario.start_tierd(free.guest)
        assert monitors(free) == "16" and free.read(BALANCING) == before[BALANCING]
        time.sleep(SECONDS + load.report_every)
        text = status(free)
        pid = free.guest.output("pgrep -x workload").strip()
        watched = free.guest.output(f"cat {DAMON}/*/contexts/0/targets/0/pid_target").split()
    finally:
        scenario.stop_tierd(free.guest)
        samples = load.stop()
    first, last = scenario.score_at(samples, ready), scenario.score_at(samples, ready + SECONDS)
    print(f"case {case.name}: {first.score:.3f} of ideal before, {last.score:.3f} after {SECONDS} s\n{text}")
    print(*(f"{sample.time - ready:.0f}:{sample.score:.3f}" for sample in samples))
    assert "Source: DAMON" in text and "hint faults (TIERD_SOURCE names another)" in text
    assert pid in watched
    assert last.score > first.score - 0.05, "does no harm"
    if case is REGIONS:
        assert last.score > 0.9 > first.score + 0.2
    assert differences(before, free.settings()) == {}


def test_damon_is_given_back_when_hint_faults_are_used(free: Server, load: Load) -> None:
    before = free.settings()
    free.start()
    assert "Source: hint faults" in status(free)
    assert monitors(free) == "0" and free.read(BALANCING) == "2"
    free.stop()
    assert differences(before, free.settings()) == {}


def test_hint_faults_that_see_nothing_leave_the_place_to_damon(free: Server, load: Load) -> None:
    before = free.settings()
    free.drop_in(FALL_BACK)
    free.start()
    text = status(free)
    assert "Source: DAMON" in text and "instead of hint faults (it delivered nothing" in text
    assert "instead of hint faults" in free.journal()
    assert monitors(free) == "16" and free.read(BALANCING) == before[BALANCING]
    free.stop()
    assert differences(before, free.settings()) == {}


def test_after_a_kill_the_monitors_are_gone(free: Server, load: Load) -> None:
    before = free.settings()
    free.drop_in(ONLY_DAMON)
    free.start()
    free.guest.wait_for(f"grep -q on {DAMON}/*/state", timeout=60)
    free.kill()
    free.guest.wait_for("systemctl is-failed tierd", timeout=60)
    assert differences(before, free.settings()) == {}


def test_soft_dirty_bits_take_a_drop_in(free: Server, load: Load) -> None:
    before = free.settings()
    free.drop_in(SOFT_DIRTY)
    free.start()
    assert "Source: soft-dirty bits" in status(free) and "writes only" in status(free)
    assert monitors(free) == "0" and free.read(BALANCING) == before[BALANCING]
    # a pass waits a hundred times as long as the one before took, and emulated ones take long
    until = time.monotonic() + 240
    while (samples := free.status()["counters"]["samples"]) <= 10_000 and time.monotonic() < until:
        time.sleep(5)
    assert samples > 10_000
    free.stop()
    assert differences(before, free.settings()) == {}
