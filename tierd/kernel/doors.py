"""The doors: kernel files and events that only root may open, opened once and handed to the daemon.

The daemon runs as an ordinary user. What it may do as root is exactly this list and nothing else:

lru_gen: debugfs; read generations, age them, demote the oldest (multi-generational LRU).
split_huge_pages: debugfs; split a range's huge pages.
scan_*: debugfs, sched/numa_balancing; how fast the kernel unmaps pages to see who comes.
demotion_enabled: sysfs; whether reclaim moves pages to the slow tier instead of dropping them. On while the
policy says place.
perf.N: the page-fault event of CPU N, not yet enabled; opening it takes CAP_SYS_ADMIN on Debian.
PEBS.N, IBS.N: the memory sampling event of CPU N, likewise, where the CPU has one.
DAMON.N: the tracepoint through which DAMON reports, on CPU N. damon_state.N, damon_target.N: whether tierd's
own monitor N runs, and which process it watches. Where nobody else uses DAMON, in case nothing better sees.

kernel.numa_balancing is not among them: the kernel checks who writes, not who opened, so the helper does.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from tierd.core.state import MissingFeature
from tierd.errors import TierdError, UnsupportedError, in_words
from tierd.kernel import damon, perf_event
from tierd.kernel.files import parse_list, read_int, read_text
from tierd.kernel.paths import Root
from tierd.kernel.perf_event import HardwareEvent
from tierd.kernel.scanning import SCAN_DOORS
from tierd.kernel.settings import Ledger

PERF_PREFIX = "perf."
SOURCE_VARIABLE: Final = "TIERD_SOURCE"
"""Environment variable of tierd.service, for a drop-in: the name of the one source that may be used, as
operators know it. Read by the helper and by the daemon."""
HINT_FAULTS: Final = "hint faults"

_LACKING = (errno.ENOSYS, errno.ENOENT, errno.EOPNOTSUPP)
"""Errors of perf_event_open(2) for an event that the kernel or the CPU does not have."""

_NO_HINT_FAULTS = "hint faults cannot be seen: tierd places by a lesser source, or not at all"
_NO_AGING = "cold pages cannot be told from warm ones, so no room is made in DRAM"
_NO_SPLIT = "huge pages are moved whole or not at all"


def open_doors(
    root: Root,
    *,
    written_down: Callable[[Path], bool] | None = None,
    open_event: Callable[[int], int] = perf_event.open_fault_event,
    open_hardware_event: Callable[[HardwareEvent, int], int] = perf_event.open_hardware_event,
) -> tuple[dict[str, int], tuple[MissingFeature, ...]]:
    """Open every door there is. Called by the helper, as root.

    written_down: whether the old value of a kernel setting (scan_*, demotion_enabled) is,
    so that what the daemon sets can be put back; other settings get no door. None: no setting gets one.
    open_event: opens the fault event of a CPU, open_hardware_event another event of it; both raise OSError.
    Returns descriptors by name (close-on-exec, the caller's to close) and what is missing, each thing once.
    Mounts debugfs when it is not mounted. Raises nothing for a door that cannot be opened.
    """
    doors: dict[str, int] = {}
    missing: list[MissingFeature] = []
    closed = mount_debugfs(root)
    if closed is not None:
        missing.append(closed)
    else:
        missing += _open_debugfs(root, doors, written_down)
    if written_down is not None:
        missing += _open_group(
            doors,
            {"demotion_enabled": root.demotion_enabled},
            "demotion by the kernel",
            "no page can be moved down to make room",
            "boot a kernel built with CONFIG_NUMA and CONFIG_MIGRATION",
            written_down,
        )
    cpus = online_cpus(root)
    missing += _open_events(doors, cpus, open_event)
    # last, so that where descriptors are short it is these that are
    missing += _open_hardware_events(root, doors, cpus, open_hardware_event)
    return doors, tuple(missing)


def _open_debugfs(
    root: Root, doors: dict[str, int], written_down: Callable[[Path], bool] | None
) -> Iterable[MissingFeature]:
    yield from _open_group(
        doors,
        {"lru_gen": root.generations},
        "multi-generational LRU",
        _NO_AGING,
        "boot a kernel built with CONFIG_LRU_GEN",
    )
    yield from _open_group(
        doors,
        {"split_huge_pages": root.split_huge_pages},
        "splitting of huge pages",
        _NO_SPLIT,
        "boot a kernel built with CONFIG_TRANSPARENT_HUGEPAGE",
    )
    if written_down is not None:
        yield from _open_group(
            doors,
            {name: root.scan_settings / name for name in SCAN_DOORS},
            "scan rate of NUMA balancing",
            "hint faults come at the kernel's own rate, and placement improves slowly",
            "boot a kernel built with CONFIG_NUMA_BALANCING",
            written_down,
        )


def online_cpus(root: Root) -> tuple[int, ...]:
    """CPUs that are online, from sysfs; the helper's own affinity may be narrower."""
    try:
        return parse_list(read_text(root.online_cpus))
    except (TierdError, ValueError):
        return tuple(sorted(os.sched_getaffinity(0)))


def _open_group(
    doors: dict[str, int],
    paths: dict[str, Path],
    feature: str,
    loss: str,
    remedy: str,
    may_open: Callable[[Path], bool] | None = None,
) -> Iterable[MissingFeature]:
    """Open `paths` by name into `doors`; one MissingFeature for all that fail."""
    for name, path in paths.items():
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return (MissingFeature(f"{feature} ({path} does not exist)", loss, remedy),)
        except OSError as error:
            return (
                MissingFeature(
                    f"{feature} ({path}: {error.strerror})",
                    loss,
                    "let root open the file; a security module or the unit's sandbox forbids it",
                ),
            )
        if may_open is not None and not may_open(path):
            os.close(descriptor)
            return (
                MissingFeature(
                    f"{feature} (the old value of {path} is not written down)",
                    loss,
                    "let root read the file and restart tierd.service",
                ),
            )
        doors[name] = descriptor
    return ()


def _open_events(
    doors: dict[str, int], cpus: tuple[int, ...], open_event: Callable[[int], int]
) -> Iterable[MissingFeature]:
    failed: list[int] = []
    reason: OSError | None = None
    for cpu in cpus:
        try:
            doors[f"{PERF_PREFIX}{cpu}"] = open_event(cpu)
        except OSError as error:
            if error.errno == errno.ENODEV:  # went offline since the list was read
                continue
            failed.append(cpu)
            reason = error
    if reason is None:
        return ()
    where = "on every CPU" if len(failed) == len(cpus) else "on CPUs " + ",".join(map(str, failed))
    return (
        MissingFeature(
            f"page-fault events {where} ({reason.strerror})", _NO_HINT_FAULTS, _event_remedy(reason)
        ),
    )


def _open_hardware_events(
    root: Root,
    doors: dict[str, int],
    cpus: tuple[int, ...],
    open_event: Callable[[HardwareEvent, int], int],
) -> Iterable[MissingFeature]:
    """Where a CPU has sampling of its own. What it lacks is no missing feature: hint faults come first.

    All CPUs or none: pages used on a CPU that is not sampled would look cold.
    """
    for find in perf_event.FINDERS.values():
        try:
            event = find(root)
        except UnsupportedError:
            continue
        opened: dict[str, int] = {}
        for cpu in cpus:
            try:
                opened[f"{event.name}.{cpu}"] = open_event(event, cpu)
            except OSError as error:
                if error.errno == errno.ENODEV:  # went offline since the list was read
                    continue
                if opened or error.errno not in _LACKING:
                    yield MissingFeature(
                        f"{event.name} on CPU {cpu} ({error.strerror})",
                        f"{event.name} is not used on any CPU, and only hint faults show who uses what",
                        _event_remedy(error),
                    )
                for descriptor in opened.values():
                    os.close(descriptor)
                opened = {}
                break
        doors.update(opened)


def open_monitors(
    root: Root,
    doors: dict[str, int],
    ledger: Ledger,
    only: str = "",
    open_event: Callable[[int, int], int] = perf_event.open_trace_event,
) -> MissingFeature | None:
    """Set DAMON up and add its doors to `doors`; `helper begin` takes it away when the daemon has chosen
    another source. What is missing when DAMON cannot be had, and `doors` do not suffice to see who uses slow
    memory. Called by the helper, as root. Raises OSError for the ledger.

    only: the one source that may be used, empty when all may. open_event: opens a tracepoint on a CPU;
    raises OSError.
    """
    if only not in ("", damon.NAME):
        return None
    needed = bool(only) or not _others_suffice(root, doors)
    opened: dict[str, int] = {}
    try:
        trouble = damon.damon_trouble(root)
        if trouble:
            return _without_damon(trouble) if needed else None
        number = read_int(root.trace_events / "damon/damon_aggregated/id")
        damon.set_up_monitors(root, ledger)
        for name, path in damon.monitor_doors(root).items():
            opened[name] = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        for cpu in online_cpus(root):
            opened[f"{damon.EVENT_PREFIX}{cpu}"] = open_event(number, cpu)
    except (TierdError, OSError) as error:
        for descriptor in opened.values():
            os.close(descriptor)
        damon.give_back(ledger)
        return _without_damon(in_words(error)) if needed else None
    doors.update(opened)
    return None


def _others_suffice(root: Root, doors: dict[str, int]) -> bool:
    hint_faults = SCAN_DOORS[-1] in doors and root.numa_balancing.exists()
    return (hint_faults and any(name.startswith(PERF_PREFIX) for name in doors)) or any(
        name.startswith(f"{event}.") for event in perf_event.FINDERS for name in doors
    )


def _without_damon(trouble: str) -> MissingFeature:
    remedy = "boot a kernel built with CONFIG_NUMA_BALANCING, which is better, or with CONFIG_DAMON_SYSFS"
    if trouble == "in use by damon_stat":
        remedy = "echo N > /sys/module/damon_stat/parameters/enabled, then systemctl restart tierd"
    elif trouble.startswith("in use"):
        remedy = "end that use of DAMON, then systemctl restart tierd"
    return MissingFeature(
        f"DAMON, in the place of hint faults ({trouble})", "nothing is known of who uses slow memory", remedy
    )


def _event_remedy(error: OSError) -> str:
    if error.errno in _LACKING:
        return "boot a kernel built with CONFIG_PERF_EVENTS"
    if error.errno == errno.EMFILE:
        return "raise LimitNOFILE= of tierd.service above the number of events, two or three for each CPU"
    return "let root open perf events; a security module or the container forbids it"


def mount_debugfs(root: Root) -> MissingFeature | None:
    """Mount debugfs unless it is mounted. Why it cannot be used as a whole, None when it can.

    Called by the helper before it writes down the settings in there. Raises nothing.
    """
    debugfs = root.scan_settings.parent.parent
    loss = f"{_NO_AGING}; {_NO_SPLIT}; the scan rate stays the kernel's"
    locked = _lockdown(root)
    if locked:
        return MissingFeature(
            f"debugfs (closed by kernel lockdown, level {locked})",
            loss,
            "boot without lockdown= and Secure Boot, or live with slower placement",
        )
    if not debugfs.is_dir():
        return MissingFeature(
            f"debugfs ({debugfs} does not exist)", loss, "boot a kernel built with CONFIG_DEBUG_FS"
        )
    try:
        if any(debugfs.iterdir()):
            return None
        _mount_debugfs(debugfs)
    except OSError as error:
        return MissingFeature(
            f"debugfs (cannot be mounted on {debugfs}: {error.strerror})",
            loss,
            "systemctl start sys-kernel-debug.mount",
        )
    return None


def _lockdown(root: Root) -> str:
    """The level of kernel lockdown, empty when there is none. ``none [integrity] confidentiality``"""
    try:
        text = (root.sys / "kernel/security/lockdown").read_text(encoding="ascii")
    except OSError:
        return ""
    level = text.partition("[")[2].partition("]")[0]
    return "" if level == "none" else level


def _mount_debugfs(target: Path) -> None:
    """mount(2), with the flags of systemd's sys-kernel-debug.mount. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = 2 | 4 | 8  # MS_NOSUID | MS_NODEV | MS_NOEXEC, include/uapi/linux/mount.h
    if libc.mount(b"debugfs", os.fsencode(target), b"debugfs", ctypes.c_ulong(flags), None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(target))
