"""Pages of processes in a hash table: what is a key, and the column that remembers a node.

A page of a process is one number of 64 bits: the process's slot above the number of the page.
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np
import numpy.typing as npt

from tierd.core.table import Keys, Places, Table

Nodes = npt.NDArray[np.int16]

PAGE_BITS: Final = np.uint64(45)
"""57-bit virtual addresses (5-level paging) have 45-bit page numbers."""
_FARTHEST: Final = 254
"""The highest node number that is remembered as a page's near one; nodes of DRAM come first, and are few."""


def page_keys(slot: npt.NDArray[np.int64], page: npt.NDArray[np.uint64]) -> Keys:
    """slot: 1 to 2^18. page: page numbers."""
    return (slot.astype(np.uint64) << PAGE_BITS) | page


def slots_of(keys: Keys) -> npt.NDArray[np.int64]:
    """The slot of each key."""
    return (keys >> PAGE_BITS).astype(np.int64)


def split_keys(keys: Keys) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """The slots and pages that `page_keys` was called with."""
    return slots_of(keys), keys & ((np.uint64(1) << PAGE_BITS) - np.uint64(1))


def note_near(pages: Table, place: Places, near: Nodes) -> None:
    """Remember `near` for the pages at `place`, where it is known. Their column "near" of a byte holds the
    node's number + 1, and 0 for none."""
    known = (near >= 0) & (near <= _FARTHEST)
    cast("npt.NDArray[np.uint8]", pages.columns["near"])[place[known]] = near[known] + 1


def noted_near(pages: Table, place: Places) -> Nodes:
    """What `note_near` remembers of the pages at `place`; -1 for nothing."""
    return pages.columns["near"][place].astype(np.int16) - np.int16(1)
