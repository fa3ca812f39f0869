"""`./dev bench`: tierd, the kernel's own tiering, DAMON and none of them, in turn on one server."""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench import measure, report
from tests.bench.contenders import CONTENDERS
from tests.bench.workloads import WORKLOADS, Workload
from tests.dev import package, picture
from tests.vm import host, image, machine, scenario

RESULTS = host.ROOT / "tests" / "bench" / "results"
USUAL = ("A", "B")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description="Run contenders in turn at the same workloads on one server. Prints a table, and keeps "
        f"it with a picture in {RESULTS.relative_to(host.ROOT)}.",
        epilog="A run takes the workload's start, about a minute, and --seconds.",
    )
    parser.add_argument("--kernel", default="7.3", choices=image.kernel_names())
    parser.add_argument(
        "--workload", action="append", choices=[*WORKLOADS, "all"], metavar="NAME",
        help=f"may be repeated; usual: {' '.join(USUAL)}; all: {' '.join(WORKLOADS)}",
    )  # fmt: skip
    parser.add_argument(
        "--contender", action="append", choices=CONTENDERS, help="may be repeated (usual: all)"
    )
    parser.add_argument("--seconds", type=float, default=120, help="for which a contender is watched")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    parser.add_argument("--list", action="store_true", help="name workloads and contenders, and run none")
    return parser


def main(argv: list[str]) -> int:
    """Called by `./dev bench`. Exit code 1 when a contender left a kernel setting changed."""
    parser = _parser()
    asked = parser.parse_args(argv)
    if asked.list:
        for name, workload in WORKLOADS.items():
            print(f"{name:12} {workload.title}")
        for name, contender in CONTENDERS.items():
            print(f"{name:12} {contender.says}")
        return 0
    if asked.seconds < 30:
        parser.error("--seconds: at least 30, or nothing has happened yet")
    names = asked.workload or list(USUAL)
    names = list(WORKLOADS) if "all" in names else list(dict.fromkeys(names))
    contenders = list(dict.fromkeys(asked.contender or CONTENDERS))
    host.prepare()
    deb = package.build()
    runs = []
    for run in _runs(asked.kernel, [WORKLOADS[name] for name in names], contenders, asked.seconds, deb):
        runs.append(run)
        print("\n".join(report.table([run])), flush=True)
        # kept after each run, so that one that is cut short keeps what it measured
        _keep(runs, asked, names, contenders, argv)
    print("\n" + "\n".join(report.table(runs)) + "\n\n" + report.NOTES)
    if asked.json:
        asked.json.write_text(_target(asked.kernel, names, contenders).with_suffix(".json").read_text())
    return 1 if any(run.settings_left for run in runs) else 0


def _runs(
    kernel: str, workloads: list[Workload], contenders: list[str], seconds: float, deb: Path
) -> Iterator[measure.Run]:
    """Boot once for each image that is needed, and measure."""
    for recipe in dict.fromkeys(workload.recipe for workload in workloads):
        with machine.boot(machine.Machine(kernel=kernel, recipe=recipe)) as guest:
            region = guest.prepare_labels()
            guest.install_tierd(deb)
            scenario.make_memory(guest, region)
            for workload in (w for w in workloads if w.recipe == recipe):
                for name in contenders:
                    host.say(f"{workload.title}: {name}")
                    yield measure.play(guest, region, workload, CONTENDERS[name], seconds)


def _target(kernel: str, names: list[str], contenders: list[str]) -> Path:
    """Where the result is kept, without suffix: the same run renews what the last one left."""
    who = "" if contenders == list(CONTENDERS) else "-" + "-".join(contenders)
    what = "all" if names == list(WORKLOADS) else "+".join(names)
    return RESULTS / f"{kernel}-{what}{who}.result"


def _keep(
    runs: list[measure.Run],
    asked: argparse.Namespace,
    names: list[str],
    contenders: list[str],
    argv: list[str],
) -> None:
    release = image.image().release(asked.kernel)
    facts: dict[str, Any] = {
        "command": shlex.join(["./dev", "bench", *argv]),
        "date": time.strftime("%Y-%m-%d"),
        "commit": host.commit(),
        "kernel": release,
        "acceleration": machine.acceleration()[1],
        "processor": platform.machine(),
        "dram_mib": machine.Machine().dram,
        "pmem_mib": list(machine.Machine().pmem),
    }
    target = _target(asked.kernel, names, contenders)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".json").write_text(json.dumps(report.document(runs, facts), indent=1) + "\n")
    drawn = report.picture(runs, f"Where processes find their memory, Linux {release}")
    if drawn["panels"]:
        picture.draw(drawn, target.with_suffix(".png"))
