"""What the kernel counted in the guest while something ran, and what that costs on hardware."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm.guest import Guest

PAGE = 4096
DRAM_NODE = "0"
HINT_FAULT_SECONDS = 2e-6
MOVED_PAGE_SECONDS = 3e-6
"""What hardware pays for a hint fault, and for moving a page of 4 KiB; emulation pays a hundred times that,
so costs are counts at these prices."""

_SCRIPT = Path(__file__).with_name("recorder.py")


@dataclass(frozen=True)
class Record:
    """The kernel's counters at one time. time: seconds on the guest's monotonic clock. free: bytes of DRAM.

    vmstat: counters since boot. occupancy: bytes of the workload's cgroup by node. tierd_seconds: CPU time
    of its service since it was started. thread_seconds: the same of kernel threads, by name.
    """

    time: float
    free: int
    vmstat: dict[str, int]
    occupancy: dict[str, int]
    tierd_seconds: float
    tierd_resident: int
    thread_seconds: dict[str, float]


@dataclass(frozen=True)
class Cost:
    """What happened between two records. Counts are base pages, `seconds` the time between the two.

    moved: pages that changed place, by whoever's hand (pgmigrate_success, which counts compaction too).
    promoted: those that the kernel moved up by itself. demoted: those that left DRAM by reclaim.
    between_tiers: those demoted, and the workload's that came up, which is what its DRAM has gained besides.
    unmapped: page table entries unmapped for hint faults. tierd_seconds, thread_seconds: CPU time.
    """

    seconds: float
    hint_faults: int
    moved: int
    promoted: int
    demoted: int
    between_tiers: int
    unmapped: int
    huge_split: int
    oom_kills: int
    tierd_seconds: float
    thread_seconds: float

    @property
    def share(self) -> float:
        """The priced cost as a share of one core."""
        spent = self.hint_faults * HINT_FAULT_SECONDS + self.moved * MOVED_PAGE_SECONDS
        return spent / self.seconds if self.seconds else 0.0

    @property
    def own_share(self) -> float:
        """tierd's own CPU time as a share of one core."""
        return self.tierd_seconds / self.seconds if self.seconds else 0.0

    @property
    def moved_bytes_per_minute(self) -> float:
        """What changed tier; compaction moves pages too, within theirs."""
        return self.between_tiers * PAGE * 60 / self.seconds if self.seconds else 0.0


def between(first: Record, last: Record) -> Cost:
    """The cost from one record to a later one. A counter that went back was that of a service started again,
    and counts from zero."""

    def count(name: str) -> int:
        return last.vmstat.get(name, 0) - first.vmstat.get(name, 0)

    def grown(before: float, after: float) -> float:
        return after - before if after >= before else after

    threads = sum(
        grown(first.thread_seconds.get(name, 0.0), seconds) for name, seconds in last.thread_seconds.items()
    )
    demoted = sum(count(name) for name in last.vmstat if name.startswith("pgdemote_"))
    gained = (last.occupancy.get(DRAM_NODE, 0) - first.occupancy.get(DRAM_NODE, 0)) // PAGE
    return Cost(
        seconds=last.time - first.time,
        hint_faults=count("numa_hint_faults"),
        moved=count("pgmigrate_success"),
        promoted=count("pgpromote_success"),
        demoted=demoted,
        between_tiers=demoted + max(0, demoted + gained),
        unmapped=count("numa_pte_updates"),
        huge_split=count("thp_split_page"),
        oom_kills=count("oom_kill"),
        tierd_seconds=grown(first.tierd_seconds, last.tierd_seconds),
        thread_seconds=threads,
    )


def window(records: Sequence[Record], begin: float, end: float) -> Cost:
    """The cost between two times, from the records within them. Raises ValueError with fewer than two."""
    inside = [record for record in records if begin <= record.time <= end]
    if len(inside) < 2:
        raise ValueError(f"fewer than two records between {begin:.1f} and {end:.1f}")
    return between(inside[0], inside[-1])


class Recorder:
    """Writes records in the guest from start() to stop(), as recorder.service."""

    def __init__(self, guest: Guest, cgroup: str = "/system.slice/load.service", every: float = 1.0) -> None:
        """cgroup: whose occupancy is recorded. every: seconds between two records."""
        self._guest = guest
        self._cgroup = cgroup
        self._every = every
        self._output = "/run/recorder.json"

    def start(self) -> None:
        self._guest.put(_SCRIPT, "/usr/local/lib/recorder.py")
        self._guest.run(
            f"rm -f {self._output}; systemd-run --quiet --unit=recorder "
            f"--property=StandardOutput=file:{self._output} /usr/bin/python3 /usr/local/lib/recorder.py "
            f"--every {self._every:g} --cgroup /sys/fs/cgroup{self._cgroup}"
        )
        self._guest.wait_for(f"[ -s {self._output} ]", timeout=60)

    def records(self) -> list[Record]:
        """Every record so far."""
        lines = self._guest.output(f"cat {self._output}").splitlines()
        return [Record(**json.loads(line)) for line in lines if line.endswith("}")]

    def stop(self) -> list[Record]:
        """End it; returns every record."""
        self._guest.run(
            "systemctl stop recorder.service; systemctl reset-failed recorder.service 2>/dev/null || true"
        )
        return self.records()
