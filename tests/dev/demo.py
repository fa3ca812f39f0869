"""`./dev demo`: a server with persistent memory boots, its NVDIMM becomes memory, and a hot process moves to
DRAM while you watch."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.dev import package, picture
from tests.vm import host, image, machine, scenario
from tests.vm.guest import Guest
from tests.vm.scenario import CASES, Case, Load, Sample

BEFORE_SECONDS = 20
"""How long the workload is watched without tierd; its placement does not change by itself."""
PAGE = 4096
MIB = 1 << 20


@dataclass(frozen=True)
class Scene:
    """One case played through. before: reports without tierd; after: with it; ready: when tierd was
    ready."""

    case: Case
    before: list[Sample]
    after: list[Sample]
    ready: float


def main(argv: list[str]) -> int:
    """Called by `./dev demo`. Ends with exit code 0 when tierd made the placement better in each case."""
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__)
    parser.add_argument("--kernel", default="7.3", choices=image.kernel_names(earlier=True))
    parser.add_argument("--seconds", type=int, default=60, help="how long tierd is watched in each case")
    parser.add_argument(
        "--picture", type=Path, default=host.ROOT / "demo.png", help="where the picture goes"
    )
    asked = parser.parse_args(argv)
    started = time.monotonic()
    host.prepare()
    deb = package.build()
    _title("A server with 1.25 GiB of DRAM and a 4 GiB NVDIMM boots")
    with machine.boot(machine.Machine(kernel=asked.kernel)) as guest:
        region = guest.prepare_labels()
        guest.install_tierd(deb)
        _title("The NVDIMM becomes memory")
        guest.write(scenario.POLICY, scenario.policy(region))
        _show(guest, "cat /etc/tierd/tierd.yaml")
        _show(guest, "tierctl provision plan")
        _show(guest, "systemctl start tierd-convert@pmem0")
        _show(guest, "numactl -H | grep -E '(size|free|cpus):'")
        scenes = [_play(guest, case, asked.seconds) for case in CASES.values()]
    _table(scenes)
    picture.draw(_picture_data(scenes, asked.kernel), asked.picture)
    print(f"\nThe picture: {asked.picture}")
    print(f"All of it took {(time.monotonic() - started) / 60:.1f} minutes.")
    return 0 if all(scene.after[-1].hit > scene.before[-1].hit for scene in scenes) else 1


def _play(guest: Guest, case: Case, seconds: int) -> Scene:
    _title(f"A process of 2400 MiB: {case.title}")
    load = Load(guest, case)
    first = load.start()
    print(f"    90 % of its accesses go to 400 MiB; {first.hit:.0%} of them find DRAM. tierd is stopped.")
    _watch(load, BEFORE_SECONDS)
    ready = scenario.start_tierd(guest)
    before = [sample for sample in load.samples() if sample.time < ready]
    print("\n    tierd starts.\n")
    _watch(load, seconds)
    first_scene = case is next(iter(CASES.values()))
    if first_scene:
        _show(guest, "tierctl status")
        _show(guest, "tierctl plan")
        _show(guest, "journalctl -u tierd -o short --no-pager -n 3")
        _show(guest, "busctl get-property org.tierd1 /org/tierd1 org.tierd1.Manager State StatusText")
    samples = load.samples()
    load.stop()
    scenario.stop_tierd(guest)
    return Scene(case, before, [sample for sample in samples if sample.time >= ready], ready)


def _watch(load: Load, seconds: float) -> None:
    heads = ("DRAM hits", "of ideal", "promoted", "demoted", "free DRAM")
    print("    {:>6}  {:>9}  {:>8}  {:>10}  {:>10}  {:>10}".format("time", *heads))
    started = None
    for sample, counters, free in load.watch(seconds):
        started = started or sample.time
        moved = [
            f"{counters[name] * PAGE // MIB} MiB" if name in counters else "-"
            for name in ("PromotedPages", "DemotedPages")
        ]
        print(
            f"    {sample.time - started:4.0f} s  {sample.hit:9.1%}  {sample.score:8.1%}  {moved[0]:>10}  "
            f"{moved[1]:>10}  {free // MIB:6} MiB",
            flush=True,
        )


def _table(scenes: list[Scene]) -> None:
    _title("Accesses that find DRAM")
    print(f"    {'':44}{'before':>8}{'after':>8}{'ideal':>8}{'after / ideal':>15}")
    for scene in scenes:
        before, after = scene.before[-1], scene.after[-1]
        hits = f"{before.hit:8.3f}{after.hit:8.3f}{after.ideal:8.3f}"
        print(f"    {scene.case.title:44}{hits}{after.score:15.3f}")


def _picture_data(scenes: list[Scene], kernel: str) -> dict[str, Any]:
    def line(label: str, samples: list[Sample], origin: float) -> dict[str, Any]:
        return {"label": label, "points": [[sample.time - origin, sample.hit] for sample in samples]}

    return {
        "title": f"Where a process finds its memory, Linux {kernel}",
        "panels": [
            {
                "title": scene.case.title,
                "ideal": scene.after[-1].ideal,
                "lines": [
                    line("tierd stopped", scene.before, scene.before[0].time),
                    line("tierd", [scene.before[-1], *scene.after], scene.before[-1].time),
                ],
            }
            for scene in scenes
        ],
    }


def _title(text: str) -> None:
    print(f"\n== {text}\n", flush=True)


def _show(guest: Guest, command: str) -> None:
    """Run what an operator would type, and show it as a terminal would."""
    print(f"    # {command}")
    done = guest.run(command, timeout=240)
    for text in (done.stdout + done.stderr).splitlines():
        print(f"    {text}")
    print(flush=True)
