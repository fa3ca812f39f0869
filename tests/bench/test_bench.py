"""What the benchmark makes of its runs, without a guest."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.bench import damon, report, workloads
from tests.bench.contenders import CONTENDERS
from tests.bench.measure import Run
from tests.bench.workloads import WORKLOADS, Point
from tests.verify.engine_rows.endurance import floor_bytes
from tests.verify.engine_rows.runs import converged_at
from tests.vm import records
from tests.vm.records import Record
from tests.vm.scenario import Sample

BEGAN = 1000.0


def record(seconds: float, *, faults: int = 0, moved: int = 0, own: float = 0.0, **more: float) -> Record:
    counters = {"numa_hint_faults": faults, "pgmigrate_success": moved, "pgdemote_direct": moved // 2}
    return Record(BEGAN + seconds, 1 << 28, counters, {"0": 1}, own, 1 << 20, {"kswapd0-9": own, **more})


def run(contender: str, end: float, workload: str = "A") -> Run:
    """120 s in which the hit ratio grows from 0.35, at 1000 faults and 100 moved pages a second for the
    first minute."""
    points = [Point(BEGAN + t, min(end, 0.35 + max(t, 0) * 0.01), 0.9) for t in range(-15, 121, 5)]
    worked = [min(max(t, 0), 60) for t in range(-15, 121)]
    recorded = [
        record(t, faults=1000 * done, moved=100 * done, own=0.1 * done)
        for t, done in zip(range(-15, 121), worked, strict=True)
    ]
    samples = [Sample(p.time, p.value, p.ideal, 10, 20, 5, 0) for p in points]
    return Run(
        WORKLOADS[workload],
        CONTENDERS[contender],
        120,
        BEGAN,
        tuple(points),
        tuple(samples),
        tuple(recorded),
    )


def test_cost_is_counts_at_the_prices_of_hardware() -> None:
    cost = records.between(record(0), record(10, faults=50_000, moved=10_000, own=0.5))
    assert cost.share == pytest.approx((50_000 * 2e-6 + 10_000 * 3e-6) / 10)
    assert cost.demoted == 5_000
    assert cost.own_share == pytest.approx(0.05)
    assert cost.moved_bytes_per_minute == 10_000 * 4096 * 6


def test_pages_that_only_compaction_moves_change_no_tier() -> None:
    first, last = record(0), record(10, moved=8_000)
    last.vmstat["pgdemote_direct"] = 1_000
    assert records.between(first, last).between_tiers == 2_000, "one came up for each that went down"
    gained = replace(last, occupancy={"0": 1 + 500 * 4096})
    assert records.between(first, gained).between_tiers == 2_500
    lost = replace(last, occupancy={"0": 1 - 1_000 * 4096})
    assert records.between(first, lost).between_tiers == 1_000


def test_service_that_was_started_again_costs_from_zero() -> None:
    assert records.between(record(0, own=7.0), record(10, own=2.0)).tierd_seconds == 2.0


def test_window_with_one_record_is_no_window() -> None:
    with pytest.raises(ValueError, match="fewer than two records"):
        records.window([record(0), record(30)], BEGAN + 20, BEGAN + 40)


def test_summary_tells_the_first_minute_from_the_rest() -> None:
    figures = report.summary(run("tierd", 0.84), kernel=0.6)
    assert figures["start"] == 0.35
    assert figures["end"] == pytest.approx(0.84)
    assert figures["first"] == pytest.approx(0.8)
    assert figures["of_ideal"] == pytest.approx(0.84 / 0.9)
    assert figures["of_kernel"] == pytest.approx(1.4)
    assert figures["cost_first"] == pytest.approx(1000 * 2e-6 + 100 * 3e-6)
    assert figures["cost_after"] == figures["own_share"] == 0
    assert figures["moved_bytes"] == 6000 * 4096


def test_table_compares_with_the_kernel_of_the_same_workload() -> None:
    skipped = Run(WORKLOADS["A"], CONTENDERS["damon"], 120, skipped="its DAMON has no goals")
    lines = list(report.table([run("kernel", 0.6), skipped, run("tierd", 0.9), run("tierd", 0.8, "B")]))
    of_tierd = [line for line in lines if line.strip().startswith("tierd")]
    assert "1.500" in of_tierd[0]
    assert " - " in of_tierd[1], "there is no kernel run of case B"
    assert any("damon" in line and "not run: its DAMON has no goals" in line for line in lines)


def test_table_shouts_about_a_setting_that_was_left() -> None:
    left = replace(run("kernel", 0.6), settings_left=("/proc/sys/kernel/numa_balancing",))
    assert any("LEFT CHANGED: /proc/sys/kernel/numa_balancing" in line for line in report.table([left]))


def test_document_and_picture_are_json_of_every_run() -> None:
    runs = [run("none", 0.35), run("tierd", 0.9), run("tierd", 0.8, "B")]
    kept = json.loads(json.dumps(report.document(runs, {"command": "./dev bench"})))
    assert [entry["contender"] for entry in kept["runs"]] == ["none", "tierd", "tierd"]
    assert kept["runs"][1]["points"][-1] == [120.0, 0.9, 0.9]
    assert kept["runs"][1]["costs"][2]["hint_faults"] > 0
    drawn = json.loads(json.dumps(report.picture(runs, "title")))
    assert [len(panel["lines"]) for panel in drawn["panels"]] == [2, 1]


def test_converged_at_looks_after_the_start_only() -> None:
    good = run("tierd", 0.9)
    first = replace(good.samples[0], hit=0.9)
    assert converged_at(replace(good, samples=(first, *good.samples[1:]))) == 55
    assert converged_at(run("none", 0.35)) is None


IOMEM = """00001000-0009ffff : System RAM
00100000-4fffffff : System RAM
  01000000-01ffffff : Kernel code
140000000-23fffffff : Persistent Memory
  140000000-23fffffff : dax0.0
    148000000-237ffffff : System RAM (kmem)
"""


def test_ranges_of_physical_memory() -> None:
    memory = damon.parse_memory(IOMEM)
    assert memory == [(0x1000, 0xA0000), (0x100000, 0x50000000), (0x148000000, 0x238000000)]
    assert damon.merge(iter([(8, 9), (0, 4), (4, 6), (5, 7)])) == [(0, 7), (8, 9)]


ZONEINFO = """Node 0, zone      DMA
  pages free     2816
        min      60
        low      75
        high     90
Node 0, zone    DMA32
  pages free     200000
        high     1000
        high:    5
Node 1, zone  Movable
  pages free     3
        high     7000
"""


def test_floor_is_twice_the_watermarks_and_32_mib() -> None:
    assert floor_bytes(ZONEINFO) == 2 * 1090 * 4096 + (32 << 20)


def test_every_case_has_arguments_of_its_own() -> None:
    cases = [workloads.ZIPF, workloads.SCAN, workloads.more_hot(120), workloads.phases(workloads.ZIPF, 60)]
    assert len({tuple(case.arguments()) for case in cases}) == len(cases)
    assert workloads.more_hot(120).arguments()[-1] == "1536"
    assert "--zipf" in workloads.phases(workloads.ZIPF, 60).arguments()
