"""Which source of access information is used: the first by rank that passes its self-test, and why.

The ranking and its reasons are in tierd.core.access.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tierd.core.access import Accesses, AccessSource
from tierd.core.model import ProcessView
from tierd.core.state import MissingFeature
from tierd.errors import TierdError, UnsupportedError
from tierd.kernel.damon import EVENT_PREFIX, INTERVAL, LOOKS, damon_trouble
from tierd.kernel.damon_regions import DamonRegions
from tierd.kernel.doors import PERF_PREFIX, SOURCE_VARIABLE
from tierd.kernel.hardware_samples import HardwareSamples
from tierd.kernel.hint_faults import HintFaults
from tierd.kernel.paths import Root
from tierd.kernel.perf_event import FINDERS
from tierd.kernel.scanning import ScanRate
from tierd.kernel.self_test import DEADLINE, CacheMisses, FreshPages, Pages, see_touch
from tierd.kernel.soft_dirty import SoftDirty, find_soft_dirty
from tierd.kernel.topology import read_topology

log = logging.getLogger(__name__)

REPORTS = 3
"""Of DAMON, within which it must see tierd touch memory: one may have begun before, and one be lost."""
NO_SOURCE = "no access to slow memory can be seen"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A source that this machine seems to have.

    touch: makes what `touches` returns the touch that the self-test looks for. look: as the source's read,
    with nothing left out. lacking: what keeps the engine from placing by it, in words; empty when nothing
    does. deadline: seconds within which it must see.
    """

    source: AccessSource
    touches: Callable[[], Callable[[], Pages]]
    look: Callable[[], Accesses]
    lacking: str = ""
    deadline: float = DEADLINE


@dataclass(frozen=True, slots=True)
class Found:
    """Candidates in order of rank, and why the other sources are none: reasons by name. only: the one that
    the administrator allows, empty when all are."""

    candidates: Sequence[Candidate]
    absent: Mapping[str, str] = field(default_factory=dict)
    only: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is used. `source` is started, unless it is NoSource. reason, lacking, missing: for the State."""

    source: AccessSource
    reason: str
    lacking: str = ""
    missing: tuple[MissingFeature, ...] = ()


class NoSource:
    """Satisfies core.access.AccessSource by seeing nothing, when there is nothing to look with."""

    name = "none"
    reason = NO_SOURCE
    period = None
    looks = None

    def start(self) -> None: ...

    def watch(self, processes: Sequence[ProcessView]) -> None: ...

    def read(self) -> Accesses:
        nothing = np.empty(0, np.int32)
        return Accesses(nothing, np.empty(0, np.uint64), np.empty(0, np.float64), nothing)

    def steer(self, effort: float) -> None: ...

    def stop(self) -> None: ...


def find_sources(root: Root, doors: Mapping[str, int], only: str = "") -> Found:
    """What this machine has, from the descriptors that the helper opened. Raises nothing.

    only: the name of the one source that may be used (doors.SOURCE_VARIABLE), empty when all may.
    """
    absent: dict[str, str] = {}
    candidates: list[Candidate] = []
    scanning = ScanRate(doors)
    rings = _events(doors, PERF_PREFIX)
    if rings:
        faults = HintFaults(rings, scanning)
        lacking = "" if scanning.available else "the kernel's NUMA balancing is not ours to steer"
        candidates.append(Candidate(faults, FreshPages, faults.read, lacking))
    else:
        absent[HintFaults.name] = "its events are not open"
    lacking = "" if "demotion_enabled" in doors else "the kernel's settings are not ours to change"
    for name, find in FINDERS.items():
        try:
            find(root)
            rings = _events(doors, f"{name}.")
            if not rings:
                raise UnsupportedError("its events could not be opened")
            fast = frozenset(node.number for node in read_topology(root).dram)
        except TierdError as error:
            absent[name] = str(error)
            continue
        samples = HardwareSamples(name, rings, root, fast)
        candidates.append(Candidate(samples, CacheMisses, samples.read_everything, lacking))
    rings = _events(doors, EVENT_PREFIX)
    if rings:
        regions = DamonRegions(root, rings, doors)
        candidates.append(Candidate(regions, CacheMisses, regions.read, lacking, REPORTS * INTERVAL * LOOKS))
    else:
        absent[DamonRegions.name] = damon_trouble(root) or "it is not set up"
    try:
        find_soft_dirty(root)
        written = SoftDirty(root)
        candidates.append(Candidate(written, FreshPages, written.read, lacking))
    except TierdError as error:
        absent[SoftDirty.name] = str(error)
    # faults that nobody causes are worth less than any samples
    candidates.sort(key=lambda candidate: bool(candidate.lacking))
    if only:
        for candidate in candidates:
            if candidate.source.name != only:
                absent[candidate.source.name] = f"{SOURCE_VARIABLE} names another"
        candidates = [candidate for candidate in candidates if candidate.source.name == only]
        if not candidates and only not in absent:
            absent[f'"{only}"'] = f"{SOURCE_VARIABLE} says so, and there is no such source"
    return Found(candidates, absent, only)


def select(found: Found, test: Callable[..., str] = see_touch) -> Selection:
    """Start the first candidate that sees tierd touch memory of its own. Lasts less than a second, a few of
    them where DAMON is tried; called in the engine thread. Raises nothing.

    test: tierd.kernel.self_test.see_touch, or what stands for it in tests.
    """
    failed: dict[str, str] = {}
    for number, candidate in enumerate(found.candidates, 1):
        source = candidate.source
        trouble = _try(candidate, test)
        if not trouble:
            reason = f"{source.reason}; it saw tierd touch memory of its own"
            if failed:
                reason = f"instead of {_list(failed)}; {reason}"
            others = {other.source.name: "not needed" for other in found.candidates[number:]}
            not_used = _list({**others, **found.absent})
            return Selection(source, f"{reason}; not used: {not_used}", candidate.lacking)
        log.info("%s cannot be used: %s", source.name, trouble)
        failed[source.name] = trouble
    reason = _list({**failed, **found.absent})
    remedy = "restart tierd.service; if it stays so, report it with the kernel's version"
    if found.only:
        remedy = f"take {SOURCE_VARIABLE} out of the environment of tierd.service, and restart it"
    missing = MissingFeature(
        f"a source of access information that sees a touch ({reason if found.only else _list(failed)})",
        f"{NO_SOURCE}, so nothing is moved",
        remedy,
    )
    # what never was a candidate is missing already, and has been named where it was looked for
    return Selection(NoSource(), reason, NO_SOURCE, (missing,) if failed or found.only else ())


def _try(candidate: Candidate, test: Callable[..., str]) -> str:
    """Why the candidate cannot be used, in words; empty when it is started and sees."""
    source = candidate.source
    try:
        source.start()
        trouble = test(candidate.look, candidate.touches(), candidate.deadline)
        if not trouble:
            return ""
    except (TierdError, OSError) as error:
        trouble = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    try:
        source.stop()
    except OSError as error:
        log.debug("stopping %s: %s", source.name, error)
    return trouble


def _events(doors: Mapping[str, int], prefix: str) -> list[int]:
    return [descriptor for name, descriptor in sorted(doors.items()) if name.startswith(prefix)]


def _list(reasons: Mapping[str, str]) -> str:
    """``PEBS and IBS (the CPU has none), DAMON (in use by damon_stat)``."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return ", ".join(f"{' and '.join(group)} ({reason})" for reason, group in names.items())
