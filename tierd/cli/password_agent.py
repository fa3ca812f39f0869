"""polkit's agent for terminals, which asks for the password that an order takes, as systemctl starts it."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
from collections.abc import Iterator

READY_SECONDS = 5.0
"""For the agent to tell polkit that it is there. What is asked without it is refused, which says why."""


@contextlib.contextmanager
def password_agent() -> Iterator[None]:
    """The agent, for as long as the block lasts. There is none for root, whom nobody asks, nor where nobody
    can type, or it is not installed. Raises OSError."""
    # setpriv ends it with tierctl, however that ends
    programs = [shutil.which(name) for name in ("setpriv", "pkttyagent")]
    if os.geteuid() == 0 or not sys.stdin.isatty() or None in programs:
        yield
        return
    import subprocess  # what asks for nothing need not wait for it

    ready, told = os.pipe()
    setpriv, agent = map(str, programs)
    command = [setpriv, "--pdeathsig", "TERM", agent, "--notify-fd", str(told), "--fallback"]
    try:
        try:
            process = subprocess.Popen(command, pass_fds=(told,))
        finally:
            os.close(told)
        try:
            # closed by the agent when polkit knows it, and by its end
            select.select([ready], [], [], READY_SECONDS)
            yield
        finally:
            process.terminate()
            process.wait()
    finally:
        os.close(ready)
