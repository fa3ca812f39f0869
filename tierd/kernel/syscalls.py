"""The system calls that Python lacks, with errno turned into OSError. No policy here."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Final

import numpy as np
import numpy.typing as npt

Addresses = npt.NDArray[np.uint64]
Nodes = npt.NDArray[np.int32]

# arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h
_NUMBERS: Final = {
    "x86_64": {"move_pages": 279, "perf_event_open": 298, "process_madvise": 440},
    "aarch64": {"move_pages": 239, "perf_event_open": 241, "process_madvise": 440},
}

MPOL_MF_MOVE: Final = 1 << 1
MADV_COLLAPSE: Final = 25
STATUS_UNKNOWN: Final = -9999
"""What a status holds when the kernel did not write it: a call that ends early leaves it so."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _number(name: str) -> int:
    try:
        return _NUMBERS[platform.machine()][name]
    except KeyError:
        raise OSError(38, f"{name}: no system call number known for {platform.machine()}") from None


def _call(name: str, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(_number(name)), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def query_nodes(pid: int, addresses: Addresses) -> Nodes:
    """The node of each page, or a negative errno (absent, shared zero page, not a mapping). move_pages(2).

    Raises OSError: ESRCH (gone), EPERM, EINVAL (no memory), EINTR (7.x, while the process executes a new program).
    """
    addresses = np.ascontiguousarray(addresses, dtype=np.uint64)
    status = np.full(len(addresses), STATUS_UNKNOWN, dtype=np.int32)
    _call(
        "move_pages",
        ctypes.c_int(pid),
        ctypes.c_ulong(len(addresses)),
        ctypes.c_void_p(addresses.ctypes.data),
        None,
        ctypes.c_void_p(status.ctypes.data),
        ctypes.c_int(0),
    )
    return status


def move_pages(pid: int, addresses: Addresses, node: int) -> tuple[int, Nodes]:
    """Move the pages at `addresses` to `node`; only pages that no other process maps (MPOL_MF_MOVE).

    Returns the call's result (0, or how many were not done) and the status of each page. A result above 0
    means that the call ended early and left the statuses of the run in flight as STATUS_UNKNOWN, those of
    pages that did move among them (do_pages_move, mm/migrate.c). Raises OSError like query_nodes, and
    EACCES (node outside the target's cpuset), ENODEV (node without memory), ENOMEM.
    """
    addresses = np.ascontiguousarray(addresses, dtype=np.uint64)
    nodes = np.full(len(addresses), node, dtype=np.int32)
    status = np.full(len(addresses), STATUS_UNKNOWN, dtype=np.int32)
    result = _call(
        "move_pages",
        ctypes.c_int(pid),
        ctypes.c_ulong(len(addresses)),
        ctypes.c_void_p(addresses.ctypes.data),
        ctypes.c_void_p(nodes.ctypes.data),
        ctypes.c_void_p(status.ctypes.data),
        ctypes.c_int(MPOL_MF_MOVE),
    )
    return result, status


def perf_event_open(attributes: bytes, pid: int, cpu: int) -> int:
    """A perf event of `pid` (-1: all) on `cpu`, close-on-exec. Raises OSError (EACCES: perf_event_paranoid)."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    close_on_exec = 1 << 3
    return _call(
        "perf_event_open",
        buffer,
        ctypes.c_int(pid),
        ctypes.c_int(cpu),
        ctypes.c_int(-1),
        ctypes.c_ulong(close_on_exec),
    )


class _IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def process_madvise(pidfd: int, start: int, length: int, advice: int) -> int:
    """Advise on one range of another process; returns the bytes advised. Needs CAP_SYS_NICE. Raises OSError."""
    vector = _IoVec(start, length)
    return _call(
        "process_madvise",
        ctypes.c_int(pidfd),
        ctypes.byref(vector),
        ctypes.c_ulong(1),
        ctypes.c_int(advice),
        ctypes.c_uint(0),
    )
