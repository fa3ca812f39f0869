"""tierctl: what an operator types."""

from __future__ import annotations

from enum import IntEnum

from tierd.errors import TierdError


class Exit(IntEnum):
    """Exit status of every tierctl command; tierctl(1) has the same table.

    2 is argparse's own; 3 is what the LSB gives the status of a service that does not run.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_AUTHORISED = 4
    NO_SUCH_OBJECT = 5
    TIMED_OUT = 6
    INVALID_POLICY = 78


class UsageError(TierdError):
    """An argument that is wrong."""

    status = Exit.USAGE
