"""Where what is in use goes when memory leaves the kernel, and what DRAM is to carry, in bytes. Pure; for
core/refusals.py, which refuses where there is no room, core/foresight.py, which says what is left of it
afterwards, and core/shares.py, which warns."""

from __future__ import annotations

from dataclasses import replace

from tierd.core.inventory import Inventory, MemoryNode
from tierd.core.text import size

DRAM_KEPT_SHARE = 16
SMALLEST_DRAM_KEPT = 64 << 20
"""One sixteenth of DRAM, and at least 64 MiB, is to be available still when memory has come or gone."""

MUCH_RATIO = 4
"""Bytes of slow memory for each byte of DRAM up to which the kernel's documentation calls it fine
(Documentation/admin-guide/mm/memory-hotplug.rst)."""


def kept(dram: int) -> int:
    """What of `dram` bytes is to be available still when memory has come or gone."""
    return max(dram // DRAM_KEPT_SHARE, SMALLEST_DRAM_KEPT)


def moving(inventory: Inventory, target: int | None, leaving: int) -> int:
    """What of node `target` is in use, and does not fit into what stays of it when `leaving` bytes go."""
    node = next((n for n in inventory.nodes if n.number == target), None)
    if node is None or not leaving:
        return 0
    return max(0, node.total - node.available - max(0, node.total - leaving))


def needed(moved: int) -> int:
    """What must be had elsewhere for `moved` bytes: a tenth is to spare."""
    return -(-moved * 11 // 10)


def to_give(node: MemoryNode) -> int:
    """What the node can take in: what it has available, beyond what DRAM is to keep."""
    return max(0, node.available - (kept(node.total) if node.dram else 0))


def others_to_give(inventory: Inventory, target: int | None) -> int:
    """What all nodes but `target` can take in together."""
    return sum(to_give(node) for node in inventory.nodes if node.number != target)


def much_behind_dram(inventory: Inventory, to_add: int) -> tuple[str, ...]:
    """A warning where DRAM carries `to_add` bytes more, and has little left for all that can lie nowhere
    else."""
    dram = sum(node.total for node in inventory.nodes if node.dram)
    slow = sum(node.total for node in inventory.nodes if not node.dram) + to_add
    if to_add <= 0 or slow <= MUCH_RATIO * dram:
        return ()
    return (
        f"{size(slow)} of slow memory behind {size(dram)} of DRAM is above {MUCH_RATIO}:1: page tables, the"
        " kernel's own memory and its caches have room in DRAM only, and may find too little",
    )


def moved_away(inventory: Inventory, target: int | None, moved: int) -> Inventory:
    """The nodes when `moved` bytes of node `target` have found a place in others, with what is to spare for
    them: that is not promised twice. DRAM fills first, being nearer than another node of slow memory."""
    left = needed(moved)
    nodes = {node.number: node for node in inventory.nodes}
    for node in sorted(inventory.nodes, key=lambda node: not node.dram):
        if node.number != target:
            taken = min(left, to_give(node))
            left -= taken
            nodes[node.number] = replace(node, available=node.available - taken)
    return replace(inventory, nodes=tuple(nodes[node.number] for node in inventory.nodes))
