"""When the engine does again what it does not do in every step: often while it places, seldom at rest."""

from __future__ import annotations

from dataclasses import dataclass, field

from tierd.core.sampling import RESTING_SECONDS

WHOLE_ROUND_SECONDS = 4.0
IDLE_ROUND_SECONDS = 20.0
"""Between two whole rounds at rest, and after one in which there was little to do. In those in between, only
a change of the hot set is looked for."""
MOST_SHARE = 25
"""Times as long as something took pass until it is done again: it takes four per cent of a core at most."""


@dataclass(slots=True)
class Every:
    """Something that is due every so many seconds, and at rest every `resting`."""

    seconds: float
    resting: float
    next: float = 0.0

    def due(self, now: float) -> bool:
        return now >= self.next

    def done(self, now: float, resting: bool, took: float = 0.0) -> None:
        """took: seconds."""
        self.next = now + max(self.resting if resting else self.seconds, MOST_SHARE * took)


@dataclass(slots=True)
class Pace:
    """Owned by the engine, and made anew for each policy.

    processes: looks at the process list. prune: what is stale is forgotten. topology: looks at nodes, tiers
    and watermarks; free memory is read in every whole round.
    """

    processes: Every = field(default_factory=lambda: Every(2.0, 5.0))
    prune: Every = field(default_factory=lambda: Every(10.0, 300.0))
    topology: Every = field(default_factory=lambda: Every(5.0, 30.0))
    next_round: float = 0.0
    next_whole_round: float = 0.0

    def round(self, now: float, seconds: float, resting: bool) -> None:
        """A round has ended. seconds: of the policy."""
        self.next_round = now + (max(seconds, RESTING_SECONDS) if resting else seconds)

    def round_now(self) -> None:
        """Something has happened that the next round is to go by."""
        self.next_round = self.next_whole_round = 0.0

    def whole_round(self, now: float, *, idle: bool = False) -> None:
        """A whole round has begun, or, when `idle`, turned out to have little to do."""
        self.next_whole_round = now + (IDLE_ROUND_SECONDS if idle else WHOLE_ROUND_SECONDS)
