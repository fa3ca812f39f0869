"""The whole picture, from recorded machines."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest

from tests.kernel.fixtures import fail_reading
from tests.kernel.fixtures.provisioned import ISET, Machine
from tierd.core.inventory import Inventory, MemoryBlock, Span
from tierd.errors import GoneError, MalformedError
from tierd.kernel.dax import read_device
from tierd.kernel.intents import Intents
from tierd.kernel.inventory import read_nodes, take_inventory
from tierd.kernel.memory_blocks import read_block_size, read_blocks, take_offline, write_setting
from tierd.kernel.paths import Root

MIB = 1 << 20
GIB = 1 << 30


def look(machine: Machine) -> Inventory:
    return take_inventory(machine.root, machine.tools, Intents(machine.directory / "record", machine.root))


def test_a_free_region(tmp_path: Path) -> None:
    found = look(Machine(tmp_path))
    (region,) = found.regions
    assert (region.iset_id, region.span, region.align) == (ISET, Span(4 * GIB, 4 * GIB), 16 * MIB)
    assert (region.available, region.labelled, region.read_only, region.bad_blocks) == (
        4 * GIB,
        True,
        False,
        0,
    )
    assert (region.target_node, region.locked, region.namespaces, region.half_made) == (1, (), (), ())
    assert found.block_size == 128 * MIB
    (dram,) = found.nodes
    assert dram.dram and dram.number == 0
    assert 900 * MIB < dram.available < dram.total == 1178308 << 10


def test_a_namespace_as_memory(tmp_path: Path) -> None:
    found = look(Machine(tmp_path, "system-ram"))
    (namespace,) = found.regions[0].namespaces
    assert (namespace.label, namespace.mode, namespace.span) == (
        "tierd:pmem0",
        "devdax",
        Span(4 * GIB, 1152 * MIB),
    )
    assert namespace.dax is not None and namespace.dax.system_ram
    assert namespace.dax.span == Span(4 * GIB + 2 * MIB, 1150 * MIB)
    assert [block.number for block in namespace.dax.blocks] == list(range(33, 41))
    assert all(block.movable and block.node == 1 for block in namespace.dax.blocks)
    slow = found.nodes[1]
    assert (slow.number, slow.dram, slow.total, slow.tier) == (1, False, GIB, "memory_tier56")


def test_a_namespace_that_waits(tmp_path: Path) -> None:
    (namespace,) = look(Machine(tmp_path, "devdax")).regions[0].namespaces
    assert namespace.dax is not None and namespace.dax.driver == "device_dax" and namespace.dax.blocks == ()


def test_what_a_killed_ndctl_leaves(tmp_path: Path) -> None:
    region = look(Machine(tmp_path / "a", "half-made")).regions[0]
    assert (region.half_made, region.namespaces) == (("namespace0.0",), ())
    region = look(Machine(tmp_path / "b", "raw")).regions[0]
    assert region.half_made == ()
    assert [(n.label, n.mode) for n in region.namespaces] == [("tierd:pmem0", "raw")]


def test_free_and_held_capacity_add_up(tmp_path: Path) -> None:
    for state in ("free", "raw", "devdax", "system-ram", "several", "disabled"):
        region = look(Machine(tmp_path / state, state)).regions[0]
        assert region.span is not None
        held = sum(n.span.size for n in region.namespaces if n.span is not None)
        assert held + region.available == region.span.size, state


def test_disabled_namespaces_are_known_for_that(tmp_path: Path) -> None:
    namespaces = look(Machine(tmp_path, "disabled")).regions[0].namespaces
    assert {n.label: n.enabled for n in namespaces} == {
        "tierd:pmem0": True,  # in use as memory: ndctl refused
        "second": False,
        "data": False,
        "log": False,
        "plain": False,
    }


@pytest.mark.parametrize(
    ("name", "content", "field", "value"),
    [
        ("region0/read_only", "1\n", "read_only", True),
        ("region0/badblocks", "8 1\n64 2\n", "bad_blocks", 2),
        ("region0/nstype", "4\n", "labelled", False),
        ("region0/target_node", "-1\n", "target_node", None),
        ("nmem0/flags", "label lock \n", "locked", ("nmem0",)),
    ],
)
def test_what_is_wrong_is_seen(tmp_path: Path, name: str, content: str, field: str, value: object) -> None:
    machine = Machine(tmp_path)
    machine.write(f"sys/bus/nd/devices/{name}", content)
    assert getattr(look(machine).regions[0], field) == value


def test_bad_blocks_that_cannot_be_read_are_not_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path)
    listed = machine.root.nd_devices / "region0/badblocks"
    with monkeypatch.context() as context:
        fail_reading(context, listed, errno.ENXIO)
        assert look(machine).regions[0].bad_blocks == 0, "of a region without a driver"
    fail_reading(monkeypatch, listed, errno.EIO)
    with pytest.raises(MalformedError, match="region0/badblocks: Input/output error"):
        look(machine)


def test_garbage_in_sysfs_is_malformed(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write("sys/bus/nd/devices/region0/size", "big\n")
    with pytest.raises(MalformedError, match="region0/size"):
        look(machine)


def test_a_region_that_vanishes_between_the_looks_is_left_out(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.root.nd_devices / "region0/read_only").unlink()
    assert look(machine).regions == ()


def test_devices_that_are_not_there(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with pytest.raises(GoneError):
        read_device(machine.root, "dax0.0", 128 * MIB)


@pytest.mark.parametrize("text", ["0\n", "8000001\n", "-8000000\n", "\n"])
def test_a_block_size_that_cannot_be(tmp_path: Path, text: str) -> None:
    machine = Machine(tmp_path)
    machine.write("sys/devices/system/memory/block_size_bytes", text)
    with pytest.raises(MalformedError):
        read_block_size(machine.root)


def test_blocks_in_every_state(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for number, (state, zones) in enumerate(
        [
            ("online", "Movable"),
            ("offline", "Normal Movable"),
            ("going-offline", "none"),
            ("online", "Normal"),
        ],
        40,
    ):
        machine.write(f"sys/devices/system/memory/memory{number}/state", f"{state}\n")
        machine.write(f"sys/devices/system/memory/memory{number}/valid_zones", f"{zones}\n")
    found = read_blocks(machine.root, Span(40 * 128 * MIB - 1, 5 * 128 * MIB), 128 * MIB)
    assert found == (
        MemoryBlock(40, True, "Movable", None),
        MemoryBlock(41, False, None, None),
        MemoryBlock(42, True, None, None),
        MemoryBlock(43, True, "Normal", None),
    )
    assert [block.movable for block in found] == [True, False, False, False]


def test_taking_blocks_offline_writes_each_once_last_first(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "system-ram")
    device = read_device(machine.root, "dax0.0", 128 * MIB)
    (machine.root.memory_blocks / "memory35/state").unlink()
    assert take_offline(machine.root, device.blocks, 5.0) == (35,)
    assert (machine.root.memory_blocks / "memory34/state").read_text() == "offline" or (
        machine.root.memory_blocks / "memory34/state"
    ).read_text().startswith("offline")


def test_the_deadline_ends_a_block_that_cannot_be_emptied(tmp_path: Path) -> None:
    """The kernel's write does not return, as that to a pipe which nobody reads."""
    machine = Machine(tmp_path, "system-ram")
    device = read_device(machine.root, "dax0.0", 128 * MIB)
    state = machine.root.memory_blocks / "memory39/state"
    state.unlink()
    os.mkfifo(state)
    began = time.monotonic()
    stayed = take_offline(machine.root, device.blocks, 0.5)
    assert time.monotonic() - began < 5
    assert stayed == (39, 38, 37, 36, 35, 34, 33)


def test_a_setting_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(GoneError):
        write_setting(Root(tmp_path), "devices/system/memory/memory1/state", "offline")


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("bus/nd/devices/namespace0.0/alt_name", "mine", "alt_name of namespace0.0 is 'tierd:pmem0'"),
        ("bus/nd/devices/namespace0.0/uuid", "another", "uuid of namespace0.0"),
        ("bus/dax/devices/dax0.0/resource", "0x200000000", "dax0.0 as the device of namespace0.0"),
    ],
)
def test_what_ndctl_says_is_held_against_the_kernel(
    tmp_path: Path, path: str, content: str, words: str
) -> None:
    machine = Machine(tmp_path, "system-ram")
    machine.write(f"sys/{path}", f"{content}\n")
    with pytest.raises(MalformedError, match=words):
        look(machine)


def test_a_namespace_that_the_kernel_does_not_have(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "system-ram")
    (machine.root.nd_devices / "namespace0.0").rename(machine.root.nd_devices / "namespace0.7")
    with pytest.raises(MalformedError, match=r"namespace0\.0, which the kernel does not have"):
        look(machine)


def test_slow_memory_outside_the_movable_zone_makes_no_dram_of_its_node(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "several")
    machine.write("sys/devices/system/node/has_normal_memory", "0-1\n")
    nodes = {node.number: node for node in read_nodes(machine.root)}
    assert nodes[1].kernel_memory and nodes[1].slow and not nodes[1].dram
    assert nodes[0].dram and not nodes[0].slow
    machine.write("sys/devices/virtual/memory_tiering/memory_tier4/nodelist", "0-1\n")
    machine.write("sys/devices/virtual/memory_tiering/memory_tier56/nodelist", "\n")
    nodes = {node.number: node for node in read_nodes(machine.root)}
    assert nodes[1].dram


def test_the_dimms_of_a_region_and_their_serial_numbers_are_the_kernels(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write("sys/bus/nd/devices/region0/mappings", "2\n")
    machine.write("sys/bus/nd/devices/region0/mapping0", "nmem0,0,2147483648,0\n")
    machine.write("sys/bus/nd/devices/region0/mapping1", "nmem7,0,2147483648,1\n")
    machine.write("sys/bus/nd/devices/nmem0/nfit/id", "8680-56341200\n")
    (region,) = look(machine).regions
    assert (region.dimms, region.serials) == (("nmem0", "nmem7"), ("8680-56341200", ""))


def test_what_modules_complain_of_is_known_without_asking_their_firmware(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    listing = json.loads((tmp_path / "ndctl.json").read_text())
    listing["dimms"][0]["flag_failed_arm"] = True
    listing["dimms"].append({"dev": "nmem9", "flag_failed_map": True})
    (tmp_path / "ndctl.json").write_text(json.dumps(listing))
    machine.stub("ndctl", 'case "$2" in *H*) exit 9;; esac; exec cat ../ndctl.json')
    (region,) = look(machine).regions
    assert [(dimm.name, dimm.flags, dimm.health) for dimm in region.modules] == [
        ("nmem0", ("failed arm",), None)
    ]


DAXCTL = """# nvdimm.uuid = {uuid}
[other]
nvdimm.uuid = {uuid}
[reconfigure-device second]
nvdimm.uuid = 11111111-4ef9-4fc1-a56b-db81433947dd
[reconfigure-device first]
mode = system-ram
nvdimm.uuid={upper}
"""


@pytest.mark.parametrize("name", ["daxctl.conf.d/a.conf", "daxctl.conf"])
def test_what_daxctl_is_told_to_reconfigure(tmp_path: Path, name: str) -> None:
    machine = Machine(tmp_path, "system-ram")
    (before,) = look(machine).regions[0].namespaces
    assert before.claimed == "" and before.uuid is not None
    machine.write("etc/daxctl.conf.d/a.example", f"[reconfigure-device x]\nnvdimm.uuid={before.uuid}\n")
    assert look(machine).regions[0].namespaces == (before,)
    machine.write(f"etc/{name}", DAXCTL.format(uuid=before.uuid, upper=before.uuid.upper()))
    (after,) = look(machine).regions[0].namespaces
    assert after.claimed == f"/etc/{name}, line 8"


def test_a_configuration_of_daxctl_that_cannot_be_read_is_no_empty_one(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.root.path / "etc/daxctl.conf").mkdir(parents=True)
    with pytest.raises(MalformedError, match=r"daxctl\.conf"):
        look(machine)
