"""What must never happen: a wrong byte, a hung task, a killed process, DRAM drained by tierd."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bench import workloads
from tests.bench.contenders import changed, guest_time
from tests.verify.engine_rows.runs import DRAM_BYTES, PAGE
from tests.verify.table import Figure, Row, Stage
from tests.vm import records, scenario
from tests.vm.guest import Guest
from tests.vm.records import Record, Recorder
from tests.vm.scenario import CASES, Load

INTEGRITY_SECONDS = 600
INTEGRITY_MIB = 1600
FASTEST = "bandwidth: 8GiB/s"
"""Of tierd's policy: more than any machine of the testbed moves."""
_INTEGRITY_OUTPUT = "/run/integrity.json"

ALLOCATOR_RATE = 300
"""MB/s, in rounds of this size (MiB), which is more than DRAM holds and less than there is in all."""
ALLOCATOR_MIB = 1500
ALONE_SECONDS = 40
TOGETHER_SECONDS = 90
HUNG_SECONDS = 20
"""A task that waits for longer in the kernel counts as hung. The kernel's own limit is 120 s."""
BATCH_BYTES = 4 << 20
"""The most that may be under way between a reading of the node's free memory and the next."""


def integrity(kernel: str) -> Row:
    def measure_row(stage: Stage) -> Figure:
        guest, region = stage.ready(kernel)
        guest.write(scenario.POLICY, scenario.policy(region, engine=FASTEST))
        program = scenario.put_program(guest, "integrity")
        recorder = Recorder(guest)
        guest.run(
            f"rm -f {_INTEGRITY_OUTPUT}; systemd-run --quiet --unit=load "
            f"--property=StandardOutput=file:{_INTEGRITY_OUTPUT} --remain-after-exit "
            f"{program} --size {INTEGRITY_MIB} --duration {INTEGRITY_SECONDS} --phase 15"
        )
        try:
            guest.wait_for(f"[ -s {_INTEGRITY_OUTPUT} ]", timeout=300, interval=1)
            recorder.start()
            scenario.start_tierd(guest)
            ended = f"grep -q '\"final\": true' {_INTEGRITY_OUTPUT}"
            # under emulation the last check of every page takes its time
            deadline = time.monotonic() + INTEGRITY_SECONDS + 900
            while guest.run(ended, check=False).returncode and time.monotonic() < deadline:
                time.sleep(15)
        finally:
            scenario.stop_tierd(guest)
            recorded = recorder.stop()
            guest.run("systemctl stop load; systemctl reset-failed load 2>/dev/null || true", timeout=120)
        last = json.loads(guest.output(f"tail -n 1 {_INTEGRITY_OUTPUT}"))
        cost = records.between(recorded[0], recorded[-1])
        moved = cost.moved * PAGE
        text = (
            f"{last['bad_bytes']} bad bytes in {last['checked']} checks of a page, "
            f"{last['rewritten']} rewritten, {moved >> 20} MiB moved in {cost.seconds:.0f} s"
            + ("" if last["final"] else ", NOT FINISHED")
        )
        values = {"kernel": kernel, **last, "moved": cost.moved, "huge_split": cost.huge_split}
        # less than DRAM once over is no test of moving
        holds = last["final"] and last["bad_bytes"] == 0 and moved >= DRAM_BYTES
        return Figure(holds, text, values)

    return Row(
        f"integrity-{kernel}",
        "small, huge, shared and copied pages with known bytes, ten minutes at the highest move rate, Linux "
        + kernel,
        "0 bad bytes, and at least all of DRAM moved",
        measure_row,
        long=True,
    )


@dataclass(frozen=True)
class _Squeeze:
    """What the allocator did, and the records meanwhile."""

    allocated: dict[str, float]
    records: list[Record]

    @property
    def least_free(self) -> int:
        return min(record.free for record in self.records)


def _squeeze(guest: Guest, seconds: int) -> _Squeeze:
    program = scenario.put_program(guest, "allocator")
    recorder = Recorder(guest, every=0.5)
    recorder.start()
    try:
        said = guest.output(
            f"{program} --rate {ALLOCATOR_RATE} --size {ALLOCATOR_MIB} --duration {seconds}",
            timeout=10 * seconds + 120,
        )
    finally:
        recorded = recorder.stop()
    return _Squeeze(json.loads(said), recorded)


def pressure(kernel: str) -> Row:
    def measure_row(stage: Stage) -> Figure:
        guest, region = stage.ready(kernel)
        guest.write(scenario.POLICY, scenario.policy(region))
        load = Load(guest, workloads.phases(CASES["A"], 20))
        load.start()
        try:
            with _watched_for_hangs(guest) as hung:
                alone = _squeeze(guest, ALONE_SECONDS)
                began = scenario.start_tierd(guest)
                together = _squeeze(guest, TOGETHER_SECONDS)
                ended = guest_time(guest)
        finally:
            scenario.stop_tierd(guest)
            samples = load.stop()
        floor = floor_bytes(guest.output("cat /proc/zoneinfo"))
        cost = records.between(together.records[0], together.records[-1])
        up = _went_up(samples, began, ended)
        kills = records.between(alone.records[0], together.records[-1]).oom_kills
        # alone, the allocator takes DRAM down to the kernel's own watermarks; tierd may add one batch
        allowed = min(floor, alone.least_free) - BATCH_BYTES
        text = (
            f"{len(hung)} hung tasks, {kills} OOM kills; least free DRAM {together.least_free >> 20} MiB, "
            f"{alone.least_free >> 20} MiB without tierd, floor {floor >> 20} MiB; "
            f"{together.allocated['rate']:.0f} MB/s taken, {up} pages went up"
        )
        values = {
            "kernel": kernel,
            "hung": hung,
            "oom_kills": kills,
            "least_free": together.least_free,
            "least_free_without": alone.least_free,
            "floor": floor,
            "allocator": together.allocated,
            "moved": cost.moved,
            "went_up": up,
        }
        calm = not hung and not kills and together.least_free >= allowed
        # tierd was at work, and the pressure was real
        real = up > 0 and cost.hint_faults > 0 and together.allocated["rounds"] >= 2
        return Figure(calm and real, text, values)

    return Row(
        f"pressure-{kernel}",
        f"an allocator of {ALLOCATOR_RATE} MB/s beside a hot set that changes every 20 s, Linux {kernel}",
        "0 hung tasks, 0 OOM kills, DRAM no lower than without tierd or than the floor",
        measure_row,
    )


@contextlib.contextmanager
def _watched_for_hangs(guest: Guest) -> Iterator[list[str]]:
    """A list that holds, after the block, what the kernel said of hung tasks during it."""
    found: list[str] = []
    count = "dmesg | grep 'blocked for more than' || true"
    before = guest.output(count).splitlines()
    with changed(
        guest,
        {
            "/proc/sys/kernel/hung_task_timeout_secs": str(HUNG_SECONDS),
            "/proc/sys/kernel/hung_task_warnings": "100",
        },
    ):
        yield found
        time.sleep(HUNG_SECONDS)
        found += guest.output(count).splitlines()[len(before) :]


def _went_up(samples: Sequence[scenario.Sample], begin: float, end: float) -> int:
    inside = [sample for sample in samples if begin <= sample.time <= end]
    return inside[-1].went_up - inside[0].went_up if inside else 0


def floor_bytes(zoneinfo: str, node: int = 0) -> int:
    """The floor that the design promises: twice the node's high watermark plus 32 MiB, from
    /proc/zoneinfo."""
    zones = re.split(r"^Node (\d+), zone.*$", zoneinfo, flags=re.MULTILINE)
    high = 0
    for number, text in zip(zones[1::2], zones[2::2], strict=True):
        found = re.search(r"^\s+high\s+(\d+)", text, flags=re.MULTILINE)
        if int(number) == node and found:
            high += int(found.group(1))
    return 2 * high * PAGE + (32 << 20)
