"""The shim over pydbus, against an object with every vice: each call is answered, none holds up others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from gi.repository import Gio, GLib

from tests.service.conftest import HERE, Bus, Program, wait_for

pytestmark = pytest.mark.service

NAME, PATH = "org.tierd1.Test", "/org/tierd1/Test"


class Vices(Program):
    def __init__(self, bus: Bus, *trusted: str) -> None:
        super().__init__([str(HERE / "fake_bus.py"), bus.address, *trusted], {})
        self.bus = bus

    def call(self, method: str, *arguments: Any, timeout: float = 10.0) -> Any:
        return self.bus.call(NAME, PATH, f"org.tierd1.Test.{method}", *arguments, timeout=timeout)


@pytest.fixture
def vices(bus: Bus) -> Iterator[Vices]:
    program = Vices(bus)
    wait_for(lambda: "connected True " in program.lines, "the name on the bus")
    yield program
    program.end()


def error_of(vices: Vices, method: str, *arguments: Any, timeout: float = 3.0) -> tuple[str, str]:
    """Name and text of the D-Bus error that a call ends with."""
    with pytest.raises(GLib.Error) as caught:
        vices.call(method, *arguments, timeout=timeout)
    name = Gio.DBusError.get_remote_error(caught.value)
    Gio.DBusError.strip_remote_error(caught.value)
    return str(name), str(caught.value.message).removeprefix(f"GDBus.Error:{name}: ")


@pytest.mark.parametrize("method", ["Raise", "RaiseSlowly"])
@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("failed", "org.tierd1.Error.Failed", "it failed (try harder)"),
        ("gone", "org.tierd1.Error.NoSuchObject", "no such cgroup"),
        ("denied", "org.tierd1.Error.NotAuthorized", "not allowed"),
        ("policy", "org.tierd1.Error.InvalidPolicy", "a.yaml:1:1: x: wrong\na.yaml:2:1: y: wrong too"),
        ("surrogate", "org.tierd1.Error.Failed", r"process b\udcff\x1b[31mad\x00 is gone"),
        ("value", "org.tierd1.Error.Internal", "internal error: ValueError"),
        ("long", "org.tierd1.Error.Failed", "x" * 1021 + "..."),
        ("exit", "org.tierd1.Error.Internal", "internal error: SystemExit"),
        ("interrupt", "org.tierd1.Error.Internal", "internal error: KeyboardInterrupt"),
    ],
)
def test_errors_have_names_and_printable_text(
    vices: Vices, method: str, kind: str, name: str, text: str
) -> None:
    assert error_of(vices, method, ("s", kind)) == (name, text)
    assert vices.call("Fast") == ("fast",)  # and the service lives
    assert vices.process.poll() is None


def test_unexpected_errors_reach_the_daemon_and_nothing_prints_a_traceback(vices: Vices) -> None:
    error_of(vices, "Raise", ("s", "value"))
    error_of(vices, "WrongType")
    wait_for(lambda: "error ValueError" in vices.lines and "error TypeError" in vices.lines, "both errors")
    error_of(vices, "Raise", ("s", "failed"))
    assert vices.lines.count("error TierdError") == 0
    assert vices.errors == []


def test_replies_of_several_values(vices: Vices) -> None:
    assert vices.call("Two") == ("two", 2)


def test_a_slow_method_holds_up_no_other(vices: Vices) -> None:
    began = time.monotonic()
    threads = [threading.Thread(target=vices.call, args=("Slow", ("d", 1.0))) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    asked = time.monotonic()
    assert vices.call("Fast") == ("fast",)
    fast = time.monotonic() - asked
    for thread in threads:
        thread.join()
    both = time.monotonic() - began
    assert fast < 0.5, f"a fast call waited {fast:.2f} s"
    assert both < 1.9, f"two slow calls did not overlap: {both:.2f} s"


def test_waiting_calls_are_bounded(vices: Vices) -> None:
    connection = vices.bus.connect()
    names: list[str] = []
    loop = GLib.MainLoop()

    def done(source: Any, result: Any) -> None:
        try:
            source.call_finish(result)
            names.append("ok")
        except GLib.Error as error:
            names.append(Gio.DBusError.get_remote_error(error))
        if len(names) == 14:
            loop.quit()

    for _ in range(14):
        body = GLib.Variant("(d)", (0.2,))
        connection.call(NAME, PATH, NAME, "Slow", body, None, Gio.DBusCallFlags.NONE, 10_000, None, done)
    GLib.timeout_add_seconds(15, loop.quit)
    loop.run()
    connection.close_sync(None)
    assert sorted(names) == ["ok"] * 10 + ["org.tierd1.Error.Busy"] * 4
    assert vices.call("Slow", ("d", 0.0)) == ()  # the room is given back


def test_who_may_change_something_is_not_kept_out_by_those_who_read(bus: Bus) -> None:
    program = Vices(bus, str(os.getuid()))
    wait_for(lambda: "connected True " in program.lines, "the name on the bus")
    connection = bus.connect()
    for _ in range(14):
        body = GLib.Variant("(d)", (1.0,))
        connection.call(NAME, PATH, NAME, "Slow", body, None, Gio.DBusCallFlags.NONE, 10_000, None, None)
    wait_for(lambda: busy(program), "no more room for readers")
    began = time.monotonic()
    assert program.call("GuardedSlowly", ("d", 0.0)) == () and time.monotonic() - began < 1
    connection.close_sync(None)
    program.end()


def busy(vices: Vices) -> bool:
    try:
        vices.call("Slow", ("d", 0.0), timeout=0.1)
    except GLib.Error as error:
        return Gio.DBusError.get_remote_error(error) == "org.tierd1.Error.Busy"
    return False


def test_a_method_may_return_what_is_ready(vices: Vices) -> None:
    assert vices.call("Ready") == (["ready"],)


@pytest.mark.parametrize(
    ("member", "arguments", "name"),
    [
        ("org.tierd1.Test.Nothing", (), "org.freedesktop.DBus.Error.UnknownMethod"),
        ("org.tierd1.Test.Fast", (("s", "surplus"),), "org.freedesktop.DBus.Error.InvalidArgs"),
        ("org.tierd1.Test.Slow", (("s", "text"),), "org.freedesktop.DBus.Error.InvalidArgs"),
        (
            "org.freedesktop.DBus.Properties.Get",
            (("s", "org.tierd1.Test"), ("s", "Nothing")),
            "org.freedesktop.DBus.Error.InvalidArgs",
        ),
        (
            "org.freedesktop.DBus.Properties.Set",
            (("s", "org.tierd1.Test"), ("s", "Good"), ("v", GLib.Variant("s", "bad"))),
            "org.freedesktop.DBus.Error.InvalidArgs",
        ),
    ],
)
def test_mistakes_of_clients_are_answered_and_silent(
    vices: Vices, member: str, arguments: tuple[Any, ...], name: str
) -> None:
    with pytest.raises(GLib.Error) as caught:
        vices.bus.call(NAME, PATH, member, *arguments)
    assert Gio.DBusError.get_remote_error(caught.value) == name
    assert vices.lines == ["connected True "] and vices.errors == []


def test_nobody_can_take_the_name(vices: Vices) -> None:
    before = vices.bus.owner(NAME)
    replace_existing = 2
    reply = vices.bus.call(
        "org.freedesktop.DBus",
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus.RequestName",
        ("s", NAME),
        ("u", replace_existing | 4),
    )
    assert reply == (3,)  # EXISTS
    assert vices.bus.owner(NAME) == before


def test_a_second_service_does_not_get_the_name_and_says_so(vices: Vices, bus: Bus) -> None:
    second = Vices(bus)
    try:
        wait_for(lambda: second.lines, "an answer")
        assert second.lines == ["connected False another process owns org.tierd1.Test"]
    finally:
        second.end()


def test_the_bus_may_go_and_come_back(vices: Vices) -> None:
    descriptors = []
    for _ in range(3):
        count = vices.lines.count("connected True ")
        vices.bus.stop()
        wait_for(lambda: vices.lines[-1].startswith("connected False"), "the loss")
        vices.bus.start()
        wait_for(lambda: vices.lines.count("connected True ") > count, "the return")  # noqa: B023
        assert vices.call("Fast") == ("fast",)
        assert vices.bus.call(NAME, PATH, "org.freedesktop.DBus.Properties.GetAll", ("s", NAME)) == (
            {"Good": "good"},
        )
        descriptors.append(psutil.Process(vices.process.pid).num_fds())
    assert descriptors[-1] <= descriptors[0], f"descriptors leak: {descriptors}"
    assert vices.errors == []


def test_a_bus_that_is_missing_at_the_start_is_found_later(bus: Bus) -> None:
    bus.stop()
    program = Vices(bus)
    try:
        wait_for(lambda: program.lines and program.lines[0].startswith("connected False"), "the failure")
        bus.start()
        wait_for(lambda: "connected True " in program.lines, "the connection")
        assert len(program.lines) == 2  # one line for any number of attempts
    finally:
        program.end()


def test_calls_leave_no_memory_behind(vices: Vices) -> None:
    process = psutil.Process(vices.process.pid)
    connection = vices.bus.connect()

    def call(count: int) -> None:
        for number in range(count):
            method = ("Fast", "RaiseSlowly", "Raise")[number % 3]
            body = GLib.Variant("(s)", ("failed",)) if method != "Fast" else None
            try:
                connection.call_sync(
                    NAME, PATH, NAME, method, body, None, Gio.DBusCallFlags.NONE, 5000, None
                )
            except GLib.Error:
                pass

    call(600)
    before = process.memory_info().rss
    call(3000)
    grown = process.memory_info().rss - before
    connection.close_sync(None)
    assert grown < 1 << 20, f"{grown / 3000:.0f} bytes a call"
