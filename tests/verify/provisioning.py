"""Provisioning: any part of a device at any time, and never a lost byte.

Each row is measured by something outside tierd: QEMU for what the memory holds, sysfs for what is online
and where, wrappers around ndctl and daxctl for what they were told. Each says besides that something was
done, so that a tierd which does nothing holds none of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.verify.provisioning_rows import changes, in_use, kills, lies, safety, shuffles, zones
from tests.verify.table import Row
from tests.vm import image


def _rows(kernel: str) -> Iterator[Row]:
    """The rows of one kernel, together, so that they share its boot."""
    yield safety.matrix(kernel)
    yield safety.named(kernel)
    yield in_use.in_use(kernel)
    yield shuffles.real(kernel, shuffles.REAL)
    yield shuffles.real(kernel, shuffles.MANY_REAL)
    yield zones.cost(kernel)
    yield zones.zones(kernel)
    yield changes.growth(kernel)
    yield changes.reboots(kernel, changes.REBOOTS)
    yield changes.reboots(kernel, changes.MANY_REBOOTS)
    for command in kills.COMMANDS:
        yield kills.tools(kernel, *command)
    yield kills.convert(kernel)
    for part in range(1, kills.PARTS + 1):
        yield kills.instants(kernel, part)


ROWS = (lies.LYING, shuffles.SIMULATED, *(row for kernel in image.kernel_names() for row in _rows(kernel)))
