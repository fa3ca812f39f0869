"""NUMA hint faults as a source of access information.

With kernel.numa_balancing=2 the kernel unmaps pages of the slow tier in address order; the next access to
one faults, and that fault is a sample of perf's software page-fault event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from tierd.core.access import Accesses
from tierd.core.model import ProcessView
from tierd.core.sampling import FULL_SIZE
from tierd.kernel.doors import HINT_FAULTS
from tierd.kernel.perf import SampleStream, accesses
from tierd.kernel.scanning import ScanRate


class HintFaults:
    """Satisfies core.access.AccessSource. The descriptors stay the caller's."""

    name = HINT_FAULTS
    reason = "page-exact, and every kernel from 6.1 on has them"
    period = None
    looks = None

    def __init__(self, descriptors: Iterable[int], scanning: ScanRate) -> None:
        """descriptors: of the page-fault event of each CPU (kernel/perf_event.py). scanning: what `steer`
        steers; without its doors the kernel unmaps at its own rate, if at all."""
        self._descriptors = tuple(descriptors)
        self._scanning = scanning
        self._stream: SampleStream | None = None
        self._pids: npt.NDArray[np.int32] | None = None

    def start(self) -> None:
        self._stream = SampleStream(self._descriptors)
        self._scanning.prepare()
        self._stream.enable(True)

    def watch(self, processes: Sequence[ProcessView]) -> None:
        """All processes are seen; from now on only what these do is reported."""
        self._pids = np.array([view.id.pid for view in processes], dtype=np.int32)

    def read(self) -> Accesses:
        """Page faults of every kind: those that are no hint faults are first uses as well."""
        assert self._stream is not None, "read before start"
        records, lost = self._stream.read(self._pids)
        return accesses(records, lost, self._stream.others)

    def steer(self, effort: float) -> None:
        self._scanning.set_size(round(effort * FULL_SIZE))

    def stop(self) -> None:
        if self._stream is not None:
            self._stream.enable(False)
            self._stream.close()
            self._stream = None
