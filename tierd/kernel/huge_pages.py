"""Which parts of a process are huge pages, splitting them into small ones, and making small ones huge.

Recency is kept for a whole huge page, so a lukewarm one looks hotter than a hot small page; in a cgroup that
contends for DRAM they are split, and every 4 KiB finds its own place. What turned out to belong together is
made huge again.

khugepaged makes huge pages as well, of any range in which one page was used lately, on the node that holds
most of the range (hpage_collapse_scan_pmd, mm/khugepaged.c): it cannot tell a range that tierd split because
half of it is cold. It looks at 16 MiB every 10 seconds, of all processes together (pages_to_scan,
scan_sleep_millisecs), so it is left alone, and what it makes in a contended cgroup is split again. Its
settings hold for the whole machine, and slowing it down would cost processes that fit into DRAM.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.core.model import HUGE_PAGE_SIZE, PAGES_PER_HUGE_PAGE, ProcessId
from tierd.errors import DeniedError, GoneError, UnsupportedError
from tierd.kernel.files import read_text
from tierd.kernel.paths import Root
from tierd.kernel.syscalls import call

# include/uapi/linux/fs.h
_PAGEMAP_SCAN: Final = 0xC0606610
_PAGE_IS_HUGE: Final = 0x40
_HUGE_IN_MAPPING = re.compile(r"^(?:AnonHugePages|ShmemPmdMapped|FilePmdMapped): +[1-9]", re.MULTILINE)
_PERHAPS_SECONDS: Final = 5.0
"""For which an answer of `perhaps_huge` holds."""
_VECTOR: Final = 1024
_RANGE_SHIFT: Final = np.uint64(HUGE_PAGE_SIZE.bit_length() - 1)
_PAGE_TO_RANGE: Final = np.uint64(PAGES_PER_HUGE_PAGE.bit_length() - 1)
# Documentation/admin-guide/mm/pagemap.rst
_PRESENT: Final = np.uint64(1 << 63)
_FILE: Final = np.uint64(1 << 61)
_EXCLUSIVE: Final = np.uint64(1 << 56)
_MADV_COLLAPSE: Final = 25
"""include/uapi/asm-generic/mman-common.h; Linux 6.1."""
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


def huge_ranges(root: Root, pid: int, within: Iterable[Range] | None = None) -> tuple[Range, ...]:
    """Ranges that are mapped by huge pages now (ioctl PAGEMAP_SCAN, Linux 6.7), in all of the process or
    `within` some ranges.

    Raises UnsupportedError where the kernel has no such ioctl, GoneError, DeniedError.
    """
    path = root.proc / str(pid) / "pagemap"
    with open_pagemap(root, pid) as descriptor:
        try:
            looked_at = private_mappings(root, pid) if within is None else within
            return tuple(found for part in looked_at for found in _scan(descriptor, part))
        except OSError as error:
            if error.errno == errno.ENOTTY:
                raise UnsupportedError(
                    "this kernel has no PAGEMAP_SCAN (Linux 6.7): huge pages are not told apart"
                ) from None
            raise GoneError(f"{path}: {error.strerror}") from error


@contextmanager
def open_pagemap(root: Root, pid: int) -> Iterator[int]:
    """Its descriptor, for a `with` block. Raises GoneError, DeniedError."""
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
        yield descriptor
    finally:
        os.close(descriptor)


def perhaps_huge(root: Root, pid: int) -> tuple[Range, ...]:
    """Mappings that hold huge pages somewhere, for kernels that do not say where (smaps). Costs 12 ms a GiB
    of small pages. Raises GoneError, DeniedError."""
    text = read_text(root.proc / str(pid) / "smaps")
    starts = list(_MAPPING.finditer(text))
    ends = [following.start() for following in starts[1:]] + [len(text)]
    return tuple(
        Range(int(header[1], 16), int(header[2], 16))
        for header, end in zip(starts, ends, strict=True)
        if _HUGE_IN_MAPPING.search(text, header.end(), end)
    )


class HugePageFinder:
    """Tells which pages are part of a huge page. Owned by the mover."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._perhaps: dict[ProcessId, tuple[float, npt.NDArray[np.uint64]]] = {}

    def among(self, process: ProcessId, pages: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Which of `pages` (virtual page numbers) are mapped by a huge page. Linux 6.1 does not say: there
        all pages of a mapping that holds some are taken for such. Raises GoneError, DeniedError."""
        ranges = np.unique(pages >> _PAGE_TO_RANGE)
        breaks = np.flatnonzero(np.diff(ranges) > 1) + 1
        runs = [
            Range(int(run[0]) << int(_RANGE_SHIFT), (int(run[-1]) + 1) << int(_RANGE_SHIFT))
            for run in np.split(ranges, breaks)
            if len(run)
        ]
        try:
            huge = huge_ranges(self._root, process.pid, runs)
        except UnsupportedError:
            bounds = self._mappings(process)
        else:
            bounds = _bounds(huge)
        # an odd number of bounds at or below an address: it is within a range
        before = np.searchsorted(bounds, pages << np.uint64(12), side="right")
        return (before & 1).astype(np.bool_)

    def _mappings(self, process: ProcessId) -> npt.NDArray[np.uint64]:
        now = time.monotonic()
        self._perhaps = {p: seen for p, seen in self._perhaps.items() if seen[0] + _PERHAPS_SECONDS > now}
        if process not in self._perhaps:
            self._perhaps[process] = (now, _bounds(perhaps_huge(self._root, process.pid)))
        return self._perhaps[process][1]


def _bounds(ranges: Iterable[Range]) -> npt.NDArray[np.uint64]:
    """Start and end of each range, in order of address."""
    return np.array([bound for part in ranges for bound in (part.start, part.end)], dtype=np.uint64)


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


def is_private(root: Root, pid: int, start: int) -> bool:
    """Whether all of the 2 MiB at `start` is there, anonymous, and mapped by this process alone (pagemap).
    Raises GoneError, DeniedError."""
    with open_pagemap(root, pid) as descriptor:
        try:
            data = os.pread(descriptor, 8 * PAGES_PER_HUGE_PAGE, start >> 12 << 3)
        except OSError as error:
            raise GoneError(f"pagemap of process {pid}: {error.strerror}") from error
    entries = np.frombuffer(data[: len(data) // 8 * 8], dtype="<u8")
    wanted = _PRESENT | _EXCLUSIVE
    return len(entries) == PAGES_PER_HUGE_PAGE and bool(((entries & (wanted | _FILE)) == wanted).all())


def collapse(process: int, start: int) -> None:
    """Make one huge page of the 2 MiB at `start`, on the node that holds most of them: MADV_COLLAPSE.

    process: a pidfd. Needs CAP_SYS_NICE beside CAP_SYS_PTRACE. The kernel copies the pages, those shared
    with other processes too, so the caller asks `is_private` first. Raises OSError: EAGAIN (a page is in use
    by the kernel), ENOMEM (no 2 MiB in one piece on that node), EBUSY (the cgroup is at its limit), EINVAL
    (the mapping may not have huge pages), ESRCH, EPERM.
    """
    vector = (ctypes.c_uint64 * 2)(start, HUGE_PAGE_SIZE)
    advised = call(
        "process_madvise",
        ctypes.c_int(process),
        ctypes.byref(vector),
        ctypes.c_size_t(1),
        ctypes.c_int(_MADV_COLLAPSE),
        ctypes.c_uint(0),
    )
    if advised != HUGE_PAGE_SIZE:
        raise OSError(errno.EAGAIN, f"process_madvise: {advised} bytes advised")
