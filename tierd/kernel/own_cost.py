"""What tierd itself costs, so that an operator can hold it to its promise."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

import psutil

from tierd.errors import GoneError
from tierd.kernel.files import read_int, read_text
from tierd.kernel.paths import Root
from tierd.kernel.processes import read_cgroup


@dataclass(frozen=True, slots=True)
class OwnCost:
    """cpu_seconds: user and system time since the daemon started. resident_bytes: its resident memory
    now."""

    cpu_seconds: float = 0.0
    resident_bytes: int = 0


def read_own_cost() -> OwnCost | None:
    """The cost of the calling process; None when it cannot be read, as where no file can be opened."""
    try:
        process = _own()
        times = process.cpu_times()
        return OwnCost(times.user + times.system, process.memory_info().rss)
    except (psutil.Error, OSError):
        return None


def read_own_room(root: Root) -> int | None:
    """Bytes that the calling process's cgroup may have beyond what it has; None when it has no limit of its
    own. Raises GoneError, DeniedError, MalformedError."""
    cgroup = root.cgroup / read_cgroup(root, os.getpid()).lstrip("/")
    try:
        if read_text(cgroup / "memory.max").strip() == "max":
            return None
    except GoneError:
        return None  # without the memory controller there is no limit
    return read_int(cgroup / "memory.max") - read_int(cgroup / "memory.current")


@functools.cache
def _own() -> psutil.Process:
    return psutil.Process()
