"""What the devices are like, looked at now and then in a thread of its own: the kernel may keep who asks
waiting while a device is being probed, and neither the main loop nor the engine may wait for that."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tierd.core.notices import notices
from tierd.core.policy import Policy
from tierd.errors import TierdError, in_words
from tierd.kernel.drained import read_drained
from tierd.kernel.intents import DEFAULT_PATH
from tierd.kernel.paths import Root
from tierd.kernel.regions import read_regions

LOOK_SECONDS = 5.0
"""Between two looks: three small files for each region."""

Notices = tuple[str, ...]


def read_notices(policy: Policy) -> Notices:
    """What an operator should know of this machine's devices under `policy`; a sentence instead when it
    cannot be read. Raises nothing."""
    try:
        drained = frozenset(mark.iset_id for mark in read_drained(DEFAULT_PATH.parent))
        return notices(read_regions(Root()), policy.provision, drained)
    except (TierdError, OSError) as error:
        return (f"the devices cannot be looked at: {in_words(error)}",)


class DeviceWatch:
    """Calls on_change(notices) from its thread, with what `look` returns, whenever that has changed. What it
    raises goes to on_error each time, is a notice, and ends nothing."""

    def __init__(
        self,
        look: Callable[[], Notices],
        on_change: Callable[[Notices], object],
        on_error: Callable[[BaseException], object],
        seconds: float = LOOK_SECONDS,
    ) -> None:
        self._look = look
        self._on_change = on_change
        self._on_error = on_error
        self._seconds = seconds
        self._stopped = threading.Event()
        # a daemon thread: one that waits in the kernel must not keep the process from its end
        self._thread = threading.Thread(target=self._run, name="devices", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Have it end soon; not waited for."""
        self._stopped.set()

    def _run(self) -> None:
        shown: Notices = ()
        while True:
            try:
                found = self._look()
            except Exception as error:
                self._on_error(error)
                found = (f"the devices cannot be looked at: internal error: {type(error).__name__}",)
            if found != shown:
                self._on_change(found)
                shown = found
            if self._stopped.wait(self._seconds):
                return
