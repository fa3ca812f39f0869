"""Emptying memory blocks: all of them within a deadline, or none.

Writing ``offline`` to a block makes the kernel move what is in use there to other memory, of other nodes
first (mm/memory_hotplug.c, offline_pages). It tries for ever; a deadline or a signal ends that, and what was
taken offline until then comes back.
"""

from __future__ import annotations

from collections.abc import Callable

from tierd.core.inventory import MemoryBlock
from tierd.core.provision import MEMORY_POLICY
from tierd.errors import TierdError
from tierd.kernel.memory_blocks import block_state, take_offline, write_setting
from tierd.kernel.paths import Root

DRAIN_DEADLINE = 300.0
DRAIN_SECONDS_PER_GIB = 2.0
"""Seconds in which all blocks of a slice must be empty: the first at least, and the second for each
GiB, which is moving at 512 MiB/s, a judgement on the safe side. What is pinned takes for ever."""

_GIB = 1 << 30

Progress = Callable[[int, int], None]
"""Takes how many blocks are offline, and of how many."""


def deadline_of(memory: int) -> float:
    """Seconds to give `memory` bytes to be emptied."""
    return max(DRAIN_DEADLINE, memory / _GIB * DRAIN_SECONDS_PER_GIB)


def drain(
    root: Root, blocks: tuple[MemoryBlock, ...], deadline: float, progress: Progress
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Take `blocks` offline within `deadline` seconds. For the main thread.

    Returns the numbers of those that could not be emptied, and of those that could not be brought back
    after that; both are empty when all is well. Whatever interrupts it, blocks that were taken offline are
    brought back before it goes on its way.
    """
    waiting = tuple(block for block in blocks if block.online)
    taken: list[int] = []

    def note(number: int) -> None:
        taken.append(number)
        progress(len(taken), len(waiting))

    progress(0, len(waiting))
    try:
        stayed = take_offline(root, waiting, deadline, note)
    except BaseException:
        _bring_back(root, taken)
        raise
    return stayed, _bring_back(root, taken) if stayed else ()


def _bring_back(root: Root, numbers: list[int]) -> tuple[int, ...]:
    failed = []
    for number in reversed(numbers):
        try:
            write_setting(root, block_state(number), MEMORY_POLICY)
        except TierdError:
            failed.append(number)
    return tuple(failed)
