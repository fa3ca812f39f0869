"""A memory-side cache, which servers call Memory Mode: hardware that keeps copies of a node's memory in DRAM
of its own. Pure.

That DRAM is no memory to the kernel, and what is in it only the hardware knows. tierd places pages between
the nodes that there are, and says what it cannot do.
"""

from __future__ import annotations

from dataclasses import dataclass

from tierd.core.text import sentence, size


@dataclass(frozen=True, slots=True)
class MemorySideCache:
    """One level of a node's cache, as the firmware describes it (ACPI HMAT).

    size: bytes that it holds. line: bytes of one line. indexing: ``direct-mapped``, ``complex`` or
    ``other``. write_policy: ``write-back`` or ``write-through``. Both are empty when not told.
    """

    node: int
    level: int
    size: int
    line: int
    indexing: str
    write_policy: str


def cache_words(cache: MemorySideCache) -> str:
    """What it is, and what tierd cannot do about it, in one sentence."""
    level = "" if cache.level == 1 else f", level {cache.level}"
    kind = sentence([cache.indexing, cache.write_policy])
    return (
        f"node {cache.node} is behind a memory-side cache of {size(cache.size)}{level}"
        f"{f' ({kind})' if kind else ''}, Memory Mode: the hardware decides which of its memory is fast,"
        " tierd neither sees nor guides that, and no page there is sure of DRAM latency; it places between"
        " nodes only"
    )
