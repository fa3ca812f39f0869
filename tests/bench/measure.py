"""One contender at one workload: what came of it, and what it cost. Also used by the engine's table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.contenders import Contender
from tests.bench.workloads import REPORT_SECONDS, Point, Workload
from tests.verify.settings import kernel_settings
from tests.vm import records, scenario
from tests.vm.guest import Guest, Region
from tests.vm.records import Cost, Record, Recorder
from tests.vm.scenario import Sample

BEFORE_SECONDS = 15.0
"""For which a workload is watched before the contender starts."""
WARM_SECONDS = 60.0
"""From a contender's start; what it costs meanwhile is told apart from what it costs after."""
LAST_SECONDS = 20.0
"""At the end, over which the last value is a mean."""


@dataclass(frozen=True)
class Run:
    """began: when the contender was ready, on the guest's monotonic clock, as all times. points: the value
    from BEFORE_SECONDS before that to `seconds` after. samples: the workload's reports behind them, if it
    makes any. records: the kernel's counters. settings_left: kernel settings that the contender did not put
    back. skipped: why it did not run, and then nothing else is filled."""

    workload: Workload
    contender: Contender
    seconds: float
    began: float = 0.0
    points: tuple[Point, ...] = ()
    samples: tuple[Sample, ...] = ()
    records: tuple[Record, ...] = ()
    settings_left: tuple[str, ...] = ()
    skipped: str = ""

    def at(self, seconds: float) -> Point:
        """The last value at most so many seconds after the start, negative for before. Raises ValueError."""
        return _last(self.points, self.began + seconds)

    def sample_at(self, seconds: float) -> Sample:
        """The same of the workload's reports."""
        return scenario.score_at(list(self.samples), self.began + seconds)

    def mean(self, begin: float, end: float) -> Point:
        """The mean value between two times after the start. Raises ValueError when there is none."""
        inside = [point for point in self.points if begin <= point.time - self.began <= end]
        if not inside:
            raise ValueError(f"no value between {begin:g} s and {end:g} s")
        return Point(
            inside[-1].time,
            sum(point.value for point in inside) / len(inside),
            sum(point.ideal for point in inside) / len(inside),
        )

    def end(self) -> Point:
        """The value at the end."""
        return self.mean(max(0.0, self.seconds - LAST_SECONDS), self.seconds)

    def cost(self, begin: float, end: float) -> Cost:
        """What was counted between two times after the start. Raises ValueError."""
        return records.window(self.records, self.began + begin, self.began + end)


def play(
    guest: Guest,
    region: Region,
    workload: Workload,
    contender: Contender,
    seconds: float,
    *,
    units: Sequence[str] = ("load.service",),
    engine: str = "",
) -> Run:
    """Run the workload from its start, the contender a little later, and watch both for `seconds`.

    units: what tierd's policy selects; the workload is load.service. engine: more of the policy's engine
    section. Raises HostError.
    """
    why = contender.lacking(guest)
    if why:
        return Run(workload, contender, seconds, skipped=why)
    guest.write(scenario.POLICY, scenario.policy(region, units=units, engine=engine))
    settings = kernel_settings(guest)
    recorder = Recorder(guest)
    running = workload.start(guest)
    try:
        recorder.start()
        try:
            time.sleep(BEFORE_SECONDS)
            with contender.running(guest) as began:
                time.sleep(seconds + REPORT_SECONDS)
        finally:
            recorded = recorder.stop()
    finally:
        points, samples = running.stop()
    after = kernel_settings(guest)
    left = tuple(path for path, value in settings.items() if after.get(path) != value)
    first, last = began - BEFORE_SECONDS, began + seconds
    return Run(
        workload,
        contender,
        seconds,
        began,
        tuple(point for point in points if first <= point.time <= last),
        tuple(sample for sample in samples if first <= sample.time <= last),
        tuple(record for record in recorded if first <= record.time <= last),
        left,
    )


def _last(points: Sequence[Point], until: float) -> Point:
    before = [point for point in points if point.time <= until]
    if not before:
        raise ValueError(f"no value before {until:.1f}")
    return before[-1]
