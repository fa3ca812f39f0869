"""Nodes, watermarks and memory tiers of machines made of files."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernel.fixtures import MIB, Machine, fail_reading
from tierd.core.model import FARTHEST, PAGE_SIZE, TierKind
from tierd.errors import DeniedError, GoneError, MalformedError, TierdError
from tierd.kernel.topology import (
    read_free,
    read_high_watermarks,
    read_mapped,
    read_topology,
    refresh_free,
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path).write()


def test_two_tiers(machine: Machine) -> None:
    topology = read_topology(machine.root)
    assert topology.tiered
    assert [(tier.name, tier.kind) for tier in topology.tiers] == [
        ("memory_tier4", TierKind.DRAM),
        ("memory_tier22", TierKind.SLOW),
    ]
    (dram,), (slow,) = topology.dram, topology.slow
    assert (dram.number, dram.total, dram.free) == (0, 1024 * MIB, 400 * MIB)
    assert (slow.number, slow.total, slow.free) == (1, 4096 * MIB, 3000 * MIB)
    assert (dram.has_cpus, dram.movable_only, dram.read_latency) == (True, False, 80)
    assert (slow.has_cpus, slow.movable_only, slow.read_latency) == (False, True, 300)


def test_distances_are_those_of_the_nodes_that_are_online(machine: Machine) -> None:
    machine.put(machine.root.nodes / "online", "0-1,3\n")
    machine.put(machine.root.nodes / "node0/distance", "10 17 21\n")
    machine.put(machine.root.nodes / "node1/distance", "17 10\n")
    (dram,), (slow,) = (read_topology(machine.root).dram, read_topology(machine.root).slow)
    assert dram.distances == ((0, 10), (1, 17), (3, 21))
    assert (dram.distance(3), dram.distance(2)) == (21, FARTHEST)
    assert slow.distances == (), "a node came between the two"
    machine.put(machine.root.nodes / "node0/distance", "10 x 21\n")
    assert read_topology(machine.root).dram[0].distances == ()


def test_high_watermarks_are_summed_over_zones_and_nothing_else_is(machine: Machine) -> None:
    assert read_high_watermarks(machine.root) == {0: 3100 * PAGE_SIZE, 1: 9000 * PAGE_SIZE}
    assert read_topology(machine.root).dram[0].high_watermark == 3100 * PAGE_SIZE


def test_free_memory_is_read_anew(machine: Machine) -> None:
    assert read_free(machine.root, 0) == 400 * MIB
    machine.write_free(0, 7 * MIB)
    assert read_free(machine.root, 0) == 7 * MIB


def test_tiers_are_sorted_by_rank_and_not_by_name(tmp_path: Path) -> None:
    machine = Machine(tmp_path, nodes={n: (MIB, MIB) for n in range(3)}, tiers={100: "2", 22: "1", 4: "0"})
    assert [tier.name for tier in read_topology(machine.write().root).tiers] == [
        "memory_tier4",
        "memory_tier22",
        "memory_tier100",
    ]


def test_memory_faster_than_that_of_the_cpus_is_fast_memory(tmp_path: Path) -> None:
    """High-bandwidth memory without CPUs, DRAM, and persistent memory behind."""
    machine = Machine(tmp_path, nodes={n: (MIB, MIB) for n in range(3)}, tiers={2: "2", 4: "0", 22: "1"})
    topology = read_topology(machine.write().root)
    assert [n.number for n in topology.dram] == [2, 0] and [n.number for n in topology.slow] == [1]


def test_two_sockets(tmp_path: Path) -> None:
    machine = Machine(
        tmp_path, nodes={n: (MIB, MIB) for n in range(4)}, cpu_nodes="0-1", tiers={4: "0-1", 22: "2-3"}
    )
    topology = read_topology(machine.write().root)
    assert [n.number for n in topology.dram] == [0, 1] and [n.number for n in topology.slow] == [2, 3]


def test_each_cpu_is_near_its_own_dram(tmp_path: Path) -> None:
    """CPU 5 is offline, and node 4 has CPUs and no memory."""
    machine = Machine(
        tmp_path, nodes={n: (MIB, MIB) for n in range(4)}, cpu_nodes="0-1,4", tiers={4: "0-1", 22: "2-3"}
    )
    machine.cpus = {0: "0-1,6", 1: "2-3,7", 4: "4"}
    assert read_topology(machine.write().root).near == (0, 0, 1, 1, -1, -1, 0, 1)


def test_what_is_near_is_read_with_the_nodes_and_kept_between(machine: Machine) -> None:
    before = read_topology(machine.root)
    machine.cpus = {0: "0-2"}
    machine.write()
    assert before.near == refresh_free(machine.root, before).near == (0, 0)
    assert read_topology(machine.root).near == (0, 0, 0)


def test_a_node_without_a_list_of_cpus_is_near_none(machine: Machine) -> None:
    (machine.root.nodes / "node0/cpulist").unlink()
    assert read_topology(machine.root).near == ()
    machine.put(machine.root.nodes / "node0/cpulist", "some\n")
    with pytest.raises(MalformedError, match="node0/cpulist"):
        read_topology(machine.root)


def test_one_tier_only(tmp_path: Path) -> None:
    machine = Machine(tmp_path, nodes={0: (MIB, MIB)}, tiers={4: "0"}).write()
    topology = read_topology(machine.root)
    assert not topology.tiered and len(topology.dram) == 1


def test_persistent_memory_in_the_tier_of_dram_is_nothing_to_place(tmp_path: Path) -> None:
    machine = Machine(tmp_path, tiers={4: "0-1"}).write()
    assert not read_topology(machine.root).tiered


def test_a_kernel_without_memory_tiers(tmp_path: Path) -> None:
    machine = Machine(tmp_path, tiers={}).write()
    topology = read_topology(machine.root)
    assert [n.number for n in topology.dram] == [0] and [n.number for n in topology.slow] == [1]


def test_a_kernel_without_numa(tmp_path: Path) -> None:
    assert read_topology(Machine(tmp_path).root).tiers == ()


def test_a_node_taken_offline_between_two_reads(machine: Machine) -> None:
    (machine.root.nodes / "node1/meminfo").unlink()
    topology = read_topology(machine.root)
    assert not topology.tiered and [n.number for n in topology.dram] == [0]


def test_a_tier_taken_away_between_two_reads(machine: Machine) -> None:
    (machine.root.memory_tiers / "memory_tier22/nodelist").unlink()
    assert not read_topology(machine.root).tiered


def test_nodes_without_memory_are_no_nodes(tmp_path: Path) -> None:
    machine = Machine(tmp_path, nodes={0: (MIB, MIB), 1: (4 * MIB, MIB)}, tiers={4: "0,2", 22: "1"}).write()
    assert [n.number for n in read_topology(machine.root).dram] == [0]


def test_firmware_without_hmat(tmp_path: Path) -> None:
    machine = Machine(tmp_path, latency={}).write()
    assert [n.read_latency for n in read_topology(machine.root).dram] == [None]


@pytest.mark.parametrize("text", ["0\n", "fast\n", ""])
def test_a_latency_that_says_nothing(machine: Machine, text: str) -> None:
    machine.put(machine.root.nodes / "node1/access1/initiators/read_latency", text)
    assert read_topology(machine.root).slow[0].read_latency is None


@pytest.mark.parametrize("text", ["", "Node 1 MemTotal: 5 kB\n", "Node 1 MemFree: many kB\n", "\0\xff"])
def test_malformed_meminfo(machine: Machine, text: str) -> None:
    machine.put(machine.root.nodes / "node1/meminfo", text)
    with pytest.raises(MalformedError, match="node1/meminfo"):
        read_free(machine.root, 1)
    with pytest.raises(MalformedError, match="node1/meminfo"):
        read_topology(machine.root)


@pytest.mark.parametrize("name", ["has_memory", "has_cpu", "has_normal_memory"])
@pytest.mark.parametrize("text", ["zero\n", "0-x\n", "-\n"])
def test_malformed_lists_of_nodes(machine: Machine, name: str, text: str) -> None:
    machine.put(machine.root.nodes / name, text)
    with pytest.raises(MalformedError):
        read_topology(machine.root)


def test_a_malformed_tier(machine: Machine) -> None:
    machine.put(machine.root.memory_tiers / "memory_tier22/nodelist", "one\n")
    with pytest.raises(MalformedError, match="memory_tier22"):
        read_topology(machine.root)


def test_gone(machine: Machine) -> None:
    with pytest.raises(GoneError, match="node9"):
        read_free(machine.root, 9)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_denied(machine: Machine, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    fail_reading(monkeypatch, machine.root.nodes / "node0/meminfo", code)
    with pytest.raises(DeniedError, match="node0/meminfo"):
        read_free(machine.root, 0)


def test_without_watermarks_nothing_is_reported_as_room(machine: Machine) -> None:
    """The floor is made of them: a topology without them would allow too much."""
    (machine.root.proc / "zoneinfo").unlink()
    with pytest.raises(TierdError, match="zoneinfo"):
        read_topology(machine.root)


@pytest.mark.parametrize("text", ["", "Node 0, zone   Normal\n        high     many\n", "\0\xff"])
def test_malformed_zoneinfo(machine: Machine, text: str) -> None:
    machine.put("proc/zoneinfo", text)
    with pytest.raises(MalformedError, match="zoneinfo"):
        read_topology(machine.root)


def test_a_node_that_zoneinfo_does_not_name_yet_is_no_node_yet(tmp_path: Path) -> None:
    """It is coming online; with a watermark of 0 its floor would be far too low."""
    machine = Machine(tmp_path, high_pages={0: (), 1: (9000,)}).write()
    assert read_topology(machine.root).dram == ()


def test_a_recorded_machine_can_change(machine: Machine) -> None:
    """Memory that is plugged in while the system runs is there in the next reading."""
    grown = replace(machine, nodes={**machine.nodes, 2: (MIB, MIB)}, tiers={4: "0", 22: "1-2"})
    grown.high_pages = {**machine.high_pages, 2: (10,)}
    assert [n.number for n in read_topology(grown.write().root).slow] == [1, 2]


def test_what_is_in_page_tables(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.mapped = {0: (5 << 20, 1 << 20), 1: (300 << 20, 8 << 20)}
    machine.write()
    assert read_mapped(machine.root, [1]) == 308 << 20
    assert read_mapped(machine.root, [0, 1]) == 314 << 20
    assert read_mapped(machine.root, []) == 0
    assert read_mapped(machine.root, [1, 7]) is None, "a node that is gone"
    del machine.mapped[1]
    machine.write()
    assert read_mapped(machine.root, [1]) is None, "or does not say"
