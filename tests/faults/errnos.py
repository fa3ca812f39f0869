"""The kernel says no: each errno at each call that the daemon makes, by strace's injection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.faults import inject
from tests.faults.case import MIB, SETTINGS, Case, Scene, Seen
from tests.vm.guest import GuestError

SECONDS = 4
"""For which calls go on to fail after the first has."""
WAITED = 45
"""Seconds for the first."""
ENOMEM_SECONDS, ENOMEM_CALLS = 20, 30
"""Calls of move_pages that find DRAM full end a round's moves to it: one a round and node, and rounds are a
second apart or more."""
BATCH = 4 * MIB
"""What may still come up of a round that had begun."""
_READ = "openat,pread64,read"
_DEBUG = "/sys/kernel/debug"
"""The daemon's mount namespace does not have it: there the paths of what was opened for it begin anew."""
_LOAD = "/sys/fs/cgroup/system.slice/load.service"


@dataclass(frozen=True)
class Refusal:
    """A call, or several, and how it fails in turn. path: on this file alone, {pid} being the load's. stops:
    nothing may be moved meanwhile."""

    name: str
    catalogue: str
    calls: str
    errnos: Sequence[str]
    path: str = ""
    stops: bool = False

    @property
    def promise(self) -> str:
        what = f"{self.calls} of {self.path}" if self.path else self.calls
        ending = ", nothing is moved meanwhile" if self.stops else ""
        return f"{what} refused, by {', '.join(self.errnos)}{ending}"


REFUSALS = (
    Refusal("move-pages", "C2", "move_pages",
            ("EACCES", "EPERM", "ESRCH", "EINVAL", "ENODEV", "EFAULT", "EINTR"), stops=True),
    Refusal("open", "D10", "openat", ("EMFILE", "ENOMEM", "EACCES", "EIO")),
    Refusal("pressure", "D10", _READ, ("EACCES", "EIO"), "/proc/pressure/memory", stops=True),
    Refusal("zoneinfo", "D10", _READ, ("EACCES", "EIO"), "/proc/zoneinfo"),
    Refusal("vmstat", "D10", _READ, ("EACCES", "EIO"), "/proc/vmstat"),
    Refusal("node0-meminfo", "D10", _READ, ("EACCES", "EIO"), "/sys/devices/system/node/node0/meminfo"),
    Refusal("node1-meminfo", "D10", _READ, ("EACCES", "EIO"), "/sys/devices/system/node/node1/meminfo"),
    Refusal("members", "D10", _READ, ("EACCES", "EIO"), f"{_LOAD}/cgroup.procs"),
    Refusal("stat", "D10", _READ, ("EACCES", "EIO"), "/proc/{pid}/stat"),
    Refusal("statm", "D10", _READ, ("EACCES", "EIO"), "/proc/{pid}/statm"),
    Refusal("generations-read", "D10", "pread64,read", ("EIO", "EPERM"), "/sys/kernel/debug/lru_gen"),
    Refusal("generations-write", "C2", "write", ("EINVAL", "EBUSY", "EPERM"), "/sys/kernel/debug/lru_gen"),
    Refusal("scanning", "C2", "write", ("EINVAL", "EPERM"),
            "/sys/kernel/debug/sched/numa_balancing/scan_size_mb"),
    Refusal("pidfd", "E1", "pidfd_open", ("EMFILE", "EPERM")),
    Refusal("send", "G9", "sendmsg,sendto", ("EAGAIN", "ENOBUFS")),
)  # fmt: skip


def _refused(refusal: Refusal) -> Callable[[Scene], Seen]:
    def play(scene: Scene) -> Seen:
        guest, calls, faults, reached = scene.guest, 0, [], 0
        path = refusal.path.format(pid=guest.output("systemctl show -P MainPID load"))
        paths = sorted({path, path.removeprefix(_DEBUG)} - {""})
        for error in refusal.errnos:
            fault = f"{refusal.calls}:error={error}"
            with inject.strace(guest, fault, *paths) as injected:
                if not refusal.stops:
                    scene.newcomer()  # some work to do
                    _wait(injected)
                    guest.run(f"sleep {SECONDS}")
                else:
                    faults += _moves(scene, injected, error)
            calls += injected.calls
            reached += injected.calls > 0
        if reached < len(refusal.errnos):
            faults.append("the rest were never returned")
        return Seen(calls, faults, f"{reached} of {len(refusal.errnos)} errnos, each alone")

    return play


def _wait(injected: inject.Injected) -> None:
    """For the first call that fails; that there was none is told by the count."""
    try:
        injected.wait(seconds=WAITED)
    except GuestError:
        return


def _moves(scene: Scene, injected: inject.Injected, error: str) -> list[str]:
    """What came up while nothing could."""
    before = scene.newcomer()
    _wait(injected)
    first = scene.gained(before)
    scene.guest.run(f"sleep {SECONDS}")
    gained = scene.gained(before) - first
    return [f"{gained >> 20} MiB came up in spite of {error}"] if gained > BATCH else []


def _no_memory(scene: Scene) -> Seen:
    before = scene.newcomer()
    with inject.strace(scene.guest, "move_pages:error=ENOMEM") as injected:
        _wait(injected)
        scene.guest.run(f"sleep {ENOMEM_SECONDS}", timeout=120)
        gained = scene.gained(before)
        log = injected.log()
    # what only asks where pages are has NULL for the nodes
    calls = sum("INJECTED" in line and "MPOL_MF_MOVE" in line for line in log.splitlines())
    faults = [f"{calls} calls in {ENOMEM_SECONDS} s"] if calls > ENOMEM_CALLS else []
    if gained > BATCH:
        faults.append(f"{gained >> 20} MiB came up in spite of ENOMEM")
    return Seen(injected.calls, faults, f"{calls} calls to move in {ENOMEM_SECONDS} s")


CASES = (
    Case("enomem", "D5", "DRAM that is full ends a round's moves to it", _no_memory),
    *(Case(found.name, found.catalogue, found.promise, _refused(found)) for found in REFUSALS),
    SETTINGS,
)
