"""Service classes as the policy has them: who belongs to a class, and how much DRAM it may and must have.

Built by config/ from YAML; read by core/assignment.py, core/admission.py and the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tierd.core.text import clean
from tierd.core.units import format_share, format_size

DEFAULT_NAME = "default"
"""The class of every process that no rule matches."""

_WORDS_LIMIT = 120


@dataclass(frozen=True, slots=True)
class Place:
    """Where a policy says something. line, column: from 1, in characters; 0 for what is built in.

    path: as errors show it, ``classes[0].match[1]``. file: the one of the policy's files.
    """

    line: int = 0
    column: int = 0
    path: str = ""
    file: str = ""

    def told(self, file: str, message: str) -> str:
        """`message` behind its place, as config/ tells its problems. file: for a place that knows none."""
        where = f":{self.line}:{self.column}: {self.path}" if self.line else ""
        return f"{clean(self.file or file, 4096)}{where}: {message}"


BUILT_IN = Place()


@dataclass(frozen=True, slots=True)
class ClassRule:
    """One rule of a class. Exactly one of the four is set.

    unit, cgroup: as those of a ProcessMatch. user: a name, or the number, of the process's effective user.
    command: a glob over the name of the process (comm, at most 15 bytes).
    place: where the rule stands; two rules that differ in nothing else are equal.
    """

    unit: str | None = None
    cgroup: str | None = None
    user: str | int | None = None
    command: str | None = None
    place: Place = field(default=BUILT_IN, compare=False)

    @property
    def words(self) -> str:
        """The rule as the policy writes it: ``unit: gold.slice``."""
        if self.unit is not None:
            return clean(f"unit: {self.unit}", _WORDS_LIMIT)
        if self.user is not None:
            return clean(f"user: {self.user}", _WORDS_LIMIT)
        key, glob = ("command", self.command) if self.cgroup is None else ("cgroup", self.cgroup)
        return clean(f'{key}: "{glob}"', _WORDS_LIMIT)


@dataclass(frozen=True, slots=True)
class DramBound:
    """An amount of DRAM. Exactly one of the two is set.

    size: bytes. per_cent: of the class's own memory (0..100, to a hundredth), which is on all tiers.
    """

    size: int | None = None
    per_cent: float | None = None

    def of(self, memory: int) -> int:
        """Bytes for a class that holds `memory` bytes. A size is the same whatever the class holds."""
        if self.size is not None:
            return self.size
        return memory * round((self.per_cent or 0) * 100) // 10_000

    @property
    def words(self) -> str:
        """The bound as the policy writes it: ``30%``, ``2GiB``."""
        return format_size(self.size) if self.size is not None else format_share(self.per_cent or 0)


@dataclass(frozen=True, slots=True)
class DramShare:
    """The DRAM of a class.

    guaranteed: all of the class's memory is to be in DRAM; then there is neither of the others.
    minimum: what is kept for the class while others have more than theirs. maximum: what it has at most,
    also when DRAM is free. Where a size and a share contradict each other, the maximum holds.
    """

    guaranteed: bool = False
    minimum: DramBound | None = None
    maximum: DramBound | None = None
    place: Place = field(default=BUILT_IN, compare=False)

    @property
    def words(self) -> str:
        """The share as the policy writes it: ``guaranteed``, ``min 30%, max 2GiB``; empty without one."""
        if self.guaranteed:
            return "guaranteed"
        bounds = {"min": self.minimum, "max": self.maximum}
        return ", ".join(f"{key} {bound.words}" for key, bound in bounds.items() if bound)

    def least(self, memory: int) -> int:
        """Bytes of DRAM that nobody may take from a class that holds `memory` bytes."""
        if self.guaranteed:
            return memory
        return 0 if self.minimum is None else min(self.minimum.of(memory), self.most(memory))

    def most(self, memory: int) -> int:
        """Bytes of DRAM that a class that holds `memory` bytes may have."""
        return memory if self.maximum is None else min(self.maximum.of(memory), memory)


@dataclass(frozen=True, slots=True)
class ServiceClass:
    """Processes that share what they are promised.

    name: ``[a-z0-9][a-z0-9-]{0,31}``, each once. match: a process belongs to the first class of which any
    rule matches; empty for ``default`` alone. priority: higher is served first with spare DRAM.
    bandwidth: bytes a second, promotion and demotion of the class together; None for no limit of its own.
    """

    name: str
    match: tuple[ClassRule, ...] = ()
    dram: DramShare = DramShare()
    priority: int = 0
    bandwidth: int | None = None
    place: Place = field(default=BUILT_IN, compare=False)


DEFAULT_CLASS = ServiceClass(DEFAULT_NAME)
