"""Where a namespace will lie, against a model of the kernel's allocator."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.core.machines import (
    BLOCK,
    GIB,
    MIB,
    REGION,
    START,
    namespace,
)
from tierd.core import capacity
from tierd.core.inventory import Namespace, Region, Span

# The kernel's side, in the plainest terms: bit by bit over units of 2 MiB.

UNIT = 2 * MIB
spans = st.lists(st.tuples(st.integers(0, 255), st.integers(1, 64)), max_size=5)


def region_of(taken: list[tuple[int, int]], align: int, first: int) -> Region:
    """A region of 4 GiB with namespaces at `taken` (start and size in units of 16 MiB), overlaps left
    out."""
    found: list[Namespace] = []
    for start, size in sorted(taken):
        span = Span(first + start * 16 * MIB, min(size, 256 - start) * 16 * MIB)
        if not found or found[-1].span is None or found[-1].span.end <= span.start:
            found.append(namespace(label=f"other{start}", span=span, dax=None, mode="fsdax"))
    held = sum(n.span.size for n in found if n.span is not None)
    return replace(
        REGION,
        span=Span(first, 4 * GIB),
        align=align,
        available=4 * GIB - held,
        namespaces=tuple(found),
    )


def first_fit(region: Region, size: int) -> int | None:
    """Where the kernel puts a namespace of `size` bytes: scan_allocate in
    drivers/nvdimm/namespace_devs.c."""
    assert region.span is not None
    taken = {
        unit
        for n in region.namespaces
        if n.span is not None
        for unit in range(n.span.start // UNIT, n.span.end // UNIT)
    }
    for start in range(region.span.start, region.span.end - size + 1, region.align):
        if taken.isdisjoint(range(start // UNIT, (start + size) // UNIT)):
            return start
    return None


def blocks_of_namespace(span: Span, block: int) -> int:
    """How many memory blocks kmem makes of a namespace whose data begins 2 MiB behind its start."""
    first, last = span.start + 2 * MIB, span.end
    return sum(
        1 for n in range(first // block, last // block + 1) if n * block >= first and (n + 1) * block <= last
    )


@given(
    spans,
    st.sampled_from([16 * MIB, 32 * MIB]),
    st.sampled_from([START, START + 16 * MIB, START + 96 * MIB]).map(lambda x: x // (32 * MIB) * (32 * MIB)),
    st.one_of(st.none(), st.integers(1, 4 * GIB)),
    st.sampled_from([128 * MIB, 256 * MIB, GIB]),
)
def test_the_prediction_is_what_the_kernel_does(
    taken: list[tuple[int, int]], align: int, first: int, wanted: int | None, block: int
) -> None:
    region = region_of(taken, align, first)
    slice_ = capacity.choose_slice(capacity.free_extents(region), wanted, block, align)
    if slice_ is None:
        for extent in capacity.free_extents(region):
            reachable = first_fit(region, extent.size) == extent.start
            enough = wanted is None or extent.size >= wanted
            assert not (reachable and enough and blocks_of_namespace(extent, block))
        return
    assert first_fit(region, slice_.namespace.size) == slice_.namespace.start
    assert slice_.memory.size == blocks_of_namespace(slice_.namespace, block) * block > 0
    assert slice_.namespace.size % align == 0


@given(spans, st.integers(1, 2 * GIB))
def test_what_is_asked_for_is_gained_when_any_gap_has_the_room(
    taken: list[tuple[int, int]], wanted: int
) -> None:
    region = region_of(taken, 16 * MIB, START)
    slice_ = capacity.choose_slice(capacity.free_extents(region), wanted, BLOCK, 16 * MIB)
    first = next(iter(capacity.free_extents(region)), None)
    if first is not None and blocks_of_namespace(first, BLOCK) * BLOCK >= wanted:
        assert slice_ is not None and slice_.memory.size >= wanted


@given(st.integers(0, 1 << 44), st.integers(0, 1 << 44), st.sampled_from([128 * MIB, 2 * GIB]))
def test_whole_blocks_lie_within(start: int, size: int, block: int) -> None:
    found = capacity.whole_blocks(Span(start, size), block)
    assert found.start % block == found.size % block == 0
    assert found.size == 0 or (found.start >= start and found.end <= start + size)
    assert size - found.size < 2 * block
