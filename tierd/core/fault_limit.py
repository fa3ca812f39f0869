"""How much of full sampling a machine may have, by the hint faults that it brings.

The kernel unmaps so many MiB of each process in each of its periods, so that what it unmaps grows with the
processes, and what faults with how much of that is used. Each fault costs the workload about 2 us, and the
engine, which is one thread, about as much to take in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

LEAST_FAULTS: Final = 75_000
"""A second: 15 % of one core, which any machine may spend on it while the placement is wrong."""
FAULTS_OF_CPU: Final = 10_000
"""The same for each CPU, where that is more: 2 % of it."""
MOST_FAULTS: Final = 150_000
"""The same on the largest machine. The heat of a million a second took 2.9 s to keep, of 300,000 0.56 s."""
RESTING_PART: Final = 1 / 10
"""Of that, at rest."""
SLOWEST: Final = 1 / 4
"""By which one round lessens the effort at most: in a short one chance counts for much."""
FASTER: Final = 1.25
"""By which one round raises it again."""
LEAST_EFFORT: Final = 1 / 256
"""Less than a MiB at a time the kernel does not unmap."""


@dataclass(slots=True)
class FaultLimit:
    """Owned by the engine. effort: the part of what sampling would unmap that it may, above 0 and at most
    1; one for full sampling and one for rest."""

    _efforts: dict[bool, float] = field(default_factory=lambda: {False: 1.0, True: 1.0})

    def update(self, faults: float, cpus: int, *, resting: bool) -> None:
        """faults: a second, since the last call. cpus: that are online."""
        most = min(MOST_FAULTS, max(LEAST_FAULTS, FAULTS_OF_CPU * cpus)) * (RESTING_PART if resting else 1)
        if faults > most:
            self._efforts[resting] *= max(SLOWEST, most / faults)
            self._efforts[resting] = max(LEAST_EFFORT, self._efforts[resting])
        elif faults < most / 2:
            self._efforts[resting] = min(1.0, FASTER * self._efforts[resting])

    def effort(self, *, resting: bool) -> float:
        return self._efforts[resting]
