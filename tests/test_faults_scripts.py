"""Every case of the fault matrix against a server that answers and does nothing: what it runs there is bash,
and no case holds."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults import case, groups, inject, owners
from tests.verify.table import Row
from tests.vm import host, image, scenario
from tests.vm.guest import Guest, GuestError, Region

REGION = Region("region0", 0x1234, 4 << 30, 4 << 30)
OWNERS = "\n".join(f"{name} {pid} 7f{pid}" for pid, name in enumerate(("plain", "pinned", *owners.WISHES)))
ANSWERS = {
    r"tierctl status --json": "{}",
    r"show-cursor": "cursor: x",
    r"journalctl -u tierd --after": "",
    r"reuse\.py": '{"used": 0, "split": 0, "moved": 0, "placed": 0}',
    r"even,odd": "anon N0=1 N1=2\nanon N0=1 N1=2",
    r"grep '?\^anon": "anon N0=9 N1=9",
    r"cat /proc/zoneinfo": "Node 0, zone Normal\n  high 5000\nNode 1, zone Movable\n  high 30000",
    r"some avg10.*sleep 1": "9999999 2 3.0\n9999999 2 3.0",
    r"cat /run/owner\.txt": OWNERS,
    r"grep '\^plain ": OWNERS.splitlines()[0],
    r"numa_maps \|\| true": "7f0 default N0=2 N1=2",
    r"shuf -n 1": "0\n0",
    r"echo pid ": "pid 1",
    r"cat /sys/bus/nd/devices/region0/size": "1 1",
    r"ndctl list -N": '[{"dev": "namespace0.0", "blockdev": "pmem0", "uuid": "u"}]',
    r"echo \$\(\( ": "1",
    r"df --output": "9000",
    r"get-property .* Counters": '{"data": {"PromotedPages": {"data": 0}, "DemotedPages": {"data": 0}}}',
    r"cpu/online": "0-1",
}
"""What a command prints, by a pattern of it; others print a figure."""
NEVER_SO = r"State:\.T|TracerPid|numa_maps"
"""Conditions that are waited for in vain: that somebody was stopped, or traced, or his pages moved."""


class Idle(Guest):
    """A guest that remembers what was written to it, and does nothing besides."""

    scripts: set[str] = set()
    written: dict[str, str] = {}
    moments = itertools.count(0, 50)

    def run(self, command: str | Sequence[str], **how: Any) -> Any:
        script = command if isinstance(command, str) else shlex.join(command)
        self.scripts.add(script)
        if setting := re.match(r"printf %s (\S+) > (\S+)$", script):
            self.written[setting[2]] = setting[1]
        read = re.match(r"cat (/\S+)$", script)
        text = next((text for what, text in ANSWERS.items() if re.search(what, script, re.DOTALL)), "0")
        if read and read[1] == "/proc/uptime":
            text = f"{next(self.moments)} 0"
        elif read:
            text = self.written.get(read[1], text)
        return SimpleNamespace(stdout=text, stderr="", returncode=0)

    def output(self, command: str | Sequence[str], **how: Any) -> str:
        return str(self.run(command).stdout)

    def wait_for(self, condition: str, **how: Any) -> None:
        self.run(f"until {{ {condition}; }}; do :; done")
        if re.search(NEVER_SO, condition):
            raise GuestError(f"still not so: {condition}")

    def put(self, local: Path, remote: str) -> None:
        assert local.exists()

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        if path.endswith(".sh"):
            self.scripts.add(text)
        if path.endswith(".py"):
            compile(text, path, "exec")

    def region(self, dimm: str = "nmem0") -> Region:
        return REGION


class IdleStage:
    guest = Idle("idle", "7.3", Path("/nowhere"), 0, 1, Path("/nowhere"))

    def ready(self, kernel: str) -> tuple[Guest, Region]:
        return self.guest, REGION

    def free(self, machine: Any) -> tuple[Guest, Region]:
        assert machine.qemu_arguments()
        return self.guest, REGION

    def once(self, key: object, measure: Any) -> Any:
        return measure()

    def close(self) -> None:
        pass


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> IdleStage:
    moments = iter(range(0, 10**9, 5))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(moments)))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    monkeypatch.setattr(inject, "paused", _paused)
    # what every case has in common would hide what each does not see
    monkeypatch.setattr(case, "unhurt", lambda before, after, entries, restarts: [])
    monkeypatch.setattr(scenario, "build_program", lambda name: Path(__file__))
    return IdleStage()


@contextlib.contextmanager
def _paused(guest: Guest) -> Iterator[None]:
    yield


def _holds(row: Row, stage: Any) -> bool:
    try:
        return row.measure(stage).holds
    except (GuestError, host.HostError, ValueError, IndexError):
        return False


def test_no_case_holds_where_nothing_happens_and_all_that_it_runs_is_bash(stage: IdleStage) -> None:
    rows = list(groups.rows(groups.GROUPS, image.kernel_names(earlier=True)))
    held = [row.name for row in rows if _holds(row, stage)]
    assert not held, ", ".join(held)
    wrong = [
        (script, done.stderr)
        for script in sorted(Idle.scripts)
        if (done := subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True)).returncode
    ]
    assert len(Idle.scripts) > 250 and wrong == []
