"""Which processes there are, safe against hostile names and reused numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from tierd.core.model import ProcessId, ProcessView
from tierd.core.policy import ProcessSelection
from tierd.errors import DeniedError, GoneError, MalformedError
from tierd.kernel.files import read_text
from tierd.kernel.paths import Root

_MAXIMUM_COMMAND = 64


def selected_processes(root: Root, selection: ProcessSelection, minimum: int) -> tuple[ProcessView, ...]:
    """Processes with at least `minimum` resident bytes that the policy selects; never tierd itself and never
    a kernel thread (it has no resident memory). Processes that exit meanwhile are left out."""
    found = []
    for pid in _pids(root):
        if pid == os.getpid():
            continue
        try:
            resident = _resident(root, pid)
            if resident == 0 or resident < minimum:
                continue
            cgroup = read_cgroup(root, pid)
            if not selection.selects(cgroup):
                continue
            command, start = _stat(root, pid)
            found.append(ProcessView(ProcessId(pid, start), command, _owner(root, pid), cgroup, resident))
        except (GoneError, DeniedError):
            continue
    return tuple(found)


def same_process(root: Root, process: ProcessId) -> bool:
    """Whether `process.pid` is still the process that was meant."""
    try:
        return _stat(root, process.pid)[1] == process.start
    except (GoneError, DeniedError, MalformedError):
        return False


def read_cgroup(root: Root, pid: int) -> str:
    """The process's path in the unified hierarchy, ``/a/b``. Raises GoneError, MalformedError."""
    path = root.proc / str(pid) / "cgroup"
    for line in read_text(path).split("\n"):
        if line.startswith("0::"):
            return line[3:]
    raise MalformedError(f"{path}: no cgroup v2 line (tierd needs the unified hierarchy)")


def _pids(root: Root) -> Iterator[int]:
    if root.path == Path("/"):
        yield from psutil.pids()
    else:
        yield from sorted(int(p.name) for p in root.proc.iterdir() if p.name.isdigit())


def _stat(root: Root, pid: int) -> tuple[str, int]:
    """Command, fit to be printed, and start time in clock ticks (fields 2 and 22 of proc_pid_stat(5))."""
    path = root.proc / str(pid) / "stat"
    text = read_text(path)
    opening, closing = text.find("("), text.rfind(")")
    fields = text[closing + 2 :].split()
    if opening < 0 or closing < opening or len(fields) < 20:
        raise MalformedError(f"{path}: not a stat line")
    command = text[opening + 1 : closing]
    printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in command)
    return printable[:_MAXIMUM_COMMAND], int(fields[19])


def _resident(root: Root, pid: int) -> int:
    path = root.proc / str(pid) / "statm"
    fields = read_text(path).split()
    if len(fields) < 2:
        raise MalformedError(f"{path}: not a statm line")
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _owner(root: Root, pid: int) -> int:
    try:
        return (root.proc / str(pid)).stat().st_uid
    except OSError as error:
        raise GoneError(f"process {pid} exited") from error
