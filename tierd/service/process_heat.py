"""The heat of one process by address, for a picture of it. Runs in a worker, and waits for the engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Final

from tierd.core.address_heat import (
    MOST_BINS,
    HeatBin,
    KnownRates,
    edges_of,
    heat_bins,
    placed_bins,
    sample_pages,
)
from tierd.core.model import Topology
from tierd.core.policy import Policy
from tierd.errors import InvalidError, TierdError, TimedOutError
from tierd.kernel.paths import Root
from tierd.kernel.processes import read_process
from tierd.kernel.residence import mapped_ranges, nodes_of
from tierd.service.explaining import why_not_placed
from tierd.service.worker import Stepper

HEAT_SECONDS: Final = 8.0
"""For the engine to end the step that it is in: less than the 10 s that tierctl waits."""

Ask = Callable[[Callable[[Stepper], KnownRates | None]], Future[KnownRates | None]]
"""EngineThread.ask."""


def process_heat(
    root: Root, pid: int, bins: int, policy: Policy, topology: Topology, ask: Ask
) -> list[HeatBin]:
    """The memory of a process in at most `bins` parts, in order of address, with what is known of each.

    topology: says which nodes are DRAM. Raises InvalidError for
    `bins`; GoneError, DeniedError and MalformedError when the process cannot be looked at; TierdError when
    tierd does not place it; TimedOutError.
    """
    if not 1 <= bins <= MOST_BINS:
        raise InvalidError(f"bins are 1 to {MOST_BINS}, not {bins}")
    process = read_process(root, pid)
    if why_not := why_not_placed(policy, process):
        raise TierdError(f"tierd does not place process {pid}: {why_not}")
    known = _answer(ask(lambda stepper: stepper.heat(process.id)))
    if known is None:
        raise TierdError(
            f"tierd has not begun to place process {pid} yet", hint="try again in a few seconds"
        )
    start, end = edges_of(mapped_ranges(root, pid), bins)
    found = heat_bins(start, end, known)
    dram = [node.number for node in topology.dram]
    if not dram:
        return found
    pages, part = sample_pages(start, end, time.monotonic_ns())
    return placed_bins(found, part, nodes_of(root, process.id, pages), dram)


def _answer(future: Future[KnownRates | None]) -> KnownRates | None:
    try:
        return future.result(HEAT_SECONDS)
    except FutureTimeout:
        future.cancel()  # nobody waits for it any more
        raise TimedOutError(f"the engine is busy, and has not answered after {HEAT_SECONDS:.0f} s") from None
