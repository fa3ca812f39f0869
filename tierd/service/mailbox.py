"""Work for the main loop, from any thread, through one event source that lasts.

Not GLib.idle_add: PyGObject before 3.44 (Debian 12 has 3.42) never frees the closure of a callback that is
used once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any

from gi.repository import GLib


class Mailbox:
    """Create in the main thread, before the loop runs; there is one, and it lasts as long as the process."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # The default priority, not idle: a flood of bus calls must not starve the engine's news.
        GLib.io_add_watch(self._event, GLib.PRIORITY_DEFAULT, GLib.IOCondition.IN, self._deliver)

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have the main loop call `function`. From any thread; in the order of the posts."""
        self._waiting.append((function, arguments))
        os.eventfd_write(self._event, 1)

    def _deliver(self, *_: Any) -> bool:
        os.eventfd_read(self._event)
        # What is posted meanwhile wakes the loop again; others get their turn in between.
        for _number in range(len(self._waiting)):
            function, arguments = self._waiting.popleft()
            function(*arguments)
        return bool(GLib.SOURCE_CONTINUE)
