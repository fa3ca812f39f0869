"""The perf events behind the sources of access information. Opened by the helper, as root; read by the
daemon through kernel/perf.py.

Which hardware events there are is asked of sysfs. No machine with PEBS or IBS was at hand: the encodings
are those of the kernel's documentation and event files, and nothing here has run on such a CPU.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from tierd.errors import MalformedError, TierdError, UnsupportedError
from tierd.kernel import syscalls
from tierd.kernel.files import read_int, read_text
from tierd.kernel.paths import Root

# include/uapi/linux/perf_event.h
_TYPE_SOFTWARE: Final = 1
_TYPE_TRACEPOINT: Final = 2
_COUNT_PAGE_FAULTS: Final = 2
_SAMPLE_TID_TIME_ADDR_CPU: Final = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 7
_SAMPLE_TID_TIME_RAW: Final = 1 << 1 | 1 << 2 | 1 << 10
_SAMPLE_DATA_SRC: Final = 1 << 15
_SAMPLE_PHYS_ADDR: Final = 1 << 19
_FLAG_DISABLED: Final = 1 << 0
_FLAG_EXCLUDE_KERNEL: Final = 1 << 5
_FLAG_EXCLUDE_HYPERVISOR: Final = 1 << 6
_FLAG_PRECISE: Final = 2 << 15
"""precise_ip 2: the sample must be of the instruction that made the access, which is what PEBS is."""
_FLAG_USE_CLOCKID: Final = 1 << 25
_CLOCK_MONOTONIC: Final = 1
_ATTRIBUTE_SIZE: Final = 112
"""PERF_ATTR_SIZE_VER5, with clockid and without what these events do not use; every kernel since 4.1 takes
it."""

PEBS: Final = "PEBS"
IBS: Final = "IBS"

LOAD_LATENCY: Final = 30
"""Cycles. Loads that took less are not sampled: L1 and L2 served them (`perf mem` takes 30 as well)."""
PERIODS: Final = {PEBS: 10_007, IBS: 100_000}
"""Events between two samples. PEBS counts loads over the latency; a prime, so that loops do not fall into
step with it. IBS counts every operation, and takes multiples of 16 only (arch/x86/events/amd/ibs.c)."""


@dataclass(frozen=True, slots=True)
class HardwareEvent:
    """One CPU's memory sampling event. `name` is PEBS or IBS; the rest as in struct perf_event_attr."""

    name: str
    type: int
    config: int
    config1: int
    period: int
    flags: int


def open_fault_event(cpu: int) -> int:
    """The page-fault event of every process on `cpu`, not yet enabled. Called by the helper, as root, since
    Debian ties it to CAP_SYS_ADMIN (perf_event_paranoid 3). Raises OSError."""
    return syscalls.perf_event_open(
        _attributes(_TYPE_SOFTWARE, _COUNT_PAGE_FAULTS, 0, 1, _SAMPLE_TID_TIME_ADDR_CPU, 0), -1, cpu
    )


def open_hardware_event(event: HardwareEvent, cpu: int) -> int:
    """`event` of every process on `cpu`, not yet enabled. Called by the helper, as root. Raises OSError."""
    sample = _SAMPLE_TID_TIME_ADDR_CPU | _SAMPLE_DATA_SRC | _SAMPLE_PHYS_ADDR
    attributes = _attributes(event.type, event.config, event.config1, event.period, sample, event.flags)
    return syscalls.perf_event_open(attributes, -1, cpu)


def open_trace_event(number: int, cpu: int) -> int:
    """The tracepoint that tracefs calls `number`, whenever it is passed on `cpu`, not yet enabled. Its
    samples carry what it records (kernel/perf.py: trace_layout). Called by the helper, as root. Raises
    OSError."""
    return syscalls.perf_event_open(
        _attributes(_TYPE_TRACEPOINT, number, 0, 1, _SAMPLE_TID_TIME_RAW, 0), -1, cpu
    )


def _attributes(kind: int, config: int, config1: int, period: int, sample: int, flags: int) -> bytes:
    """struct perf_event_attr, disabled, with times of CLOCK_MONOTONIC."""
    return struct.pack(
        "<IIQQQQQIiQQQQIiQII",
        kind,
        _ATTRIBUTE_SIZE,
        config,
        period,
        sample,
        0,
        flags | _FLAG_DISABLED | _FLAG_USE_CLOCKID,
        0,
        0,
        config1,
        0,
        0,
        0,
        0,
        _CLOCK_MONOTONIC,
        0,
        0,
        0,
    )


def find_pebs(root: Root) -> HardwareEvent:
    """The load-latency event of Intel CPUs. Raises UnsupportedError with the reason when there is none."""
    device = root.event_sources / "cpu"
    if not (device / "events/mem-loads").exists():
        raise UnsupportedError("not in this CPU, or hidden")
    if (device / "events/mem-loads-aux").exists():
        raise UnsupportedError("this CPU wants an auxiliary event before it, which tierd does not open")
    try:
        terms = {**_terms(read_text(device / "events/mem-loads")), "ldlat": LOAD_LATENCY}
        words = _encode(root, "cpu", terms)
        kind = read_int(device / "type")
    except TierdError as error:
        raise UnsupportedError(str(error)) from error
    flags = _FLAG_EXCLUDE_KERNEL | _FLAG_EXCLUDE_HYPERVISOR | _FLAG_PRECISE
    return HardwareEvent(PEBS, kind, words["config"], words["config1"], PERIODS[PEBS], flags)


def find_ibs(root: Root) -> HardwareEvent:
    """The op event of AMD CPUs. Raises UnsupportedError with the reason when there is none."""
    device = root.event_sources / "ibs_op"
    if not device.exists():
        raise UnsupportedError("not in this CPU, or hidden")
    terms = {"cnt_ctl": 1}  # count operations, not cycles: a stalled CPU must not be sampled more
    if (device / "format/l3missonly").exists():
        terms["l3missonly"] = 1
    try:
        words = _encode(root, "ibs_op", terms)
        kind = read_int(device / "type")
    except TierdError as error:
        raise UnsupportedError(str(error)) from error
    # it filters neither kernel nor hypervisor, and refuses an event that asks for it
    return HardwareEvent(IBS, kind, words["config"], words["config1"], PERIODS[IBS], 0)


FINDERS: Final = {PEBS: find_pebs, IBS: find_ibs}


def _terms(text: str) -> dict[str, int]:
    """``event=0xcd,umask=0x1,ldlat=3`` as numbers. Raises MalformedError."""
    found = {}
    for term in text.strip().split(","):
        name, _, value = term.partition("=")
        try:
            found[name] = int(value or "1", 0)
        except ValueError:
            raise MalformedError(f"not an event's term: {term[:40]!r}") from None
    return found


def _encode(root: Root, device: str, terms: dict[str, int]) -> dict[str, int]:
    """Where the device's format files say that the terms go: ``config:0-7``. Raises MalformedError,
    GoneError."""
    words = {"config": 0, "config1": 0}
    for name, value in terms.items():
        path = root.event_sources / device / "format" / name
        place = re.fullmatch(r"(config1?):(\d+)(?:-(\d+))?\s*", read_text(path))
        if not place:
            raise MalformedError(f"{path}: not a place in an event")
        first, last = int(place[2]), int(place[3] or place[2])
        if value >> (last - first + 1):
            raise MalformedError(f"{path}: {value} does not fit")
        words[place[1]] |= value << first
    return words
