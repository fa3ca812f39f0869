"""What was seen of the machine, as values. Filled by kernel/, read by the planner and by service/."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tierd.core.memory_side_cache import MemorySideCache

PAGE_SIZE = 4096
HUGE_PAGE_SIZE = 2 << 20
PAGES_PER_HUGE_PAGE = HUGE_PAGE_SIZE // PAGE_SIZE
FARTHEST = 255
"""What a SLIT says of nodes that cannot reach each other."""


class TierKind(StrEnum):
    """`dram` is the fastest memory tier with memory in it; everything behind it is `slow`."""

    DRAM = "dram"
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class Node:
    """A NUMA node with memory. Sizes in bytes.

    high_watermark: bytes, the sum over the node's zones of /proc/zoneinfo `high`.
    read_latency: nanoseconds as the firmware's HMAT says (access1), None without HMAT.
    distances: to nodes by their numbers, as the firmware's SLIT has them; 10 is the node itself.
    """

    number: int
    total: int
    free: int
    high_watermark: int
    has_cpus: bool
    movable_only: bool
    read_latency: int | None = None
    distances: tuple[tuple[int, int], ...] = ()

    def distance(self, node: int) -> int:
        """To another node; the farthest there can be where it is not known."""
        return dict(self.distances).get(node, FARTHEST)


@dataclass(frozen=True, slots=True)
class Tier:
    """One memory tier: `name` as in /sys/devices/virtual/memory_tiering (``memory_tier4``), and its
    nodes."""

    name: str
    kind: TierKind
    nodes: tuple[Node, ...]

    @property
    def total(self) -> int:
        return sum(node.total for node in self.nodes)

    @property
    def free(self) -> int:
        return sum(node.free for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Topology:
    """The machine's tiers, fastest first. near: of each CPU by its number, the node of DRAM that it is part
    of; -1 for a CPU that is offline, or whose node has no DRAM. caches: those of hardware before a node."""

    tiers: tuple[Tier, ...]
    near: tuple[int, ...] = ()
    caches: tuple[MemorySideCache, ...] = ()

    @property
    def dram(self) -> tuple[Node, ...]:
        return tuple(n for t in self.tiers if t.kind is TierKind.DRAM for n in t.nodes)

    @property
    def slow(self) -> tuple[Node, ...]:
        return tuple(n for t in self.tiers if t.kind is TierKind.SLOW for n in t.nodes)

    @property
    def cpus(self) -> int:
        """How many CPUs are online, as far as they have DRAM."""
        return sum(node >= 0 for node in self.near)

    @property
    def tiered(self) -> bool:
        """Whether there is anything to place: DRAM and at least one slower node."""
        return bool(self.dram) and bool(self.slow)


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, safe against reuse of its number: `start` is field 22 of /proc/PID/stat, in clock ticks."""

    pid: int
    start: int


@dataclass(frozen=True, slots=True)
class ProcessView:
    """A process that the policy selects. `resident` in bytes, `command` already fit to be printed."""

    id: ProcessId
    command: str
    uid: int
    cgroup: str
    resident: int
