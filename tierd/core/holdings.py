"""What service classes have of memory, what they are owed, and who has to give some up. Pure values, filled
by service/class_shares.py and read by core/sharing.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tierd.core.classes import ServiceClass


@dataclass(frozen=True, slots=True)
class Holding:
    """What a class has and may have, in base pages. dram, slow: what it has there. least: of DRAM, what
    nobody may take. most: what it may have. budget: what may be moved of it in this round. coldest: uses a
    second expected of its coldest pages in DRAM, as `Observation.coldest`. overdue: whether it has had too
    little, or too much, for so long that pages go down for it whatever their use."""

    service_class: ServiceClass
    dram: int
    slow: int
    least: int
    most: int
    budget: int
    coldest: float
    overdue: bool = False

    @property
    def lack(self) -> int:
        return max(0, min(self.least, self.dram + self.slow) - self.dram)

    @property
    def excess(self) -> int:
        return max(0, self.dram - self.most)


@dataclass(frozen=True, slots=True)
class Sharing:
    """Who has what. holdings: in the order in which promises are served. of_slot, of_cgroup: the place of a
    process's, and of a cgroup's class among them."""

    holdings: tuple[Holding, ...]
    of_slot: Mapping[int, int]
    of_cgroup: Mapping[str, int]

    def priority(self, place: int) -> int:
        return self.holdings[place].service_class.priority

    def classes_of(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """For each slot the place of its class, -1 for what is placed no more."""
        known, place = np.unique(slots, return_inverse=True)
        found = np.array([self.of_slot.get(slot, -1) for slot in known.tolist()], dtype=np.int64)
        return found[place] if len(found) else np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Spare:
    """Pages in DRAM of those who may have to give some up, in the order in which they would go. slot: of the
    process. page: its number there. dram: the node it lies on. slow: the one it would go to."""

    slot: npt.NDArray[np.int64]
    page: npt.NDArray[np.uint64]
    dram: npt.NDArray[np.int16]
    slow: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.slot)

    @staticmethod
    def none() -> Spare:
        node = np.empty(0, dtype=np.int16)
        return Spare(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64), node, node)


def spare_wanted(sharing: Sharing, room: int) -> dict[int, int]:
    """Pages in DRAM of each class, by its place, that may have to go down whatever their use: what it has
    too much, and what others lack of their promise beyond `room` pages, of the lowest priority first. Only
    for what is overdue; cold pages come first."""
    late = [holding for holding in sharing.holdings if holding.overdue]
    wanted = {
        place: holding.excess
        for place, holding in enumerate(sharing.holdings)
        if holding.overdue and holding.excess
    }
    short = sum(holding.lack for holding in late) - room - sum(wanted.values())
    order = sorted(range(len(sharing.holdings)), key=sharing.priority)
    for place in order:
        holding = sharing.holdings[place]
        left = holding.dram - holding.least - wanted.get(place, 0)
        if (more := min(short, left)) > 0:
            wanted[place] = wanted.get(place, 0) + more
            short -= more
    return wanted
