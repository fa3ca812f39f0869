"""How near the placement comes to the ideal, how soon, and against the kernel's own tiering."""

from __future__ import annotations

from tests.bench import measure, workloads
from tests.bench.contenders import CONTENDERS
from tests.verify.engine_rows.runs import kernel_run, mean_score, run, steady_run
from tests.verify.table import Figure, Row, Stage
from tests.vm.guest import Guest
from tests.vm.scenario import CASES, HUGE_CASES, Case, Load

HUGE_SECONDS = 180.0
"""Of a run with huge pages: 45 s to place them, and two minutes to rebuild them."""
ZIPF_SECONDS = 180.0
CHANGED = 0.9
"""A new phase whose first report is above this share of the ideal was no change worth the name."""


def small(kernel: str, case: Case) -> Row:
    def measure_row(stage: Stage) -> Figure:
        played = steady_run(stage, kernel, case)
        before, after = played.sample_at(0), played.sample_at(30)
        text = f"{after.score:.3f} of ideal, {before.score:.3f} before"
        values = {"kernel": kernel, "hit": after.hit, "ideal": after.ideal, "score_before": before.score}
        return Figure(after.score >= 0.97 > before.score, text, values)

    return Row(
        f"small-{case.name}-{kernel}",
        f"hit ratio / ideal 30 s after start, {case.title}, Linux {kernel}",
        "at least 0.97",
        measure_row,
    )


def huge(kernel: str, case: Case) -> Row:
    def measure_row(stage: Stage) -> Figure:
        ours = run(stage, kernel, case, "tierd", HUGE_SECONDS)
        before, after = ours.sample_at(0), ours.sample_at(45)
        theirs = kernel_run(stage, kernel, case).sample_at(45)
        ratio = after.hit / theirs.hit
        text = f"{after.score:.3f} of ideal, {ratio:.2f} x the kernel, {before.score:.3f} before"
        values = {
            "kernel": kernel,
            "hit": after.hit,
            "ideal": after.ideal,
            "score_before": before.score,
            "hit_of_kernel": theirs.hit,
        }
        return Figure(after.score >= 0.97 > before.score and ratio >= 1.35, text, values)

    return Row(
        f"huge-{case.name}-{kernel}",
        f"hit ratio / ideal 45 s after start, {case.title}, Linux {kernel}",
        "at least 0.97, and 1.35 x the kernel",
        measure_row,
    )


def against_kernel(kernel: str) -> Row:
    def measure_row(stage: Stage) -> Figure:
        ours = steady_run(stage, kernel, CASES["A"]).sample_at(45)
        theirs = kernel_run(stage, kernel, CASES["A"]).sample_at(45)
        text = f"{ours.hit:.3f} against {theirs.hit:.3f}: {ours.hit / theirs.hit:.2f} x"
        values = {"kernel": kernel, "hit": ours.hit, "hit_of_kernel": theirs.hit}
        return Figure(ours.hit / theirs.hit >= 1.4, text, values)

    return Row(
        f"against-kernel-{kernel}",
        f"hit ratio 45 s after start, tierd / the kernel's tiering, {CASES['A'].title}, Linux {kernel}",
        "at least 1.4",
        measure_row,
    )


def phase(kernel: str, case: Case, every: float, within: float) -> Row:
    changing = workloads.phases(case, every)

    def measure_row(stage: Stage) -> Figure:
        played = run(stage, kernel, changing, "tierd", phase_seconds(every, within))
        new = [sample for sample in played.samples if sample.phase == 1]
        if not new:
            return Figure(False, "the workload did not change its phase while it was watched")
        began = new[0].phase_began
        settled = [sample for sample in new if sample.time <= began + within][-1]
        old = [sample for sample in played.samples if sample.phase == 0][-1]
        text = (
            f"{settled.score:.3f} of ideal; {old.score:.3f} before the change, {new[0].score:.3f} just after"
        )
        values = {
            "kernel": kernel,
            "score": settled.score,
            "score_old_phase": old.score,
            "score_at_change": new[0].score,
            "seconds": settled.time - began,
        }
        return Figure(settled.score >= 0.95 and new[0].score < CHANGED, text, values)

    pages = "huge" if case.huge else "small"
    return Row(
        f"phase-{pages}-{case.name}-{kernel}",
        f"hit ratio / ideal {within:g} s after the hot set has changed, {case.title}, Linux {kernel}",
        "at least 0.95",
        measure_row,
    )


def phase_seconds(every: float, within: float) -> float:
    """How long a run must last to see the first change of phase and what comes of it."""
    return every + within + workloads.REPORT_SECONDS


def zipf(kernel: str) -> Row:
    def measure_row(stage: Stage) -> Figure:
        played = run(stage, kernel, workloads.ZIPF, "tierd", ZIPF_SECONDS)
        before = played.sample_at(0)
        last = [sample for sample in played.samples if sample.time >= played.began + ZIPF_SECONDS - 60]
        score = mean_score(last)
        text = f"{score:.3f} of the best static placement in the last minute, {before.score:.3f} before"
        return Figure(
            score >= 0.97 > before.score,
            text,
            {"kernel": kernel, "score": score, "score_before": before.score, "hit": last[-1].hit},
        )

    return Row(
        f"zipf-{kernel}",
        f"steady state, {workloads.ZIPF.title}, Linux {kernel}",
        "at least 0.97 of the best static placement",
        measure_row,
    )


def rebuilt(kernel: str) -> Row:
    def measure_row(stage: Stage) -> Figure:
        played = run(stage, kernel, HUGE_CASES["B"], "tierd", HUGE_SECONDS)
        after = played.sample_at(165)
        split = played.cost(0, HUGE_SECONDS).huge_split
        share = after.hot_huge or 0.0
        text = f"{share:.0%} of the hot memory in huge pages, {after.score:.3f} of ideal, {split} were split"
        values = {"kernel": kernel, "hot_huge": after.hot_huge, "score": after.score, "huge_split": split}
        # as the memory comes, most hot huge pages are whole, but in the slow tier
        return Figure(share >= 0.8 and after.score >= 0.9, text, values)

    return Row(
        f"rebuilt-{kernel}",
        f"hot memory in huge pages two minutes after it was placed, {HUGE_CASES['B'].title}, Linux {kernel}",
        "at least 80 %, and placed (0.9 of ideal)",
        measure_row,
    )


FITTING = Case("small", 2048, huge=True, extra=("--size", "200", "--hot", "50"), says="200 MiB that fit")


def unsplit(kernel: str) -> Row:
    def measure_row(stage: Stage) -> Figure:
        guest, region = stage.ready(kernel)
        fitting = Load(guest, FITTING, unit="fitting")
        fitting.start()
        try:
            before = _huge_bytes(guest, "fitting.service")
            contended = workloads.synthetic("A", HUGE_CASES["A"])
            units = ("load.service", "fitting.service")
            played = measure.play(guest, region, contended, CONTENDERS["tierd"], 60, units=units)
            after = _huge_bytes(guest, "fitting.service")
        finally:
            fitting.stop()
        split = played.cost(0, 60).huge_split
        lost = (before - after) >> 21
        text = f"{lost} of {before >> 21} huge pages lost, while {split} were split in all"
        values = {"kernel": kernel, "before": before, "after": after, "split": split}
        # something was split elsewhere, or the row says nothing
        return Figure(before > 0 and lost <= 0 and split > 0, text, values)

    return Row(
        f"unsplit-{kernel}",
        f"huge pages of a cgroup that fits in DRAM, beside one that does not, Linux {kernel}",
        "none split",
        measure_row,
    )


def _huge_bytes(guest: Guest, unit: str) -> int:
    """Anonymous huge pages that the unit's main process maps, in bytes."""
    pid = guest.output(f"systemctl show -P MainPID {unit}")
    return int(guest.output(f"awk '/AnonHugePages/ {{print $2}}' /proc/{pid}/smaps_rollup")) * 1024
