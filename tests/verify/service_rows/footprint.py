"""What tierd costs while there is nothing for it to do, by the kernel's account of its cgroup."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from tests.verify.service_rows import placing
from tests.verify.table import Figure, Row, Stage
from tests.vm import scenario
from tests.vm.guest import Guest

RESIDENT, CPU, JOURNAL = 80 << 20, 0.005, 1_000_000
"""Bytes; of a core; bytes a day."""
SECONDS, SETTLE = 300, 60
DAY = 24 * 3600
_CGROUP = "/sys/fs/cgroup/tierd.slice/tierd.service"
_ENTRIES = "_SYSTEMD_UNIT=tierd.service + UNIT=tierd.service + SYSLOG_IDENTIFIER=tierd"


@dataclass(frozen=True)
class Idle:
    """resident: bytes of its processes, the larger of the beginning's and the end's. charged: of its cgroup,
    the page cache included. cpu: of a core. journal: bytes a day, as exported. alive: the watchdog has heard
    of it meanwhile."""

    resident: int
    charged: int
    cpu: float
    journal: float
    alive: bool

    @property
    def holds(self) -> bool:
        return self.resident < RESIDENT and self.cpu < CPU and self.journal < JOURNAL and self.alive

    def __str__(self) -> str:
        return (
            f"{self.resident / placing.MIB:.1f} MiB resident, {self.cpu:.2%} of a core,"
            f" {self.journal / 1000:.0f} kB of journal a day{'' if self.alive else ', NOT ALIVE'}"
        )


def _resident(guest: Guest) -> int:
    text = guest.output(f"for p in $(cat {_CGROUP}/cgroup.procs); do grep ^VmRSS /proc/$p/status; done")
    return sum(int(line.split()[1]) for line in text.splitlines()) * 1024


def _spent(guest: Guest) -> tuple[float, float]:
    """Seconds of the guest's clock, and of CPU."""
    text = guest.output(f"cut -d' ' -f1 /proc/uptime; grep ^usage_usec {_CGROUP}/cpu.stat")
    clock, usage = text.splitlines()
    return float(clock), int(usage.split()[1]) / 1e6


def _watchdog(guest: Guest) -> int:
    return int(guest.output("systemctl show -P WatchdogTimestampMonotonic tierd"))


def _idle(guest: Guest) -> Idle:
    cursor = guest.output("journalctl -n 0 --show-cursor -o cat").split("cursor: ")[1].strip()
    resident, heard = _resident(guest), _watchdog(guest)
    began, before = _spent(guest)
    guest.run(f"sleep {SECONDS}", timeout=SECONDS + 120)
    ended, after = _spent(guest)
    resident, charged = (
        max(resident, _resident(guest)),
        int(guest.output(f"cat {_CGROUP}/memory.current")),
    )
    written = int(guest.output(f"journalctl --after-cursor='{cursor}' -o export {_ENTRIES} | wc -c"))
    seconds = ended - began
    return Idle(
        resident, charged, (after - before) / seconds, written * DAY / seconds, _watchdog(guest) > heard
    )


def footprint(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        guest, region = stage.ready(kernel)
        guest.write(scenario.POLICY, placing.policy(region, unit="nothing.service"))
        try:
            scenario.start_tierd(guest)
            guest.run(f"sleep {SETTLE}", timeout=SETTLE + 60)
            nothing = _idle(guest)
        finally:
            scenario.stop_tierd(guest)
        with placing.placing(guest, placing.policy(region)) as promoted:
            # it runs no more, and its memory stays: what an idle process is
            guest.run(f"systemctl kill --signal=STOP load; sleep {SETTLE}", timeout=SETTLE + 60)
            placed = _idle(guest)
        text = f"nothing to place: {nothing}; an idle process: {placed}"
        values = {"kernel": kernel, "nothing": asdict(nothing), "placed": asdict(placed)}
        holds = nothing.holds and placed.holds and promoted >= placing.PROMOTED
        return Figure(holds, text, {**values, "promoted": promoted})

    return Row(
        f"footprint-{kernel}",
        f"{SECONDS // 60} minutes with tiers and nothing to place, and as many with an idle process, in an"
        f" emulated guest several times slower than hardware, Linux {kernel}",
        "under 80 MiB resident, 0.5 % of a core, 1 MB of journal a day",
        measure,
    )
