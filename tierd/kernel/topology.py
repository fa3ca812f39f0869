"""Nodes and memory tiers, from sysfs and /proc/zoneinfo."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from tierd.core.model import PAGE_SIZE, Node, Tier, TierKind, Topology
from tierd.errors import GoneError, MalformedError, TierdError
from tierd.kernel.files import OpenFile, parse_list, read_int, read_text
from tierd.kernel.memory_side_caches import read_memory_side_caches
from tierd.kernel.paths import Root

_MEMINFO = re.compile(r"^Node (\d+) (MemTotal|MemFree):\s+(\d+) kB$", re.MULTILINE)
_MAPPED = re.compile(r"^Node \d+ (AnonPages|Mapped):\s+(\d+) kB$", re.MULTILINE)
_ZONE_OR_HIGH = re.compile(r"^(?:Node (\d+), zone +\S+| +high +(\d+))$", re.MULTILINE)


def read_free(root: Root, node: int) -> int:
    """Free bytes of one node, now. Read by the mover before each batch. Raises GoneError, MalformedError."""
    return _read_meminfo(root, node)[1]


def free_memory(root: Root, node: int) -> OpenFile:
    """The file that says how much of a node is free, for `free_in`. Raises GoneError, DeniedError."""
    return OpenFile(root.nodes / f"node{node}/meminfo")


def free_in(meminfo: OpenFile) -> int:
    """Free bytes of its node, now. Raises GoneError, DeniedError, MalformedError."""
    text = meminfo.read()
    # once a batch, so without a regular expression
    start = text.find(b"MemFree:") + len(b"MemFree:")
    try:
        return int(text[start : text.index(b" kB", start)]) * 1024
    except ValueError:
        raise MalformedError(f"{meminfo.path}: no MemFree line") from None


def read_mapped(root: Root, nodes: Iterable[int]) -> int | None:
    """Bytes on `nodes` that are in somebody's page tables; None when a node does not say."""
    total = 0
    for node in nodes:
        try:
            found = dict(_MAPPED.findall(read_text(root.nodes / f"node{node}/meminfo")))
            total += (int(found["AnonPages"]) + int(found["Mapped"])) * 1024
        except (TierdError, KeyError):
            return None
    return total


def refresh_free(root: Root, topology: Topology) -> Topology:
    """The same tiers with their free memory as it is now: one small file for each node, where read_topology
    reads a dozen. Raises GoneError when a node is gone: read the whole topology again."""
    tiers = tuple(
        replace(tier, nodes=tuple(replace(node, free=read_free(root, node.number)) for node in tier.nodes))
        for tier in topology.tiers
    )
    return replace(topology, tiers=tiers)


def read_topology(root: Root) -> Topology:
    """Every node with memory, sorted into tiers, fastest first, and which CPUs are near which DRAM.

    A tier is DRAM when it holds a node with CPUs or is faster than every tier that does (the kernel's own
    rule for top tiers, establish_demotion_targets in mm/memory-tiers.c). Where the kernel has no memory
    tiers, nodes with CPUs are DRAM and the others slow. Raises MalformedError.
    """
    nodes = _read_nodes(root)
    caches = tuple(cache for number in sorted(nodes) for cache in read_memory_side_caches(root, number))
    topology = Topology(_sorted_into_tiers(root, nodes), caches=caches)
    return replace(topology, near=_read_near(root, topology.dram))


def _sorted_into_tiers(root: Root, nodes: dict[int, Node]) -> tuple[Tier, ...]:
    named = _read_tiers(root)
    if not named:
        with_cpus = tuple(n for n in nodes.values() if n.has_cpus)
        without = tuple(n for n in nodes.values() if not n.has_cpus)
        tiers = [Tier("cpu-nodes", TierKind.DRAM, with_cpus), Tier("cpuless-nodes", TierKind.SLOW, without)]
        return tuple(t for t in tiers if t.nodes)
    slowest_with_cpus = max(
        (rank for rank, _, numbers in named if any(nodes[n].has_cpus for n in numbers if n in nodes)),
        default=named[0][0],
    )
    return tuple(
        Tier(
            name,
            TierKind.DRAM if rank <= slowest_with_cpus else TierKind.SLOW,
            tuple(nodes[n] for n in numbers if n in nodes),
        )
        for rank, name, numbers in named
        if any(n in nodes for n in numbers)
    )


def _read_near(root: Root, dram: tuple[Node, ...]) -> tuple[int, ...]:
    near: dict[int, int] = {}
    for node in dram:
        path = root.nodes / f"node{node.number}/cpulist"
        try:
            near.update(dict.fromkeys(parse_list(read_text(path)), node.number))
        except GoneError:
            continue  # taken offline meanwhile
        except ValueError:
            raise MalformedError(f"{path}: not a list of CPUs") from None
    return tuple(near.get(cpu, -1) for cpu in range(max(near, default=-1) + 1))


def _read_meminfo(root: Root, node: int) -> tuple[int, int]:
    path = root.nodes / f"node{node}/meminfo"
    found = {key: int(kib) * 1024 for _, key, kib in _MEMINFO.findall(read_text(path))}
    try:
        return found["MemTotal"], found["MemFree"]
    except KeyError as missing:
        raise MalformedError(f"{path}: no {missing.args[0]} line") from None


def _read_nodes(root: Root) -> dict[int, Node]:
    try:
        online = parse_list(read_text(root.nodes / "has_memory"))
        with_cpus = parse_list(read_text(root.nodes / "has_cpu"))
        with_kernel_memory = parse_list(read_text(root.nodes / "has_normal_memory"))
    except GoneError:
        return {}  # a kernel without NUMA
    except ValueError as error:
        raise MalformedError(f"{root.nodes}: {error}") from None
    watermarks = read_high_watermarks(root)
    nodes = {}
    for number in online:
        if number not in watermarks:
            continue  # coming online: without watermarks it has no floor yet
        try:
            total, free = _read_meminfo(root, number)
        except GoneError:
            continue  # taken offline between the two reads
        nodes[number] = Node(
            number=number,
            total=total,
            free=free,
            high_watermark=watermarks[number],
            has_cpus=number in with_cpus,
            movable_only=number not in with_kernel_memory,
            read_latency=_read_latency(root, number),
            distances=_read_distances(root, number),
        )
    return nodes


def read_high_watermarks(root: Root) -> dict[int, int]:
    """Bytes of each node's high watermarks, summed over its zones (/proc/zoneinfo).

    Raises GoneError, MalformedError when there is not one.
    """
    sums: dict[int, int] = {}
    node = None
    for zone, high in _ZONE_OR_HIGH.findall(read_text(root.proc / "zoneinfo")):
        if zone:
            node = int(zone)
        elif node is not None:
            sums[node] = sums.get(node, 0) + int(high) * PAGE_SIZE
    if not sums:
        raise MalformedError(f"{root.proc}/zoneinfo: no zone has a high watermark")
    return sums


def _read_latency(root: Root, node: int) -> int | None:
    # access1 is the best initiator that is a CPU (Documentation/admin-guide/mm/numaperf.rst)
    try:
        return read_int(root.nodes / f"node{node}/access1/initiators/read_latency") or None
    except (GoneError, MalformedError):
        return None


def _read_distances(root: Root, node: int) -> tuple[tuple[int, int], ...]:
    # one for each node that is online, in order (node_read_distance in drivers/base/node.c)
    try:
        online = parse_list(read_text(root.nodes / "online"))
        distances = read_text(root.nodes / f"node{node}/distance").split()
        return tuple(zip(online, map(int, distances), strict=True))
    except (GoneError, ValueError):
        return ()  # not known, or a node came or went between the two


def _read_tiers(root: Root) -> list[tuple[int, str, tuple[int, ...]]]:
    found = []
    for directory in root.memory_tiers.glob("memory_tier[0-9]*"):
        rank = directory.name.removeprefix("memory_tier")
        try:
            found.append((int(rank), directory.name, parse_list(read_text(directory / "nodelist"))))
        except GoneError:
            continue
        except ValueError:
            raise MalformedError(f"{directory}/nodelist: not a list of nodes") from None
    return sorted(found)
