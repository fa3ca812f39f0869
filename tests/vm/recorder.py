"""Runs in the guest, beside what is measured: writes down the kernel's counters every so often, one JSON
line each, so that nothing has to be asked for from outside meanwhile.

Called through tests.vm.records.Recorder. Standard library only, because it runs on the guest's own Python.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

COUNTERS = ("numa_", "pgmigrate_", "pgpromote_", "pgdemote_", "thp_split_", "thp_collapse_alloc", "oom_kill")
"""Beginnings of the names in /proc/vmstat that are kept."""
THREADS = ("kswapd", "kdamond", "kcompactd", "khugepaged")
"""Beginnings of the names of kernel threads whose time is a contender's own cost."""
TIERD = Path("/sys/fs/cgroup/tierd.slice/tierd.service")
_TICK = os.sysconf("SC_CLK_TCK")
_THREAD_SECONDS = 10.0
"""Between two looks for kernel threads: they are few and seldom new."""


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def vmstat() -> dict[str, int]:
    pairs = (line.split() for line in _read("/proc/vmstat").splitlines())
    return {name: int(value) for name, value in pairs if name.startswith(COUNTERS)}


def free_bytes(node: int) -> int:
    for line in _read(f"/sys/devices/system/node/node{node}/meminfo").splitlines():
        if "MemFree:" in line:
            return int(line.split()[3]) * 1024
    return 0


def occupancy(cgroup: Path) -> dict[str, int]:
    """Bytes of the cgroup's anonymous and file memory (shared memory is file memory), by node."""
    found: dict[str, int] = {}
    for line in _read(cgroup / "memory.numa_stat").splitlines():
        kind, *nodes = line.split()
        for node, _, amount in (word.partition("=") for word in nodes if kind in ("anon", "file")):
            found[node.removeprefix("N")] = found.get(node.removeprefix("N"), 0) + int(amount)
    return found


def tierd_seconds() -> float:
    for line in _read(TIERD / "cpu.stat").splitlines():
        if line.startswith("usage_usec"):
            return int(line.split()[1]) / 1e6
    return 0.0


def tierd_resident() -> int:
    total = 0
    for pid in _read(TIERD / "cgroup.procs").split():
        fields = _read(f"/proc/{pid}/statm").split()
        total += int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0
    return total


def kernel_threads() -> dict[str, str]:
    """Path of the stat file by the thread's name."""
    found = {}
    for path in Path("/proc").iterdir():
        name = _read(path / "comm").strip() if path.name.isdecimal() else ""
        if name.startswith(THREADS):
            found[f"{name}-{path.name}"] = f"{path}/stat"
    return found


def thread_seconds(path: str) -> float:
    fields = _read(path).rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK if fields else 0.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--cgroup", type=Path, required=True)
    parser.add_argument("--node", type=int, default=0)
    asked = parser.parse_args()
    threads: dict[str, str] = {}
    looked = -_THREAD_SECONDS
    due = time.monotonic()
    while True:
        now = time.monotonic()
        if now - looked >= _THREAD_SECONDS:
            threads, looked = kernel_threads(), now
        record = {
            "time": round(now, 3),
            "free": free_bytes(asked.node),
            "vmstat": vmstat(),
            "occupancy": occupancy(asked.cgroup),
            "tierd_seconds": tierd_seconds(),
            "tierd_resident": tierd_resident(),
            "thread_seconds": {name: thread_seconds(path) for name, path in threads.items()},
        }
        print(json.dumps(record), flush=True)
        due = max(due + asked.every, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
