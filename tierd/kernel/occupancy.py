"""How much memory a cgroup holds on each node, from memory.numa_stat: cheap, no page tables walked."""

from __future__ import annotations

from tierd.errors import MalformedError
from tierd.kernel.files import read_text
from tierd.kernel.paths import Root

_COUNTED = ("anon", "file")


def read_occupancy(root: Root, cgroup: str, names: tuple[str, ...] = _COUNTED) -> dict[int, int]:
    """Bytes of `cgroup` by node, summed over the given kinds of memory (by default all that can move).
    Raises GoneError, DeniedError, MalformedError."""
    path = root.cgroup / cgroup.lstrip("/") / "memory.numa_stat"
    sums: dict[int, int] = {}
    for line in read_text(path).splitlines():
        name, _, pairs = line.partition(" ")
        if name not in names:
            continue
        for pair in pairs.split():
            node, _, amount = pair.partition("=")
            if not (node.startswith("N") and node[1:].isdecimal() and amount.isdecimal()):
                raise MalformedError(f"{path}: not a node count: {pair[:40]!r}")
            sums[int(node[1:])] = sums.get(int(node[1:]), 0) + int(amount)
    return sums
