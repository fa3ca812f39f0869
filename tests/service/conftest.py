"""A private message bus, and the daemon on it around a fake engine."""

from __future__ import annotations

import functools
import json
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from gi.repository import Gio, GLib

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
POLICY = "version: 1\nengine:\n  mode: place\n"
STATUS = "placing: 2 tiers, 3 processes in 2 cgroups, 12 MB/s, DRAM 75 % full, 412 MiB promoted"
"""What the fake daemon says of its state when it has started."""


@functools.cache
def catalog() -> dict[str, tuple[dict[str, str], str]]:
    """MESSAGE_ID -> (headers, text) of systemd/tierd.catalog."""
    found: dict[str, tuple[dict[str, str], str]] = {}
    text = (ROOT / "systemd/tierd.catalog").read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if not line.startswith("#")]
    for block in re.split(r"^-- ", "\n".join(lines), flags=re.MULTILINE)[1:]:
        identifier, rest = block.split("\n", 1)
        head, body = rest.split("\n\n", 1)
        headers = dict(line.split(": ", 1) for line in head.split("\n"))
        assert identifier not in found, f"{identifier} twice"
        found[identifier] = headers, body.strip()
    return found


def lacking(event: Mapping[str, str]) -> set[str]:
    """The fields that the catalog's explanation of a journal entry names, and the entry does not have."""
    _, body = catalog()[event["MESSAGE_ID"]]
    return set(re.findall(r"@([A-Z_0-9]+)@", body)) - set(event)


class Bus:
    """A dbus-daemon of our own, which can be stopped and started again at the same address."""

    def __init__(self, directory: Path) -> None:
        self.address = f"unix:path={directory}/bus"
        self._socket = directory / "bus"
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        self._socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [
                "dbus-daemon",
                "--session",
                "--nofork",
                "--nopidfile",
                "--print-address",
                f"--address={self.address}",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "dbus-daemon did not start"

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def connect(self) -> Any:
        flags = (
            Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
        )
        return Gio.DBusConnection.new_for_address_sync(self.address, flags, None, None)

    def call(self, name: str, path: str, member: str, *arguments: Any, timeout: float = 10.0) -> Any:
        """Call `interface.Method` over a connection of its own; the reply's values, unpacked."""
        interface, method = member.rsplit(".", 1)
        body = GLib.Variant(
            "(" + "".join(kind for kind, _ in arguments) + ")", tuple(v for _, v in arguments)
        )
        connection = self.connect()
        try:
            return connection.call_sync(
                name, path, interface, method, body, None, Gio.DBusCallFlags.NONE, int(timeout * 1000), None
            ).unpack()
        finally:
            connection.close_sync(None)

    def owner(self, name: str) -> str:
        reply = self.call(
            "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.GetNameOwner", ("s", name)
        )
        return str(reply[0])


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    if shutil.which("dbus-daemon") is None:
        pytest.skip("dbus-daemon is not installed")
    started = Bus(tmp_path)
    yield started
    started.stop()


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 15.0) -> Any:
    """The first true value of `condition`, asked again and again; GLib errors count as no."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            value = condition()
        except GLib.Error:
            value = None
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


class Program:
    """A child process whose lines are collected."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.lines), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        for line in stream:
            lines.append(line.rstrip("\n"))

    def wait(self, seconds: float = 15.0) -> int:
        code = self.process.wait(seconds)
        for thread in self._threads:
            thread.join(5)
        return code

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


class DaemonProgram(Program):
    """The daemon with a fake engine."""

    def __init__(self, bus: Bus, directory: Path, *arguments: str, watchdog: float | None = None) -> None:
        self.bus = bus
        self.policy = directory / "tierd.yaml"
        self.policy.write_text(POLICY)
        self.policy.chmod(0o644)
        self.notifications: queue.Queue[str] = queue.Queue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(directory / "notify"))
        threading.Thread(target=self._receive, daemon=True).start()
        environment = {"TIERD_TEST_BUS": bus.address, "NOTIFY_SOCKET": str(directory / "notify")}
        if watchdog is not None:
            environment["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
        super().__init__([str(HERE / "fake_daemon.py"), str(self.policy), *arguments], environment)

    def _receive(self) -> None:
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                return
            if not data:
                return
            self.notifications.put(data.decode())

    def end(self) -> None:
        super().end()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def notification(self, part: str, seconds: float = 15.0) -> str:
        """The next notification with `part` in it; those before it are dropped."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                message = self.notifications.get(timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                raise AssertionError(
                    f"no notification with {part!r} within {seconds} s; {self.errors}"
                ) from None
            if part in message:
                return message

    def on_bus(self) -> DaemonProgram:
        self.notification("READY=1")
        self.event("bus-connected")
        return self

    def order(self, do: str, **details: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **details}) + "\n")
        self.process.stdin.flush()

    def events(self, name: str = "") -> list[dict[str, str]]:
        found = [json.loads(line) for line in list(self.lines)]
        return [event for event in found if "TIERD_EVENT" in event and name in ("", event["TIERD_EVENT"])]

    def event(self, name: str, seconds: float = 15.0) -> dict[str, str]:
        """The newest event of that name, waited for."""
        return dict(
            wait_for(lambda: self.events(name), f"event {name}, only {self.lines}, {self.errors}", seconds)[
                -1
            ]
        )

    def call(self, method: str, *arguments: Any, timeout: float = 10.0) -> Any:
        member = f"org.tierd1.Manager.{method}"
        return self.bus.call("org.tierd1", "/org/tierd1", member, *arguments, timeout=timeout)

    def properties(self) -> dict[str, Any]:
        member = "org.freedesktop.DBus.Properties.GetAll"
        return dict(self.bus.call("org.tierd1", "/org/tierd1", member, ("s", "org.tierd1.Manager"))[0])


@pytest.fixture
def start_daemon(bus: Bus, tmp_path: Path) -> Iterator[Callable[..., DaemonProgram]]:
    started: list[DaemonProgram] = []

    def start(*arguments: str, **options: Any) -> DaemonProgram:
        directory = tmp_path / f"daemon{len(started)}"
        directory.mkdir()
        started.append(DaemonProgram(bus, directory, *arguments, **options))
        return started[-1]

    yield start
    for program in started:
        program.end()
    found = [event for program in started for event in program.events()]
    assert {event["TIERD_EVENT"]: lacking(event) for event in found if lacking(event)} == {}


@pytest.fixture
def daemon(start_daemon: Callable[..., DaemonProgram]) -> DaemonProgram:
    """A daemon that has said READY=1 and is on the bus."""
    return start_daemon().on_bus()
