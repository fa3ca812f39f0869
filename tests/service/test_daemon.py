"""The daemon on a private bus, around an engine that does as it is told: its life from start to end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest
from gi.repository import GLib

from tests.service.conftest import ROOT, STATUS, Bus, DaemonProgram, wait_for

pytestmark = pytest.mark.service


def test_notifications_from_start_to_stop(start_daemon: Callable[..., DaemonProgram]) -> None:
    daemon = start_daemon()
    assert daemon.notification("READY=1") == f"READY=1\nSTATUS={STATUS}"
    daemon.event("bus-connected")
    for number in range(30):
        daemon.order("show", processes=10 + number)
        time.sleep(0.05)
    daemon.notification("39 processes")
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.notification("STOPPING=1") == "STOPPING=1\nSTATUS=stopping"
    assert daemon.wait() == 0
    assert '{"closed": true}' in daemon.lines
    assert [event["TIERD_EVENT"] for event in daemon.events()][-1] == "stopped"
    assert daemon.errors == []


def test_the_status_line_is_sent_at_most_once_a_second(daemon: DaemonProgram) -> None:
    began, elapsed, count = time.monotonic(), 0.0, 0
    while elapsed < 3 or (count < 2 and elapsed < 30):
        daemon.order("show", processes=int(elapsed * 1000))
        time.sleep(0.02)
        while not daemon.notifications.empty():
            count += "STATUS=" in daemon.notifications.get()
        elapsed = time.monotonic() - began
    assert 2 <= count <= elapsed + 1


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
        daemon.notification("WATCHDOG=1")
    daemon.order("hang", seconds=4)
    stalled = daemon.event("engine-stalled")
    assert "systemd will start tierd again" in stalled["MESSAGE"] and stalled["PRIORITY"] == "3"
    while not daemon.notifications.empty():
        daemon.notifications.get()
    with pytest.raises(AssertionError, match="no notification"):
        daemon.notification("WATCHDOG=1", 1.2)
    assert daemon.properties()["State"] == "converging"  # the loop itself is well
    daemon.notification("WATCHDOG=1")  # and so is the engine again
    assert len(daemon.events("engine-stalled")) == 1


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
    # the tier is there in the first round, and was not when the helper looked
    daemon = start_daemon("--restart-when-tiered")
    assert daemon.wait() == 75
    later = start_daemon("--restart-when-tiered", "--untiered").on_bus()
    later.order("show", slow=True)
    assert later.wait() == 75
    ordinary = start_daemon().on_bus()
    ordinary.order("show", slow=False)
    ordinary.event("tier-vanished")
    ordinary.order("show", slow=True)
    wait_for(lambda: len(ordinary.properties()["Tiers"]) == 2, "the tier")
    assert ordinary.process.poll() is None


def test_what_the_helper_found_after_the_start_is_shown(start_daemon: Callable[..., DaemonProgram]) -> None:
    daemon = start_daemon("--late").on_bus()
    wait_for(lambda: "late: it is lost; get it" in daemon.properties()["Missing"], "the second look")
    assert len([e for e in daemon.events("feature-missing") if e["TIERD_FEATURE"] == "late"]) == 1
    daemon.order("show", processes=9)
    wait_for(lambda: daemon.properties()["HostedProcesses"] == 9, "the next round")
    assert len(daemon.properties()["Missing"]) == 2, "it stays, and is named once"


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
