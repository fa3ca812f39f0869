"""Which processes there are, safe against hostile names and reused numbers."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

from tierd.core.model import ProcessId, ProcessView
from tierd.core.policy import ProcessSelection
from tierd.core.text import clean
from tierd.errors import DeniedError, GoneError, MalformedError, TierdError
from tierd.kernel.files import read_bytes, read_int, read_text
from tierd.kernel.paths import Root

_MAXIMUM_COMMAND = 64


def selected_processes(root: Root, selection: ProcessSelection, minimum: int) -> tuple[ProcessView, ...]:
    """Processes with at least `minimum` resident bytes that the policy selects; never tierd itself.

    Walks the cgroup tree and leaves out branches that hold less than `minimum`, so that the cost grows with
    the large processes and not with all. The root cgroup, where systemd leaves kernel threads only, is not
    looked at. Processes that exit meanwhile are left out.
    """
    found = []
    for cgroup in cgroups(root, minimum):
        if not selection.selects(cgroup):
            continue
        try:
            members = read_members(root, cgroup)
        except TierdError:
            continue  # removed, or threaded (EOPNOTSUPP): its processes are listed at the domain above
        for pid in members:
            if pid == os.getpid():
                continue
            try:
                resident = read_resident(root, pid)
                if resident < max(1, minimum):
                    continue
                command, start = _stat(root, pid)
                found.append(
                    ProcessView(ProcessId(pid, start), command, read_owner(root, pid), cgroup, resident)
                )
            except (GoneError, DeniedError, MalformedError):
                continue
    return tuple(found)


def cgroups(root: Root, minimum: int) -> Iterator[str]:
    """Paths (``/a/b``) of cgroups that are charged with at least `minimum` bytes, parents first."""
    # a list and no recursion: a user may nest cgroups deeper than Python's stack
    waiting = [""]
    # there may be thousands of cgroups, and a string is a tenth of the price of a Path
    top = str(root.cgroup)
    while waiting:
        parent = waiting.pop()
        if parent:
            yield parent
        try:
            with os.scandir(top + parent) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # removed meanwhile
        waiting += [path for name in names if _holds(top + (path := f"{parent}/{name}"), minimum)]


def _holds(directory: str, minimum: int) -> bool:
    try:
        return read_int(f"{directory}/memory.current") >= minimum
    except GoneError:
        return True  # without the memory controller nothing is known of its size
    except (DeniedError, MalformedError):
        return False


def read_members(root: Root, cgroup: str) -> tuple[int, ...]:
    """The numbers of the processes of `cgroup`. Raises GoneError, DeniedError, MalformedError."""
    text = read_text(root.cgroup / cgroup.lstrip("/") / "cgroup.procs")
    return tuple(int(line) for line in text.split() if line.isdecimal())


def process_numbers(root: Root) -> tuple[int, ...]:
    """The numbers of all processes that there are, in no order."""
    try:
        return tuple(int(name) for name in os.listdir(root.proc) if name.isdecimal())
    except OSError as error:
        raise MalformedError(f"{root.proc}: {error.strerror}") from error


def read_resident(root: Root, pid: int) -> int:
    """Resident bytes of a process. Raises GoneError, DeniedError, MalformedError."""
    path = root.proc / str(pid) / "statm"
    fields = read_text(path).split()
    if len(fields) < 2 or not fields[1].isdecimal():
        raise MalformedError(f"{path}: not a statm line")
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def read_process(root: Root, pid: int) -> ProcessView:
    """One process, whether or not it is placed. Raises GoneError, DeniedError, MalformedError."""
    try:
        command, start = _stat(root, pid)
    except GoneError:
        raise GoneError(f"there is no process {pid}") from None
    cgroup, resident = read_cgroup(root, pid), read_resident(root, pid)
    return ProcessView(ProcessId(pid, start), command, read_owner(root, pid), cgroup, resident)


def same_process(root: Root, process: ProcessId) -> bool:
    """Whether `process.pid` is still the process that was meant."""
    try:
        return _stat(root, process.pid)[1] == process.start
    except (GoneError, DeniedError, MalformedError):
        return False


class ProcessWatch:
    """Whether a process is still there, for one system call each time. The descriptor that it holds is that
    of the process, whoever gets its number next. For `with` blocks.

    Raises GoneError when it is not there any more, or its number is another's.
    """

    def __init__(self, root: Root, process: ProcessId) -> None:
        try:
            self._descriptor = os.pidfd_open(process.pid)
        except OSError as error:
            raise GoneError(f"process {process.pid}: {error.strerror}") from None
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        if not same_process(root, process):
            os.close(self._descriptor)
            raise GoneError(f"process {process.pid} is another one by now")

    def __enter__(self) -> ProcessWatch:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    @property
    def alive(self) -> bool:
        # a pidfd reads as ready once the process has ended
        return not self._poll.poll(0)


def hierarchy_trouble(root: Root) -> str:
    """Why memory cannot be told by cgroup, in words; empty when it can. Where version 1 has the memory
    controller, what lru_gen calls a cgroup is found nowhere, and every rule for it would be passed over."""
    controllers = root.cgroup / "cgroup.controllers"
    try:
        found = read_text(controllers).split()
    except GoneError:
        return f"{root.cgroup} is not the unified hierarchy (cgroup v2), by which memory is told"
    except TierdError as error:
        return str(error)
    if "memory" not in found:
        return f"{controllers} lacks memory: it is switched off (cgroup_disable=memory), or of version 1"
    return ""


def read_cgroup(root: Root, pid: int) -> str:
    """The process's path in the unified hierarchy, ``/a/b``. Raises GoneError, MalformedError."""
    path = root.proc / str(pid) / "cgroup"
    # as a walk of directories spells it
    for line in os.fsdecode(read_bytes(path)).split("\n"):
        if line.startswith("0::"):
            return line[3:]
    raise MalformedError(f"{path}: no cgroup v2 line (tierd needs the unified hierarchy)")


def _stat(root: Root, pid: int) -> tuple[str, int]:
    """Command, fit to be printed, and start time in clock ticks (fields 2 and 22 of proc_pid_stat(5))."""
    path = root.proc / str(pid) / "stat"
    text = read_text(path)
    opening, closing = text.find("("), text.rfind(")")
    fields = text[closing + 2 :].split()
    if opening < 0 or closing < opening or len(fields) < 20 or not fields[19].isdecimal():
        raise MalformedError(f"{path}: not a stat line")
    return clean(text[opening + 1 : closing], _MAXIMUM_COMMAND), int(fields[19])


def read_owner(root: Root, pid: int) -> int:
    """The number of the user whose process it is; 0 also for one that its user may not look into. Raises
    GoneError."""
    try:
        return (root.proc / str(pid)).stat().st_uid
    except OSError as error:
        raise GoneError(f"process {pid} exited") from error
