"""Two sockets: pages go up to the DRAM near the threads that use them, and down to the PMEM near that."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.verify.table import Figure, Row, Stage
from tests.vm import machine, scenario
from tests.vm.guest import Guest
from tests.vm.machine import Machine
from tests.vm.scenario import Case, Load, Sample

MIB = 1 << 20
SOCKETS = (0, 1)
DRAM_MIB, PMEM_MIB = 768, 1026
BALLAST_MIB = 1300
"""Touched first and never used again: it fills the DRAM of both sockets, so that the loads begin on PMEM."""
LOAD_MIB, HOT_MIB = 500, 100
SECONDS = 90.0
NEAR = 0.9


@dataclass(frozen=True)
class _Socket:
    """One socket before and after. load: reports of what its CPU runs, in which only its own DRAM counts as
    a hit. left, came: bytes of the ballast that left its DRAM, and that came to its PMEM."""

    before: Sample
    after: Sample
    left: int
    came: int

    @property
    def kept_near(self) -> float:
        """Of what left DRAM, the share that is on the PMEM of the same socket."""
        return min(self.came, self.left) / max(self.left, self.came, 1)

    @property
    def holds(self) -> bool:
        began_far = self.before.hit < 0.5 * self.after.hit
        return began_far and self.after.score >= NEAR and self.left > 32 * MIB and self.kept_near >= NEAR


def two_sockets(kernel: str) -> Row:
    def measure_row(stage: Stage) -> Figure:
        stage.close()
        shape = Machine(kernel=kernel, sockets=len(SOCKETS), dram=DRAM_MIB, pmem=(PMEM_MIB, PMEM_MIB))
        with machine.boot(shape) as guest:
            guest.install_tierd(stage.package())
            found = _play(guest)
        text = "; ".join(
            f"socket {number}: {one.after.score:.3f} of ideal in its own DRAM, "
            f"{one.before.score:.3f} before, "
            f"{one.left // MIB} MiB went down, {one.kept_near:.0%} of it to its own PMEM"
            for number, one in enumerate(found)
        )
        values = {
            "kernel": kernel,
            "score": [one.after.score for one in found],
            "score_before": [one.before.score for one in found],
            "bytes_demoted": [one.left for one in found],
            "demoted_near": [one.kept_near for one in found],
        }
        return Figure(all(one.holds for one in found), text, values)

    return Row(
        f"two-sockets-{kernel}",
        f"two sockets, a load on each, {SECONDS:g} s after the start, Linux {kernel}",
        f"{NEAR} of ideal in the DRAM near the load, and {NEAR:.0%} of what goes down on the PMEM near that",
        measure_row,
    )


def _play(guest: Guest) -> list[_Socket]:
    regions = [guest.prepare_labels(f"nmem{number}") for number in SOCKETS]
    units = ["ballast.service", *(f"load{number}.service" for number in SOCKETS)]
    guest.write(scenario.POLICY, scenario.policy(*regions, units=units))
    for number in SOCKETS:
        guest.run(f"systemctl start tierd-convert@pmem{number}", timeout=180)
    _fill(guest)
    loads = []
    for number in SOCKETS:
        arguments = ("--size", str(LOAD_MIB), "--hot", str(HOT_MIB), "--dram-nodes", str(1 << number))
        load = Load(guest, Case("A", 64, extra=arguments), unit=f"load{number}")
        load.start()
        loads.append(load)
    for number, load in enumerate(loads):
        # the CPU, not the memory: a policy of its own would keep the pages where they are
        guest.run(f"systemctl show -P MainPID {load.unit} | xargs taskset -a -p -c {number}")
    held = _ballast(guest)
    time.sleep(2 * loads[0].report_every)
    before = [load.samples()[-1] for load in loads]
    scenario.start_tierd(guest)
    try:
        time.sleep(SECONDS)
        after = [load.samples()[-1] for load in loads]
        now = _ballast(guest)
    finally:
        scenario.stop_tierd(guest)
    pmem = len(SOCKETS)
    return [_Socket(before[n], after[n], held[n] - now[n], now[pmem + n] - held[pmem + n]) for n in SOCKETS]


def _fill(guest: Guest) -> None:
    """Start the ballast, and wait until all of it is there."""
    guest.run(
        "systemd-run --quiet --unit=ballast python3 -c "
        f"'import time; held = bytearray(b\"x\") * ({BALLAST_MIB} << 20); time.sleep(1e9)'"
    )
    guest.wait_for(
        "[ $(systemctl show -P MemoryCurrent ballast) -ge $((" + str(BALLAST_MIB) + " << 20)) ]", timeout=300
    )


def _ballast(guest: Guest) -> dict[int, int]:
    """Bytes of the ballast on each node, by the kernel's account."""
    words = guest.output(
        "grep '^anon ' /sys/fs/cgroup/system.slice/ballast.service/memory.numa_stat"
    ).split()
    return {int(node[1:]): int(amount) for node, amount in (word.split("=") for word in words[1:])}
