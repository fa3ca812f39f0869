"""Which cgroups may be asked for pages of DRAM."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from tierd.core.policy import ProcessSelection
from tierd.errors import GoneError, TierdError
from tierd.kernel.cpusets import Nodes, read_allowed_nodes
from tierd.kernel.occupancy import read_occupancy
from tierd.kernel.paths import Root
from tierd.kernel.processes import read_members
from tierd.service.placed import PlacedProcesses

ANSWER_SECONDS = 10.0
"""For which an answer holds: there may be thousands of cgroups, and each takes a file or two."""


class Demotable:
    """Used by the engine only.

    Demotion knows cgroups, and neither processes nor cpusets: up to Linux 6.15 the kernel demotes what a
    cpuset keeps in DRAM, and later ones would swap it out, where there is swap. And what goes down comes up
    again only where its process is placed, and nobody else's maps it. So a cgroup is asked if the policy
    selects it, its cpuset allows a slow node, it has a process that is placed, or none at all, and it is not
    one of processes that share most of what they have, as those of PostgreSQL do. What cannot be read of a
    cgroup that is there counts against asking it.
    """

    def __init__(self, root: Root, placed: PlacedProcesses) -> None:
        self._root = root
        self._placed = placed
        self.adopt(ProcessSelection())
        self._slow: Collection[int] = ()
        self._open: dict[str, bool] = {}
        self._empty: dict[str, bool] = {}
        self._allowed: dict[str, Nodes] = {}
        self._with_placed: set[str] = set()
        self._sharing: Collection[str] = ()
        self._lent: dict[str, bool] = {}

    def adopt(
        self, selection: ProcessSelection, promised: Callable[[str], bool] = lambda cgroup: False
    ) -> None:
        """promised: whether all memory of a cgroup is to stay in DRAM."""
        self._selection = selection
        self._promised = promised
        self._next = -math.inf

    def look(self, now: float, slow: Collection[int], sharing: Collection[str]) -> None:
        """A round begins. slow: the numbers of the slow nodes. sharing: cgroups some of whose pages did not
        come up because several processes map them."""
        if now >= self._next or slow != self._slow:
            self._next, self._slow = now + ANSWER_SECONDS, slow
            for answers in (self._open, self._empty, self._allowed, self._lent):
                answers.clear()
        self._sharing = sharing
        self._with_placed = {view.cgroup for view in self._placed.views}

    def caches(self, cgroup: str) -> bool:
        """Whether it may be asked for page cache, which is no process's own. Satisfies, as `selects` does,
        service.coldness.Selects."""
        if cgroup not in self._open:
            self._open[cgroup] = self._selection.selects(cgroup) and self._may_go_down(cgroup)
        return self._open[cgroup]

    def selects(self, cgroup: str) -> bool:
        """Whether it may be asked for anonymous memory and tmpfs."""
        if not self.caches(cgroup) or self._promised(cgroup):
            return False
        if cgroup in self._sharing and self._mostly_lent(cgroup):
            return False
        if cgroup in self._with_placed:
            return True
        if cgroup not in self._empty:
            self._empty[cgroup] = self._is_empty(cgroup)
        return self._empty[cgroup]

    def _is_empty(self, cgroup: str) -> bool:
        try:
            return not read_members(self._root, cgroup)
        except GoneError:
            return True  # the cgroup is gone while its memory is not
        except TierdError:
            return False

    def _may_go_down(self, cgroup: str) -> bool:
        allowed = read_allowed_nodes(self._root, cgroup, self._allowed)
        return allowed is None or not allowed.isdisjoint(self._slow)

    def _mostly_lent(self, cgroup: str) -> bool:
        """Whether most of its memory is of the kind that several processes can map."""
        if cgroup not in self._lent:
            try:
                shared, own = (
                    sum(read_occupancy(self._root, cgroup, (kind,)).values()) for kind in ("shmem", "anon")
                )
                self._lent[cgroup] = shared > own
            except GoneError:
                self._lent[cgroup] = False
            except TierdError:
                self._lent[cgroup] = True
        return self._lent[cgroup]
