"""The daemon seen over D-Bus: calls with a deadline against the interface in conf/dbus/org.tierd1.xml.

Nothing is introspected: a proxy that asks the daemon for its own shape first hangs with a daemon that hangs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from gi.repository import Gio, GLib

from tierd.cli import Exit
from tierd.cli.password_agent import password_agent
from tierd.errors import TierdError

NAME = "org.tierd1"
PATH = "/org/tierd1"
INTERFACE = "org.tierd1.Manager"

TIMEOUT_VARIABLE = "TIERD_DBUS_TIMEOUT"
DEFAULT_TIMEOUT = 10.0
"""Seconds. A getter of the daemon answers from a ready value; ten seconds is a machine in deep trouble."""

ORDER_MILLISECONDS = 150_000
"""For a call that a person may have to type a password for, and a reload that takes its time after that."""

_START_IT = "systemctl start tierd"

_ADVICE: Mapping[str, tuple[Exit, str, str]] = {
    "org.freedesktop.DBus.Error.ServiceUnknown": (Exit.NOT_RUNNING, "tierd is not running", _START_IT),
    "org.freedesktop.DBus.Error.NameHasNoOwner": (Exit.NOT_RUNNING, "tierd is not running", _START_IT),
    "org.freedesktop.DBus.Error.AccessDenied": (Exit.NOT_AUTHORISED, "not permitted", "run it as root"),
    "org.freedesktop.DBus.Error.NoReply": (
        Exit.TIMED_OUT,
        "tierd did not answer in time",
        f"journalctl -u tierd says why; {TIMEOUT_VARIABLE}=SECONDS waits longer",
    ),
    "org.freedesktop.DBus.Error.UnknownMethod": (
        Exit.FAILED,
        "the running tierd does not know this request",
        "it is of another version than tierctl: systemctl restart tierd",
    ),
    "org.tierd1.Error.NotAuthorized": (Exit.NOT_AUTHORISED, "", "run it as root"),
    "org.tierd1.Error.NoSuchObject": (Exit.NO_SUCH_OBJECT, "", ""),
    "org.tierd1.Error.TimedOut": (Exit.TIMED_OUT, "", ""),
    "org.tierd1.Error.InvalidArgument": (Exit.USAGE, "", ""),
    "org.tierd1.Error.InvalidPolicy": (Exit.INVALID_POLICY, "", ""),
}
_SAME_ADVICE = {
    "org.freedesktop.DBus.Error.Timeout": "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.TimedOut": "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.UnknownObject": "org.freedesktop.DBus.Error.UnknownMethod",
    "org.freedesktop.DBus.Error.UnknownInterface": "org.freedesktop.DBus.Error.UnknownMethod",
}


class ClientError(TierdError):
    """A call that did not succeed; `status` is what tierctl exits with."""

    def __init__(self, message: str, status: Exit, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


def timeout_from(environment: Mapping[str, str]) -> float:
    """Seconds to wait for each answer. Raises ClientError when the variable is not a number above 0."""
    text = environment.get(TIMEOUT_VARIABLE, "")
    if not text:
        return DEFAULT_TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise ClientError(f"{TIMEOUT_VARIABLE} must be seconds from 0 to 3600, not {text!r}", Exit.USAGE)
    return seconds


class Client:
    """Reads from org.tierd1 on the system bus. Every method raises ClientError."""

    def __init__(self, timeout: float | None = None) -> None:
        """timeout: seconds for each call, by default from the environment."""
        self._milliseconds = round((timeout_from(os.environ) if timeout is None else timeout) * 1000)
        try:
            self._connection = Gio.bus_get_sync(Gio.BusType.SYSTEM, None)
        except GLib.Error as error:
            raise ClientError(
                f"the system bus cannot be reached: {error.message}",
                Exit.NOT_RUNNING,
                hint="systemctl start dbus",
            ) from error
        self._connection.set_exit_on_close(False)

    def status(self) -> dict[str, Any]:
        """Every property of the manager, under the names of the interface."""
        (properties,) = self._call(
            "org.freedesktop.DBus.Properties", "GetAll", GLib.Variant("(s)", (INTERFACE,))
        )
        return dict(properties)

    def explain(self, pid: int) -> dict[str, Any]:
        """Why a process has the memory that it has, under the names of the interface."""
        (found,) = self._call(INTERFACE, "Explain", GLib.Variant("(u)", (pid,)))
        return dict(found)

    def plan(self) -> list[dict[str, Any]]:
        """The steps of the last plan, under the names of the interface."""
        (rows,) = self._call(INTERFACE, "GetPlan", None)
        return [dict(row) for row in rows]

    def processes(self, limit: int, service_class: str | None = None) -> list[dict[str, Any]]:
        """The largest processes that the caller may see, under the names of the interface. service_class:
        those of it alone."""
        keys = {} if service_class is None else {"class": GLib.Variant("s", service_class)}
        (rows,) = self._call(INTERFACE, "ListProcesses", GLib.Variant("(a{sv}u)", (keys, limit)))
        return [dict(row) for row in rows]

    def history(self, seconds: int) -> list[dict[str, Any]]:
        """What the engine did in the last `seconds`, under the names of the interface."""
        (rows,) = self._call(INTERFACE, "GetHistory", GLib.Variant("(u)", (seconds,)))
        return [dict(row) for row in rows]

    def heat(self, pid: int, bins: int) -> list[dict[str, Any]]:
        """How often the memory of a process is used, by address, under the names of the interface."""
        (rows,) = self._call(INTERFACE, "GetHeat", GLib.Variant("(uu)", (pid, bins)))
        return [dict(row) for row in rows]

    def pause(self, seconds: int) -> None:
        """Have the daemon move nothing for so long."""
        self._order("Pause", GLib.Variant("(u)", (seconds,)))

    def resume(self) -> None:
        """End a pause."""
        self._order("Resume", None)

    def reload(self) -> None:
        """Have the daemon read its policy again."""
        self._order("Reload", None)

    def _order(self, method: str, parameters: Any) -> None:
        """A call that takes a permission, for which polkit may ask the person at the terminal."""
        with password_agent():
            self._call(INTERFACE, method, parameters, order=True)

    def _call(self, interface: str, method: str, parameters: Any, *, order: bool = False) -> tuple[Any, ...]:
        # no activation: asking how tierd is must not start it
        flags, milliseconds = Gio.DBusCallFlags.NO_AUTO_START, self._milliseconds
        if order:
            flags |= Gio.DBusCallFlags.ALLOW_INTERACTIVE_AUTHORIZATION
            milliseconds = max(milliseconds, ORDER_MILLISECONDS)
        try:
            reply = self._connection.call_sync(
                NAME,
                PATH,
                interface,
                method,
                parameters,
                None,
                flags,
                milliseconds,
                None,
            )
        except GLib.Error as error:
            raise _explain(error) from error
        values: tuple[Any, ...] = reply.unpack()
        return values


def _explain(error: Any) -> ClientError:
    name = Gio.DBusError.get_remote_error(error) or ""
    if not name and error.matches(Gio.io_error_quark(), Gio.IOErrorEnum.TIMED_OUT):
        name = "org.freedesktop.DBus.Error.NoReply"
    Gio.DBusError.strip_remote_error(error)
    status, message, hint = _ADVICE.get(_SAME_ADVICE.get(name, name), (Exit.FAILED, "", ""))
    text = error.message.removeprefix(f"GDBus.Error:{name}: ")
    return ClientError(message or text or name, status, hint=hint)
