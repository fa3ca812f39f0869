"""Tiers as objects on the bus: what each shows, and that they come, go, and come back with the bus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from gi.repository import Gio, GLib

from tests.service.conftest import DaemonProgram, wait_for
from tests.service.fake_daemon import GIB, topology
from tests.service.test_daemon_bus import Signals, listening
from tierd.core.memory_side_cache import MemorySideCache
from tierd.core.model import Topology
from tierd.service.bus import Exported
from tierd.service.shown import introspection_xml
from tierd.service.tier_objects import (
    INTERFACE,
    MOST_TIERS,
    OBJECT_MANAGER,
    TierObjects,
    object_path,
)

DRAM, SLOW = object_path("memory_tier4"), object_path("memory_tier56")
DRAM_ALONE = topology(slow=False)
PROPERTIES = "org.freedesktop.DBus.Properties"
SHOWN_DRAM = {
    "Name": "memory_tier4",
    "Kind": "dram",
    "Nodes": [0],
    "TotalBytes": 2 * GIB,
    "FreeBytes": GIB // 2,
    "UsedBytes": 2 * GIB - GIB // 2,
    "ReadLatencyNanoseconds": 80,
    "MemorySideCaches": [],
}


class Board:
    """In the bus's place: what is on it."""

    def __init__(self) -> None:
        self.objects: dict[str, Exported] = {}

    def publish(self, exported: Exported) -> None:
        assert exported.path not in self.objects
        self.objects[exported.path] = exported

    def withdraw(self, exported: Exported) -> None:
        assert self.objects.pop(exported.path) == exported


def named(*names: str) -> Topology:
    (tier,) = DRAM_ALONE.tiers
    return Topology(tuple(replace(tier, name=name) for name in names))


def test_paths_are_unambiguous_and_fit_for_the_bus() -> None:
    assert DRAM == "/org/tierd1/tier/memory_5ftier4"
    hostile = ["", "_", "a/b", "a_2fb", "é", "a b", "4"]
    paths = {object_path(name) for name in hostile}
    assert len(paths) == len(hostile) and all(GLib.Variant.is_object_path(path) for path in paths)


def test_what_is_not_known_of_a_tier() -> None:
    (dram,) = DRAM_ALONE.tiers
    node = replace(dram.nodes[0], read_latency=None)
    cache = MemorySideCache(0, 1, GIB, 64, "direct-mapped", "")
    board, tiers = Board(), TierObjects(introspection_xml(INTERFACE))
    tiers.show(Topology((replace(dram, nodes=(node,)),), caches=(cache,)), board, 0.0)
    shown = {name: value.unpack() for name, value in tiers.GetManagedObjects()[DRAM][INTERFACE].items()}
    (words,) = shown.pop("MemorySideCaches")
    assert "1.0 GiB" in words
    assert shown == {k: v for k, v in SHOWN_DRAM.items() if k in shown} | {"ReadLatencyNanoseconds": 0}


def test_adaptors_are_as_many_as_there_were_tiers_at_a_time() -> None:
    board, tiers = Board(), TierObjects(introspection_xml(INTERFACE))
    seen = set()
    for number in range(200):
        tiers.show(named("memory_tier4", f"memory_tier{number + 5}"), board, float(number))
        assert set(board.objects) == {DRAM, object_path(f"memory_tier{number + 5}")}
        seen |= {id(exported.adaptor) for exported in board.objects.values()}
        shown = {path: exported.adaptor.dbus_properties() for path, exported in board.objects.items()}
        assert {object_path(values["Name"].unpack()) for values in shown.values()} == set(shown)
    assert len(seen) == 2
    tiers.show(named(*(f"memory_tier{number}" for number in range(200))), board, 300.0)
    assert len(board.objects) == MOST_TIERS


def test_a_tier_that_appears_is_no_change_and_one_that_changes_is_told_once_a_second() -> None:
    board, tiers = Board(), TierObjects(introspection_xml(INTERFACE))
    tiers.show(named("a"), board, 0.0)
    adaptor = board.objects[object_path("a")].adaptor
    told: list[tuple[float, dict[str, Any]]] = []
    now = 0.0
    with adaptor.PropertiesChanged.connect(lambda _, changed, __: told.append((now, changed))):
        tiers.show(named(), board, 0.1)
        (tier,) = named("b").tiers
        tier = replace(tier, nodes=(replace(tier.nodes[0], number=7, free=9),))
        tiers.show(Topology((tier,)), board, 0.2)  # the same adaptor, and another tier
        assert board.objects[object_path("b")].adaptor is adaptor and told == []
        for tick in range(1, 40):
            now = tick / 10
            node = replace(tier.nodes[0], free=tick)
            tiers.show(Topology((replace(tier, nodes=(node,)),)), board, now)
        now = 9.0
        tiers.announce(now)
        tiers.announce(10.0)
    assert [round(when, 1) for when, _ in told] == [0.1, 1.1, 2.1, 3.1, 9.0]
    assert told[-1][1] == {"FreeBytes": 39, "UsedBytes": 2 * GIB - 39}


def managed(daemon: DaemonProgram) -> dict[str, Any]:
    name = f"{OBJECT_MANAGER}.GetManagedObjects"
    return dict(daemon.bus.call("org.tierd1", "/org/tierd1", name)[0])


def shown(daemon: DaemonProgram, path: str) -> dict[str, Any]:
    return dict(daemon.bus.call("org.tierd1", path, f"{PROPERTIES}.GetAll", ("s", INTERFACE))[0])


@pytest.fixture
def heard(daemon: DaemonProgram) -> Iterator[dict[str, Signals]]:
    """What the ObjectManager says."""
    with ExitStack() as stack:
        names = ("InterfacesAdded", "InterfacesRemoved")
        yield {name: stack.enter_context(listening(daemon, OBJECT_MANAGER, name)) for name in names}


@pytest.mark.service
def test_each_tier_is_an_object(daemon: DaemonProgram) -> None:
    found = managed(daemon)
    assert set(found) == {DRAM, SLOW} and found[DRAM] == {INTERFACE: SHOWN_DRAM}
    assert shown(daemon, DRAM) == SHOWN_DRAM and shown(daemon, SLOW)["Kind"] == "slow"
    get = f"{PROPERTIES}.Get"
    assert daemon.bus.call("org.tierd1", SLOW, get, ("s", INTERFACE), ("s", "Nodes")) == ([1],)
    member = "org.freedesktop.DBus.Introspectable.Introspect"
    served = Gio.DBusNodeInfo.new_for_xml(daemon.bus.call("org.tierd1", DRAM, member)[0])
    served = served.lookup_interface(INTERFACE)
    assert {prop.name: prop.signature for prop in served.properties} == {
        prop.name: prop.signature
        for prop in Gio.DBusNodeInfo.new_for_xml(introspection_xml(INTERFACE)).interfaces[0].properties
    }
    above = Gio.DBusNodeInfo.new_for_xml(daemon.bus.call("org.tierd1", "/org/tierd1", member)[0])
    assert [node.path for node in above.nodes] == ["tier"], "busctl tree finds it"


@pytest.mark.service
def test_a_tier_goes_and_comes_back(daemon: DaemonProgram, heard: dict[str, Signals]) -> None:
    before = shown(daemon, SLOW)
    for round_number in range(1, 4):
        daemon.order("show", slow=False)
        wait_for(lambda: len(heard["InterfacesRemoved"]) == round_number, "that it is gone")  # noqa: B023
        assert set(managed(daemon)) == {DRAM}
        with pytest.raises(GLib.Error) as caught:
            shown(daemon, SLOW)
        assert "org.freedesktop.DBus.Error.Unknown" in str(caught.value)
        daemon.order("show", slow=True)
        wait_for(lambda: len(heard["InterfacesAdded"]) == round_number, "that it is back")  # noqa: B023
        assert shown(daemon, SLOW) == before
    assert [got for _, got in heard["InterfacesRemoved"]] == [(SLOW, [INTERFACE])] * 3
    assert [got for _, got in heard["InterfacesAdded"]] == [(SLOW, {INTERFACE: before})] * 3


@pytest.mark.service
def test_tiers_are_back_with_the_bus(daemon: DaemonProgram) -> None:
    daemon.bus.stop()
    daemon.event("bus-lost")
    daemon.order("show", slow=False)
    time.sleep(0.3)
    daemon.bus.start()
    wait_for(lambda: set(managed(daemon)) == {DRAM}, "the return, without the tier that went meanwhile")
    assert shown(daemon, DRAM) == SHOWN_DRAM
    daemon.order("show", slow=True)
    wait_for(lambda: set(managed(daemon)) == {DRAM, SLOW}, "the tier that appeared")
    assert daemon.events("internal-error") == []
