"""Rounds that came to nothing: the kernel's files could not be read as they should be."""

from __future__ import annotations

from tierd.core.state import EngineState

FAILED_ROUNDS = 10
"""Rounds that fail in a row before the engine counts as degraded. What was read in the middle of a change (a
node or a cgroup that comes or goes) reads right a round or two later; ten in a row are no such race."""


class FailedRounds:
    """Used by the engine only: how many in a row there were."""

    def __init__(self) -> None:
        self._count = 0

    def succeeded(self) -> None:
        """A round was carried out."""
        self._count = 0

    def failed(self, reason: str, shown: str) -> tuple[EngineState, str]:
        """What to show of a round that failed for this reason. shown: the words of the round before."""
        self._count += 1
        if self._count >= FAILED_ROUNDS:
            words = f"{FAILED_ROUNDS} rounds in a row have failed, and each goes on to try: {reason}"
            return EngineState.DEGRADED, words
        # The first reason stands for the series: another one in each round would be news in each round.
        return EngineState.HOLDING, shown if self._count > 1 else f"a round was skipped: {reason}"
