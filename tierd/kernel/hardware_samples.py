"""PEBS (Intel) and IBS (AMD) as sources of access information: the CPU samples memory accesses.

No machine with either was at hand. The records' layout and the ring are tested with rings written as the
kernel's headers say; that a CPU fills them so is not shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.core.access import Accesses
from tierd.core.model import ProcessView
from tierd.errors import TierdError
from tierd.kernel.memory_blocks import read_block_size
from tierd.kernel.paths import Root
from tierd.kernel.perf import MEMORY_LAYOUT, Records, SampleStream, accesses
from tierd.kernel.perf_event import PERIODS

_USER_PAGES: Final = np.uint64(1 << 45)
"""Virtual page numbers of user space lie below (57-bit addresses, 5-level paging)."""
_LEVEL_SHIFT: Final = np.uint64(33)
_LEVEL_MASK: Final = np.uint64(0xF)
_CACHES: Final = (1, 2, 3, 4, 0xB)
"""mem_lvl_num of perf_mem_data_src (include/uapi/linux/perf_event.h): L1 to L4, and any cache. DRAM is of no
use to what a cache serves. Whether CPUs tell PMEM and CXL from DRAM there varies, so that is asked of the
physical address."""


class HardwareSamples:
    """Satisfies core.access.AccessSource. The descriptors stay the caller's."""

    looks = None

    def __init__(self, name: str, descriptors: Iterable[int], root: Root, fast: frozenset[int]) -> None:
        """name: PEBS or IBS. descriptors: of the event of each CPU. fast: the nodes of DRAM; what lies on
        any other is reported."""
        self.name: str = name
        self.reason: str = (
            "page-exact samples of the CPU; tested with recorded rings only, never on such a machine"
        )
        self.period: int | None = PERIODS[name]
        self._descriptors = tuple(descriptors)
        self._root = root
        self._fast = fast
        self._stream: SampleStream | None = None
        self._block_size = 0
        self._node_of_block: npt.NDArray[np.int16] = np.empty(0, dtype=np.int16)

    def start(self) -> None:
        self._read_blocks()
        self._stream = SampleStream(self._descriptors, MEMORY_LAYOUT)
        self._stream.enable(True)

    def watch(self, processes: Sequence[ProcessView]) -> None:
        """All processes are seen."""

    def read(self) -> Accesses:
        """Samples of user memory on slow nodes that no cache served. Raises TierdError."""
        records, lost = self._samples()
        records = records[records["physical_address"] != 0]
        level = records["data_source"] >> _LEVEL_SHIFT & _LEVEL_MASK
        records = records[~np.isin(level, _CACHES)]
        return accesses(records[self._on_slow_node(records["physical_address"])], lost)

    def read_everything(self) -> Accesses:
        """Samples wherever the memory lies, for the self-test, whose own page may lie in DRAM."""
        return accesses(*self._samples())

    def steer(self, effort: float) -> None:
        """The period is fixed when the event is opened; the kernel throttles what takes too much of a CPU
        (perf_cpu_time_max_percent)."""

    def stop(self) -> None:
        if self._stream is not None:
            self._stream.enable(False)
            self._stream.close()
            self._stream = None

    def _samples(self) -> tuple[Records, int]:
        assert self._stream is not None, "read before start"
        records, lost = self._stream.read()
        return records[records["address"] >> np.uint64(12) < _USER_PAGES], lost

    def _on_slow_node(self, physical: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        block = (physical // np.uint64(self._block_size)).astype(np.int64)
        node = self._nodes(block)
        if (node < 0).any():  # memory that came online since
            self._read_blocks()
            node = self._nodes(block)
        return (node >= 0) & ~np.isin(node, list(self._fast))

    def _nodes(self, block: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
        known = self._node_of_block
        if not len(known):
            return np.full(len(block), -1, dtype=np.int16)
        return np.where(block < len(known), known[block.clip(max=len(known) - 1)], np.int16(-1))

    def _read_blocks(self) -> None:
        self._block_size = read_block_size(self._root)
        nodes: dict[int, int] = {}
        for path in self._root.nodes.glob("node[0-9]*/memory[0-9]*"):
            nodes[int(path.name.removeprefix("memory"))] = int(path.parent.name.removeprefix("node"))
        if not nodes:
            raise TierdError(f"{self._root.nodes}: no memory blocks, so that no address has a node")
        self._node_of_block = np.full(max(nodes) + 1, -1, dtype=np.int16)
        self._node_of_block[list(nodes)] = list(nodes.values())
