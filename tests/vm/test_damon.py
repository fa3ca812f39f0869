"""Placing by what DAMON sees, in a server whose kernel seems to have no NUMA balancing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vm import scenario
from tests.vm.guest import Guest
from tests.vm.scenario import Case, Load
from tests.vm.test_settings import Server, differences

# 400 of 2400 MiB in pieces that regions can tell apart
CASE = Case("regions", 32 << 10)
SECONDS = 90
DAMON = "/sys/kernel/mm/damon/admin/kdamonds"
STAT = "/sys/module/damon_stat/parameters/enabled"
HELPER = "/root/helper.py"
# The helper as installed, in which what CONFIG_NUMA_BALANCING=n lacks cannot be found.
WITHOUT = """\
import sys
from pathlib import Path
sys.path.insert(0, "/usr/lib/python3/dist-packages")
from tierd.kernel.paths import Root
Root.numa_balancing = property(lambda root: Path("/proc/sys/kernel/none"))
Root.promote_rate_limit = property(lambda root: Path("/proc/sys/kernel/none"))
Root.scan_settings = property(lambda root: Path("/sys/kernel/debug/sched/none"))
from tierd.service.helper import main
sys.exit(main(sys.argv[1:]))
"""
DROP_IN = f"""\
Restart=no
ExecStartPre=
ExecStartPre=+/usr/bin/python3 -I {HELPER} open
ExecStartPost=
ExecStartPost=+/usr/bin/python3 -I {HELPER} begin"""


@pytest.fixture(scope="module")
def server(own_guest: Guest) -> Iterator[Server]:
    """Slow memory online, tierd stopped, the policy in mode place, DAMON in nobody's use."""
    if own_guest.run(f"test -d {DAMON}", check=False).returncode:
        pytest.skip("this kernel has no DAMON")
    scenario.make_memory(own_guest, own_guest.region())
    own_guest.write(HELPER, WITHOUT)
    made = Server(own_guest)
    made.drop_in(DROP_IN)
    yield made


@pytest.fixture
def free(server: Server) -> Server:
    server.guest.run(f"test ! -e {STAT} || echo N > {STAT}")
    return server


def monitors(server: Server) -> str:
    return server.guest.output(f"cat {DAMON}/nr_kdamonds").strip()


def reason(status: dict[str, Any]) -> str:
    return str(status["SourceReason"])


def test_damon_in_use_is_left_alone_and_named(server: Server) -> None:
    if server.guest.run(f"grep -q Y {STAT}", check=False).returncode:
        pytest.skip("nobody uses DAMON on this kernel")
    before = server.settings()
    server.start()
    text = server.guest.output("tierctl status")
    assert "in use by damon_stat" in text and f"echo N > {STAT}" in text
    server.stop()
    assert differences(before, server.settings()) == {}


def test_hot_regions_come_to_dram(free: Server) -> None:
    before = free.settings()
    load = Load(free.guest, CASE)
    load.start()
    time.sleep(15)
    try:
        ready = scenario.start_tierd(free.guest)
        assert monitors(free) == "16"
        time.sleep(SECONDS + load.report_every)
        status = free.guest.output("tierctl status")
        pid = free.guest.output("pgrep -x workload").strip()
        watched = free.guest.output(f"cat {DAMON}/*/contexts/0/targets/0/pid_target").split()
        numa_maps = free.guest.output(f"sort -t= -k2 /proc/{pid}/numa_maps | tail -n 3")
    finally:
        scenario.stop_tierd(free.guest)
        samples = load.stop()
    first, last = scenario.score_at(samples, ready), scenario.score_at(samples, ready + SECONDS)
    print(f"{first.score:.3f} of ideal before, {last.score:.3f} after {SECONDS} s\n{status}\n{numa_maps}")
    print(*(f"{sample.time - ready:.0f}:{sample.score:.3f}" for sample in samples))
    assert "Source: DAMON" in status and "there are no hint faults" in " ".join(status.split())
    assert pid in watched
    assert last.score > 0.9 > first.score + 0.2
    assert differences(before, free.settings()) == {}


def test_after_a_kill_the_monitors_are_gone(free: Server) -> None:
    before = free.settings()
    load = Load(free.guest, CASE)
    load.start()
    free.start()
    free.guest.wait_for(f"grep -q on {DAMON}/*/state", timeout=60)
    free.kill()
    free.guest.wait_for("systemctl is-failed tierd", timeout=60)
    load.stop()
    assert differences(before, free.settings()) == {}
