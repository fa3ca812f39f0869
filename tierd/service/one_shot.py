"""What the programs that change memory share: one lock, one way to be stopped, one way to speak.

Used by tierd-convert and tierd-drain, each of which does one thing as root and ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from types import FrameType

from tierd.errors import DeniedError, TierdError, in_words
from tierd.service.events import Event, EventType
from tierd.service.journal import default_sink, to_stderr

LOCK = Path("/run/tierd/convert.lock")
LOCK_DEADLINE = 120.0
"""Seconds after which one that holds the lock and shows no progress is not waited for any longer."""
_LONGEST = 86400.0
"""Seconds that anything may take at most. A time farther off is no word of `busy_for`."""


class Exit(IntEnum):
    """Exit status, after sysexits(3)."""

    OK = 0
    FAILED = 1
    REFUSED = 69
    BUSY = 75
    DENIED = 77
    CONFIG = 78


class Stopped(BaseException):
    """SIGTERM or SIGINT came. Not an Exception, so that nothing between here and main takes it for a
    failure."""


@contextlib.contextmanager
def lock(path: Path) -> Iterator[int | None]:
    """The lock on all conversions, as a descriptor for the tools to inherit; None when it is not to be had,
    and who holds it gets no further. Several requests in one boot have to wait for each other, for as long
    as terabytes take; a tool that hangs in the kernel keeps the lock for good."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        begun = time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                now, expected = time.monotonic(), os.fstat(descriptor).st_mtime
                if expected > now + _LONGEST:
                    expected = begun  # the time of day: the file is new, or somebody else's
                if now > max(begun, expected) + LOCK_DEADLINE:
                    yield None
                    return
                time.sleep(0.2)
        busy_for(descriptor, 0.0)
        yield descriptor
    finally:
        os.close(descriptor)


def busy_for(descriptor: int, seconds: float) -> None:
    """Tell those who wait for the lock that what is being done may take so long from now. The time of the
    file is on the monotonic clock: the other one is put right while conversions run at boot."""
    until = time.monotonic() + seconds
    os.utime(descriptor, (until, until))


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGINT raise Stopped in the block, once."""

    def stop(number: int, frame: FrameType | None) -> None:
        # once is enough: what is put back on the way out must not be stopped
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise Stopped

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def failure(error: Exception) -> tuple[str, Exit]:
    """What an operator is told of the error that ends a program, in a sentence, and its exit status."""
    if isinstance(error, DeniedError):
        return str(error), Exit.DENIED
    if isinstance(error, (TierdError, OSError)):
        hint = getattr(error, "hint", "")
        return in_words(error) + (f" ({hint})" if hint else ""), Exit.FAILED
    return f"internal error: {type(error).__name__}: {error}", Exit.FAILED


def say(kind: EventType, words: str, fields: Mapping[str, str]) -> None:
    """One line in the journal, or on standard error."""
    event = Event(kind, words, fields=fields)
    try:
        default_sink()(event)
    except ImportError:  # no systemd-python
        to_stderr(event)
