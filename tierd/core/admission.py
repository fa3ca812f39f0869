"""Whether DRAM is enough for all that the classes are promised, and who comes off short where it is not.

Called when a policy is to come into force, where too much promised is an error, and each round, where it is
an alarm: a guaranteed class may grow. Counted in whole MiB, promises rounded up and DRAM rounded down, so
that the lines that are shown add up to what was decided. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tierd.core.capacity import round_down, round_up
from tierd.core.classes import BUILT_IN, ServiceClass
from tierd.core.policy import MIB


@dataclass(frozen=True, slots=True)
class Promise:
    """What one class is promised. Sizes in bytes.

    memory: what the class holds, on all tiers; None when that is not known.
    size: of DRAM, None when it depends on the memory and that is not known. kept: what there is of it when
    promises are served in order.
    """

    service_class: ServiceClass
    memory: int | None
    size: int | None
    kept: int = 0

    @property
    def short(self) -> int:
        """Bytes of the promise for which there is no DRAM."""
        return (self.size or 0) - self.kept

    @property
    def words(self) -> str:
        """The arithmetic of this one: ``class silver, min 30% of 20480 MiB: 6144 MiB``."""
        result = "not known yet, not counted" if self.size is None else _mib(self.size)
        dram = self.service_class.dram
        name = f"class {self.service_class.name}"
        if dram.guaranteed:
            what = f"{name}, guaranteed, all that it has now"
        else:
            assert dram.minimum is not None
            what = f"{name}, min {dram.minimum.words}"
            if dram.minimum.size is None and self.memory is not None:
                what += f" of {_mib(round_up(self.memory, MIB))}"
                if self.size is not None and self.size < round_up(dram.minimum.of(self.memory), MIB):
                    assert dram.maximum is not None
                    what += f", but max {dram.maximum.words}"
        return f"{what}: {result}"


@dataclass(frozen=True, slots=True)
class Admission:
    """The sum of all promises against DRAM. Sizes in bytes.

    promises: in the order in which they are served: guaranteed classes, then those with a minimum, each by
    priority, then as the policy lists them. dram: of all nodes. floor: what stays free of it.
    """

    promises: tuple[Promise, ...]
    dram: int
    floor: int

    @property
    def available(self) -> int:
        """What can be promised."""
        return max(0, round_down(self.dram - self.floor, MIB))

    @property
    def promised(self) -> int:
        """All that is promised, as far as it is known."""
        return sum(promise.size or 0 for promise in self.promises)

    @property
    def excess(self) -> int:
        """What is promised and cannot be kept; 0 when all can."""
        return max(0, self.promised - self.available)

    @property
    def broken(self) -> tuple[Promise, ...]:
        """The promises that cannot be kept in full."""
        return tuple(promise for promise in self.promises if promise.short)

    def problems(self, file: str) -> tuple[str, ...]:
        """Why the policy in `file` promises too much, for a ConfigError: what is wrong, at the first class
        that comes off short, and the arithmetic, each class with its place. Empty when all fits."""
        if not self.excess:
            return ()
        first = self.broken[0]
        file = first.service_class.dram.place.file or file
        headline = (
            f"the classes are promised {_mib(self.promised)} of DRAM, and {_mib(self.available)} can be"
            f" promised: lower a min by {_mib(self.excess)}, or guarantee DRAM to fewer processes"
        )
        sizes = " + ".join(str(p.size // MIB) for p in self.promises if p.size is not None)
        return (
            first.service_class.dram.place.told(file, headline),
            *(promise.service_class.dram.place.told(file, promise.words) for promise in self.promises),
            BUILT_IN.told(file, f"promised: {sizes} = {_mib(self.promised)}"),
            BUILT_IN.told(file, f"can be promised: {self._available_words()}"),
            BUILT_IN.told(
                file, f"too much: {self.promised // MIB} - {self.available // MIB} = {_mib(self.excess)}"
            ),
        )

    def alarms(self) -> tuple[str, ...]:
        """One sentence for each promise that cannot be kept, with the numbers: a class has grown past what
        fits, or DRAM has become less. Called each round."""
        found = []
        for promise in self.broken:
            name, dram = promise.service_class.name, promise.service_class.dram
            before = self.promises[: self.promises.index(promise)]
            others = [f"{p.service_class.name} {_mib(p.kept)}" for p in before if p.kept]
            what = "is guaranteed DRAM and has" if dram.guaranteed else "is to have"
            left = f", less {', '.join(others)} that come first" if others else ""
            found.append(
                f"class {name} {what} {_mib(promise.size)}, of which {_mib(promise.kept)} fit: there is"
                f" {self._available_words()}{left}; {_mib(promise.short)} of it have no place in DRAM"
            )
        return tuple(found)

    def _available_words(self) -> str:
        # what is left to add up when each is rounded to the nearest in its own direction
        dram = round_down(self.dram, MIB)
        return f"DRAM {_mib(dram)} - {_mib(dram - self.available)} that stay free = {_mib(self.available)}"


def admit(classes: Sequence[ServiceClass], memory: Mapping[str, int], *, dram: int, floor: int) -> Admission:
    """Sets what `classes` are promised against DRAM. Raises nothing.

    memory: bytes that each class holds now, on all tiers, by its name; a class that is not in it holds an
    unknown amount, and what then cannot be known of its promise is not counted: an error needs to be
    certain, and the alarm of a later round tells what came of it. dram: bytes of all DRAM nodes. floor:
    bytes of them that stay free, as planner.floor_bytes has it for each node.
    """
    promising = [c for c in classes if c.dram.guaranteed or c.dram.minimum is not None]
    in_order = sorted(promising, key=lambda c: (not c.dram.guaranteed, -c.priority))
    left = max(0, round_down(dram - floor, MIB))
    promises = []
    for service_class in in_order:
        held = memory.get(service_class.name)
        size = promised_size(service_class, held)
        kept = min(left, size or 0)
        left -= kept
        promises.append(Promise(service_class, held, size, kept))
    return Admission(tuple(promises), dram, floor)


def promised_size(service_class: ServiceClass, memory: int | None) -> int | None:
    """DRAM, in bytes and whole MiB, that a class is promised when it holds `memory` bytes; None when that is
    not known and matters. A min that is a size counts in full, as the class may grow into it."""
    dram = service_class.dram
    if dram.guaranteed:
        return None if memory is None else round_up(memory, MIB)
    if dram.minimum is None:
        return 0
    if dram.minimum.size is not None:
        return round_up(dram.minimum.size, MIB)
    if memory is None:
        return 0 if not dram.minimum.per_cent else None
    share = dram.minimum.of(memory)
    if dram.maximum is not None and dram.maximum.size is not None:
        share = min(share, dram.maximum.size)
    return round_up(share, MIB)


def _mib(count: int | None) -> str:
    return f"{(count or 0) // MIB} MiB"
