"""What the daemon shows on a private bus, and when it says that something changed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from gi.repository import Gio, GLib

from tests.service.conftest import STATUS, DaemonProgram, wait_for
from tierd import __version__
from tierd.service.interface import BUS_NAME, INTERFACE, OBJECT_PATH
from tierd.service.shown import introspection_xml

pytestmark = pytest.mark.service

GIB = 1 << 30


def test_properties(daemon: DaemonProgram) -> None:
    shown = daemon.properties()
    digest = shown.pop("PolicyDigest")
    assert len(digest) == 64 and int(digest, 16)
    assert abs(shown.pop("LastRoundTime") - time.time()) < 60
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
            "RoundSeconds": 0.0,
        },
        "OwnCost": {"CpuSeconds": 0.0, "ResidentBytes": 0},
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
        "Classes": [
            {
                "Name": "gold",
                "Promise": "guaranteed",
                "Priority": 5,
                "Processes": 1,
                "DramBytes": GIB,
                "SlowBytes": 0,
                "LeastBytes": GIB,
                "MostBytes": GIB,
                "PromotedPages": 9,
                "DemotedPages": 0,
                "Broken": "",
                "Odd": "",
            }
        ],
        "Notices": [],
        "Missing": ["DAMON: large regions are found later; boot with CONFIG_DAMON"],
    }


def test_the_interface_file_and_the_daemon_agree(daemon: DaemonProgram) -> None:
    written = Gio.DBusNodeInfo.new_for_xml(introspection_xml(BUS_NAME)).lookup_interface(INTERFACE)
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
    for method, (takes, _) in members(written)[0].items():
        given = {"u": os.getpid(), "a{sv}": {}}
        # each is there, even where it does not like what it is given
        try:
            daemon.call(method, *((kind, given[kind]) for kind in takes))
        except GLib.Error as error:
            assert Gio.DBusError.get_remote_error(error) == "org.tierd1.Error.InvalidArgument"


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


def test_get_history(daemon: DaemonProgram) -> None:
    row = wait_for(lambda: daemon.call("GetHistory", ("u", 60))[0], "a step of history")[0]
    assert abs(row["Time"] - time.time()) < 10 and row["State"] == "converging"
    assert row["TierTotalBytes"] == {"memory_tier4": 2 * GIB, "memory_tier56": 4 * GIB}
    assert row["TierUsedBytes"] == {"memory_tier4": 2 * GIB - GIB // 2, "memory_tier56": GIB}
    assert list(row["ClassDramBytes"]) == ["gold"] == list(row["ClassSlowBytes"])
    assert daemon.call("GetHistory", ("u", 0)) == ([],)


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


Signals = list[tuple[float, tuple[Any, ...]]]


@contextmanager
def listening(daemon: DaemonProgram, interface: str, name: str) -> Iterator[Signals]:
    """The arguments of every such signal of the daemon, with the time it came."""
    found: Signals = []
    context = GLib.MainContext()
    loop = GLib.MainLoop.new(context, False)
    ready = threading.Event()

    def listen() -> None:
        context.push_thread_default()
        connection = daemon.bus.connect()
        connection.signal_subscribe(
            None,
            interface,
            name,
            OBJECT_PATH,
            None,
            Gio.DBusSignalFlags.NONE,
            lambda *got: found.append((time.monotonic(), got[5].unpack())),
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


@pytest.fixture
def changes(daemon: DaemonProgram) -> Iterator[Signals]:
    """Every PropertiesChanged."""
    with listening(daemon, "org.freedesktop.DBus.Properties", "PropertiesChanged") as found:
        yield found


def test_a_promise_that_is_broken_and_kept_again_is_told_once_each(daemon: DaemonProgram) -> None:
    with listening(daemon, INTERFACE, "PromiseChanged") as found:
        for words in ("class gold lacks 9 MiB", "class gold lacks 4 MiB", "", ""):
            daemon.order("show", broken=words)
            time.sleep(0.1)
        wait_for(lambda: len(found) == 2, "both signals")
        time.sleep(0.3)
    assert [got for _, got in found] == [("gold", False, "class gold lacks 9 MiB"), ("gold", True, "")]


def test_changes_are_announced_at_most_once_a_second(daemon: DaemonProgram, changes: Signals) -> None:
    began = time.monotonic()
    for number in range(60):
        daemon.order("show", processes=number, dram_bytes=number)
        time.sleep(0.05)
    wait_for(
        lambda: any(values.get("HostedProcesses") == 59 for _, (_, values, _) in changes), "the last value"
    )
    # on a busy machine, when they arrive says little of when they were sent
    assert 2 <= len(changes) <= time.monotonic() - began + 1, changes
    assert {name for _, (_, values, _) in changes for name in values} == {
        "HostedProcesses",
        "StatusText",
    }  # no counters


def test_nothing_is_announced_when_nothing_changes(daemon: DaemonProgram, changes: Signals) -> None:
    time.sleep(1.2)  # what the start changed has been told by now
    changes.clear()
    daemon.order("show", dram_bytes=1)
    time.sleep(2.2)
    assert changes == []
