"""Runs that several rows of the engine's table look at."""

from __future__ import annotations

from tests.bench import measure, workloads
from tests.bench.contenders import CONTENDERS
from tests.bench.measure import Run
from tests.verify.table import Stage
from tests.vm import machine, records
from tests.vm.scenario import Case, Sample

PAGE = 4096
DRAM_BYTES = machine.Machine().dram << 20
CONVERGED = 0.95
"""Of the ideal; from here on a run counts as converged."""
LONG_SECONDS = 240.0
"""The length of the run that shows the steady state: the third and the fourth minute."""
STEADY = (120.0, LONG_SECONDS)
TRIES = 3
"""Of a contender under which the workload was killed for want of memory."""
KERNEL_SECONDS = 60.0
"""The length of a run of the kernel's own tiering, which is looked at after 45 s."""


def run(stage: Stage, kernel: str, case: Case, contender: str, seconds: float) -> Run:
    """A contender at a case for so many seconds, measured once on each kernel."""

    def play() -> Run:
        guest, region = stage.ready(kernel)
        workload = workloads.synthetic(case.name, case)
        for _ in range(TRIES):
            played = measure.play(guest, region, workload, CONTENDERS[contender], seconds)
            # with huge pages the load fills this small machine to the brim; what tierd kills is a result
            if contender == "tierd" or not records.between(played.records[0], played.records[-1]).oom_kills:
                break
        return played

    return stage.once((kernel, case, contender, seconds), play)


def steady_run(stage: Stage, kernel: str, case: Case) -> Run:
    """The long run of tierd that the rows on small pages share."""
    return run(stage, kernel, case, "tierd", LONG_SECONDS)


def kernel_run(stage: Stage, kernel: str, case: Case) -> Run:
    """The kernel's own tiering, on the same boot."""
    return run(stage, kernel, case, "kernel", KERNEL_SECONDS)


def converged_at(played: Run) -> float | None:
    """Seconds from the start to the first report at CONVERGED or more of the ideal, None without any."""
    times = (sample.time - played.began for sample in played.samples if sample.score >= CONVERGED)
    return next((time for time in times if time > 0), None)


def mean_score(samples: list[Sample]) -> float:
    """The mean of hit / ideal; 0 without samples."""
    return sum(sample.score for sample in samples) / len(samples) if samples else 0.0
