"""Soft-dirty bits as a source of access information: pages written since somebody cleared the bits.

The last resort. It sees writes only; each clearing holds the process's mmap lock for about 15 ms a GiB and
makes the next write to every page a fault; and whoever else goes by the bits (CRIU, garbage collectors) is
misled. So it takes a capability that the unit does not give: an administrator who adds it has decided.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.core.access import NO_CPU, Accesses
from tierd.core.model import PAGE_SIZE, ProcessId, ProcessView
from tierd.errors import DeniedError, GoneError, MalformedError, UnsupportedError
from tierd.kernel.files import read_text
from tierd.kernel.huge_pages import open_pagemap
from tierd.kernel.paths import Root
from tierd.kernel.processes import same_process

CAP_DAC_OVERRIDE: Final = 1
"""include/uapi/linux/capability.h. /proc/PID/clear_refs is its owner's to write; CAP_SYS_PTRACE does not
do."""

# Documentation/admin-guide/mm/soft-dirty.rst, pagemap.rst
_CLEAR_SOFT_DIRTY: Final = b"4"
_SOFT_DIRTY: Final = np.uint64(1 << 55)
_PRESENT: Final = np.uint64(1 << 63)
_WRITTEN: Final = _PRESENT | _SOFT_DIRTY

PASS_SECONDS: Final = 2.0
"""Between two clearings of a process, at least: each page that is written faults once in this time."""
LONGEST_PASS_SECONDS: Final = 30.0
"""The same at rest, where it only has to be noticed that other pages are written now."""
_LEAST_REST: Final = 100
"""Times as long as a pass took that the next one waits, so that the lock is held for 1 % of the time."""
_STEP_SECONDS: Final = 0.5
"""Of one reading, after which the other processes have to wait for the next: the rings of other work are
read in between."""
_PIECE: Final = 1 << 16
"""Entries of pagemap (256 MiB) read at a time."""
_WRITABLE: Final = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) .w.. ", re.MULTILINE)


def find_soft_dirty(root: Root) -> None:
    """Raises UnsupportedError when this process may not clear the bits of others, with what would let it.
    Whether the kernel has them shows in the self-test."""
    try:
        status = read_text(root.proc / "self/status")
        lines = (line.split() for line in status.splitlines())
        effective = next(int(words[1], 16) for words in lines if words[:1] == ["CapEff:"])
    except (DeniedError, GoneError, MalformedError, StopIteration, ValueError) as error:
        raise UnsupportedError(f"this process's capabilities cannot be read: {error}") from error
    if not effective >> CAP_DAC_OVERRIDE & 1:
        raise UnsupportedError("writes only, and it takes CAP_DAC_OVERRIDE from a drop-in, see tierd(8)")


class SoftDirty:
    """Satisfies core.access.AccessSource."""

    name = "soft-dirty bits"
    looks = None
    reason = "writes only: what is read and never written looks unused; and each look costs its process"
    period: int | None = 3
    """Writes for which a mark stands. A page that is written in nearly every pass is written more than once:
    at random, three times in a pass leave one pass in twenty without (exp(-3)). For one that is seldom
    written that is too many, but by the same factor for all of these."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._processes: tuple[ProcessId, ...] = ()
        self._cleared: set[ProcessId] = set()
        self._waiting: deque[ProcessId] = deque()
        self._next_pass = 0.0
        self._took = 0.0
        self._pass_seconds = PASS_SECONDS

    def start(self) -> None:
        """With this process alone, for the self-test. Raises OSError."""
        own = ProcessId(os.getpid(), 0)
        self._clear(own)
        self._processes, self._cleared = (own,), {own}

    def watch(self, processes: Sequence[ProcessView]) -> None:
        self._processes = tuple(view.id for view in processes)
        self._cleared &= set(self._processes)

    def read(self) -> Accesses:
        begun = self._clock()
        if not self._waiting and begun >= self._next_pass:
            self._waiting.extend(self._processes)
            self._took = 0.0
        seen: list[tuple[int, npt.NDArray[np.uint64]]] = []
        while self._waiting and self._clock() - begun < _STEP_SECONDS:
            process = self._waiting.popleft()
            try:
                seen.append((process.pid, self._look(process)))
            except (OSError, DeniedError, GoneError):
                self._cleared.discard(process)  # it has ended, as a rule
        now = self._clock()
        self._took += now - begun
        passes = 0
        if not self._waiting and now >= self._next_pass:
            passes = int(bool(seen))
            self._next_pass = now + max(self._pass_seconds, _LEAST_REST * self._took)
        counts = [len(pages) for _, pages in seen]
        return Accesses(
            np.repeat(np.array([pid for pid, _ in seen], dtype=np.int32), counts),
            np.concatenate([np.empty(0, np.uint64), *(pages for _, pages in seen)]),
            np.full(sum(counts), now),
            np.full(sum(counts), NO_CPU, dtype=np.int32),
            passes=passes,
        )

    def steer(self, effort: float) -> None:
        """Less often, down to twice a minute."""
        self._pass_seconds = min(PASS_SECONDS / effort, LONGEST_PASS_SECONDS)

    def stop(self) -> None:
        """There is nothing to give back."""
        self._processes = ()

    def _look(self, process: ProcessId) -> npt.NDArray[np.uint64]:
        """Pages written since the last look; none the first time, when the bits tell of the whole life of
        the process."""
        if process.start and not same_process(self._root, process):
            raise GoneError(f"process {process.pid} has ended")
        pages = self._written(process) if process in self._cleared else np.empty(0, np.uint64)
        self._clear(process)
        self._cleared.add(process)
        return pages

    def _written(self, process: ProcessId) -> npt.NDArray[np.uint64]:
        found = [np.empty(0, np.uint64)]
        with open_pagemap(self._root, process.pid) as descriptor:
            for first, last in self._mappings(process.pid):
                for page in range(first, last, _PIECE):
                    data = os.pread(descriptor, 8 * (min(page + _PIECE, last) - page), 8 * page)
                    entries = np.frombuffer(data[: len(data) // 8 * 8], dtype="<u8")
                    written = np.flatnonzero((entries & _WRITTEN) == _WRITTEN)
                    found.append(written.astype(np.uint64) + np.uint64(page))
        return np.concatenate(found)

    def _mappings(self, pid: int) -> Iterator[tuple[int, int]]:
        """Page numbers of what can be written: the first, and the one after the last."""
        for start, end in _WRITABLE.findall(read_text(self._root.proc / str(pid) / "maps")):
            yield int(start, 16) // PAGE_SIZE, int(end, 16) // PAGE_SIZE

    def _clear(self, process: ProcessId) -> None:
        path = self._root.proc / str(process.pid) / "clear_refs"
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, _CLEAR_SOFT_DIRTY)
        finally:
            os.close(descriptor)
