"""The service manager's descriptor store: how the helper hands what it opened to the daemon."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable


def store_descriptors(doors: dict[str, int], previous: Iterable[str] = ()) -> bool:
    """Hand `doors` to systemd for the daemon, and drop what an earlier run stored as these or `previous`.

    Returns False when no service manager listens. sd_pid_notify_with_fds(3): one name a message; FDPOLL=0,
    because systemd drops descriptors that report a hang-up, and a perf event that nobody has mapped yet
    does.
    """
    if "NOTIFY_SOCKET" not in os.environ:
        return False
    from systemd.daemon import notify

    for name in dict.fromkeys((*previous, *doors)):
        notify(f"FDSTOREREMOVE=1\nFDNAME={name}")
    for name, descriptor in doors.items():
        if not notify(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fds=[descriptor]):
            return False
    return _barrier(notify)


def _barrier(notify: Callable[..., bool], timeout: float = 10.0) -> bool:
    """Wait until systemd has taken all messages: it then closes the pipe. sd_notify_barrier(3)"""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            sent = notify("BARRIER=1", fds=[writing])
        finally:
            os.close(writing)
        poll = select.poll()
        poll.register(reading, select.POLLHUP)
        return sent and bool(poll.poll(timeout * 1000))
    finally:
        os.close(reading)
