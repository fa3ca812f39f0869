"""First light: a persistent-memory DIMM becomes memory, and a hot process moves to DRAM, end to end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.verify.settings import kernel_settings
from tests.verify.table import Figure, Row, Stage
from tests.vm import host, image, machine, scenario
from tests.vm.guest import Guest
from tests.vm.scenario import CASES, HUGE_CASES, Case, Load

BAR = 0.90
BEFORE_SECONDS = 15
AFTER_SECONDS = 60


def _place(guest: Guest, case: Case) -> tuple[scenario.Sample, scenario.Sample]:
    """The workload's own account of its placement just before tierd starts, and 60 s after it was ready."""
    load = Load(guest, case)
    load.start()
    time.sleep(BEFORE_SECONDS)
    try:
        ready = scenario.start_tierd(guest)
        time.sleep(AFTER_SECONDS + load.report_every)
    finally:
        scenario.stop_tierd(guest)
        samples = load.stop()
    return scenario.score_at(samples, ready), scenario.score_at(samples, ready + AFTER_SECONDS)


def _placement(kernel: str, case: Case) -> Row:
    def measure(stage: Stage) -> Figure:
        before, after = _place(stage.guest(kernel), case)
        text = f"{after.score:.3f} of ideal with tierd, {before.score:.3f} without"
        values: dict[str, object] = {
            "kernel": kernel,
            "hit": after.hit,
            "ideal": after.ideal,
            "score": after.score,
            "score_without": before.score,
        }
        if case.huge:
            return Figure(after.score >= before.score - 0.01, text, values)
        return Figure(after.score >= BAR and after.score > before.score, text, values)

    pages = "huge" if case.huge else "small"
    return Row(
        f"{pages}-{case.name}-{kernel}",
        f"hit ratio / ideal 60 s after tierd starts, {case.title}, Linux {kernel}",
        "not worse than without tierd" if case.huge else f"at least {BAR:.2f}",
        measure,
    )


def _settings(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        guest = stage.guest(kernel)
        before = kernel_settings(guest)
        scenario.start_tierd(guest)
        during = kernel_settings(guest)
        scenario.stop_tierd(guest)
        after = kernel_settings(guest)
        changed = sum(before[path] != during.get(path) for path in before)
        left = [path for path in before if before[path] != after.get(path)]
        text = f"{len(before)} settings compared, {changed} changed while running, {len(left)} not restored"
        if left:
            text += ": " + ", ".join(left)
        return Figure(changed > 0 and not left, text, {"changed": changed, "left": left})

    return Row(
        f"settings-{kernel}",
        f"after `systemctl stop tierd`, every kernel setting as before, Linux {kernel}",
        "0 differ",
        measure,
    )


WRONG = """version: 1
engine: {mode: on, bandwidth: 512, round: 12:30}
processes: {include: [{unit: a.service, unit: b.service}]}
provision: [{name: x, region: {iset_id: region0}, sise: 1GB}]
"""


def _wrong_policy(stage: Stage) -> Figure:
    guest = stage.guest("6.12")
    good = guest.output(f"cat {scenario.POLICY}")
    scenario.start_tierd(guest)
    digest = "busctl get-property org.tierd1 /org/tierd1 org.tierd1.Manager PolicyDigest"
    in_force = guest.output(digest)
    try:
        guest.write(scenario.POLICY, WRONG)
        check = guest.run("tierd --check-config", check=False)
        placed = [line for line in check.stderr.splitlines() if line.startswith(f"{scenario.POLICY}:")]
        lines = {int(line.split(":")[1]) for line in placed}
        reload = guest.run("systemctl reload tierd", check=False)
        kept = guest.output(digest) == in_force and guest.output("systemctl is-active tierd") == "active"
        scenario.stop_tierd(guest)
        guest.run("systemctl start tierd", check=False)
        status = guest.output("systemctl show -P ExecMainStatus tierd")
    finally:
        guest.write(scenario.POLICY, good + "\n")
        guest.run("systemctl reset-failed tierd; systemctl stop tierd", check=False)
    holds = (
        check.returncode == 78 and lines == {2, 3, 4} and reload.returncode != 0 and kept and status == "78"
    )
    return Figure(
        holds,
        f"check-config exit {check.returncode}, {len(placed)} errors on lines {sorted(lines)}; reload exit "
        f"{reload.returncode}, old policy {'kept' if kept else 'LOST'}; start exits {status}",
        {"errors": placed},
    )


def _bare(stage: Stage) -> Figure:
    """No PMEM and no second node: a server with DRAM only. No root: an ordinary user on the same server."""
    from tests.dev import package

    stage.close()
    bare = machine.Machine(kernel="6.12", pmem=(), hmat=False)
    said: dict[str, str] = {}
    with machine.boot(bare) as guest:
        guest.install_tierd(package.build())
        guest.run("useradd -m someone")
        guest.run("systemctl start tierd", timeout=120)
        for what, command in (
            ("status without PMEM", "tierctl status"),
            ("provision plan without PMEM", "tierctl provision plan"),
            ("status as a user", "runuser -u someone -- tierctl status"),
            ("provision plan as a user", "runuser -u someone -- tierctl provision plan"),
            ("daemon as a user", "runuser -u someone -- tierd"),
            ("status line of the unit", "systemctl show -P StatusText tierd"),
            ("status without the daemon", "systemctl stop tierd; tierctl status"),
            ("journal", "journalctl -u tierd -o cat --no-pager"),
        ):
            done = guest.run(command, check=False, timeout=60)
            said[what] = (done.stdout + done.stderr).strip()
            print(
                f"    -- {what}\n" + "\n".join(f"       {line}" for line in said[what].splitlines()),
                flush=True,
            )
    tracebacks = [what for what, text in said.items() if "Traceback" in text]
    silent = [what for what, text in said.items() if not text]
    named = "memory tier" in said["status without PMEM"] and "memory tier" in said["status line of the unit"]
    return Figure(
        not tracebacks and not silent and named,
        f"{len(said)} situations, {len(tracebacks)} tracebacks, {len(silent)} silent, "
        f"missing tier {'named' if named else 'NOT named'}",
        {"said": said},
    )


def _demo(stage: Stage) -> Figure:
    """On a fresh clone with an empty cache, then again."""
    stage.close()
    with tempfile.TemporaryDirectory(prefix="tierd-fresh-") as scratch:
        clone = Path(scratch) / "tierd"
        subprocess.run(["git", "clone", "-q", host.ROOT, clone], check=True)
        environment = os.environ | {"TIERD_CACHE": str(Path(scratch) / "cache")}
        minutes, codes = [], []
        for _ in range(2):
            begun = time.monotonic()
            done = subprocess.run(["./dev", "demo"], cwd=clone, env=environment, stdin=subprocess.DEVNULL)
            minutes.append((time.monotonic() - begun) / 60)
            codes.append(done.returncode)
        drawn = (clone / "demo.png").exists()
        if drawn:
            shutil.copy(clone / "demo.png", host.ROOT / "tests/results/demo.png")
    return Figure(
        codes == [0, 0] and minutes[0] < 12 and minutes[1] < 6 and drawn,
        f"exit {codes[0]} after {minutes[0]:.1f} min, again exit {codes[1]} after {minutes[1]:.1f} min",
        {"minutes": minutes},
    )


def _tests(stage: Stage) -> Figure:
    stage.close()
    begun = time.monotonic()
    done = subprocess.run(["./dev", "test"], cwd=host.ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    minutes = (time.monotonic() - begun) / 60
    return Figure(
        done.returncode == 0 and minutes < 30,
        f"exit {done.returncode} after {minutes:.1f} min",
        {"minutes": minutes},
    )


ROWS = (
    *(_placement(kernel, case) for kernel in image.kernel_names() for case in CASES.values()),
    *(_placement(kernel, case) for kernel in image.kernel_names() for case in HUGE_CASES.values()),
    *(_settings(kernel) for kernel in image.kernel_names()),
    Row("wrong-policy", "wrong policy: all errors with line and column, and the old policy stays",
        "exit 78, reload fails", _wrong_policy),
    Row("bare-machine", "no PMEM, no NUMA, no root: one line says what is missing and what still works",
        "no traceback", _bare),
    Row("demo", "`./dev demo` on a fresh clone, nothing set up by hand",
        "exit 0, under 12 minutes, then under 6", _demo, long=True),
    Row("tests", "`./dev test`", "passes, under 30 minutes on 2 cores", _tests, long=True),
)  # fmt: skip
