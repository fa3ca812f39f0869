"""Which parts of a process are huge pages, and splitting them into small ones.

Recency is kept for a whole huge page, so a lukewarm one looks hotter than a hot small page; in a cgroup that
contends for DRAM they are split, and every 4 KiB finds its own place.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tierd.core.model import HUGE_PAGE_SIZE
from tierd.errors import DeniedError, GoneError, UnsupportedError
from tierd.kernel.files import read_text
from tierd.kernel.paths import Root

# include/uapi/linux/fs.h
_PAGEMAP_SCAN: Final = 0xC0606610
_PAGE_IS_HUGE: Final = 0x40
_VECTOR: Final = 1024
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes [start, end) of a process's address space."""

    start: int
    end: int

    @property
    def huge_pages(self) -> int:
        return (self.end - self.start) // HUGE_PAGE_SIZE


def private_mappings(root: Root, pid: int) -> Iterator[Range]:
    """Mappings that can hold anonymous huge pages: private, writable, at least 2 MiB. Raises GoneError,
    DeniedError."""
    for start, end, permissions, _ in _MAPPING.findall(read_text(root.proc / str(pid) / "maps")):
        found = Range(int(start, 16), int(end, 16))
        if permissions[1] == "w" and permissions[3] == "p" and found.huge_pages:
            yield found


def huge_ranges(root: Root, pid: int) -> tuple[Range, ...]:
    """Ranges that are mapped by huge pages now (ioctl PAGEMAP_SCAN, Linux 6.7).

    Raises UnsupportedError where the kernel has no such ioctl, GoneError, DeniedError.
    """
    path = root.proc / str(pid) / "pagemap"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise GoneError(f"{path}: process {pid} exited") from None
    except PermissionError:
        raise DeniedError(
            f"{path}: permission denied (needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH)"
        ) from None
    try:
        return tuple(r for mapping in private_mappings(root, pid) for r in _scan(descriptor, mapping))
    except OSError as error:
        if error.errno == errno.ENOTTY:
            raise UnsupportedError(
                "this kernel has no PAGEMAP_SCAN (Linux 6.7): huge pages are not told apart"
            ) from None
        raise GoneError(f"{path}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _scan(descriptor: int, mapping: Range) -> Iterator[Range]:
    vector = bytearray(24 * _VECTOR)
    address = (ctypes.c_char * len(vector)).from_buffer(vector)
    start = mapping.start
    while start < mapping.end:
        argument = bytearray(
            struct.pack(
                "<12Q",
                96, 0, start, mapping.end, 0, ctypes.addressof(address), _VECTOR, 0,
                0, _PAGE_IS_HUGE, 0, _PAGE_IS_HUGE,
            )
        )  # fmt: skip
        count = fcntl.ioctl(descriptor, _PAGEMAP_SCAN, argument)
        for first, last, _ in struct.iter_unpack("<3Q", memoryview(vector)[: 24 * count]):
            yield Range(first, last)
        walked = struct.unpack_from("<Q", argument, 32)[0]
        if walked <= start:
            return
        start = walked


def huge_bytes(root: Root, pid: int) -> int:
    """Bytes of anonymous memory mapped by huge pages (smaps_rollup). Raises GoneError, DeniedError."""
    found = re.search(
        r"^AnonHugePages: +(\d+) kB", read_text(root.proc / str(pid) / "smaps_rollup"), re.MULTILINE
    )
    return int(found[1]) * 1024 if found else 0


def split(descriptor: int, pid: int, target: Range) -> None:
    """Split the huge pages of a range: debugfs split_huge_pages. Pages that are pinned stay. Raises
    OSError."""
    os.write(descriptor, f"{pid},0x{target.start:x},0x{target.end:x}".encode("ascii"))
