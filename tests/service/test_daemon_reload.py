"""Reloads of the daemon: by signal, over the bus, refused, late and many at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import pytest
from gi.repository import Gio, GLib

from tests.service.conftest import POLICY, STATUS, DaemonProgram

pytestmark = pytest.mark.service

BAD = "version: 1\nengine:\n  mode: fast\n  speed: 9\n"


def test_reload_by_signal(daemon: DaemonProgram) -> None:
    before = daemon.properties()["PolicyDigest"]
    daemon.policy.write_text(POLICY + "  cooldown: 5s\n")
    daemon.process.send_signal(signal.SIGHUP)
    reloading = daemon.notification("RELOADING=1").split("\n")
    assert reloading[1].startswith("MONOTONIC_USEC=") and int(reloading[1].split("=")[1]) > 0
    assert daemon.notification("READY=1") == f"READY=1\nSTATUS={STATUS}"
    assert daemon.event("policy-adopted")["TIERD_POLICY"] == str(daemon.policy)
    assert daemon.properties()["PolicyDigest"] != before


def test_a_bad_policy_is_refused_and_the_older_one_stays(daemon: DaemonProgram) -> None:
    before = daemon.properties()["PolicyDigest"]
    daemon.policy.write_text(BAD)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.notification("RELOADING=1")
    ready = daemon.notification("READY=1")
    assert ready == f"READY=1\nSTATUS=policy file refused, older policy in force; {STATUS}"
    shown = daemon.properties()
    assert (shown["ConfigState"], shown["PolicyDigest"]) == ("rejected", before)
    assert len(shown["ConfigProblems"]) == 2
    assert shown["ConfigProblems"][0].startswith(f"{daemon.policy}:3:9: engine.mode: ")
    event = daemon.event("policy-rejected")
    assert event["PRIORITY"] == "3" and event["TIERD_PROBLEMS"].split("\n") == shown["ConfigProblems"]

    daemon.policy.write_text(POLICY)
    daemon.call("Reload")
    shown = daemon.properties()
    assert (shown["ConfigState"], shown["ConfigProblems"]) == ("current", [])


def test_what_is_odd_about_a_policy_is_told_and_it_is_in_force(daemon: DaemonProgram) -> None:
    daemon.policy.write_text(POLICY + "classes:\n  - {name: gold, match: [{user: nobody-there}]}\n")
    daemon.call("Reload")
    assert daemon.properties()["ConfigState"] == "current"
    odd = daemon.event("policy-odd")
    assert odd["PRIORITY"] == "4" and odd["TIERD_POLICY_WARNING"] == odd["MESSAGE"]
    assert odd["MESSAGE"].startswith(f"{daemon.policy}:") and "no user `nobody-there`" in odd["MESSAGE"]


def test_reload_over_the_bus_answers_with_every_problem(daemon: DaemonProgram) -> None:
    daemon.policy.write_text(BAD)
    with pytest.raises(GLib.Error) as caught:
        daemon.call("Reload")
    assert Gio.DBusError.get_remote_error(caught.value) == "org.tierd1.Error.InvalidPolicy"
    assert ":3:9: engine.mode: " in caught.value.message and ":4:3: " in caught.value.message


def test_drop_ins_come_into_force_at_a_reload(start_daemon: Callable[..., DaemonProgram]) -> None:
    daemon = start_daemon("--in-force").on_bus()
    before = daemon.properties()
    assert before["PolicyOrigin"] == str(daemon.policy)
    drop_in = daemon.policy.parent / "lib/conf.d/50-cooldown.yaml"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("version: 1\nengine: {cooldown: 5s}\n")
    drop_in.chmod(0o644)
    daemon.call("Reload")
    shown = daemon.properties()
    assert shown["PolicyOrigin"] == f"{daemon.policy} and 1 drop-in"
    assert shown["PolicyDigest"] != before["PolicyDigest"]
    assert daemon.event("policy-adopted")["TIERD_POLICY"] == shown["PolicyOrigin"]

    drop_in.write_text("version: 1\nengine: {cooldown: 5}\n")
    with pytest.raises(GLib.Error):
        daemon.call("Reload")
    refused = daemon.properties()
    assert refused["PolicyDigest"] == shown["PolicyDigest"]
    (problem,) = refused["ConfigProblems"]
    assert problem.startswith(f"{drop_in}:2:20: engine.cooldown: ")


def test_a_policy_that_the_engine_refuses_is_refused(daemon: DaemonProgram) -> None:
    daemon.order("refuse")
    time.sleep(0.1)
    with pytest.raises(GLib.Error, match="this machine cannot do that"):
        daemon.call("Reload")
    assert daemon.properties()["ConfigState"] == "rejected"


def test_a_storm_of_reloads_ends_in_the_newest_policy(daemon: DaemonProgram) -> None:
    for number in range(50):
        daemon.policy.write_text(POLICY + f"  cooldown: {number + 1}s\n")
        daemon.process.send_signal(signal.SIGHUP)
    daemon.call("Reload")
    newest = daemon.properties()["PolicyDigest"]
    time.sleep(0.5)
    daemon.call("Reload")
    assert daemon.properties()["PolicyDigest"] == newest
    assert len(daemon.events("policy-adopted")) < 10  # equal lines are folded


def test_a_reload_that_waits_when_the_daemon_stops_is_answered(daemon: DaemonProgram) -> None:
    daemon.order("hang", seconds=3)
    time.sleep(0.2)
    answers: list[str] = []

    def ask() -> None:
        try:
            daemon.call("Reload")
        except GLib.Error as error:
            answers.append(error.message)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.3)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait(10) == 0
    thread.join(10)
    assert len(answers) == 1


def test_a_slow_reload_does_not_hold_up_readers(daemon: DaemonProgram) -> None:
    daemon.order("hang", seconds=4)
    time.sleep(0.2)
    thread = threading.Thread(target=daemon.call, args=("Reload",))
    thread.start()
    daemon.properties()
    assert thread.is_alive(), "the reload is not done"
    thread.join(10)
    assert daemon.events("policy-adopted")
