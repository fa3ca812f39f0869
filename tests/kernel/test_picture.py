"""The machine as one picture, from recorded machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.fixtures.provisioned import Machine
from tierd.core.picture import BlockRun, Picture, block_runs
from tierd.errors import DeniedError
from tierd.kernel import files
from tierd.kernel.picture import take_picture
from tierd.kernel.tools import Tools

GIB = 1 << 30


def look(machine: Machine, tools: Tools | None = None) -> Picture:
    return take_picture(machine.root, tools or machine.tools, machine.directory / "record")


def test_everything_there_is(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "several")
    machine.write("proc/self/mountinfo", "40 22 0:9 / /srv rw - btrfs /dev/pmem0.1 rw\n")
    found = look(machine)
    assert found.listed and not found.blind and found.unseen == found.faults == ()
    assert [(dimm.name, dimm.size, dimm.regions) for dimm in found.dimms] == [
        ("nmem0", 4 * GIB, ("region0",))
    ]
    assert found.inventory is not None and len(found.inventory.regions[0].namespaces) == 5
    assert {view.name: (view.driver, view.namespace, view.target_node) for view in found.dax} == {
        "dax0.0": ("kmem", "namespace0.0", 1),
        "dax0.4": ("device_dax", "namespace0.4", 1),
    }
    assert found.users["pmem0.1"] == ("btrfs at /srv",)
    assert found.sizes["region0"] == 4 * GIB and found.sizes["namespace0.3"] == 128 << 20
    assert [node.number for node in found.nodes] == [0, 1]
    assert [tier.name for tier in found.tiers] == ["memory_tier4", "memory_tier56"]


def test_blocks_that_are_alike_are_taken_together(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "several")
    for number, state in ((0, "online"), (1, "online"), (3, "online"), (41, "offline"), (42, "offline")):
        machine.write(f"sys/devices/system/memory/memory{number}/state", f"{state}\n")
        machine.write(f"sys/devices/system/memory/memory{number}/valid_zones", "Normal\n")
    machine.write("sys/devices/system/memory/memory34/state", "offline\n")
    assert list(block_runs(look(machine))) == [
        BlockRun(0, 2, True, "Normal", None, None),
        BlockRun(3, 1, True, "Normal", None, None),
        BlockRun(33, 1, True, "Movable", 1, "dax0.0"),
        BlockRun(34, 1, False, None, 1, "dax0.0"),
        BlockRun(35, 6, True, "Movable", 1, "dax0.0"),
        BlockRun(41, 2, False, None, None, None),
    ]


def test_without_ndctl_the_rest_is_there(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "several")
    found = look(machine, Tools((tmp_path / "nothing",)))
    assert not found.listed and found.faults == ()
    (sentence,) = found.unseen
    assert sentence.startswith("ndctl is not installed") and "apt install ndctl" in sentence
    assert "nmem0, region0 not shown" in sentence
    assert [view.name for view in found.dax] == ["dax0.0", "dax0.4"]
    assert len(found.blocks) == 8


@pytest.mark.parametrize("script", ["echo '{\"regions\": 3}'", "echo '{'", "echo no >&2; exit 1"])
def test_an_ndctl_that_fails_is_a_fault_and_hides_nothing_else(tmp_path: Path, script: str) -> None:
    machine = Machine(tmp_path, "several")
    machine.stub("ndctl", script)
    found = look(machine)
    assert len(found.faults) == 1 and found.faults[0].startswith(
        "DIMMs, regions and namespaces are not shown"
    )
    assert not found.listed and len(found.dax) == 2


def test_a_region_of_garbage_is_a_fault(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "several")
    machine.write("sys/bus/nd/devices/region0/size", "big\n")
    found = look(machine)
    assert found.inventory is None and len(found.faults) == 1 and "region0/size" in found.faults[0]
    assert len(found.dimms) == 1 and len(found.dax) == 2


def test_what_only_root_may_read_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, "several")
    (tmp_path / "record").mkdir()  # cannot be read, like root's
    read = files.read_text

    def refuse(path: Path) -> str:
        if path.name == "resource":
            raise DeniedError(f"{path}: permission denied")
        return read(path)

    monkeypatch.setattr(files, "read_text", refuse)
    found = look(machine)
    assert found.blind and found.faults == ()
    (sentence,) = found.unseen
    # region, five namespaces, two devices, the record
    assert sentence.startswith("9 files can be read by root only (") and " and 6 more)" in sentence
    assert found.inventory is not None
    (region,) = found.inventory.regions
    assert region.span is None and region.available == GIB
    assert [n.span for n in region.namespaces] == [None] * 5
    assert found.sizes["namespace0.3"] == 128 << 20
    assert {view.name: view.device for view in found.dax} == {"dax0.0": None, "dax0.4": None}


def test_a_kernel_without_memory_hotplug(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "free")
    (machine.root.memory_blocks / "block_size_bytes").unlink()
    found = look(machine)
    assert found.inventory is None and found.faults == ()
    assert "no memory hotplug" in found.unseen[0] and len(found.dimms) == 1
