"""Kinds of device, memory-side caches and CXL, from trees with the files that were seen on 6.12 and 7.3."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kernel.fixtures import Machine as Nodes
from tests.kernel.fixtures.provisioned import Machine
from tests.kernel.fixtures.simulated_cxl import GIB, SimulatedCxl
from tierd.cli.devices import show
from tierd.cli.offline import read_tiers
from tierd.cli.render import Style, tiers
from tierd.core.kinds_of_device import DaxKind, RegionKind, kind_of_region, label_less_words
from tierd.core.memory_side_cache import MemorySideCache
from tierd.core.model import Topology
from tierd.core.state import State
from tierd.kernel.cxl import read_memdevs, read_regions
from tierd.kernel.dax import read_kind
from tierd.kernel.memory_side_caches import read_memory_side_caches
from tierd.kernel.paths import Root
from tierd.kernel.picture import take_picture
from tierd.kernel.topology import read_topology, refresh_free
from tierd.service.events import MEMORY_MODE, events_between

CACHE = {"size": "1073741824", "line_size": "64", "indexing": "0", "write_policy": "0"}
SEEN = MemorySideCache(0, 1, GIB, 64, "direct-mapped", "write-back")


def with_cache(path: Path, **changes: str) -> Nodes:
    machine = Nodes(path).write()
    for name, content in (CACHE | changes).items():
        machine.put(machine.root.nodes / f"node0/memory_side_cache/index1/{name}", f"{content}\n")
    machine.put(machine.root.nodes / "node0/memory_side_cache/power/async", "disabled\n")
    return machine


def test_a_memory_side_cache_is_seen_with_the_nodes_and_kept_between(tmp_path: Path) -> None:
    machine = with_cache(tmp_path)
    topology = read_topology(machine.root)
    assert topology.caches == (SEEN,)
    assert refresh_free(machine.root, topology).caches == (SEEN,)
    assert read_topology(Nodes(tmp_path / "none").write().root).caches == ()


@pytest.mark.parametrize("changes", [{"size": "0"}, {"size": "big"}, {"line_size": ""}])
def test_a_cache_that_is_badly_described_stops_nothing(tmp_path: Path, changes: dict[str, str]) -> None:
    machine = with_cache(tmp_path, **changes)
    assert read_memory_side_caches(machine.root, 0) == ()
    assert read_topology(machine.root).tiered


def test_a_cache_is_said_once_in_the_journal_and_always_in_the_status(tmp_path: Path) -> None:
    topology = read_topology(with_cache(tmp_path).root)
    before, after = State(), State(topology=topology)
    (event,) = [event for event in events_between(before, after) if event.type is MEMORY_MODE]
    assert event.message.startswith(
        "node 0 is behind a memory-side cache of 1.0 GiB (direct-mapped, write-back)"
    )
    assert "tierd neither sees nor guides" in event.message
    assert event.fields == {"TIERD_NODE": "0", "TIERD_CACHE_BYTES": str(GIB)}
    assert not [event for event in events_between(after, after) if event.type is MEMORY_MODE]
    gone = State(topology=Topology(topology.tiers))
    assert not [event for event in events_between(after, gone) if event.type is MEMORY_MODE]
    found = read_tiers(with_cache(tmp_path / "again").root)
    assert [("memory_side_caches" in tier) for tier in found] == [True, False]
    assert "Memory Mode" in "\n".join(tiers(found, Style(width=200)))


@pytest.mark.parametrize(
    ("provider", "kind", "words"),
    [
        ("ACPI.NFIT", RegionKind.NVDIMM, "`ndctl init-labels`"),
        ("virtio-pmem", RegionKind.VIRTIO, "is virtio-pmem, which has no labels"),
        ("e820", RegionKind.MEMMAP, "memmap= on the kernel's command line"),
        ("CXL", RegionKind.CXL, "nothing tells its namespaces apart"),
        ("", RegionKind.UNKNOWN, "nothing tells its namespaces apart"),
    ],
)
def test_a_region_is_known_by_the_provider_of_its_bus(
    tmp_path: Path, provider: str, kind: RegionKind, words: str
) -> None:
    machine = Machine(tmp_path)
    devices = machine.root.nd_devices
    home = machine.root.sys / "devices/platform/ACPI0012:00/ndbus0"
    home.mkdir(parents=True)
    (devices / "region0").rename(home / "region0")
    (devices / "region0").symlink_to(home / "region0")
    (home / "region0/nstype").write_text("4\n")
    if provider:
        (home / "provider").write_text(f"{provider}\n")
    picture = take_picture(machine.root, machine.tools, tmp_path / "record")
    assert picture.inventory is not None
    (region,) = picture.inventory.regions
    assert kind_of_region(region) is kind and words in label_less_words(region)
    shown, _ = show(machine.root, machine.tools, tmp_path / "record", None)
    (row,) = json.loads(shown)["regions"]
    assert row["kind"] == kind.value and row["could"]["verdict"] == "refused"
    assert [r["kind"] for r in row["could"]["reasons"]] == ["label-less"]


@pytest.mark.parametrize(
    ("home", "kind"),
    [
        ("platform/ACPI0017:00/root0/decoder0.0/region0/dax_region0", DaxKind.CXL),
        ("platform/hmem_platform.0/hmem.5", DaxKind.SOFT_RESERVED),
        ("platform/hmem.0", DaxKind.SOFT_RESERVED),
        ("platform/ACPI0012:00/ndbus0/region0/dax0.0", DaxKind.PERSISTENT),
        ("platform/something", DaxKind.UNKNOWN),
    ],
)
def test_a_dax_device_is_known_by_where_it_is(tmp_path: Path, home: str, kind: DaxKind) -> None:
    root = Root(tmp_path)
    directory = root.sys / "devices" / home / "dax0.1"
    directory.mkdir(parents=True)
    root.dax_devices.mkdir(parents=True)
    (root.dax_devices / "dax0.1").symlink_to(directory)
    assert read_kind(root, "dax0.1") is kind


def region(machine: SimulatedCxl, **changes: object) -> None:
    facts: dict[str, object] = {"size": GIB, "ways": 1, "committed": True, "driver": "kmem"}
    state = {"regions": {"region3": {**facts, "targets": [["mem0", 0]], **changes}}, "vice": ""}
    machine.save(state)
    machine.draw()


def test_cxl_devices_and_regions(tmp_path: Path) -> None:
    machine = SimulatedCxl(tmp_path).begin()
    free = [(m.name, m.serial, m.volatile, m.free, m.bridge) for m in read_memdevs(machine.root)]
    assert free == [("mem0", 0x1234, GIB, GIB, "12"), ("mem1", 0x1235, GIB, GIB, "12")]
    region(machine, size=GIB // 2)
    assert [m.free for m in read_memdevs(machine.root)] == [GIB // 2, GIB]
    (found,) = read_regions(machine.root, None)
    assert (found.mode, found.size, found.memdevs, found.devices) == (
        "ram",
        GIB // 2,
        ("mem0",),
        ("dax0.0",),
    )
    assert (found.committed, found.enabled, found.window, found.dax) == (True, True, "decoder0.0", None)
    region(machine, committed=False, driver="", targets=[], ways=0, size=0)
    (found,) = read_regions(machine.root, 128 << 20)
    assert (found.memdevs, found.committed, found.enabled) == ((), False, False)


def test_a_machine_without_cxl(tmp_path: Path) -> None:
    assert read_memdevs(Root(tmp_path)) == read_regions(Root(tmp_path), None) == ()


def listed(machine: SimulatedCxl) -> dict[str, list[dict[str, object]]]:
    machine.stub("ndctl", "exit 0")
    found: dict[str, list[dict[str, object]]] = json.loads(
        show(machine.root, machine.tools, machine.directory / "record", None)[0]
    )
    return found


def test_cxl_in_the_picture(tmp_path: Path) -> None:
    machine = SimulatedCxl(tmp_path).begin()
    found = listed(machine)
    assert found["faults"] == [] and [m["serial"] for m in found["cxl_memdevs"]] == ["0x1234", "0x1235"]
    could = found["cxl_memdevs"][0]["could"]
    assert isinstance(could, dict) and (could["verdict"], could["memory"]) == ("ready", GIB)
    region(machine)
    machine.add_memory(GIB, "Normal")
    machine.draw()
    found = listed(machine)
    assert found["cxl_memdevs"][0]["could"] is None and found["cxl_memdevs"][0]["regions"] == ["region3"]
    assert [(r["name"], r["devices"]) for r in found["cxl_regions"]] == [("region3", ["dax0.0"])]
    (device,) = found["dax_devices"]
    assert (device["kind"], device["movable_blocks"], device["blocks"]) == ("CXL memory", 0, 8)
    could = device["could"]
    assert isinstance(could, dict) and could["verdict"] == "done"
    assert [reason["kind"] for reason in could["reasons"]] == ["zone"]
    text, _ = show(machine.root, machine.tools, tmp_path / "record", Style(width=120))
    assert "region3     1.0 GiB  ram   mem0  dax0.0" in text.splitlines()
    assert "dax0.0: it is memory already" in text and "not Movable" in text


def test_a_cxl_device_in_devdax_mode_is_refused_with_what_it_is(tmp_path: Path) -> None:
    machine = SimulatedCxl(tmp_path).begin()
    region(machine, driver="device_dax")
    (device,) = listed(machine)["dax_devices"]
    could = device["could"]
    assert isinstance(could, dict) and could["verdict"] == "refused"
    (reason,) = could["reasons"]
    assert reason["words"].startswith("dax0.0 is CXL memory, in no region of persistent memory")
