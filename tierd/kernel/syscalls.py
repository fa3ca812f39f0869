"""The system calls that Python lacks, with errno turned into OSError. No policy here, and no numpy: the
helper that runs before the daemon has to start fast."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Final

# arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h
_NUMBERS: Final = {
    "x86_64": {"move_pages": 279, "perf_event_open": 298, "process_madvise": 440},
    "aarch64": {"move_pages": 239, "perf_event_open": 241, "process_madvise": 440},
}


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _number(name: str) -> int:
    try:
        return _NUMBERS[platform.machine()][name]
    except KeyError:
        raise OSError(38, f"{name}: no system call number known for {platform.machine()}") from None


def call(name: str, *arguments: object) -> int:
    """The named system call with C arguments. Raises OSError."""
    result = int(_libc.syscall(ctypes.c_long(_number(name)), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def perf_event_open(attributes: bytes, pid: int, cpu: int) -> int:
    """A perf event of `pid` (-1: all) on `cpu`, close-on-exec. Raises OSError (EACCES:
    perf_event_paranoid)."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    close_on_exec = 1 << 3
    return call(
        "perf_event_open",
        buffer,
        ctypes.c_int(pid),
        ctypes.c_int(cpu),
        ctypes.c_int(-1),
        ctypes.c_ulong(close_on_exec),
    )
