"""Who may do what: root, and whom a stand-in for polkit permits it, asked without holding anybody up."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gi.repository import GLib

from tests.service.conftest import HERE, Bus, Program, wait_for
from tests.service.test_bus import NAME, PATH, Vices, error_of
from tierd.errors import BusyError
from tierd.service import authority
from tierd.service.authority import Authority, Caller

pytestmark = pytest.mark.service

Polkit = Callable[[str], Program]
DENIED = "org.tierd1.Error.NotAuthorized"


@pytest.fixture
def polkit(bus: Bus) -> Iterator[Polkit]:
    """Start a polkit that gives one answer."""
    started: list[Program] = []

    def start(mode: str) -> Program:
        started.append(Program([str(HERE / "fake_polkit.py"), bus.address, mode], {}))
        wait_for(lambda: "ready" in started[-1].lines, "polkit")
        return started[-1]

    yield start
    for program in started:
        program.end()


@pytest.fixture
def guarded(bus: Bus) -> Iterator[Vices]:
    """A service that trusts nobody by number, so that polkit is asked even where root runs the tests."""
    program = Vices(bus, "4242")
    wait_for(lambda: "connected True " in program.lines, "the name on the bus")
    yield program
    program.end()


def asked(polkit: Program) -> list[list[object]]:
    return [json.loads(line) for line in polkit.lines if line.startswith("[")]


def test_whom_polkit_permits_it_may(guarded: Vices, polkit: Polkit) -> None:
    program = polkit("yes")
    assert guarded.call("Guarded") == ("done",)
    guarded.call("GuardedSlowly", ("d", 0.01))
    assert asked(program) == [["system-bus-name", ["name"], "org.tierd1.test", 0]] * 2
    connection = guarded.bus.connect()
    flags = authority.Gio.DBusCallFlags.ALLOW_INTERACTIVE_AUTHORIZATION
    connection.call_sync(NAME, PATH, NAME, "Guarded", None, None, flags, 5000, None)
    connection.close_sync(None)
    assert asked(program)[2][-1] == 1, "a person may be asked"


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("no", "not permitted: polkit says no (org.tierd1.test)"),
        ("password", "not permitted: it takes a password (org.tierd1.test)"),
    ],
)
def test_whom_it_does_not_may_not(guarded: Vices, polkit: Polkit, mode: str, words: str) -> None:
    polkit(mode)
    for method, *arguments in (("Guarded",), ("GuardedSlowly", ("d", 0.0))):
        assert error_of(guarded, method, *arguments) == (DENIED, words)
    assert guarded.call("Fast") == ("fast",)


def test_a_method_may_be_told_who_calls(guarded: Vices, polkit: Polkit, bus: Bus) -> None:
    assert guarded.call("Told", ("s", "x"))[0] == os.getuid()
    assert guarded.call("Told", ("s", "x"))[1].startswith("x: not permitted: polkit cannot be asked")
    program = polkit("no")
    refused = (os.getuid(), "x: not permitted: polkit says no (org.tierd1.test)")
    assert guarded.call("Told", ("s", "x")) == refused
    program.end()
    polkit("yes")
    assert guarded.call("Told", ("s", "x")) == (os.getuid(), "x: may")


def test_without_polkit_nobody_but_root_may(guarded: Vices, bus: Bus) -> None:
    name, words = error_of(guarded, "Guarded")
    assert name == DENIED and words.startswith("not permitted: polkit cannot be asked: ")
    trusted = str(os.getuid())
    guarded.end()
    root = Vices(bus, trusted)
    wait_for(lambda: "connected True " in root.lines, "the name on the bus")
    assert root.call("Guarded") == ("done",)
    root.end()


def test_a_polkit_that_is_silent_holds_up_nobody(guarded: Vices, polkit: Polkit) -> None:
    polkit("silent")
    errors: list[str] = []

    def ask() -> None:
        try:
            guarded.call("Guarded", timeout=20)
        except GLib.Error as error:
            errors.append(error.message)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    assert guarded.call("Fast") == ("fast",) and time.monotonic() - began < 2
    thread.join()
    assert len(errors) == 1 and "polkit cannot be asked" in errors[0]


class Connection:
    """A connection on which the bus says at once who asks, and polkit answers when told to."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def call(self, name: str, *rest: Any) -> None:
        if name == "org.freedesktop.DBus":
            sender = rest[3].unpack()[0]
            rest[-1](Answer((int(sender.rpartition(".")[2]),)), None)
        else:
            self.waiting.append(lambda: rest[-1](Answer(((True, False, {}),)), None))


class Answer:
    def __init__(self, values: tuple[Any, ...]) -> None:
        self.values = values

    def call_finish(self, _: None) -> Answer:
        return self

    def unpack(self) -> tuple[Any, ...]:
        return self.values


def test_questions_to_polkit_are_bounded_for_each_user_and_for_all() -> None:
    connection, told = Connection(), list[Caller]()
    judge = Authority(trusted=0)

    def ask(user: int) -> None:
        judge.check(connection, f":1.{user}", "org.tierd1.test", True, told.append)

    for _ in range(authority.USER_QUESTIONS + 1):
        ask(1)
    (refused,) = told
    assert refused.user == 1 and isinstance(refused.refusal, BusyError)
    for user in range(2, 2 + authority.QUESTIONS):
        ask(user)
    assert len(connection.waiting) == authority.QUESTIONS
    assert sum(isinstance(caller.refusal, BusyError) for caller in told) == 1 + authority.USER_QUESTIONS
    ask(0)
    assert told[-1] == Caller(0, None), "root is never asked about"
    told.clear()
    for answer in connection.waiting:
        answer()
    assert len(told) == authority.QUESTIONS and not any(caller.refusal for caller in told)
    ask(1)
    assert len(connection.waiting) == authority.QUESTIONS + 1, "the room is given back"


def test_who_asks_too_often_is_told_so(guarded: Vices, polkit: Polkit) -> None:
    polkit("silent")
    connection = guarded.bus.connect()
    for _ in range(authority.USER_QUESTIONS):
        connection.call(
            NAME, PATH, NAME, "Guarded", None, None, authority.Gio.DBusCallFlags.NONE, 20_000, None, None
        )
    wait_for(lambda: error_of(guarded, "Guarded")[0] == "org.tierd1.Error.Busy", "no more room")
    assert error_of(guarded, "Told", ("s", "x"))[0] == "org.tierd1.Error.Busy", "not half an answer"
    connection.close_sync(None)
