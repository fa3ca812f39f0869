"""Files that are memory and have no name (memfd_create(2)): what outlives the process that wrote it, as long
as somebody else holds its descriptor."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable
from typing import Final

from tierd.errors import MalformedError

_NOEXEC_SEAL: Final = 0x8
"""MFD_NOEXEC_SEAL, Linux 6.3, which os has from Python 3.13 on: without it the kernel logs a warning, and
refuses where vm.memfd_noexec is 2."""
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def write_memory_file(name: str, pieces: Iterable[memoryview]) -> int:
    """A descriptor of a file with this content, which nobody can change any more; the caller's to close.
    name: shown in /proc/PID/fd. Its memory is charged to the calling process's cgroup. Raises OSError."""
    descriptor = _create(name)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.writelines(pieces)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _create(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, flags)


def read_memory_file(descriptor: int, most: int) -> bytes:
    """All of it, wherever it is being read. Raises OSError, and MalformedError where it is no file, or has
    more than `most` bytes."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise MalformedError("it is no file")
    if status.st_size > most:
        raise MalformedError(f"it has {status.st_size >> 20} MiB, and {most >> 20} MiB is the most")
    return os.pread(descriptor, status.st_size, 0)
