"""The engine: within three per cent of the ideal placement, at a cost nobody notices.

Each row is measured by something outside tierd: the workload's own account of its placement, the kernel's
counters, a process's bytes. Each says besides that something was done, so that a tierd which does nothing
holds none of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.verify.engine_rows import alone, cost, endurance, placement, sockets
from tests.verify.table import Row
from tests.vm import image
from tests.vm.scenario import CASES, HUGE_CASES


def _rows(kernel: str) -> Iterator[Row]:
    """The rows of one kernel, together, so that they share its boot."""
    for case in CASES.values():
        yield placement.small(kernel, case)
        yield cost.stationary(kernel, case)
        yield cost.priced(kernel, case)
        yield cost.own_cpu(kernel, case)
    yield placement.against_kernel(kernel)
    for case in HUGE_CASES.values():
        yield placement.huge(kernel, case)
    yield placement.rebuilt(kernel)
    yield placement.unsplit(kernel)
    for case in CASES.values():
        yield placement.phase(kernel, case, cost.PHASE_EVERY, cost.PHASE_WITHIN)
    yield cost.looks_again(kernel)
    for case in HUGE_CASES.values():
        yield placement.phase(kernel, case, 120, 60)
    yield placement.zipf(kernel)
    yield cost.overcommitted(kernel)
    yield alone.mover(kernel)
    yield sockets.two_sockets(kernel)
    yield endurance.pressure(kernel)
    yield endurance.integrity(kernel)
    yield cost.growth(kernel)


ROWS = (alone.STATE, *(row for kernel in image.kernel_names() for row in _rows(kernel)))
