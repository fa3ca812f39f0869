"""move_pages(2) over numpy arrays: where pages are, and moving them."""

from __future__ import annotations

import ctypes
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.kernel.syscalls import call

Addresses = npt.NDArray[np.uint64]
Nodes = npt.NDArray[np.int32]

MPOL_MF_MOVE: Final = 1 << 1
STATUS_UNKNOWN: Final = -9999
"""What a status holds when the kernel did not write it: a call that ends early leaves it so."""


def query_nodes(pid: int, addresses: Addresses) -> Nodes:
    """The node of each page, or a negative errno (absent, shared zero page, not a mapping). move_pages(2).

    Raises OSError: ESRCH (gone), EPERM, EINVAL (no memory), EINTR (7.x, while the process executes a new
    program).
    """
    addresses = np.ascontiguousarray(addresses, dtype=np.uint64)
    status = np.full(len(addresses), STATUS_UNKNOWN, dtype=np.int32)
    call(
        "move_pages",
        ctypes.c_int(pid),
        ctypes.c_ulong(len(addresses)),
        ctypes.c_void_p(addresses.ctypes.data),
        None,
        ctypes.c_void_p(status.ctypes.data),
        ctypes.c_int(0),
    )
    return status


class MoveCall:
    """move_pages(2) of one set of pages to one node, a part of them at a time.

    status: int32, of each page what the kernel said: its node, a negative errno, or STATUS_UNKNOWN before it
    was tried.
    """

    def __init__(self, pid: int, addresses: Addresses, node: int) -> None:
        self._pid = ctypes.c_int(pid)
        self._addresses = np.ascontiguousarray(addresses, dtype=np.uint64)
        self._nodes = np.full(len(addresses), node, dtype=np.int32)
        self.status = np.full(len(addresses), STATUS_UNKNOWN, dtype=np.int32)
        self._at = self._addresses.ctypes.data, self._nodes.ctypes.data, self.status.ctypes.data

    def move(self, first: int, count: int) -> int:
        """Move `count` pages from the `first` on; only those that no other process maps (MPOL_MF_MOVE).

        Returns the call's result (0, or how many were not done). A result above 0 means that the call ended
        early and left the statuses of the run in flight as STATUS_UNKNOWN, those of pages that did move
        among them (do_pages_move, mm/migrate.c); with 0 a status that is the node says that the page is
        there. Raises OSError like query_nodes, and EACCES (node outside the target's cpuset), ENODEV (node
        without memory), ENOMEM."""
        addresses, nodes, status = self._at
        return call(
            "move_pages",
            self._pid,
            ctypes.c_ulong(count),
            ctypes.c_void_p(addresses + first * 8),
            ctypes.c_void_p(nodes + first * 4),
            ctypes.c_void_p(status + first * 4),
            ctypes.c_int(MPOL_MF_MOVE),
        )
