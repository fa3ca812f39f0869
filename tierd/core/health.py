"""What the modules of a region complain of, and whether memory may be made of them. Pure; used by
core/provision.py and core/shares.py. Memory that is there may be given back whatever they say."""

from __future__ import annotations

from tierd.core.inventory import Dimm, Region
from tierd.core.refusals import Refusal

FAILING = frozenset({"critical", "fatal"})
"""States of health in which memory, and who uses it, may be lost at any time.

Known only where the firmware was asked (`ndctl list -H`). `tierctl list devices` does; plans do not, since a
module that never answers would hold the lock of its bus, and with it each reader of sysfs. The flags below
the kernel has from boot on."""

BROKEN = {
    "failed map": "the firmware gives it no addresses, so nothing may be behind those of the region",
    "failed arm": "it cannot be made to keep anything, as modules say when their media or their energy store"
    " are worn out",
    "failed restore": "it could not bring back what it held, so its media or its controller do not work",
}
"""Flags of the firmware's table (ACPI, NVDIMM state flags) that say that the module itself does not work."""

PAST = {
    "failed save": "what it held at the last shutdown was lost",
    "failed flush": "what was under way at the last shutdown was lost",
    "smart event": "its firmware has seen something that it warns of",
}
"""Flags that are no more than notes. Memory keeps nothing over a shutdown, and a power cut raises the first
two: refused, memory would stay away after each. The last is raised by warnings too, such as of warmth."""


def of_modules(region: Region) -> list[Refusal]:
    """Why no memory is made of the region: a module of it that fails, each by its name."""
    found = []
    for dimm in region.modules:
        reasons = [f"{flag}: {BROKEN[flag]}" for flag in dimm.flags if flag in BROKEN]
        if dimm.health in FAILING:
            reasons.append(f"its health is {dimm.health}: memory on it may be lost at any time")
        if reasons:
            words = (
                f"{_called(dimm)} in {region.name} fails ({'; '.join(reasons)}), and memory is made only of"
                f" modules that work; `ndctl list -DH -d {dimm.name}` shows more, and it is to be replaced"
            )
            found.append(Refusal("unhealthy", words))
    return found


def notes(region: Region) -> tuple[str, ...]:
    """What the modules say that forbids nothing."""
    found = []
    for dimm in region.modules:
        reasons = [f"{flag}: {PAST[flag]}" for flag in dimm.flags if flag in PAST]
        if dimm.health is not None and dimm.health not in FAILING | {"ok"}:
            reasons.append(f"its health is {dimm.health}")
        if reasons:
            found.append(
                f"{_called(dimm)} in {region.name} says {'; '.join(reasons)} (`ndctl list -DH -d"
                f" {dimm.name}`)"
            )
    return tuple(found)


def failing(region: Region) -> tuple[str, ...]:
    """The same as refusals, for memory that is in use already."""
    return tuple(f"{refusal.words}; it is in use as memory" for refusal in of_modules(region))


def _called(dimm: Dimm) -> str:
    return dimm.name if dimm.serial is None else f"{dimm.name} ({dimm.serial})"
