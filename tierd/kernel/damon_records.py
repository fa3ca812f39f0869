"""Records of the tracepoint damon:damon_aggregated: one for each region and aggregation.

Read from rings that are written as the kernel's source says; no source streams them yet (core/access.py says
why).
"""

from __future__ import annotations

import re

import numpy as np

from tierd.errors import MalformedError
from tierd.kernel.perf import Layout

FIELDS = ("target_id", "nr_regions", "start", "end", "nr_accesses", "age")
"""What is taken of a record. start, end: bytes, end excluded. nr_accesses: samples of an aggregation
interval that found the region used. age: aggregation intervals."""

_FIELD = re.compile(r"field:[^;]*?(\w+);\s*offset:(\d+);\s*size:(\d+);")


def parse_format(text: str) -> Layout:
    """The layout of the raw data, from the tracepoint's `format` file: fields were added over the years.
    Raises MalformedError."""
    found = {name: (int(offset), int(size)) for name, offset, size in _FIELD.findall(text)}
    missing = [name for name in FIELDS if name not in found]
    if missing:
        raise MalformedError(f"damon_aggregated has no field {missing[0]}")
    if any(found[name][1] not in (4, 8) for name in FIELDS):
        raise MalformedError("damon_aggregated has a field that is no number")
    return np.dtype(
        {
            "names": list(FIELDS),
            "formats": [f"<u{found[name][1]}" for name in FIELDS],
            "offsets": [found[name][0] for name in FIELDS],
            "itemsize": max(offset + size for offset, size in found.values()),
        }
    )


def record_layout(fields: Layout) -> Layout:
    """The layout of the event's records with TIME and RAW, for kernel/perf.py.

    The kernel pads the raw data so that the record, with the 32-bit count before it, ends at a multiple of 8
    (perf_sample_save_raw_data, include/linux/perf_event.h).
    """
    raw = -(-(fields.itemsize + 4) // 8) * 8 - 4
    return np.dtype(
        {
            "names": ["type", "misc", "size", "time", "raw_size", "fields"],
            "formats": ["<u4", "<u2", "<u2", "<u8", "<u4", fields],
            "offsets": [0, 4, 6, 8, 16, 20],
            "itemsize": 20 + raw,
        }
    )
