"""What tierd moves and costs when there is nothing left to gain, and how soon it looks again."""

from __future__ import annotations

from statistics import median

from tests.bench import workloads
from tests.bench.measure import Run
from tests.verify.engine_rows.placement import phase_seconds
from tests.verify.engine_rows.runs import (
    DRAM_BYTES,
    KERNEL_SECONDS,
    PAGE,
    STEADY,
    converged_at,
    mean_score,
    run,
    steady_run,
)
from tests.verify.table import Figure, Row, Stage
from tests.vm.scenario import CASES, Case, Sample

PHASE_EVERY = 120.0
PHASE_WITHIN = 30.0
"""Of the run with a change of phase, which the placement rows look at too. Two minutes leave tierd time to
come to rest."""
HOT_SECONDS = 180.0
PLACED = 0.9
"""Of the ideal, below which a steady state is that of an engine which does nothing."""


def _steady_samples(played: Run) -> list[Sample]:
    begin, end = STEADY
    return [sample for sample in played.samples if begin <= sample.time - played.began <= end]


def stationary(kernel: str, case: Case) -> Row:
    def measure_row(stage: Stage) -> Figure:
        played = steady_run(stage, kernel, case)
        cost, samples = played.cost(*STEADY), _steady_samples(played)
        share = cost.moved_bytes_per_minute / DRAM_BYTES
        up = played.samples[-1].went_up
        bounced = played.samples[-1].bounced - samples[0].bounced
        bounced_share = bounced / up if up else 0.0
        score = mean_score(samples)
        text = (
            f"{share:.2%} of DRAM changed tier a minute, {bounced_share:.2%} of {up} pages came down again "
            f"within 60 s, {score:.3f} of ideal"
        )
        values = {
            "kernel": kernel,
            "between_tiers": cost.between_tiers,
            "moved": cost.moved,
            "demoted": cost.demoted,
            "seconds": cost.seconds,
            "went_up": up,
            "bounced": bounced,
            "score": score,
        }
        return Figure(share < 0.005 and bounced_share < 0.01 and up > 0 and score >= PLACED, text, values)

    return Row(
        f"stationary-{case.name}-{kernel}",
        f"stationary workload in the third and fourth minute, {case.title}, Linux {kernel}",
        f"moves under 0.5 % of DRAM a minute, under 1 % of pages bounce; at {PLACED} of ideal",
        measure_row,
    )


def priced(kernel: str, case: Case) -> Row:
    def measure_row(stage: Stage) -> Figure:
        played = steady_run(stage, kernel, case)
        steady = played.cost(*STEADY)
        until = converged_at(played) or KERNEL_SECONDS
        converging = played.cost(0, max(until, 5.0))
        score = mean_score(_steady_samples(played))
        text = (
            f"{steady.share:.2%} of a core steady, {converging.share:.1%} in {until:.0f} s of converging "
            f"({converging.hint_faults} faults, {converging.moved} pages), {score:.3f} of ideal"
        )
        values = {
            "kernel": kernel,
            "steady": steady.share,
            "converging": converging.share,
            "converged_after": until,
            "steady_faults": steady.hint_faults,
            "steady_moved": steady.moved,
        }
        worked = converging.hint_faults > 0 and converging.moved > 0 and score >= PLACED
        return Figure(worked and steady.share <= 0.01 and converging.share <= 0.15, text, values)

    return Row(
        f"cost-{case.name}-{kernel}",
        f"cost laid on the workload, priced, {case.title}, Linux {kernel}",
        f"at most 1 % of a core steady, 15 % converging; at {PLACED} of ideal",
        measure_row,
    )


def own_cpu(kernel: str, case: Case) -> Row:
    def measure_row(stage: Stage) -> Figure:
        played = steady_run(stage, kernel, case)
        cost, score = played.cost(*STEADY), mean_score(_steady_samples(played))
        resident = played.records[-1].tierd_resident
        text = f"{cost.own_share:.1%} of a core, {resident >> 20} MiB resident, {score:.3f} of ideal"
        values = {"kernel": kernel, "share": cost.own_share, "resident": resident, "score": score}
        return Figure(0 < cost.own_share <= 0.05 and score >= PLACED, text, values)

    return Row(
        f"own-cpu-{case.name}-{kernel}",
        f"tierd's own CPU in the third and fourth minute, emulated, {case.title}, Linux {kernel}",
        f"at most 5 % of a core; at {PLACED} of ideal",
        measure_row,
    )


def looks_again(kernel: str) -> Row:
    changing = workloads.phases(CASES["A"], PHASE_EVERY)

    def measure_row(stage: Stage) -> Figure:
        played = run(stage, kernel, changing, "tierd", phase_seconds(PHASE_EVERY, PHASE_WITHIN))
        new = [sample for sample in played.samples if sample.phase == 1]
        if not new:
            return Figure(False, "the workload did not change its phase while it was watched")
        change = new[0].phase_began
        rates = _unmapped_rates(played)
        busiest = max((rate for time, rate in rates if time < change - 20), default=0.0)
        resting = [rate for time, rate in rates if change - 20 <= time < change]
        rested = sum(resting) / len(resting) if resting else 0.0
        # the kernel unmaps in bursts with pauses between; the median tells how large they are at full rate
        bursts = [rate for time, rate in rates if time < change - 20 and rate >= busiest / 4]
        usual = median(bursts) if bursts else 0.0
        full = next((time - change for time, rate in rates if time > change and rate >= usual / 2), None)
        after = f"{full:.1f} s" if full is not None else "never"
        text = f"{after}; bursts of {usual:.0f} pages/s unmapped before, {rested:.0f} at rest"
        values = {"kernel": kernel, "seconds": full, "burst": usual, "busiest": busiest, "resting": rested}
        holds = usual > 0 and rested < usual / 4 and full is not None and full <= 5
        return Figure(holds, text, values)

    return Row(
        f"looks-again-{kernel}",
        f"from rest to full sampling (half a usual burst) after a change of phase, Linux {kernel}",
        "within 5 s, and at rest before",
        measure_row,
    )


def _unmapped_rates(played: Run) -> list[tuple[float, float]]:
    """(time, page table entries unmapped a second since the record before), after tierd's start."""
    records = [record for record in played.records if record.time >= played.began]
    return [
        (
            later.time,
            (later.vmstat["numa_pte_updates"] - earlier.vmstat["numa_pte_updates"])
            / (later.time - earlier.time),
        )
        for earlier, later in zip(records, records[1:], strict=False)
    ]


def overcommitted(kernel: str) -> Row:
    case = workloads.more_hot(120)

    def measure_row(stage: Stage) -> Figure:
        played = run(stage, kernel, case, "tierd", HOT_SECONDS)
        before, after = played.mean(-15, 0), played.mean(HOT_SECONDS - 60, HOT_SECONDS)
        whole, cost = played.cost(0, HOT_SECONDS), played.cost(60, HOT_SECONDS)
        text = (
            f"{after.value:.3f} of accesses find DRAM, {before.value:.3f} before, ideal {after.ideal:.3f}; "
            f"{cost.share:.2%} of a core; {whole.moved * PAGE >> 20} MiB moved"
        )
        values = {
            "kernel": kernel,
            "hit": after.value,
            "hit_before": before.value,
            "ideal": after.ideal,
            "cost": cost.share,
            "moved": whole.moved,
            "hint_faults": whole.hint_faults,
        }
        # stopped it would hold the rest of the bar
        looked = whole.hint_faults > 0 and whole.moved > 0
        return Figure(looked and after.value >= before.value and cost.share < 0.03, text, values)

    return Row(
        f"hot120-{kernel}",
        f"hot set of 120 % of DRAM, the third minute, Linux {kernel}",
        "hit ratio not under that without tierd, cost under 3 % of a core after the first minute",
        measure_row,
    )


SIZES = (600, 1200, 2400, 3600)
"""MiB of one process, a sixth of it hot."""
COUNTS = (4, 16)
"""Processes that share 2400 MiB."""
GROWTH_SECONDS = 150.0


def growth(kernel: str) -> Row:
    """No bar of its own but the steady one at 2400 MiB: it is a table of how the cost grows."""
    plan = [(size, 1) for size in SIZES] + [(2400, count) for count in COUNTS]

    def measure_row(stage: Stage) -> Figure:
        found: dict[str, object] = {}
        shares: dict[tuple[int, int], float] = {}
        for size, count in plan:
            played = run(stage, kernel, _sized(size, count), "tierd", GROWTH_SECONDS)
            cost = played.cost(90, GROWTH_SECONDS)
            shares[size, count] = cost.own_share
            found[f"{count} x {size // count} MiB"] = {
                "own_share": cost.own_share,
                "resident": played.records[-1].tierd_resident,
                "score": played.samples[-1].score,
                "cost": cost.share,
            }
        text = ", ".join(
            f"{count} x {size // count} MiB {share:.1%}" for (size, count), share in shares.items()
        )
        return Figure(0 < shares[2400, 1] <= 0.05 and min(shares.values()) > 0, text, found)

    return Row(
        f"own-cpu-growth-{kernel}",
        f"tierd's own CPU by memory size and process count, emulated, Linux {kernel}",
        "at most 5 % of a core for one process of 2400 MiB",
        measure_row,
        long=True,
    )


def _sized(size: int, count: int) -> Case:
    """A sixth of each process's memory is hot, as in case A."""
    each = size // count
    return Case(
        f"{count}x{each}",
        64,
        extra=("--size", str(each), "--hot", str(each // 6)),
        says=f"{count} processes of {each} MiB",
        copies=count,
    )
