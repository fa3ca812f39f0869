"""tierd as a service: shut in, light, steady when it is asked too much, and clean to install and to remove.

Each row goes by something outside tierd: systemd's own score, the kernel's account of the daemon's cgroup,
what the bus answers each caller, what a terminal shows, what dpkg and the file system say. Each has tierd do
something besides, so that one which does nothing holds none of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.verify.service_rows import (
    authorisation,
    flood,
    footprint,
    new_user,
    packaging,
    security,
    terminal,
)
from tests.verify.table import Row
from tests.vm import image


def _rows(kernel: str) -> Iterator[Row]:
    """The rows of one kernel, together, so that they share its boot."""
    yield security.security(kernel)
    yield footprint.footprint(kernel)
    yield flood.flood(kernel)
    yield authorisation.authorisation(kernel)
    yield terminal.terminal(kernel)


ROWS = (
    *(row for kernel in image.kernel_names() for row in _rows(kernel)),
    *map(packaging.package, packaging.RELEASES),
    packaging.LINTIAN,
    new_user.NEW_USER,
)
