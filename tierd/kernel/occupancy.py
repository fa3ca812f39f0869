"""How much memory a cgroup holds on each node, from memory.numa_stat: cheap, no page tables walked."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tierd.errors import MalformedError, TierdError
from tierd.kernel.files import read_int, read_text
from tierd.kernel.paths import Root

_COUNTED = ("anon", "file")
_MAPPED = ("anon", "file_mapped")


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of several cgroups. dram: on DRAM nodes. slow: on all others. mapped: of these, what is in page
    tables; the page cache is not, and no hint fault shows its uses."""

    dram: int = 0
    slow: int = 0
    mapped: int = 0


def read_occupancy(root: Root, cgroup: str, names: tuple[str, ...] = _COUNTED) -> dict[int, int]:
    """Bytes of `cgroup` by node, summed over the given kinds of memory (by default all that can move).
    Raises GoneError, DeniedError, MalformedError."""
    sums: dict[int, int] = {}
    for amounts in _read_kinds(root, cgroup, names).values():
        for node, amount in amounts.items():
            sums[node] = sums.get(node, 0) + amount
    return sums


def read_charged(root: Root, cgroup: str) -> int:
    """All bytes that `cgroup` is charged with, page cache and the kernel's own for it among them; 0 when it
    is gone, or its kernel does not count. This is what memory.min is held against."""
    try:
        return read_int(root.cgroup / cgroup.lstrip("/") / "memory.current")
    except TierdError:
        return 0


def _read_kinds(root: Root, cgroup: str, names: Collection[str]) -> dict[str, dict[int, int]]:
    """Bytes of `cgroup` by kind and node. Raises like read_occupancy."""
    path = root.cgroup / cgroup.lstrip("/") / "memory.numa_stat"
    kinds: dict[str, dict[int, int]] = {}
    for line in read_text(path).splitlines():
        name, _, pairs = line.partition(" ")
        if name not in names:
            continue
        amounts = kinds.setdefault(name, {})
        for pair in pairs.split():
            node, _, amount = pair.partition("=")
            if not (node.startswith("N") and node[1:].isdecimal() and amount.isdecimal()):
                raise MalformedError(f"{path}: not a node count: {pair[:40]!r}")
            amounts[int(node[1:])] = amounts.get(int(node[1:]), 0) + int(amount)
    return kinds


def read_held(root: Root, cgroups: Iterable[str], dram: Collection[int]) -> Held:
    """What all `cgroups` hold on the nodes `dram`, and on all others. What cannot be read, as of a cgroup
    that is gone, counts as nothing."""
    inside = outside = mapped = 0
    for cgroup in cgroups:
        try:
            kinds = _read_kinds(root, cgroup, {*_COUNTED, *_MAPPED})
        except TierdError:
            continue
        for kind, amounts in kinds.items():
            slow = sum(amount for node, amount in amounts.items() if node not in dram)
            if kind in _COUNTED:
                inside += sum(amounts.values()) - slow
                outside += slow
            if kind in _MAPPED:
                mapped += slow
    return Held(inside, outside, mapped)


def read_in_dram(root: Root, cgroups: Iterable[str], dram: Collection[int], names: tuple[str, ...]) -> int:
    """Bytes of the given kinds that all `cgroups` hold on the nodes `dram`. What cannot be read counts as
    nothing."""
    total = 0
    for cgroup in cgroups:
        try:
            held = read_occupancy(root, cgroup, names)
        except TierdError:
            continue
        total += sum(amount for node, amount in held.items() if node in dram)
    return total
