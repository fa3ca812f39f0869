"""Which memory blocks each node has online, read again only when a node's size has changed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from tierd.core.model import Topology
from tierd.errors import TierdError
from tierd.kernel.files import read_text
from tierd.kernel.paths import Root


def read_online_blocks(root: Root, node: int) -> tuple[int, ...]:
    """The numbers of the node's memory blocks that are online; none without memory hotplug. Everybody may
    read them. Blocks that cannot be read are left out."""
    found = []
    for path in root.nodes.glob(f"node{node}/memory[0-9]*"):
        with contextlib.suppress(TierdError, ValueError):
            # `going-offline` is still online memory
            if read_text(path / "state").strip() != "offline":
                found.append(int(path.name.removeprefix("memory")))
    return tuple(sorted(found))


class OnlineBlocks:
    """Used by the engine, in its thread. A machine of terabytes has thousands of blocks, so they are not
    read in every round: a block that comes or goes changes its node's size."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._sizes: dict[int, int] = {}
        self._blocks: dict[int, tuple[int, ...]] = {}

    def follow(self, topology: Topology) -> Mapping[int, tuple[int, ...]]:
        """The blocks of each node in `topology`. A new mapping when any has changed. Raises nothing."""
        sizes = {node.number: node.total for tier in topology.tiers for node in tier.nodes}
        if sizes != self._sizes:
            self._blocks = {
                number: self._blocks[number]
                if self._sizes.get(number) == size
                else read_online_blocks(self._root, number)
                for number, size in sizes.items()
            }
            self._sizes = sizes
        return self._blocks
