"""The scenes that the demo, the verification and the benchmark play in a guest: memory made out of an
NVDIMM, a workload that knows its own ideal placement, and tierd placing it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.vm import host
from tests.vm.guest import Guest, Region

POLICY = "/etc/tierd/tierd.yaml"
SOURCE = Path(__file__).with_name("workload.c")
STARTS = 5
_OUTPUT = "/run/load.json"
_BUS = "org.tierd1 /org/tierd1 org.tierd1.Manager"


@dataclass(frozen=True)
class Case:
    """A workload: 2400 MiB anonymous memory of which 400 MiB take 90 % of the accesses, in clusters of
    `cluster_kib` scattered at random. `huge`: with huge pages as the system hands them out."""

    name: str
    cluster_kib: int
    huge: bool = False
    extra: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        pages = "huge pages" if self.huge else "small pages"
        return f"case {self.name}, hot clusters of {self.cluster_kib} KiB, {pages}"

    def arguments(self) -> list[str]:
        return ["--cluster", str(self.cluster_kib), *(["--huge"] if self.huge else []), *self.extra]


CASES = {"A": Case("A", 64), "B": Case("B", 2048)}
HUGE_CASES = {"A": Case("A", 64, huge=True), "B": Case("B", 2048, huge=True)}


@dataclass(frozen=True)
class Sample:
    """One report of the workload. time: seconds on the guest's monotonic clock. hit: probability that an
    access finds DRAM. ideal: the same for the best placement in the DRAM that the workload holds."""

    time: float
    hit: float
    ideal: float
    dram_pages: int
    pages: int
    accesses: int
    phase: int

    @property
    def score(self) -> float:
        return self.hit / self.ideal if self.ideal else 0.0


def policy(region: Region, *, mode: str = "place", unit: str = "load.service", size: str = "all") -> str:
    """The policy of every scene: all of the region becomes memory, and one unit is placed."""
    return (
        "version: 1\n"
        f"processes: {{include: [{{unit: {unit}}}]}}\n"
        f"engine: {{mode: {mode}}}\n"
        "provision:\n"
        f'  - {{name: pmem0, region: {{iset_id: "{region.iset_id:#x}"}}, size: {size}, mode: apply}}\n'
    )


def build_workload() -> Path:
    """The workload, compiled for any Linux of this architecture, in the cache."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    binary = host.cache_dir() / f"workload-{digest}"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        fresh = binary.with_suffix(".new")
        subprocess.run(["cc", "-O2", "-Wall", "-static", "-pthread", "-o", fresh, SOURCE, "-lm"], check=True)
        fresh.rename(binary)
    return binary


def make_memory(guest: Guest, region: Region, *, mode: str = "place") -> None:
    """Write the policy and turn the region into memory, as an operator does it."""
    guest.write(POLICY, policy(region, mode=mode))
    guest.run("systemctl start tierd-convert@pmem0", timeout=180)


class Load:
    """The workload, running in the guest as load.service."""

    def __init__(self, guest: Guest, case: Case, *, report_every: float = 5) -> None:
        self.guest = guest
        self.case = case
        self.report_every = report_every

    def start(self) -> Sample:
        """Start it and wait until its memory is touched and it reports for the first time.

        Tried again when the OOM killer ends it meanwhile. With no tiering, no swap and DRAM full of huge
        pages, the kernel may find no page for the next page table, which cannot lie in movable memory.
        """
        self.guest.put(build_workload(), "/usr/local/bin/workload")
        command = ["/usr/local/bin/workload", "--report", str(self.report_every), *self.case.arguments()]
        for _ in range(STARTS):
            self.guest.run(
                f"systemctl reset-failed load.service 2>/dev/null; rm -f {_OUTPUT}; "
                f"systemd-run --quiet --unit=load --property=StandardOutput=file:{_OUTPUT} "
                + " ".join(command)
            )
            self.guest.wait_for(
                f"[ -s {_OUTPUT} ] || systemctl is-failed load.service", timeout=240, interval=1
            )
            samples = self.samples()
            if samples:
                return samples[0]
        why = self.guest.output("systemctl show -P Result load.service")
        raise host.HostError(f"the workload ended before its first report, {STARTS} times: {why}")

    def samples(self) -> list[Sample]:
        """Every report so far."""
        lines = self.guest.output(f"cat {_OUTPUT}").splitlines()
        return [_sample(line) for line in lines if line.endswith("}")]

    def stop(self) -> list[Sample]:
        """End it; returns every report."""
        self.guest.run(
            "systemctl stop load.service; systemctl reset-failed load.service 2>/dev/null || true"
        )
        return self.samples()

    def watch(self, seconds: float) -> Iterator[tuple[Sample, dict[str, int], int]]:
        """The newest report, tierd's counters and the free bytes of DRAM, every few seconds for `seconds`.

        One small command each, so that looking does not disturb what is looked at.
        """
        script = (
            f"end=$((SECONDS + {seconds:.0f})); while [ $SECONDS -lt $end ]; do "
            f"sleep {self.report_every:g}; tail -n 1 {_OUTPUT}; "
            f"busctl --json=short get-property {_BUS} Counters 2>/dev/null || echo null; "
            "awk '/MemFree/ {print $4}' /sys/devices/system/node/node0/meminfo; done"
        )
        lines = self.guest.stream(script)
        for report in lines:
            counters, free = json.loads(next(lines)), int(next(lines)) * 1024
            if report.endswith("}"):
                plain = {name: value["data"] for name, value in counters["data"].items()} if counters else {}
                yield _sample(report), plain, free


def _sample(line: str) -> Sample:
    facts = json.loads(line)
    return Sample(
        facts["monotonic"],
        facts["hit"],
        facts["ideal"],
        facts["dram_pages"],
        facts["pages"],
        facts["accesses"],
        facts["phase"],
    )


def start_tierd(guest: Guest) -> float:
    """Start the service; returns when it said it was ready, on the guest's monotonic clock."""
    guest.run("systemctl start tierd", timeout=120)
    shown = guest.output("systemctl show -P ActiveEnterTimestampMonotonic tierd")
    return int(shown) / 1e6


def stop_tierd(guest: Guest) -> None:
    guest.run("systemctl stop tierd", timeout=120)


def score_at(samples: list[Sample], time: float) -> Sample:
    """The last report made at `time` or before."""
    before = [sample for sample in samples if sample.time <= time]
    if not before:
        raise ValueError(f"no report before {time:.1f}")
    return before[-1]
