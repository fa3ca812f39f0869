"""Finds pages of service classes, whether or not anybody was seen to use them: those that are owed DRAM, and
those that have to leave it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tierd.core.heat import HotPages
from tierd.core.holdings import Sharing, Spare, spare_wanted
from tierd.core.model import Node, ProcessView, Topology
from tierd.core.planner import room_pages, slow_room_pages
from tierd.errors import TierdError
from tierd.kernel.paths import Root
from tierd.kernel.residence import pages_on
from tierd.service.placed import PlacedProcesses

MOST_FOUND: Final = 1 << 15
"""Base pages that a round looks up at most, of what is owed and of what has to go: 128 MiB each."""
FIND_SECONDS: Final = 0.3

UP: Final = -1
"""In the place of a node, where pages of all slow nodes are looked for."""

Pages = npt.NDArray[np.uint64]
Movable = Callable[[npt.NDArray[np.int64], Pages], npt.NDArray[np.bool_]]


class _Search(NamedTuple):
    """Whether pages were looked for, and whether any were found that may be moved."""

    wanted: bool = False
    found: bool = False


class ClassPages:
    """Used by the engine only, in its thread. Goes on in each process where it stopped, so that all of its
    pages have their turn."""

    def __init__(self, root: Root, placed: PlacedProcesses, clock: Callable[[], float]) -> None:
        self._root = root
        self._placed = placed
        self._clock = clock
        self._next: dict[tuple[int, int], int] = {}
        self._owed = self._spare = _Search()

    @property
    def hopeless(self) -> bool:
        """Whether the last searches of either kind found none that may be moved, as where all that are left
        are locked or mapped by several: no reason for the next round to come soon."""
        both = self._owed, self._spare
        return any(search.wanted for search in both) and not any(search.found for search in both)

    def with_owed(self, sharing: Sharing, hot: HotPages, slow: Iterable[int], movable: Movable) -> HotPages:
        """`hot`, and behind it pages on the nodes `slow` that classes are owed though nobody was seen to use
        them. movable: which pages of which slots may be planned."""
        self._next = {key: page for key, page in self._next.items() if self._placed.by_slot(key[0])}
        owed = {place: holding.lack for place, holding in enumerate(sharing.holdings) if holding.lack}
        found, left, ends = [hot], MOST_FOUND, self._clock() + FIND_SECONDS
        for slot, view, place in self._of(sharing, owed):
            pages = self._find(view, (slot, UP), set(slow), min(left, owed[place]), ends)
            pages = np.setdiff1d(pages, hot.page[hot.slot == slot])
            pages = pages[movable(np.full(len(pages), slot), pages)]
            owed[place] -= len(pages)
            left -= len(pages)
            found.append(_unused(slot, pages))
        self._owed = _Search(bool(owed), any(map(len, found[1:])))
        return _joined(found) if len(found) > 1 else hot

    def spare(self, sharing: Sharing, topology: Topology, floor: int, movable: Movable) -> Spare:
        """Pages in DRAM that may have to go down whatever their use, as core.holdings.spare_wanted says.
        floor: the policy's extra bytes."""
        wanted = spare_wanted(sharing, room_pages(topology.dram, floor))
        parts, left, ends = [Spare.none()], MOST_FOUND, self._clock() + FIND_SECONDS
        barred = self._placed.barred(node.number for node in topology.slow)
        # a process's whole call fails where its cpuset does not have the node
        shut = set[int]().union(*barred.values())
        for slot, view, place in self._of(sharing, wanted):
            for node in topology.dram:
                most = min(left, wanted[place])
                to = nearest_with_room(node, topology.slow)
                if slot in shut or most <= 0 or to is None:
                    continue
                pages = self._find(view, (slot, node.number), {node.number}, most, ends)
                pages = pages[movable(np.full(len(pages), slot), pages)]
                wanted[place] -= len(pages)
                left -= len(pages)
                parts.append(_spare(slot, pages, node.number, to.number))
        self._spare = _Search(bool(wanted), any(map(len, parts)))
        names = ("slot", "page", "dram", "slow")
        return Spare(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def _of(self, sharing: Sharing, wanted: Collection[int]) -> Iterable[tuple[int, ProcessView, int]]:
        """The processes of these classes: slot, process and the place of its class."""
        for view in self._placed.views if wanted else ():
            slot = self._placed.slot_of(view.id)
            if (place := sharing.of_slot.get(slot, -1)) in wanted:
                yield slot, view, place

    def _find(
        self, view: ProcessView, key: tuple[int, int], nodes: Collection[int], most: int, ends: float
    ) -> Pages:
        """Up to `most` pages on `nodes`, from where the last search with this key has stopped."""
        seconds = ends - self._clock()
        if most <= 0 or seconds <= 0:
            return np.empty(0, dtype=np.uint64)
        first = self._next.get(key, 0)
        try:
            there = pages_on(self._root, view.id, nodes, first=first, most=most, seconds=seconds)
        except TierdError:
            return np.empty(0, dtype=np.uint64)  # it is ending
        self._next[key] = int(there.pages[most]) if len(there.pages) > most else there.next
        return there.pages[:most]


def nearest_with_room(node: Node, slow: Sequence[Node]) -> Node | None:
    """Where pages of a DRAM node go down to: the nearest slow node that has room, None when none has."""
    fitting = [other for other in slow if slow_room_pages((other,))]
    return min(fitting, key=lambda other: (node.distance(other.number), -other.free), default=None)


def _unused(slot: int, pages: Pages) -> HotPages:
    """Pages of one process that nobody was seen to use."""
    count = len(pages)
    slots, near = np.full(count, slot, dtype=np.int64), np.full(count, -1, dtype=np.int16)
    return HotPages(slots, pages, np.zeros(count), near)


def _spare(slot: int, pages: Pages, dram: int, slow: int) -> Spare:
    nodes = (np.full(len(pages), node, dtype=np.int16) for node in (dram, slow))
    return Spare(np.full(len(pages), slot, dtype=np.int64), pages, *nodes)


def _joined(parts: Sequence[HotPages]) -> HotPages:
    names = ("slot", "page", "rate", "near")
    return HotPages(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
