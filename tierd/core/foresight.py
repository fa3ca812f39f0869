"""The machine as it will be when a namespace has been made or given back, for planning what comes after.

Pure; called by core/shares.py.
"""

from __future__ import annotations

from dataclasses import replace

from tierd.core import capacity, room
from tierd.core.inventory import Inventory, MemoryNode, Namespace, Region
from tierd.core.provision import target_of


def _replace_region(inventory: Inventory, before: Region, after: Region) -> tuple[Inventory, Region]:
    regions = tuple(after if region is before else region for region in inventory.regions)
    return replace(inventory, regions=regions), after


def with_made(
    inventory: Inventory, region: Region, made: Namespace, memory: int
) -> tuple[Inventory, Region]:
    """The machine when `made` is `memory` bytes of memory."""
    size = 0 if made.span is None else made.span.size
    after = replace(region, namespaces=(*region.namespaces, made), available=region.available - size)
    return _replace_region(_with_memory(inventory, region.target_node, memory), region, after)


def without(inventory: Inventory, region: Region, gone: Namespace) -> tuple[Inventory, Region]:
    """The machine when `gone` is free capacity, and what of it was in use is in other memory."""
    size = 0 if gone.span is None else gone.span.size
    online = 0 if gone.dax is None else sum(block.online for block in gone.dax.blocks)
    after = replace(
        region,
        namespaces=tuple(n for n in region.namespaces if n is not gone),
        available=region.available + size,
    )
    leaving, target = online * inventory.block_size, target_of(region, gone)
    # what is in use moves before the memory goes
    moved = room.moved_away(inventory, target, room.moving(inventory, target, leaving))
    return _replace_region(_with_memory(moved, target, -leaving), region, after)


def _with_memory(inventory: Inventory, number: int | None, memory: int) -> Inventory:
    """The nodes when `memory` bytes come to node `number`, or, negative, go."""
    if number is None or not memory:
        return inventory
    dram = next((node for node in inventory.nodes if node.dram), None)
    nodes = []
    for node in inventory.nodes:
        if node.number == number:
            node = replace(
                node, total=max(0, node.total + memory), available=max(0, node.available + memory)
            )
        elif node is dram:
            node = replace(node, available=max(0, node.available - capacity.page_structures(memory)))
        nodes.append(node)
    if memory > 0 and all(node.number != number for node in nodes):
        nodes.append(MemoryNode(number, memory, memory, False, False, None))
    return replace(inventory, nodes=tuple(nodes))
