"""What is shown of the runs: a table for people, JSON for machines, and the data of a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from tests.bench.measure import BEFORE_SECONDS, WARM_SECONDS, Run

PAGE = 4096
MIB = 1 << 20
FIRST_SECONDS = 45.0
"""The time at which contenders are compared while they are still at work."""
COLUMNS = (
    *(("contender", 10), ("start", 8), (f"{FIRST_SECONDS:.0f} s", 8), ("end", 8), ("/ ideal", 8)),
    *(("/ kernel", 9), ("moved", 10), ("faults/s", 9), ("cost, 1st min", 14), ("cost after", 11)),
    *(("own CPU", 8), ("kernel CPU", 11)),
)
NOTES = """\
start, 45 s, end: share of accesses that find DRAM, before the contender starts, 45 s after it was ready, and
as a mean of the last 20 s; for servers the requests a second that their clients saw, which under emulation
say little. / ideal: the best placement in the DRAM that the process holds. moved: by the kernel's count,
both ways, compaction included. cost: hint faults at 2 us and moved pages at 3 us, as a share of one core.
own CPU: tierd's service; kernel CPU: kswapd, kdamond, kcompactd and khugepaged; both emulated, from the
second minute on."""


def table(runs: Sequence[Run]) -> Iterator[str]:
    """The lines of the table, one block a workload."""
    for title, group in _by_workload(runs):
        yield ""
        yield title
        yield "".join(f"{name:>{width}}" for name, width in COLUMNS)
        kernel = _end_of(group, "kernel")
        for run in group:
            if run.skipped:
                yield f"{run.contender.name:>10}  not run: {run.skipped}"
                continue
            cells = zip(_row(run, kernel), COLUMNS, strict=True)
            yield "".join(f"{cell:>{width}}" for cell, (_, width) in cells)
            if run.settings_left:
                yield f"{'':10}  LEFT CHANGED: {', '.join(run.settings_left)}"


def summary(run: Run, kernel: float | None = None) -> dict[str, Any]:
    """The run's figures by name. kernel: the value that the kernel's own tiering came to at the end."""
    if run.skipped:
        return {"skipped": run.skipped}
    steady = min(WARM_SECONDS, run.seconds / 2)
    whole, first, after = run.cost(0, run.seconds), run.cost(0, steady), run.cost(steady, run.seconds)
    end = run.end()
    return {
        "start": run.at(0).value,
        "first": run.at(FIRST_SECONDS).value,
        "end": end.value,
        "ideal": end.ideal or None,
        "of_ideal": end.value / end.ideal if end.ideal else None,
        "of_kernel": end.value / kernel if kernel else None,
        "moved_bytes": whole.moved * PAGE,
        "hint_faults_per_second": whole.hint_faults / whole.seconds,
        "cost_first": first.share,
        "cost_after": after.share,
        "own_share": after.own_share,
        "kernel_threads_share": after.thread_seconds / after.seconds,
        "settings_left": list(run.settings_left),
    }


def document(runs: Sequence[Run], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything, as kept in JSON. facts: what is common to all runs: command, date, commit, machine."""
    kernels = {title: _end_of(group, "kernel") for title, group in _by_workload(runs)}
    return {
        **facts,
        "runs": [
            {
                "workload": run.workload.name,
                "title": run.workload.title,
                "unit": run.workload.unit,
                "contender": run.contender.name,
                "what": run.contender.says,
                "seconds": run.seconds,
                "figures": summary(run, kernels[run.workload.title]),
                "points": [
                    [round(point.time - run.began, 1), round(point.value, 4), round(point.ideal, 4)]
                    for point in run.points
                ],
                "costs": list(_costs(run)),
            }
            for run in runs
        ],
    }


def picture(runs: Sequence[Run], title: str) -> dict[str, Any]:
    """Data for tests.dev.picture: a panel a workload, a line a contender."""
    panels = []
    for heading, group in _by_workload(runs):
        ran = [run for run in group if run.points]
        if not ran:
            continue
        ideals = [run.end().ideal for run in ran if run.end().ideal]
        panel: dict[str, Any] = {
            "title": heading,
            # each contender holds its own amount of DRAM, so the line is what the best of them could reach
            "ideal": max(ideals) if ideals else None,
            "lines": [
                {
                    "label": run.contender.name,
                    "points": [[point.time - run.began, point.value] for point in run.points],
                }
                for run in ran
            ],
        }
        if ran[0].workload.unit != "hit":
            panel["axis"] = ran[0].workload.unit
        panels.append(panel)
    return {"title": title, "panels": panels}


def _by_workload(runs: Iterable[Run]) -> list[tuple[str, list[Run]]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.workload.title, []).append(run)
    return list(groups.items())


def _end_of(group: Iterable[Run], contender: str) -> float | None:
    return next((run.end().value for run in group if run.contender.name == contender and run.points), None)


def _row(run: Run, kernel: float | None) -> tuple[str, ...]:
    figures = summary(run, kernel)

    def value(name: str) -> str:
        amount = figures[name]
        if amount is None:
            return "-"
        return f"{amount:.3f}" if run.workload.unit == "hit" or name.startswith("of_") else f"{amount:.0f}"

    return (
        run.contender.name,
        *(value(name) for name in ("start", "first", "end", "of_ideal", "of_kernel")),
        f"{figures['moved_bytes'] / MIB:.0f} MiB",
        f"{figures['hint_faults_per_second']:.0f}",
        *(
            f"{figures[name]:.2%}"
            for name in ("cost_first", "cost_after", "own_share", "kernel_threads_share")
        ),
    )


def _costs(run: Run, step: float = 10.0) -> Iterator[dict[str, Any]]:
    """The cost in steps of so many seconds, beginning before the contender does."""
    begin = -BEFORE_SECONDS
    while begin < run.seconds:
        try:
            cost = run.cost(begin, begin + step)
        except ValueError:
            cost = None
        if cost:
            facts = {name: round(value, 3) for name, value in asdict(cost).items()}
            yield {"from": begin, "share": round(cost.share, 5), **facts}
        begin += step
