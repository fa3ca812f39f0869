"""The daemon on a private bus, around an engine that does as it is told."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from gi.repository import Gio, GLib

from tests.service.conftest import POLICY, ROOT, Bus, DaemonProgram, wait_for
from tierd import __version__
from tierd.service.interface import INTERFACE, OBJECT_PATH, interface_xml

pytestmark = pytest.mark.service

GIB = 1 << 30
STATUS = "placing: 2 tiers, 3 processes in 2 cgroups, 12 MB/s, DRAM 75 % full, 412 MiB promoted"
BAD = "version: 1\nengine:\n  mode: fast\n  speed: 9\n"


def test_properties(daemon: DaemonProgram) -> None:
    shown = daemon.properties()
    digest = shown.pop("PolicyDigest")
    assert len(digest) == 64 and int(digest, 16)
    assert shown == {
        "Version": __version__,
        "State": "converging",
        "Reason": "",
        "StatusText": STATUS,
        "Source": "hint-faults",
        "SourceReason": "page-exact, and the kernel has it",
        "ConfigState": "current",
        "ConfigProblems": [],
        "PolicyOrigin": str(daemon.policy),
        "HostedProcesses": 3,
        "HostedCgroups": 2,
        "PlacedDramBytes": GIB,
        "PlacedSlowBytes": 2 * GIB,
        "BytesPerSecond": 12e6,
        "Counters": {
            "Rounds": 1,
            "Samples": 0,
            "SamplesLost": 0,
            "PromotedPages": 105472,
            "DemotedPages": 0,
            "RefusedPages": 0,
            "DeferredPages": 0,
            "AlreadyTherePages": 0,
            "HugePagesSplit": 0,
            "HugePagesRebuilt": 0,
            "MoveSeconds": 0.5,
        },
        "Tiers": [
            {
                "Name": "memory_tier4",
                "Kind": "dram",
                "Nodes": [0],
                "TotalBytes": 2 * GIB,
                "FreeBytes": GIB // 2,
                "UsedBytes": 2 * GIB - GIB // 2,
                "ReadLatencyNanoseconds": 80,
            },
            {
                "Name": "memory_tier56",
                "Kind": "slow",
                "Nodes": [1],
                "TotalBytes": 4 * GIB,
                "FreeBytes": 3 * GIB,
                "UsedBytes": GIB,
                "ReadLatencyNanoseconds": 300,
            },
        ],
        "Missing": ["DAMON: large regions are found later; boot with CONFIG_DAMON"],
    }


def test_the_interface_file_and_the_daemon_agree(daemon: DaemonProgram) -> None:
    written = Gio.DBusNodeInfo.new_for_xml(interface_xml()).lookup_interface(INTERFACE)
    member = "org.freedesktop.DBus.Introspectable.Introspect"
    xml = daemon.bus.call("org.tierd1", OBJECT_PATH, member)[0]
    served = Gio.DBusNodeInfo.new_for_xml(xml).lookup_interface(INTERFACE)

    def members(interface: Any) -> tuple[dict[str, Any], dict[str, str], list[str]]:
        methods = {
            m.name: ([a.signature for a in m.in_args], [a.signature for a in m.out_args])
            for m in interface.methods
        }
        return (
            methods,
            {p.name: p.signature for p in interface.properties},
            [s.name for s in interface.signals],
        )

    assert members(served) == members(written)
    assert set(daemon.properties()) == set(members(written)[1])
    for method in members(written)[0]:
        daemon.call(method)  # each is there


def test_each_property_alone_equals_its_place_in_get_all(daemon: DaemonProgram) -> None:
    for name, value in daemon.properties().items():
        got = daemon.bus.call(
            "org.tierd1", OBJECT_PATH, "org.freedesktop.DBus.Properties.Get", ("s", INTERFACE), ("s", name)
        )
        assert got == (value,), name


def test_properties_cannot_be_written(daemon: DaemonProgram) -> None:
    with pytest.raises(GLib.Error) as caught:
        value = GLib.Variant("s", "paused")
        member = "org.freedesktop.DBus.Properties.Set"
        daemon.bus.call("org.tierd1", OBJECT_PATH, member, ("s", INTERFACE), ("s", "State"), ("v", value))
    assert "not writable" in caught.value.message
    assert daemon.properties()["State"] == "converging"


def test_get_plan(daemon: DaemonProgram) -> None:
    row = {
        "Action": "promote",
        "Subject": "/system.slice/db.service",
        "Pages": 1024,
        "SourceNode": 1,
        "TargetNode": 0,
        "Reason": "hot: 12 accesses a second",
    }
    assert daemon.call("GetPlan") == ([row],)


def test_text_from_elsewhere_is_shown_and_harmless(daemon: DaemonProgram) -> None:
    daemon.order("show", engine="holding", reason="b\udcff\x1b[31mad\nname\x00")
    shown = wait_for(lambda: daemon.properties()["Reason"], "the reason")
    assert shown == r"b\udcff\x1b[31mad\nname\x00"
    assert r"\udcff" in daemon.event("holding")["MESSAGE"]


def test_a_state_that_cannot_be_shown_leaves_the_older_one(daemon: DaemonProgram) -> None:
    daemon.order("show", processes=-1)
    assert "OverflowError" in daemon.event("internal-error")["MESSAGE"]
    assert daemon.properties()["HostedProcesses"] == 3
    daemon.order("show", processes=4)
    wait_for(lambda: daemon.properties()["HostedProcesses"] == 4, "the next state")


@pytest.fixture
def changes(daemon: DaemonProgram) -> Iterator[list[tuple[float, dict[str, Any]]]]:
    """Every PropertiesChanged of the daemon, with the time it came."""
    found: list[tuple[float, dict[str, Any]]] = []
    context = GLib.MainContext()
    loop = GLib.MainLoop.new(context, False)
    ready = threading.Event()

    def listen() -> None:
        context.push_thread_default()
        connection = daemon.bus.connect()
        connection.signal_subscribe(
            None,
            "org.freedesktop.DBus.Properties",
            "PropertiesChanged",
            OBJECT_PATH,
            None,
            Gio.DBusSignalFlags.NONE,
            lambda *got: found.append((time.monotonic(), got[5].unpack()[1])),
        )
        connection.call_sync(  # a round trip: the bus knows the match rule now
            "org.freedesktop.DBus",
            "/",
            "org.freedesktop.DBus",
            "GetId",
            None,
            None,
            Gio.DBusCallFlags.NONE,
            5000,
            None,
        )
        ready.set()
        loop.run()
        connection.close_sync(None)
        context.pop_thread_default()

    thread = threading.Thread(target=listen)
    thread.start()
    assert ready.wait(10)
    yield found
    loop.quit()
    thread.join(10)


def test_changes_are_announced_at_most_once_a_second(
    daemon: DaemonProgram, changes: list[tuple[float, dict[str, Any]]]
) -> None:
    for number in range(60):
        daemon.order("show", processes=number, dram_bytes=number)
        time.sleep(0.05)
    wait_for(lambda: any(values.get("HostedProcesses") == 59 for _, values in changes), "the last value")
    times = [at for at, _ in changes]
    assert 2 <= len(changes) <= 5, changes
    assert all(later - earlier > 0.9 for earlier, later in zip(times, times[1:], strict=False))
    assert {name for _, values in changes for name in values} == {
        "HostedProcesses",
        "StatusText",
    }  # no counters


def test_nothing_is_announced_when_nothing_changes(
    daemon: DaemonProgram, changes: list[tuple[float, dict[str, Any]]]
) -> None:
    time.sleep(1.2)  # what the start changed has been told by now
    changes.clear()
    daemon.order("show", dram_bytes=1)
    time.sleep(2.2)
    assert changes == []


def test_notifications_from_start_to_stop(start_daemon: Callable[..., DaemonProgram]) -> None:
    daemon = start_daemon()
    assert daemon.notification("READY=1") == f"READY=1\nSTATUS={STATUS}"
    daemon.event("bus-connected")
    for number in range(30):
        daemon.order("show", processes=10 + number)
        time.sleep(0.05)
    began = time.monotonic()
    daemon.notification("39 processes")
    assert time.monotonic() - began < 3
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.notification("STOPPING=1") == "STOPPING=1\nSTATUS=stopping"
    assert daemon.wait() == 0
    assert '{"closed": true}' in daemon.lines
    assert [event["TIERD_EVENT"] for event in daemon.events()][-1] == "stopped"
    assert daemon.errors == []


def test_the_status_line_is_sent_at_most_once_a_second(daemon: DaemonProgram) -> None:
    began = time.monotonic()
    while time.monotonic() - began < 3:
        daemon.order("show", processes=int((time.monotonic() - began) * 1000))
        time.sleep(0.02)
    count = 0
    while not daemon.notifications.empty():
        count += "STATUS=" in daemon.notifications.get()
    assert 2 <= count <= 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_gives_up_the_name_and_ends_soon(daemon: DaemonProgram, number: signal.Signals) -> None:
    daemon.process.send_signal(number)
    began = time.monotonic()
    assert daemon.wait() == 0
    assert time.monotonic() - began < 3
    with pytest.raises(GLib.Error):
        daemon.bus.owner("org.tierd1")


def test_an_engine_that_does_not_end_is_left_behind(daemon: DaemonProgram) -> None:
    daemon.order("hang", seconds=60)
    time.sleep(0.3)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
    assert "left behind" in daemon.event("engine-stalled")["MESSAGE"]


@pytest.mark.parametrize(("order", "kind"), [("raise", "KeyError"), ("exit", "SystemExit")])
def test_an_engine_that_fails_ends_the_daemon_with_one_line(
    daemon: DaemonProgram, order: str, kind: str
) -> None:
    daemon.order(order)
    assert daemon.wait() == 1
    failures = daemon.events("engine-failed")
    assert len(failures) == 1 and failures[0]["TIERD_ERROR"] == kind
    assert kind in failures[0]["MESSAGE"] and "(fake_daemon.py:" in failures[0]["MESSAGE"]
    assert "\n" not in failures[0]["MESSAGE"] and failures[0]["PRIORITY"] == "2"
    daemon.notification("STATUS=the engine failed")
    assert daemon.errors == []


def test_the_watchdog_is_fed_only_while_the_engine_moves(start_daemon: Callable[..., DaemonProgram]) -> None:
    daemon = start_daemon(watchdog=2.0)
    for _ in range(3):
        daemon.notification("WATCHDOG=1", 2.0)
    daemon.order("hang", seconds=4)
    stalled = daemon.event("engine-stalled")
    assert "systemd will start tierd again" in stalled["MESSAGE"] and stalled["PRIORITY"] == "3"
    while not daemon.notifications.empty():
        daemon.notifications.get()
    with pytest.raises(AssertionError, match="no notification"):
        daemon.notification("WATCHDOG=1", 1.2)
    assert daemon.properties()["State"] == "converging"  # the loop itself is well
    daemon.notification("WATCHDOG=1", 5.0)  # and so is the engine again
    assert len(daemon.events("engine-stalled")) == 1


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


def test_reload_over_the_bus_answers_with_every_problem(daemon: DaemonProgram) -> None:
    daemon.policy.write_text(BAD)
    with pytest.raises(GLib.Error) as caught:
        daemon.call("Reload")
    assert Gio.DBusError.get_remote_error(caught.value) == "org.tierd1.Error.InvalidPolicy"
    assert ":3:9: engine.mode: " in caught.value.message and ":4:3: " in caught.value.message


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
    daemon.order("hang", seconds=2)
    time.sleep(0.2)
    thread = threading.Thread(target=daemon.call, args=("Reload",))
    thread.start()
    began = time.monotonic()
    daemon.properties()
    assert time.monotonic() - began < 0.5
    thread.join(10)
    assert daemon.events("policy-adopted")


def test_the_bus_goes_and_placing_goes_on(daemon: DaemonProgram) -> None:
    daemon.bus.stop()
    assert "placing goes on" in daemon.event("bus-lost")["MESSAGE"]
    daemon.order("show", engine="steady")
    wait_for(
        lambda: "steady" in [event["TIERD_STATE"] for event in daemon.events("state-changed")],
        "a round without the bus",
    )
    connected = len(daemon.events("bus-connected"))
    daemon.bus.start()
    wait_for(lambda: daemon.properties()["State"] == "steady", "the return")
    assert len(daemon.events("bus-connected")) >= connected and daemon.process.poll() is None


def test_no_bus_at_the_start_is_no_reason_to_stay_away(
    bus: Bus, start_daemon: Callable[..., DaemonProgram]
) -> None:
    bus.stop()
    daemon = start_daemon()
    daemon.notification("READY=1")
    assert daemon.event("bus-lost")["PRIORITY"] == "4"
    bus.start()
    wait_for(daemon.properties, "the name on the bus")


def test_a_second_tier_starts_the_unit_again_where_the_kernel_was_left_alone(
    start_daemon: Callable[..., DaemonProgram],
) -> None:
    daemon = start_daemon("--restart-when-tiered").on_bus()
    daemon.order("show", slow=False)
    daemon.event("tier-vanished")
    daemon.order("show", slow=True)
    assert daemon.wait() == 75
    ordinary = start_daemon().on_bus()
    ordinary.order("show", slow=False)
    ordinary.event("tier-vanished")
    ordinary.order("show", slow=True)
    wait_for(lambda: len(ordinary.properties()["Tiers"]) == 2, "the tier")
    assert ordinary.process.poll() is None


def test_the_mailbox_keeps_the_order_and_leaves_no_memory_behind() -> None:
    program = """
import os, threading
from gi.repository import GLib
from tierd.service.mailbox import Mailbox

loop, mailbox, got = GLib.MainLoop(), Mailbox(), []

def churn(first, last):
    def post():
        for number in range(first, last):
            mailbox.post(got.append, number)
        mailbox.post(loop.quit)
    thread = threading.Thread(target=post)
    thread.start()
    loop.run()
    thread.join()
    assert got == list(range(first, last)), "order"
    got.clear()
    with open(f"/proc/{os.getpid()}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

churn(0, 20_000)
before = churn(0, 20_000)
for _ in range(3):
    after = churn(0, 20_000)
assert after - before < 1 << 20, f"{(after - before) / 60_000:.0f} bytes a message"
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_rounds_leave_no_memory_behind(daemon: DaemonProgram) -> None:
    process = psutil.Process(daemon.process.pid)

    def churn(count: int) -> int:
        for number in range(count):
            daemon.order("show", processes=number)
            time.sleep(0.001)
        wait_for(lambda: daemon.properties()["HostedProcesses"] == count - 1, "all of it")
        return int(process.memory_info().rss)

    churn(500)
    before = churn(500)
    assert churn(2000) - before < 1 << 20
