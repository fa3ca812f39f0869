"""What there is of CXL memory, as values: devices, windows, regions; and which region a run has begun. Pure.

Filled by kernel/cxl.py, read by core/cxl.py.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tierd.core.inventory import DaxDevice, Inventory


@dataclass(frozen=True, slots=True)
class CxlMemdev:
    """A memory device on CXL, ``mem0``; names renumber. Sizes in bytes.

    serial: what names it for good; None when it has none. volatile, persistent: what it offers of each kind.
    free: volatile capacity that no region has. bridge: number of the host bridge that it is behind.
    settled: whether the kernel has found the way to it; until then nothing is known of its regions.
    """

    name: str
    serial: int | None
    volatile: int
    persistent: int
    free: int
    bridge: str = ""
    settled: bool = True


@dataclass(frozen=True, slots=True)
class CxlWindow:
    """Physical addresses that the firmware has set aside for CXL: a root decoder, ``decoder0.0``.

    bridges: numbers of the host bridges that it interleaves. volatile: whether the kernel makes regions of
    volatile memory in it. free: bytes that no region has, though perhaps not in one piece.
    """

    name: str
    bridges: frozenset[str]
    volatile: bool
    free: int


@dataclass(frozen=True, slots=True)
class CxlRegion:
    """A region of CXL memory, as ``region0`` on the bus of CXL, which has nothing to do with the nd bus.

    mode: ``ram`` or ``pmem``. size: bytes, 0 while it has none. memdevs: names of its devices, by position;
    fewer than `ways` while it is being made. committed: whether the hardware decodes it. enabled: whether a
    driver has it. window: name of the root decoder that it is in. devices: names of its dax devices. dax:
    the first of them, None when there is none, or the reader may not see it. identity: what no other region
    of this boot has, unlike its name.
    """

    name: str
    mode: str
    size: int
    ways: int
    memdevs: tuple[str, ...]
    committed: bool
    enabled: bool
    window: str
    devices: tuple[str, ...] = ()
    dax: DaxDevice | None = None
    identity: str = ""

    @property
    def unfinished(self) -> bool:
        """Whether no driver has it and it has no dax device: nobody can use it."""
        return not self.enabled and not self.devices


@dataclass(frozen=True, slots=True)
class CxlMachine:
    """The machine as a request for CXL memory sees it.

    inventory: nodes, memory blocks and the policy for new ones; its regions of persistent memory are not
    asked. tool: whether `cxl` is installed. made: requests whose region tierd made in this boot and did not
    take down, each with the identity of the region.
    """

    inventory: Inventory
    memdevs: tuple[CxlMemdev, ...]
    regions: tuple[CxlRegion, ...]
    windows: tuple[CxlWindow, ...]
    tool: bool
    made: frozenset[tuple[str, str]] = frozenset()


def begun_regions(
    machine: CxlMachine, serials: Collection[int], before: Collection[str], size: int | None
) -> tuple[CxlRegion, ...]:
    """The regions that can be the one of `size` bytes that a run began to make of the devices with `serials`
    when there were those with the identities `before`. When there are several, nobody knows which one is."""
    wanted = {memdev.name for memdev in machine.memdevs if memdev.serial in serials}
    return tuple(
        region
        for region in machine.regions
        if region.mode in ("ram", "none")
        and region.identity not in before
        and (
            (set(region.memdevs) == wanted and region.size == size)
            or (not region.committed and set(region.memdevs) <= wanted and region.size in (0, size))
        )
    )
