"""Perf events as a stream of samples: one ring buffer for each CPU.

The records of an event all have one size, so that a ring is parsed as one numpy array. kernel/perf_event.py
opens the events, with the sample types whose layouts are here.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import re
import struct
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.core.access import Accesses
from tierd.errors import MalformedError

# include/uapi/linux/perf_event.h
_IOC_ENABLE: Final = 0x2400
_IOC_DISABLE: Final = 0x2401
_RECORD_LOST: Final = 2
_RECORD_SAMPLE: Final = 9
_HEAD_OFFSET: Final = 1024
_TAIL_OFFSET: Final = 1032

RING_PAGES: Final = 128
"""Data pages of a ring: 512 KiB, what perf_event_mlock_kb lets an ordinary user map for each CPU."""

Records = npt.NDArray[np.void]
Layout = np.dtype[np.void]

_HEADER: Final = [("type", "<u4"), ("misc", "<u2"), ("size", "<u2")]

FAULT_LAYOUT: Final[Layout] = np.dtype(
    [
        *_HEADER,
        *(("pid", "<u4"), ("tid", "<u4"), ("time", "<u8"), ("address", "<u8")),
        *(("cpu", "<u4"), ("reserved", "<u4")),
    ]
)
"""PERF_RECORD_SAMPLE with TID, TIME, ADDR and CPU, in the order of perf_event_open(2)."""

MEMORY_LAYOUT: Final[Layout] = np.dtype(
    [*FAULT_LAYOUT.descr, ("data_source", "<u8"), ("physical_address", "<u8")]
)
"""With DATA_SRC and PHYS_ADDR behind those."""


_LOOKED_AT: Final = 4096
"""Records that are looked at together. Whatever lies between samples ends such a look, and is what each ring
holds that has run over: a hundred of them, looked through to the end each time, took seconds."""
_RAW: Final = 28
"""Where the bytes of a tracepoint begin: behind the header, TID, TIME and their own 4-byte length."""


def trace_layout(text: str, names: Iterable[str]) -> Layout:
    """PERF_RECORD_SAMPLE with TID, TIME and RAW. text: the tracepoint's `format` in tracefs, which says
    where in RAW each of `names` lies; they are unsigned numbers. Raises MalformedError."""
    fields = re.findall(r"field:[^;]*?(\w+);\s*offset:(\d+);\s*size:(\d+);", text)
    known = {name: (int(offset), int(size)) for name, offset, size in fields}
    places = dict(zip(("type", "misc", "size", "pid", "tid", "time"), (0, 4, 6, 8, 12, 16), strict=True))
    kinds = {"type": "<u4", "misc": "<u2", "size": "<u2", "pid": "<u4", "tid": "<u4", "time": "<u8"}
    for name in names:
        offset, size = known.get(name, (0, 0))
        if size not in (4, 8):
            raise MalformedError(f"the tracepoint has no {name} that is a number")
        places[name], kinds[name] = _RAW + offset, f"<u{size}"
    # what a tracepoint records is padded so that it ends, with its length in front, at a multiple of 8
    end = _RAW + max(offset + size for offset, size in known.values())
    layout: Layout = np.dtype(
        {
            "names": list(places),
            "formats": list(kinds.values()),
            "offsets": list(places.values()),
            "itemsize": (end + 7) // 8 * 8,
        }
    )
    return layout


def parse_records(data: bytes, layout: Layout = FAULT_LAYOUT) -> tuple[Records, int]:
    """The samples of `layout` among the records in `data`, and how many the kernel lost. For
    SampleStream and tests."""
    runs: list[slice] = []
    lost = position = 0
    while position + 8 <= len(data):
        whole = min((len(data) - position) // layout.itemsize, _LOOKED_AT)
        block = np.frombuffer(data, dtype=layout, count=whole, offset=position)
        odd = np.flatnonzero((block["type"] != _RECORD_SAMPLE) | (block["size"] != layout.itemsize))
        good = int(odd[0]) if len(odd) else whole
        if good:
            begun = runs.pop().start if runs and runs[-1].stop == position else position
            position += good * layout.itemsize
            runs.append(slice(begun, position))
            continue
        kind, _, size = struct.unpack_from("<IHH", data, position)
        if size < 8 or position + size > len(data):
            break
        if kind == _RECORD_LOST and size >= 24:
            lost += struct.unpack_from("<Q", data, position + 16)[0]
        position += size
    view = memoryview(data)
    # joined as bytes: numpy would join records field by field
    samples = view[runs[0]] if len(runs) == 1 else b"".join([view[run] for run in runs])
    return np.frombuffer(samples, dtype=layout), lost


class Ring:
    """One mapped ring buffer. The descriptor stays the caller's."""

    def __init__(self, descriptor: int, pages: int = RING_PAGES) -> None:
        """Raises OSError when the descriptor is no event, or locked memory is short."""
        self._descriptor = descriptor
        self._size = pages * mmap.PAGESIZE
        self._map = mmap.mmap(descriptor, self._size + mmap.PAGESIZE)
        self._control = np.frombuffer(self._map, dtype=np.uint64, count=2, offset=_HEAD_OFFSET)

    def enable(self, on: bool) -> None:
        fcntl.ioctl(self._descriptor, _IOC_ENABLE if on else _IOC_DISABLE, 0)

    def read(self) -> bytes:
        """All records since the last call, for parse_records. Frees their room in the ring."""
        head, tail = int(self._control[0]), int(self._control[1])
        if head == tail:
            return b""
        start, end = tail % self._size, head % self._size
        base = mmap.PAGESIZE
        if start < end:
            data = self._map[base + start : base + end]
        else:
            data = self._map[base + start : base + self._size] + self._map[base : base + end]
        self._control[1] = head
        return data

    def close(self) -> None:
        del self._control
        self._map.close()


class SampleStream:
    """The rings of all CPUs as one stream in order of time. Used by the sources of access information.

    others: records of the last reading that it left out."""

    def __init__(self, descriptors: Iterable[int], layout: Layout = FAULT_LAYOUT) -> None:
        """Raises OSError when a descriptor is no event, or locked memory is short."""
        self._layout = layout
        self.others = 0
        self._rings: list[Ring] = []
        try:
            for descriptor in descriptors:
                self._rings.append(Ring(descriptor))
        except ValueError as error:  # a file that is too short
            raise OSError(errno.EINVAL, f"not an event: {error}") from error

    def enable(self, on: bool) -> None:
        """Raises OSError."""
        for ring in self._rings:
            ring.enable(on)

    def read(self, pids: npt.NDArray[np.int32] | None = None) -> tuple[Records, int]:
        """All records since the last call, of the processes `pids` if they are given, and how many were
        lost."""
        records, lost = parse_records(b"".join([ring.read() for ring in self._rings]), self._layout)
        self.others = 0
        if pids is not None:
            # before they are put in order, which is dear: whoever starts a process faults a thousand times
            wanted = np.isin(records["pid"].astype(np.int32), pids)
            self.others = len(records) - int(np.count_nonzero(wanted))
            records = records[wanted]
        if len(self._rings) > 1:
            records = records[np.argsort(records["time"], kind="stable")]
        return records, lost

    def close(self) -> None:
        for ring in self._rings:
            ring.close()
        self._rings.clear()


def accesses(records: Records, lost: int, others: int = 0) -> Accesses:
    """Records of any layout with an address as observations."""
    return Accesses(
        records["pid"].astype(np.int32),
        records["address"] >> np.uint64(12),
        (records["time"] / 1e9).astype(np.float64),
        records["cpu"].astype(np.int32),
        lost,
        others=others,
    )
