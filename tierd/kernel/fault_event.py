"""The perf event behind the fault stream. Opened by the helper, as root; read by the daemon through
kernel/perf.py."""

from __future__ import annotations

import struct
from typing import Final

from tierd.kernel import syscalls

# include/uapi/linux/perf_event.h
_TYPE_SOFTWARE: Final = 1
_COUNT_PAGE_FAULTS: Final = 2
_SAMPLE_TID_TIME_ADDR: Final = 1 << 1 | 1 << 2 | 1 << 3
_FLAG_DISABLED: Final = 1 << 0
_FLAG_USE_CLOCKID: Final = 1 << 25
_CLOCK_MONOTONIC: Final = 1
_ATTRIBUTE_SIZE: Final = 112
"""PERF_ATTR_SIZE_VER5, with clockid and without what this event does not use; every kernel since 4.1 takes
it."""


def open_fault_event(cpu: int) -> int:
    """The page-fault event of every process on `cpu`, not yet enabled. Called by the helper, as root, since
    Debian ties it to CAP_SYS_ADMIN (perf_event_paranoid 3). Raises OSError."""
    attributes = struct.pack(
        "<IIQQQQQIIQQQQIiQII",
        _TYPE_SOFTWARE,
        _ATTRIBUTE_SIZE,
        _COUNT_PAGE_FAULTS,
        1,
        _SAMPLE_TID_TIME_ADDR,
        0,
        _FLAG_DISABLED | _FLAG_USE_CLOCKID,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        _CLOCK_MONOTONIC,
        0,
        0,
        0,
    )
    return syscalls.perf_event_open(attributes, -1, cpu)
