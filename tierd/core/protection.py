"""What besides tierd keeps memory that is promised DRAM there. Pure.

A cpuset without slow nodes has new memory allocated in DRAM. Up to Linux 6.15 the kernel demotes what a
cpuset keeps in DRAM all the same, and any kernel swaps, where there is swap: a cgroup that is below its
memory.min is left alone, and where it is above, each of its pages is fair game. So all that a unit has is
protected where it is promised a part of it: which part goes down is tierd's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from tierd.core.capacity import round_up
from tierd.core.text import clean

STEP: Final = 16 << 20
"""Bytes to which a minimum is rounded up, so that it does not follow each page."""
LAST: Final = 16 << 20
"""Bytes on slow nodes that are left to the kernel, which moves all of a unit's in one go when its nodes are
set: of processes that are too small to be placed, and of memory that several processes map."""
EVERYTHING: Final = 2**64 - 1
"""How systemd writes that all of a unit is not to be reclaimed."""
UNIT_ENDINGS: Final = (".slice", ".scope", ".service")


@dataclass(frozen=True, slots=True)
class UnitMemory:
    """Of a unit, as systemd knows it. nodes: it may use, empty for all. minimum: bytes of it that are not
    reclaimed."""

    nodes: frozenset[int] = frozenset()
    minimum: int = 0


@dataclass(frozen=True, slots=True)
class Wish:
    """What a unit needs. own: bytes of it that are not to be reclaimed. nodes: whether its memory is to come
    from DRAM alone. below: bytes that units inside it need. reason: in words."""

    own: int = 0
    nodes: bool = False
    below: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Guard:
    """A unit that tierd has protected: how it was before, and what tierd made of it."""

    before: UnitMemory
    set: UnitMemory


@dataclass(frozen=True, slots=True)
class Step:
    """A change of a unit. reason: in words. guard: what is to be remembered of it first, None when it is to
    be forgotten after."""

    unit: str
    to: UnitMemory
    reason: str
    guard: Guard | None


@dataclass(frozen=True, slots=True)
class ProtectionPlan:
    """steps: in order. conflicts: units that somebody else has set up otherwise, a sentence each. forgotten:
    units that are gone, or that somebody else has changed since."""

    steps: tuple[Step, ...] = ()
    conflicts: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()


def unit_of(cgroup: str) -> str:
    """The unit whose cgroup it is; empty when it is none's, as inside a container."""
    name = cgroup.rpartition("/")[2]
    return name if name.endswith(UNIT_ENDINGS) else ""


def topmost(cgroups: Iterable[str], chosen: Callable[[str], bool]) -> tuple[str, ...]:
    """Of `cgroups`, those that are chosen with all below them, and whose parent is not. Sorted."""
    known = set(cgroups)
    mixed = {cgroup for cgroup in known if not chosen(cgroup)}
    for cgroup in list(mixed):
        # what is set for a cgroup holds for all below it
        parent = cgroup.rpartition("/")[0]
        while parent and parent not in mixed:
            mixed.add(parent)
            parent = parent.rpartition("/")[0]
    whole = known - mixed
    return tuple(sorted(cgroup for cgroup in whole if cgroup.rpartition("/")[0] not in whole))


def with_parents(needs: Mapping[str, Wish]) -> dict[str, Wish]:
    """By unit what each needs. needs: by cgroup, each of a unit. What is kept of a cgroup is at most what is
    of its parent (memory.min in Documentation/admin-guide/cgroup-v2.rst), so that the slices above need as
    much as all in them."""
    found: dict[str, Wish] = {}
    for cgroup, need in needs.items():
        own = replace(need, own=round_up(need.own, STEP))
        before = found.get(unit := unit_of(cgroup), Wish())
        found[unit] = replace(own, below=before.below)
        parent = cgroup.rpartition("/")[0]
        while parent:
            above = found.get(unit_of(parent), Wish(reason="units in it are promised DRAM"))
            found[unit_of(parent)] = replace(above, below=above.below + own.own)
            parent = parent.rpartition("/")[0]
    found.pop("", None)
    return found


def plan_protection(
    wanted: Mapping[str, Wish],
    found: Mapping[str, UnitMemory],
    guards: Mapping[str, Guard],
    dram: frozenset[int],
) -> ProtectionPlan:
    """What to change. wanted: units to be protected, and what each needs. found: how units are now, all of
    `wanted` and `guards` that are there. guards: what was protected before. dram: the nodes of DRAM.

    Called by tierd-protect, which carries it out.
    """
    steps, conflicts, forgotten = [], [], []
    for unit, guard in sorted(guards.items()):
        now = found.get(unit)
        if now is None or now != guard.set:
            forgotten.append(unit)
        elif unit not in wanted:
            steps.append(Step(unit, guard.before, "it is promised no DRAM any more", None))
    for unit, wish in sorted(wanted.items()):
        now = found.get(unit)
        if now is None:
            continue
        before = guards[unit].before if unit in guards and unit not in forgotten else now
        if wish.nodes and before.nodes and not before.nodes <= dram:
            nodes = ", ".join(map(str, sorted(before.nodes)))
            conflicts.append(
                f"{clean(unit)} is guaranteed DRAM, and somebody else lets it use the nodes {nodes}: new"
                " memory of it may be slow until it is brought up"
            )
            continue
        minimum = min(EVERYTHING, max(before.minimum + wish.below, wish.own))
        to = UnitMemory((before.nodes or dram) if wish.nodes else before.nodes, minimum)
        if to != now:
            steps.append(Step(unit, to, wish.reason, Guard(before, to)))
    return ProtectionPlan(tuple(steps), tuple(conflicts), tuple(forgotten))
