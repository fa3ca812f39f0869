"""What the engine tells the rest of the daemon: one immutable value, replaced after every round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tierd.core.model import Topology


class EngineState(StrEnum):
    """The engine's life, as `tierctl status` and D-Bus show it.

    starting: before the first round. idle: nothing to place (one tier, or no process selected).
    observing: the policy says observe. converging: placement is improving. steady: it is as good as it gets.
    holding: moving has stopped for a reason that `State.reason` gives (memory pressure, a kernel file that
    could not be read). degraded: something needed is missing, which `State.reason` or `State.missing` names,
    or rounds keep failing. paused: an operator asked.
    """

    STARTING = "starting"
    IDLE = "idle"
    OBSERVING = "observing"
    CONVERGING = "converging"
    STEADY = "steady"
    HOLDING = "holding"
    DEGRADED = "degraded"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Counters:
    """Since the daemon started. Only moves confirmed by the kernel count.

    *_pages are base pages of 4 KiB; seconds are of wall time, in the mover, and in whole rounds.
    """

    rounds: int = 0
    samples: int = 0
    samples_lost: int = 0
    promoted_pages: int = 0
    demoted_pages: int = 0
    refused_pages: int = 0
    deferred_pages: int = 0
    already_there_pages: int = 0
    huge_pages_split: int = 0
    huge_pages_rebuilt: int = 0
    move_seconds: float = 0.0
    round_seconds: float = 0.0

    @property
    def moved_pages(self) -> int:
        """Either way."""
        return self.promoted_pages + self.demoted_pages


@dataclass(frozen=True, slots=True)
class MissingFeature:
    """Something this machine lacks: what it is, what is lost without it, how to get it."""

    feature: str
    loss: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.feature}: {self.loss}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One step of the last plan, for people: what, how much, and why.

    action: ``promote``, ``demote``, ``split`` or ``hold``. pages: base pages.
    """

    action: str
    subject: str
    pages: int
    source_node: int | None
    target_node: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class ClassState:
    """A service class in the last round.

    promise: of its DRAM, in the words of the policy; empty when there is none. guaranteed: whether all of
    its memory is to be there. priority: for spare DRAM. processes: that are placed.
    dram_bytes, slow_bytes: its anonymous memory and tmpfs in each kind of tier. least_bytes, most_bytes: of
    DRAM, what is kept for it, and what it may have. promoted_pages, demoted_pages: since the policy was
    adopted. broken: what is missing of the promise, in a sentence; empty when it is kept. odd: that no
    process has the class, with the place in the policy; empty when some have, or had since it was adopted.
    """

    name: str
    promise: str = ""
    priority: int = 0
    processes: int = 0
    dram_bytes: int = 0
    slow_bytes: int = 0
    least_bytes: int = 0
    most_bytes: int = 0
    promoted_pages: int = 0
    demoted_pages: int = 0
    broken: str = ""
    guaranteed: bool = False
    odd: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """Everything the bus, the journal, the status line and the metrics may show.

    blocks: the memory blocks of each node that are online, by number; none where the kernel has no hotplug.
    source: name of the access source in use; source_reason: why that one.
    classes: in the order in which their promises are served; none where the policy has none.
    fates: by the number of a process what last became of pages of it, and of its cgroup: when, as
    `monotonic`, and in words.
    processes, cgroups: how many are being placed; dram_bytes, slow_bytes: their memory in each kind of tier.
    own_cpu_seconds, own_resident_bytes: what the daemon itself has used and holds.
    monotonic: seconds, CLOCK_MONOTONIC, when the round that made this state ended.
    """

    engine: EngineState = EngineState.STARTING
    reason: str = ""
    topology: Topology = field(default_factory=lambda: Topology(()))
    blocks: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    source: str = "none"
    source_reason: str = ""
    missing: tuple[MissingFeature, ...] = ()
    plan: tuple[PlanLine, ...] = ()
    classes: tuple[ClassState, ...] = ()
    fates: Mapping[int, tuple[tuple[float, str], ...]] = field(default_factory=dict)
    processes: int = 0
    cgroups: int = 0
    dram_bytes: int = 0
    slow_bytes: int = 0
    bytes_per_second: float = 0.0
    own_cpu_seconds: float = 0.0
    own_resident_bytes: int = 0
    monotonic: float = 0.0
