"""The scenes that the demo, the verification and the benchmark play in a guest: memory made out of an
NVDIMM, a workload that knows its own ideal placement, and tierd placing it."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm import host
from tests.vm.guest import Guest, Region

POLICY = "/etc/tierd/tierd.yaml"
SOURCES = Path(__file__).parent
STARTS = 5
_BUS = "org.tierd1 /org/tierd1 org.tierd1.Manager"


@dataclass(frozen=True)
class Case:
    """A workload: 2400 MiB anonymous memory of which 400 MiB take 90 % of the accesses, in clusters of
    `cluster_kib` scattered at random. `huge`: with huge pages as the system hands them out. `extra`: more
    arguments of the workload, and `says` what they make of it. `copies`: processes, of which the first
    reports and the others only run."""

    name: str
    cluster_kib: int
    huge: bool = False
    extra: tuple[str, ...] = ()
    says: str = ""
    copies: int = 1

    @property
    def title(self) -> str:
        pages = "huge pages" if self.huge else "small pages"
        return f"{self.says or f'case {self.name}, hot clusters of {self.cluster_kib} KiB'}, {pages}"

    def arguments(self) -> list[str]:
        return ["--cluster", str(self.cluster_kib), *(["--huge"] if self.huge else []), *self.extra]


CASES = {"A": Case("A", 64), "B": Case("B", 2048)}
HUGE_CASES = {"A": Case("A", 64, huge=True), "B": Case("B", 2048, huge=True)}


@dataclass(frozen=True)
class Sample:
    """One report of the workload. time: seconds on the guest's monotonic clock. hit: probability that an
    access finds DRAM. ideal: the same for the best placement in the DRAM that the workload holds.

    went_up, went_down: pages that were seen to change sides since the start; bounced: those of went_down
    that had gone up within the 60 s before. hot_huge: share of the hot memory that huge pages map, or None.
    phase_began: on the same clock as `time`.
    """

    time: float
    hit: float
    ideal: float
    dram_pages: int
    pages: int
    accesses: int
    phase: int
    phase_began: float = 0.0
    went_up: int = 0
    went_down: int = 0
    bounced: int = 0
    hot_huge: float | None = None

    @property
    def score(self) -> float:
        return self.hit / self.ideal if self.ideal else 0.0


def policy(
    *regions: Region,
    mode: str = "place",
    units: Sequence[str] = ("load.service",),
    size: str = "all",
    engine: str = "",
) -> str:
    """The policy of every scene: all of each region becomes memory, and these units are placed.

    engine: more keys of that section, as YAML in flow style: ``bandwidth: 4GiB/s``.
    """
    include = ", ".join(f"{{unit: {unit}}}" for unit in units)
    return (
        "version: 1\n"
        f"processes: {{include: [{include}]}}\n"
        f"engine: {{{', '.join(part for part in (f'mode: {mode}', engine) if part)}}}\n"
        "provision:\n"
    ) + "".join(
        f'  - {{name: pmem{n}, region: {{iset_id: "{region.iset_id:#x}"}}, size: {size}, mode: apply}}\n'
        for n, region in enumerate(regions)
    )


def build_program(name: str = "workload") -> Path:
    """The program made of NAME.c beside this file, compiled for any Linux of this architecture, in the
    cache."""
    source = SOURCES / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    binary = host.cache_dir() / f"{name}-{digest}"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        fresh = binary.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-O2", "-Wall", "-static", "-pthread", "-o", fresh, source, "-lm"], check=True)
        fresh.rename(binary)
    return binary


def put_program(guest: Guest, name: str) -> str:
    """Copy a program into the guest; returns its path there."""
    path = f"/usr/local/bin/{name}"
    guest.put(build_program(name), path)
    return path


def make_memory(guest: Guest, region: Region) -> None:
    """Write the policy and turn the region into memory, as an operator does it."""
    guest.write(POLICY, policy(region))
    guest.run("systemctl start tierd-convert@pmem0", timeout=180)


class Load:
    """The workload, running in the guest as load.service, or as another unit beside it, in a slice."""

    def __init__(
        self,
        guest: Guest,
        case: Case,
        *,
        report_every: float = 5,
        unit: str = "load",
        slice: str = "system.slice",
    ) -> None:
        self.guest = guest
        self.case = case
        self.report_every = report_every
        self.unit = unit
        self.slice = slice
        self._output = f"/run/{unit}.json"

    def start(self) -> Sample:
        """Start it and wait until its memory is touched and it reports for the first time.

        Tried again when the OOM killer ends it meanwhile. With no tiering, no swap and DRAM full of huge
        pages, the kernel may find no page for the next page table, which cannot lie in movable memory.
        """
        program = put_program(self.guest, "workload")
        command = [program, "--report", str(self.report_every), *self.case.arguments()]
        if self.case.copies > 1:
            silent = shlex.join([program, "--report", "1e9", *self.case.arguments()])
            more = f"for n in $(seq 2 {self.case.copies}); do {silent} --seed $n >/dev/null & done; "
            command = ["/bin/bash", "-c", more + "exec " + shlex.join(command)]
        for _ in range(STARTS):
            self.guest.run(
                f"systemctl reset-failed {self.unit} 2>/dev/null; rm -f {self._output}; "
                f"systemd-run --quiet --expand-environment=no --unit={self.unit} "
                f"--slice={self.slice} --property=StandardOutput=file:{self._output} {shlex.join(command)}"
            )
            self.guest.wait_for(
                f"[ -s {self._output} ] || systemctl is-failed {self.unit}", timeout=300, interval=1
            )
            samples = self.samples()
            if samples:
                return samples[0]
        why = self.guest.output(f"systemctl show -P Result {self.unit}")
        raise host.HostError(f"the workload ended before its first report, {STARTS} times: {why}")

    def samples(self) -> list[Sample]:
        """Every report so far."""
        lines = self.guest.output(f"cat {self._output}").splitlines()
        return [_sample(line) for line in lines if line.endswith("}")]

    def stop(self) -> list[Sample]:
        """End it; returns every report."""
        service = f"{self.unit}.service"
        self.guest.run(f"systemctl stop {service}; systemctl reset-failed {service} 2>/dev/null || true")
        return self.samples()

    def watch(self, seconds: float) -> Iterator[tuple[Sample, dict[str, int], int]]:
        """The newest report, tierd's counters and the free bytes of DRAM, every few seconds for `seconds`.

        One small command each, so that looking does not disturb what is looked at.
        """
        script = (
            f"end=$((SECONDS + {seconds:.0f})); while [ $SECONDS -lt $end ]; do "
            f"sleep {self.report_every:g}; tail -n 1 {self._output}; "
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
        facts["phase_began"],
        facts["went_up"],
        facts["went_down"],
        facts["bounced"],
        facts["hot_huge"],
    )


def start_tierd(guest: Guest) -> float:
    """Start the service; returns when it said it was ready, on the guest's monotonic clock."""
    guest.run("systemctl start tierd", timeout=300)
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
