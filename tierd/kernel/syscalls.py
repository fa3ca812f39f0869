"""The system calls that Python lacks, with errno turned into OSError. No policy here, and no numpy: the
helper that runs before the daemon has to start fast."""

from __future__ import annotations

import ctypes
import os
import platform
import stat
import struct
from typing import Final

# arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h
_NUMBERS: Final = {
    "x86_64": {"move_pages": 279, "perf_event_open": 298, "process_madvise": 440},
    "aarch64": {"move_pages": 239, "perf_event_open": 241, "process_madvise": 440},
}


# include/uapi/linux/fcntl.h and include/uapi/linux/stat.h
_AT_FDCWD: Final = -100
_DO_NOT_ASK: Final = 0x4000
"""AT_STATX_DONT_SYNC: what the kernel knows, whether or not a server would say otherwise."""
_TYPE: Final = 1
_STATX: Final = struct.Struct("<28xH98xII120x")
"""stx_mode, stx_rdev_major and stx_rdev_minor of struct statx."""

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


def device_number(path: str | os.PathLike[str]) -> str:
    """``MAJOR:MINOR`` of the block or character device that `path` leads to, empty when it is none.

    stat(2) would wait for the server of a network file system for as long as that does not answer; what
    kind of file something is does not change. Called by kernel/in_use.py. Raises OSError.
    """
    found = ctypes.create_string_buffer(_STATX.size)
    name = os.fsencode(path)
    if _libc.statx(_AT_FDCWD, name, _DO_NOT_ASK, ctypes.c_uint(_TYPE), found):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fspath(path))
    mode, major, minor = _STATX.unpack(found.raw)
    return f"{major}:{minor}" if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) else ""
