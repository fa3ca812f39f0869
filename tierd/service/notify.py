"""sd_notify(3): what the daemon tells systemd. Does nothing, silently, when systemd did not start us."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from tierd.core.text import clean

STATUS_SECONDS = 1.0

Send = Callable[[str], object]


def _send(message: str) -> object:
    from systemd import daemon

    return daemon.notify(message)


class Notifier:
    """Main thread only. send: writes one datagram to the notification socket, as systemd's own does."""

    def __init__(self, send: Send = _send, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._status = ""
        self._status_sent = -STATUS_SECONDS

    def _notify(self, message: str) -> None:
        try:
            self._send(message)
        except OSError:
            pass  # the service manager is restarting; the next message reaches it

    def ready(self, status: str) -> None:
        """Started, or reloaded."""
        self._notify(f"READY=1\n{self._status_field(status)}")

    def status(self, text: str) -> bool:
        """Show `text` in `systemctl status`, at most once a second. Returns whether it is shown; if not, a
        later call will do."""
        if text != self._status and self._clock() - self._status_sent >= STATUS_SECONDS:
            self._notify(self._status_field(text))
        return text == self._status

    def reloading(self, status: str) -> None:
        """A reload begins. Without MONOTONIC_USEC systemd 253 and later would wait for ever."""
        stamp = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={stamp}\n{self._status_field(status)}")

    def stopping(self, status: str) -> None:
        self._notify(f"STOPPING=1\n{self._status_field(status)}")

    def watchdog(self) -> None:
        self._notify("WATCHDOG=1")

    def failed(self, status: str) -> None:
        """The last words, shown by `systemctl status` after the end."""
        self._notify(self._status_field(status))

    def _status_field(self, text: str) -> str:
        self._status = text
        self._status_sent = self._clock()
        return f"STATUS={clean(text)}"


def watchdog_seconds() -> float | None:
    """WatchdogSec= of our unit, in seconds; None when systemd does not watch us. sd_watchdog_enabled(3)."""
    try:
        microseconds = int(os.environ["WATCHDOG_USEC"])
        watched = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return microseconds / 1e6 if microseconds > 0 and watched == os.getpid() else None


def stored_descriptors() -> dict[str, int]:
    """Descriptors that systemd hands over, by name; of equal names the last. sd_listen_fds_with_names(3)."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    from systemd import daemon

    return {name: number for number, name in daemon.listen_fds_with_names(unset_environment=True).items()}
