"""Servers that lack from the start what tierd lives by: it says what is lost, and does no harm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from tests.faults.case import COMES_UP, Scene, Seen, figure, row
from tests.verify.service_rows import placing
from tests.verify.settings import kernel_settings
from tests.verify.table import Figure, Row, Stage
from tests.vm import image, scenario
from tests.vm.machine import Machine
from tests.vm.records import PAGE

SECONDS = 60
"""For which the load is watched: placing begins within half of that where it can."""
_STILL = 4 << 20
"""Bytes that may come to DRAM where nothing can be placed: what the process itself goes on to allocate."""

_SAID = "tierctl status; journalctl -o cat -b -u tierd -n 200"
_ON_SLOW = (
    "grep -o ' N1=[0-9]*' /proc/$(systemctl show -P MainPID load)/numa_maps | cut -d= -f2"
    " | awk '{s += $1} END {print s + 0}'"
)


@dataclass(frozen=True)
class Boot:
    """words: what `tierctl status` must say, as a regular expression. lacks: a condition in the guest that
    shows that it lacks it. places: whether pages come up all the same; None: they may."""

    name: str
    catalogue: str
    promise: str
    lacks: str
    words: str
    places: bool | None
    cmdline: tuple[str, ...] = ()
    hmat: bool = True
    kernels: tuple[str, ...] = image.kernel_names()
    recipe: image.Recipe = image.RECIPE


BOOTS = (
    Boot("lockdown", "D10", "debugfs closed by lockdown: told",
         "grep -q '\\[integrity\\]' /sys/kernel/security/lockdown", "debugfs|lru_gen|lockdown", None,
         ("lockdown=integrity",)),
    Boot("psi-off", "D10", "no pressure stall information: told",
         "! cat /proc/pressure/memory", "pressure|PSI", False, ("psi=0",)),
    Boot("memory-controller-off", "E5", "no memory controller: told",
         "! grep -qw memory /sys/fs/cgroup/cgroup.controllers", "lacks memory|memory control", False,
         ("cgroup_disable=memory",)),
    Boot("no-hmat", "B5", "firmware that says nothing of speeds: the slow tier is known by its driver",
         "! ls /sys/firmware/acpi/tables/HMAT", ".", True, hmat=False),
    Boot("cgroup-v1", "E5", "cgroup v1: refused, or told",
         "! grep -q 'cgroup2 /sys/fs/cgroup ' /proc/mounts", "cgroup ?(v1|v2|2)|unified", False,
         ("systemd.unified_cgroup_hierarchy=0",), kernels=("6.1",), recipe=image.BOOKWORM),
)  # fmt: skip


def _measure(boot: Boot, kernel: str, stage: Stage) -> Figure:
    asked = Machine(kernel=kernel, cmdline=boot.cmdline, hmat=boot.hmat, recipe=boot.recipe)
    guest, region = stage.free(asked)
    try:
        scene = Scene(guest, region)
        lacks = guest.run(boot.lacks, check=False).returncode == 0
        scenario.make_memory(guest, region)
        guest.write(scenario.POLICY, scene.policy())
        before = kernel_settings(guest)
        placing.start_load(guest)
        had = _slow_bytes(scene)
        started = guest.run("systemctl start tierd", check=False, timeout=240).returncode == 0
        guest.run(f"sleep {SECONDS}", timeout=SECONDS + 60)
        came = had - _slow_bytes(scene)
        said = guest.run(_SAID, check=False, timeout=120).stdout
        traces = said.count("Traceback")
        scene.end()
        after = kernel_settings(guest)
    finally:
        stage.close()
    faults = [f"{path} is {after.get(path)}, and was {value}" for path, value in before.items()
              if after.get(path) != value]  # fmt: skip
    if not re.search(boot.words, said, re.IGNORECASE):
        faults.append(f"nothing of what is lost in: {said[-300:]}")
    if traces:
        faults.append(f"{traces} tracebacks")
    if boot.places and came < COMES_UP:
        faults.append(f"only {came >> 20} MiB came up")
    if boot.places is False and abs(came) > _STILL:
        faults.append(f"{came >> 20} MiB were moved")
    text = f"{'runs' if started else 'does not start'}, {came >> 20} MiB came up"
    return figure(Seen(int(lacks), faults, text), kernel)


def _slow_bytes(scene: Scene) -> int:
    """Of the load, by its own numa_maps: there may be no accounts of cgroups."""
    return PAGE * int(scene.guest.output(_ON_SLOW))


def rows(kernel: str) -> Iterator[Row]:
    for boot in BOOTS:
        if kernel in boot.kernels:
            measure = partial(_measure, boot, kernel)
            yield row(f"boots-{boot.name}", boot.catalogue, boot.promise, kernel, measure)
