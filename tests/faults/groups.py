"""The groups of the matrix, those of most value first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from tests.faults import (
    boots,
    case,
    clocks,
    coexistence,
    conversions,
    errnos,
    kills,
    owners,
    pressure,
    processes,
    properties,
)
from tests.verify.table import Row

IN_A_SCENE = {
    "coexistence": coexistence.CASES,
    "processes": processes.CASES,
    "errnos": errnos.CASES,
    "kills": kills.CASES,
    "owners": owners.CASES,
    "pressure": pressure.CASES,
    "time": clocks.CASES,
}
GROUPS: Mapping[str, Callable[[str], Iterable[Row]]] = {
    **{name: partial(case.rows, name, cases) for name, cases in IN_A_SCENE.items()},
    "conversions": conversions.rows,
    "boots": boots.rows,
}
"""The rows of a kernel. Groups that play in a scene come first and share a server."""


def rows(groups: Iterable[str], kernels: Iterable[str]) -> Iterator[Row]:
    """Every row of these groups, kernel by kernel."""
    chosen = [name for name in GROUPS if name in set(groups)]
    for kernel in kernels:
        for name in chosen:
            yield from GROUPS[name](kernel)


PROPERTIES = properties.ROW
