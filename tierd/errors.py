"""The failures tierd distinguishes. Raised by kernel/ and config/, handled in service/ and cli/."""

from __future__ import annotations


class TierdError(Exception):
    """An expected failure, fit to be shown to an operator: one sentence, and a hint where one exists."""

    exit_code = 1
    dbus_name = "org.tierd1.Error.Failed"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def in_words(error: BaseException) -> str:
    """`error` for an operator: ``FILE: reason`` for what the system refused, else its message."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


class GoneError(TierdError):
    """What was asked about no longer exists (a process exited, a cgroup was removed). Normal."""

    dbus_name = "org.tierd1.Error.NoSuchObject"


class DeniedError(TierdError):
    """The kernel or the bus said no. Reported once for each subject."""

    exit_code = 77
    dbus_name = "org.tierd1.Error.NotAuthorized"


class InvalidError(TierdError):
    """An argument of a call over D-Bus that the method does not take; the message says what it takes."""

    dbus_name = "org.tierd1.Error.InvalidArgument"


class TimedOutError(TierdError):
    """Asked for something that did not happen in time."""

    dbus_name = "org.tierd1.Error.TimedOut"


class BusyError(TierdError):
    """Too many others wait already for what was asked for over D-Bus."""

    dbus_name = "org.tierd1.Error.Busy"


class MalformedError(TierdError):
    """Text from the kernel or a tool does not have the shape it should have; names the place."""


class UnsupportedError(TierdError):
    """This kernel or machine lacks something; the message says what is lost and how to get it."""


class ConfigError(TierdError):
    """A policy that cannot be used. `problems` holds every fault, one line each."""

    exit_code = 78
    dbus_name = "org.tierd1.Error.InvalidPolicy"

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
