"""What tierctl reads from the machine itself, for when the daemon is not asked."""

from __future__ import annotations

from typing import Any

from tierd.core.memory_side_cache import cache_words
from tierd.kernel.paths import Root
from tierd.kernel.topology import read_topology


def read_tiers(root: Root | None = None) -> list[dict[str, Any]]:
    """The memory tiers in the shape that the daemon gives them, fastest first. Raises TierdError.

    root: this machine by default.
    """
    found = []
    topology = read_topology(root or Root())
    for tier in topology.tiers:
        entry: dict[str, Any] = {
            "name": tier.name,
            "kind": tier.kind.value,
            "nodes": [node.number for node in tier.nodes],
            "total_bytes": tier.total,
            "free_bytes": tier.free,
            "used_bytes": max(tier.total - tier.free, 0),
        }
        nodes = {node.number for node in tier.nodes}
        if words := [cache_words(cache) for cache in topology.caches if cache.node in nodes]:
            entry["memory_side_caches"] = words
        latencies = [node.read_latency for node in tier.nodes if node.read_latency is not None]
        if latencies:
            entry["read_latency_nanoseconds"] = max(latencies)
        found.append(entry)
    return found
