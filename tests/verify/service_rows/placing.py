"""A small process whose pages begin on the slow tier, and tierd bringing the hot ones up: that it works, by
the kernel's account of the process's cgroup."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.vm import scenario
from tests.vm.guest import Guest, Region

MIB = 1 << 20
LOAD_MIB, HOT_MIB = 200, 60
PROMOTED = 32 * MIB
"""Of the hot memory, at least: then tierd places pages."""
WITHIN = 180
PROGRAM = "/usr/local/lib/expander_load.py"
OUTPUT = "/run/load.txt"


def policy(region: Region, unit: str = "load.service", more: str = "") -> str:
    """more: sections of the policy, as YAML."""
    return scenario.policy(region, units=[unit], engine="minimum_process: 1MiB") + more


def account(unit: str) -> str:
    """The kernel's account of what a unit's memory lies on, by node."""
    return f"/sys/fs/cgroup/system.slice/{unit}.service/memory.numa_stat"


def start_load(
    guest: Guest, unit: str = "load", size: int = LOAD_MIB, hot: int = HOT_MIB, properties: str = ""
) -> None:
    """Returns once all of its memory is touched, on the slow tier. size, hot: MiB. properties: more
    arguments of systemd-run."""
    guest.put(scenario.SOURCES / "expander_load.py", PROGRAM)
    output = f"/run/{unit}.txt"
    guest.run(
        f"rm -f {output}; systemd-run --quiet --unit={unit} --property=StandardOutput=file:{output}"
        f" --property=CPUWeight=10 {properties} python3 {PROGRAM} 1 {size} {hot}"
    )
    guest.wait_for(f"grep -q ready {output}", timeout=120)


def stop_load(guest: Guest) -> None:
    guest.run("systemctl kill --signal=CONT load; systemctl stop load; systemctl reset-failed", check=False)


def in_dram(guest: Guest, unit: str = "load") -> int:
    """Bytes of the unit's anonymous memory there."""
    words = guest.output(["grep", "^anon ", account(unit)]).split()
    return int(words[1].partition("=")[2])


def wait_promoted(
    guest: Guest, before: int, unit: str = "load", least: int = PROMOTED, within: float = WITHIN
) -> int:
    """Bytes that have come up, once they are enough; raises GuestError when that takes too long."""
    guest.wait_for(
        f"[ $(sed -n 's/^anon N0=\\([0-9]*\\).*/\\1/p' {account(unit)}) -ge {before + least} ]",
        timeout=within,
        interval=1,
    )
    return in_dram(guest, unit) - before


@contextlib.contextmanager
def placing(guest: Guest, text: str) -> Iterator[int]:
    """tierd at work by this policy, which names load.service; gives the bytes that have come up so far. The
    load, and tierd, are stopped at the end."""
    guest.write(scenario.POLICY, text)
    try:
        start_load(guest)
        before = in_dram(guest)
        scenario.start_tierd(guest)
        yield wait_promoted(guest, before)
    finally:
        # leniently: the package may be gone by now
        guest.run("systemctl stop tierd", check=False, timeout=120)
        stop_load(guest)
