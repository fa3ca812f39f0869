"""Where a namespace will lie, and how much of it becomes memory, or why none.

Pure arithmetic, all in bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tierd.core.inventory import Region, Span
from tierd.core.units import format_size

DATA_OFFSET = 2 << 20
"""Bytes from the start of a ``-M mem`` namespace of 2 MiB alignment to its data: the info block, rounded up
to the alignment (drivers/nvdimm/pfn_devs.c, nd_pfn_init). Measured on 6.12 and 7.3."""

NAMESPACE_ALIGNMENT = 2 << 20
"""Bytes: of the data of the namespaces that tierd makes, which their size is a multiple of."""

SMALLEST_NAMESPACE = 16 << 20
"""Bytes; the kernel makes no smaller namespace (ND_MIN_NAMESPACE_SIZE)."""

PAGE_STRUCTURES_PER_MIB = (16 << 10) + (1 << 10)
"""Bytes of DRAM for each MiB that becomes memory: 64 for each page of 4 KiB (struct page,
include/linux/mm_types.h), and about a sixteenth more for page tables and the per-node structures of slabs
and cgroups."""


def round_up(value: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


def round_down(value: int, multiple: int) -> int:
    """The greatest multiple of `multiple` that is not above `value`."""
    return value // multiple * multiple


def whole_blocks(span: Span, block_size: int) -> Span:
    """The memory blocks that lie wholly within `span`: all that the kernel takes of a dax device
    (drivers/dax/kmem.c, dax_kmem_range). The size is zero when there is none."""
    start = round_up(span.start, block_size)
    return Span(start, max(0, round_down(span.end, block_size) - start))


def memory_of_namespace(namespace: Span, block_size: int) -> Span:
    """What of a devdax namespace becomes memory: its whole blocks, behind the info block."""
    data = Span(namespace.start + DATA_OFFSET, max(0, namespace.size - DATA_OFFSET))
    return whole_blocks(data, block_size)


def page_structures(memory: int) -> int:
    """Bytes of DRAM that the kernel spends to manage `memory` more bytes."""
    return memory * PAGE_STRUCTURES_PER_MIB >> 20


def carried(dram: int, block_size: int) -> int:
    """Memory, in whole blocks, whose page structures fit into `dram` bytes."""
    return round_down((max(0, dram) << 20) // PAGE_STRUCTURES_PER_MIB, block_size)


def free_extents(region: Region) -> tuple[Span, ...]:
    """The gaps between a region's namespaces, by address, cut to the region's alignment as the kernel cuts
    them (drivers/nvdimm/namespace_devs.c, space_valid). Empty when the region does not say where it lies."""
    if region.span is None:
        return ()
    taken = sorted((n.span for n in region.namespaces if n.span is not None), key=lambda span: span.start)
    extents = []
    cursor = region.span.start
    for span in (*taken, Span(region.span.end, 0)):
        start = region.span.start + round_up(cursor - region.span.start, region.align)
        end = region.span.start + round_down(span.start - region.span.start, region.align)
        if end > start:
            extents.append(Span(start, end - start))
        cursor = max(cursor, span.end)
    return tuple(extents)


@dataclass(frozen=True, slots=True)
class Slice:
    """A namespace to be made. namespace: where the kernel will put it. memory: its whole blocks.

    lost: bytes of the namespace that become nothing: the info block and what is cut off at both ends.
    """

    namespace: Span
    memory: Span

    @property
    def lost(self) -> int:
        return self.namespace.size - self.memory.size


def choose_slice(extents: Iterable[Span], wanted: int | None, block_size: int, align: int) -> Slice | None:
    """The namespace whose memory is `wanted` bytes in whole blocks, or the nearest to it that there is room
    for.

    wanted: None for the extent that gives the most memory. The kernel takes the first gap, by address, that
    holds the size it is asked for (scan_allocate), so a size is only chosen for a gap when no gap before it
    would swallow it. None when no gap holds `wanted` bytes, or none has a whole block in it.
    """
    gaps = sorted(extents, key=lambda span: span.start)
    best: Slice | None = None
    longest_before = 0
    for gap in gaps:
        if wanted is None or gap.size >= wanted:
            size = gap.size
            if wanted is not None:
                first = round_up(gap.start + DATA_OFFSET, block_size)
                size = round_up(first + round_up(wanted, block_size) - gap.start, align)
                size = min(max(size, longest_before + align, SMALLEST_NAMESPACE), gap.size)
            if size > longest_before:
                namespace = Span(gap.start, size)
                slice_ = Slice(namespace, memory_of_namespace(namespace, block_size))
                enough = wanted is not None and slice_.memory.size >= wanted
                if slice_.memory.size and (best is None or slice_.memory.size > best.memory.size):
                    best = slice_
                if enough:
                    return slice_
        longest_before = max(longest_before, gap.size)
    return best


def why_unfit(extents: tuple[Span, ...], size: int | None, block_size: int, align: int) -> str:
    """Why no namespace is made for `size` bytes (None: all) of extents of which one is as long: the end of a
    sentence that says how long it is. align: the region's."""
    whole = math.lcm(align, NAMESPACE_ALIGNMENT)
    most = choose_slice(extents, None, block_size, whole)
    least = choose_slice(extents, block_size, block_size, whole)
    if most is None or least is None:
        return f", in which no whole memory block of {format_size(block_size)} fits"
    if size is not None and least.namespace.size > size:
        return (
            f"; a namespace of that size has no whole memory block of {format_size(block_size)} in it: the"
            f" smallest that has one takes {format_size(least.namespace.size)}"
        )
    return f", of which {format_size(most.memory.size)} is whole memory blocks"
