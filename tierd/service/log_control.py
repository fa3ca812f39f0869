"""org.freedesktop.LogControl1: `systemctl service-log-level tierd debug`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from gi.repository import GLib

from tierd.errors import TierdError
from tierd.service.events import Priority
from tierd.service.journal import Reporter, writes_to_journal

OBJECT_PATH: Final = "/org/freedesktop/LogControl1"
XML: Final = """
<node>
  <interface name="org.freedesktop.LogControl1">
    <property name="LogLevel" type="s" access="readwrite"/>
    <property name="LogTarget" type="s" access="readwrite"/>
    <property name="SyslogIdentifier" type="s" access="read"/>
  </interface>
</node>
"""
LEVELS: Final = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
"""By their numbers (syslog(3)), in the words of org.freedesktop.LogControl1(5)."""


class LogControl:
    """The adaptor. Main thread only. What is set holds until tierd is started again."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def dbus_properties(self) -> Mapping[str, Any]:
        target = "journal" if writes_to_journal() else "console"
        values = (LEVELS[self._reporter.level], target, "tierd")
        names = ("LogLevel", "LogTarget", "SyslogIdentifier")
        return {name: GLib.Variant("s", value) for name, value in zip(names, values, strict=True)}

    def dbus_set(self, name: str, value: Any) -> None:
        """Raises TierdError for what is no level, and for another target than the one there is."""
        if name == "LogTarget":
            if value not in (self.dbus_properties()["LogTarget"].get_string(), "auto"):
                raise TierdError("tierd logs to where it was started to; only LogLevel can be set")
        elif value not in LEVELS:
            raise TierdError(f"{value!r} is not a level", hint=f"one of {', '.join(LEVELS)}")
        else:
            self._reporter.level = LEVELS.index(value)
            level = logging.DEBUG if self._reporter.level >= Priority.DEBUG else logging.INFO
            logging.getLogger("tierd").setLevel(level)
