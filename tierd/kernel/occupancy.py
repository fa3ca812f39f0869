"""How much memory a cgroup holds on each node, from memory.numa_stat: cheap, no page tables walked."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tierd.errors import MalformedError, TierdError
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


def read_in_dram(
    root: Root, cgroups: Iterable[str], dram: Collection[int], names: tuple[str, ...] = _COUNTED
) -> tuple[int, int]:
    """Bytes that all `cgroups` hold on the nodes `dram`, and on all others. What cannot be read, as of a
    cgroup that is gone, counts as nothing."""
    inside = outside = 0
    for cgroup in cgroups:
        try:
            held = read_occupancy(root, cgroup, names)
        except TierdError:
            continue
        for node, amount in held.items():
            if node in dram:
                inside += amount
            else:
                outside += amount
    return inside, outside
