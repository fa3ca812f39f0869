"""Three equal workloads in three slices, each of a class, and what each has, every second, by the kernel."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from tests.verify.table import Stage
from tests.vm import scenario
from tests.vm.guest import Guest, Region
from tests.vm.scenario import Case, Load, Sample

MIB = 1 << 20
NAMES = ("gold", "silver", "bronze")
LOAD_MIB, HOT_MIB = 96, 20
"""Of each workload: together more than DRAM has room for. An emulated server moves less than 10 MiB a second
beside three that spin, and half a minute is asked for."""
ROOM_MIB = 190
"""Of DRAM, for the workloads; the rest of it is reserved for huge pages, which nobody can have."""
SECONDS = 330.0
WITHIN = 30.0
"""After the start of tierd all promises are to hold, and from then on."""
RELOAD_AT = 340.0
RELOAD_SECONDS = 60.0
"""From the reload, which itself takes most of a minute under emulation, to the neighbour."""
NEIGHBOUR_SECONDS = 60
BRONZE_AFTER = 30
"""Per cent of its memory that bronze is promised, and may have, after the reload."""
_HUGE_PAGES = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
_OUTPUT = "/run/classes.txt"
# One process that reads three small files a second: looking must not disturb what is looked at.
_SAMPLER = r"""
while :; do
  read -r up _ < /proc/uptime; line=$up
  for name in gold silver bronze; do
    while read -r kind first second _; do
      [ "$kind" = anon ] && line="$line ${first#N0=} ${second#N1=}"
    done < /sys/fs/cgroup/$name.slice/memory.numa_stat
  done
  echo $line; sleep 1
done
"""


@dataclass(frozen=True)
class Second:
    """time: on the guest's clock. dram, slow: bytes of anonymous memory of each class, by the kernel."""

    time: float
    dram: Mapping[str, int]
    slow: Mapping[str, int]

    def share(self, name: str) -> float:
        return self.dram[name] / max(1, self.dram[name] + self.slow[name])


@dataclass(frozen=True)
class Played:
    """began: when tierd was ready; reloaded, neighbour: when the other policy was in force, and when one
    began to take all memory there is; all on the guest's clock. loads: reports of the workloads."""

    began: float
    reloaded: float
    neighbour: float
    seconds: list[Second]
    loads: Mapping[str, list[Sample]]

    def between(self, first: float, last: float) -> list[Second]:
        return [second for second in self.seconds if first <= second.time < last]


def policy(region: Region, bronze: str = "max: 10%") -> str:
    """bronze: what it has of DRAM."""
    units = [f"{name}.slice" for name in NAMES]
    return scenario.policy(region, units=[*units, "neighbour.service"]) + (
        "classes:\n"
        "  - {name: gold, match: [{unit: gold.slice}], dram: guaranteed}\n"
        "  - {name: silver, match: [{unit: silver.slice}], dram: {min: 30%}, priority: 10}\n"
        f"  - {{name: bronze, match: [{{unit: bronze.slice}}], dram: {{{bronze}}}}}\n"
    )


def run(stage: Stage, kernel: str) -> Played:
    """All of it, once on each kernel."""

    def play() -> Played:
        guest, region = stage.ready(kernel)
        return _play(guest, region)

    return stage.once((kernel, "classes"), play)


def _play(guest: Guest, region: Region) -> Played:
    guest.write(scenario.POLICY, policy(region))
    loads = {name: _load(guest, name) for name in reversed(NAMES)}
    for name in NAMES:  # three that spin would leave two emulated CPUs no time for anything else
        guest.run(f"systemctl set-property --runtime {name}.slice CPUWeight=10")
    _leave_room(guest)
    for load in loads.values():  # who comes last finds DRAM full: gold begins on the slow tier
        load.start()
    guest.run(
        f"rm -f {_OUTPUT}; systemd-run --quiet --expand-environment=no --unit=sampler"
        f" --property=StandardOutput=file:{_OUTPUT} bash -c '{_SAMPLER}'"
    )
    neighbour = scenario.put_program(guest, "allocator")
    try:
        began = scenario.start_tierd(guest)
        _wait_until(guest, began + RELOAD_AT)
        guest.write(scenario.POLICY, policy(region, f"min: {BRONZE_AFTER}%, max: {BRONZE_AFTER}%"))
        guest.run("systemctl reload tierd", timeout=120)
        reloaded = _now(guest)
        _wait_until(guest, reloaded + RELOAD_SECONDS)
        hostile = _now(guest)
        guest.run(
            f"systemd-run --quiet --wait --unit=neighbour {neighbour} --size 8000 --rate 400"
            f" --duration {NEIGHBOUR_SECONDS}",
            check=False,  # it may be killed for want of memory, which is its own doing
            timeout=NEIGHBOUR_SECONDS + 240,
        )
    finally:
        scenario.stop_tierd(guest)
        guest.run("systemctl stop sampler")
        reports = {name: load.stop() for name, load in loads.items()}
        guest.run(f"echo 0 > {_HUGE_PAGES}")
    return Played(began, reloaded, hostile, _seconds(guest), reports)


def _leave_room(guest: Guest) -> None:
    # page cache is room as well, since the kernel drops it before it goes to the slow tier
    guest.run("sync; echo 3 > /proc/sys/vm/drop_caches")
    free = int(guest.output("awk '/MemFree/ {print int($4 / 1024)}' /sys/devices/system/node/node0/meminfo"))
    guest.run(f"echo 1 > /proc/sys/vm/compact_memory; echo {(free - ROOM_MIB) // 2} > {_HUGE_PAGES}")


def _load(guest: Guest, name: str) -> Load:
    arguments = ("--size", str(LOAD_MIB), "--hot", str(HOT_MIB))
    return Load(guest, Case("A", 64, extra=arguments), unit=name, slice=f"{name}.slice")


def _now(guest: Guest) -> float:
    return float(guest.output("cut -d' ' -f1 /proc/uptime"))


def _wait_until(guest: Guest, moment: float) -> None:
    while (left := moment - _now(guest)) > 0:
        time.sleep(min(left, 10))


def _seconds(guest: Guest) -> list[Second]:
    found = []
    for line in guest.output(f"cat {_OUTPUT}").splitlines():
        words = line.split()
        if len(words) == 1 + 2 * len(NAMES):
            dram = dict(zip(NAMES, map(int, words[1::2]), strict=True))
            slow = dict(zip(NAMES, map(int, words[2::2]), strict=True))
            found.append(Second(float(words[0]), dram, slow))
    return found
