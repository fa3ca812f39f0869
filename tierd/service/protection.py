"""Tells tierd-protect, which is root, that there is something to do: by a file that a path unit watches."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from tierd.core.protection import LAST, STEP
from tierd.core.state import State

log = logging.getLogger(__name__)

TRIGGER: Final = Path("/run/tierd/protect")
"""Made by systemd-tmpfiles, the daemon's own. What is in it is of no account."""


class ProtectionTrigger:
    """Used by the daemon, in the main thread."""

    def __init__(self, path: Path = TRIGGER) -> None:
        self._path = path
        self._told: frozenset[tuple[str, int]] = frozenset()

    def update(self, state: State) -> None:
        """After a round: ask for tierd-protect when a guaranteed class has come to DRAM, or when one that is
        promised DRAM has grown, or is promised none any more. Raises nothing."""
        # where much is missing it is brought up page by page first; what was protected stays so meanwhile
        ready = {
            (found.name, (found.dram_bytes + found.slow_bytes) // STEP)
            for found in state.classes
            if (found.guaranteed and found.slow_bytes <= LAST)
            or (found.least_bytes and not found.guaranteed)
        }
        waiting = {found.name for found in state.classes if found.guaranteed and found.slow_bytes > LAST}
        now = frozenset(ready | {told for told in self._told if told[0] in waiting})
        if now == self._told:
            return
        self._told = now
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(" ".join(sorted(name for name, _ in now)) + "\n")
        except OSError as error:
            log.debug("tierd-protect is not told: %s", error)
