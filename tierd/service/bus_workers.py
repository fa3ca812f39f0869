"""Threads that answer slow calls on the bus, and a bound on the calls that wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tierd.errors import BusyError

WORKERS = 2
WAITING_LIMIT = 8


class Workers:
    """A few threads, and a bound on the calls that have or await one."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix=name)
        self._room = threading.BoundedSemaphore(WORKERS + WAITING_LIMIT)

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have a thread call `function`. Raises BusyError."""

        def work() -> None:
            try:
                function(*arguments)
            finally:
                self._room.release()

        if not self._room.acquire(blocking=False):
            raise BusyError("too many calls are waiting", hint="try again later")
        self._pool.submit(work)
