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


def move_pages(pid: int, addresses: Addresses, node: int) -> tuple[int, Nodes]:
    """Move the pages at `addresses` to `node`; only pages that no other process maps (MPOL_MF_MOVE).

    Returns the call's result (0, or how many were not done) and the status of each page. A result above 0
    means that the call ended early and left the statuses of the run in flight as STATUS_UNKNOWN, those of
    pages that did move among them (do_pages_move, mm/migrate.c). Raises OSError like query_nodes, and
    EACCES (node outside the target's cpuset), ENODEV (node without memory), ENOMEM.
    """
    addresses = np.ascontiguousarray(addresses, dtype=np.uint64)
    nodes = np.full(len(addresses), node, dtype=np.int32)
    status = np.full(len(addresses), STATUS_UNKNOWN, dtype=np.int32)
    result = call(
        "move_pages",
        ctypes.c_int(pid),
        ctypes.c_ulong(len(addresses)),
        ctypes.c_void_p(addresses.ctypes.data),
        ctypes.c_void_p(nodes.ctypes.data),
        ctypes.c_void_p(status.ctypes.data),
        ctypes.c_int(MPOL_MF_MOVE),
    )
    return result, status
