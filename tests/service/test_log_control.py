"""`systemctl service-log-level tierd LEVEL`: what is written, by org.freedesktop.LogControl1."""

from __future__ import annotations

import time
from typing import Any

import pytest
from gi.repository import Gio, GLib

from tests.service.conftest import DaemonProgram, wait_for

pytestmark = pytest.mark.service

PATH, INTERFACE = "/org/freedesktop/LogControl1", "org.freedesktop.LogControl1"


def call(daemon: DaemonProgram, member: str, *arguments: Any) -> Any:
    name = f"org.freedesktop.DBus.Properties.{member}"
    return daemon.bus.call("org.tierd1", PATH, name, ("s", INTERFACE), *arguments)


def set_level(daemon: DaemonProgram, level: str, name: str = "LogLevel") -> None:
    call(daemon, "Set", ("s", name), ("v", GLib.Variant("s", level)))


def test_what_is_written_follows_the_level(daemon: DaemonProgram) -> None:
    assert call(daemon, "GetAll") == (
        {"LogLevel": "info", "LogTarget": "console", "SyslogIdentifier": "tierd"},
    )
    daemon.order("log", level="debug", text="not asked for")
    daemon.order("log", level="info", text="a note")
    assert daemon.event("noted")["MESSAGE"] == "a note"
    set_level(daemon, "debug")
    assert call(daemon, "Get", ("s", "LogLevel")) == ("debug",)
    daemon.order("log", level="debug", text="a detail")
    traced = daemon.event("traced")
    assert traced["MESSAGE"] == "tierd.service.engine: a detail" and traced["PRIORITY"] == "7"
    set_level(daemon, "warning")
    before = len(daemon.events("state-changed"))
    daemon.order("show", engine="idle")
    daemon.order("log", level="info", text="another note")
    daemon.order("show", engine="degraded", reason="no source")
    wait_for(lambda: daemon.events("degraded"), "what is a warning")
    time.sleep(2.5)
    assert len(daemon.events("state-changed")) == before and len(daemon.events("noted")) == 1
    assert len(daemon.events("traced")) == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("LogLevel", "loud", "'loud' is not a level (one of emerg, alert"), ("LogTarget", "kmsg", "LogLevel")],
)
def test_what_cannot_be_set_is_refused(daemon: DaemonProgram, name: str, value: str, words: str) -> None:
    with pytest.raises(GLib.Error) as caught:
        set_level(daemon, value, name)
    assert Gio.DBusError.get_remote_error(caught.value) == "org.tierd1.Error.Failed"
    assert words in caught.value.message
    set_level(daemon, "console", "LogTarget")
    with pytest.raises(GLib.Error):
        set_level(daemon, "x", "SyslogIdentifier")
