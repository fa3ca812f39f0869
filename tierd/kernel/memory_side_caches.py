"""Memory-side caches (Memory Mode), from sysfs: Documentation/admin-guide/mm/numaperf.rst."""

from __future__ import annotations

import contextlib

from tierd.core.memory_side_cache import MemorySideCache
from tierd.errors import DeniedError, GoneError, MalformedError
from tierd.kernel.files import read_int
from tierd.kernel.paths import Root

# drivers/base/node.c and include/linux/node.h, enum cache_indexing and cache_write_policy
_INDEXING = {0: "direct-mapped", 1: "complex", 2: "other"}
_WRITE_POLICY = {0: "write-back", 1: "write-through", 2: "other"}


def read_memory_side_caches(root: Root, node: int) -> tuple[MemorySideCache, ...]:
    """The caches of one node, by level; none where the firmware tells of none. Everybody may read them. What
    is not described as it should be is passed over: nothing depends on it. Raises nothing."""
    found = []
    for directory in (root.nodes / f"node{node}/memory_side_cache").glob("index[0-9]*"):
        level = directory.name.removeprefix("index")
        if not level.isdecimal():
            continue
        with contextlib.suppress(GoneError, DeniedError, MalformedError):
            size = read_int(directory / "size")
            if size <= 0:
                continue
            found.append(
                MemorySideCache(
                    node=node,
                    level=int(level),
                    size=size,
                    line=read_int(directory / "line_size"),
                    indexing=_INDEXING.get(read_int(directory / "indexing"), ""),
                    write_policy=_WRITE_POLICY.get(read_int(directory / "write_policy"), ""),
                )
            )
    return tuple(sorted(found, key=lambda cache: cache.level))
