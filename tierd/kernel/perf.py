"""Page faults as a stream: perf's software page-fault event, one ring buffer for each CPU.

With kernel.numa_balancing=2 the kernel unmaps pages of the slow tier in address order; the next access to
one faults, and that fault is a record here. Fixed-size records are parsed as one numpy array.
"""

from __future__ import annotations

import fcntl
import mmap
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

# include/uapi/linux/perf_event.h
_IOC_ENABLE: Final = 0x2400
_IOC_DISABLE: Final = 0x2401
_RECORD_LOST: Final = 2
_RECORD_SAMPLE: Final = 9
_HEAD_OFFSET: Final = 1024
_TAIL_OFFSET: Final = 1032

RING_PAGES: Final = 128
"""Data pages of a ring: 512 KiB, what perf_event_mlock_kb lets an ordinary user map for each CPU."""

RECORD: Final = np.dtype(
    [
        ("type", "<u4"),
        ("misc", "<u2"),
        ("size", "<u2"),
        ("pid", "<u4"),
        ("tid", "<u4"),
        ("time", "<u8"),
        ("address", "<u8"),
    ]
)


@dataclass(frozen=True, slots=True)
class Faults:
    """Page faults in order of time. pid: int32; page: uint64 virtual page number; time: float64 seconds,
    CLOCK_MONOTONIC. `lost` counts records that the rings had no room for."""

    pid: npt.NDArray[np.int32]
    page: npt.NDArray[np.uint64]
    time: npt.NDArray[np.float64]
    lost: int = 0

    def __len__(self) -> int:
        return len(self.pid)


def parse_records(data: bytes) -> tuple[npt.NDArray[np.void], int]:
    """The samples among the records in `data`, and how many the kernel lost. Used by Ring and its tests."""
    samples: list[npt.NDArray[np.void]] = []
    lost = 0
    position = 0
    while position + 8 <= len(data):
        whole = (len(data) - position) // RECORD.itemsize
        block = np.frombuffer(data, dtype=RECORD, count=whole, offset=position)
        odd = np.flatnonzero((block["type"] != _RECORD_SAMPLE) | (block["size"] != RECORD.itemsize))
        good = int(odd[0]) if len(odd) else whole
        if good:
            samples.append(block[:good])
            position += good * RECORD.itemsize
            continue
        kind, _, size = struct.unpack_from("<IHH", data, position)
        if size < 8 or position + size > len(data):
            break
        if kind == _RECORD_LOST and size >= 24:
            lost += struct.unpack_from("<Q", data, position + 16)[0]
        position += size
    if not samples:
        return np.empty(0, dtype=RECORD), lost
    return np.concatenate(samples) if len(samples) > 1 else samples[0], lost


class Ring:
    """One mapped ring buffer. The descriptor stays the caller's."""

    def __init__(self, descriptor: int, pages: int = RING_PAGES) -> None:
        self._descriptor = descriptor
        self._size = pages * mmap.PAGESIZE
        self._map = mmap.mmap(descriptor, self._size + mmap.PAGESIZE)
        self._control = np.frombuffer(self._map, dtype=np.uint64, count=2, offset=_HEAD_OFFSET)

    def enable(self, on: bool) -> None:
        fcntl.ioctl(self._descriptor, _IOC_ENABLE if on else _IOC_DISABLE, 0)

    def read(self) -> tuple[npt.NDArray[np.void], int]:
        """All records since the last call, and how many were lost. Frees their room in the ring."""
        head, tail = int(self._control[0]), int(self._control[1])
        if head == tail:
            return np.empty(0, dtype=RECORD), 0
        start, end = tail % self._size, head % self._size
        base = mmap.PAGESIZE
        if start < end:
            data = self._map[base + start : base + end]
        else:
            data = self._map[base + start : base + self._size] + self._map[base : base + end]
        self._control[1] = head
        return parse_records(data)

    def close(self) -> None:
        del self._control
        self._map.close()


class FaultStream:
    """The rings of all CPUs as one stream in order of time. Used by the engine's hint-fault source."""

    def __init__(self, descriptors: Iterable[int]) -> None:
        self._rings = [Ring(descriptor) for descriptor in descriptors]

    def enable(self, on: bool) -> None:
        for ring in self._rings:
            ring.enable(on)

    def read(self) -> Faults:
        parts, lost = [], 0
        for ring in self._rings:
            records, missing = ring.read()
            lost += missing
            if len(records):
                parts.append(records)
        records = np.concatenate(parts) if parts else np.empty(0, dtype=RECORD)
        if len(parts) > 1:
            records = records[np.argsort(records["time"], kind="stable")]
        return Faults(
            records["pid"].astype(np.int32),
            records["address"] >> np.uint64(12),
            (records["time"] / 1e9).astype(np.float64),
            lost,
        )

    def close(self) -> None:
        for ring in self._rings:
            ring.close()
