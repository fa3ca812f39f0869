"""Where a namespace will lie, and how much of it becomes memory. Pure arithmetic, all in bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tierd.core.inventory import Region, Span

DATA_OFFSET = 2 << 20
"""Bytes from the start of a ``-M mem`` namespace of 2 MiB alignment to its data: the info block, rounded up
to the alignment (drivers/nvdimm/pfn_devs.c, nd_pfn_init). Measured on 6.12 and 7.3."""

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
