"""A machine with one region of persistent memory, as values, for the tests of plans."""

from __future__ import annotations

from dataclasses import replace

from tierd.core.inventory import DaxDevice, Inventory, MemoryBlock, MemoryNode, Namespace, Region, Span
from tierd.core.policy import ProvisionMode, ProvisionRequest
from tierd.core.provision import ProvisionPlan

MIB = 1 << 20
GIB = 1 << 30
BLOCK = 128 * MIB
START = 4 * GIB
ISET = 0x2468AC00123456
UUID = "ffccf0df-4ef9-4fc1-a56b-db81433947dd"
REQUEST = ProvisionRequest("pmem0", ISET, GIB, ProvisionMode.APPLY)

DRAM = MemoryNode(0, 1150 * MIB, 1000 * MIB, has_cpus=True, kernel_memory=True, tier="memory_tier4")
SLOW = MemoryNode(1, GIB, GIB, has_cpus=False, kernel_memory=False, tier="memory_tier56")
REGION = Region(
    name="region0",
    iset_id=ISET,
    span=Span(START, 4 * GIB),
    align=16 * MIB,
    available=4 * GIB,
    labelled=True,
    enabled=True,
    read_only=False,
    bad_blocks=0,
    locked=(),
    target_node=1,
)
MACHINE = Inventory((REGION,), (DRAM,), BLOCK, "online")


def with_region(machine: Inventory = MACHINE, **changes: object) -> Inventory:
    return replace(machine, regions=(replace(machine.regions[0], **changes),))  # type: ignore[arg-type]


def namespace(**changes: object) -> Namespace:
    found = Namespace("namespace0.0", UUID, "tierd:pmem0", "devdax", True, Span(START, 1152 * MIB), device())
    return replace(found, **changes)  # type: ignore[arg-type]


def device(driver: str = "device_dax", blocks: tuple[MemoryBlock, ...] = ()) -> DaxDevice:
    return DaxDevice("dax0.0", Span(START + 2 * MIB, 1150 * MIB), driver, 1, blocks)


def blocks(count: int = 8, zone: str = "Movable", offline: int = 0) -> tuple[MemoryBlock, ...]:
    return tuple(MemoryBlock(33 + i, i >= offline, zone if i >= offline else None, 1) for i in range(count))


def holding(*namespaces: Namespace, **changes: object) -> Inventory:
    held = sum(n.span.size for n in namespaces if n.span is not None)
    return with_region(namespaces=namespaces, available=4 * GIB - held, **changes)


def kinds(found: ProvisionPlan) -> list[str]:
    return [refusal.kind for refusal in found.refusals]
