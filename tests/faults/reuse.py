"""Runs in the guest: processes that tierd places end, and others that it must leave alone get their numbers.

usage: reuse.py TIMES CGROUP. A child in CGROUP, which the policy names, uses one page in each of its huge
pages on the slow node; it is killed, and the next child, which stays where this program is, gets its number
and as much memory. Prints one JSON line: how many numbers were used again, how often huge pages of a
newcomer were split or came to DRAM, and how often those of the one before had been. Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import sys
import time
from pathlib import Path

SIZE = 32 << 20
HUGE = 2 << 20
OLD_SECONDS, NEW_SECONDS = 7.0, 4.0
"""What the daemon needs to see a process and to plan for it, and to get to what it has planned."""
SET_MEMPOLICY, PREFERRED = 238, 1  # x86-64; linux/mempolicy.h
libc = ctypes.CDLL(None, use_errno=True)


def prefer(node: int | None) -> None:
    mask = ctypes.c_ulong(0 if node is None else 1 << node)
    libc.syscall(SET_MEMPOLICY, 0 if node is None else PREFERRED, ctypes.byref(mask), 64)


def live(cgroup: str) -> None:
    """A child, until it is killed."""
    if cgroup:
        Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
    prefer(1)
    memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    for at in range(0, SIZE, mmap.PAGESIZE):
        memory[at] = 1
    prefer(None)
    while True:
        for at in range(0, SIZE, HUGE):
            memory[at] = 2
        time.sleep(0.05)


def child(cgroup: str) -> int:
    pid = os.fork()
    if not pid:
        live(cgroup)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def huge_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("AnonHugePages:"):
            return int(line.split()[1]) << 10
    return 0


def in_dram(pid: int) -> int:
    """Pages on node 0 of mappings that have any huge page on node 1: the memory that is looked at."""
    found = 0
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        words = dict(word.partition("=")[::2] for word in line.split()[2:])
        if int(words.get("N1", 0)) >= HUGE // mmap.PAGESIZE:
            found += int(words.get("N0", 0))
    return found


def main() -> None:
    times, cgroup = int(sys.argv[1]), sys.argv[2]
    used = split = moved = placed = 0
    for _ in range(times):
        old = child(cgroup)
        time.sleep(OLD_SECONDS)
        placed += huge_bytes(old) < SIZE // 2 or in_dram(old) > 0
        end(old)
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(old - 1))
        new = child("")
        if new == old:
            time.sleep(1.0)
            huge, dram = huge_bytes(new), in_dram(new)
            time.sleep(NEW_SECONDS)
            used += 1
            split += huge_bytes(new) < huge
            moved += in_dram(new) > dram
        end(new)
    print(json.dumps({"used": used, "split": split, "moved": moved, "placed": placed}), flush=True)


if __name__ == "__main__":
    main()
